//! No pair of key and nonce is used for two different things, in whatever order an image is
//! interrupted and gone on with: counted over every byte that was ever handed to the storage, also
//! those that were cut off again.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use aiv_keys::{ChainKey, Keys};
use aiv_testkit::{MemStorage, Random, WatchedFile};
use aiv_volume_io::{AppendFile, Job, ReadAt, Storage};

use super::Unfinished;
use crate::codec::{Compression, Encoder};
use crate::hash::leaf;
use crate::ids::{BlockSize, Digest, Geometry, ImageId, PointId, SessionTag, SetId};
use crate::layout::{Features, FrameHeader, ImageKind, Superblock};
use crate::limits::{PAGE_SIZE, SEGMENT_BYTES_MIN};
use crate::meta::{DiskInfo, Meta};
use crate::seal::Seal;
use crate::segments::{SegmentFiles, segment_name};
use crate::writer::ImageWriter;

const BLOCK: usize = 16 << 10;
pub(crate) const BLOCKS: u64 = 40;

pub(super) fn part(no: u32) -> String {
    format!("{}.part", segment_name("image", no))
}

/// What a session has appended, and where in the file.
type Appended = (SessionTag, u64, Vec<u8>);

/// Everything that was ever appended.
#[derive(Default, Clone)]
struct Log(Arc<Mutex<Vec<Appended>>>);

/// The files of an image, each of them logged.
struct Parts {
    storage: MemStorage,
    session: SessionTag,
    left: Arc<AtomicU64>,
    log: Log,
}

impl Parts {
    fn logged(&self, inner: Box<dyn AppendFile>, at: u64) -> Box<dyn AppendFile> {
        let (session, log) = (self.session, self.log.clone());
        let see = move |at, bytes: &[u8]| log.0.lock().unwrap().push((session, at, bytes.to_vec()));
        Box::new(WatchedFile::new(inner, at, self.left.clone(), see))
    }
}

impl SegmentFiles for Parts {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        Ok(self.logged(self.storage.create(&part(no))?, 0))
    }
    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.storage.open(&part(no))
    }
}

fn key() -> ChainKey {
    ChainKey::new([0x42; 32])
}

fn seal(salt: u32) -> Seal {
    Seal::new(key(), salt)
}

pub(crate) fn superblock() -> Superblock {
    let size = BlockSize::new(16384).unwrap();
    Superblock {
        features: Default::default(),
        image: ImageId([1; 16]),
        set: SetId([2; 16]),
        point: PointId([3; 16]),
        kind: ImageKind::Full,
        parent: None,
        geometry: Geometry::new(BLOCKS * BLOCK as u64, size, 512).unwrap(),
        created_unix_ms: 0,
        session: SessionTag([0; 12]),
        writer: String::new(),
        key_commitment: Digest::default(),
        source_token: Digest::default(),
    }
}

/// The source at one time: it changes from run to run, as what nobody wrote down yet may.
fn block(run: u64, number: u64) -> Vec<u8> {
    let mut out = vec![0; BLOCK];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&run.to_le_bytes()).update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// The session of a run that goes on, and the number of its first frame where that is not for the
/// writer to say.
type Session = fn(&Unfinished, u64) -> (SessionTag, Option<u64>);

fn rightly(found: &Unfinished, run: u64) -> (SessionTag, Option<u64>) {
    // The same random numbers in every run, as in a virtual machine that is set back.
    let (image, state) = (found.superblock().image, found.fingerprint());
    (SessionTag::hedged(&[7; 32], u128::from(run / 2), "", image, Some(state)), None)
}

/// What must not be: the session of the image is gone on with, where its last checkpoint ended.
fn with_the_old_session(found: &Unfinished, _: u64) -> (SessionTag, Option<u64>) {
    (found.superblock().session, Some(found.totals().frames))
}

/// Runs until an image with `features` is finished or there were `runs` of them, each interrupted
/// anywhere. Returns how many went on with what was there.
fn history(random: &mut Random, runs: u64, log: &Log, session: Session, features: u64) -> u64 {
    let (storage, mut gone_on) = (MemStorage::new(), 0);
    let is_split = features & Features::SPLIT != 0;
    for run in 0..runs {
        let left = match random.below(6) {
            0 if run > 0 => u64::MAX,
            _ => (40 + random.below(700)) as u64 * 1000,
        };
        let left = Arc::new(AtomicU64::new(left));
        let files: Vec<_> = (0..).map_while(|no| storage.open(&part(no)).ok()).collect();
        let found = Unfinished::read_segments(&files, &Keys::of(key()), Job::silent());
        let found = found.ok().flatten();
        let parts = |session| {
            let (storage, left, log) = (storage.clone(), left.clone(), log.clone());
            Parts { storage, session, left, log }
        };
        let mut writer = match &found {
            Some(found) => {
                gone_on += 1;
                let (session, next_seq) = session(found, run);
                let kept = found.kept();
                let reopen = |(no, len)| storage.reopen(&part(no), len).unwrap();
                let last = (0..).zip(kept.iter().copied()).map(reopen).last().unwrap();
                (kept.len()..files.len()).for_each(|no| {
                    storage.remove(&part(u32::try_from(no).unwrap())).unwrap();
                });
                let parts = parts(session);
                let file = parts.logged(last, *kept.last().unwrap());
                let seal = Some(seal(9));
                match next_seq {
                    None if found.has_session(session) => continue,
                    None if is_split => {
                        let (files, limit) = (Box::new(parts), SEGMENT_BYTES_MIN);
                        ImageWriter::resume_split(files, file, found, session, seal, limit).unwrap()
                    }
                    None => ImageWriter::resume(file, found, session, seal).unwrap(),
                    Some(next) => ImageWriter::resume_as(file, found, session, seal, next),
                }
            }
            None => {
                storage.names().iter().for_each(|name| storage.remove(name).unwrap());
                // Another image, begun anew.
                let session = random.below(usize::MAX) as u128;
                let session = SessionTag(*session.to_le_bytes().first_chunk().unwrap());
                let mut parts = parts(session);
                let incompat = features & !Features::SPLIT;
                let features = Features { incompat, ..Features::default() };
                let superblock = Superblock { session, features, ..superblock() };
                let seal = Some(seal(9));
                let begun = match is_split {
                    true => {
                        let (files, limit) = (Box::new(parts), SEGMENT_BYTES_MIN);
                        ImageWriter::create_split_with(files, superblock, limit, seal)
                    }
                    false => ImageWriter::create_with(parts.create(0).unwrap(), superblock, seal),
                };
                let Ok(writer) = begun else { continue };
                writer
            }
        };
        writer.set_checkpoint_bytes(5 * BLOCK as u64);
        if fill(&mut writer, run).is_ok() && writer.next_block() == BLOCKS {
            let disk = DiskInfo::bare(BLOCKS * BLOCK as u64, 512);
            if writer.finish(Meta { disk, ..Meta::default() }).is_ok() {
                break;
            }
        }
    }
    gone_on
}

pub(super) fn fill(writer: &mut ImageWriter<'_>, run: u64) -> crate::Result<()> {
    let mut encoder = Encoder::new(Compression::Lz4, false);
    while writer.next_block() < BLOCKS {
        let bytes = block(run, writer.next_block());
        writer.push_block(&encoder.encode(&bytes, leaf(&bytes))?)?;
    }
    Ok(())
}

/// Pairs of key and nonce that were used for two different things, among all bytes of `log`.
fn repeated(log: &Log) -> usize {
    let mut seen: HashMap<(Vec<u8>, u64, u32), [u8; 32]> = HashMap::new();
    let (mut repeated, mut frames, mut pages) = (0, 0, 0);
    for (writer, at, bytes) in log.0.lock().unwrap().iter() {
        // What is handed over are whole frames, and pages of other areas.
        let first = usize::try_from(at.next_multiple_of(64) - at).unwrap();
        let mut at = first;
        while at + 64 <= bytes.len() {
            let header = bytes[at..at + 64].try_into().unwrap();
            let size = match FrameHeader::from_bytes(&header, 0) {
                Ok(header) => {
                    let end = (at + 64 + header.stored_len as usize).min(bytes.len());
                    if let Some(salt) = header.seal {
                        frames += 1;
                        let part = [&header.session.0[..], &[1]].concat();
                        let made = *blake3::hash(&bytes[at..end]).as_bytes();
                        let before = seen.insert((part, header.seq, salt), made);
                        repeated += usize::from(before.is_some_and(|before| before != made));
                    }
                    usize::try_from(header.frame_size()).unwrap()
                }
                Err(_) if bytes[at..].starts_with(b"AVP1") && bytes.len() - at >= PAGE_SIZE => {
                    pages += 1;
                    let number = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
                    // In its key is the session that closes the image, which is the one that writes.
                    let made = *blake3::hash(&bytes[at..at + PAGE_SIZE]).as_bytes();
                    let part = [&writer.0[..], &[2, bytes[at + 4]]].concat();
                    let before = seen.insert((part, number, 0), made);
                    repeated += usize::from(before.is_some_and(|before| before != made));
                    PAGE_SIZE
                }
                Err(_) => 64,
            };
            at += size;
        }
    }
    assert!(frames > 20, "{frames} {pages}");
    repeated
}

#[test]
fn no_key_and_nonce_come_twice_in_whatever_order_an_image_is_interrupted_and_gone_on_with() {
    let both = Features::SPLIT | Features::PARITY;
    for features in [0, Features::SPLIT, Features::PARITY, both] {
        let mut gone_on = 0;
        for seed in 0..if features == 0 { 20 } else { 7 } {
            let mut random = Random::new(&[seed, features]);
            let log = Log::default();
            gone_on += history(&mut random, 8, &log, rightly, features);
            assert_eq!(repeated(&log), 0, "seed {seed}");
        }
        assert!(gone_on >= if features == 0 { 30 } else { 8 }, "{gone_on} with {features}");
    }
}

/// What would happen if the old session were gone on with: the test above notices.
#[test]
fn planted_going_on_with_the_old_session_repeats_nonces() {
    let mut noticed = 0;
    for seed in 0..10 {
        let mut random = Random::new(&[seed]);
        let log = Log::default();
        history(&mut random, 8, &log, with_the_old_session, 0);
        noticed += usize::from(repeated(&log) > 0);
    }
    assert!(noticed >= 5, "{noticed} of 10");
}
