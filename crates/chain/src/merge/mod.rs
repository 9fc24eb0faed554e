//! Several images of a chain made into one that provides the newest point of them: frames are
//! copied as they are, and only what has lost its base is stored anew.

mod estimate;
mod gather;
mod run;
mod write;

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use aiv_image_format::meta::Meta;
use aiv_image_format::{
    Compression, Depth, Digest, Error as ImageError, Features, Image, ImageId, ImageKind,
    ImageWriter, Keys, ParentState, SPECIFICATION, Seal, Segments, SessionTag, SetId, Superblock,
    Trailer, Unsupported, smallest_split,
};
use aiv_volume_io::{Job, Lease, Step, Storage};

use crate::error::{Error, Result};
use crate::folder::list;
use crate::names::{ImageName, image_name, suffix};
use crate::slots::newest_slots;
use crate::split::{PartFiles, discard_parts, open_parts, publish_parts, remove_interrupted};
use crate::view::View;
use gather::{Anew, Batch, Gather, Storing};
use run::Run;
use write::Sink;

pub(crate) use estimate::{bytes_max, bytes_with_parity, has_parity};

/// What the temporary names of images that are merged or copied end with. Backups leave files of
/// such names alone: another lease protects them.
pub const MERGE_PART: &str = ".merge.part";

/// Frames remembered, so that blocks with equal bytes share one: those of 57 GiB of different
/// blocks of 64 KiB in about 50 MiB of memory. When the table is full, frames are copied again.
const REMEMBERED_MAX: usize = 900_000;

/// Batches read ahead of the one being written.
const BATCHES_AHEAD: usize = 4;

/// Random ids and the time, for one file: inputs, so that the same inputs give the same image.
#[derive(Debug, Clone, Copy)]
pub struct MergeIds {
    image: ImageId,
    session: SessionTag,
    suffix: [u8; 4],
    time_unix_ms: u64,
}

impl MergeIds {
    /// Random bytes one file needs.
    pub const RANDOM_LEN: usize = 32;

    /// Ids from `random` bytes, which must never be used twice. `time_unix_ms` is now, in
    /// milliseconds since 1970 UTC.
    #[must_use]
    pub fn new(random: &[u8; Self::RANDOM_LEN], time_unix_ms: u64) -> Self {
        fn part<const N: usize>(random: &[u8], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&random[at..at + N]);
            out
        }
        Self {
            image: ImageId(part(random, 0)),
            session: SessionTag(part(random, 16)),
            suffix: part(random, 28),
            time_unix_ms,
        }
    }

    /// Image, session, and the time that was handed in.
    pub(crate) fn parts(&self) -> (ImageId, SessionTag, u64) {
        (self.image, self.session, self.time_unix_ms)
    }

    /// The characters that keep two file names apart.
    #[must_use]
    pub fn suffix(&self) -> String {
        suffix(self.suffix)
    }
}

/// Gives the ids of the next file.
pub type NewIds<'f> = dyn FnMut() -> MergeIds + 'f;

/// How merged images are written.
#[derive(Debug, Clone, Copy)]
pub struct MergeOptions {
    /// For the few blocks that have to be stored anew.
    pub compression: Compression,
    /// Parity over the whole image, also where none of the images it is made of had it.
    pub parity: bool,
    /// Bytes of a file at most, from 64 MiB: a larger image is split. `None` splits where what is
    /// merged was split.
    pub split: Option<u64>,
}

impl From<Compression> for MergeOptions {
    fn from(compression: Compression) -> Self {
        Self { compression, parity: false, split: None }
    }
}

/// Images to be made into one.
pub(crate) struct Merge<'a> {
    /// The point the merged image provides, with its whole chain.
    pub view: &'a View,
    /// The folder its images are in, where that is another one than the merged image gets into.
    pub from: Option<&'a dyn Storage>,
    /// So many of the newest images of the chain are merged; at least one.
    pub count: usize,
    pub options: MergeOptions,
    pub ids: MergeIds,
    /// The name of the file, instead of one that says host, disk, time and number.
    pub name: Option<&'a str>,
    pub job: Job<'a>,
}

/// Features that entries of an image with a parent need; the others are the writer's business.
const IN_CHAINS: u64 = Features::DELTA | Features::PARENT;

/// Features that entries of any image may need, and parity.
const IN_ALL: u64 = Features::LOCAL | Features::PARITY;

/// An image that was merged and published.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    pub file: String,
    pub trailer: Trailer,
    /// Files it is in, and the bytes of all of them.
    pub segments: u32,
    pub bytes: u64,
}

impl Merge<'_> {
    /// Writes the image, proves it, and publishes it in `storage`; `before` has the last word
    /// about that.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        before: &dyn Fn() -> Result<()>,
    ) -> Result<Merged> {
        let file = self.name();
        let part = format!("{file}{MERGE_PART}");
        // Before anything that removes on error: a taken name is somebody else's file.
        let created = storage.create(&part).map_err(Error::io(format!("creating {part}")))?;
        let outcome = self.fill(storage, created, &file, &part).and_then(|(trailer, bytes)| {
            before()?;
            publish_parts(storage, &file, MERGE_PART, trailer.segment_count)
                .map_err(Error::io(format!("publishing {file}")))?;
            Ok((trailer, bytes))
        });
        if outcome.is_err() {
            discard_parts(storage, &file, MERGE_PART);
        }
        let (trailer, bytes) = outcome?;
        let durable = format!("making the name durable of {file}");
        storage.sync_dir().map_err(Error::io(durable))?;
        let segments = trailer.segment_count.max(1);
        Ok(Merged { file, trailer, segments, bytes })
    }

    fn fill(
        &self,
        storage: &dyn Storage,
        created: Box<dyn aiv_volume_io::AppendFile>,
        file: &str,
        part: &str,
    ) -> Result<(Trailer, u64)> {
        let run = Run { layers: &self.view.layers, count: self.count };
        let parent = run.parent();
        let wrap = |error| match error {
            // The parent's state is made of files of the chain, and the part is not.
            error @ ImageError::Parent { .. } => self.view.layers.explain(error),
            error => Error::in_file(part, error),
        };
        let superblock = self.superblock(&run)?;
        // Frames of one chain have one key. Each session has a key of its own, and this one is
        // new: that is where no nonce comes again.
        let [a, b, c, d, ..] = self.ids.session.0;
        let salt = u32::from_le_bytes([a, b, c, d]);
        let mut seal = self.view.image().seal(salt).map_err(wrap)?;
        if let Some(Seal { key, slots: Some(slots), .. }) = &mut seal {
            let folders: Vec<&dyn Storage> = self.from.into_iter().chain([storage]).collect();
            if let Some(newest) = newest_slots(&folders, key, self.job)? {
                *slots = newest.to_bytes().into_boxed_slice();
            }
        }
        let keys = seal.as_ref().map_or(Keys::none(), |seal| Keys::of(seal.key.clone()));
        let writer = match self.options.split {
            None => ImageWriter::create_with(created, superblock, seal),
            Some(limit) => {
                let files = PartFiles::new(storage, file, MERGE_PART, created);
                ImageWriter::create_split_with(Box::new(files), superblock, limit, seal)
            }
        };
        let mut writer = writer.map_err(wrap)?;
        for layer in self.view.layers.iter().take(self.count) {
            writer.name_origins(&[layer.image.superblock().session]);
            writer.name_origins(&layer.image.meta().origins);
        }
        let writer = self.copy(&run, parent.as_ref(), writer, part)?;
        let state = parent.as_ref().map(|parent| parent as &dyn ParentState);
        let trailer = writer.finish_on(self.meta(&run), state).map_err(wrap)?.trailer;
        if trailer.state_root != self.view.image().trailer().state_root {
            let what = "its state is another one than that of the point".to_owned();
            return Err(Error::ReadBack { file: file.to_owned(), what });
        }
        let bytes = prove(storage, part, file, &trailer, state, &keys, self.job)?;
        Ok((trailer, bytes))
    }

    /// Copies the blocks: one thread reads, those of the rayon pool store anew what has to be, and
    /// this one checks, hashes and writes.
    fn copy<'f>(
        &self,
        run: &Run<'_>,
        parent: Option<&View>,
        writer: ImageWriter<'f>,
        part: &str,
    ) -> Result<ImageWriter<'f>> {
        let layers = &self.view.layers;
        let totals = layers.iter().take(self.count).map(|layer| layer.image.trailer().totals);
        let shares = totals.fold(0, |sum: u64, t| {
            sum.saturating_add(t.blocks_ref).saturating_add(t.blocks_parent)
        });
        let mut sink = Sink::new(layers, writer, part, shares > 0);
        let bytes = layers.iter().take(self.count).map(|l| l.image.trailer().totals.payload_bytes);
        self.job.progress.begin(Step::CopyImage, bytes.sum());
        std::thread::scope(|scope| {
            let (send, batches) = sync_channel(BATCHES_AHEAD);
            let (give_back, spare) = channel();
            scope.spawn(move || gather_all(run, parent, self.options.compression, &send, &spare));
            for batch in batches {
                self.job.check()?;
                let batch: Batch = batch.map_err(|error| layers.explain(error))?;
                sink.take(&batch)?;
                self.job.progress.advance(Step::CopyImage, batch.bytes().len() as u64);
                // Nobody takes it back any more once everything was read.
                let _ = give_back.send(batch.memory);
            }
            Ok::<_, Error>(())
        })?;
        self.job.progress.end(Step::CopyImage);
        Ok(sink.into_writer())
    }

    /// The session of the merged image. That of a sealed one has to be new even where random numbers
    /// come again, as in a virtual machine that is set back: another one for all that decides what
    /// its frames hold.
    fn session(&self, run: &Run<'_>) -> SessionTag {
        let MergeIds { image, session, time_unix_ms, .. } = self.ids;
        if !self.view.image().superblock().is_sealed() {
            return session;
        }
        let mut random = [0; 32];
        random[..session.0.len()].copy_from_slice(&session.0);
        let mut place = format!("merge of {} {:?}", run.count, self.options);
        for layer in run.layers.iter() {
            place += &format!(" {}", layer.image.superblock().image);
        }
        let root = self.view.image().trailer().state_root;
        SessionTag::hedged(&random, time_unix_ms.into(), &place, image, Some(root))
    }

    fn superblock(&self, run: &Run<'_>) -> Result<Superblock> {
        let mut incompat = if self.options.parity { Features::PARITY } else { 0 };
        for layer in run.layers.iter().take(run.count) {
            let features = layer.image.superblock().features;
            incompat |= features.incompat;
            if features.ro_compat != 0 {
                // Such an image may hold what a merge would lose.
                let names = format!("rewriting images with bits {:#x}", features.ro_compat);
                let unsupported = Unsupported::Features { bits: features.ro_compat, names };
                return Err(Error::in_file(&layer.file, unsupported.into()));
            }
        }
        let newest = self.view.image().superblock();
        let oldest = run.layers.get(run.count - 1).image.superblock();
        let has_parent = oldest.parent.is_some();
        Ok(Superblock {
            features: Features {
                // Whether it is split itself is decided anew.
                incompat: if has_parent {
                    incompat & (IN_CHAINS | IN_ALL)
                } else {
                    incompat & IN_ALL
                },
                ..Features::default()
            },
            image: self.ids.image,
            // It builds on what the oldest of them builds on, so it is what that one was.
            kind: oldest.kind,
            parent: oldest.parent,
            created_unix_ms: self.ids.time_unix_ms,
            session: self.session(run),
            writer: concat!("aivory ", env!("CARGO_PKG_VERSION")).to_owned(),
            // Set again by the writer, where there is a key.
            key_commitment: Digest::default(),
            source_token: Digest::default(),
            ..newest.clone()
        })
    }

    fn meta(&self, run: &Run<'_>) -> Meta {
        let is_full = run.layers.len() == run.count;
        Meta {
            specification: if is_full { SPECIFICATION.to_owned() } else { String::new() },
            ..self.view.image().meta().clone()
        }
    }

    fn name(&self) -> String {
        if let Some(name) = self.name {
            return name.to_owned();
        }
        let manifest = &self.view.image().meta().manifest;
        let oldest = &self.view.layers.get(self.count - 1).image;
        let is_full = oldest.superblock().kind == ImageKind::Full;
        let name = ImageName {
            host: &manifest.host,
            name: &manifest.name,
            time_unix_ms: manifest.time_unix_ms,
            full_number: manifest.full_number,
            increment_number: (!is_full).then_some(manifest.increment_number),
        };
        image_name(&name, &self.ids.suffix())
    }
}

/// Bytes that the newest `count` images of a chain may merge into, with parity where it is asked
/// for and where any of them has it.
pub(crate) fn bytes_needed(view: &View, count: usize, parity: bool) -> Result<u64> {
    let bytes = bytes_max(view, count).map_err(|e| view.layers.explain(e))?;
    Ok(if parity && !has_parity(view, count) { bytes_with_parity(bytes) } else { bytes })
}

/// How an image of at most `bytes` is split that takes the place of the first `count` of a view: as
/// was asked for, else into files as large as the largest of theirs, if any of them is split.
pub(crate) fn split_of(
    asked: Option<u64>,
    view: &View,
    count: usize,
    bytes: u64,
) -> Result<Option<u64>> {
    if let Some(split) = asked {
        let needed = smallest_split(bytes, split);
        return match split < needed {
            true => Err(Error::SplitSize { bytes, split, needed }),
            false => Ok(asked),
        };
    }
    let largest = |(image, _): (&Image, &str)| Some(image.segments()?.largest());
    let largest = view.images().take(count).filter_map(largest).max();
    Ok(largest.map(|split| split.max(smallest_split(bytes, split))))
}

/// Takes the lease that keeps others from merging and copying images of a set in a folder.
pub(crate) fn take_lease(storage: &dyn Storage, set: SetId) -> Result<Box<dyn Lease>> {
    storage.lease(&format!("merge-{set}")).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Busy { set },
        _ => Error::io("taking the lease for merging the set")(source),
    })
}

/// Removes what merges and copies that a crash interrupted have left of a set: the lease, which
/// the caller holds, proves that nobody is writing them.
pub(crate) fn remove_stale(storage: &dyn Storage, set: SetId) -> Result<Vec<String>> {
    let is_part = |name: &str| name.ends_with(MERGE_PART);
    let mut removed =
        remove_interrupted(storage, set, &is_part).map_err(Error::io("removing leftovers"))?;
    // Those that were to show whether two folders are one.
    for entry in list(storage)? {
        if is_part(&entry.name) && entry.name.contains(&set.to_string()) {
            let op = format!("removing the leftover {}", entry.name);
            storage.remove(&entry.name).map_err(Error::io(op))?;
            removed.push(entry.name);
        }
    }
    Ok(removed)
}

/// Reads batch after batch, until all are read or nobody wants more.
fn gather_all(
    run: &Run<'_>,
    parent: Option<&View>,
    compression: Compression,
    send: &SyncSender<std::result::Result<Batch, ImageError>>,
    spare: &Receiver<Vec<u8>>,
) {
    let storing = Storing::new(run, parent, compression);
    let store = &storing;
    rayon::in_place_scope(|scope| {
        let spawn = |anew: Anew| scope.spawn(move |_| store.store(&anew));
        let mut gather = Gather::new(run, parent, run.decisions(), &spawn);
        while let Some(batch) = gather.next(spare.try_recv().unwrap_or_default()).transpose() {
            let failed = batch.is_err();
            if send.send(batch).is_err() || failed {
                return;
            }
        }
    });
}

/// Proves a file that was just written and not yet published: every structure, every stored
/// byte, and the checksum of every frame. Returns the bytes of all its segments.
pub(crate) fn prove(
    storage: &dyn Storage,
    part: &str,
    file: &str,
    trailer: &Trailer,
    parent: Option<&dyn ParentState>,
    keys: &Keys,
    job: Job<'_>,
) -> Result<u64> {
    let in_part = |error| Error::in_file(part, error);
    let opened = open_parts(storage, file, MERGE_PART, trailer.segment_count, keys);
    let image = opened.map_err(|error| match error {
        // It cannot be opened at all.
        ImageError::Io { source, offset: 0, .. } => {
            Error::io(format!("reading back {part}"))(source)
        }
        error => in_part(error),
    })?;
    let report = match parent {
        Some(parent) => image.verify_on(parent, Depth::Stored, job),
        None => image.verify(Depth::Stored, job),
    };
    let report = report.map_err(in_part)?;
    let what = match report.damage.first() {
        Some(damage) => damage.to_string(),
        None if image.trailer() != trailer => "its trailer is another one".to_owned(),
        None => return Ok(image.segments().map_or(trailer.file_len, Segments::bytes)),
    };
    Err(Error::ReadBack { file: file.to_owned(), what })
}
