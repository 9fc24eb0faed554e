//! The program to measure: built as it is shipped.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::process;

/// Builds `aiv` optimised and returns where it is.
pub(super) fn aiv() -> Result<PathBuf, String> {
    println!("bench: building aiv");
    let mut build = process::cargo();
    build.args(["build", "--release", "--package", "aiv-cli", "--message-format=json"]);
    build.stderr(Stdio::inherit());
    let output = build.output().map_err(|e| format!("cannot start cargo: {e}"))?;
    process::expect_success(&process::describe(&build), output.status)?;
    let text = String::from_utf8_lossy(&output.stdout);
    executable(&text).ok_or_else(|| "cargo built no program named aiv".into())
}

/// The program among the messages of cargo, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let message = |line: &str| serde_json::from_str::<Value>(line).ok();
    let built = messages
        .lines()
        .filter_map(message)
        .find(|message| message["target"]["name"] == "aiv" && message["executable"].is_string())?;
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
        assert_eq!(executable(messages), Some("/t/aiv".into()));
        assert_eq!(executable(""), None);
    }
}
