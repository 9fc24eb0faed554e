//! Increments of a real disk through the command line: made, listed, lost, continued, restored.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::real_disk::{ROOT, check_ext4, check_files, make_disk};
use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

/// Changes files the way a day does.
fn a_day_passes(disk: &str, day: u64) {
    let device = Loop::part(disk.as_ref(), ROOT, false);
    let mount = Mount::new(device.arg(), "rw");
    let at = |name: &str| mount.path().join(name);
    let file = File::options().write(true).open(at("etc/deep/er/noise")).unwrap();
    for page in 0..20 {
        file.write_all_at(&noise(300, day * 100 + page), page * 150_000 + day * 7).unwrap();
    }
    fs::write(at(&format!("etc/day{day}")), noise(200_000, day)).unwrap();
    if day > 1 {
        fs::remove_file(at(&format!("etc/day{}", day - 1))).unwrap();
    }
}

fn backup(disk: &str, images: &str, more: &[&str]) -> Value {
    let args = [["backup", disk, "--to", images].as_slice(), more].concat();
    aiv_json(&args).ended(0).json()["images"][0].clone()
}

/// A full image and one increment for each of three days, with copies of the disk at each time.
fn four_days(scratch: &Scratch) -> (String, Vec<Value>) {
    let disk = make_disk(scratch);
    let images = scratch.arg("images");
    let mut made = vec![backup(&disk, &images, &["--verify"])];
    fs::copy(&disk, scratch.path("day0.raw")).unwrap();
    for day in 1..4 {
        a_day_passes(&disk, day);
        fs::copy(&disk, scratch.path(&format!("day{day}.raw"))).unwrap();
        made.push(backup(&disk, &images, &["--verify"]));
    }
    (disk, made)
}

fn restored(scratch: &Scratch, point: &str, day: usize) {
    let target = scratch.write("target.raw", &noise(48 * MIB, 9));
    let args = ["restore", point, "--to", &target, "--unused", "leave", "--yes"];
    aiv(&args).ended(0);
    check_ext4(target.as_ref());
    check_files(&scratch.path(&format!("day{day}.raw")), target.as_ref());
    run("sgdisk", &["--verify", &target]);
}

#[test]
fn every_day_comes_back_from_a_full_image_and_its_increments() {
    let scratch = Scratch::new();
    let (_, made) = four_days(&scratch);
    let kinds: Vec<&str> = made.iter().map(|m| m["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["full", "incremental", "incremental", "incremental"]);
    for (day, pair) in made.windows(2).enumerate() {
        assert_eq!(pair[1]["parent"], pair[0]["recovery_point"]);
        let increment = &pair[1];
        // Differences go two deep; the third change of a block stores it whole again.
        let (most, deltas) = if day < 2 { (MIB, 10..100) } else { (2 * MIB, 0..10) };
        assert!(increment["bytes_stored"].as_u64().unwrap() < most, "day {day}: {increment}");
        assert!(deltas.contains(&increment["blocks_delta"].as_u64().unwrap()), "{increment}");
        assert!(increment["image"].as_str().unwrap().ends_with(".aii"));
    }
    let images = scratch.arg("images");
    aiv(&["verify", &images]).ended(0);
    for (back, day) in [(0, 3), (1, 2), (2, 1), (3, 0)] {
        restored(&scratch, &format!("{images}@latest~{back}"), day);
    }
}

#[test]
fn nothing_changed_costs_next_to_nothing() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    backup(&disk, &images, &[]);
    let second = backup(&disk, &images, &["--incremental"]);
    assert_eq!((&second["blocks_changed"], &second["kind"]), (&0.into(), &"incremental".into()));
    assert!(second["bytes_stored"].as_u64().unwrap() < 128 << 10, "{second}");
}

#[test]
fn a_differential_needs_the_full_image_only() {
    let scratch = Scratch::new();
    let (disk, made) = four_days(&scratch);
    a_day_passes(&disk, 4);
    fs::copy(&disk, scratch.path("day4.raw")).unwrap();
    let images = scratch.arg("images");
    let done = backup(&disk, &images, &["--differential"]);
    assert_eq!(done["kind"], "differential");
    assert_eq!(done["parent"], made[0]["recovery_point"]);
    for increment in &made[1..] {
        fs::remove_file(increment["image"].as_str().unwrap()).unwrap();
    }
    restored(&scratch, &format!("{images}@latest"), 4);
}

#[test]
fn a_lost_image_is_named_and_the_chain_goes_on() {
    let scratch = Scratch::new();
    let (disk, made) = four_days(&scratch);
    let images = scratch.arg("images");
    let gone = made[2]["image"].as_str().unwrap();
    fs::rename(gone, scratch.path("elsewhere")).unwrap();

    let json = aiv_json(&["list", &images]).ended(3).json();
    let points = json["sets"][0]["points"].as_array().unwrap();
    let restorable: Vec<bool> = points.iter().map(|p| p["restorable"].as_bool().unwrap()).collect();
    assert_eq!(restorable, [true, true, false]);
    let missing = made[2]["recovery_point"].as_str().unwrap();
    assert!(points[2]["problem"].as_str().unwrap().contains(missing), "{}", points[2]);
    let latest = format!("{images}@latest");
    let target = scratch.arg("target.raw");
    let message = aiv_json(&["restore", &latest, "--to", &target]).failed(4, "chain_broken");
    assert!(message.contains(missing), "{message}");
    assert!(!Path::new(&target).exists(), "nothing was created for it");

    let done = aiv_json(&["backup", &disk, "--to", &images]).ended(3).json();
    let image = &done["images"][0];
    assert_eq!(image["parent"], made[1]["recovery_point"]);
    let lost = image["lost"].as_array().unwrap();
    let lost: Vec<&Value> = lost.iter().map(|lost| &lost["recovery_point"]).collect();
    assert_eq!(lost, [&made[2]["recovery_point"], &made[3]["recovery_point"]]);
    restored(&scratch, &latest, 3);

    // The file comes back, and with it the point.
    fs::rename(scratch.path("elsewhere"), scratch.path("images/back under another name")).unwrap();
    aiv(&["list", &images]).ended(0);
    let point = format!("{images}@{}", made[3]["recovery_point"].as_str().unwrap());
    restored(&scratch, &point, 3);
}

#[test]
fn a_damaged_newest_image_is_not_built_on() {
    let scratch = Scratch::new();
    let (disk, made) = four_days(&scratch);
    let images = scratch.arg("images");
    let newest = made[3]["image"].as_str().unwrap();
    let len = fs::metadata(newest).unwrap().len();
    let file = File::options().write(true).open(newest).unwrap();
    file.write_all_at(b"rotten", len / 3).unwrap();
    aiv(&["verify", &images]).ended(4);
    let run = aiv(&["backup", &disk, "--to", &images]).ended(3);
    assert!(run.stderr.contains("is lost"), "{}", run.stderr);
    assert!(run.stderr.contains(made[3]["recovery_point"].as_str().unwrap()), "{}", run.stderr);
    restored(&scratch, &format!("{images}@latest"), 3);
}

#[test]
fn what_a_deleted_file_used_is_free_in_the_next_point() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    backup(&disk, &images, &[]);
    {
        let device = Loop::part(disk.as_ref(), ROOT, false);
        let mount = Mount::new(device.arg(), "rw");
        fs::remove_file(mount.path().join("etc/deep/er/noise")).unwrap();
    }
    fs::copy(&disk, scratch.path("day1.raw")).unwrap();
    let done = backup(&disk, &images, &["--verify"]);
    let info = aiv_json(&["info", done["image"].as_str().unwrap()]).ended(0).json();
    // 3 MiB in blocks of 64 KiB, less what metadata shares blocks with.
    let unused = info["blocks"]["unused"].as_u64().unwrap();
    assert!((40..=60).contains(&unused), "{}", info["blocks"]);
    assert!(done["bytes_stored"].as_u64().unwrap() < MIB, "{done}");
    restored(&scratch, &format!("{images}@latest"), 1);
}

fn ids(made: &[Value]) -> Vec<String> {
    made.iter().map(|m| m["recovery_point"].as_str().unwrap().to_owned()).collect()
}

fn points(folder: &str) -> Vec<String> {
    let json = aiv_json(&["list", folder]).ended(0).json();
    let points = json["sets"][0]["points"].as_array().cloned().unwrap_or_default();
    ids(&points)
}

#[test]
fn consolidation_keeps_the_newest_points_and_they_restore() {
    let scratch = Scratch::new();
    let (disk, made) = four_days(&scratch);
    let (images, all) = (scratch.arg("images"), ids(&made));
    let before = scratch.images();
    let catalogue = scratch.path("images/.aiv-catalogue");
    fs::remove_file(&catalogue).unwrap();
    let dry = ["consolidate", &images, "--keep", "2", "--dry-run"];
    let plan = aiv_json(&dry).ended(0).json();
    assert_eq!(plan["plan"][0]["merge"].as_array().unwrap().len(), 2, "{plan}");
    assert!(plan["plan"][0]["bytes_max"].as_u64().unwrap() > 0);
    assert_eq!(scratch.images(), before, "a dry run writes nothing");
    assert!(!catalogue.exists(), "not even a catalogue");

    let done = aiv_json(&["consolidate", &images, "--keep", "2"]).ended(0).json();
    assert_eq!(done["kept"], serde_json::json!([all[2], all[3]]));
    assert_eq!(done["removed"].as_array().unwrap().len(), 3, "{done}");
    let created = &done["created"][0];
    assert_eq!(
        (&created["kind"], &created["recovery_point"]),
        (&"full".into(), &made[2]["recovery_point"])
    );
    assert_eq!(created["state_root"], made[2]["state_root"]);
    assert_eq!(points(&images), all[2..]);
    aiv(&["verify", &images]).ended(0);
    restored(&scratch, &format!("{images}@latest"), 3);
    restored(&scratch, &format!("{images}@latest~1"), 2);

    // The chain goes on, and what was dropped on purpose is not taken for lost.
    a_day_passes(&disk, 4);
    fs::copy(&disk, scratch.path("day4.raw")).unwrap();
    let next = backup(&disk, &images, &[]);
    assert_eq!((&next["kind"], &next["lost"]), (&"incremental".into(), &serde_json::json!([])));
    let again = aiv_json(&["consolidate", &images]).ended(0).json();
    assert_eq!(again["created"].as_array().unwrap().len(), 1);
    assert_eq!(scratch.images().len(), 1, "one image is left: {:?}", scratch.images());
    restored(&scratch, &format!("{images}@latest"), 4);
    aiv(&["consolidate", &images]).ended(0);
}

#[test]
fn a_point_named_to_be_kept_is_kept() {
    let scratch = Scratch::new();
    let (_, made) = four_days(&scratch);
    let (images, all) = (scratch.arg("images"), ids(&made));
    aiv(&["consolidate", &images, "--keep", "1", "--keep-point", &all[1][..8]]).ended(0);
    assert_eq!(points(&images), [all[1].clone(), all[3].clone()]);
    restored(&scratch, &format!("{images}@{}", all[1]), 1);
    restored(&scratch, &format!("{images}@latest"), 3);
    let unknown = ["consolidate", &images, "--keep-point", "ffffffffffff"];
    aiv_json(&unknown).failed(1, "no_such_point");
}

#[test]
fn an_archive_needs_nothing_else() {
    let scratch = Scratch::new();
    let (_, made) = four_days(&scratch);
    let (images, file) = (scratch.arg("images"), scratch.arg("one file.aiv"));
    let point = format!("{images}@latest~1");
    let done = aiv_json(&["archive", &point, "--to", &file]).ended(0).json();
    assert_eq!(done["recovery_point"], made[2]["recovery_point"]);
    assert_eq!(done["state_root"], made[2]["state_root"]);
    let taken = aiv_json(&["archive", &point, "--to", &file]).error();
    assert_eq!((taken.0, taken.1.as_str()), (1, "exists"), "{}", taken.2);
    fs::remove_dir_all(&images).unwrap();
    aiv(&["verify", &file]).ended(0);
    assert_eq!(aiv_json(&["info", &file]).ended(0).json()["kind"], "full");
    restored(&scratch, &file, 2);
}

#[test]
fn a_copied_folder_restores_and_a_moved_one_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let (_, made) = four_days(&scratch);
    let (images, second, third) =
        (scratch.arg("images"), scratch.arg("second"), scratch.arg("third"));
    // A point takes along what it needs.
    let point = format!("{images}@latest~2");
    let done = aiv_json(&["copy", &point, "--to", &second]).ended(0).json();
    assert_eq!(done["copied"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(points(&second), ids(&made)[..2]);
    // The rest comes later, and what is there is not copied again.
    let done = aiv_json(&["copy", &images, "--to", &second]).ended(0).json();
    assert_eq!(done["copied"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(done["present"].as_array().unwrap().len(), 2, "{done}");
    for image in [&made[0], &made[3]] {
        let path = Path::new(image["image"].as_str().unwrap());
        let copy = Path::new(&second).join(path.file_name().unwrap());
        run("cmp", &[path, copy.as_path()]);
    }
    let message = aiv_json(&["move", &point, "--to", &third]).failed(5, "point_needed");
    assert!(message.contains(&ids(&made)[1]), "{message}");
    let done = aiv_json(&["move", &images, "--to", &third]).ended(0).json();
    assert_eq!(done["removed"].as_array().unwrap().len(), 4, "{done}");
    assert_eq!(scratch.images(), [""; 0]);
    fs::remove_dir_all(&second).unwrap();
    restored(&scratch, &format!("{third}@latest"), 3);
    restored(&scratch, &format!("{third}@latest~3"), 0);
    // A folder has all of its own points already, and cannot be moved onto itself.
    let done = aiv_json(&["copy", &third, "--to", &third]).ended(0).json();
    assert_eq!(done["copied"], serde_json::json!([]));
    aiv_json(&["move", &third, "--to", &third]).failed(5, "same_folder");
    assert_eq!(points(&third).len(), 4);
}

#[test]
fn a_set_that_cannot_be_copied_does_not_hide_what_was() {
    let scratch = Scratch::new();
    let images = scratch.arg("images");
    for name in ["a.raw", "b.raw"] {
        let disk = scratch.disk(name, 2 * MIB);
        scratch.back_up(&disk);
    }
    let sets = aiv_json(&["list", &images]).ended(0).json()["sets"].clone();
    let [first, second] = [0, 1].map(|n| sets[n]["points"][0]["image"].as_str().unwrap());
    let file = File::options().write(true).open(scratch.path("images").join(second)).unwrap();
    file.write_all_at(b"rotten", MIB).unwrap();
    let run = aiv(&["copy", &images, "--to", &scratch.arg("in words")]).ended(4);
    assert!(run.stdout.contains("copied") && run.stderr.contains(second), "{}", run.stderr);
    for command in ["copy", "move"] {
        let to = scratch.arg(command);
        let run = aiv_json(&[command, &images, "--to", &to]);
        run.failed(4, "damaged");
        let copied = &run.json()["copied"];
        assert_eq!(copied[0]["from"], first, "{copied}");
        assert_eq!(copied.as_array().unwrap().len(), 1, "{copied}");
    }
    assert_eq!(scratch.images(), [second], "the first set was moved");
}

#[test]
fn a_file_that_cannot_be_used_is_told_of_by_whatever_goes_without_it() {
    let scratch = Scratch::new();
    let images = scratch.arg("images");
    for name in ["a.raw", "b.raw"] {
        let disk = scratch.disk(name, 2 * MIB);
        scratch.back_up(&disk);
    }
    let sets = aiv_json(&["list", &images]).ended(0).json()["sets"].clone();
    let [sound, cut] = [0, 1].map(|n| sets[n]["points"][0]["image"].as_str().unwrap());
    let file = File::options().write(true).open(scratch.path("images").join(cut)).unwrap();
    file.set_len(9000).unwrap();
    let listed = aiv(&["list", &images]).ended(3);
    let all = format!("{}{}", listed.stdout, listed.stderr);
    assert!(all.contains("was in it") && !all.contains("is gone with"), "{all}");
    for (command, done) in [("copy", "copied"), ("consolidate", "merged"), ("move", "moved")] {
        let to = scratch.arg(command);
        let to = if command == "consolidate" { vec![] } else { vec!["--to", &to] };
        let run = aiv_json(&[&[command, &images][..], &to].concat()).ended(3).json();
        let warning = run["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with(&format!("not {done}: {cut}: unusable")), "{run}");
    }
    assert_eq!(scratch.images(), [cut], "{sound} was moved");
    let set = sets[0]["id"].as_str().unwrap();
    let moved = scratch.arg("move");
    fs::copy(scratch.path("images").join(cut), scratch.path("move").join("cut.aiv")).unwrap();
    aiv_json(&["consolidate", &moved]).ended(3);
    aiv_json(&["consolidate", &moved, "--set", set]).ended(0);
}

#[test]
fn what_was_proven_lately_is_not_read_again() {
    let scratch = Scratch::new();
    let (_, made) = four_days(&scratch);
    let images = scratch.arg("images");
    aiv(&["verify", &images]).ended(0);
    let json = aiv_json(&["verify", &images, "--skip-verified", "7"]).ended(0).json();
    let skipped = |json: &Value| {
        let images = json["images"].as_array().unwrap().iter();
        images.filter(|image| !image["skipped"].is_null()).count()
    };
    assert_eq!(skipped(&json), 4, "{json}");
    let listed = aiv_json(&["list", &images]).ended(0).json();
    assert_eq!(listed["sets"][0]["points"][0]["verified"]["ok"], true, "{listed}");
    // A file that changed is read, whatever was found before.
    let newest = made[3]["image"].as_str().unwrap();
    let file = File::options().write(true).open(newest).unwrap();
    file.write_all_at(b"rotten", fs::metadata(newest).unwrap().len() / 3).unwrap();
    let json = aiv_json(&["verify", &images, "--skip-verified", "7"]).ended(4).json();
    assert_eq!(skipped(&json), 3, "{json}");
    assert_eq!(json["images"][3]["points_affected"][0], made[3]["recovery_point"], "{json}");
}

#[test]
fn a_shifted_copy_is_a_difference_within_its_image_unless_differences_are_not_wanted() {
    let scratch = Scratch::new();
    let copied = noise(MIB, 1);
    let mut bytes = copied.clone();
    // As far behind it as it has to be.
    bytes.resize((20 << 20) + 3 * 4096, 0);
    bytes.extend_from_slice(&copied);
    let disk = scratch.write("disk.raw", &bytes);
    let images = scratch.arg("images");
    let count = |made: &Value, field: &str| made[field].as_u64().unwrap();
    let with = backup(&disk, &images, &["--verify"]);
    assert!(count(&with, "blocks_local") >= 15, "{with}");
    assert!(count(&with, "bytes_stored") < MIB * 5 / 4, "{with}");
    let without = backup(&disk, &images, &["--full", "--no-delta"]);
    assert_eq!(count(&without, "blocks_local"), 0, "{without}");
    assert!(count(&without, "bytes_stored") > 2 * MIB, "{without}");
    assert_eq!(with["state_root"], without["state_root"]);
    let target = scratch.arg("back.raw");
    let point = format!("{images}@latest~1");
    aiv(&["restore", &point, "--to", &target, "--yes"]).ended(0);
    assert!(fs::read(&target).unwrap() == bytes);
}
