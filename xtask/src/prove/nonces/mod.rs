//! Sealed images that are interrupted, gone on with, set back and copied together with their
//! machines: no pair of key and nonce is used for two different things, counted over every byte that
//! was ever handed to the storage.
//!
//! In all histories random numbers and the salt of the process are the same for every writer, as in
//! a machine that is set back again and again. What differs is what [`SessionTag::hedged`] is given
//! besides.

mod seen;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::meta::{DiskInfo, Meta};
use aiv_image_format::{
    BlockSize, ChainKey, Compression, Digest, EncodedBlock, Encoder, Features, Geometry, ImageId,
    ImageKind, ImageWriter, Keys, PointId, Seal, SegmentFiles, SessionTag, SetId, Superblock,
    Unfinished, hash, segment_name,
};
use aiv_testkit::{MemStorage, Random, WatchedFile};
use aiv_volume_io::{AppendFile, Job, ReadAt, Storage};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::said;
use crate::Outcome;
use seen::{Counts, Seen};

/// Frames of the full tier.
pub(super) const FRAMES: u64 = 1_000_000_000;

const BLOCK: usize = 16 << 10;
/// Blocks of an image at most.
const BLOCKS_MAX: usize = 60_000;
/// Contents that blocks have.
const CONTENTS: u64 = 64;
/// Histories between two lines of figures.
const HISTORIES: u64 = 64;
/// Steps of a history.
const STEPS: usize = 12;

/// Histories from `first` on, until so many frames were written.
pub(super) fn campaign(first: u64, frames: u64) -> Outcome {
    let (started, mut total, mut seed) = (Instant::now(), Counts::default(), first);
    let sessions = Mutex::new(HashSet::new());
    while total.frames < frames {
        let last = seed + HISTORIES;
        let runs = (seed..last).into_par_iter().map(|seed| {
            let (counts, of_this) = run(seed, Clock::Goes).map_err(|why| told(seed, &why))?;
            let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            match of_this.into_iter().all(|session| sessions.insert(session))
                && counts.repeated == 0
            {
                true => Ok(counts),
                false => Err(told(seed, &counts.to_string())),
            }
        });
        for counts in runs.collect::<Result<Vec<_>, String>>()? {
            total.add(counts);
        }
        seed = last;
        println!("nonces: seeds {first}..{seed}, {total}, {} s", started.elapsed().as_secs());
    }
    Ok(())
}

fn told(seed: u64, why: &str) -> String {
    format!("nonces seed {seed}: {why}")
}

/// What the clock of a machine does that is set back or copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// It goes on.
    Goes,
    /// It is set back, too, to the nanosecond: nothing is left that could make a difference.
    #[cfg(test)]
    Stands,
}

/// The history of `seed`, and the sessions in it.
fn run(seed: u64, clock: Clock) -> Result<(Counts, HashSet<SessionTag>), String> {
    let mut history = History::new(seed, clock);
    for _ in 0..STEPS {
        history.step()?;
    }
    let seen = history.seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((seen.counts, seen.sessions().collect()))
}

struct History {
    random: Random,
    clock: Clock,
    /// Nanoseconds.
    time: u128,
    /// What is on the disk of the machine.
    storage: MemStorage,
    /// What was there when its snapshot was made.
    snapshot: MemStorage,
    /// States that were gone on with at this time.
    at_this_time: HashSet<Digest>,
    features: u64,
    blocks: u64,
    /// Bytes that a writer appends at most before the machine stops, where it does.
    bytes_max: usize,
    limit: u64,
    padding: bool,
    /// Writers so far.
    writers: u64,
    contents: Vec<EncodedBlock>,
    seen: Arc<Mutex<Seen>>,
}

impl History {
    fn new(seed: u64, clock: Clock) -> Self {
        let mut random = Random::new(&[seed, 0x006e_6f6e_6365]);
        let kinds = [0, 0, Features::SPLIT, Features::PARITY, Features::SPLIT | Features::PARITY];
        let features = kinds[random.below(kinds.len())];
        let blocks = 500 + random.below(BLOCKS_MAX - 500);
        let mut encoder = Encoder::new(Compression::Lz4, false);
        let contents = (0..CONTENTS).map(|number| {
            let mut bytes = vec![0x55; BLOCK];
            Random::new(&[seed, number]).fill(&mut bytes[..40]);
            encoder.encode(&bytes, hash::leaf(&bytes)).expect("it compresses")
        });
        Self {
            clock,
            time: u128::from(seed) << 32,
            storage: MemStorage::new(),
            snapshot: MemStorage::new(),
            at_this_time: HashSet::new(),
            features,
            blocks: blocks as u64,
            // Finished images have some 200 for each of their blocks.
            bytes_max: blocks * 150,
            limit: SEGMENT_BYTES_MIN << random.below(6),
            padding: random.below(2) == 0,
            writers: 0,
            contents: contents.collect(),
            seen: Arc::default(),
            random,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(10) {
            0 => self.snapshot = self.storage.fork(),
            // The machine is what it was.
            1 => self.storage = self.snapshot.fork(),
            // Two machines go on from here.
            2 => {
                let other = self.storage.fork();
                let ours = std::mem::replace(&mut self.storage, other);
                self.write()?;
                self.storage = ours;
                self.write()?;
            }
            // What the medium did not have yet is lost.
            3 => self.lose_the_end(),
            _ => self.write()?,
        }
        Ok(())
    }

    fn lose_the_end(&mut self) {
        let last = (0..).take_while(|no| self.storage.open(&part(*no)).is_ok()).last();
        let Some((no, bytes)) = last.and_then(|no| Some((no, self.storage.contents(&part(no))?)))
        else {
            return;
        };
        let kept = self.random.below(bytes.len() + 1);
        self.storage.insert(&part(no), bytes[..kept].to_vec());
    }

    /// A process begins an image, or goes on with what there is, until it is finished or the machine
    /// stops.
    fn write(&mut self) -> Result<(), String> {
        self.writers += 1;
        let left = match self.random.below(6) {
            0 => u64::MAX,
            _ => self.random.below(self.bytes_max) as u64,
        };
        let left = Arc::new(AtomicU64::new(left));
        let files: Vec<_> = (0..).map_while(|no| self.storage.open(&part(no)).ok()).collect();
        let found = Unfinished::read_segments(&files, &Keys::of(key()), Job::silent());
        let found = found.ok().flatten().filter(|found| found.next_block() < self.blocks);
        let Some(mut writer) = (match &found {
            Some(found) => self.go_on(found, files.len(), left)?,
            None => self.begin(left),
        }) else {
            return Ok(());
        };
        writer.set_checkpoint_bytes(4096 << self.random.below(9));
        let mut which = Random::new(&[self.writers]);
        while writer.next_block() < self.blocks {
            let content = &self.contents[which.below(self.contents.len())];
            if writer.push_block(content).is_err() {
                return Ok(());
            }
        }
        let disk = DiskInfo::bare(self.blocks * BLOCK as u64, 512);
        if writer.finish(Meta { disk, ..Meta::default() }).is_ok() {
            self.count(|counts| counts.finished += 1);
        }
        Ok(())
    }

    fn count(&self, add: impl Fn(&mut Counts)) {
        add(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).counts);
    }

    /// The session of a process that works on an image: time is what differs from one to the next, or
    /// the state that is gone on with.
    fn session(&mut self, image: ImageId, state: Option<Digest>) -> SessionTag {
        let is_new = state.is_some_and(|state| !self.at_this_time.contains(&state));
        let stands = is_new && self.random.below(2) == 0;
        if self.clock == Clock::Goes && !stands {
            self.time += 1 + self.random.below(1000) as u128;
            self.at_this_time.clear();
        }
        self.at_this_time.extend(state);
        SessionTag::hedged(&[7; 32], self.time, "the one machine", image, state)
    }

    fn seal(&self) -> Seal {
        Seal { padding: self.padding, ..Seal::new(key(), 9) }
    }

    fn parts(&self, session: SessionTag, left: Arc<AtomicU64>) -> Parts {
        let (storage, writer, seen) = (self.storage.clone(), self.writers, self.seen.clone());
        Parts { storage, writer, session, left, seen }
    }

    /// Begins an image in place of what is there. `None` when the machine stops at once.
    fn begin(&mut self, left: Arc<AtomicU64>) -> Option<ImageWriter<'static>> {
        self.storage.names().iter().for_each(|name| self.storage.remove(name).expect("memory"));
        // Ids are random numbers as well.
        let image = ImageId([1; 16]);
        let session = self.session(image, None);
        let incompat = self.features & !Features::SPLIT;
        let size = BlockSize::new(u32::try_from(BLOCK).expect("small")).expect("a block size");
        let superblock = Superblock {
            features: Features { incompat, ..Features::default() },
            image,
            set: SetId([2; 16]),
            point: PointId([3; 16]),
            kind: ImageKind::Full,
            parent: None,
            geometry: Geometry::new(self.blocks * BLOCK as u64, size, 512).expect("a geometry"),
            created_unix_ms: 0,
            session,
            writer: String::new(),
            key_commitment: Digest::default(),
            source_token: Digest::default(),
        };
        let (mut parts, seal) = (self.parts(session, left), Some(self.seal()));
        let begun = if self.features & Features::SPLIT == 0 {
            let file = parts.create(0).expect("memory");
            ImageWriter::create_with(file, superblock, seal)
        } else {
            ImageWriter::create_split_with(Box::new(parts), superblock, self.limit, seal)
        };
        self.count(|counts| counts.begun += 1);
        begun.ok()
    }

    /// Goes on with what was found. `None` when this session has written some of it.
    fn go_on(
        &mut self,
        found: &Unfinished,
        files: usize,
        left: Arc<AtomicU64>,
    ) -> Result<Option<ImageWriter<'static>>, String> {
        let session = self.session(found.superblock().image, Some(found.fingerprint()));
        if found.has_session(session) {
            return Ok(None);
        }
        let kept = found.kept();
        for no in kept.len()..files {
            let no = u32::try_from(no).map_err(|e| said(&e))?;
            self.storage.remove(&part(no)).map_err(|e| said(&e))?;
        }
        let mut last = None;
        for (no, len) in (0..).zip(&kept) {
            last = Some(self.storage.reopen(&part(no), *len).map_err(|e| said(&e))?);
        }
        let parts = self.parts(session, left);
        let file = parts.watched(last.ok_or("nothing is kept")?, kept.last().copied().unwrap_or(0));
        let seal = Some(self.seal());
        let writer = if self.features & Features::SPLIT == 0 {
            ImageWriter::resume(file, found, session, seal)
        } else {
            ImageWriter::resume_split(Box::new(parts), file, found, session, seal, self.limit)
        };
        self.count(|counts| counts.gone_on += 1);
        writer.map(Some).map_err(|e| said(&e))
    }
}

fn key() -> ChainKey {
    ChainKey::new([0x42; 32])
}

fn part(no: u32) -> String {
    format!("{}.part", segment_name("image", no))
}

/// The files of an image, each of them watched.
struct Parts {
    storage: MemStorage,
    writer: u64,
    session: SessionTag,
    left: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
}

impl Parts {
    fn watched(&self, inner: Box<dyn AppendFile>, at: u64) -> Box<dyn AppendFile> {
        let (writer, session, seen) = (self.writer, self.session, self.seen.clone());
        let mut looked = at.next_multiple_of(64);
        let see = move |at, bytes: &[u8]| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            looked = seen.look(writer, session, at, bytes, looked);
        };
        Box::new(WatchedFile::new(inner, at, self.left.clone(), see))
    }
}

impl SegmentFiles for Parts {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        Ok(self.watched(self.storage.create(&part(no))?, 0))
    }

    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.storage.open(&part(no))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(clock: Clock) -> Counts {
        let mut total = Counts::default();
        for seed in 1..=4 {
            let (counts, _) = run(seed, clock).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            total.add(counts);
        }
        total
    }

    #[test]
    fn no_nonce_comes_again_in_any_history_of_crashes_machines_set_back_and_copies() {
        let total = some(Clock::Goes);
        assert_eq!((total.repeated, total.unread, total.again), (0, 0, 0), "{total}");
        assert!(total.frames > 300_000 && total.pages > 500, "{total}");
        assert!(total.begun > 5 && total.gone_on > 15 && total.finished > 5, "{total}");
    }

    #[test]
    fn planted_clocks_that_are_set_back_to_the_nanosecond_repeat_nonces() {
        let total = some(Clock::Stands);
        assert!(total.repeated > 1000, "{total}");
    }
}
