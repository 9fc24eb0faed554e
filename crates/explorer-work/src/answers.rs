//! What is asked of the outside, and the libraries that answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_browse::{
    Disk, File, FileData, FileType, Filter, Found, Links, LuksKey, LuksKeys, Path as FilePath,
    Pattern, Place, Step, Trouble, Walk,
};
use aiv_chain::{
    Checked, Depth, Folder, Keys, Trust, VerifyOptions, find_set, locate_image_keyed, storage_of,
    verify_file_keyed, verify_folder_keyed, verify_one_keyed,
};
use aiv_explorer_model::{
    Answer, BlockKind, BlockMap, Differences, DiskFacts, FILES_MAX, FileRow, Files,
    PREVIEW_BYTES_MAX, Preview, ProvenNow, Work, file_facts, sets_of,
};
use aiv_jobs::{OpenOptions, Opened, RecoverJob, RecoverTo, World, compare_disks, open_disk};
use aiv_report::{
    Exit, Failure, Outcome, Remarks, VOLUME_LOCKED, VOLUME_WRONG_KEY, Verdict, files, text,
};
use aiv_restore_engine::recover::RecoverOptions;
use aiv_volume_io::{DirStorage, Job};
use serde_json::Value;

use crate::handed::Shelf;

/// Notes about what could not be read that are kept.
const NOTES_MAX: usize = 20;
/// Names of attributes and streams that are shown of a file.
const NAMES_MAX: usize = 64;

/// Whoever answers, with the disk that is open.
pub struct Outside {
    world: Arc<dyn World + Send + Sync>,
    /// Whether whoever runs this may give files to others.
    owners: bool,
    /// Nothing is written at all.
    reads_only: bool,
    opened: Option<Arc<Opened>>,
    /// What that is.
    what: PathBuf,
    /// What opened encrypted volumes, or may.
    luks: LuksKeys,
    shelf: Shelf,
}

impl Outside {
    /// With no disk open. Files that are recovered get their owners where `owners` says so: only
    /// root can.
    #[must_use]
    pub fn new(world: Arc<dyn World + Send + Sync>, owners: bool) -> Self {
        let (opened, what, luks) = (None, PathBuf::new(), LuksKeys::none());
        Self { world, owners, reads_only: false, opened, what, luks, shelf: Shelf::default() }
    }

    /// The same, which writes nothing: nothing is extracted, and what a verification found is not
    /// remembered in the folder. The disk that is open lies on the `shelf`.
    #[must_use]
    pub fn reading_only(world: Arc<dyn World + Send + Sync>, shelf: Shelf) -> Self {
        Self { reads_only: true, shelf, ..Self::new(world, false) }
    }

    /// The same, which knows already what may open encrypted volumes.
    #[must_use]
    pub fn with_luks(self, luks: LuksKeys) -> Self {
        Self { luks, ..self }
    }

    /// Does something. `looked` is told how many files were looked at.
    ///
    /// # Errors
    /// Whatever the libraries say, with the next step; nothing was open for what needs a disk.
    pub fn answer(
        &mut self,
        work: Work,
        keys: &Keys,
        job: Job<'_>,
        looked: &dyn Fn(u64),
    ) -> Result<Answer, Failure> {
        job.check()?;
        match work {
            Work::Scan { folder } => {
                let storage = open_folder(&folder)?;
                let (folder, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, job)?;
                let (sets, notes) = sets_of(&folder);
                Ok(Answer::Sets(sets, notes))
            }
            Work::Open { what } => {
                // What was open makes room first.
                self.opened = None;
                self.shelf.clear();
                // Encrypted volumes are opened when somebody wants their files: that takes a while.
                let opened = open_disk(
                    &*self.world,
                    &what,
                    &OpenOptions::default(),
                    (keys, &LuksKeys::none()),
                    job,
                )?;
                self.what = what;
                Ok(self.put(opened))
            }
            Work::Describe { image } => {
                let (path, image) = locate_image_keyed(&image, keys, job)?;
                let text = text::image(&path, &image);
                Ok(Answer::Report { text, bad: false, proven: Vec::new() })
            }
            Work::List { path } => {
                let mut files = self.walk(&path, Walk { depth: 0 }, None, job, looked)?;
                files.rows.sort_by_key(|file| !file.is_folder());
                Ok(Answer::Files(files))
            }
            Work::Search { below, pattern } => {
                let filter = filter_of(&pattern)?;
                let files = self.walk(&below, Walk::default(), Some(&filter), job, looked)?;
                Ok(Answer::Files(files))
            }
            Work::Read { path, .. } => self.read(&path, job).map(Answer::Preview),
            Work::Map => self.map(job).map(Answer::Map),
            Work::Verify { what, set } => {
                let now_unix_ms = self.world.now_unix_ms();
                verify(&what, set.as_deref(), !self.reads_only, now_unix_ms, keys, job)
            }
            Work::Extract { .. } if self.reads_only => Err(nothing("nothing is written here")),
            Work::Extract { path, to } => self.extract(path, &to, job),
            Work::Compare { old, new } => {
                let open = |what: &Path| self.open_as_far_as_known(what, keys, job);
                let compared =
                    compare_disks(&open(&old)?, &open(&new)?, &FilePath::default(), job)?;
                Ok(Answer::Differences(Differences::of(&compared, FILES_MAX)))
            }
            Work::UnlockVolume { path, asks: None } => self.unlock_volume(&path, None, keys, job),
            // Asked where there is a terminal, or a page.
            Work::Unlock { .. } | Work::UnlockVolume { .. } => {
                Err(nothing("nobody can be asked here"))
            }
        }
    }

    /// Opens the disk once more, and the encrypted volume that `path` leads through, by what is known
    /// and by `key`, which is known from then on.
    ///
    /// # Errors
    /// [`VOLUME_LOCKED`] and [`VOLUME_WRONG_KEY`] when the volume stays closed; all is as before then.
    /// Whatever the libraries say.
    pub fn unlock_volume(
        &mut self,
        path: &FilePath,
        key: Option<LuksKey>,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Answer, Failure> {
        let is_asked = key.is_some();
        let mut luks = self.luks.clone();
        key.into_iter().for_each(|key| luks.add(key));
        if luks.is_empty() {
            is_open(self.disk()?, path, job)?;
        }
        let opened =
            open_disk(&*self.world, &self.what, &OpenOptions::default(), (keys, &luks), job);
        let opened = opened.map_err(Failure::from).and_then(|opened| {
            is_open(&opened.disk, path, job)?;
            Ok(opened)
        });
        let opened = opened.map_err(|failure| match failure.verdict.code {
            // It may be told of another volume than the one that is meant.
            VOLUME_WRONG_KEY if is_asked => {
                let message = format!("that passphrase does not open {path}");
                Failure { message, ..failure }
            }
            _ => failure,
        })?;
        self.luks = luks;
        Ok(self.put(opened))
    }

    /// A disk, with its encrypted volumes as far as what is known opens any.
    fn open_as_far_as_known(
        &self,
        what: &Path,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Opened, Failure> {
        let open = |luks: &LuksKeys| {
            open_disk(&*self.world, what, &OpenOptions::default(), (keys, luks), job)
        };
        match open(&self.luks).map_err(Failure::from) {
            Err(failure) if is_volume(&failure) => Ok(open(&LuksKeys::none())?),
            opened => opened,
        }
    }

    fn put(&mut self, opened: Opened) -> Answer {
        let facts = DiskFacts::of(&opened.disk, opened.point.is_some());
        let opened = Arc::new(opened);
        self.shelf.put(Arc::clone(&opened));
        self.opened = Some(opened);
        Answer::Disk(facts)
    }

    fn disk(&self) -> Result<&Disk, Failure> {
        self.opened.as_ref().map(|opened| &opened.disk).ok_or_else(|| nothing("no disk is open"))
    }

    fn file(&self, path: &FilePath, job: Job<'_>) -> Result<File, Failure> {
        file_of(self.disk()?, path, job)
    }

    fn walk(
        &self,
        below: &FilePath,
        walk: Walk,
        filter: Option<&Filter>,
        job: Job<'_>,
        looked: &dyn Fn(u64),
    ) -> Result<Files, Failure> {
        let from = self.file(below, job)?;
        let mut files = Files::default();
        files.notes.extend(from.filesystem.notes().iter().map(ToString::to_string));
        let (mut notes, mut troubles, mut count) = (Vec::new(), 0_usize, 0);
        let mut visit = |found: &Found<'_>| {
            count += 1;
            if count % 1000 == 0 {
                looked(count);
            }
            if found.below.is_empty() || filter.is_some_and(|filter| !filter.matches(found)) {
                return Step::On;
            }
            if files.rows.len() >= FILES_MAX {
                files.more += 1;
                return Step::On;
            }
            let is_link = found.metadata.file_type == FileType::Link;
            let target = is_link.then(|| from.filesystem.link_target(found.id).ok()).flatten();
            files.rows.push(FileRow {
                below: found.below.to_vec(),
                metadata: found.metadata.clone(),
                target,
            });
            Step::On
        };
        let mut trouble = |trouble: &Trouble<'_>| {
            troubles += 1;
            if notes.len() < NOTES_MAX {
                notes.push(Failure::of(&trouble.why).message);
            }
        };
        walk.run(&from, job, &mut visit, &mut trouble)?;
        let more = troubles - notes.len();
        files.notes.append(&mut notes);
        if more > 0 {
            files.notes.push(format!("{more} more could not be read"));
        }
        Ok(files)
    }

    fn read(&self, path: &FilePath, job: Job<'_>) -> Result<Preview, Failure> {
        let File { filesystem, path, id, metadata, .. } = self.file(path, job)?;
        let mut preview = Preview {
            path,
            bytes: Vec::new(),
            len: metadata.len,
            facts: file_facts(&metadata),
            trouble: String::new(),
        };
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fact = |name: &str, value: String| preview.facts.push((name.to_owned(), value));
        if metadata.file_type == FileType::Link {
            fact("leads to", lossy(&filesystem.link_target(id)?));
        }
        for attribute in filesystem.attributes(id).unwrap_or_default().iter().take(NAMES_MAX) {
            let len = attribute.value.len();
            fact("attribute", format!("{} ({len} bytes)", lossy(&attribute.name)));
        }
        for stream in filesystem.streams(id).unwrap_or_default().iter().take(NAMES_MAX) {
            fact("stream", format!("{} ({} bytes)", lossy(&stream.name), stream.len));
        }
        if metadata.file_type == FileType::File {
            match filesystem.open(id) {
                Ok(data) => first_bytes(&*data, &mut preview),
                Err(why) => preview.trouble = Failure::of(&why).message,
            }
        }
        Ok(preview)
    }

    fn map(&self, job: Job<'_>) -> Result<BlockMap, Failure> {
        let view = self.opened.as_ref().and_then(|opened| opened.point.as_ref());
        let view = view.ok_or_else(|| nothing("this is no recovery point"))?;
        let geometry = view.geometry();
        let has_parent = view.images().len() > 1;
        let mut map = BlockMap::new(geometry.blocks(), geometry.block_size().get());
        for (at, stretch) in view.stretches(0).enumerate() {
            if at % 1024 == 0 {
                job.check()?;
            }
            let stretch = stretch?;
            map.add(stretch.block(), stretch.run(), BlockKind::of(&stretch, has_parent));
        }
        Ok(map)
    }

    fn extract(&self, path: FilePath, to: &Path, job: Job<'_>) -> Result<Answer, Failure> {
        let to = match to.extension().and_then(|ext| ext.to_str()) {
            Some("tar") => RecoverTo::Tar(to.to_owned()),
            Some("zip") => RecoverTo::Zip(to.to_owned()),
            _ => RecoverTo::Folder(to.to_owned()),
        };
        let mut seed = [0; 8];
        self.world.fill_random(&mut seed).map_err(Failure::io("no random numbers"))?;
        let options = RecoverOptions {
            owners: self.owners,
            seed: u64::from_le_bytes(seed),
            ..RecoverOptions::default()
        };
        let recover = RecoverJob { paths: vec![path], filter: None, to, options };
        let report = recover.run(self.disk()?, job)?;
        Ok(report_of(files::recovered(&report, recover.to.path()), Vec::new()))
    }
}

/// Whether no volume on the way to `path` is locked.
fn is_open(disk: &Disk, path: &FilePath, job: Job<'_>) -> Result<(), Failure> {
    match disk.resolve(path, Links::Keep, job).map_err(Failure::from) {
        Err(failure) if is_volume(&failure) || failure.verdict.exit == Exit::Canceled => {
            Err(failure)
        }
        // What is wrong behind it is told to whoever goes there.
        _ => Ok(()),
    }
}

fn is_volume(failure: &Failure) -> bool {
    [VOLUME_LOCKED, VOLUME_WRONG_KEY].contains(&failure.verdict.code)
}

/// The file, folder or partition at a path, whatever it leads to.
pub(crate) fn file_of(disk: &Disk, path: &FilePath, job: Job<'_>) -> Result<File, Failure> {
    match disk.resolve(path, Links::Keep, job)? {
        Place::File(file) => Ok(file),
        Place::Top => Err(nothing("a disk is no folder")),
        Place::Volumes(_) => Err(nothing("it holds volumes, which are rows of their own")),
    }
}

/// The beginning of a file, as far as it can be read.
fn first_bytes(data: &dyn FileData, preview: &mut Preview) {
    let wanted = usize::try_from(data.len()).unwrap_or(usize::MAX).min(PREVIEW_BYTES_MAX);
    preview.len = data.len();
    preview.bytes = vec![0; wanted];
    if let Err(why) = data.read_exact_at(&mut preview.bytes, 0) {
        preview.bytes.clear();
        preview.trouble = Failure::of(&why).about("it cannot be read").message;
    }
}

/// Words without the signs of a pattern are looked for anywhere in a name, in any case.
fn filter_of(text: &str) -> Result<Filter, Failure> {
    let is_pattern = text.contains(['*', '?', '[', '/', '\\']);
    let text = if is_pattern { text.to_owned() } else { format!("*{text}*") };
    let pattern = text.parse::<Pattern>().map_err(|error| {
        let mut failure = Failure::from(error);
        failure.verdict.hint = "type a part of the name, or a pattern such as *.txt or etc/*.conf";
        failure
    })?;
    let patterns = vec![pattern.without_case()];
    Ok(Filter { patterns, ignore_case: true, ..Filter::default() })
}

fn verify(
    what: &Path,
    set: Option<&str>,
    remember: bool,
    now_unix_ms: u64,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Answer, Failure> {
    let depth = Depth::Data;
    let options = VerifyOptions { depth, not_verified_since: None, now_unix_ms, set: None };
    let (verified, storage) = match set {
        Some(id) => {
            let storage = open_folder(what)?;
            let (folder, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, job)?;
            let options = VerifyOptions { set: Some(find_set(&folder, id)?.id), ..options };
            (verify_folder_keyed(&storage, &options, keys, job)?, storage)
        }
        None => {
            let (storage, file) = storage_of(what)?;
            let mut verified = verify_one_keyed(&storage, file, &options, keys, job)?;
            // Other files are not what was asked about.
            verified.strays.clear();
            if verified.images.is_empty() {
                // It says why it is none.
                verified.images.push(verify_file_keyed(what, depth, keys, job)?);
            }
            (verified, storage)
        }
    };
    if remember {
        // On a medium that cannot be written, it is known until the explorer ends.
        let _ = verified.record(&storage, job);
    }
    let (images, strays) = (verified.images, verified.strays);
    let exit = if images.iter().all(Checked::is_sound) { Exit::Done } else { Exit::Damage };
    let mut outcome = Outcome::answer(Value::Null, text::verification(&images));
    outcome.exit = exit;
    let mut outcome = outcome.with(Remarks::on_unverified(&images, &strays, depth, keys));
    outcome.add(Remarks::on_damaged(&images));
    // What is sound as far as it can be seen is not proven.
    let known = images.iter().filter(|image| image.is_proven() || !image.is_sound());
    let proven = known.map(|image| {
        let file = Path::new(&image.file).file_name().unwrap_or_default();
        let file = file.to_string_lossy().into_owned();
        ProvenNow { file, sound: image.is_sound(), time_unix_ms: now_unix_ms }
    });
    let proven = proven.collect();
    Ok(report_of(outcome, proven))
}

fn report_of(outcome: Outcome, proven: Vec<ProvenNow>) -> Answer {
    let warnings = outcome.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let text = outcome.text + &warnings.collect::<String>();
    Answer::Report { text, bad: outcome.exit != Exit::Done, proven }
}

fn open_folder(folder: &Path) -> Result<DirStorage, Failure> {
    let about = format!("cannot open the folder {}", folder.display());
    DirStorage::open(folder).map_err(Failure::io(about))
}

/// What was asked for does not fit to what is open.
pub(crate) fn nothing(message: &str) -> Failure {
    let hint = "go back, and open it again";
    Failure::new(Verdict { code: "not_open", exit: Exit::Failed, hint }, message)
}
