//! Programs to measure, and to measure with: built as they are shipped.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::{Outcome, process};

/// Builds `aiv` optimised and returns where it is.
pub(super) fn aiv() -> Result<PathBuf, String> {
    built("aiv-cli", &[], "aiv")
}

/// Builds this program optimised and lets it do what was asked of this one: some studies use
/// our libraries in their own process, and must not measure what a compiler left undone.
pub(super) fn run_optimised(arguments: &[String]) -> Outcome {
    let path = built("aiv-xtask", &[], "aiv-xtask")?;
    process::run(process::command(&path.to_string_lossy()).arg("bench").args(arguments))
}

/// Builds an example optimised and returns where it is.
pub(crate) fn example(package: &str, name: &str) -> Result<PathBuf, String> {
    built(package, &["--example", name], name)
}

fn built(package: &str, what: &[&str], name: &str) -> Result<PathBuf, String> {
    println!("building {name}");
    let mut build = process::cargo();
    build.args(["build", "--release", "--message-format=json", "--package", package]).args(what);
    build.stderr(Stdio::inherit());
    let output = build.output().map_err(|e| format!("cannot start cargo: {e}"))?;
    process::expect_success(&process::describe(&build), output.status)?;
    let text = String::from_utf8_lossy(&output.stdout);
    executable(&text, name).ok_or_else(|| format!("cargo built no program named {name}"))
}

/// The program among the messages of cargo, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let message = |line: &str| serde_json::from_str::<Value>(line).ok();
    let built = messages
        .lines()
        .filter_map(message)
        .find(|message| message["target"]["name"] == name && message["executable"].is_string())?;
    Some(built["executable"].as_str()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_the_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"aiv-chain"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"aiv"},"executable":"/t/aiv"}"#,
        );
        assert_eq!(executable(messages, "aiv"), Some("/t/aiv".into()));
        assert_eq!(executable("", "aiv"), None);
    }
}
