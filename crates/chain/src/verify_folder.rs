//! Proves the images of a folder, and leaves out what was proven lately.

use std::collections::HashSet;
use std::io;

use aiv_image_format::{Depth, Error as ImageError, Keys, SetId, peek_set};
use aiv_volume_io::{FileEntry, Job, Storage};
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::catalogue::{Catalogue, Verified};
use crate::error::{Error, Result};
use crate::facts::Protection;
use crate::family::Family;
use crate::folder::{self, Folder, Point, Set, Stray, StrayKind};
use crate::scan::Trust;
use crate::verify::{Checked, answer, of_view, verify_alone};
use crate::view::View;

/// What to verify of a folder, and how.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// How thorough.
    pub depth: Depth,
    /// Leaves out images that did not change since they were proven, as thoroughly, at this
    /// time or later, in milliseconds since 1970 UTC. `None` verifies all.
    pub not_verified_since: Option<u64>,
    /// The time now, milliseconds since 1970 UTC: what results are recorded with. Records of
    /// later times are not believed.
    pub now_unix_ms: u64,
    /// Only the images of this set, and files of which it cannot be told.
    pub set: Option<SetId>,
}

/// What came of verifying a folder.
#[derive(Debug, Default)]
pub struct Verification {
    /// Every image, by name of the file.
    pub images: Vec<Checked>,
    /// What is no usable image beside them: unfinished and foreign files, images for a newer
    /// program, and what the storage cannot read.
    pub strays: Vec<Stray>,
    records: Vec<(FileEntry, Verified)>,
}

impl Verification {
    /// Puts the results into the catalogue of the folder, as it is now, for files that did not
    /// change in the meantime. Callers may ignore that it fails: the next verification then
    /// skips less.
    ///
    /// # Errors
    /// Those of [`Folder::scan`] and [`Catalogue::write`].
    pub fn record(&self, storage: &dyn Storage, job: Job<'_>) -> Result<()> {
        let (_, mut catalogue) = Folder::scan_with(storage, job)?;
        for (file, verified) in &self.records {
            catalogue.record(file, *verified);
        }
        catalogue.write(storage)
    }
}

/// Verifies the images in `storage`, several at a time, in the rayon pool of the calling thread.
/// Nothing is written: see [`Verification::record`].
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed, [`Error::Canceled`].
pub fn verify_folder(
    storage: &dyn Storage,
    options: &VerifyOptions,
    job: Job<'_>,
) -> Result<Verification> {
    verify_folder_keyed(storage, options, &Keys::none(), job)
}

/// As [`verify_folder`], with the keys of images that have one.
///
/// # Errors
/// As [`verify_folder`].
pub fn verify_folder_keyed(
    storage: &dyn Storage,
    options: &VerifyOptions,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Verification> {
    if options.not_verified_since.is_some()
        && let Some(done) = run(storage, options, None, Trust::Catalogue, keys, job)?
    {
        return Ok(done);
    }
    // Every file is opened anyway, or one of them was not what the catalogue said.
    run(storage, options, None, Trust::Files, keys, job).map(Option::unwrap_or_default)
}

/// As [`verify_folder_keyed`], for one file of the folder: what came of it can be recorded. Nothing
/// is verified when the folder has no image of that name.
///
/// # Errors
/// As [`verify_folder`].
pub fn verify_one_keyed(
    storage: &dyn Storage,
    file: &str,
    options: &VerifyOptions,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Verification> {
    run_only(storage, options, Only::File(file), keys, job)
}

/// As [`verify_folder_keyed`], for the point that one file of the folder provides: every image it
/// is read through. Where one of them is missing, it is the file alone.
///
/// # Errors
/// As [`verify_folder`].
pub fn verify_point_keyed(
    storage: &dyn Storage,
    file: &str,
    options: &VerifyOptions,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Verification> {
    run_only(storage, options, Only::Chain(file), keys, job)
}

/// What is asked for of a folder, when it is not all.
#[derive(Clone, Copy)]
enum Only<'a> {
    /// A file.
    File(&'a str),
    /// A file, and those its point builds on.
    Chain(&'a str),
}

impl Only<'_> {
    fn files(self, folder: &Folder) -> HashSet<String> {
        let (Self::File(file) | Self::Chain(file)) = self;
        let chain = match self {
            Self::File(_) => None,
            Self::Chain(_) => folder.sets.iter().find_map(|set| {
                let point = set.points.iter().find(|point| point.file == file)?;
                set.chain(point).ok()
            }),
        };
        let files = chain.iter().flatten().map(|point| point.file.clone());
        files.chain([file.to_owned()]).collect()
    }
}

fn run_only(
    storage: &dyn Storage,
    options: &VerifyOptions,
    only: Only<'_>,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Verification> {
    match run(storage, options, Some(only), Trust::Catalogue, keys, job)? {
        Some(done) => Ok(done),
        None => run(storage, options, Some(only), Trust::Files, keys, job)
            .map(Option::unwrap_or_default),
    }
}

fn run(
    storage: &dyn Storage,
    options: &VerifyOptions,
    only: Option<Only<'_>>,
    trust: Trust,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Option<Verification>> {
    let (folder, catalogue) = Folder::scan_keyed(storage, keys, trust, job)?;
    let only = only.map(|only| only.files(&folder));
    let run = Run { storage, options, only, folder, catalogue, job };
    run.verify(trust == Trust::Catalogue)
}

/// Files of chains that are open at once at most, unless a single chain has more.
const OPEN_FILES_MAX: usize = 512;

/// One verification, on top of one scan.
struct Run<'a> {
    storage: &'a dyn Storage,
    options: &'a VerifyOptions,
    /// The only files that are asked for, if not all are.
    only: Option<HashSet<String>>,
    folder: Folder,
    catalogue: Catalogue,
    job: Job<'a>,
}

/// A chain that is opened once, for all of its images that are to be verified.
struct Group<'f> {
    set: &'f Set,
    newest: &'f Point,
    /// Images of the chain.
    len: usize,
    /// Places in the chain, and files.
    wanted: Vec<(usize, &'f str)>,
}

/// What is to be done.
#[derive(Default)]
struct Todo<'f> {
    groups: Vec<Group<'f>>,
    /// Files that are verified by themselves.
    single: Vec<&'f str>,
    skipped: Vec<Checked>,
}

impl Run<'_> {
    /// `None` when the scan was wrong and need not have been: `by_catalogue` says that another
    /// one would help.
    fn verify(mut self, by_catalogue: bool) -> Result<Option<Verification>> {
        let todo = self.todo();
        let mut answers = Vec::new();
        let mut single = todo.single;
        let mut groups = todo.groups.as_slice();
        while !groups.is_empty() {
            let mut open = 0;
            let fits = |group: &&Group<'_>| {
                open += group.len;
                open <= OPEN_FILES_MAX
            };
            let count = groups.iter().take_while(fits).count().max(1);
            let (now, later) = groups.split_at(count);
            groups = later;
            let mut views = Vec::new();
            for (group, opened) in now.iter().zip(self.open(now)) {
                match opened {
                    Ok(view) => pick(view, &group.wanted, &mut views),
                    Err(Error::Canceled(canceled)) => return Err(canceled.into()),
                    Err(_) if by_catalogue => return Ok(None),
                    Err(_) => single.extend(group.wanted.iter().map(|(_, file)| *file)),
                }
            }
            let verified = views.into_par_iter().map(|view| {
                let verified = of_view(&view, self.options.depth, self.job);
                answer(view.file().to_owned(), verified).map(|checked| checked.of(view.image()))
            });
            answers.extend(verified.collect::<Vec<_>>());
        }
        let verified = single.into_par_iter().map(|file| {
            let depth = self.options.depth;
            verify_alone(self.storage, &self.folder, file, depth, self.job)
        });
        answers.extend(verified.collect::<Vec<_>>());
        let skipped = todo.skipped;
        self.report(answers, skipped).map(Some)
    }

    fn todo(&self) -> Todo<'_> {
        let mut todo = Todo::default();
        let mut done: HashSet<&str> = HashSet::new();
        // What proved it then may not have had the key, and did not look for forgery.
        let may_skip = |point: &Point| {
            self.folder.keys.is_empty() || !matches!(point.protection, Protection::Authenticated(_))
        };
        let is_asked = |set: SetId| self.options.set.is_none_or(|asked| asked == set);
        for set in self.folder.sets.iter().filter(|set| is_asked(set.id)) {
            let links = set.links();
            for point in set.points.iter().rev() {
                if done.contains(point.file.as_str()) || !self.is_meant(&point.file) {
                    continue;
                }
                if let Some(verified) = self.proven(&point.file).filter(|_| may_skip(point)) {
                    done.insert(&point.file);
                    todo.skip(&point.file, verified, Some(point.protection));
                    continue;
                }
                let Ok(chain) = links.chain(point) else {
                    done.insert(&point.file);
                    todo.single.push(&point.file);
                    continue;
                };
                let is_proven =
                    |point: &Point| self.proven(&point.file).is_some() && may_skip(point);
                let wanted = chain.iter().enumerate().filter(|(_, point)| !is_proven(point));
                let wanted = wanted.map(|(place, point)| (place, point.file.as_str()));
                let wanted = wanted.filter(|(_, file)| self.is_meant(file) && done.insert(*file));
                let wanted = wanted.collect();
                todo.groups.push(Group { set, newest: point, len: chain.len(), wanted });
            }
        }
        for stray in &self.folder.strays {
            let file = stray.file.as_str();
            let is_image = matches!(stray.kind, StrayKind::Unusable(_) | StrayKind::Duplicate(_));
            let is_asked = self.is_meant(file) && self.may_be_asked(file);
            if !is_image || !is_asked || !done.insert(file) {
                continue;
            }
            // Whether it has a key is not known here.
            match self.proven(file).filter(|_| self.folder.keys.is_empty()) {
                Some(verified) => todo.skip(file, verified, None),
                None => todo.single.push(file),
            }
        }
        todo
    }

    /// Whether a file was asked for.
    fn is_meant(&self, file: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(file))
    }

    /// Whether a file is of the set that was asked for, as far as its first bytes tell.
    fn may_be_asked(&self, file: &str) -> bool {
        let Some(asked) = self.options.set else { return true };
        let opened = self.storage.open(file).ok();
        opened.and_then(|file| peek_set(&file)).is_none_or(|set| set == asked)
    }

    /// The record by which a file need not be verified.
    fn proven(&self, file: &str) -> Option<Verified> {
        let since = self.options.not_verified_since?;
        let verified = self.catalogue.verified(file)?;
        let times = since..=self.options.now_unix_ms;
        let is_enough = verified.sound
            && verified.depth >= self.options.depth
            && times.contains(&verified.time_unix_ms);
        is_enough.then_some(verified)
    }

    fn open(&self, groups: &[Group<'_>]) -> Vec<Result<View>> {
        let open = |group: &Group<'_>| {
            self.job.check()?;
            View::of_point_whole(self.storage, group.set, group.newest)
        };
        groups.par_iter().map(open).collect()
    }

    fn report(
        &mut self,
        answers: Vec<Result<Checked>>,
        skipped: Vec<Checked>,
    ) -> Result<Verification> {
        let listed = |s: &&Stray| {
            use StrayKind::{Foreign, Unfinished, Unreadable};
            matches!(s.kind, Unfinished | Foreign(_) | Unreadable(_))
        };
        let mut strays: Vec<Stray> = self.folder.strays.iter().filter(listed).cloned().collect();
        let mut images = Vec::new();
        for answered in answers {
            match answered {
                Ok(checked) => images.push(checked),
                Err(Error::Image { file, source: ImageError::Foreign(why) }) => {
                    strays.push(self.stray(&file, StrayKind::Foreign(why.to_string())));
                }
                Err(Error::Image { file, source: ImageError::Unsupported(why) }) => {
                    strays.push(self.stray(&file, StrayKind::Unusable(why.to_string())));
                }
                // It is an image, and not the one it says it is.
                Err(Error::Image { file, source: source @ ImageError::Forged { .. } }) => {
                    images.push(Checked::new(file, Err(source)));
                }
                // Removed or renamed by somebody else since the folder was listed.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                // One file that cannot be read must not keep anybody from proving the others.
                Err(error @ Error::Image { .. }) => {
                    let why = StrayKind::Unreadable(folder::why(&error));
                    let Error::Image { file, .. } = error else { continue };
                    strays.push(self.stray(&file, why));
                }
                Err(error) => return Err(error),
            }
        }
        let records = self.records(&images);
        for (file, verified) in &records {
            self.catalogue.record(file, *verified);
        }
        self.note_affected(&mut images);
        images.extend(skipped);
        images.sort_by(|a, b| a.file.cmp(&b.file));
        strays.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Verification { images, strays, records })
    }

    fn stray(&self, file: &str, kind: StrayKind) -> Stray {
        let known = self.folder.strays.iter().find(|stray| stray.file == file);
        let size = known.map_or(0, |stray| stray.size);
        Stray { file: file.to_owned(), size, image: None, kind }
    }

    /// What to remember. An image that could be proven in parts only is as unproven as before.
    fn records(&self, images: &[Checked]) -> Vec<(FileEntry, Verified)> {
        let record = |checked: &Checked| {
            let sound = checked.is_proven();
            if checked.is_sound() && !sound {
                return None;
            }
            let (depth, time_unix_ms) = (self.options.depth, self.options.now_unix_ms);
            let file = self.catalogue.file(&checked.file)?;
            Some((file, Verified { depth, time_unix_ms, sound }))
        };
        images.iter().filter_map(record).collect()
    }

    /// Adds to every damaged file which points are read through it.
    fn note_affected(&self, images: &mut [Checked]) {
        let is_damaged = |checked: &Checked| {
            let known = self.catalogue.verified(&checked.file);
            !checked.is_sound() || known.is_some_and(|verified| !verified.sound)
        };
        let damaged = images.iter_mut().filter(|checked| is_damaged(checked));
        let mut damaged = damaged.peekable();
        if damaged.peek().is_none() {
            return;
        }
        let family = Family::of(&self.folder);
        damaged.for_each(|checked| checked.points_affected = family.affected_by(&checked.file));
    }
}

impl Todo<'_> {
    fn skip(&mut self, file: &str, verified: Verified, protection: Option<Protection>) {
        let checked = Checked::new(file.to_owned(), Ok(aiv_image_format::VerifyReport::default()));
        self.skipped.push(Checked { skipped: Some(verified), protection, ..checked });
    }
}

/// The views of the images of a chain that are wanted.
fn pick(view: View, wanted: &[(usize, &str)], views: &mut Vec<View>) {
    let mut places = wanted.iter().map(|(place, _)| *place).peekable();
    let (mut at, mut next) = (0, Some(view));
    while let Some(view) = next.take()
        && places.peek().is_some()
    {
        next = view.parent();
        if places.next_if_eq(&at).is_some() {
            views.push(view);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};

    use super::*;
    use crate::testing::{Filled, image};

    const ALL: VerifyOptions =
        VerifyOptions { depth: Depth::Data, not_verified_since: None, now_unix_ms: 1, set: None };

    #[test]
    fn every_image_of_a_folder_is_verified_and_the_rest_is_listed() {
        let mut damaged = image(2, "sda", 2);
        damaged[4096 + 70] ^= 1;
        let mut headless = image(3, "sda", 3);
        headless.truncate(9000);
        let dir = Filled::with(&[
            ("a.aiv", image(1, "sda", 1)),
            ("b.aiv", damaged),
            ("c.aiv", headless),
            ("d.aiv", b"AIX and many other bytes".repeat(400)),
            ("e.aiv.part", image(5, "sda", 5)),
            ("notes.txt", b"nothing of ours".to_vec()),
        ]);
        let found = verify_folder(&dir.storage(), &ALL, Job::silent());
        let Verification { images, strays, .. } = found.expect("the folder is readable");
        let sound: Vec<_> = images.iter().map(|i| (i.file.as_str(), i.is_sound())).collect();
        assert_eq!(sound, [("a.aiv", true), ("b.aiv", false), ("c.aiv", false)]);
        assert!(matches!(images[2].outcome, Err(ImageError::Incomplete { len: 9000 })));
        let strays: Vec<_> = strays.iter().map(|s| s.file.as_str()).collect();
        assert_eq!(strays, ["d.aiv", "e.aiv.part"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let mut unreadable = 0;
        for nth in 1.. {
            let storage = MemStorage::new();
            storage.insert("a.aiv", image(1, "sda", 1));
            storage.insert("b.aiv", image(2, "sda", 2));
            let broken = FaultStorage::failing(storage, FaultPlan::once(nth, Fault::Eio));
            let found = verify_folder(&broken, &ALL, Job::silent());
            if !broken.fired() {
                break;
            }
            let Ok(Verification { images, strays, .. }) = found else { continue };
            assert_eq!(images.len() + strays.len(), 2, "operation {nth}");
            // A record of which the copy could be read is damage, and no other is.
            let one_copy = |image: &Checked| match &image.outcome {
                Ok(report) => report.damage.iter().all(|d| d.what().contains("cannot be read")),
                Err(_) => false,
            };
            assert!(images.iter().all(one_copy), "operation {nth}");
            assert!(strays.iter().all(|s| matches!(s.kind, StrayKind::Unreadable(_))));
            unreadable += strays.len();
        }
        assert!(unreadable > 10, "every read of both images failed once");
    }
}
