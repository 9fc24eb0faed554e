//! Images made by other people's tools, and their opinion on what is in them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aiv_disk_formats::{DiskImage, Error, Follow, Format, OpenOptions};
use aiv_volume_io::{Extent, ExtentSet, FileDisk, ReadAt};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// A folder for images, gone with the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a tool in the folder; it must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a tool in the folder, whatever comes of it.
    pub(crate) fn try_run(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.try_words(&words)
    }

    pub(crate) fn try_words(&self, words: &[&str]) -> Output {
        Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.0.path())
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap_or_else(|error| panic!("{} is needed: {error}", words[0]))
    }

    /// Writes runs of one byte into an image, each `(pattern, offset, length)`.
    pub(crate) fn write(&self, format: &str, name: &str, runs: &[(u8, u64, u64)]) {
        let commands: Vec<String> =
            runs.iter().map(|(byte, at, len)| format!("write -P {byte} {at} {len}")).collect();
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        self.io(format, name, &commands);
    }

    /// Commands of `qemu-io`, which must succeed.
    pub(crate) fn io(&self, format: &str, name: &str, commands: &[&str]) {
        let output = self.try_io(format, name, commands);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !said.contains("failed"), "{commands:?}: {output:?}");
    }

    /// Commands of `qemu-io`, of which some may be refused.
    pub(crate) fn try_io(&self, format: &str, name: &str, commands: &[&str]) -> Output {
        let mut words = vec!["qemu-io", "-f", format];
        for command in commands {
            words.extend(["-c", command]);
        }
        words.push(name);
        self.try_words(&words)
    }

    /// A raw disk with bytes at odd places, compressible and not, and holes between.
    pub(crate) fn raw(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        let at_end = len.saturating_sub(700);
        let places = [(0, 513), (70_001, 200_003), (len / 2 - 1, 66_000), (at_end, 700)];
        for (seed, (at, count)) in (1..).zip(places) {
            let count = count.min(len.saturating_sub(at));
            file.write_all_at(&noise(seed, count as usize), at).unwrap();
        }
        if len > 2 * MIB {
            file.write_all_at(&vec![0xE5; 300_000], len / 4 + 17).unwrap();
        }
        path
    }

    /// Opens an image by content and name.
    pub(crate) fn open(&self, name: &str) -> Result<DiskImage, Error> {
        DiskImage::open(&self.path(name), &OpenOptions::default())
    }

    /// Opens an image that may look at what lies beside it.
    pub(crate) fn open_chain(&self, name: &str) -> Result<DiskImage, Error> {
        let options = OpenOptions { follow: Follow::Folder, ..OpenOptions::default() };
        DiskImage::open(&self.path(name), &options)
    }

    /// QEMU's opinion: the image as a raw file beside it.
    pub(crate) fn convert(&self, format: &str, name: &str) -> PathBuf {
        let raw = self.path("opinion.raw");
        let _ = fs::remove_file(&raw);
        self.run(&format!("qemu-img convert -f {format} -O raw {name} opinion.raw"));
        raw
    }

    /// The image must be of this format and read as QEMU reads it.
    pub(crate) fn check(&self, format: Format, name: &str) -> DiskImage {
        let disk = self.open_chain(name).unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
        assert_eq!(disk.format(), format, "{name}");
        let qemu = if format == Format::Vhd { "vpc" } else { format.name() };
        check_same(&disk, &self.convert(qemu, name));
        disk
    }

    /// The opinion of libvhdi on a VHD or VHDX and its parents, the image itself first.
    pub(crate) fn libvhdi(&self, names: &[&str]) -> PathBuf {
        let mut words = vec!["/usr/bin/python3", "-c", LIBVHDI];
        words.extend(names);
        let output = self.try_words(&words);
        assert!(output.status.success(), "libvhdi {names:?}: {output:?}");
        self.path("libvhdi.raw")
    }

    pub(crate) fn patch(&self, name: &str, offset: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

/// Reads a chain with libvhdi and writes it as a sparse raw file.
const LIBVHDI: &str = r#"
import pyvhdi, sys
chain = []
for name in sys.argv[1:]:
    disk = pyvhdi.file()
    disk.open(name)
    if chain:
        chain[-1].set_parent(disk)
    chain.append(disk)
top = chain[0]
size = top.get_media_size()
with open("libvhdi.raw", "wb") as out:
    out.truncate(size)
    at = 0
    while at < size:
        data = top.read_buffer_at_offset(min(1 << 20, size - at), at)
        if data.count(0) != len(data):
            out.seek(at)
            out.write(data)
        at += len(data)
"#;

/// Every byte of the disk is that of the raw file, read in strides that fit nothing, by several
/// threads; and what is called a hole is one.
pub(crate) fn check_same(disk: &DiskImage, raw: &Path) {
    let raw = FileDisk::open_source(raw).unwrap();
    assert_eq!(disk.len(), raw.len(), "length");
    let all = Extent::new(0, disk.len());
    let holes: ExtentSet = disk.holes(all).unwrap().into_iter().collect();
    let raw_holes: ExtentSet = raw.holes(all).unwrap().into_iter().collect();
    // Where both see nothing, one look is enough; a hole of ours that is none there is compared.
    let mut work: Vec<Extent> = raw_holes.gaps_within(all);
    work.extend(holes.gaps_within(all));
    let work: ExtentSet = work.into_iter().collect();
    std::thread::scope(|scope| {
        for (thread, stride) in [100_003u64, 1 << 20, 4_096].into_iter().enumerate() {
            let (work, raw) = (&work, &raw);
            scope.spawn(move || {
                for run in work.runs() {
                    let mut at = run.start;
                    while at < run.end() {
                        let count = stride.min(run.end() - at);
                        // Small strides only at the ends of a run.
                        if thread < 2 || at < run.start + MIB || at + MIB > run.end() {
                            compare(disk, raw, Extent::new(at, count));
                        }
                        at += count;
                    }
                }
            });
        }
    });
    for hole in holes.runs() {
        for at in [hole.start, hole.start + hole.len / 2, hole.end().saturating_sub(512)] {
            let at = at.max(hole.start);
            compare(disk, &raw, Extent::new(at, 512.min(hole.end() - at)));
        }
    }
    assert!(disk.read_exact_at(&mut [0], disk.len()).is_err(), "a byte past the end");
}

fn compare(disk: &DiskImage, raw: &FileDisk, range: Extent) {
    let mut ours = vec![0xAA; range.len as usize];
    let mut theirs = vec![0x55; range.len as usize];
    disk.read_exact_at(&mut ours, range.start).unwrap();
    raw.read_exact_at(&mut theirs, range.start).unwrap();
    if ours != theirs {
        let at = ours.iter().zip(&theirs).position(|(a, b)| a != b).unwrap();
        panic!("byte {} is {}, expected {}", range.start + at as u64, ours[at], theirs[at]);
    }
}

/// Bytes that are the same for the same seed and do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The error and everything below it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// What a refusal says.
pub(crate) fn refusal(result: Result<DiskImage, Error>) -> String {
    match result {
        Ok(disk) => panic!("not refused: {disk:?}"),
        Err(error) => chain(&error),
    }
}
