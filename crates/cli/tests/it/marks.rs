//! Changes by what dm-era and dm-thin say: the image is the one that would have been made
//! without them.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::{MIB, Scratch, aiv_json, noise, run};

const BLOCK: u64 = 64 << 10;
const LEN: u64 = 32 * MIB;

/// A disk, and what device mapper knows about it.
struct Device {
    scratch: Scratch,
    disk: String,
}

impl Device {
    fn new() -> Self {
        let scratch = Scratch::new();
        let disk = scratch.write("disk.raw", &noise(LEN, 7));
        Self { scratch, disk }
    }

    /// Metadata by one tool of a text, and what another one says of them, in a file.
    fn said(&self, restore: &str, text: &str, tool: &[&str]) -> String {
        let text = self.scratch.write("text", text.as_bytes());
        let metadata = self.scratch.arg("metadata");
        File::create(&metadata).unwrap().set_len(4 * MIB).unwrap();
        run(restore, &["-i", &text, "-o", &metadata]);
        let said = run(tool[0], &[&tool[1..], &[&*metadata]].concat());
        self.scratch.write("marks", said.as_bytes())
    }

    /// In its current era, these blocks were written, others in the one before, the rest in the
    /// first one.
    fn era(&self, current: u64, written: &[u64], before: &[u64]) -> String {
        let blocks = LEN / BLOCK;
        let mut text = format!(
            "<superblock uuid=\"\" block_size=\"128\" nr_blocks=\"{blocks}\" \
             current_era=\"{current}\">\n<writeset era=\"{current}\" nr_bits=\"{blocks}\">\n"
        );
        for block in 0..blocks {
            let value = written.contains(&block);
            writeln!(text, "<bit block=\"{block}\" value=\"{value}\"/>").unwrap();
        }
        text += "</writeset>\n<era_array>\n";
        for block in 0..blocks {
            let era = if before.contains(&block) { current - 1 } else { 0 };
            writeln!(text, "<era block=\"{block}\" era=\"{era}\"/>").unwrap();
        }
        text += "</era_array>\n</superblock>\n";
        self.said("era_restore", &text, &["era_dump"])
    }

    /// Device 1 has all blocks in order, and 2 has these elsewhere.
    fn thin(&self, left: u64, right: u64, written: &[u64]) -> String {
        let blocks = LEN / BLOCK;
        let mut text =
            "<superblock uuid=\"\" time=\"1\" transaction=\"1\" data_block_size=\"128\" \
                        nr_data_blocks=\"9000\">\n"
                .to_owned();
        for device in 1..=2 {
            writeln!(
                text,
                "<device dev_id=\"{device}\" mapped_blocks=\"{blocks}\" transaction=\"0\" \
                 creation_time=\"0\" snap_time=\"1\">"
            )
            .unwrap();
            for block in 0..blocks {
                let is_other = device == 2 && written.contains(&block);
                let (data, time) = if is_other { (block + 1000, 1) } else { (block, 0) };
                let place = format!("origin_block=\"{block}\" data_block=\"{data}\"");
                writeln!(text, "<single_mapping {place} time=\"{time}\"/>").unwrap();
            }
            text += "</device>\n";
        }
        text += "</superblock>\n";
        let ids = [left, right].map(|id| id.to_string());
        let tool = ["thin_delta", "--snap1", &ids[0], "--snap2", &ids[1]];
        self.said("thin_restore", &text, &tool)
    }

    fn write(&self, blocks: &[u64], seed: u64) {
        let file = File::options().write(true).open(&self.disk).unwrap();
        for block in blocks {
            file.write_all_at(&noise(BLOCK, seed + block), block * BLOCK).unwrap();
        }
    }

    fn backup(&self, marks: &str, changes: &str, exit: i32) -> Value {
        let images = self.scratch.arg("images");
        let args = ["backup", &self.disk, "--to", &images, "--source-id", "disk", "--block-size"];
        let args = [&args[..], &["64k", "--marks", marks, "--changes", changes]].concat();
        let image = aiv_json(&args).ended(exit).json()["images"][0].clone();
        let fresh = tempfile::tempdir().unwrap();
        let fresh = fresh.path().join("fresh").to_str().unwrap().to_owned();
        let args = ["backup", &self.disk, "--to", &fresh, "--source-id", "disk", "--block-size"];
        let whole = aiv_json(&[&args[..], &["64k"]].concat()).ended(0).json()["images"][0].clone();
        assert_eq!(image["state_root"], whole["state_root"], "{image:#}");
        image
    }
}

impl Device {
    fn check_not_used(&self, marks: &str, changes: &str, why: &str) {
        let image = self.backup(marks, changes, 0);
        assert_eq!(image["changes"]["used"], false, "{image:#}");
        let told = image["changes"]["why_not"].as_str().unwrap();
        assert!(told.contains(why), "{changes}: {told}");
    }
}

fn check_was_used(image: &Value) {
    assert_eq!(image["changes"]["used"], true, "{image:#}");
    let skipped = image["changes"]["bytes_not_read"].as_u64().unwrap();
    assert!(skipped > LEN * 8 / 10, "{image:#}");
    assert!(image["bytes_read"].as_u64().unwrap() < LEN / 5, "{image:#}");
}

#[test]
fn what_dm_era_marks_is_read_and_the_rest_is_not() {
    let device = Device::new();
    let first = device.backup(&device.era(3, &[], &[]), "era:3", 0);
    assert_eq!((&first["kind"], &first["changes"]["used"]), (&"full".into(), &false.into()));
    device.write(&[5, 70, 71], 1);
    check_was_used(&device.backup(&device.era(4, &[5, 70, 71], &[]), "era:3", 0));
    device.write(&[9], 2);
    check_was_used(&device.backup(&device.era(5, &[9], &[5, 70, 71]), "era:4", 0));
    // Eras that nobody saw begin, and eras to come, say nothing.
    for era in ["era:2", "era:99"] {
        let image = device.backup(&device.era(6, &[], &[9]), era, 0);
        assert_eq!(image["changes"]["used"], false, "{image:#}");
    }
}

#[test]
fn what_differs_from_a_thin_snapshot_is_read_and_the_rest_is_not() {
    let device = Device::new();
    device.backup(&device.thin(1, 1, &[]), "thin:1", 0);
    device.write(&[0, 100, 511], 1);
    check_was_used(&device.backup(&device.thin(1, 2, &[0, 100, 511]), "thin:1", 0));
}

#[test]
fn a_text_of_an_earlier_moment_is_not_believed() {
    let device = Device::new();
    device.backup(&device.era(3, &[], &[]), "era:3", 0);
    device.write(&[20], 1);
    // The text of the first backup, once more: of what was written since it knows nothing.
    device.check_not_used(&device.era(3, &[], &[]), "era:3", "begins with its own text");
    device.backup(&device.era(4, &[], &[20]), "era:3", 0);
    device.write(&[30], 2);
    // That of the second, once more.
    device.check_not_used(&device.era(4, &[], &[20]), "era:3", "did not see it");
    device.check_not_used(&device.era(4, &[], &[20]), "era:4", "begins with its own text");

    let device = Device::new();
    device.backup(&device.thin(1, 1, &[]), "thin:1", 0);
    device.write(&[20], 1);
    device.check_not_used(&device.thin(1, 1, &[]), "thin:1", "begins with its own text");
    device.write(&[30], 2);
    check_was_used(&device.backup(&device.thin(1, 2, &[20, 30]), "thin:1", 0));
    device.write(&[40], 3);
    device.check_not_used(&device.thin(1, 2, &[20, 30]), "thin:1", "did not see it");
}

#[test]
fn a_change_that_was_not_marked_is_found_within_thirty_increments() {
    let device = Device::new();
    device.backup(&device.era(3, &[], &[]), "era:3", 0);
    device.write(&[40], 1);
    // By number, block 40 is compared in the tenth increment: until then the old content stays.
    let images = device.scratch.arg("images");
    for n in 1..=30 {
        // Of each moment its own text, and all of them pass over the block.
        let (marks, changes) = (device.era(n + 3, &[5], &[]), format!("era:{}", n + 2));
        let args = ["backup", &device.disk, "--to", &images, "--source-id", "disk"];
        let hints = ["--block-size", "64k", "--marks", &marks, "--changes", &changes];
        let done = aiv_json(&[&args[..], &hints].concat());
        let image = done.json()["images"][0].clone();
        if image["changes"]["used"] == false {
            let why = image["changes"]["why_not"].as_str().unwrap();
            assert_eq!(why, format!("the change at byte {} was not marked", 40 * BLOCK));
            done.ended(3);
            assert_eq!(n, 10);
            return;
        }
    }
    panic!("nobody noticed");
}

#[test]
fn marks_are_for_one_source_and_a_text_that_is_none_is_named() {
    let device = Device::new();
    let other = device.scratch.disk("other.raw", MIB);
    let (images, marks) = (device.scratch.arg("images"), device.era(3, &[], &[]));
    let many = ["backup", &device.disk, &other, "--to", &images, "--marks", &marks];
    let message = aiv_json(&many).failed(2, "usage");
    assert!(message.contains("--marks are for a single source"), "{message}");
    let none = ["backup", &device.disk, "--to", &images, "--marks", &other];
    let said = aiv_json(&none).json()["images"][0]["error"].to_string();
    assert!(said.contains("other.raw does not tell what was written"), "{said}");
}
