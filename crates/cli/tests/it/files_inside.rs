//! Files in volumes inside of volumes: logical volumes, mirrors, disks of virtual machines.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::files::{fill, said_of, sums_of};
use crate::layers::{Group, md_member, md_member_of};
use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

/// A disk with partitions of so many mebibytes each, the first one at 1 MiB.
pub(crate) fn disk(scratch: &Scratch, name: &str, mib: &[u64]) -> Vec<(u64, u64)> {
    let path = scratch.arg(name);
    let total: u64 = mib.iter().sum();
    run("truncate", &["-s", &format!("{}M", total + 2), &path]);
    let lines: String = mib.iter().map(|size| format!("size={size}MiB\\n")).collect();
    let script = format!("printf 'label: gpt\\n{lines}' | sfdisk -q \"$1\"");
    run("sh", &["-c", &script, "sh", &path]);
    let mut start = MIB;
    let mut parts = Vec::new();
    for size in mib {
        parts.push((start, size * MIB));
        start += size * MIB;
    }
    parts
}

/// An ext4 filesystem in a file, filled by `fill`.
pub(crate) fn ext4(scratch: &Scratch, name: &str, mib: u64, fill: impl Fn(&Path)) -> Vec<u8> {
    let path = scratch.arg(name);
    run("truncate", &["-s", &format!("{mib}M"), &path]);
    run("mkfs.ext4", &["-q", "-L", name, &path]);
    let mounted = Mount::new(&path, "loop");
    fill(mounted.path());
    drop(mounted);
    fs::read(scratch.path(name)).unwrap()
}

pub(crate) fn put(disk: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(disk).unwrap().write_all_at(bytes, at).unwrap();
}

pub(crate) fn column<'a>(json: &'a Value, key: &str) -> Vec<&'a str> {
    let entries = json["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry[key].as_str().unwrap_or("-")).collect()
}

const FSTAB: &str = "# what is where\n\
    /dev/mapper/vg-root / ext4 defaults 0 1\n\
    /dev/vg/data /data ext4 defaults 0 2\n\
    LABEL=data /again ext4 defaults 0 2\n\
    /dev/vg/gone /gone ext4 defaults 0 2\n\
    /dev/mapper/vg-maybe /maybe ext4 nofail 0 2\n\
    /dev/mapper/other-home /home ext4 defaults 0 2\n";

const THIN: &str = "pool {\nid = \"000001-aaaa-bbbb-cccc-dddd-eeee-ffffff\"\n\
    status = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\nsegment1 {\n\
    start_extent = 0\nextent_count = 2\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\n\
    pool = \"pool_tdata\"\ntransaction_id = 0\nchunk_size = 128\ndiscards = \"passdown\"\n\
    zero_new_blocks = 1\n}\n}\n\
    pool_tdata {\nid = \"000002-aaaa-bbbb-cccc-dddd-eeee-ffffff\"\nstatus = [\"READ\", \"WRITE\"]\n\
    flags = []\nsegment_count = 1\nsegment1 {\nstart_extent = 0\nextent_count = 2\n\
    type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 60]\n}\n}\n\
    pool_tmeta {\nid = \"000003-aaaa-bbbb-cccc-dddd-eeee-ffffff\"\nstatus = [\"READ\", \"WRITE\"]\n\
    flags = []\nsegment_count = 1\nsegment1 {\nstart_extent = 0\nextent_count = 1\n\
    type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 62]\n}\n}\n\
    thin {\nid = \"000004-aaaa-bbbb-cccc-dddd-eeee-ffffff\"\n\
    status = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\nsegment1 {\n\
    start_extent = 0\nextent_count = 50\ntype = \"thin\"\nthin_pool = \"pool\"\n\
    transaction_id = 0\ndevice_id = 1\n}\n}\n";

/// A disk with a group on its second and third partition: `root` in two segments, `data` in
/// stripes over both, and a thin volume whose pool is damaged.
fn grouped(scratch: &Scratch) -> Group {
    let parts = disk(scratch, "disk.raw", &[8, 64, 64]);
    let group = Group::new(&scratch.path("disk.raw"), &parts[1..]);
    group.create("root", "-l 20");
    group.create("gap", "-l 1");
    group.call("lvextend -l +12 vg/root");
    group.create("data", "-i 2 -I 64k -l 24");
    group.add(THIN);
    let root = ext4(scratch, "system", 32, |root| {
        fill(root);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/fstab"), FSTAB).unwrap();
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(root.join("boot/vmlinuz-6.1"), noise(9000, 4)).unwrap();
    });
    let data = ext4(scratch, "data", 24, |root| {
        fs::write(root.join("numbers"), noise(3_000_000, 5)).unwrap();
    });
    group.fill("root", &root);
    group.fill("data", &data);
    let boot = ext4(scratch, "boot", 8, |root| fs::write(root.join("hello"), "boot\n").unwrap());
    put(&scratch.path("disk.raw"), parts[0].0, &boot);
    group
}

#[test]
fn files_of_logical_volumes_come_back_as_the_kernel_shows_them() {
    let scratch = Scratch::new();
    let group = grouped(&scratch);
    drop(group);
    scratch.back_up(&scratch.arg("disk.raw"));
    let image = format!("{}@latest", scratch.arg("images"));
    let out = scratch.arg("out");
    aiv(&["extract", &image, "/p2/vg/root", "--to", &out, "--verify"]).ended(0);
    let same = |volume: &str, folder: &str| {
        let mounted = Mount::new(&scratch.arg(volume), "loop,ro");
        assert_eq!(said_of(&scratch.path(folder)), said_of(mounted.path()));
        assert_eq!(sums_of(&scratch.path(folder)), sums_of(mounted.path()));
    };
    same("system", "out/root");
    // By its label, and what is in both volumes by the names of the volumes.
    let tar = scratch.arg("data.tar");
    aiv(&["extract", &image, "/data", "--tar", &tar]).ended(0);
    assert!(run("tar", &["-t", "-f", &tar]).contains("data/numbers"));
    let all = scratch.arg("all");
    let whole = aiv_json(&["extract", &image, "/", "--to", &all]).ended(3).json();
    assert!(whole["warnings"].to_string().contains("1 files were not recovered"), "{whole}");
    for (volume, folder) in
        [("system", "all/p2/vg/root"), ("data", "all/p2/vg/data"), ("boot", "all/p1")]
    {
        same(volume, folder);
    }
    let sums = aiv(&["find", &image, "/", "--sha256"]).ended(3).stdout;
    let list = scratch.write("sums", sums.as_bytes());
    assert!(sums.contains("  p2/vg/root/etc/fstab\n") && sums.lines().count() >= 8, "{sums}");
    run("sh", &["-c", "cd \"$1\" && sha256sum --check --strict \"$2\"", "sh", &all, &list]);
    let tar = scratch.arg("vg.tar");
    aiv(&["extract", &image, "/p2/vg", "--tar", &tar]).ended(3);
    assert!(run("tar", &["-t", "-f", &tar]).contains("vg/data/numbers"));
    let twice = aiv_json(&["extract", &image, "/p2/vg/root", "/p2/vg/root", "--tar", &tar]);
    assert_ne!(twice.status, 0);
}

#[test]
fn a_volume_that_holds_others_lists_them_and_says_what_is_not_opened() {
    let scratch = Scratch::new();
    let group = grouped(&scratch);
    drop(group);
    // The same for a raw disk and for its image.
    scratch.back_up(&scratch.arg("disk.raw"));
    for image in [scratch.arg("disk.raw"), format!("{}@latest", scratch.arg("images"))] {
        let image = image.as_str();
        let json = aiv_json(&["ls", image]).ended(0).json();
        let inside = ["p2/vg/thin", "p2/vg/root", "p2/vg/gap", "p2/vg/data"];
        let mut names = vec!["p1", "p2"];
        names.extend(inside);
        names.push("p3");
        assert_eq!(column(&json, "name"), names);
        let kinds = ["ext4", "LVM2_member", "unknown", "ext4", "unknown", "ext4", "LVM2_member"];
        assert_eq!(column(&json, "filesystem"), kinds);
        let thin = &json["entries"][2];
        let why = "a record of its pool does not match its checksum";
        assert_eq!((&thin["not_opened"], &thin["size"]), (&why.into(), &(50 * MIB).into()));
        assert_eq!(json["entries"][3]["within"], serde_json::json!(["LVM2_member"]));
        for place in ["/p2", "/p2/vg", "p2/vg/"] {
            let json = aiv_json(&["ls", image, place]).ended(0).json();
            assert_eq!(column(&json, "name"), inside, "{place}");
        }
        let text = aiv(&["ls", image, "/p2"]).ended(0);
        assert!((text.stdout + &text.stderr).contains(&format!("p2/vg/thin: not opened: {why}")));
        assert_eq!(aiv(&["cat", image, "/p2/vg/root/deep/link"]).ended(0).stdout, "hello\n");
        let json = aiv_json(&["ls", image, "/p2/vg/root/absolute/and"]).ended(0).json();
        assert_eq!(column(&json, "path"), ["/p2/vg/root/deep/er/and/deeper"]);
        let json = aiv_json(&["find", image, "/p2", "--match", "n*"]).json();
        assert!(column(&json, "path").contains(&"/p2/vg/data/numbers"), "{json}");

        let failed = |path: &str, code| aiv_json(&["ls", image, path]).failed(1, code);
        let message = failed("/p2/vg/nothing", "no_such_volume");
        assert!(message.contains("there are p2/vg/thin, p2/vg/root"), "{message}");
        assert!(failed("/p2/vg/thin", "not_opened").contains(why));
        assert!(failed("/p2/vg/thin/etc", "not_opened").contains(why));
        let message = failed("/p3", "no_files");
        assert!(message.ends_with("its logical volumes are those of p2"), "{message}");
        aiv_json(&["cat", image, "/p2/vg"]).failed(1, "wrong_type");
    }
}

#[test]
fn verification_and_comparison_look_into_logical_volumes() {
    let scratch = Scratch::new();
    let group = grouped(&scratch);
    let disk = scratch.arg("disk.raw");
    scratch.back_up(&disk);
    let images = scratch.arg("images");
    let json = aiv_json(&["verify", &images, "--depth", "filesystem"]).json();
    let inside = &json["filesystems"][0];
    let volume = |name: &str| {
        let all = inside["volumes"].as_array().unwrap();
        all.iter().find(|volume| volume["volume"] == name).unwrap().clone()
    };
    assert_eq!(volume("p2")["not_read"], "it holds 4 volumes");
    assert!(volume("p2/vg/thin")["not_read"].as_str().unwrap().starts_with("a record of its pool"));
    for name in ["p1", "p2/vg/root", "p2/vg/data"] {
        let found = volume(name);
        assert_eq!((&found["trouble_count"], &found["not_read"]), (&0.into(), &Value::Null));
        assert!(found["files"].as_u64().unwrap() >= 1);
    }
    let linux = &inside["boot"]["facts"][0];
    assert_eq!((&linux["volume"], &linux["mounts_found"]), (&"p2/vg/root".into(), &3.into()));
    assert_eq!(linux["mounts_missing"], serde_json::json!(["/dev/vg/gone"]));
    assert_eq!(linux["kernels"][0]["kernel"], "/p2/vg/root/boot/vmlinuz-6.1");

    let changed = {
        let mounted = Mount::new(&scratch.arg("data"), "loop");
        fs::write(mounted.path().join("more"), noise(70_000, 8)).unwrap();
        fs::write(mounted.path().join("numbers"), noise(3_000_000, 9)).unwrap();
        drop(mounted);
        fs::read(scratch.path("data")).unwrap()
    };
    group.fill("data", &changed);
    drop(group);
    scratch.back_up(&disk);
    let points: Vec<String> =
        scratch.images().iter().map(|name| format!("{images}/{name}")).collect();
    let [old, new] = points.as_slice() else { panic!("{points:?}") };
    for path in ["/", "/p2", "/p2/vg/data"] {
        let json = aiv_json(&["diff", old, new, path]).json();
        let text = json.to_string();
        assert!(
            text.contains("/p2/vg/data/more") && text.contains("/p2/vg/data/numbers"),
            "{text}"
        );
        assert!(!text.contains("vmlinuz"), "{text}");
        // The blocks that changed are told by their files, stripes and all.
        let volumes = json["volumes"].as_array().unwrap();
        let data = volumes.iter().find(|volume| volume["volume"] == "p2/vg/data").unwrap();
        let files = data["files"].as_array().unwrap();
        let numbers = files.iter().find(|file| file["path"] == "/p2/vg/data/numbers").unwrap();
        let bytes = numbers["bytes_changed"].as_u64().unwrap();
        assert!((3_000_000..3_000_000 + 65_536).contains(&bytes), "{json}");
        if let Some(root) = volumes.iter().find(|volume| volume["volume"] == "p2/vg/root") {
            assert_eq!(root["bytes_changed"], 0, "{json}");
        }
    }
}

#[test]
fn mirrors_are_what_they_hold_and_other_raids_say_what_is_missing() {
    let scratch = Scratch::new();
    let parts = disk(&scratch, "disk.raw", &[20, 40, 20]);
    let path = scratch.path("disk.raw");
    let files =
        ext4(&scratch, "files", 16, |root| fs::write(root.join("a"), "mirrored\n").unwrap());
    md_member(&path, parts[0], 1, 2, 0);
    put(&path, parts[0].0 + MIB, &files);
    // A group on a mirror.
    md_member(&path, parts[1], 1, 2, 0);
    let group = Group::new(&path, &[(parts[1].0 + MIB, parts[1].1 - MIB)]);
    group.create("root", "-l 16");
    group.fill("root", &files);
    drop(group);
    md_member(&path, parts[2], 5, 3, 1);
    let image = path.to_str().unwrap();
    let json = aiv_json(&["ls", image]).ended(0).json();
    assert_eq!(column(&json, "name"), ["p1", "p2", "p2/vg/root", "p3"]);
    let kinds = ["ext4", "LVM2_member", "ext4", "linux_raid_member"];
    assert_eq!(column(&json, "filesystem"), kinds);
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(entries[0]["within"], serde_json::json!(["linux_raid_member"]));
    assert_eq!(entries[0]["start"], 2 * MIB);
    let within = serde_json::json!(["linux_raid_member", "LVM2_member"]);
    assert_eq!(entries[2]["within"], within);
    let why = "2 of the 3 members of its RAID5 are not here";
    assert_eq!(entries[3]["not_opened"], why);
    for file in ["/p1/a", "/files/a", "/p2/vg/root/a"] {
        // Two volumes have that label.
        match file {
            "/files/a" => drop(aiv_json(&["cat", image, file]).failed(1, "no_such_volume")),
            _ => assert_eq!(aiv(&["cat", image, file]).ended(0).stdout, "mirrored\n"),
        }
    }
    assert!(aiv_json(&["ls", image, "/p3"]).failed(1, "not_opened").contains(why));
}

#[test]
fn a_member_that_its_mirror_went_on_without_is_old_and_a_note_says_so() {
    let scratch = Scratch::new();
    let parts = disk(&scratch, "disk.raw", &[20, 20]);
    let path = scratch.path("disk.raw");
    let image = path.to_str().unwrap();
    for (part, text) in parts.iter().zip(["old\n", "new\n"]) {
        let files =
            ext4(&scratch, text.trim(), 16, |root| fs::write(root.join("a"), text).unwrap());
        put(&path, part.0 + MIB, &files);
    }
    for (events, is_old) in [(40, false), (41, false), (42, true)] {
        md_member_of(&path, parts[0], 1, 2, (0, 40));
        md_member_of(&path, parts[1], 1, 2, (1, events));
        let told = aiv(&["ls", image]).ended(0);
        let told = told.stdout + &told.stderr;
        let note = "its mirror went on without it: another member on this disk is newer";
        assert_eq!(told.contains(&format!("p1: {note}")), is_old, "{told}");
        assert!(!told.contains("p2: "), "{told}");
    }
    for (file, text) in [("/p1/a", "old\n"), ("/p2/a", "new\n")] {
        assert_eq!(aiv(&["cat", image, file]).ended(0).stdout, text);
    }
}

#[test]
fn a_raid_on_several_partitions_of_a_disk_is_found_at_its_first_member() {
    let scratch = Scratch::new();
    let parts = disk(&scratch, "disk.raw", &[12, 12]);
    let path = scratch.path("disk.raw");
    let files =
        ext4(&scratch, "files", 20, |root| fs::write(root.join("a"), noise(900_000, 3)).unwrap());
    // The second partition is the first member. Chunks of 64 KiB go round both.
    for (role, part) in [(1, parts[0]), (0, parts[1])] {
        md_member(&path, part, 0, 2, role);
        let chunks = files.chunks(64 << 10).skip(role.into()).step_by(2);
        put(&path, part.0 + MIB, &chunks.collect::<Vec<_>>().concat());
    }
    scratch.back_up(path.to_str().unwrap());
    let image = format!("{}@latest", scratch.arg("images"));
    let json = aiv_json(&["ls", &image]).ended(0).json();
    assert_eq!(column(&json, "name"), ["p1", "p2"]);
    assert_eq!(column(&json, "filesystem"), ["ext4", "linux_raid_member"]);
    let sum = aiv(&["find", &image, "/p1", "--sha256"]).ended(0).stdout;
    let expected = scratch.write("expected", &noise(900_000, 3));
    assert_eq!(sum.split(' ').next(), run("sha256sum", &[&expected]).split(' ').next());
    let told = aiv_json(&["ls", &image, "/p2"]).failed(1, "no_files");
    assert!(told.contains("what its RAID holds is that of p1"), "{told}");
    aiv(&["extract", &image, "/", "--to", &scratch.arg("out")]).ended(0);
    assert!(fs::read(scratch.path("out/p1/a")).unwrap() == noise(900_000, 3));
}

#[test]
fn partitions_of_a_virtual_machine_on_a_logical_volume() {
    let scratch = Scratch::new();
    run("truncate", &["-s", "50M", &scratch.arg("host")]);
    let group = Group::new(&scratch.path("host"), &[(0, 50 * MIB)]);
    group.create("vm", "-l 40");
    let parts = disk(&scratch, "guest", &[30]);
    let inner = Group::new(&scratch.path("guest"), &parts);
    inner.create("root", "-l 16");
    let files = ext4(&scratch, "files", 16, |root| fs::write(root.join("a"), "guest\n").unwrap());
    inner.fill("root", &files);
    drop(inner);
    group.fill("vm", &fs::read(scratch.path("guest")).unwrap());
    drop(group);
    let host = scratch.arg("host");
    let json = aiv_json(&["ls", &host]).ended(0).json();
    let names = ["p0", "p0/vg/vm", "p0/vg/vm/p1", "p0/vg/vm/p1/vg/root"];
    assert_eq!(column(&json, "name"), names);
    let file = aiv(&["cat", &host, "/p0/vg/vm/p1/vg/root/a"]).ended(0);
    assert_eq!(file.stdout, "guest\n");
    // On a device just as well.
    let device = Loop::new(&scratch.path("host"), &["--read-only"]);
    let json = aiv_json(&["ls", device.arg(), "/p0/vg/vm"]).ended(0).json();
    assert_eq!(column(&json, "name"), names[2..]);
}

/// Volumes in volumes in volumes: looking ends.
#[test]
fn nesting_ends() {
    let scratch = Scratch::new();
    let len = 40 * MIB;
    let mut inner = noise(1000, 1);
    let mut outer = Vec::new();
    for level in 0..6 {
        let name = format!("disk{level}");
        run("truncate", &["-s", &format!("{}M", 10 + 3 * level), &scratch.arg(&name)]);
        let size = (10 + 3 * level) * MIB;
        let group = Group::new(&scratch.path(&name), &[(0, size)]);
        group.create("in", &format!("-l {}", 8 + 3 * level));
        group.fill("in", &inner);
        drop(group);
        inner = fs::read(scratch.path(&name)).unwrap();
        outer.clone_from(&inner);
    }
    assert!((outer.len() as u64) < len);
    let disk = scratch.write("outermost", &outer);
    let json = aiv_json(&["ls", &disk]).ended(0).json();
    let names = column(&json, "name");
    assert_eq!(names.len(), 5);
    assert_eq!(names[4], "p0/vg/in/vg/in/vg/in/vg/in");
    let last = &json["entries"][4];
    assert_eq!(last["not_opened"], "volumes are nested too deeply");
}
