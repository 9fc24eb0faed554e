//! `$MFT` as far as a reader needs it, or what the mirror has of it.

use std::sync::{Arc, Mutex, OnceLock};

use aiv_volume_io::{Job, ReadAt};

use super::names::UpCase;
use super::{Ntfs, ROOT, UPPER_CASE};
use crate::ntfs::boot::MIRRORED_RECORDS;
use crate::ntfs::log;
use crate::ntfs::mft::{MFT, gather};
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::{DATA, Record, VOLUME_INFORMATION};
use crate::ntfs::stream::{Disk, Stream};
use crate::ntfs::used::{LOG, VOLUME, check_information, geometry_of_rest};
use crate::reader::Volume;
use crate::stop::Stop;
use crate::{Error, FileId, Filesystem, ReaderNote, Result, WholeReason};

/// How much of an empty log is looked through.
const EMPTY_LOG_MAX: u64 = 64 << 10;
/// Bytes of `$VOLUME_INFORMATION`.
const INFORMATION_MAX: u64 = 512;

fn error_of(stop: Stop) -> Error {
    match stop {
        Stop::Whole(reason) => Error::damaged(reason.to_string(), None),
        Stop::Failed(error) => error,
    }
}

/// Opens the files of an NTFS volume.
pub(crate) fn open(volume: Volume, job: Job<'_>) -> Result<Box<dyn Filesystem>> {
    let (geometry, missing) = geometry_of_rest(&volume).map_err(error_of)?;
    let mut notes = Vec::new();
    if missing > 0 {
        notes.push(ReaderNote::CutOff { missing });
    }
    let table = {
        let disk = Disk { volume: &volume, geometry: geometry.clone() };
        table_at(&disk, geometry.mft_lcn, job).or_else(|first| {
            let table = table_at(&disk, geometry.mirror_lcn, job).map_err(|_| first)?;
            notes.push(ReaderNote::CopyUsed { what: "the first record of $MFT".to_owned() });
            Ok::<_, Stop>(table)
        })
    };
    let table = table.map_err(error_of)?;
    let mut ntfs = Ntfs {
        volume,
        geometry,
        table,
        notes,
        case: OnceLock::new(),
        descriptors: Mutex::default(),
    };
    // Without it there is nothing to look at.
    ntfs.file(ntfs.root())?;
    ntfs.note_state(job)?;
    Ok(Box::new(ntfs))
}

/// The clusters of the table, by its own record at this place.
fn table_at(disk: &Disk<'_>, lcn: u64, job: Job<'_>) -> std::result::Result<Stream, Stop> {
    let geometry = &disk.geometry;
    let mut buffer = vec![0; geometry.record_size as usize];
    disk.read("read file record", geometry.offset_of(lcn), &mut buffer)?;
    let first = Record::parse_in_use(&mut buffer, MFT)?;
    let table = gather(disk, None, &first, job)?;
    let room = (ROOT + 1) * u64::from(geometry.record_size);
    if table.first_lcn() != Some(geometry.mft_lcn) || table.initialised < room {
        let what = "is not the table the boot sector tells of";
        return Err(NtfsReason::SystemFile { record: MFT, what }.into());
    }
    Ok(table)
}

impl Ntfs {
    pub(super) fn disk(&self) -> Disk<'_> {
        Disk { volume: &self.volume, geometry: self.geometry.clone() }
    }

    /// The bytes of record `number` as they are stored.
    pub(super) fn record_bytes(&self, number: u64) -> Result<Vec<u8>> {
        let size = u64::from(self.geometry.record_size);
        if number >= self.table.initialised / size {
            let what = "is none of the table";
            return Err(Error::damaged(
                NtfsReason::Record { record: number, what }.to_string(),
                None,
            ));
        }
        let mut bytes = vec![0; self.geometry.record_size as usize];
        let read = self.table.read(&self.disk(), "read file record", number * size, &mut bytes);
        read.map_err(error_of)?;
        Ok(bytes)
    }

    /// The same of the mirror, which has the first records only.
    pub(super) fn mirrored(&self, number: u64) -> Result<Option<Vec<u8>>> {
        if number >= MIRRORED_RECORDS {
            return Ok(None);
        }
        let size = u64::from(self.geometry.record_size);
        let at = self.geometry.offset_of(self.geometry.mirror_lcn) + number * size;
        let mut bytes = vec![0; self.geometry.record_size as usize];
        let op = "read mirror of file records";
        self.volume.read_exact_at(&mut bytes, at).map_err(Error::io(op, at))?;
        Ok(Some(bytes))
    }

    /// Says what forbids to take the files for what Windows would show.
    fn note_state(&mut self, job: Job<'_>) -> Result<()> {
        let mut whys = Vec::new();
        let id = |number| FileId { space: 0, number };
        let information = self
            .file(id(VOLUME))
            .and_then(|file| self.value(&file, VOLUME_INFORMATION, &[], INFORMATION_MAX));
        match information.map(|value| check_information(&value.unwrap_or_default())) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => whys.push(reason.to_string()),
            Err(Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(error) => whys.push(error.to_string()),
        }
        match self.check_log(job) {
            Ok(()) => {}
            Err(Stop::Whole(WholeReason::Ntfs(reason))) => whys.push(reason.to_string()),
            Err(stop) => match error_of(stop) {
                Error::Canceled(canceled) => return Err(canceled.into()),
                error => whys.push(error.to_string()),
            },
        }
        self.notes.extend(whys.into_iter().map(|why| ReaderNote::NotReplayed { why }));
        Ok(())
    }

    fn check_log(&self, job: Job<'_>) -> std::result::Result<(), Stop> {
        let disk = self.disk();
        let mut bytes = self.record_bytes(LOG)?;
        let is_sound = Record::parse_in_use(&mut bytes.clone(), LOG).is_ok();
        if let (false, Some(copy)) = (is_sound, self.mirrored(LOG)?) {
            bytes = copy;
        }
        let record = Record::parse_in_use(&mut bytes, LOG)?;
        let log = gather(&disk, Some(&self.table), &record, job)?;
        log::check_clean(&disk, &log, EMPTY_LOG_MAX, job)
    }

    /// The volume's own table of upper case, read when it is first needed.
    pub(super) fn case(&self) -> &UpCase {
        self.case.get_or_init(|| {
            let id = FileId { space: 0, number: UPPER_CASE };
            let table = self.file(id).and_then(|file| self.value(&file, DATA, &[], UpCase::SIZE));
            let table = table.ok().flatten();
            Arc::new(table.map_or_else(UpCase::of_ascii, |bytes| UpCase::new(&bytes)))
        })
    }
}
