//! `cargo xtask reader`: the second reader of the image format, `docs/reader`, as a judge.
//!
//! It was written in another language from `docs/format.md` alone. First its own tests read the
//! stored images; then `aiv` makes chains of a small disk in every codec, and the reader must
//! find them whole and restore every point to the bytes that `aiv restore` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde_json::Value;

use crate::{Outcome, process, setup};

/// The Python of Debian: the wheels of `requirements.txt` are made for its version.
const PYTHON: &str = "/usr/bin/python3";
const READER: &str = "docs/reader";

/// Where a chain is made, and with what.
struct Case {
    name: &'static str,
    /// The disk it begins with.
    disk: &'static str,
    /// Options of every backup.
    options: &'static [&'static str],
    /// Options of every merge.
    merging: &'static [&'static str],
    /// What `aiv` and the reader get to open its images.
    key: &'static [&'static str],
    /// Feature bits that all of its images must have.
    features: u64,
    /// What the trailers of the chain must count, lest the case be about something else.
    counted: &'static [&'static str],
}

const SEALED: u64 = 1 << 0;
const AUTHENTICATED: u64 = 1 << 1;
const SPLIT: u64 = 1 << 2;
const PARITY: u64 = 1 << 6;
const KEY_SLOTS: u64 = 1 << 7;

const PLAIN: Case = Case {
    name: "",
    disk: "disk.raw",
    options: &[],
    merging: &[],
    key: &[],
    features: 0,
    counted: &["blocks_data", "blocks_zero", "blocks_delta"],
};

const CASES: &[Case] = &[
    Case {
        name: "none",
        options: &["--compress", "none", "--exclude", "*.iso"],
        counted: &["blocks_data", "blocks_zero", "blocks_unused", "blocks_excluded"],
        ..PLAIN
    },
    Case {
        name: "lz4",
        options: &["--compress", "lz4"],
        counted: &["blocks_data", "blocks_zero", "blocks_unused", "blocks_delta"],
        ..PLAIN
    },
    Case { name: "zstd", options: &["--compress", "zstd:1", "--sectors", "all"], ..PLAIN },
    Case {
        name: "sealed",
        options: &["--seal", "--pad-sizes"],
        key: &["--password-file", "password"],
        features: SEALED | KEY_SLOTS,
        ..PLAIN
    },
    Case {
        name: "authenticated",
        options: &["--authenticate"],
        key: &["--key-file", "noise.key"],
        features: AUTHENTICATED | KEY_SLOTS,
        ..PLAIN
    },
    Case {
        name: "split",
        disk: "large.raw",
        options: &["--split", "64M"],
        merging: &["--split", "64M"],
        features: SPLIT,
        ..PLAIN
    },
    Case {
        name: "parity",
        disk: "large.raw",
        options: &["--parity"],
        merging: &["--parity"],
        features: PARITY,
        ..PLAIN
    },
    Case {
        name: "sealed-parts",
        disk: "large.raw",
        options: &["--seal", "--split", "64M", "--parity"],
        merging: &["--split", "64M", "--parity"],
        key: &["--password-file", "password"],
        features: SEALED | KEY_SLOTS | SPLIT | PARITY,
        ..PLAIN
    },
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    crate::no_arguments(arguments)?;
    setup::run(&[])?;
    judge()
}

/// All of it, on a machine that is set up.
pub(crate) fn judge() -> Outcome {
    let python = environment()?;
    let mut tests = process::command(path(&python)?);
    process::run(tests.args(["-B", "-m", "unittest"]).current_dir(reader_folder()))?;

    process::run(process::cargo().args(["build", "--quiet", "--package", "aiv-cli"]))?;
    let folder = tempfile::tempdir().map_err(|e| format!("a folder for images: {e}"))?;
    let judge = Judge { python, aiv: target().join("debug/aiv"), folder: folder.path().into() };
    judge.make_disk()?;
    // Each judges on one thread.
    let points = CASES.par_iter().map(|case| {
        let told = |failure: String| format!("chain {}: {failure}", case.name);
        judge.beside(case.name).and_then(|judge| judge.case(case)).map_err(told)
    });
    let points = points.sum::<Result<usize, String>>()?;
    println!("reader: {points} points of {} chains read as aiv reads them", CASES.len());
    Ok(())
}

/// A virtual environment with what the reader needs. It is made anew when the list of packages
/// changes, and believed only after all of it was there once.
fn environment() -> Result<PathBuf, String> {
    let folder = target().join("reader-venv");
    let python = folder.join("bin/python");
    let list = reader_folder().join("requirements.txt");
    let wanted = fs::read(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let made = folder.join("requirements.txt");
    if fs::read(&made).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    let folder_name = path(&folder)?;
    process::run(process::command(PYTHON).args(["-m", "venv", "--clear", folder_name]))?;
    let mut pip = process::command(path(&python)?);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "3"]);
    pip.args(["--only-binary", ":all:", "--require-hashes", "--requirement", path(&list)?]);
    process::run(&mut pip)?;
    fs::write(&made, wanted).map_err(|e| format!("{}: {e}", made.display()))?;
    Ok(python)
}

fn reader_folder() -> PathBuf {
    process::repository().join(READER)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| process::repository().join("target"), PathBuf::from)
}

fn path(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("{} has a name that is not UTF-8", path.display()))
}

struct Judge {
    python: PathBuf,
    aiv: PathBuf,
    folder: PathBuf,
}

impl Judge {
    /// Another one in a folder of its own, which has what [`Judge::make_disk`] made.
    fn beside(&self, name: &str) -> Result<Self, String> {
        let folder = self.folder.join(format!("of {name}"));
        let failed = |e| format!("{}: {e}", folder.display());
        fs::create_dir(&folder).map_err(failed)?;
        for file in ["disk.raw", "large.raw", "change", "noise.key", "password", "other"] {
            symlink(self.folder.join(file), folder.join(file)).map_err(failed)?;
        }
        Ok(Self { python: self.python.clone(), aiv: self.aiv.clone(), folder })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        process::run(process::command(program).args(arguments).current_dir(&self.folder))
    }

    fn aiv(&self, arguments: &[&str]) -> Outcome {
        self.run(path(&self.aiv)?, &[arguments, &["--quiet"]].concat())
    }

    fn reader(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(reader_folder().join("aivreader.py"));
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// 24 MiB of ext4 with texts, bytes that do not compress, and a file to leave out; the same
    /// with more than fits one segment; and secrets.
    fn make_disk(&self) -> Outcome {
        let docs = process::repository().join("docs");
        self.run("cp", &["--recursive", path(&docs)?, "tree"])?;
        self.noise("tree/noise.iso", 1 << 20)?;
        self.noise("tree/noise.bin", 3 << 20)?;
        self.noise("change", 300_000)?;
        let small = ["-q", "-t", "ext4", "-b", "1024", "-d", "tree", "disk.raw", "24M"];
        self.run("mke2fs", &small)?;
        self.noise("tree/large.bin", 66 << 20)?;
        self.run("mke2fs", &["-q", "-t", "ext4", "-b", "1024", "-d", "tree", "large.raw", "100M"])?;
        self.noise("noise.key", 64)?;
        self.write("password", "Z\u{fc}rich to Gen\u{e8}ve\n")?;
        self.write("other", "another passphrase\n")
    }

    fn write(&self, name: &str, text: &str) -> Outcome {
        fs::write(self.folder.join(name), text).map_err(|e| format!("{name}: {e}"))
    }

    fn noise(&self, name: &str, length: u64) -> Outcome {
        let (from, count) = ("if=/dev/urandom", format!("count={length}"));
        let to = format!("of={name}");
        self.run("dd", &[from, &to, &count, "iflag=count_bytes", "bs=1M", "status=none"])
    }

    /// One chain of three points: how many were judged, the merged ones included.
    fn case(&self, case: &Case) -> Result<usize, String> {
        let Case { name, disk, options, merging, key, counted, .. } = case;
        let backup = |more: &[&str]| {
            let what = ["backup", "source.raw", "--to", name, "--name", "judge"];
            self.aiv(&[&what, *options, *key, more].concat())
        };
        self.run("cp", &["--sparse=always", disk, "source.raw"])?;
        backup(&["--block-size", "16K"])?;
        self.edit("write change change.bin")?;
        self.edit("rm noise.bin")?;
        backup(&[])?;
        // A larger disk with a larger filesystem: blocks that no parent has.
        self.run("truncate", &["--size=+6M", "source.raw"])?;
        self.run("resize2fs", &["source.raw"])?;
        self.edit("write change again.bin")?;
        backup(&[])?;
        let before = self.compare(case, 3)?;
        self.counts(name, counted)?;
        self.damage(name)?;
        self.locked(case)?;
        // Merged into an increment on the full image, then into one full image.
        let full = self.info(&self.images(name)?.swap_remove(0))?;
        let point = full["superblock"]["recovery_point"].as_str().unwrap_or_default();
        let keep = [&["consolidate", name, "--keep", "1"], *merging, *key].concat();
        self.aiv(&[&keep[..], &["--keep-point", point]].concat())?;
        let merged = self.compare(case, 2)?;
        self.aiv(&keep)?;
        Ok(before + merged + self.compare(case, 1)?)
    }

    fn edit(&self, request: &str) -> Outcome {
        self.run("debugfs", &["-w", "-R", request, "source.raw"])
    }

    /// Every image of a folder is good, and reads through its parents as `aiv` reads it.
    fn compare(&self, case: &Case, expected: usize) -> Result<usize, String> {
        let images = self.images(case.name)?;
        if images.len() != expected {
            return Err(format!("{} images, expected {expected}: {images:?}", images.len()));
        }
        for image in &images {
            let others = images.iter().filter(|other| *other != image);
            let files: Vec<&str> = [image].into_iter().chain(others).map(String::as_str).collect();
            process::run(&mut self.reader(&[&["verify"], &files[..], case.key].concat()))?;
            let restore = [&["restore"], &files[..], &["--to", "reader.raw"], case.key].concat();
            process::run(&mut self.reader(&restore))?;
            self.aiv(&[&["restore", image, "--to", "aiv.raw"], case.key].concat())?;
            self.run("cmp", &["reader.raw", "aiv.raw"])?;
            self.run("rm", &["reader.raw", "aiv.raw"])?;
            let bits = self.info(image)?["superblock"]["incompat"].as_u64().unwrap_or_default();
            if bits & case.features != case.features {
                return Err(format!("{image} has features {bits:#x}, not {:#x}", case.features));
            }
        }
        Ok(images.len())
    }

    fn info(&self, image: &str) -> Result<Value, String> {
        let said = self.reader(&["info", image]).output();
        let said = said.map_err(|e| format!("cannot start the reader: {e}"))?;
        serde_json::from_slice(&said.stdout)
            .map_err(|e| format!("info of {image} is not JSON: {e}"))
    }

    /// Some image of a folder has each of these kinds of blocks.
    fn counts(&self, folder: &str, kinds: &[&str]) -> Outcome {
        let mut trailers = Vec::new();
        for image in self.images(folder)? {
            trailers.push(self.info(&image)?["trailer"].clone());
        }
        let has = |kind: &&str| trailers.iter().any(|t| t[*kind].as_u64().is_some_and(|n| n > 0));
        match kinds.iter().find(|kind| !has(kind)) {
            None => Ok(()),
            Some(kind) => Err(format!("no image has {kind}: the chain is not what it should be")),
        }
    }

    /// One changed bit in the middle of an image, and the reader says so.
    fn damage(&self, folder: &str) -> Outcome {
        let image = self.images(folder)?.swap_remove(0);
        let file = self.folder.join(&image);
        let failed = |e| format!("{image}: {e}");
        let mut bytes = fs::read(&file).map_err(failed)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&file, &bytes).map_err(failed)?;
        let said = self.reader(&["verify", &image]).output().map_err(failed)?;
        bytes[middle] ^= 0x10;
        fs::write(&file, &bytes).map_err(failed)?;
        let words = String::from_utf8_lossy(&said.stdout);
        if said.status.code() == Some(1) && words.contains("damage: piece") {
            return Ok(());
        }
        Err(format!("a changed bit at byte {middle} of {image} was not found: {words}"))
    }

    /// Without its key a sealed image proves its stored bytes and gives none away; a wrong key
    /// opens nothing.
    fn locked(&self, case: &Case) -> Outcome {
        if case.features & SEALED == 0 {
            return Ok(());
        }
        let image = self.images(case.name)?.swap_remove(0);
        process::run(&mut self.reader(&["verify", &image]))?;
        let wrong = ["--password-file", "other"];
        for (key, expected) in [(&[][..], "needs a key"), (&wrong[..], "nothing that was given")] {
            let restore = [&["restore", &image, "--to", "none.raw"], key].concat();
            let said = self.reader(&restore).output().map_err(|e| format!("{image}: {e}"))?;
            let words = String::from_utf8_lossy(&said.stderr);
            if said.status.code() != Some(1) || !words.contains(expected) {
                return Err(format!("{image} with {key:?}: {words}"));
            }
        }
        Ok(())
    }

    fn images(&self, folder: &str) -> Result<Vec<String>, String> {
        let failed = |e| format!("{folder}: {e}");
        let mut names = Vec::new();
        for item in fs::read_dir(self.folder.join(folder)).map_err(failed)? {
            let name = item.map_err(failed)?.file_name();
            let name = name.to_str().ok_or("an image whose name is not UTF-8")?;
            if name.ends_with(".aiv") || name.ends_with(".aii") {
                names.push(format!("{folder}/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }
}
