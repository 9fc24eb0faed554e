//! How large things are: a report to read, limits for the frontends and for the second reader.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Finding;
use super::tree::{File, Tree};

/// Frontends parse words, call libraries and draw results. What needs more is a library. Each with
/// the lines of `src/` it may have.
const FRONTENDS: [(&str, usize); 3] = [
    ("crates/cli", 900),
    ("crates/agent", 900),
    // Its screens are a library, `crates/explorer-model`.
    ("crates/image-explorer", 500),
];

/// A format that takes more than this to read is no small one. Every line of Python counts, blank
/// ones and comments too, but those of the tests.
const READER: &str = "docs/reader";
const READER_TESTS: &str = "docs/reader/test_reader.py";
const READER_LINES_MAX: usize = 800;
/// Longest line of the reader in characters: fewer lines must not mean wider ones.
const READER_COLUMNS_MAX: usize = 120;

/// Files from this size on are listed: they are candidates for a split.
const LISTED_LINES_MIN: usize = 450;
/// The largest files are listed in any case.
const LISTED_MIN: usize = 5;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (frontend, lines, max) in frontends(tree) {
        if lines > max {
            let what = format!(
                "{lines} lines of source; this frontend with more than {max} hides a library"
            );
            findings.push(Finding::in_file(frontend, what));
        }
    }
    let lines = reader_lines(tree);
    if lines > READER_LINES_MAX {
        let what = format!("{lines} lines; the second reader may have {READER_LINES_MAX}");
        findings.push(Finding::in_file(READER, what));
    }
    for file in reader_files(tree) {
        let wide = file.lines().filter(|(_, line)| line.chars().count() > READER_COLUMNS_MAX);
        let what = format!("more than {READER_COLUMNS_MAX} characters");
        findings.extend(wide.map(|(number, _)| Finding::at(&file.path, number, what.clone())));
    }
    findings
}

/// Lines per crate, the largest files, and the frontends.
pub(super) fn report(tree: &Tree) -> String {
    let mut text = String::from("size: lines of Rust       source    tests\n");
    for (name, lines) in crates(tree) {
        let _ = writeln!(text, "size: {name:<24} {:>7} {:>8}", lines.source, lines.tests);
    }
    for (name, lines, max) in frontends(tree) {
        let _ = writeln!(text, "size: frontend {name}: {lines} lines of {max}");
    }
    let _ = writeln!(text, "size: {READER}: {} lines of {READER_LINES_MAX}", reader_lines(tree));
    let mut files: Vec<_> = tree.rust_files().map(|file| (line_count(file), &file.path)).collect();
    files.sort_by(|a, b| b.cmp(a));
    text.push_str("size: largest files\n");
    for (index, (lines, path)) in files.iter().enumerate() {
        if index < LISTED_MIN || *lines > LISTED_LINES_MIN {
            let _ = writeln!(text, "size: {lines:>7} {path}");
        }
    }
    text
}

#[derive(Default)]
struct Lines {
    source: usize,
    tests: usize,
}

/// Lines by crate. Tests are what stands below `tests/`, and the test module that ends a file.
fn crates(tree: &Tree) -> BTreeMap<&str, Lines> {
    let mut crates: BTreeMap<&str, Lines> = BTreeMap::new();
    for file in tree.rust_files() {
        let name = crate_folder(&file.path);
        let all = line_count(file);
        let source = if file.is_test() { 0 } else { source_lines(file) };
        let lines = crates.entry(name).or_default();
        lines.source += source;
        lines.tests += all - source;
    }
    crates
}

fn crate_folder(path: &str) -> &str {
    let depth = if path.starts_with("crates/") { 2 } else { 1 };
    let end = path.match_indices('/').nth(depth - 1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

fn frontends(tree: &Tree) -> Vec<(&'static str, usize, usize)> {
    let mut found = Vec::new();
    for (frontend, max) in FRONTENDS {
        let inside = format!("{frontend}/src/");
        let files = tree.rust_files().filter(|file| file.path.starts_with(&inside));
        let sizes: Vec<usize> = files.map(source_lines).collect();
        if !sizes.is_empty() {
            found.push((frontend, sizes.iter().sum(), max));
        }
    }
    found
}

/// What a stranger reads: its Python without the tests.
fn reader_files(tree: &Tree) -> impl Iterator<Item = &File> {
    let is_reader = |file: &&File| {
        let name = file.path.strip_prefix(READER);
        name.is_some_and(|name| name.ends_with(".py")) && file.path != READER_TESTS
    };
    tree.files().iter().filter(is_reader)
}

fn reader_lines(tree: &Tree) -> usize {
    reader_files(tree).map(line_count).sum()
}

fn line_count(file: &File) -> usize {
    file.text().lines().count()
}

/// Lines before the test module.
fn source_lines(file: &File) -> usize {
    let lines: Vec<&str> = file.text().lines().collect();
    let is_test_module = |pair: &[&str]| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].contains('{')
    };
    lines.windows(2).position(is_test_module).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_that_grew_a_library_is_found() {
        for (frontend, max) in FRONTENDS {
            let (full, more) = ("\n".repeat(max), "\n".repeat(max + 1));
            let main = format!("{frontend}/src/main.rs");
            assert_eq!(check(&Tree::of(&[(&main, &full)])), []);
            let found = check(&Tree::of(&[(&main, &more)]));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].path.as_deref(), Some(frontend));
        }
    }

    #[test]
    fn libraries_and_tests_of_a_frontend_are_not_limited() {
        let text = "\n".repeat(900);
        let tests = format!("{text}#[cfg(test)]\nmod tests {{}}\n");
        let tree = Tree::of(&[
            ("crates/cli/src/main.rs", &tests),
            ("crates/cli/tests/it/main.rs", &text),
            ("crates/chain/src/lib.rs", &tests),
        ]);
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn a_reader_with_a_line_too_many_or_too_wide_is_found() {
        let (half, more) =
            ("\n".repeat(READER_LINES_MAX / 2), "\n".repeat(READER_LINES_MAX / 2 + 1));
        let (one, other) = ("docs/reader/aivone.py", "docs/reader/deeper/aivtwo.py");
        let tests = (READER_TESTS, half.as_str());
        assert_eq!(check(&Tree::of(&[(one, &half), (other, &half), tests])), []);
        let found = check(&Tree::of(&[(one, &half), (other, &more), tests]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path.as_deref(), Some(READER));
        let wide = format!("# {}\n", "x".repeat(READER_COLUMNS_MAX - 1));
        let found = check(&Tree::of(&[(one, &wide), ("docs/reader/README.md", &wide)]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_deref(), found[0].line), (Some(one), 1));
    }

    #[test]
    fn the_report_tells_source_from_tests() {
        let text = report(&Tree::of(&[
            ("crates/a/src/lib.rs", "1\n2\n#[cfg(test)]\nmod tests {}\n"),
            ("crates/a/tests/it/main.rs", "1\n"),
            ("xtask/src/main.rs", "1\n"),
        ]));
        assert!(text.contains("size: crates/a                       2        3\n"), "{text}");
        assert!(text.contains("size: xtask                          1        0\n"), "{text}");
        assert!(text.contains("size:       4 crates/a/src/lib.rs\n"), "{text}");
    }
}
