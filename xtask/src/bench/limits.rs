//! What no tool of this design can beat by much: the same work on the same bytes in memory,
//! without reading files, finding duplicates, or writing anything.

use std::os::unix::fs::FileExt;

use aiv_volume_io::{Extent, ExtentSet};
use serde_json::{Value, json};

use super::parallel::{Spent, on_all_threads};
use super::stats::median;
use super::tool::{Codec, Job, Step};
use super::used::UsedDisk;

const BLOCK: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 1;
/// Blocks in memory at a time, 128 MiB: the limits must not drive out the files in memory.
const BATCH: usize = 2048;

/// What all threads spend on the blocks in use that are not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    /// Reading the bytes in use; the page cache holds them where it can.
    read: Spent,
    blake3: Spent,
    zstd_compress: Spent,
    zstd_decompress: Spent,
    lz4_compress: Spent,
    lz4_decompress: Spent,
}

/// What a time of [`Limits`] is called.
const NAMES: [&str; 6] = [
    "read the used bytes",
    "BLAKE3 of the used blocks",
    "zstd:1 of the used blocks",
    "zstd:1 back",
    "lz4 of the used blocks",
    "lz4 back",
];

/// One block and its compressed form.
struct Slot {
    parts: Vec<Extent>,
    start: u64,
    plain: Vec<u8>,
    packed: Vec<u8>,
    packed_len: usize,
    failed: bool,
}

/// Measures all limits once.
pub(super) fn measure(disk: &UsedDisk) -> Result<Limits, String> {
    let mut limits = Limits::default();
    let mut slots: Vec<Slot> = (0..BATCH).map(|_| Slot::new()).collect();
    let mut blocks = used_blocks(&disk.used, disk.len);
    loop {
        let count = slots.iter_mut().map_while(|slot| slot.take(blocks.next())).count();
        if count == 0 {
            return Ok(limits);
        }
        limits.add_batch(disk, &mut slots[..count])?;
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
        Self { parts: Vec::new(), start: 0, plain, packed, packed_len: 0, failed: false }
    }

    fn take(&mut self, block: Option<(u64, Vec<Extent>)>) -> Option<()> {
        (self.start, self.parts) = block?;
        self.plain.fill(0);
        Some(())
    }
}

impl Limits {
    fn add_batch(&mut self, disk: &UsedDisk, slots: &mut [Slot]) -> Result<(), String> {
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
        let times = [
            read,
            on_all_threads(
                blocks,
                || (),
                |(), slot| slot.failed |= blake3::hash(&slot.plain) == [0; 32],
            ),
            zstd_compress(blocks),
            zstd_decompress(blocks),
            on_all_threads(
                blocks,
                || (),
                |(), slot| {
                    let len = lz4_flex::block::compress_into(&slot.plain, &mut slot.packed);
                    slot.note(len.ok());
                },
            ),
            on_all_threads(
                blocks,
                || vec![0; BLOCK],
                |out, slot| {
                    let packed = &slot.packed[..slot.packed_len];
                    slot.failed |= lz4_flex::block::decompress_into(packed, out).is_err();
                },
            ),
        ];
        if slots.iter().any(|slot| slot.failed) {
            return Err("cannot read or compress the blocks of the disk".into());
        }
        for (sum, time) in self.times_mut().into_iter().zip(times) {
            *sum = sum.plus(time);
        }
        Ok(())
    }

    fn times_mut(&mut self) -> [&mut Spent; 6] {
        let Self { read, blake3, zstd_compress, zstd_decompress, lz4_compress, lz4_decompress } =
            self;
        [read, blake3, zstd_compress, zstd_decompress, lz4_compress, lz4_decompress]
    }

    /// Each time by its name.
    pub(super) fn named(mut self) -> [(&'static str, Spent); 6] {
        let times = self.times_mut().map(|time| *time);
        std::array::from_fn(|index| (NAMES[index], times[index]))
    }

    /// The median of each time.
    pub(super) fn median_of(rounds: &[Self]) -> Self {
        let mut medians = Self::default();
        for (index, time) in medians.times_mut().into_iter().enumerate() {
            let of = |figure: fn(Spent) -> f64| {
                let figures: Vec<f64> = rounds.iter().map(|r| figure(r.named()[index].1)).collect();
                median(&figures).unwrap_or_default()
            };
            *time = Spent { wall_s: of(|spent| spent.wall_s), cpu_s: of(|spent| spent.cpu_s) };
        }
        medians
    }

    /// The limit of a job and what it is; `copy` is what `cp --sparse=always` cost.
    pub(super) fn of(self, job: Job, copy: Option<Spent>) -> Option<(Spent, &'static str)> {
        let (compress, decompress) = match job.codec {
            Codec::Zstd => (self.zstd_compress, self.zstd_decompress),
            Codec::Lz4 => (self.lz4_compress, self.lz4_decompress),
            Codec::None => (self.read.slower_of(self.blake3), self.read),
        };
        match (job.step, job.codec) {
            (Step::Full, Codec::None) => Some((compress, "limit: read or BLAKE3, the slower")),
            (Step::Full, _) => Some((compress, "limit: compress in memory")),
            (Step::Restore, Codec::None) => Some((copy?, "limit: cp --sparse=always")),
            (Step::Restore, _) => {
                Some((decompress.slower_of(copy?), "limit: decompress or cp, the slower"))
            }
            (Step::Verify, Codec::None) => {
                Some((decompress.plus(self.blake3), "limit: read + BLAKE3"))
            }
            (Step::Verify, _) => Some((decompress.plus(self.blake3), "limit: decompress + BLAKE3")),
            (Step::Quick, _) => None,
        }
    }

    /// An increment must read and hash everything in use, whatever changed: the slower of the
    /// two, as if reading cost no processor, and both, as it does when memory holds the disk.
    pub(super) fn of_increment(self) -> (Spent, Spent) {
        (self.read.slower_of(self.blake3), self.read.plus(self.blake3))
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
    /// Notes the length of the compressed form; `None` when there is none.
    fn note(&mut self, len: Option<usize>) {
        self.packed_len = len.unwrap_or_default();
        self.failed |= len.is_none();
    }
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
        let packed = &slot.packed[..slot.packed_len];
        let len =
            codec.as_mut().and_then(|codec| codec.decompress_to_buffer(packed, &mut out[..]).ok());
        slot.failed |= len != Some(out.len());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spent(wall_s: f64) -> Spent {
        Spent { wall_s, cpu_s: 2.0 * wall_s }
    }

    const TIMES: Limits = Limits {
        read: spent(1.0),
        blake3: spent(2.0),
        zstd_compress: spent(10.0),
        zstd_decompress: spent(3.0),
        lz4_compress: spent(6.0),
        lz4_decompress: spent(2.5),
    };

    #[test]
    fn each_job_has_the_limit_of_its_codec() {
        let limit = |name: &str| {
            let job = Job::all().find(|job| job.to_string() == name).unwrap();
            TIMES.of(job, Some(spent(2.75))).map(|(time, _)| time.wall_s)
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
    fn medians_are_taken_of_each_time() {
        let other = Limits { read: spent(9.0), ..TIMES };
        assert_eq!(Limits::median_of(&[TIMES, other, TIMES]), TIMES);
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
