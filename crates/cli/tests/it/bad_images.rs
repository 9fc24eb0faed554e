//! Files that are no image, or no longer: what each command says, and how it ends.

use std::fs;
use std::path::Path;

use crate::support::{MIB, Scratch, aiv, aiv_json};

fn code(command: &[&str], file: &str, status: i32, code: &str) -> String {
    let args: Vec<&str> = command.iter().copied().chain([file]).collect();
    aiv_json(&args).failed(status, code)
}

/// Changes the bytes of a file.
fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

fn flip(file: &Path, at: usize) {
    change(file, |bytes| bytes[at] ^= 0x10);
}

/// Changes both superblocks and mends their checksums, as a newer program would have written them.
fn rewrite_superblocks(file: &Path, edit: impl Fn(&mut [u8])) {
    change(file, |bytes| {
        for at in [0, bytes.len() - 8192] {
            let page = &mut bytes[at..at + 4096];
            edit(page);
            let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.supr"), &page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
        }
    });
}

/// Offset of the first structure the dump calls `what`.
fn place(file: &Path, what: &str) -> usize {
    let dump = aiv(&["dump".as_ref(), file]).ended(0).stdout;
    let line = dump.lines().find(|line| line.starts_with("0x") && line.contains(what));
    let line = line.unwrap_or_else(|| panic!("no {what} in\n{dump}"));
    usize::from_str_radix(line[2..].split(' ').next().unwrap(), 16).unwrap()
}

/// `aiv verify` finds exactly this one damage.
fn verify_finds(file: &Path, what: &str, offset: usize) {
    let run = aiv_json(&["verify".as_ref(), file]).ended(4);
    let json = run.json();
    assert_eq!(json["ok"], false);
    let errors = json["errors"].as_array().unwrap();
    let found = |e: &&serde_json::Value| {
        e["what"].as_str().unwrap().contains(what) && e["offset"] == offset
    };
    assert!(errors.iter().any(|e| found(&e)), "{what} at {offset} is not in {json}");
    assert_eq!(errors[0]["file"], file.to_str().unwrap());
}

#[test]
fn a_foreign_file_is_called_foreign_by_every_command() {
    let scratch = Scratch::new();
    let file = scratch.write("letter.aiv", &b"Dear reader, this is no image. ".repeat(1000));
    let (target, to) = (scratch.arg("target.raw"), scratch.arg("other"));
    for command in [
        vec!["info"],
        vec!["verify"],
        vec!["dump"],
        vec!["restore", "--to", target.as_str()],
        vec!["copy", "--to", to.as_str()],
        vec!["move", "--to", to.as_str()],
    ] {
        let message = code(&command, &file, 1, "foreign");
        assert!(message.contains("letter.aiv: not an Aivory image"), "{message}");
        assert!(message.contains("begins with 4465617220726561"), "{message}");
    }
    assert!(!Path::new(&target).exists());
}

#[test]
fn another_vendors_aiv_is_explained_and_listed_without_harm() {
    let scratch = Scratch::new();
    scratch.image();
    let theirs = scratch.write("images/theirs.aiv", &[b"AIX\x01".as_slice(), &[7; 9000]].concat());
    let run = aiv(&["info", theirs.as_str()]).ended(1);
    assert!(run.stderr.contains("their formats are closed"), "{}", run.stderr);
    assert!(run.stderr.contains("restore with the product that wrote it"), "{}", run.stderr);

    let listed = aiv_json(&["list".to_owned(), scratch.arg("images")]).ended(0).json();
    assert_eq!(listed["strays"][0]["kind"], "foreign");
    assert_eq!(listed["sets"].as_array().unwrap().len(), 1);
    // It was asked to prove everything in the folder, and one file it cannot.
    let verified = aiv_json(&["verify".to_owned(), scratch.arg("images")]).ended(3).json();
    assert_eq!(verified["ok"], true);
    assert_eq!(verified["strays"][0]["file"], "theirs.aiv");
}

#[test]
fn a_truncated_image_is_damage() {
    let scratch = Scratch::new();
    let image = scratch.image();
    change(&image, |bytes| bytes.truncate(bytes.len() / 2));
    let message = code(&["info"], image.to_str().unwrap(), 4, "incomplete");
    assert!(message.contains("cut off"), "{message}");
    let json = aiv_json(&["verify".as_ref(), image.as_path()]).ended(4).json();
    assert_eq!((&json["ok"], &json["images"][0]["ok"]), (&false.into(), &false.into()));
    assert!(json["errors"][0]["what"].as_str().unwrap().contains("incomplete"), "{json}");
    // A folder with a lost image is listed, with a warning.
    let run = aiv_json(&["list".to_owned(), scratch.arg("images")]).ended(3);
    assert_eq!(run.json()["strays"][0]["kind"], "unusable");
    assert!(run.stderr.contains("warning"), "{}", run.stderr);
}

#[test]
fn an_unfinished_backup_is_no_damage_and_the_hint_says_what_to_do() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let part = scratch.path("images/interrupted.aiv.part");
    let bytes = fs::read(&image).unwrap();
    fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    code(&["info"], part.to_str().unwrap(), 1, "unfinished");
    code(&["verify"], part.to_str().unwrap(), 1, "unfinished");
    let run = aiv(&["info".as_ref(), part.as_path()]).ended(1);
    assert!(
        run.stderr.contains("goes on with it, or removes it and begins anew"),
        "{}",
        run.stderr
    );
    let json = aiv_json(&["verify".to_owned(), scratch.arg("images")]).ended(0).json();
    assert_eq!(json["strays"][0]["kind"], "unfinished");
}

#[test]
fn no_file_of_an_unfinished_split_image_is_called_foreign_or_damaged() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 70 * MIB);
    let args = ["backup", &disk, "--to", &scratch.arg("images"), "--split", "64M"];
    let json = aiv_json(&[&args[..], &["--compress", "none"]].concat()).ended(0).json();
    let first = json["images"][0]["image"].as_str().unwrap().to_owned();
    let files = [first.clone(), first + ".p002"];
    let bytes = files.each_ref().map(|file| fs::read(file).unwrap());
    // Nothing else of the image is there.
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    for (whole, name) in bytes.iter().zip(["a.aiv.part", "a.aiv.p002.part"]) {
        // Just created, without a whole superblock, in the middle, and whole without the others.
        for len in [0, 1000, 5 << 20, whole.len()] {
            let part = scratch.write(name, &whole[..len]);
            code(&["info"], &part, 1, "unfinished");
            let verified = aiv_json(&["verify", &part]).error();
            assert_eq!((verified.0, verified.1.as_str()), (1, "unfinished"), "{name} {len}");
            fs::remove_file(part).unwrap();
        }
    }
}

#[test]
fn a_newer_major_version_asks_for_a_newer_program() {
    let scratch = Scratch::new();
    let image = scratch.image();
    rewrite_superblocks(&image, |page| page[8..10].copy_from_slice(&9u16.to_le_bytes()));
    let file = image.to_str().unwrap();
    for command in [["info"], ["verify"], ["dump"]] {
        let message = code(&command, file, 1, "version");
        assert!(message.contains("format version 9.3, this program reads 0.3"), "{message}");
    }
    let run = aiv(&["info", file]).ended(1);
    assert!(run.stderr.contains("a newer Aivory is needed"), "{}", run.stderr);
    // In a folder it is a stray that cannot be proven, not damage.
    aiv_json(&["verify".to_owned(), scratch.arg("images")]).ended(3);
}

#[test]
fn an_unknown_incompatible_feature_is_refused_by_its_name() {
    let scratch = Scratch::new();
    let image = scratch.image();
    rewrite_superblocks(&image, |page| {
        page[16..24].copy_from_slice(&(1u64 << 40 | 1 << 5).to_le_bytes());
        page[224..228].copy_from_slice(&[1, 40, 0, 0]);
        page[228..239].copy_from_slice(b"time-travel");
    });
    let message = code(&["info"], image.to_str().unwrap(), 1, "feature");
    assert!(message.contains("dedup-store, time-travel"), "{message}");
}

#[test]
fn a_damaged_superblock_is_found_and_its_copy_is_used() {
    let scratch = Scratch::new();
    let image = scratch.image();
    flip(&image, 100);
    verify_finds(&image, "superblock at byte 0", 0);
    let run = aiv_json(&["info".as_ref(), image.as_path()]).ended(3);
    assert!(run.json()["damage"][0].as_str().unwrap().contains("superblock"));
    // The bytes are all there: a restore succeeds, and says what it lived on.
    let target = scratch.arg("target.raw");
    let args = ["restore", image.to_str().unwrap(), "--to", target.as_str()];
    assert_eq!(aiv_json(&args).ended(3).json()["verified"], true);
    assert_eq!(fs::read(target).unwrap(), fs::read(scratch.path("disk.raw")).unwrap());
}

#[test]
fn an_image_with_both_superblocks_damaged_is_damaged_and_not_foreign() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let len = fs::metadata(&image).unwrap().len() as usize;
    flip(&image, 100);
    flip(&image, len - 8192 + 100);
    code(&["info"], image.to_str().unwrap(), 4, "damaged");
    verify_finds(&image, "superblock", 0);
}

#[test]
fn a_damaged_trailer_is_found_and_the_other_one_is_used() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let len = fs::metadata(&image).unwrap().len() as usize;
    flip(&image, len - 4096 + 50);
    verify_finds(&image, "trailer", len - 4096);
    aiv(&["info".as_ref(), image.as_path()]).ended(3);
    let first = place(&image, "trailer 1");
    flip(&image, first + 50);
    code(&["info"], image.to_str().unwrap(), 4, "damaged");
}

#[test]
fn a_damaged_index_page_is_found_and_stops_a_restore_before_it_writes() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let page = place(&image, "index page 0");
    flip(&image, page + 80);
    verify_finds(&image, "index page", page);
    let target = scratch.arg("target.raw");
    code(&["restore", "--to", target.as_str()], image.to_str().unwrap(), 4, "damaged");
    assert!(!Path::new(&target).exists());
}

#[test]
fn a_damaged_frame_is_found_and_a_file_created_for_the_restore_is_removed() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let frame = place(&image, "DATA block 20");
    flip(&image, frame + 1000);
    verify_finds(&image, "frame", frame);
    aiv(&["verify".as_ref(), image.as_path(), "--depth".as_ref(), "quick".as_ref()]).ended(0);
    let target = scratch.arg("target.raw");
    let message =
        code(&["restore", "--to", target.as_str()], image.to_str().unwrap(), 4, "damaged");
    assert!(message.contains(&format!("frame at byte {frame}")), "{message}");
    assert!(message.contains("the new file was removed"), "{message}");
    assert!(!Path::new(&target).exists());
    // A file that was there stays as it was, as long as nothing was written to it.
    let target = scratch.disk("target.raw", 2 * MIB);
    let before = fs::read(&target).unwrap();
    let restore = ["restore", "--yes", "--to", target.as_str()];
    let message = code(&restore, image.to_str().unwrap(), 4, "damaged");
    assert!(message.contains("nothing was written"), "{message}");
    assert!(fs::read(&target).unwrap() == before);
    // When something was, the message warns of it: the head comes last.
    let other = Scratch::new();
    let image = other.image();
    let frame = place(&image, "DATA block 0");
    flip(&image, frame + 1000);
    let message = code(&restore, image.to_str().unwrap(), 4, "damaged");
    assert!(message.contains("must not be used"), "{message}");
    assert!(Path::new(&target).exists());
}

#[test]
fn a_damaged_description_is_found_and_costs_no_block() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let meta = place(&image, "META manifest");
    flip(&image, meta + 70);
    verify_finds(&image, "META section", meta);
    let run = aiv_json(&["info".as_ref(), image.as_path()]).ended(3);
    let json = run.json();
    assert_eq!((&json["partitions"], &json["size"]), (&serde_json::Value::Null, &(2 * MIB).into()));
    assert!(run.stderr.contains("what the image says about the disk is lost"), "{}", run.stderr);
    let target = scratch.arg("target.raw");
    let args = ["restore", image.to_str().unwrap(), "--to", target.as_str()];
    assert_eq!(aiv_json(&args).ended(3).json()["verified"], true);
    assert_eq!(fs::read(target).unwrap(), fs::read(scratch.path("disk.raw")).unwrap());
}

#[test]
fn damage_of_one_image_does_not_hide_the_others_of_its_folder() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.image(), scratch.image());
    flip(&first, place(&first, "DATA block 3") + 100);
    let json = aiv_json(&["verify".to_owned(), scratch.arg("images")]).ended(4).json();
    let sound = |file: &Path| {
        let name = file.file_name().unwrap().to_str().unwrap();
        let images = json["images"].as_array().unwrap();
        images.iter().find(|i| i["file"] == name).unwrap()["ok"].clone()
    };
    assert_eq!((sound(&first), sound(&second)), (false.into(), true.into()));
}

#[test]
fn a_point_that_builds_on_a_damaged_image_is_not_called_sound() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let full = scratch.back_up(&disk);
    change(disk.as_ref(), |bytes| bytes[5000] ^= 1);
    let newest = scratch.back_up(&disk);
    let point = format!("{}@latest", scratch.arg("images"));
    let sound = aiv_json(&["verify", &point]).ended(0).json();
    let files = |json: &serde_json::Value| {
        let images = json["images"].as_array().unwrap().iter();
        let found =
            images.map(|image| (image["file"].as_str().unwrap().into(), image["ok"] == true));
        found.collect::<Vec<(std::path::PathBuf, bool)>>()
    };
    assert_eq!(files(&sound), [(newest.clone(), true), (full.clone(), true)]);
    let frame = place(&full, "DATA block");
    flip(&full, frame + 200);
    let run = aiv_json(&["verify", &point]).ended(4);
    assert_eq!(files(&run.json()), [(newest.clone(), true), (full.clone(), false)]);
    assert!(run.stderr.contains("affects point"), "{}", run.stderr);
    // An image file is proven alone, as far as it can be.
    assert_eq!(files(&aiv_json(&["verify".as_ref(), &*newest]).ended(3).json()), [(newest, true)]);
    let (whole, mended) = (scratch.arg("whole"), scratch.arg("mended"));
    fs::create_dir(&whole).unwrap();
    fs::copy(&full, Path::new(&whole).join(full.file_name().unwrap())).unwrap();
    flip(&Path::new(&whole).join(full.file_name().unwrap()), frame + 200);
    aiv(&["verify", &point, "--repair", "--to", &mended, "--from", &whole]).ended(3);
    assert!(Path::new(&mended).join(full.file_name().unwrap()).exists());
}

#[test]
fn whoever_names_a_folder_without_images_is_told_so() {
    let scratch = Scratch::new();
    let (empty, to) = (scratch.arg("empty"), scratch.arg("to"));
    fs::create_dir(&empty).unwrap();
    let said = format!("no images in {empty}\n");
    for command in ["list", "verify", "consolidate"] {
        assert_eq!(aiv(&[command, empty.as_str()]).ended(0).stdout, said, "{command}");
    }
    for command in ["copy", "move"] {
        assert_eq!(aiv(&[command, &empty, "--to", &to]).ended(0).stdout, said, "{command}");
    }
}

#[test]
fn a_missing_file_folder_or_point_is_named() {
    let scratch = Scratch::new();
    scratch.image();
    let images = scratch.arg("images");
    let message = code(&["info"], "/nowhere/a.aiv", 1, "not_found");
    assert!(message.contains("No such file or directory"), "{message}");
    assert_eq!(message.matches("/nowhere/a.aiv").count(), 1, "{message}");
    code(&["list"], "/nowhere", 1, "not_found");
    code(&["info"], &format!("{images}@latest~1"), 1, "no_such_point");
    code(&["info"], &images, 1, "not_a_disk");
    code(&["list"], &scratch.arg("disk.raw"), 1, "not_a_folder");
}
