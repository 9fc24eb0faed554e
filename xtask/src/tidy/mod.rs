//! `cargo xtask tidy`: keeps the promises that no compiler keeps.
//!
//! Every check is a pure function from texts to findings, so that its test can plant a
//! violation in a few lines.

mod floors;
mod goldens;
mod hygiene;
mod layout;
mod paths;
mod sizes;
mod tree;

use std::fmt;

use crate::{Outcome, process};
use tree::Tree;

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Path from the root of the repository; `None` where no file is to blame.
    path: Option<String>,
    /// Line in the file, counted from 1; zero where the whole file is meant.
    line: usize,
    what: String,
}

impl Finding {
    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: Some(path.to_owned()), line, what: what.into() }
    }

    fn in_file(path: &str, what: impl Into<String>) -> Self {
        Self::at(path, 0, what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.line) {
            (None, _) => write!(f, "{}", self.what),
            (Some(path), 0) => write!(f, "{path}: {}", self.what),
            (Some(path), line) => write!(f, "{path}:{line}: {}", self.what),
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    crate::no_arguments(arguments)?;
    let tree = Tree::read(process::repository())?;
    let mut findings = floors::check(&floors::metadata()?, &tree);
    findings.extend(hygiene::check(&tree));
    findings.extend(paths::check(&tree));
    findings.extend(layout::check(&tree));
    findings.extend(goldens::check(&tree));
    findings.extend(sizes::check(&tree));

    print!("{}", sizes::report(&tree));
    if findings.is_empty() {
        println!("tidy: {} files, nothing to complain about", tree.files().len());
        return Ok(());
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    Err(format!("{} finding(s), listed above", findings.len()))
}
