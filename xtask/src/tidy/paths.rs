//! Paths that the documents name must exist.

use super::Finding;
use super::tree::{File, Tree};

/// A word that begins like this is meant as a path of the repository.
const ROOTS: [&str; 8] =
    ["crates/", "docs/", "xtask/", "fuzz/", "testdata/", ".ci/", ".cargo/", ".github/"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let is_document = |file: &&File| {
        file.path == "README.md" || (file.path.starts_with("docs/") && file.path.ends_with(".md"))
    };
    tree.files().iter().filter(is_document).flat_map(|file| check_document(file, tree)).collect()
}

fn check_document(document: &File, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_fence = false;
    for (number, line) in document.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        if in_fence {
            continue;
        }
        let named = quoted(line).into_iter().filter_map(repository_path);
        let linked = links(line).into_iter().filter_map(|link| link_target(&document.path, link));
        for path in named.chain(linked) {
            if !tree.has(&path) {
                let what = format!("`{path}` does not exist");
                findings.push(Finding::at(&document.path, number, what));
            }
        }
    }
    findings
}

/// The words between backticks.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect()
}

/// The part of a word that must exist, if it is meant as a path of this repository. Of
/// `crates/*/src` and `crates/{a,b}/src` that is the folder before the first placeholder.
fn repository_path(word: &str) -> Option<String> {
    let word = word.trim_matches(['(', ')', ',', ';', '"', '\'']);
    let word = word.split([':', '#']).next().unwrap_or_default();
    if !ROOTS.iter().any(|root| word.starts_with(root)) {
        return None;
    }
    let literal = match word.find(['*', '{', '<', '…', '$']) {
        Some(placeholder) => &word[..word[..placeholder].rfind('/')?],
        None => word,
    };
    Some(literal.trim_end_matches(['/', '.']).to_owned())
}

/// The targets of `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// The repository path a link leads to; `None` when it leads elsewhere.
fn link_target(document: &str, link: &str) -> Option<String> {
    let link = link.split('#').next().unwrap_or_default();
    if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            // A link out of the repository keeps its `..` and is then found missing.
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str) -> Vec<String> {
        let files = [(path, text), ("crates/a/src/lib.rs", ""), ("docs/format.md", "")];
        check(&Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn paths_that_exist_and_words_that_are_no_paths_pass() {
        for text in [
            "`crates/a/src/lib.rs`, `crates/a/`, `crates/a/src/lib.rs:12` and `docs/format.md#x`",
            "`crates/*/src` and `crates/{a,b}/src` and `target/release/aiv` and crates/none",
            "[format](docs/format.md#records) [web](https://example.org/docs/none) [here](#top)",
            "```\n`crates/none`\n```",
        ] {
            assert_eq!(check_text("README.md", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_path_that_is_gone_is_found_with_its_line() {
        let found = check_text("README.md", "one\ntwo `crates/b/src/lib.rs` there\n");
        assert_eq!(found, ["README.md:2: `crates/b/src/lib.rs` does not exist"]);
        assert_eq!(check_text("docs/a.md", "`docs/*/none`, `fuzz/*.rs`").len(), 1);
    }

    #[test]
    fn links_are_followed_from_the_document_that_holds_them() {
        assert_eq!(check_text("docs/a.md", "[f](format.md) [c](../crates/a)"), [""; 0]);
        let found = check_text("docs/a.md", "[f](docs/format.md) [out](../../etc)");
        assert_eq!(
            found,
            [
                "docs/a.md:1: `docs/docs/format.md` does not exist",
                "docs/a.md:1: `../etc` does not exist"
            ]
        );
    }
}
