//! `aiv backup --parity` and `aiv verify --repair`, on files.

use std::fs;

use crate::support::{MIB, Scratch, aiv, aiv_json, names_in};

/// A backup with parity of 6 MiB that do not compress.
fn backed_up(scratch: &Scratch, options: &[&str]) -> std::path::PathBuf {
    let disk = scratch.path("disk.img");
    let disk = match disk.exists() {
        true => disk.to_str().unwrap().to_owned(),
        false => scratch.disk("disk.img", 6 * MIB),
    };
    let to = scratch.arg("backup");
    let mut args = vec!["backup", &disk, "--to", &to, "--sectors", "all"];
    args.extend(options);
    let json = aiv_json(&args).ended(0).json();
    json["images"][0]["image"].as_str().unwrap().into()
}

#[test]
fn a_burst_in_an_image_with_parity_is_repaired_into_another_folder() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch, &["--parity"]);
    let good = fs::read(&image).unwrap();
    let mut damaged = good.clone();
    damaged[2_000_000..2_000_000 + (192 << 10)].fill(0xee);
    fs::write(&image, &damaged).unwrap();
    let to = scratch.arg("repaired");
    let args = ["verify", image.to_str().unwrap(), "--repair", "--to", &to];
    let json = aiv_json(&args).ended(3).json();
    let repair = &json["repairs"][0];
    assert_eq!((json["ok"].as_bool(), repair["complete"].as_bool()), (Some(false), Some(true)));
    assert_eq!(repair["pieces_by_parity"], 4);
    let file = repair["repaired"].as_str().unwrap();
    assert!(fs::read(file).unwrap() == good, "the file as it was written");
    assert!(fs::read(&image).unwrap() == damaged, "the damaged file is not touched");
    aiv(&["verify", file]).ended(0);
    // For people, and by the folder; the name is taken now.
    let backup = scratch.arg("backup");
    let run = aiv(&["verify", &backup, "--repair", "--to", &scratch.arg("again")]).ended(3);
    assert!(run.stdout.contains("repaired and proven as"), "{}", run.stdout);
    assert!(run.stderr.contains("still damaged"), "{}", run.stderr);
    let repair = aiv_json(&args).ended(4).json()["repairs"][0].clone();
    assert_eq!((&repair["name_taken"], &repair["complete"]), (&true.into(), &false.into()));
    assert!(fs::read(file).unwrap() == good, "no file is replaced");
}

#[test]
fn a_folder_made_for_repairs_goes_when_there_is_none() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch, &[]);
    let mut damaged = fs::read(&image).unwrap();
    damaged[2_000_000] ^= 1;
    fs::write(&image, &damaged).unwrap();
    let to = scratch.path("repaired");
    let args = |to: &std::path::Path| {
        let to = to.to_str().unwrap().to_owned();
        aiv_json(&["verify", image.to_str().unwrap(), "--repair", "--to", &to]).ended(4)
    };
    args(&to);
    assert!(!to.exists(), "{:?}", fs::read_dir(&to).unwrap().collect::<Vec<_>>());
    fs::create_dir(&to).unwrap();
    args(&to);
    assert!(to.exists(), "somebody else's");
}

#[test]
fn a_name_that_is_taken_does_not_keep_others_from_being_repaired() {
    let scratch = Scratch::new();
    let first = backed_up(&scratch, &["--parity"]);
    let second = backed_up(&scratch, &["--parity", "--full"]);
    for file in [&first, &second] {
        let mut bytes = fs::read(file).unwrap();
        bytes[2_000_000] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let (backup, to) = (scratch.arg("backup"), scratch.path("repaired"));
    fs::create_dir(&to).unwrap();
    let name = |file: &std::path::Path| file.file_name().unwrap().to_owned();
    let [taken, free] = [&first, &second].map(|file| to.join(name(file)));
    fs::write(&taken, b"somebody else's").unwrap();
    let args = ["verify", &backup, "--repair", "--to", to.to_str().unwrap()];
    let run = aiv(&args).ended(4);
    let said = format!("NOT REPAIRED, {} exists; nothing was written", taken.display());
    assert!(run.stdout.contains(&said), "{}", run.stdout);
    assert!(run.stderr.contains("name another folder with --to"), "{}", run.stderr);
    assert_eq!(fs::read(&taken).unwrap(), b"somebody else's");
    aiv(&["verify", free.to_str().unwrap()]).ended(0);
}

#[test]
fn lost_key_slots_are_told_and_come_from_another_copy() {
    let scratch = Scratch::new();
    let pass = scratch.write("pass", b"correct horse battery staple");
    let image = backed_up(&scratch, &["--seal", "--password-file", &pass]);
    let good = fs::read(&image).unwrap();
    let slots = 4096..4096 + (32 << 10);
    let second = (good.len() - (100 << 10)..good.len())
        .find(|&at| good[at..].starts_with(&good[slots.clone()]))
        .expect("both copies are the same");
    let mut damaged = good.clone();
    damaged[slots.clone()].fill(0x55);
    damaged[second..second + slots.len()].fill(0x66);
    fs::write(&image, &damaged).unwrap();
    let (path, to) = (image.to_str().unwrap(), scratch.arg("repaired"));
    let args = ["verify", path, "--repair", "--to", &to];
    let run = aiv(&args).ended(4);
    assert!(run.stdout.contains("both copies of its key slots are lost"), "{}", run.stdout);
    assert!(run.stderr.contains("nobody can open it any more, unless"), "{}", run.stderr);
    assert!(!run.stderr.contains("salvage"), "{}", run.stderr);
    let repair = aiv_json(&args).ended(4).json()["repairs"][0].clone();
    assert_eq!((&repair["key_slots"], &repair["complete"]), (&"lost".into(), &false.into()));
    assert!(names_in(&scratch.path("repaired")).is_empty());
    // Nor does a secret help, and the way on is told.
    let with_secret = [&args[..], &["--password-file", &pass]].concat();
    let run = aiv(&with_secret).ended(4);
    assert!(run.stderr.contains("--repair --to DIR --from DIR`, for which no"), "{}", run.stderr);
    // A copy has them.
    fs::create_dir(scratch.path("second")).unwrap();
    fs::write(scratch.path("second").join("copy.aiv"), &good).unwrap();
    let folder = scratch.arg("second");
    let with_copy = [&args[..], &["--from", &folder]].concat();
    let repair = aiv_json(&with_copy).ended(3).json()["repairs"][0].clone();
    assert_eq!(repair["key_slots"], "from_copy");
    let file = repair["repaired"].as_str().unwrap();
    assert!(fs::read(file).unwrap() == good);
    aiv(&["verify", file, "--password-file", &pass]).ended(0);
    let another = scratch.arg("another");
    let run = aiv(&["verify", path, "--repair", "--to", &another, "--from", &folder]).ended(3);
    assert!(run.stderr.contains("of another copy, which may be older"), "{}", run.stderr);
    // Whoever has its key can salvage what is left of a sealed image.
    let mut damaged = good.clone();
    damaged[1_000_000] ^= 1;
    fs::write(&image, &damaged).unwrap();
    let elsewhere = scratch.arg("elsewhere");
    let run = aiv(&["verify", path, "--repair", "--to", &elsewhere]).ended(4);
    assert!(run.stderr.contains("salvaged from it with its key"), "{}", run.stderr);
    // So does one place of two.
    fs::remove_file(file).unwrap();
    let mut damaged = good.clone();
    damaged[slots].fill(0x55);
    fs::write(&image, &damaged).unwrap();
    let run = aiv(&args).ended(3);
    assert!(run.stdout.contains("(key slots by their other copy)"), "{}", run.stdout);
    assert!(fs::read(file).unwrap() == good);
}

#[test]
fn a_full_image_with_lost_key_slots_is_opened_by_those_of_another_of_its_chain() {
    let scratch = Scratch::new();
    let pass = scratch.write("pass", b"correct horse battery staple");
    let image = backed_up(&scratch, &["--seal", "--password-file", &pass]);
    backed_up(&scratch, &["--seal", "--password-file", &pass]);
    let mut bytes = fs::read(&image).unwrap();
    let end = bytes.len() - (128 << 10);
    let slots = bytes[4096..4096 + (32 << 10)].to_vec();
    let second = (end..).find(|&at| bytes[at..].starts_with(&slots)).unwrap();
    bytes[4096..4096 + slots.len()].fill(0x55);
    bytes[second..second + slots.len()].fill(0x66);
    fs::write(&image, &bytes).unwrap();
    let (path, target) = (image.to_str().unwrap(), scratch.arg("back.raw"));
    aiv(&["restore", path, "--to", &target, "--yes", "--password-file", &pass]).ended(0);
    assert!(fs::read(target).unwrap() == fs::read(scratch.path("disk.img")).unwrap());
}

#[test]
fn what_cannot_be_repaired_is_listed_and_nothing_is_written() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch, &[]);
    let good = fs::read(&image).unwrap();
    let mut damaged = good.clone();
    damaged[1_000_000] ^= 1;
    fs::write(&image, &damaged).unwrap();
    let to = scratch.arg("repaired");
    let path = image.to_str().unwrap();
    // Whoever only looks is told what can be done.
    let run = aiv(&["verify", path]).ended(4);
    assert!(run.stdout.contains("--repair --to DIR writes damaged images as"), "{}", run.stdout);
    let run = aiv(&["verify", path, "--repair", "--to", &to]).ended(4);
    assert!(run.stdout.contains("NOT REPAIRED, 1 piece of 64 KiB stays"), "{}", run.stdout);
    assert!(run.stdout.contains("with blocks"), "{}", run.stdout);
    assert!(run.stderr.contains("`aiv salvage`"), "{}", run.stderr);
    assert!(names_in(&scratch.path("repaired")).iter().all(|name| !name.ends_with(".aiv")));
    // A second copy has what is lost.
    fs::create_dir(scratch.path("second")).unwrap();
    fs::write(scratch.path("second").join("copy.aiv"), &good).unwrap();
    let second = scratch.arg("second");
    let args = ["verify", path, "--repair", "--to", &to, "--from", &second];
    let json = aiv_json(&args).ended(3).json();
    assert_eq!(json["repairs"][0]["pieces_from_copies"], 1);
    let file = json["repairs"][0]["repaired"].as_str().unwrap();
    assert!(fs::read(file).unwrap() == good);
}

#[test]
fn a_damaged_split_image_with_a_key_is_repaired_beside_others_without_the_key() {
    let scratch = Scratch::new();
    let (images, to) = (scratch.arg("backup"), scratch.arg("repaired"));
    let large = scratch.disk("a.raw", 70 * MIB);
    let pass = scratch.write("pass", b"correct horse battery staple");
    let args = ["backup", &large, "--to", &images, "--split", "64M", "--compress", "none"];
    let how = ["--parity", "--seal", "--password-file", &pass];
    let split = aiv_json(&[&args[..], &how].concat()).ended(0).json()["images"][0].clone();
    assert_eq!(split["segments"], 2);
    let first = split["image"].as_str().unwrap().to_owned();
    let second = format!("{first}.p002");
    let good = [&first, &second].map(|file| fs::read(file).unwrap());
    let whole = backed_up(&scratch, &["--parity"]);
    for file in [&first, &second, whole.to_str().unwrap()] {
        let mut bytes = fs::read(file).unwrap();
        bytes[2_000_000..2_000_000 + (128 << 10)].fill(0xee);
        bytes[..4096].fill(0);
        fs::write(file, bytes).unwrap();
    }
    let json = aiv_json(&["verify", &images, "--repair", "--to", &to]).ended(3).json();
    let repairs = json["repairs"].as_array().unwrap();
    assert_eq!(repairs.len(), 2, "{json}");
    let one = |is_split: bool| repairs.iter().find(|one| one["in_segments"] == is_split).unwrap();
    assert_eq!((&one(true)["complete"], &one(true)["segments"]), (&true.into(), &1.into()));
    let made = one(true)["repaired"].as_str().unwrap().to_owned();
    for (file, good) in [made.clone(), format!("{made}.p002")].iter().zip(&good) {
        assert!(fs::read(file).unwrap() == *good, "{file}");
    }
    aiv(&["verify", one(false)["repaired"].as_str().unwrap()]).ended(0);
    let with = ["--password-file", pass.as_str()];
    let target = scratch.arg("target.raw");
    aiv(&[&["restore", &made, "--to", &target][..], &with].concat()).ended(0);
    assert!(fs::read(&large).unwrap() == fs::read(&target).unwrap());
    // A key that is added goes into the first and the last file.
    let new = scratch.write("new.key", &[7; 64]);
    let added = ["key", "add", &to, "--new-key-file", &new];
    aiv(&[&added[..], &with].concat()).ended(0);
    let changed = [made.clone(), format!("{made}.p002")].map(|file| fs::read(file).unwrap());
    assert!(changed[0] != good[0] && changed[1] != good[1]);
    let listed = aiv(&["list", &to, "--key-file", &new]).ended(0).stdout;
    assert!(listed.contains("a on "), "its name is sealed: {listed}");
}

#[test]
fn words_that_need_each_other_are_asked_for_together() {
    let scratch = Scratch::new();
    let image = scratch.write("x.aiv", b"x");
    aiv(&["verify", &image, "--repair"]).ended(2);
    aiv(&["verify", &image, "--to", &scratch.arg("x")]).ended(2);
    aiv(&["verify", &image, "--from", &scratch.arg("x")]).ended(2);
}

/// Changes the code of both trailers and makes their checksums right: what somebody without the
/// key can make.
fn forge(image: &std::path::Path) {
    let mut bytes = fs::read(image).unwrap();
    let last = bytes.len() - 4096;
    let magic = bytes[last..last + 8].to_vec();
    for page in bytes.chunks_mut(4096).filter(|page| page.starts_with(&magic)) {
        page[512] ^= 1;
        let hash = blake3::keyed_hash(b"aivory draft: trailer           ", &page[..4060]);
        page[4060..4092].copy_from_slice(hash.as_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.trlr"), &page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(image, bytes).unwrap();
}

#[test]
fn a_forged_image_is_damage_that_nothing_repairs() {
    let scratch = Scratch::new();
    let pass = scratch.write("pass", b"correct horse battery staple");
    let with = ["--password-file", pass.as_str()];
    let image = backed_up(&scratch, &[&["--authenticate"][..], &with].concat());
    forge(&image);
    let backup = scratch.arg("backup");
    aiv(&["verify", &backup]).ended(0);
    let to = scratch.arg("repaired");
    let verify = [&["verify", &backup, "--repair", "--to", &to][..], &with].concat();
    let json = aiv_json(&verify).ended(4).json();
    assert!(json["ok"] == false && json["errors"].to_string().contains("key"), "{json}");
    assert!(names_in(&scratch.path("repaired")).iter().all(|name| !name.ends_with(".aiv")));
    let text = aiv(&[&["verify", &backup][..], &with].concat()).ended(4).stdout;
    assert!(text.contains("DAMAGED, cannot be opened"), "{text}");
}
