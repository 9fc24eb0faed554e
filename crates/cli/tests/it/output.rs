//! Standard output and standard error: what goes where, and what when one of them is gone.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{MIB, Scratch, aiv, aiv_json, noise};

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let scratch = Scratch::new();
    let image = scratch.image();
    for command in [
        format!("dump {}", image.display()),
        "format-spec".to_owned(),
        format!("--json dump {}", image.display()),
    ] {
        let aiv = env!("CARGO_BIN_EXE_aiv");
        let script = format!("{aiv} {command} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}");
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{command}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let scratch = Scratch::new();
    let image = scratch.image();
    for args in [vec!["format-spec"], vec!["dump", image.to_str().unwrap()]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiv"));
        let output = command.args(&args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
    }
}

#[test]
fn a_missing_standard_error_changes_nothing() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let aiv = env!("CARGO_BIN_EXE_aiv");
    let images = scratch.arg("images");
    let script = format!("{aiv} backup {disk} /dev/nosuch --to {images} 2>&-");
    let mut command = Command::new("bash");
    let status = command.args(["-c", &script]).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(scratch.images().len(), 1);
}

#[test]
fn quiet_says_nothing_when_all_is_well_and_still_warns() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let (images, target) = (scratch.arg("images"), scratch.arg("target.raw"));
    let latest = format!("{images}@latest");
    for args in [
        vec!["backup", &disk, "--to", &images],
        vec!["verify", &images],
        vec!["restore", &latest, "--to", &target],
    ] {
        let run = aiv(&[args.as_slice(), &["--quiet"]].concat()).ended(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{args:?}");
    }
    // Answers are no reports.
    assert!(!aiv(&["list", &images, "-q"]).ended(0).stdout.is_empty());
    assert!(!aiv(&["info", &latest, "-q"]).ended(0).stdout.is_empty());
    scratch.write("images/theirs.aiv", &noise(9000, 5));
    let run = aiv(&["verify", &images, "--quiet"]).ended(3);
    assert!(run.stderr.contains("theirs.aiv") && run.stdout.is_empty());
}

#[test]
fn names_from_a_disk_cannot_steer_the_terminal() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let images = scratch.arg("images");
    let comment = "red \u{1b}[31m and \u{202e}backwards";
    aiv(&["backup", &disk, "--to", &images, "--comment", comment]).ended(0);
    let latest = format!("{images}@latest");
    for args in [["list", &images], ["info", &latest]] {
        let text = aiv(&args).ended(0).stdout;
        assert!(text.contains("red \u{fffd}[31m and \u{fffd}backwards"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']));
    }
    // Scripts get what is there.
    assert_eq!(aiv_json(&["info", &latest]).ended(0).json()["comment"], comment);
}

#[test]
fn with_json_a_failure_is_an_object_on_standard_output_and_a_sentence_without() {
    let run = aiv_json(&["info", "/nowhere"]);
    run.failed(1, "not_found");
    assert_eq!(run.stderr, "");
    let run = aiv(&["info", "/nowhere"]).ended(1);
    assert_eq!(run.stdout, "");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines[0].starts_with("aiv: ") && lines[0].contains("/nowhere"), "{lines:?}");
    assert!(lines[1].starts_with("     "), "the next step: {lines:?}");
}
