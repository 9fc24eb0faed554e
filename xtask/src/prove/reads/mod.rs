//! Blocks of damaged images: each read gives the right bytes or an error, whatever was damaged.

mod chain;
mod damage;

use std::fmt;

use aiv_chain::{Folder, Keys, ParentState, Trust, View};
use aiv_image_format::ChainKey;
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, ReadAt};

use super::disk;
use super::said;
use chain::{Chain, Kind, Made, key};
use damage::Damage;

/// Damages tried on one chain.
const DAMAGES: u64 = 100;
/// Reads of each point of a damaged chain.
const READS: usize = 12;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    pub(super) reads: u64,
    /// Reads that gave the right bytes; the others gave an error.
    pub(super) right: u64,
    /// Points that could not be opened any more.
    pub(super) lost: u64,
    /// Points of sealed chains that were asked for without their key, and gave nothing.
    pub(super) locked: u64,
}

impl Tried {
    /// Adds what another chain gave.
    pub(super) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.right += other.right;
        self.lost += other.lost;
        self.locked += other.locked;
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.reads - self.right;
        let Self { reads, right, lost, locked } = self;
        write!(f, "{reads} reads: {right} right, {errors} errors; {lost} points not opened")?;
        write!(f, ", {locked} without their key")
    }
}

/// The keys a chain is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    Other,
    Own,
    /// Its own, and what has none is refused.
    Required,
}

impl Given {
    fn of(kind: Kind, random: &mut Random) -> Self {
        match (kind.mode, random.below(8)) {
            (None, 0) | (Some(_), 1) => Self::Other,
            (None, _) | (Some(_), 0) => Self::Nothing,
            (Some(_), 2..5) => Self::Own,
            (Some(_), _) => Self::Required,
        }
    }

    fn opens(self) -> bool {
        matches!(self, Self::Own | Self::Required)
    }

    fn keys(self) -> Keys {
        match self {
            Self::Nothing => Keys::none(),
            Self::Other => Keys::of(ChainKey::new([0xa5; 32])),
            Self::Own => Keys::of(key()),
            Self::Required => Keys::of(key()).required(),
        }
    }
}

/// A way to read some bytes of a view, and whether it says that they are right.
type Read = fn(&MemStorage, &View, &mut Random, u64, &mut [u8]) -> bool;

/// Damages the chain of `seed` in many ways.
pub(super) fn run(seed: u64) -> Result<Tried, String> {
    damaged(&Chain::of(seed)?, seed, DAMAGES)
}

/// Damages a chain in so many ways.
fn damaged(chain: &Chain, seed: u64, damages: u64) -> Result<Tried, String> {
    let mut tried = Tried::default();
    for number in 0..damages {
        let mut random = Random::new(&[seed, number, 0x6461_6d61]);
        let given = Given::of(chain.kind, &mut random);
        // What an enemy has changed can be told from what was written by who has the key.
        let is_forged = given == Given::Required && random.below(2) == 0;
        let damaged = Damage::of(chain, is_forged, &mut random).done(chain);
        let read = check(&damaged, chain, given, &mut random, rightly);
        let kind = chain.kind;
        tried.add(read.map_err(|why| format!("damage {number} ({kind}, {given:?}): {why}"))?);
    }
    Ok(tried)
}

/// Every way there is to read some bytes; whole blocks through those that know no others.
fn rightly(_: &MemStorage, view: &View, random: &mut Random, at: u64, out: &mut [u8]) -> bool {
    let (block, is_block) = (at / disk::BLOCK as u64, at.is_multiple_of(disk::BLOCK as u64));
    let is_block = is_block && out.len() as u64 == u64::from(view.geometry().block_len(block));
    match random.below(3) {
        0 if is_block => ParentState::read(view, block, out).is_ok(),
        1 if is_block => view.reader().read(block, out).is_ok(),
        _ => view.read_exact_at(out, at).is_ok(),
    }
}

/// Reads blocks and other stretches of all points that are still there.
fn check(
    storage: &MemStorage,
    chain: &Chain,
    given: Given,
    random: &mut Random,
    read: Read,
) -> Result<Tried, String> {
    let mut tried = Tried::default();
    let keys = given.keys();
    let trust = [Trust::Catalogue, Trust::Files][random.below(2)];
    let folder = Folder::scan_keyed(storage, &keys, trust, Job::silent()).map_err(|e| said(&e))?.0;
    let is_locked = chain.kind.is_sealed() && !given.opens();
    for made in &chain.points {
        let Some(view) = open(storage, &folder, made, &keys, random) else {
            *if is_locked { &mut tried.locked } else { &mut tried.lost } += 1;
            continue;
        };
        let (bytes, point) = (&made.bytes, made.report.recovery_point);
        if view.len() != bytes.len() as u64 {
            return Err(format!("point {point} has another length: {}", view.len()));
        }
        for _ in 0..READS {
            let range = some(bytes.len(), random);
            let mut out = vec![0; range.len()];
            let is_told_right = read(storage, &view, random, range.start as u64, &mut out);
            if is_told_right && is_locked {
                return Err(format!("bytes {range:?} of point {point} are read without its key"));
            }
            if is_told_right && out[..] != bytes[range.clone()] {
                return Err(format!("bytes {range:?} of point {point} read otherwise"));
            }
            tried.reads += 1;
            tried.right += u64::from(is_told_right);
        }
    }
    Ok(tried)
}

/// A block of so many bytes, or, in one of four cases, a stretch of up to three blocks.
fn some(len: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(len.div_ceil(disk::BLOCK)) * disk::BLOCK;
    if random.below(4) > 0 {
        return start..len.min(start + disk::BLOCK);
    }
    let start = (start + random.below(disk::BLOCK)).min(len - 1);
    start..len.min(start + 1 + random.below(3 * disk::BLOCK))
}

/// Opens a point: as one of the folder, or the file that has its name.
fn open(
    storage: &MemStorage,
    folder: &Folder,
    made: &Made,
    keys: &Keys,
    random: &mut Random,
) -> Option<View> {
    let id = made.report.recovery_point;
    if random.below(4) == 0 {
        let view = View::open_keyed(storage, &made.report.image, keys, Job::silent()).ok()?;
        // Another file may be called so by now.
        return (view.point() == id).then_some(view);
    }
    let (set, point) =
        folder.sets.iter().find_map(|set| set.point(id).map(|point| (set, point)))?;
    View::of_point(storage, set, point).ok()
}

#[cfg(test)]
mod tests {
    use aiv_backup_engine::{Compression, Mode};
    use aiv_chain::Kind as Stored;

    use super::*;

    #[test]
    fn no_read_of_a_damaged_chain_of_any_kind_gives_wrong_bytes() {
        let mut of_kinds = Tried::default();
        for seed in 1..=Kind::COUNT {
            let chain = Chain::of(seed).unwrap();
            chain.assert_is_what_it_is_called();
            let tried = damaged(&chain, seed, 10);
            let tried = tried.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            // Damage is met, and does not take everything with it.
            let errors = tried.reads - tried.right;
            assert!(tried.right > 50 && errors + tried.lost > 0, "seed {seed}: {tried}");
            of_kinds.add(tried);
        }
        let errors = of_kinds.reads - of_kinds.right;
        assert!(of_kinds.right > 4000 && errors > 100 && of_kinds.lost > 50, "{of_kinds}");
        assert!(of_kinds.locked > 30, "{of_kinds}");
    }

    #[test]
    fn a_read_that_is_wrong_is_found() {
        for seed in [1, 2, 3] {
            let mut chain = Chain::of(seed).unwrap();
            for made in &mut chain.points {
                made.bytes.iter_mut().for_each(|byte| *byte ^= 1);
            }
            let mut random = Random::new(&[seed]);
            let given = if chain.kind.mode.is_some() { Given::Own } else { Given::Nothing };
            let why = check(&chain.storage, &chain, given, &mut random, rightly).unwrap_err();
            assert!(why.contains("read otherwise"), "{why}");
        }
    }

    /// The stored bytes of a block, without a look at the hash that names them.
    fn unchecked(
        storage: &MemStorage,
        view: &View,
        _: &mut Random,
        at: u64,
        out: &mut [u8],
    ) -> bool {
        let Some(Ok(stretch)) = view.stretches(at / disk::BLOCK as u64).next() else {
            return false;
        };
        let (_, file) = view.images().nth(stretch.layer()).unwrap();
        let frame = usize::try_from(stretch.address()).unwrap() + 64;
        let bytes = storage.contents(file).unwrap();
        let stored = bytes.get(frame..frame + out.len());
        let is_whole = stretch.kind() == Stored::Data && at.is_multiple_of(disk::BLOCK as u64);
        stored.filter(|_| is_whole).is_some_and(|stored| {
            out.copy_from_slice(stored);
            true
        })
    }

    #[test]
    fn planted_a_reader_that_looks_at_no_hash_is_caught() {
        let mut caught = 0;
        for seed in [24, 48] {
            let kind = Kind::of(seed);
            assert_eq!(kind.to_string(), "plain");
            let chain = Chain::made(seed, kind, |options| {
                (options.compression, options.deltas) = (Compression::None, false);
            });
            let chain = chain.unwrap();
            for number in 0..40 {
                let mut random = Random::new(&[seed, number]);
                let damaged = Damage::of(&chain, false, &mut random).done(&chain);
                let of =
                    |read| check(&damaged, &chain, Given::Nothing, &mut Random::new(&[1]), read);
                of(rightly).unwrap();
                caught += usize::from(of(unchecked).is_err());
            }
        }
        assert!(caught >= 3, "{caught}");
    }

    #[test]
    fn planted_a_reader_that_does_not_ask_who_wrote_an_image_is_caught() {
        let mut caught = 0;
        let authenticated = (1..=240).filter(|seed| {
            let kind = Kind::of(*seed);
            kind.mode == Some(Mode::Authenticated) && !kind.is_split
        });
        for seed in authenticated.take(2) {
            let chain = Chain::of(seed).unwrap();
            for number in 0..60 {
                let mut random = Random::new(&[seed, number]);
                let forged = Damage::of(&chain, true, &mut random).done(&chain);
                let with = |given| check(&forged, &chain, given, &mut Random::new(&[1]), rightly);
                with(Given::Required).unwrap();
                // Without the key nobody can ask.
                caught += usize::from(with(Given::Nothing).is_err());
            }
        }
        assert!(caught >= 3, "{caught}");
    }
}
