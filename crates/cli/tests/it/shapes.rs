//! The JSON of every command: scripts rely on these names.

use serde_json::Value;

use crate::support::{Loop, MIB, Scratch, aiv_json};

fn has(value: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

/// An image with a comment, its source, and its folder.
fn backed_up() -> (Scratch, Value) {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 2 * MIB);
    let images = scratch.arg("images");
    let args = ["backup", &disk, "--to", &images, "--name", "box", "--verify", "--full"];
    let json = aiv_json(&args).ended(0).json();
    (scratch, json)
}

#[test]
fn backup() {
    let (scratch, json) = backed_up();
    has(&json, "folder group images warnings");
    let image = &json["images"][0];
    has(image, "image kind recovery_point state_root content_root bytes_source bytes_read");
    has(image, "bytes_stored blocks_new elapsed_ms warnings notes source source_id partitions");
    has(image, "excluded resumed not_resumed");
    assert_eq!((&image["kind"], &image["verified"]), (&"full".into(), &true.into()));
    assert_eq!((&image["bytes_source"], &image["blocks_new"]), (&(2 * MIB).into(), &32.into()));
    assert_eq!(image["recovery_point"].as_str().unwrap().len(), 32);
    assert_eq!(image["state_root"].as_str().unwrap().len(), 64);
    assert!(image["image"].as_str().unwrap().starts_with(&scratch.arg("images")));
}

#[test]
fn list() {
    let (scratch, done) = backed_up();
    let json = aiv_json(&["list", &scratch.arg("images")]).ended(0).json();
    has(&json, "folder sets strays warnings");
    let set = &json["sets"][0];
    has(set, "id name host source_id points");
    assert_eq!(set["name"], "box");
    let point = &set["points"][0];
    has(point, "recovery_point image kind time parent size size_stored restorable damage");
    assert_eq!(point["recovery_point"], done["images"][0]["recovery_point"]);
    assert_eq!((&point["restorable"], &point["parent"]), (&true.into(), &Value::Null));
}

#[test]
fn info() {
    let (scratch, done) = backed_up();
    let latest = format!("{}@box:latest", scratch.arg("images"));
    let json = aiv_json(&["info", &latest]).ended(0).json();
    has(&json, "format image_uuid kind size sector_size table partitions machine source_errors");
    assert_eq!(json["excluded"], Value::Null);
    has(&json, "recovery_point set group time host name source source_id comment consistency");
    has(&json, "block_size size_stored state_root content_root blocks damage writer warnings");
    assert_eq!((&json["format"], &json["table"]), (&"aiv 0.3".into(), &"none".into()));
    assert_eq!(json["image"], done["images"][0]["image"]);
    has(&json["partitions"][0], "number start size filesystem label uuid capture used");
    assert!(json["machine"]["kernel.release"].is_string(), "{json}");
}

#[test]
fn verify() {
    let (scratch, _) = backed_up();
    for (depth, blocks) in [("data", 32), ("quick", 0)] {
        let args = ["verify", &scratch.arg("images"), "--depth", depth];
        let json = aiv_json(&args).ended(0).json();
        has(&json, "ok depth errors images strays warnings");
        assert_eq!((&json["ok"], &json["depth"]), (&true.into(), &depth.into()));
        assert_eq!(json["images"][0]["blocks_checked"], blocks);
    }
}

#[test]
fn restore() {
    let (scratch, _) = backed_up();
    let (latest, target) = (format!("{}@latest", scratch.arg("images")), scratch.arg("new.raw"));
    let json = aiv_json(&["restore", &latest, "--to", &target]).ended(0).json();
    has(&json, "image target dry_run bytes_written bytes_skipped bytes_zeroed bytes_discarded");
    has(&json, "bytes_verified verified start size unreadable notes warnings");
    assert_eq!((&json["verified"], &json["bytes_written"]), (&true.into(), &(2 * MIB).into()));
}

#[test]
fn dump_and_format_spec() {
    let (scratch, _) = backed_up();
    let latest = format!("{}@latest", scratch.arg("images"));
    let json = aiv_json(&["dump", &latest]).ended(0).json();
    has(&json, "image lines");
    let lines = json["lines"].as_array().unwrap();
    // Every byte is accounted for: the lengths add up to the file.
    let len = |line: &Value| -> u64 {
        let text = line.as_str().unwrap();
        if !text.starts_with("0x") {
            return 0;
        }
        text.split_whitespace().nth(1).unwrap().trim_start_matches('+').parse().unwrap()
    };
    let total: u64 = lines.iter().map(len).sum();
    let info = aiv_json(&["info", &latest]).ended(0).json();
    assert_eq!(total, info["size_stored"].as_u64().unwrap());
    let json = aiv_json(&["format-spec"]).ended(0).json();
    assert!(json["specification"].as_str().unwrap().contains("Superblock"));
}

#[test]
fn devices() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 2 * MIB);
    let device = Loop::new(disk.as_ref(), &[]);
    let json = aiv_json(&["devices"]).ended(0).json();
    let list = json["devices"].as_array().unwrap();
    let ours = list.iter().find(|d| d["path"] == device.arg()).expect("the loop device is listed");
    has(ours, "path size serial model wwn mounts swap read_only removable parent number holders");
    has(ours, "logical_sector physical_sector source_id table partitions backing_file");
    assert_eq!(ours["size"], 2 * MIB);
    assert_eq!(ours["table"], "none");
}

#[test]
fn points_are_named_by_age_by_id_and_by_the_name_of_their_set() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let images = scratch.arg("images");
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let json = aiv_json(&["backup", &disk, "--to", &images]).ended(0).json();
            json["images"][0]["recovery_point"].as_str().unwrap().to_owned()
        })
        .collect();
    let point = |selector: &str| {
        let run = aiv_json(&["info", &format!("{images}@{selector}")]).ended(0);
        run.json()["recovery_point"].as_str().unwrap().to_owned()
    };
    assert_eq!(point("latest"), ids[2]);
    assert_eq!(point("latest~2"), ids[0]);
    assert_eq!(point("disk:latest~1"), ids[1]);
    assert_eq!(point(&ids[1]), ids[1]);
    assert_eq!(point(&ids[0][..20]), ids[0]);

    aiv_json(&["backup", &scratch.disk("other.raw", MIB), "--to", &images]).ended(0);
    let run = aiv_json(&["info", &format!("{images}@latest")]);
    let message = run.failed(1, "ambiguous");
    assert!(message.contains("disk:latest") && message.contains("other:latest"), "{message}");
    assert_eq!(point("disk:latest"), ids[2]);
}
