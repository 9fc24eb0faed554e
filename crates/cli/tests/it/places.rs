//! Recovered files in places that are full, are no usual filesystem, or belong to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use crate::support::{MIB, Mount, Scratch, aiv, aiv_json, noise, run};

/// A volume of ext4 with a few files.
fn volume(scratch: &Scratch) -> String {
    let volume = scratch.arg("volume");
    run("truncate", &["-s", "64M", &volume]);
    run("mkfs.ext4", &["-q", &volume]);
    let mounted = Mount::new(&volume, "loop");
    let at = |name: &str| mounted.path().join(name);
    fs::create_dir_all(at("files/folder")).unwrap();
    fs::write(at("files/large"), noise(3 * MIB, 1)).unwrap();
    fs::write(at("files/folder/small"), "small").unwrap();
    fs::write(at("files/secret"), "secret").unwrap();
    fs::set_permissions(at("files/secret"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::hard_link(at("files/large"), at("files/folder/again")).unwrap();
    volume
}

#[test]
fn files_come_onto_a_filesystem_that_cannot_rename_without_replacing() {
    let scratch = Scratch::new();
    let image = volume(&scratch);
    let ntfs = scratch.arg("ntfs");
    run("truncate", &["-s", "64M", &ntfs]);
    run("mkntfs", &["-q", "-F", "-p", "0", "-s", "512", "-H", "0", "-S", "0", &ntfs]);
    let target = Mount::program("ntfs-3g", &ntfs);
    let out = target.arg("out");
    let json =
        aiv_json(&["extract", &image, "/p0/files", "--to", &out, "--verify"]).ended(0).json();
    assert_eq!((&json["files"], &json["verified"]), (&3.into(), &true.into()), "{json}");
    let at = |name: &str| target.path().join("out/files").join(name);
    assert_eq!(fs::read(at("large")).unwrap(), noise(3 * MIB, 1));
    assert_eq!(
        fs::metadata(at("large")).unwrap().ino(),
        fs::metadata(at("folder/again")).unwrap().ino()
    );
    let parts = run("find", &[target.path().to_str().unwrap(), "-name", "*.part"]);
    assert_eq!(parts, "", "nothing unfinished is left");
    aiv_json(&["extract", &image, "/p0/files", "--to", &out]).failed(5, "exists");
    let tar = target.arg("a.tar");
    aiv_json(&["extract", &image, "/p0/files", "--tar", &tar]).ended(0);
    aiv_json(&["extract", &image, "/p0/files", "--tar", &tar]).failed(5, "exists");
    run("tar", &["-tf", &tar]);
}

#[test]
fn a_full_medium_is_said_of_the_file_that_was_asked_for_and_leaves_no_part_of_it() {
    let scratch = Scratch::new();
    let image = volume(&scratch);
    let target = Mount::memory(MIB);
    for kind in ["--tar", "--zip"] {
        let archive = target.arg("archive");
        let ended = aiv(&["extract", &image, "/p0/files", kind, &archive]);
        assert_eq!(ended.status, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(&archive), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 2, "a sentence and a hint: {}", ended.stderr);
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
    let out = target.arg("out");
    aiv_json(&["extract", &image, "/p0/files", "--to", &out]).failed(5, "disk_full");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn an_archive_that_somebody_else_writes_is_named() {
    let scratch = Scratch::new();
    let image = volume(&scratch);
    scratch.write("a.tar.part", b"theirs");
    let failed = aiv(&["extract", &image, "/p0/files", "--tar", &scratch.arg("a.tar")]);
    assert!(failed.stderr.contains("a.tar.part"), "{}", failed.stderr);
    assert_eq!(fs::read(scratch.path("a.tar.part")).unwrap(), b"theirs");
}

#[test]
fn a_file_that_nobody_but_root_may_read_back_does_not_end_the_job() {
    let scratch = Scratch::new();
    let image = volume(&scratch);
    let program = scratch.arg("aiv");
    fs::copy(env!("CARGO_BIN_EXE_aiv"), &program).unwrap();
    let folder = scratch.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", &program, "--json"];
    let out = scratch.arg("out");
    let extract = ["extract", &image, "/p0/files", "--to", &out, "--verify"];
    let ended =
        Command::new("setpriv").args(nobody).args(extract).stdin(Stdio::null()).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{json}");
    assert_eq!((&json["verified"], &json["not_recovered_count"]), (&false.into(), &1.into()));
    let why = json["not_recovered"][0]["why"].as_str().unwrap();
    assert!(why.contains("reading back") && why.contains("Permission denied"), "{why}");
    assert_eq!(fs::metadata(scratch.path("out/files/secret")).unwrap().mode() & 0o777, 0);
}

#[test]
fn what_is_for_folders_only_is_refused_for_archives() {
    let scratch = Scratch::new();
    let image = volume(&scratch);
    for kind in ["--tar", "--zip"] {
        for more in [&["--verify"][..], &["--no-owners"], &["--existing", "skip"]] {
            let archive = scratch.arg("archive");
            let args = ["extract", &image, "/p0/files", kind, &archive];
            aiv_json(&[&args[..], more].concat()).failed(2, "usage");
            assert!(!scratch.path("archive").exists());
        }
    }
}
