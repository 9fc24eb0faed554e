//! What must be true of a folder after a crash, whatever the scenario did.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aiv_chain::{Digest, Folder, PointId, StrayKind, View};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use super::{read, said};

/// The points a scenario makes, known by other means than by reading images.
#[derive(Default)]
pub(crate) struct Oracle {
    points: BTreeMap<PointId, (Vec<u8>, Digest)>,
    /// Chains that read right, by the bytes of their files: most states share most files.
    right: HashMap<(PointId, Vec<blake3::Hash>), ()>,
    hashes: HashMap<*const Vec<u8>, blake3::Hash>,
    keep: Vec<std::sync::Arc<Vec<u8>>>,
}

impl Oracle {
    /// The scenario makes this point.
    pub(crate) fn learn(&mut self, point: PointId, bytes: Vec<u8>, state_root: Digest) {
        self.points.insert(point, (bytes, state_root));
    }

    /// Takes over what another oracle knows.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.points.extend(other.points);
    }

    /// Checks one state. `promised` points must be restorable; any other may be there or not;
    /// none may be there and wrong, and none may have its file there and miss another one.
    pub(crate) fn check(
        &mut self,
        folder: &MemStorage,
        promised: &BTreeSet<PointId>,
    ) -> Result<(), String> {
        let scanned = Folder::scan(folder, Job::silent()).map_err(|e| said(&e))?;
        for stray in &scanned.strays {
            if !matches!(stray.kind, StrayKind::Unfinished | StrayKind::Duplicate(_)) {
                return Err(format!("{stray:?}"));
            }
        }
        let mut missing = promised.clone();
        for set in &scanned.sets {
            for point in &set.points {
                if !point.is_restorable() {
                    return Err(format!("{} is orphaned: {}", point.file, point.state));
                }
                let chain = set.chain(point).map_err(|e| said(&e))?;
                let files = chain.iter().flat_map(|p| std::iter::once(&p.file).chain(&p.segments));
                let files = files.map(|file| self.hash_of(folder, file)).collect();
                let key = (point.id, files);
                if !self.right.contains_key(&key) {
                    self.read(folder, set, point)?;
                    self.right.insert(key, ());
                }
                missing.remove(&point.id);
            }
        }
        match missing.first() {
            Some(lost) => Err(format!("the acknowledged point {lost} is lost")),
            None => Ok(()),
        }
    }

    fn read(
        &self,
        folder: &MemStorage,
        set: &aiv_chain::Set,
        point: &aiv_chain::Point,
    ) -> Result<(), String> {
        let known = self.points.get(&point.id);
        let (bytes, root) = known.ok_or_else(|| format!("a point nobody made: {}", point.id))?;
        let view = View::of_point(folder, set, point).map_err(|e| said(&e))?;
        let found = read(&view).map_err(|why| format!("{}: {why}", point.file))?;
        match found == *bytes && point.state_root == *root {
            true => Ok(()),
            false => Err(format!("{} reads otherwise", point.file)),
        }
    }

    /// Hash of a file; contents are shared between states, so most are hashed once.
    fn hash_of(&mut self, folder: &MemStorage, name: &str) -> blake3::Hash {
        let Some(bytes) = folder.contents(name) else { return blake3::hash(b"") };
        let key = std::sync::Arc::as_ptr(&bytes);
        *self.hashes.entry(key).or_insert_with(|| {
            // Kept alive, so that no other contents get its address.
            self.keep.push(std::sync::Arc::clone(&bytes));
            blake3::hash(&bytes)
        })
    }
}
