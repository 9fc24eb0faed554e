//! The words of the command, and what explains them.

use std::process::{Command, Output};

fn explorer(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aiv-explorer")).args(args).output().unwrap()
}

fn said(args: &[&str]) -> String {
    let output = explorer(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_manual_page_and_completions_know_every_word() {
    let help = said(&["--help"]);
    for word in [
        "--web",
        "--port",
        "--password-file",
        "--luks-password-file",
        "--luks-key-file",
        "works once",
        "aiv-explorer --web /mnt/backup",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let page = said(&["--man"]);
    assert!(page.contains(".TH aiv-explorer 1"), "{page}");
    for word in ["\\-\\-web", "\\-\\-port", "\\-\\-completions"] {
        assert!(page.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&["--completions", shell]);
        assert!(script.contains("password-file") && script.contains("web"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    std::fs::write(&script, said(&["--completions", "bash"])).unwrap();
    let bash = Command::new("bash").arg("-n").arg(script).status().unwrap();
    assert!(bash.success());
}

#[test]
fn words_that_do_not_go_together_are_refused() {
    for args in [&["--port", "4000"][..], &["--web", "--port", "70000"], &["--man", "--web"]] {
        assert_eq!(explorer(args).status.code(), Some(2), "{args:?}");
    }
    // Somebody else has the port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = explorer(&["--web", "--port", &port]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("cannot listen on port"), "{complaint}");
}
