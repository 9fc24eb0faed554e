//! `--exclude`, from the command line to the restored disk.

use std::fs;

use crate::real_disk::{ROOT, make_disk};
use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

#[test]
fn excluded_files_are_listed_and_missed_by_nothing_else() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    let args = ["backup", &disk, "--to", &images, "--exclude", "noise", "--exclude", "/spa*"];
    let done = aiv_json(&args).ended(0).json();
    let done = &done["images"][0];
    let excluded = &done["excluded"];
    assert_eq!((&excluded["files"], &excluded["complete"]), (&2.into(), &true.into()));
    assert_eq!(excluded["patterns"], serde_json::json!(["noise", "/spa*"]));
    assert_eq!(excluded["list"][0]["path"], "etc/deep/er/noise");
    assert_eq!(excluded["list"][0]["size"], 3 * MIB);
    assert_eq!(excluded["list"][0]["volume"], ROOT.0);
    // The boot volume was looked into and has no such file.
    let notes = done["notes"].as_array().unwrap();
    assert!(!notes.iter().any(|note| note.to_string().contains("excluded")), "{notes:?}");
    assert!(done["bytes_stored"].as_u64().unwrap() < 2 * MIB);

    let latest = format!("{images}@latest");
    let info = aiv_json(&["info", &latest]).ended(0).json();
    assert_eq!(info["excluded"], *excluded);
    assert!(info["blocks"]["excluded"].as_u64().unwrap() > 40);
    let text = aiv(&["info", &latest]).ended(0).stdout;
    assert!(text.contains("excluded: 2 files, "), "{text}");
    assert!(text.contains("  etc/deep/er/noise (3.00 MiB)\n"), "{text}");
    aiv(&["verify", &images]).ended(0);

    let target = scratch.arg("new.raw");
    let restored = aiv_json(&["restore", &latest, "--to", &target]).ended(0).json();
    let said = restored["notes"].to_string();
    assert!(said.contains("2 files were excluded from the backup: names and lengths"), "{said}");
    let device = Loop::part(target.as_ref(), ROOT, true);
    run("e2fsck", &["-fn", device.arg()]);
    let mount = Mount::new(device.arg(), "ro");
    let at = |name: &str| mount.path().join(name);
    assert_eq!(fs::read_to_string(at("etc/hostname")).unwrap(), "box\n");
    let empty = fs::read(at("etc/deep/er/noise")).unwrap();
    assert!(empty.len() as u64 == 3 * MIB && empty != noise(3 * MIB, 2));
}

#[test]
fn a_merge_keeps_what_its_last_point_says_of_excluded_files() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    aiv(&["backup", &disk, "--to", &images]).ended(0);
    let args = ["backup", &disk, "--to", &images, "--exclude", "noise"];
    let done = aiv_json(&args).ended(0).json();
    assert_eq!(done["images"][0]["kind"], "incremental");
    aiv(&["consolidate", &images, "--keep", "1"]).ended(0);
    assert_eq!(scratch.images().len(), 1);
    let latest = format!("{images}@latest");
    let info = aiv_json(&["info", &latest]).ended(0).json();
    assert_eq!(
        (&info["kind"], &info["excluded"]),
        (&"full".into(), &done["images"][0]["excluded"])
    );
    assert!(info["blocks"]["excluded"].as_u64().unwrap() > 40);
    assert_eq!(info["state_root"], done["images"][0]["state_root"]);
}

#[test]
fn a_pattern_that_means_nothing_is_refused_by_name() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let args = ["backup", &disk, "--to", &scratch.arg("images"), "--exclude", "[a"];
    let said = aiv(&args).ended(2).stderr;
    assert!(said.contains("the pattern \"[a\" has a `[` without its `]`"), "{said}");
}

#[test]
fn all_sectors_and_excluded_files_contradict_each_other() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let images = scratch.arg("images");
    let args = ["backup", &disk, "--to", &images, "--exclude", "a", "--sectors", "all"];
    let run = aiv_json(&args);
    let (_, code, message) = run.error();
    assert_eq!(code, "exclude_from_all", "{message}");
    assert_eq!(scratch.images(), [""; 0]);
}
