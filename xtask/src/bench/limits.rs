//! What no tool of this design can beat by much: the same work on the same bytes in memory,
//! without reading files, finding duplicates, or writing anything; and every pass over the bytes
//! that Aivory makes, one after the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiv_volume_io::{Extent, ExtentSet};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

use super::parallel::{Spent, on_all_threads, threads};
use super::stats::median;
use super::tool::{Codec, Job, Step};
use super::used::UsedDisk;

const BLOCK: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 1;
/// Blocks in memory at a time, 128 MiB: the limits must not drive out the files in memory.
const BATCH: usize = 2048;

/// A pass over the bytes, by all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Reading the bytes in use; the page cache holds them where it can.
    Read,
    Blake3,
    /// Blocks into a file in memory, and out of it again.
    Write,
    ReadBack,
    /// With a codec, and the same with its output.
    Compress(Codec),
    Decompress(Codec),
    HashPacked(Codec),
    WritePacked(Codec),
    ReadPacked(Codec),
}

/// Each pass, and what it is called.
const PASSES: [(Pass, &str); 14] = [
    (Pass::Read, "read the used bytes"),
    (Pass::Blake3, "BLAKE3 of the used blocks"),
    (Pass::Write, "write them"),
    (Pass::ReadBack, "read them back"),
    (Pass::Compress(Codec::Zstd), "zstd:1 of the used blocks"),
    (Pass::Decompress(Codec::Zstd), "zstd:1 back"),
    (Pass::HashPacked(Codec::Zstd), "BLAKE3 of the output"),
    (Pass::WritePacked(Codec::Zstd), "write the output"),
    (Pass::ReadPacked(Codec::Zstd), "read the output"),
    (Pass::Compress(Codec::Lz4), "lz4 of the used blocks"),
    (Pass::Decompress(Codec::Lz4), "lz4 back"),
    (Pass::HashPacked(Codec::Lz4), "BLAKE3 of its output"),
    (Pass::WritePacked(Codec::Lz4), "write its output"),
    (Pass::ReadPacked(Codec::Lz4), "read its output"),
];

impl Pass {
    fn place(self) -> usize {
        let found = PASSES.iter().position(|(pass, _)| *pass == self);
        found.expect("every pass that is measured has a name")
    }
}

/// What all threads spend on the blocks in use that are not zero: one time for each of
/// [`PASSES`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    times: [Spent; PASSES.len()],
}

/// One block and its compressed form.
struct Slot {
    parts: Vec<Extent>,
    start: u64,
    plain: Vec<u8>,
    packed: Vec<u8>,
    packed_len: usize,
    /// Which file in memory has it, and where.
    place: (usize, u64),
    failed: bool,
}

/// Measures all limits once.
pub(super) fn measure(disk: &UsedDisk) -> Result<Limits, String> {
    let mut limits = Limits::default();
    let scratch = Scratch::new()?;
    let mut slots: Vec<Slot> = (0..BATCH).map(|_| Slot::new()).collect();
    let mut blocks = used_blocks(&disk.used, disk.len);
    loop {
        let count = slots.iter_mut().map_while(|slot| slot.take(blocks.next())).count();
        if count == 0 {
            return Ok(limits);
        }
        limits.add_batch(disk, &mut slots[..count], &scratch)?;
    }
}

/// The blocks that hold a byte in use, each with its bytes in use.
fn used_blocks(used: &ExtentSet, len: u64) -> impl Iterator<Item = (u64, Vec<Extent>)> {
    let starts = (0..len).step_by(BLOCK);
    let parts = |start| used.within(Extent::new(start, BLOCK as u64)).collect::<Vec<_>>();
    starts.map(move |start| (start, parts(start))).filter(|(_, parts)| !parts.is_empty())
}

impl Slot {
    fn new() -> Self {
        // Written to here, so that the kernel does not hand out the memory while time is taken.
        let zstd_max = zstd::zstd_safe::compress_bound(BLOCK);
        let lz4_max = lz4_flex::block::get_maximum_output_size(BLOCK);
        let packed = vec![1; zstd_max.max(lz4_max)];
        let plain = vec![1; BLOCK];
        let (parts, place) = (Vec::new(), (0, 0));
        Self { parts, start: 0, plain, packed, packed_len: 0, place, failed: false }
    }

    fn take(&mut self, block: Option<(u64, Vec<Extent>)>) -> Option<()> {
        (self.start, self.parts) = block?;
        self.plain.fill(0);
        Some(())
    }
}

impl Limits {
    fn add_batch(
        &mut self,
        disk: &UsedDisk,
        slots: &mut [Slot],
        scratch: &Scratch,
    ) -> Result<(), String> {
        let read = on_all_threads(
            slots,
            || (),
            |(), slot| {
                for part in &slot.parts {
                    let at = in_block(part.start - slot.start);
                    let out = &mut slot.plain[at..at + in_block(part.len)];
                    slot.failed |= disk.file.read_exact_at(out, part.start).is_err();
                }
            },
        );
        let zeros = vec![0; BLOCK];
        slots.sort_by_key(|slot| slot.plain == zeros);
        let count = slots.partition_point(|slot| slot.plain != zeros);
        let blocks = &mut slots[..count];
        self.add(Pass::Read, read);
        self.add(Pass::Blake3, hash(blocks, |slot| &slot.plain));
        self.add(Pass::Write, scratch.write(blocks, |slot| &slot.plain)?);
        self.add(Pass::ReadBack, scratch.read(blocks, |_| BLOCK));
        for codec in [Codec::Zstd, Codec::Lz4] {
            let (compressed, back) = match codec {
                Codec::Lz4 => (lz4_compress(blocks), lz4_decompress(blocks)),
                _ => (zstd_compress(blocks), zstd_decompress(blocks)),
            };
            self.add(Pass::Compress(codec), compressed);
            self.add(Pass::Decompress(codec), back);
            self.add(Pass::HashPacked(codec), hash(blocks, Slot::packed));
            self.add(Pass::WritePacked(codec), scratch.write(blocks, Slot::packed)?);
            self.add(Pass::ReadPacked(codec), scratch.read(blocks, |slot| slot.packed_len));
        }
        match slots.iter().any(|slot| slot.failed) {
            true => Err("cannot read or compress the blocks of the disk".into()),
            false => Ok(()),
        }
    }

    fn add(&mut self, pass: Pass, time: Spent) {
        let sum = &mut self.times[pass.place()];
        *sum = sum.plus(time);
    }

    fn time(&self, pass: Pass) -> Spent {
        self.times[pass.place()]
    }

    /// Each time by its name.
    pub(super) fn named(self) -> [(&'static str, Spent); PASSES.len()] {
        std::array::from_fn(|index| (PASSES[index].1, self.times[index]))
    }

    /// The median of each time.
    pub(super) fn median_of(rounds: &[Self]) -> Self {
        let times = std::array::from_fn(|index| {
            let of = |figure: fn(Spent) -> f64| {
                let figures: Vec<f64> = rounds.iter().map(|r| figure(r.times[index])).collect();
                median(&figures).unwrap_or_default()
            };
            Spent { wall_s: of(|spent| spent.wall_s), cpu_s: of(|spent| spent.cpu_s) }
        });
        Self { times }
    }

    /// The limit of a job and what it is; `copy` is what `cp --sparse=always` cost.
    pub(super) fn of(self, job: Job, copy: Option<Spent>) -> Option<(Spent, &'static str)> {
        let (read, blake3) = (self.time(Pass::Read), self.time(Pass::Blake3));
        let (compress, decompress) = match job.codec {
            Codec::None => (read.slower_of(blake3), read),
            codec => (self.time(Pass::Compress(codec)), self.time(Pass::Decompress(codec))),
        };
        match (job.step, job.codec) {
            (Step::Full, Codec::None) => Some((compress, "limit: read or BLAKE3, the slower")),
            (Step::Full, _) => Some((compress, "limit: compress in memory")),
            (Step::Restore, Codec::None) => Some((copy?, "limit: cp --sparse=always")),
            (Step::Restore, _) => {
                Some((decompress.slower_of(copy?), "limit: decompress or cp, the slower"))
            }
            (Step::Verify, Codec::None) => Some((decompress.plus(blake3), "limit: read + BLAKE3")),
            (Step::Verify, _) => Some((decompress.plus(blake3), "limit: decompress + BLAKE3")),
            (Step::Quick, _) => None,
        }
    }

    /// Every pass that Aivory makes in a job, one after the other on all threads: proofs are a part
    /// of it, which the limit leaves out.
    pub(super) fn of_passes(self, job: Job) -> Option<(Spent, &'static str)> {
        let codec = job.codec;
        let is_packed = codec != Codec::None;
        let (read, write) = match is_packed {
            true => (Pass::ReadPacked(codec), Pass::WritePacked(codec)),
            false => (Pass::ReadBack, Pass::Write),
        };
        let hash = if is_packed { Pass::HashPacked(codec) } else { Pass::Blake3 };
        let (passes, name) = match (job.step, is_packed) {
            (Step::Full, true) => (
                vec![Pass::Read, Pass::Blake3, Pass::Compress(codec), hash, write],
                "passes: read, hash, compress, hash, write",
            ),
            (Step::Full, false) => {
                (vec![Pass::Read, Pass::Blake3, hash, write], "passes: read, hash, hash, write")
            }
            (Step::Restore, true) => (
                vec![
                    read,
                    Pass::Decompress(codec),
                    Pass::Blake3,
                    Pass::Write,
                    Pass::ReadBack,
                    Pass::Blake3,
                ],
                "passes: read, decompress, hash, write, read back, hash",
            ),
            (Step::Restore, false) => (
                vec![read, Pass::Blake3, Pass::Write, Pass::ReadBack, Pass::Blake3],
                "passes: read, hash, write, read back, hash",
            ),
            (Step::Verify, true) => (
                vec![read, hash, Pass::Decompress(codec), Pass::Blake3],
                "passes: read, hash, decompress, hash",
            ),
            (Step::Verify, false) => (vec![read, hash, Pass::Blake3], "passes: read, hash, hash"),
            (Step::Quick, _) => return None,
        };
        let sum = passes.into_iter().fold(Spent::default(), |sum, pass| sum.plus(self.time(pass)));
        Some((sum, name))
    }

    /// An increment must read and hash everything in use, whatever changed: the slower of the
    /// two, as if reading cost no processor, and both, as it does when memory holds the disk.
    pub(super) fn of_increment(self) -> (Spent, Spent) {
        let (read, blake3) = (self.time(Pass::Read), self.time(Pass::Blake3));
        (read.slower_of(blake3), read.plus(blake3))
    }

    pub(super) fn to_json(self) -> Value {
        let entry = |(name, spent): (&str, Spent)| {
            (name.to_owned(), json!({ "wall_s": spent.wall_s, "cpu_s": spent.cpu_s }))
        };
        Value::Object(self.named().into_iter().map(entry).collect())
    }
}

/// An offset or length inside a block.
pub(super) fn in_block(bytes: u64) -> usize {
    usize::try_from(bytes).expect("at most a block")
}

impl Slot {
    fn packed(&self) -> &[u8] {
        &self.packed[..self.packed_len]
    }

    /// Notes the length of the compressed form; `None` when there is none.
    fn note(&mut self, len: Option<usize>) {
        self.packed_len = len.unwrap_or_default();
        self.failed |= len.is_none();
    }
}

/// Files in memory, one for each thread, so that none waits for another.
struct Scratch {
    files: Vec<File>,
}

impl Scratch {
    fn new() -> Result<Self, String> {
        let file = |_| memfd_create("aiv-bench", MemfdFlags::CLOEXEC).map(File::from);
        let files: Result<_, _> = (0..threads()).map(file).collect();
        Ok(Self { files: files.map_err(|e| format!("no file in memory: {e}"))? })
    }

    /// Writes what `bytes` gives of each block. What earlier passes wrote is gone before.
    fn write(&self, blocks: &mut [Slot], bytes: fn(&Slot) -> &[u8]) -> Result<Spent, String> {
        for file in &self.files {
            file.set_len(0).map_err(|e| format!("a file in memory: {e}"))?;
        }
        let next = AtomicUsize::new(0);
        let mine = || (next.fetch_add(1, Ordering::Relaxed), 0);
        Ok(on_all_threads(blocks, mine, |(file, at), slot| {
            let bytes = bytes(slot);
            let (written, len) = (self.files[*file].write_all_at(bytes, *at), bytes.len() as u64);
            slot.failed |= written.is_err();
            slot.place = (*file, *at);
            *at += len;
        }))
    }

    /// Reads back what the last pass wrote of each block: `len` bytes.
    fn read(&self, blocks: &mut [Slot], len: fn(&Slot) -> usize) -> Spent {
        let buffer = || vec![1; 2 * BLOCK];
        on_all_threads(blocks, buffer, |buffer, slot| {
            let (file, at) = slot.place;
            let out = &mut buffer[..len(slot)];
            slot.failed |= self.files[file].read_exact_at(out, at).is_err();
        })
    }
}

fn hash(blocks: &mut [Slot], bytes: fn(&Slot) -> &[u8]) -> Spent {
    on_all_threads(blocks, || (), |(), slot| slot.failed |= blake3::hash(bytes(slot)) == [0; 32])
}

fn lz4_compress(blocks: &mut [Slot]) -> Spent {
    on_all_threads(
        blocks,
        || (),
        |(), slot| {
            let len = lz4_flex::block::compress_into(&slot.plain, &mut slot.packed);
            slot.note(len.ok());
        },
    )
}

fn lz4_decompress(blocks: &mut [Slot]) -> Spent {
    on_all_threads(
        blocks,
        || vec![0; BLOCK],
        |out, slot| slot.failed |= lz4_flex::block::decompress_into(slot.packed(), out).is_err(),
    )
}

fn zstd_compress(blocks: &mut [Slot]) -> Spent {
    let codec = || zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
    on_all_threads(blocks, codec, |codec, slot| {
        let (plain, packed) = (&slot.plain, &mut slot.packed[..]);
        let len = codec.as_mut().and_then(|codec| codec.compress_to_buffer(plain, packed).ok());
        slot.note(len);
    })
}

fn zstd_decompress(blocks: &mut [Slot]) -> Spent {
    let codec = || (zstd::bulk::Decompressor::new().ok(), vec![0; BLOCK]);
    on_all_threads(blocks, codec, |(codec, out), slot| {
        let (codec, packed) = (codec.as_mut(), slot.packed());
        let len = codec.and_then(|codec| codec.decompress_to_buffer(packed, &mut out[..]).ok());
        slot.failed |= len != Some(out.len());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spent(wall_s: f64) -> Spent {
        Spent { wall_s, cpu_s: 2.0 * wall_s }
    }

    /// Times by pass; each of those that are not listed takes a thousandth.
    fn times() -> Limits {
        let mut limits = Limits { times: [spent(0.001); PASSES.len()] };
        for (pass, wall_s) in [
            (Pass::Read, 1.0),
            (Pass::Blake3, 2.0),
            (Pass::Write, 1.5),
            (Pass::ReadBack, 0.5),
            (Pass::Compress(Codec::Zstd), 10.0),
            (Pass::Decompress(Codec::Zstd), 3.0),
            (Pass::Compress(Codec::Lz4), 6.0),
            (Pass::Decompress(Codec::Lz4), 2.5),
        ] {
            limits.times[pass.place()] = spent(wall_s);
        }
        limits
    }

    #[test]
    fn each_job_has_the_limit_of_its_codec() {
        let limit = |name: &str| {
            let job = Job::all().find(|job| job.to_string() == name).unwrap();
            times().of(job, Some(spent(2.75))).map(|(time, _)| time.wall_s)
        };
        assert_eq!(limit("full-zstd"), Some(10.0));
        assert_eq!(limit("full-none"), Some(2.0));
        assert_eq!(limit("restore-zstd"), Some(3.0));
        assert_eq!(limit("restore-lz4"), Some(2.75));
        assert_eq!(limit("verify-lz4"), Some(4.5));
        assert_eq!(limit("verify-none"), Some(3.0));
        assert_eq!(limit("quick-zstd"), None);
    }

    #[test]
    fn each_job_has_the_passes_that_it_makes() {
        let passes = |name: &str| {
            let job = Job::all().find(|job| job.to_string() == name).unwrap();
            times().of_passes(job).map(|(time, _)| (time.wall_s * 1000.0).round())
        };
        assert_eq!(passes("full-zstd"), Some(13_002.0));
        assert_eq!(passes("full-none"), Some(6_500.0));
        assert_eq!(passes("restore-lz4"), Some(8_501.0));
        assert_eq!(passes("verify-none"), Some(4_500.0));
        assert_eq!(passes("verify-zstd"), Some(5_002.0));
        assert_eq!(passes("quick-zstd"), None);
    }

    #[test]
    fn medians_are_taken_of_each_time() {
        let mut other = times();
        other.times[0] = spent(9.0);
        assert_eq!(Limits::median_of(&[times(), other, times()]), times());
    }

    #[test]
    fn only_blocks_in_use_are_counted_and_their_times_are_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = b"the quick brown fox ".repeat(60_000);
        std::fs::write(file.path(), text).unwrap();
        let used: ExtentSet =
            [Extent::new(100, 10), Extent::new(3 * BLOCK as u64 - 1, 2)].into_iter().collect();
        let starts: Vec<u64> = used_blocks(&used, 1 << 20).map(|(start, _)| start).collect();
        assert_eq!(starts, [0, 2, 3].map(|block| block * BLOCK as u64));
        let disk =
            UsedDisk { file: file.reopen().unwrap(), len: 1 << 20, used, root: Extent::new(0, 1) };
        let limits = measure(&disk).unwrap();
        assert!(limits.named().iter().all(|(_, time)| time.wall_s > 0.0), "{limits:?}");
    }
}
