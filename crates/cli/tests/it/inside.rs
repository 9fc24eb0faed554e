//! What is inside an image: every record of its filesystems, what there is to boot from, and what
//! became of files between two points.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

const ROOT: (u64, u64) = (66 * MIB, 80 * MIB);

/// A GPT disk with an EFI system partition and a Linux system, as far as looks go.
fn system(scratch: &Scratch) -> String {
    let disk = scratch.arg("disk.raw");
    let script = "truncate -s 160M \"$1\" && printf '%s\\n' 'label: gpt' \
                  'start=2048,size=131072,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B' \
                  'start=135168,size=163840' | sfdisk -q \"$1\"";
    run("sh", &["-c", script, "sh", &disk]);
    let esp = Loop::part(Path::new(&disk), (MIB, 64 * MIB), false);
    run("mkfs.fat", &["-F", "32", "-n", "ESP", "-i", "1234abcd", esp.arg()]);
    let loader = scratch.write("loader", b"MZ");
    let copy = |to: &str| run("mcopy", &["-i", esp.arg(), &loader, to]);
    for folder in ["::/EFI", "::/EFI/BOOT", "::/EFI/debian"] {
        run("mmd", &["-i", esp.arg(), folder]);
    }
    copy("::/EFI/BOOT/BOOTX64.EFI");
    copy("::/EFI/debian/grubx64.efi");
    drop(esp);
    let root = Loop::part(Path::new(&disk), ROOT, false);
    let uuid = "11111111-2222-3333-4444-555555555555";
    run("mkfs.ext4", &["-q", "-U", uuid, root.arg()]);
    change(&disk, root, |root| {
        for folder in ["etc", "boot/grub", "srv"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let fstab = format!(
            "# what is mounted\nUUID={uuid} / ext4 defaults 0 1\nUUID=1234-ABCD /boot/efi vfat \
             umask=0077 0 1\nLABEL=elsewhere /data xfs defaults 0 2\nLABEL=usb /usb ext4 nofail 0 0\n"
        );
        fs::write(root.join("etc/fstab"), fstab).unwrap();
        fs::write(root.join("boot/vmlinuz-6.1.0-1"), "kernel").unwrap();
        fs::write(root.join("boot/initrd.img-6.1.0-1"), "ram disk").unwrap();
        let grub = format!(
            "set root='hd0,gpt2'\nlinux /boot/vmlinuz-6.1.0-1 root=UUID={uuid} ro\n\
             linux /boot/vmlinuz-6.1.0-1 root=/dev/sda2 root=$root root=UUID=abcd\n"
        );
        fs::write(root.join("boot/grub/grub.cfg"), grub).unwrap();
        fs::write(root.join("srv/big"), noise(6 * MIB, 1)).unwrap();
        fs::write(root.join("srv/old"), "old").unwrap();
    });
    disk
}

/// Mounts the root of the system, and does something to it.
fn change(disk: &str, root: Loop, work: impl FnOnce(&Path)) {
    let mounted = Mount::new(root.arg(), "defaults");
    work(mounted.path());
    drop(mounted);
    drop(root);
    assert!(Path::new(disk).exists());
}

#[test]
fn every_record_inside_is_read_and_what_there_is_to_boot_is_told() {
    let scratch = Scratch::new();
    let disk = system(&scratch);
    scratch.back_up(&disk);
    let images = scratch.arg("images");
    let json = aiv_json(&["verify", &images, "--depth", "filesystem"]).ended(0).json();
    let inside = &json["filesystems"][0];
    let volumes = inside["volumes"].as_array().unwrap();
    let of = |volume: &Value| {
        ["volume", "filesystem"].map(|key| volume[key].as_str().unwrap().to_owned())
    };
    assert_eq!(of(&volumes[0]), ["p1", "vfat"]);
    assert_eq!(of(&volumes[1]), ["p2", "ext4"]);
    assert_eq!((&volumes[1]["files"], &volumes[1]["trouble_count"]), (&6.into(), &0.into()));
    let facts = inside["boot"]["facts"].as_array().unwrap();
    let efi = facts.iter().find(|fact| fact["kind"] == "efi").unwrap();
    assert_eq!((efi["loaders"].as_array().unwrap().len(), &efi["fallback"]), (2, &true.into()));
    let linux = facts.iter().find(|fact| fact["kind"] == "linux").unwrap();
    assert_eq!(linux["kernels"][0]["initrd"], "/p2/boot/initrd.img-6.1.0-1");
    assert_eq!(linux["loader"], "/p2/boot/grub/grub.cfg");
    assert_eq!(
        (&linux["mounts_found"], &linux["mounts_missing"][0]),
        (&2.into(), &"LABEL=elsewhere".into())
    );
    let faults = inside["boot"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(faults[0], "/p2/boot/grub/grub.cfg names UUID=abcd, which no volume is");
    let text =
        aiv(&["verify", &format!("{images}@latest"), "--depth", "filesystem"]).ended(0).stdout;
    assert!(text.contains("p2, ext4: 6 files"), "{text}");
    assert!(text.contains("note: boot: /etc/fstab on p2 names LABEL=elsewhere"), "{text}");
}

/// A system on a subvolume of Btrfs, started by entries and by a kernel that is a program of EFI, of
/// which some lead nowhere.
#[test]
fn systems_on_btrfs_and_what_boot_loaders_are_told_are_looked_at() {
    let scratch = Scratch::new();
    let disk = scratch.arg("disk.raw");
    let script = "truncate -s 320M \"$1\" && printf '%s\\n' 'label: gpt' \
                  'start=2048,size=131072,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B' \
                  'start=135168,size=450560' | sfdisk -q \"$1\"";
    run("sh", &["-c", script, "sh", &disk]);
    // Of no other disk here: mkfs.btrfs refuses a UUID that any device has at the time.
    let uuid = "b7c1d2e3-0101-4f5a-8a6b-7c8d9e0f1a2b";
    let esp = Loop::part(Path::new(&disk), (MIB, 64 * MIB), false);
    run("mkfs.fat", &["-F", "32", "-i", "1234abcd", esp.arg()]);
    let good = format!(
        "title One\nlinux /id/6.1/linux\ninitrd /id/6.1/initrd\noptions root=UUID={uuid} ro\n"
    );
    let bad = "title Two\n# options root=UUID=none\nlinux  /id/6.2/linux\ninitrd /id/6.1/initrd\n\
               options quiet root=UUID=99999999-2222-3333-4444-555555555555\n";
    let files = [
        ("loader/loader.conf", "timeout 1"),
        ("loader/entries/one.conf", &good),
        ("loader/entries/two.conf", bad),
        ("id/6.1/linux", "kernel"),
        ("id/6.1/initrd", "ram disk"),
        ("EFI/Linux/linux-6.3.efi", "both"),
        ("EFI/BOOT/BOOTX64.EFI", "MZ"),
    ];
    let folders = ["loader", "loader/entries", "id", "id/6.1", "EFI", "EFI/Linux", "EFI/BOOT"];
    folders.iter().for_each(|name| drop(run("mmd", &["-i", esp.arg(), &format!("::/{name}")])));
    for (name, text) in files {
        let file = scratch.write("file", text.as_bytes());
        run("mcopy", &["-o", "-i", esp.arg(), &file, &format!("::/{name}")]);
    }
    drop(esp);
    let tree = scratch.path("tree");
    for folder in ["@/etc", "@/boot", "@home/etc"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::write(tree.join("@/etc/fstab"), format!("UUID={uuid} / btrfs subvol=@ 0 0\n")).unwrap();
    fs::write(tree.join("@/boot/vmlinuz-lts"), "kernel").unwrap();
    fs::write(tree.join("@/boot/initramfs-lts"), "ram disk").unwrap();
    let root = Loop::part(Path::new(&disk), (66 * MIB, 220 * MIB), false);
    run("mkfs.btrfs", &["-q", "-U", uuid, "-r", tree.to_str().unwrap(), root.arg()]);
    drop(root);
    scratch.back_up(&disk);
    let images = scratch.arg("images");
    let json = aiv_json(&["verify", &images, "--depth", "filesystem"]).ended(0).json();
    let boot = &json["filesystems"][0]["boot"];
    let facts = boot["facts"].as_array().unwrap();
    let linux = facts.iter().find(|fact| fact["kind"] == "linux").unwrap();
    assert_eq!((&linux["volume"], &linux["mounts_found"]), (&"p2".into(), &1.into()));
    let kernels = linux["kernels"].as_array().unwrap().iter();
    let kernels: Vec<[&str; 2]> =
        kernels.map(|one| ["kernel", "initrd"].map(|key| one[key].as_str().unwrap())).collect();
    assert_eq!(
        kernels,
        [
            ["/p2/@/boot/vmlinuz-lts", "/p2/@/boot/initramfs-lts"],
            ["/p1/id/6.1/linux", "/p1/id/6.1/initrd"],
            ["/p1/EFI/Linux/linux-6.3.efi", "/p1/EFI/Linux/linux-6.3.efi"],
        ]
    );
    assert_eq!(linux["loader"], "/p1/loader/loader.conf");
    let faults = boot["faults"].as_array().unwrap();
    let faults: Vec<&str> = faults.iter().map(|fault| fault.as_str().unwrap()).collect();
    let entry = "/p1/loader/entries/two.conf";
    assert_eq!(
        faults,
        [
            format!("{entry} names /id/6.2/linux, which is not there"),
            format!("{entry} names UUID=99999999-2222-3333-4444-555555555555, which no volume is"),
        ]
    );
}

#[test]
fn a_damaged_filesystem_in_a_sound_image_is_a_warning_that_names_the_file() {
    let scratch = Scratch::new();
    let disk = system(&scratch);
    let root = Loop::part(Path::new(&disk), ROOT, false);
    // The record of one file, and nothing else.
    run("debugfs", &["-w", "-R", "set_inode_field srv/old block[0] 0xffffffff", root.arg()]);
    run("debugfs", &["-w", "-R", "set_inode_field srv/old checksum 0x1234", root.arg()]);
    drop(root);
    scratch.back_up(&disk);
    let image = format!("{}@latest", scratch.arg("images"));
    let json = aiv_json(&["verify", &image, "--depth", "filesystem"]).ended(3).json();
    assert_eq!(json["ok"], true);
    let volume = &json["filesystems"][0]["volumes"][1];
    let troubles = volume["troubles"].as_array().unwrap();
    assert!(troubles.iter().all(|one| one["path"] == "/p2/srv/old"), "{troubles:?}");
    assert!(!troubles.is_empty());
    // All others come back.
    let out = scratch.arg("out");
    let json = aiv_json(&["extract", &image, "/p2/srv", "--to", &out]).ended(3).json();
    assert_eq!(json["not_recovered"][0]["path"], "/p2/srv/old");
    assert!(fs::read(scratch.path("out/srv/big")).unwrap() == noise(6 * MIB, 1));
}

#[test]
fn what_was_proven_is_told_also_when_nobody_can_look_inside() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 4 * MIB);
    scratch.back_up(&disk);
    let mut bytes = fs::read(&disk).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&disk, &bytes).unwrap();
    let second = scratch.back_up(&disk);
    let first = fs::read_dir(scratch.path("images")).unwrap().map(|entry| entry.unwrap().path());
    let first = first.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "aiv"));
    fs::remove_file(first.unwrap()).unwrap();
    let run = aiv_json(&["verify", second.to_str().unwrap(), "--depth", "filesystem"]);
    let json = run.json();
    assert!(json["error"].is_object(), "{json}");
    assert_eq!(json["images"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn what_became_of_files_between_two_points_is_told_and_where_the_changes_are() {
    let scratch = Scratch::new();
    let disk = system(&scratch);
    scratch.back_up(&disk);
    change(&disk, Loop::part(Path::new(&disk), ROOT, false), |root| {
        fs::rename(root.join("srv/old"), root.join("srv/renamed")).unwrap();
        fs::remove_file(root.join("boot/grub/grub.cfg")).unwrap();
        fs::write(root.join("srv/new"), noise(300_000, 9)).unwrap();
        // In the middle of a file, and its time set back: nothing in its record tells.
        let big = root.join("srv/big");
        let time = fs::metadata(&big).unwrap().modified().unwrap();
        let file = fs::File::options().write(true).open(&big).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(100_000, 8), 2 * MIB).unwrap();
        file.set_modified(time).unwrap();
        run("chmod", &["600", root.join("etc/fstab").to_str().unwrap()]);
    });
    scratch.back_up(&disk);
    let images = scratch.arg("images");
    let (old, new) = (format!("{images}@latest~1"), format!("{images}@latest"));
    let json = aiv_json(&["diff", &old, &new]).ended(0).json();
    let volumes = json["volumes"].as_array().unwrap();
    assert_eq!((&volumes[0]["volume"], &volumes[0]["different"]), (&"p1".into(), &0.into()));
    let p2 = &volumes[1];
    let files = p2["files"].as_array().unwrap();
    let of = |path: &str| {
        files.iter().find(|one| one["path"] == path).unwrap_or_else(|| panic!("{path}: {files:?}"))
    };
    assert_eq!(of("/p2/srv/big")["what"], serde_json::json!(["content"]));
    assert_eq!(of("/p2/srv/new")["change"], "added");
    assert_eq!(of("/p2/boot/grub/grub.cfg")["change"], "removed");
    assert_eq!(
        (&of("/p2/srv/renamed")["change"], &of("/p2/srv/renamed")["from"]),
        (&"renamed".into(), &"/p2/srv/old".into())
    );
    assert_eq!(of("/p2/etc/fstab")["what"], serde_json::json!(["mode"]));
    assert_eq!(files.len(), 5, "{files:?}");
    let largest: Vec<&str> =
        p2["largest"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(largest[..2], ["/p2/srv/new", "/p2/srv/big"]);
    assert!(json["bytes_changed"].as_u64().unwrap() >= 400_000);
    // The same point twice.
    let json = aiv_json(&["diff", &new, &new]).ended(0).json();
    assert_eq!((&json["bytes_changed"], &json["volumes"][1]["different"]), (&0.into(), &0.into()));
    // A part of it, and a disk that is no image.
    let text = aiv(&["diff", &old, &disk, "/p2/etc"]).ended(0).stdout;
    assert!(text.contains("~ /p2/etc/fstab (mode)"), "{text}");
}

#[test]
fn a_sealed_point_is_compared_with_one_that_is_not_and_with_a_disk() {
    let scratch = Scratch::new();
    let disk = scratch.arg("disk.img");
    run("truncate", &["-s", "16M", &disk]);
    run("mkfs.ext4", &["-q", &disk]);
    let (images, pass) = (scratch.arg("images"), scratch.write("pass", b"a passphrase"));
    let with = ["--password-file", pass.as_str()];
    aiv_json(&["backup", &disk, "--to", &images]).ended(0);
    fs::write(Mount::new(&disk, "loop").path().join("new"), "new").unwrap();
    let seal = ["backup", &disk, "--to", &images, "--full", "--seal"];
    aiv_json(&[&seal[..], &with].concat()).ended(0);
    let (old, new) = (format!("{images}@latest~1"), format!("{images}@latest"));
    let files = |json: &serde_json::Value| json["volumes"][0]["files"].clone();
    for (pair, change) in [([&old, &new], "added"), ([&new, &old], "removed")] {
        let args = [&["diff", pair[0], pair[1]][..], &with].concat();
        let json = aiv_json(&args).ended(3).json();
        assert_eq!(files(&json)[0]["change"], change, "{json}");
        let warnings = json["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{json}");
        assert!(warnings[0].as_str().unwrap().starts_with(old.as_str()), "{json}");
    }
    aiv_json(&[&["diff", &new, &new][..], &with].concat()).ended(0);
    let json = aiv_json(&[&["diff", &new, &disk][..], &with].concat()).ended(0).json();
    assert_eq!(files(&json).as_array().unwrap().len(), 0, "{json}");
    // Whoever means one image expects that it has the key he gives.
    let message = aiv_json(&[&["ls", &old][..], &with].concat()).failed(4, "not_keyed");
    assert!(message.contains("neither sealed nor authenticated"), "{message}");
}
