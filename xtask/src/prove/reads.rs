//! Blocks of damaged images: each read gives the right bytes or an error, whatever was damaged.

use std::fmt;

use aiv_chain::{Folder, ParentState, PointId, View};
use aiv_testkit::{MemStorage, Random, mutants};
use aiv_volume_io::Job;

use super::disk;
use super::said;
use super::scenario::{Maker, random_options};

/// Damages tried on one chain.
const DAMAGES: u64 = 100;
/// Blocks read of each point of a damaged chain.
const BLOCKS: usize = 12;
/// Points of a chain.
const POINTS: usize = 3;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    pub(super) reads: u64,
    /// Reads that gave the right bytes; the others gave an error.
    pub(super) right: u64,
    /// Points that could not be opened any more.
    pub(super) lost: u64,
}

impl Tried {
    /// Adds what another chain gave.
    pub(super) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.right += other.right;
        self.lost += other.lost;
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.reads - self.right;
        let Self { reads, right, lost } = self;
        write!(f, "{reads} reads: {right} right, {errors} errors; {lost} points not opened")
    }
}

/// A chain, and what its points hold.
struct Chain {
    storage: MemStorage,
    points: Vec<(PointId, Vec<u8>)>,
}

impl Chain {
    fn of(seed: u64) -> Result<Self, String> {
        let (mut random, mut maker) = (Random::new(&[seed, 0x7265_6164]), Maker::new(seed));
        let (storage, mut points) = (MemStorage::new(), Vec::new());
        let mut disk = disk::new_disk(&mut random);
        for _ in 0..POINTS {
            let options = random_options(&mut random);
            let report = maker.back_up(&disk, &storage, options)?;
            points.push((report.recovery_point, disk.clone()));
            disk::change(&mut disk, &mut random);
        }
        Ok(Self { storage, points })
    }
}

/// Damages the chain of `seed` in many ways.
pub(super) fn run(seed: u64) -> Result<Tried, String> {
    let chain = Chain::of(seed)?;
    let mut tried = Tried::default();
    for number in 0..DAMAGES {
        let mut random = Random::new(&[seed, number, 0x6461_6d61]);
        let damaged = damage(&chain.storage, &mut random);
        let read = check(&damaged, &chain.points, &mut random);
        tried.add(read.map_err(|why| format!("damage {number}: {why}"))?);
    }
    Ok(tried)
}

/// The folder with one file changed in some places, cut off, or with a burst of other bytes.
fn damage(storage: &MemStorage, random: &mut Random) -> MemStorage {
    let damaged = storage.fork();
    let mut names = damaged.names();
    names.retain(|name| name.ends_with(".aiv") || name.ends_with(".aii"));
    let name = &names[random.below(names.len())];
    let bytes = damaged.contents(name).unwrap_or_default();
    let mut bytes = mutants::mutate(random, &bytes);
    if random.below(4) == 0 && !bytes.is_empty() {
        let at = random.below(bytes.len());
        let end = bytes.len().min(at + 1 + random.below(128 << 10));
        random.fill(&mut bytes[at..end]);
    }
    damaged.insert(name, bytes);
    damaged
}

/// Reads blocks of all points that are still there.
fn check(
    storage: &MemStorage,
    points: &[(PointId, Vec<u8>)],
    random: &mut Random,
) -> Result<Tried, String> {
    let mut tried = Tried::default();
    let folder = Folder::scan(storage, Job::silent()).map_err(|e| said(&e))?;
    for (id, bytes) in points {
        let found = folder.sets.iter().find_map(|set| set.point(*id).map(|point| (set, point)));
        let view = found.and_then(|(set, point)| View::of_point(storage, set, point).ok());
        let Some(view) = view else {
            tried.lost += 1;
            continue;
        };
        let geometry = *view.geometry();
        if geometry.len() != bytes.len() as u64 {
            return Err(format!("point {id} has another length: {}", geometry.len()));
        }
        for _ in 0..BLOCKS {
            let block = random.next() % geometry.blocks();
            let mut out = vec![0; geometry.block_len(block) as usize];
            tried.reads += 1;
            if view.read(block, &mut out).is_ok() {
                let at = usize::try_from(block).unwrap_or(0) * disk::BLOCK;
                if out[..] != bytes[at..at + out.len()] {
                    return Err(format!("block {block} of point {id} reads otherwise"));
                }
                tried.right += 1;
            }
        }
    }
    Ok(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_read_of_a_damaged_chain_gives_wrong_bytes() {
        let mut tried = Tried::default();
        for seed in 1..=4 {
            tried.add(run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}")));
        }
        // Damage is met, and does not take everything with it.
        let errors = tried.reads - tried.right;
        assert!(tried.right > 1000 && errors + tried.lost > 50, "{tried}");
    }

    #[test]
    fn a_read_that_is_wrong_is_found() {
        let mut chain = Chain::of(1).unwrap();
        for (_, bytes) in &mut chain.points {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        let why = check(&chain.storage, &chain.points, &mut Random::new(&[1])).unwrap_err();
        assert!(why.contains("reads otherwise"), "{why}");
    }
}
