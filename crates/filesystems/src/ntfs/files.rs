//! Files of NTFS by name, and their clusters.
//!
//! Names are read from the records of the files, with a reference to the folder each is in. That
//! no cluster belongs to two files was proven when the map of the volume was read; so the table
//! is read twice here, for the folders and for the files.

use std::collections::BTreeMap;

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::folders::{Folders, Name, Place};
use super::mft::Mft;
use super::record::{ATTRIBUTE_LIST, Attribute, DATA, REPARSE_POINT, Record, Value};
use super::runlist::Run;
use super::stream::Disk;
use super::used::geometry;
use crate::files::{
    FILES_MAX, FileExtents, KeptReason, MatchingFiles, PATH_BYTES_MAX, PIECES_MAX, Pattern, fold,
};
use crate::stop::Stop;

/// Records below are the filesystem's own files, or reserved for them.
const FIRST_OF_USERS: u64 = 24;
/// The beginning of this file tells whether Windows is hibernated. What the target of a restore
/// held there before must not say so.
const HIBERNATION_FILE: &str = "HIBERFIL.SYS";
const HIBERNATION_HEADER: u64 = 4096;

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let disk = Disk { volume, geometry: geometry(volume)? };
    let mft = Mft::open(&disk, job)?;
    let mut folders = Folders::new(patterns);
    mft.for_each(job, |record| folders.add(record))?;
    let mut search = Search {
        disk: &disk,
        used,
        folders,
        spread: BTreeMap::new(),
        pieces: 0,
        path_bytes: 0,
        answer: MatchingFiles::default(),
    };
    mft.for_each(job, |record| search.record(record))?;
    for file in std::mem::take(&mut search.spread).into_values() {
        job.check()?;
        search.judge(file);
    }
    search.answer.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(search.answer)
}

/// What the records of a file say.
#[derive(Default)]
struct File {
    /// Its first record was seen, and is that of a file.
    has_base: bool,
    names: Vec<Name>,
    len: u64,
    clusters: Vec<Run>,
    fault: Option<KeptReason>,
}

struct Search<'a> {
    disk: &'a Disk<'a>,
    used: &'a ExtentSet,
    folders: Folders,
    /// Files that are spread over several records, by reference, until all were seen.
    spread: BTreeMap<u64, File>,
    /// Pieces in memory, those of the answer included.
    pieces: usize,
    path_bytes: usize,
    answer: MatchingFiles,
}

impl Search<'_> {
    fn record(&mut self, record: &Record<'_>) -> std::result::Result<(), Stop> {
        let reference = match record.base {
            0 => record.number | u64::from(record.sequence) << 48,
            base => base,
        };
        let is_spread = record.base != 0 || record.find(ATTRIBUTE_LIST, &[], 0)?.is_some();
        if record.file() < FIRST_OF_USERS || (record.base == 0 && record.is_folder()) {
            return Ok(());
        }
        let mut file = match is_spread {
            true => self.spread.remove(&reference).unwrap_or_default(),
            false => File::default(),
        };
        file.has_base |= record.base == 0;
        for attribute in record.attributes() {
            let attribute = attribute?;
            file.names.extend(Name::of(&attribute));
            match attribute.kind {
                REPARSE_POINT => {
                    file.fault.get_or_insert(KeptReason::ReparsePoint);
                }
                DATA => self.data(record, &attribute, &mut file)?,
                _ => {}
            }
        }
        if is_spread {
            self.spread.insert(reference, file);
        } else {
            self.judge(file);
        }
        Ok(())
    }

    /// A stream of a file, or a piece of one.
    fn data(
        &mut self,
        record: &Record<'_>,
        attribute: &Attribute<'_>,
        file: &mut File,
    ) -> std::result::Result<(), Stop> {
        const COMPRESSED: u16 = 0xff;
        const ENCRYPTED: u16 = 0x4000;
        let is_main = attribute.name.is_empty();
        let mapped = match attribute.value {
            Value::Resident(value) if is_main && !value.is_empty() => {
                file.fault.get_or_insert(KeptReason::InRecord);
                return Ok(());
            }
            Value::Resident(_) => return Ok(()),
            Value::Mapped(mapped) => mapped,
        };
        if attribute.flags & ENCRYPTED != 0 {
            file.fault.get_or_insert(KeptReason::Encrypted);
        }
        if attribute.flags & COMPRESSED != 0 {
            file.fault.get_or_insert(KeptReason::Compressed);
        }
        if is_main && mapped.vcn == 0 {
            file.len = mapped.size;
        }
        for run in mapped.runs(record.number, self.disk.geometry.clusters) {
            let run = run?;
            if run.lcn.is_none() {
                continue;
            }
            if self.pieces == PIECES_MAX {
                file.fault.get_or_insert(KeptReason::TooMany);
                break;
            }
            self.pieces += 1;
            file.clusters.push(run);
        }
        Ok(())
    }

    /// All that the records say is known.
    fn judge(&mut self, file: File) {
        let places = file.names.iter().filter(|name| !name.is_short);
        let places: Vec<Place> = places.map(|name| self.folders.place(name)).collect();
        let matching = places.iter().filter_map(|place| match place {
            Place::Matches { path, in_root } => Some((path.as_str(), *in_root)),
            _ => None,
        });
        let (count, first) = (matching.clone().count(), matching.min());
        let pieces = file.clusters.len();
        // Of a folder, or the filesystem's own, it is nothing to speak of.
        let is_of_user = file.has_base && !places.contains(&Place::System);
        let Some((path, in_root)) = first.filter(|_| is_of_user) else {
            self.pieces -= pieces;
            return;
        };
        let path = path.to_owned();
        let mut extents: ExtentSet = file.clusters.iter().map(|run| self.bytes(run)).collect();
        let is_used = |run: &Extent| self.used.within(*run).next() == Some(*run);
        let fault = if file.fault.is_some() {
            file.fault
        } else if count < places.len() {
            Some(KeptReason::OtherName)
        } else if !extents.runs().iter().all(is_used) {
            Some(KeptReason::NotUnderstood("it claims clusters called free"))
        } else if self.answer.files.len() == FILES_MAX
            || self.path_bytes + path.len() > PATH_BYTES_MAX
        {
            Some(KeptReason::TooMany)
        } else {
            None
        };
        if in_root && path.chars().map(fold).eq(HIBERNATION_FILE.chars()) {
            extents = self.without_header(&file, &extents);
        }
        match fault {
            Some(reason) => {
                self.pieces -= pieces;
                self.answer.keep(path, reason);
            }
            None if extents.is_empty() => self.pieces -= pieces,
            None => {
                self.path_bytes += path.len();
                let extents = extents.runs().to_vec();
                self.answer.files.push(FileExtents { path, len: file.len, extents });
            }
        }
    }

    fn bytes(&self, run: &Run) -> Extent {
        let geometry = &self.disk.geometry;
        run.lcn.map_or(Extent::new(0, 0), |lcn| {
            Extent::between(geometry.offset_of(lcn), geometry.offset_of(lcn + run.len))
        })
    }

    /// The extents without the first clusters of the file.
    fn without_header(&self, file: &File, extents: &ExtentSet) -> ExtentSet {
        let clusters = HIBERNATION_HEADER.div_ceil(self.disk.geometry.cluster_size.into());
        let first = file.clusters.iter().filter(|run| run.vcn < clusters);
        let first = first.map(|run| Run { len: run.len.min(clusters - run.vcn), ..*run });
        let header: ExtentSet = first.map(|run| self.bytes(&run)).collect();
        extents.runs().iter().flat_map(|&run| header.gaps_within(run)).collect()
    }
}
