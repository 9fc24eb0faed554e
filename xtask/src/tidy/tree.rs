//! The files of the repository, read once.

use std::fs;
use std::path::Path;

/// Folders of the repository that hold no source: build output and what fuzzers collect.
const SKIPPED: [&str; 5] = [".git", "target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts"];

/// Every file below a folder, sorted by path, with the text of those that are text.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: Vec<File>,
}

#[derive(Debug)]
pub(super) struct File {
    /// From the root, with `/` between the parts.
    pub(super) path: String,
    /// `None` for what is not UTF-8.
    pub(super) text: Option<String>,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file only serves tests: an integration test or a fuzz target.
    pub(super) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.starts_with("fuzz/")
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Lines with their numbers, counted from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text().lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

impl Tree {
    /// Reads every file below `root`. Links are not followed.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> Result<(), String> {
        let failed = |e| format!("cannot read {}: {e}", root.join(folder).display());
        for entry in fs::read_dir(root.join(folder)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| format!("{name:?} is not UTF-8"))?;
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if SKIPPED.contains(&path.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.read_folder(root, &path)?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path())
                    .map_err(|e| format!("cannot read {}: {e}", entry.path().display()))?;
                self.files.push(File { path, text: String::from_utf8(bytes).ok() });
            }
        }
        Ok(())
    }

    /// A tree that holds these paths and texts.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File {
            path: path.to_owned(),
            text: Some(text.to_owned()),
        };
        Self { files: files.iter().map(file).collect() }
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn rust_files(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// The file with exactly this path.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a file or a folder that holds files has this path.
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = |file: &File| {
            file.path
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.is_empty() || self.files.iter().any(inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_is_skipped_and_paths_are_relative() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["target/debug", "crates/a/src", "fuzz/corpus/x"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["target/debug/x.rs", "crates/a/src/lib.rs", "fuzz/corpus/x/1", ".clippy.toml"]
        {
            fs::write(root.path().join(file), "text\n").unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        let paths: Vec<_> = tree.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".clippy.toml", "crates/a/src/lib.rs"]);
    }

    #[test]
    fn folders_exist_through_their_files() {
        let tree = Tree::of(&[("crates/alpha/src/lib.rs", "")]);
        assert!(tree.has("crates/alpha/") && tree.has("crates/alpha/src/lib.rs"));
        assert!(!tree.has("crates/al") && !tree.has("crates/alpha/src/lib"));
    }
}
