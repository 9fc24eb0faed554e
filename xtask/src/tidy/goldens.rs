//! A stored test file that no test reads is dead weight, or a test that was lost.

use super::Finding;
use super::tree::{File, Tree};

const FOLDER: &str = "testdata/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let is_test = |file: &&File| file.is_test() || file.text().contains("#[test]");
    let tests: Vec<&str> = tree.rust_files().filter(is_test).map(File::text).collect();
    let stored = |file: &&File| file.path.starts_with(FOLDER) && !file.path.ends_with(".md");
    let stored: Vec<&str> =
        tree.files().iter().filter(stored).map(|file| file.path.as_str()).collect();
    let is_alive = |path: &str| tests.iter().any(|test| mentions(test, path));
    let mut findings = Vec::new();
    for path in &stored {
        let kin = stored.iter().filter(|other| stem(other) == stem(path));
        if !kin.into_iter().any(|path| is_alive(path)) {
            findings.push(Finding::in_file(path, "no test mentions this file or its folder"));
        }
    }
    findings
}

/// Whether a test names the file, or ends a quoted path in its folder (and so reads all of it).
fn mentions(test: &str, path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    let Some(folder) = folder.strip_prefix(FOLDER) else { return test.contains(name) };
    test.contains(name) || ["\"", "/\""].iter().any(|end| test.contains(&format!("{folder}{end}")))
}

/// Files that differ in their endings only belong together: `a.img.zst` and its `a.dump`.
fn stem(path: &str) -> &str {
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = path[name_at..].find('.').map_or(path.len(), |dot| name_at + dot);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(test: &str) -> Vec<String> {
        let files = [
            ("crates/a/tests/it/main.rs", test),
            ("testdata/README.md", ""),
            ("testdata/golden/v1/full.aiv.zst", ""),
            ("testdata/golden/v1/full.dump", ""),
            ("testdata/golden/v1/other.dump", ""),
        ];
        check(&Tree::of(&files)).into_iter().filter_map(|finding| finding.path).collect()
    }

    #[test]
    fn a_file_nobody_mentions_is_found() {
        let found = check_with("read(\"golden/v1/full.aiv.zst\")");
        assert_eq!(found, ["testdata/golden/v1/other.dump"]);
        assert_eq!(check_with("").len(), 3);
    }

    #[test]
    fn a_test_that_reads_the_folder_keeps_all_of_it_alive() {
        assert_eq!(check_with("for file in list(\"testdata/golden/v1\")"), [""; 0]);
    }

    #[test]
    fn a_mention_outside_of_tests_does_not_count() {
        let files = [("crates/a/src/lib.rs", "\"a.img\""), ("testdata/a.img", "")];
        assert_eq!(check(&Tree::of(&files)).len(), 1);
    }
}
