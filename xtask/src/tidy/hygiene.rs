//! Small things a reviewer should not have to look for.

use super::Finding;
use super::tree::{File, Tree};

/// A file longer than this holds more than one idea.
const RUST_LINES_MAX: usize = 600;
/// Longest line of Rust in characters; rustfmt leaves comments and strings alone.
const RUST_COLUMNS_MAX: usize = 120;

/// Words that admit unfinished work. Whole words only.
const UNFINISHED: [&str; 5] = ["todo!", "unimplemented!", "TODO", "FIXME", "XXX"];
/// A test that does not run proves nothing.
const IGNORED_TEST: &str = "#[ignore";
/// Folders of one developer's machine, which mean nothing on another.
const FOREIGN_FOLDERS: [&str; 2] = ["/work/", "/tmp/target"];
/// The checks and their tests spell out what they refuse.
const SPELLS_IT_OUT: &str = "xtask/src/tidy/";

/// Names of text files by their ending.
const TEXT: [&str; 7] = [".rs", ".md", ".toml", ".sh", ".yml", ".yaml", ".ci/run"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let is_text = |file: &&File| TEXT.iter().any(|ending| file.path.ends_with(ending));
    tree.files().iter().filter(is_text).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    if file.text.is_none() {
        return vec![Finding::in_file(&file.path, "is not UTF-8")];
    }
    let mut findings = Vec::new();
    if !file.text().is_empty() && !file.text().ends_with('\n') {
        findings.push(Finding::in_file(&file.path, "the last line has no newline"));
    }
    let line_count = file.text().lines().count();
    if file.is_rust() && line_count > RUST_LINES_MAX {
        let what = format!("{line_count} lines; split files over {RUST_LINES_MAX} by idea");
        findings.push(Finding::in_file(&file.path, what));
    }
    for (number, line) in file.lines() {
        findings.extend(
            check_line(file, line).into_iter().map(|what| Finding::at(&file.path, number, what)),
        );
    }
    findings
}

/// What is wrong with one line.
fn check_line(file: &File, line: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !file.path.starts_with(SPELLS_IT_OUT) {
        for folder in FOREIGN_FOLDERS {
            if has_word(line, folder) {
                wrong.push(format!("`{folder}` is a folder of one machine"));
            }
        }
    }
    if !file.is_rust() {
        return wrong;
    }
    if line.contains('\t') {
        wrong.push("a tab; indent with spaces".into());
    }
    let columns = line.chars().count();
    if columns > RUST_COLUMNS_MAX {
        wrong.push(format!("{columns} characters; at most {RUST_COLUMNS_MAX} fit beside a diff"));
    }
    if file.path.starts_with("xtask/") {
        return wrong;
    }
    if line.contains(IGNORED_TEST) {
        wrong.push("a test that is ignored proves nothing".into());
    }
    if !file.is_test() {
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            wrong.push(format!("`{word}` marks unfinished work"));
        }
    }
    wrong
}

/// Whether `word` occurs in `line` without a letter, digit or underscore before it, nor after
/// it where it ends in one itself.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let open_end = word.ends_with(is_letter) && !word.starts_with('/');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next().filter(|_| open_end);
        !before.into_iter().chain(after).any(is_letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings for one file, as the terminal shows them.
    fn check_text(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(ToString::to_string).collect()
    }

    const LIB: &str = "crates/a/src/lib.rs";

    #[test]
    fn clean_sources_and_bytes_of_other_kinds_pass() {
        assert_eq!(check_text(LIB, "//! Fine: mkstemp takes fooXXXXXX.\n"), [""; 0]);
        assert_eq!(check_text("testdata/a.dump", "no newline \t FIXME"), [""; 0]);
        assert_eq!(check_text("README.md", "a homework/folder/ is fine\n"), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_refused_where_it_ships() {
        for word in ["todo!()", "unimplemented!()", "// FIXME", "// XXX: hm", "// TODO later"] {
            let found = check_text(LIB, &format!("//! Fine.\n{word}\n"));
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert!(found[0].starts_with("crates/a/src/lib.rs:2: "), "{found:?}");
        }
    }

    #[test]
    fn an_ignored_test_is_refused_in_tests_too() {
        let found = check_text("crates/a/tests/it/main.rs", "#[ignore = \"slow\"]\n");
        assert_eq!(found, ["crates/a/tests/it/main.rs:1: a test that is ignored proves nothing"]);
    }

    #[test]
    fn folders_of_one_machine_are_refused_in_docs_and_sources() {
        for path in [LIB, "docs/format.md", "README.md", ".ci/run", "xtask/src/main.rs"] {
            for text in ["// see /work/shared\n", "\"/tmp/target-me/debug\"\n"] {
                assert_eq!(check_text(path, text).len(), 1, "{path}: {text}");
            }
        }
    }

    #[test]
    fn tabs_long_lines_and_a_missing_newline_are_refused() {
        assert_eq!(check_text(LIB, "\tx\n"), ["crates/a/src/lib.rs:1: a tab; indent with spaces"]);
        assert_eq!(check_text(LIB, "x"), ["crates/a/src/lib.rs: the last line has no newline"]);
        assert_eq!(check_text(LIB, &format!("{}\n", "ä".repeat(RUST_COLUMNS_MAX))), [""; 0]);
        assert_eq!(check_text(LIB, &format!("{}\n", "ä".repeat(RUST_COLUMNS_MAX + 1))).len(), 1);
    }

    #[test]
    fn a_long_file_is_refused() {
        assert_eq!(check_text(LIB, &"\n".repeat(RUST_LINES_MAX)), [""; 0]);
        let found = check_text(LIB, &"\n".repeat(RUST_LINES_MAX + 1));
        assert_eq!(found, ["crates/a/src/lib.rs: 601 lines; split files over 600 by idea"]);
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("lib.rs"), [0xff, b'\n']).unwrap();
        let found = check(&Tree::read(root.path()).unwrap());
        assert_eq!(found, [Finding::in_file("lib.rs", "is not UTF-8")]);
    }
}
