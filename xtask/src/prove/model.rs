//! Random programs against a model of plain bytes: after every step, every point that should
//! exist reads as the disk did when it was taken, under its old state root.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Add;

use aiv_backup_engine::BackupReport;
use aiv_chain::{Digest, Folder, PointId, View};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, ReadAt, Storage};

use super::disk::{change, new_disk};
use super::said;
use super::scenario::{Maker, random_options};

/// Operations of one program.
const STEPS: usize = 200;

/// Points a folder is let grow to: reading all of them after every step is what the time goes
/// into.
const POINTS_MAX: usize = 14;

/// How much was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    steps: u64,
    backups: u64,
    lost_files: u64,
    points_read: u64,
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            backups: self.backups + other.backups,
            lost_files: self.lost_files + other.lost_files,
            points_read: self.points_read + other.points_read,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} backups, {} files lost, {} points read",
            self.steps, self.backups, self.lost_files, self.points_read
        )
    }
}

/// Runs the program of `seed`; the error says in which step what went wrong.
pub(crate) fn run(seed: u64) -> Result<Counts, String> {
    let mut model = Model::new(seed);
    for step in 0..STEPS {
        let what = model.step();
        let result = what.and_then(|what| model.check().map_err(|why| format!("{what}: {why}")));
        result.map_err(|why| format!("step {step}: {why}"))?;
        model.counts.steps += 1;
    }
    Ok(model.counts)
}

/// What the model knows about a point: nothing of this comes from reading images.
struct Known {
    bytes: Vec<u8>,
    state_root: Digest,
    content_root: Digest,
}

/// What the model knows about a file: which point it provides, and on which it builds.
#[derive(Clone, Copy)]
struct Provides {
    point: PointId,
    parent: Option<PointId>,
}

struct Model {
    random: Random,
    folder: MemStorage,
    disk: Vec<u8>,
    files: BTreeMap<String, Provides>,
    points: BTreeMap<PointId, Known>,
    maker: Maker,
    counts: Counts,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(&[seed]);
        let disk = new_disk(&mut random);
        Self {
            random,
            folder: MemStorage::new(),
            disk,
            files: BTreeMap::new(),
            points: BTreeMap::new(),
            maker: Maker::new(seed),
            counts: Counts::default(),
        }
    }

    /// Does something and says what.
    fn step(&mut self) -> Result<String, String> {
        let restorable = self.restorable();
        match self.random.below(20) {
            0..6 => {
                change(&mut self.disk, &mut self.random);
                Ok(format!("change the disk, now {} bytes", self.disk.len()))
            }
            _ if restorable.len() >= POINTS_MAX => self.lose_a_file(),
            6..17 => self.back_up(),
            17 => self.lose_a_file(),
            18 if !restorable.is_empty() => {
                let at = self.random.below(restorable.len());
                let point = *restorable.iter().nth(at).ok_or("no such point")?;
                self.disk.clone_from(&self.points[&point].bytes);
                Ok(format!("restore point {point}"))
            }
            _ => self.verify(),
        }
    }

    /// Points that can be restored: those with a file whose parent can be.
    fn restorable(&self) -> BTreeSet<PointId> {
        let mut found: BTreeSet<PointId> = BTreeSet::new();
        loop {
            let more: Vec<PointId> = self
                .files
                .values()
                .filter(|file| file.parent.is_none_or(|parent| found.contains(&parent)))
                .map(|file| file.point)
                .filter(|point| !found.contains(point))
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    fn back_up(&mut self) -> Result<String, String> {
        let options = random_options(&mut self.random);
        let what = format!("back up on {:?}", options.basis);
        let report = self
            .maker
            .back_up(&self.disk, &self.folder, options)
            .map_err(|why| format!("{what}: {why}"))?;
        self.remember(&report);
        self.counts.backups += 1;
        Ok(format!("{what}: {}", report.image))
    }

    fn remember(&mut self, report: &BackupReport) {
        let (point, parent) = (report.recovery_point, report.parent);
        self.files.insert(report.image.clone(), Provides { point, parent });
        let known = Known {
            bytes: self.disk.clone(),
            state_root: report.state_root,
            content_root: report.content_root,
        };
        self.points.insert(point, known);
    }

    /// A file vanishes, as files do.
    fn lose_a_file(&mut self) -> Result<String, String> {
        if self.files.is_empty() {
            return self.back_up();
        }
        let at = self.random.below(self.files.len());
        let name = self.files.keys().nth(at).cloned().ok_or("no such file")?;
        self.folder.remove(&name).map_err(|e| format!("removing {name}: {e}"))?;
        self.files.remove(&name);
        self.counts.lost_files += 1;
        Ok(format!("lose {name}"))
    }

    fn verify(&self) -> Result<String, String> {
        let depth = aiv_chain::Depth::Data;
        let (images, strays) = aiv_chain::verify_folder(&self.folder, depth, Job::silent())
            .map_err(|e| format!("verify: {}", said(&e)))?;
        match images.iter().find(|image| !image.is_sound()) {
            Some(image) => Err(format!("verify finds damage: {image:?}")),
            None if images.len() == self.files.len() => Ok("verify".to_owned()),
            None => Err(format!("verify finds {} images and {strays:?}", images.len())),
        }
    }

    /// Compares the folder with what should be in it.
    fn check(&mut self) -> Result<(), String> {
        let folder = Folder::scan(&self.folder, Job::silent()).map_err(|e| said(&e))?;
        let expected = self.restorable();
        let set = folder.sets.first();
        let points = set.map_or(&[][..], |set| &set.points);
        let found: BTreeSet<PointId> =
            points.iter().filter(|p| p.is_restorable()).map(|p| p.id).collect();
        if found != expected {
            return Err(format!("restorable are {found:?}, should be {expected:?}"));
        }
        for point in points.iter().filter(|p| p.is_restorable()) {
            let known = &self.points[&point.id];
            let roots = (point.state_root, point.content_root);
            if roots != (known.state_root, known.content_root) {
                return Err(format!("point {} has other roots", point.id));
            }
            let set = set.ok_or("no set")?;
            let view = View::of_point(&self.folder, set, point).map_err(|e| said(&e))?;
            let mut bytes = vec![0; known.bytes.len()];
            if view.len() != bytes.len() as u64 {
                return Err(format!("point {} has {} bytes", point.id, view.len()));
            }
            view.read_exact_at(&mut bytes, 0).map_err(|e| format!("point {}: {e}", point.id))?;
            if bytes != known.bytes {
                return Err(format!("point {} reads otherwise", point.id));
            }
            self.counts.points_read += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_200_operations_keep_every_point() {
        for seed in 1..=2 {
            let counts = run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            assert!(counts.points_read > 200, "seed {seed}: {counts}");
        }
    }
}
