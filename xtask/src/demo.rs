//! `cargo xtask demo`: the main job on a real disk image, proven by other people's tools.
//!
//! Makes a partitioned disk (GPT, FAT EFI system partition, ext4 with real files), backs it up
//! twice, verifies, restores, and compares: once every sector, which must come back bit for
//! bit; once only what the filesystems use, restored over noise, which must leave clean
//! filesystems and equal files. No root, no loop devices, no mounts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Outcome, process, setup, work_folder};

const MIB: u64 = 1 << 20;
const DISK_LEN: u64 = 512 * MIB;
const ESP: Part = Part { start: MIB, len: 64 * MIB };
const ROOT: Part = Part { start: 65 * MIB, len: 446 * MIB };

#[derive(Clone, Copy)]
struct Part {
    start: u64,
    len: u64,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let folder = match arguments {
        [] => {
            let folder = process::repository().join("target/demo");
            // Nobody else's, with or without a mark.
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(failed("emptying", &folder))?;
            }
            folder
        }
        [folder] => PathBuf::from(folder),
        _ => return Err("takes at most one argument, the folder to work in".into()),
    };
    setup::run(&[])?;
    process::run(process::cargo().args(["build", "--quiet", "--package", "aiv-cli"]))?;
    work_folder::emptied(&folder)?;
    let demo = Demo { folder };

    headline("A disk like a real one: GPT, an EFI system partition, ext4 with real files");
    demo.make_disk()?;

    headline("Every sector: backup, verify, restore, compare bit for bit");
    demo.aiv(&["backup", "disk.img", "--to", "backups", "--sectors", "all", "--name", "demo"])?;
    demo.aiv(&["verify", "backups"])?;
    demo.aiv(&["restore", "backups@latest", "--to", "restored.img"])?;
    demo.step("cmp", &["disk.img", "restored.img"])?;

    headline("Only what the filesystems use: backup, verify, restore over noise, compare files");
    demo.aiv(&["backup", "disk.img", "--to", "backups", "--name", "demo"])?;
    demo.aiv(&["verify", "backups"])?;
    demo.write_noise("over-noise.img")?;
    demo.aiv(&["restore", "backups@latest", "--to", "over-noise.img", "--yes"])?;
    demo.step("sgdisk", &["--verify", "over-noise.img"])?;
    let root = format!("over-noise.img?offset={}", ROOT.start);
    demo.step("e2fsck", &["-fn", &root])?;
    demo.extract("over-noise.img", "files-after")?;
    demo.extract("disk.img", "files-before")?;
    demo.step("diff", &["--recursive", "--no-dereference", "files-before", "files-after"])?;

    headline("What is in the folder now");
    demo.aiv(&["list", "backups"])?;
    let shown = demo.folder.strip_prefix(process::repository()).unwrap_or(&demo.folder);
    println!("\ndemo: the disk came back bit for bit, and over noise with equal files.");
    println!("demo: everything is left in {}: look around.", shown.display());
    Ok(())
}

fn headline(text: &str) {
    println!("\n== {text}");
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("{what} {} failed: {error}", path.display())
}

struct Demo {
    folder: PathBuf,
}

impl Demo {
    /// Shows the command line, then runs it.
    fn step(&self, program: &str, arguments: &[&str]) -> Outcome {
        println!("$ {program} {}", arguments.join(" "));
        self.quiet(program, arguments)
    }

    fn quiet(&self, program: &str, arguments: &[&str]) -> Outcome {
        process::run(process::command(program).args(arguments).current_dir(&self.folder))
    }

    fn aiv(&self, arguments: &[&str]) -> Outcome {
        println!("\n$ aiv {}", arguments.join(" "));
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| process::repository().join("target"), PathBuf::from);
        let binary = target.join("debug/aiv");
        let binary = binary.to_str().ok_or("the target folder has a name that is not UTF-8")?;
        self.quiet(binary, arguments)
    }

    fn make_disk(&self) -> Outcome {
        let disk = self.folder.join("disk.img");
        let file = File::create_new(&disk).map_err(failed("creating", &disk))?;
        file.set_len(DISK_LEN).map_err(failed("sizing", &disk))?;
        let sectors = |p: Part| (p.start / 512, (p.start + p.len) / 512 - 1);
        let (esp, root) = (sectors(ESP), sectors(ROOT));
        let esp_range = format!("--new=1:{}:{}", esp.0, esp.1);
        let root_range = format!("--new=2:{}:{}", root.0, root.1);
        self.step(
            "sgdisk",
            &[&esp_range, "--typecode=1:ef00", &root_range, "--typecode=2:8300", "disk.img"],
        )?;
        // Formatted apart and written into place: mkfs.fat would ask for a device otherwise.
        self.step("mkfs.fat", &["-C", "-F", "32", "-n", "EFI", "esp.img", &kib(ESP.len)])?;
        self.step("mmd", &["-i", "esp.img", "::/EFI", "::/EFI/BOOT"])?;
        self.step("mcopy", &["-i", "esp.img", "/bin/ls", "::/EFI/BOOT/BOOTX64.EFI"])?;
        self.step(
            "dd",
            &["if=esp.img", "of=disk.img", "bs=1M", "seek=1", "conv=notrunc", "status=none"],
        )?;
        self.write_tree()?;
        let offset = format!("offset={}", ROOT.start);
        let blocks = (ROOT.len / 4096).to_string();
        self.step(
            "mke2fs",
            &[
                "-q", "-t", "ext4", "-b", "4096", "-L", "root", "-d", "tree", "-E", &offset,
                "disk.img", &blocks,
            ],
        )
    }

    /// Real files: this repository's sources and a part of the system's own.
    fn write_tree(&self) -> Outcome {
        let tree = self.folder.join("tree");
        fs::create_dir_all(&tree).map_err(failed("creating", &tree))?;
        for name in ["crates", "docs", "xtask", "Cargo.lock", "LICENSE"] {
            let from = process::repository().join(name);
            let from = from.to_str().ok_or("the repository has a name that is not UTF-8")?;
            self.step("cp", &["--recursive", from, "tree/"])?;
        }
        self.step(
            "cp",
            &["--recursive", "--no-dereference", "/usr/include", "/usr/share/perl", "tree/"],
        )?;
        let mut noise = File::create(tree.join("random.bin")).map_err(failed("creating", &tree))?;
        let mut state = 1;
        for _ in 0..16 {
            noise.write_all(&noise_mib(&mut state)).map_err(failed("writing", &tree))?;
        }
        Ok(())
    }

    fn write_noise(&self, name: &str) -> Outcome {
        println!("\n$ (fill {name} with noise)");
        let path = self.folder.join(name);
        let mut file = File::create(&path).map_err(failed("creating", &path))?;
        let mut state = 7;
        for _ in 0..DISK_LEN / MIB {
            file.write_all(&noise_mib(&mut state)).map_err(failed("writing", &path))?;
        }
        Ok(())
    }

    /// Every file of both filesystems of `disk`, as the filesystems' own tools read them.
    fn extract(&self, disk: &str, to: &str) -> Outcome {
        let target = self.folder.join(to);
        for part in ["root", "esp"] {
            let folder = target.join(part);
            fs::create_dir_all(&folder).map_err(failed("creating", &folder))?;
        }
        let root = format!("{disk}?offset={}", ROOT.start);
        self.step("debugfs", &["-R", &format!("rdump / {to}/root"), &root])?;
        let esp = format!("{disk}@@{}", ESP.start);
        self.step("mcopy", &["-s", "-n", "-i", &esp, "::/", &format!("{to}/esp/")])
    }
}

fn kib(bytes: u64) -> String {
    (bytes / 1024).to_string()
}

/// A MiB of bytes without structure (xorshift64).
fn noise_mib(state: &mut u64) -> Vec<u8> {
    let words = std::iter::repeat_with(|| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    });
    words.take(1 << 17).flatten().collect()
}
