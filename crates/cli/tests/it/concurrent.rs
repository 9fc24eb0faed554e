//! Ctrl-C, and several backups at once.

use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use crate::support::{MIB, Scratch, aiv, aiv_json, start, wait, wait_for_part};

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn ctrl_c_ends_a_backup_with_130_and_without_a_trace() {
    let scratch = Scratch::new();
    let earlier = scratch.image();
    let disk = scratch.disk("large.raw", 16 * MIB);
    let images = scratch.arg("images");
    let child = start(&["backup", &disk, "--to", &images, "--rate-limit", "1M"]);
    wait_for_part(images.as_ref());
    sleep(Duration::from_millis(100));
    interrupt(&child);
    let run = wait(child);
    run.failed(130, "canceled");
    assert_eq!(scratch.images(), [earlier.file_name().unwrap().to_str().unwrap()]);
    aiv(&["verify", &images]).ended(0);
}

#[test]
fn ctrl_c_skips_the_sources_that_were_not_begun() {
    let scratch = Scratch::new();
    let disks = [scratch.disk("a.raw", 16 * MIB), scratch.disk("b.raw", MIB)];
    let images = scratch.arg("images");
    let child = start(&["backup", &disks[0], &disks[1], "--to", &images, "--rate-limit", "1M"]);
    wait_for_part(images.as_ref());
    interrupt(&child);
    let run = wait(child);
    run.failed(130, "canceled");
    assert_eq!(run.json()["images"].as_array().unwrap().len(), 1);
    assert_eq!(scratch.images(), [""; 0]);
}

#[test]
fn two_backups_of_one_source_exclude_each_other() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 6 * MIB);
    let images = scratch.arg("images");
    let first = start(&["backup", &disk, "--to", &images, "--rate-limit", "1M"]);
    wait_for_part(images.as_ref());
    let message = aiv_json(&["backup", &disk, "--to", &images]).failed(1, "busy");
    assert!(message.contains("another backup of path:"), "{message}");
    wait(first).ended(0);
    assert_eq!(scratch.images().len(), 1);
    aiv(&["verify", &images]).ended(0);
}

#[test]
fn two_sources_are_backed_up_into_one_folder_at_once() {
    let scratch = Scratch::new();
    let disks = [scratch.disk("a.raw", 4 * MIB), scratch.disk("b.raw", 4 * MIB)];
    let images = scratch.arg("images");
    let backups = disks
        .each_ref()
        .map(|disk| start(&["backup", disk, "--to", &images, "--rate-limit", "2M"]));
    for backup in backups {
        wait(backup).ended(0);
    }
    let json = aiv_json(&["list", &images]).ended(0).json();
    assert_eq!(json["sets"].as_array().unwrap().len(), 2);
    assert_eq!(json["strays"].as_array().unwrap().len(), 0);
    aiv(&["verify", &images]).ended(0);
}
