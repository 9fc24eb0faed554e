//! `$MFT`, the table of all files, and the files of the filesystem itself.

use aiv_volume_io::Job;

use super::boot::MIRRORED_RECORDS;
use super::reason::NtfsReason;
use super::record::{ATTRIBUTE_LIST, DATA, Record, Value, number_of};
use super::stream::{Disk, Stream};
use crate::bytes::{le16, le32, le64};
use crate::stop::Stop;

/// Windows' limit of an attribute list ("NTFS documentation": 256 KiB).
pub(super) const LIST_SIZE_MAX: u64 = 256 << 10;

pub(super) const MFT: u64 = 0;
const MIRROR: u64 = 1;

/// The table of all files.
pub(super) struct Mft<'a> {
    pub(super) disk: &'a Disk<'a>,
    stream: Stream,
    /// Records that were ever written.
    pub(super) records: u64,
}

impl<'a> Mft<'a> {
    /// Finds the table through its own first record, and compares its start with the mirror.
    pub(super) fn open(disk: &'a Disk<'a>, job: Job<'_>) -> Result<Self, Stop> {
        let geometry = &disk.geometry;
        let record_size = u64::from(geometry.record_size);
        let mut buffer = vec![0; geometry.record_size as usize];
        disk.read("read file record", geometry.offset_of(geometry.mft_lcn), &mut buffer)?;
        let first = Record::parse_in_use(&mut buffer, MFT)?;
        let stream = gather(disk, None, &first, job)?;
        let wrong = |what| NtfsReason::SystemFile { record: MFT, what };
        if stream.first_lcn() != Some(geometry.mft_lcn) {
            return Err(wrong("does not begin where the boot sector says").into());
        }
        if !stream.initialised.is_multiple_of(record_size) {
            return Err(wrong("ends within a record").into());
        }
        let records = stream.initialised / record_size;
        // The system's own, and those reserved for it.
        if records < 16 {
            return Err(wrong("has too few records").into());
        }
        let mft = Self { disk, stream, records };
        mft.compare_mirror(job)?;
        Ok(mft)
    }

    /// Reads records side by side: as many as `out` has room for.
    pub(super) fn read(&self, first: u64, out: &mut [u8]) -> Result<(), Stop> {
        let at = first * u64::from(self.disk.geometry.record_size);
        self.stream.read(self.disk, "read file records", at, out)
    }

    /// Tells `visit` every record in use, in order.
    pub(super) fn for_each(
        &self,
        job: Job<'_>,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        const STRIDE: usize = 1 << 20;
        let record_size = self.disk.geometry.record_size as usize;
        let per_stride = (STRIDE / record_size) as u64;
        let mut buffer = vec![0; STRIDE];
        let mut first = 0;
        while first < self.records {
            job.check()?;
            let count = per_stride.min(self.records - first);
            let len = usize::try_from(count).unwrap_or(0) * record_size;
            self.read(first, &mut buffer[..len])?;
            for (number, bytes) in (first..).zip(buffer[..len].chunks_exact_mut(record_size)) {
                if let Some(record) = Record::parse(bytes, number)? {
                    visit(&record)?;
                }
            }
            first += count;
        }
        Ok(())
    }

    /// Reads record `number` into `buffer`; it must be in use and continue no other.
    pub(super) fn base_record<'b>(
        &self,
        number: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Record<'b>, Stop> {
        buffer.resize(self.disk.geometry.record_size as usize, 0);
        self.read(number, buffer)?;
        let record = Record::parse_in_use(buffer, number)?;
        if record.base != 0 {
            let what = "continues another and must not";
            return Err(NtfsReason::Record { record: number, what }.into());
        }
        Ok(record)
    }

    /// The unnamed contents of file `number`, which has clusters.
    pub(super) fn file(&self, number: u64, job: Job<'_>) -> Result<Stream, Stop> {
        let mut buffer = Vec::new();
        let record = self.base_record(number, &mut buffer)?;
        gather(self.disk, Some(&self.stream), &record, job)
    }

    /// The first records are kept twice. A difference says that one of the two is old.
    fn compare_mirror(&self, job: Job<'_>) -> Result<(), Stop> {
        let geometry = &self.disk.geometry;
        let mirror = self.file(MIRROR, job)?;
        let wrong = |what| NtfsReason::SystemFile { record: MIRROR, what };
        if mirror.first_lcn() != Some(geometry.mirror_lcn) {
            return Err(wrong("does not begin where the boot sector says").into());
        }
        if mirror.initialised < MIRRORED_RECORDS * u64::from(geometry.record_size) {
            return Err(wrong("has too few records").into());
        }
        let mut ours = Vec::new();
        let mut theirs = vec![0; geometry.record_size as usize];
        for number in 0..MIRRORED_RECORDS {
            let at = number * theirs.len() as u64;
            mirror.read(self.disk, "read mirror of file records", at, &mut theirs)?;
            let differs = NtfsReason::MirrorDiffers { record: number };
            let ours = self.base_record(number, &mut ours)?;
            match Record::parse(&mut theirs, number) {
                Ok(Some(mirror)) if mirror.content() == ours.content() => {}
                _ => return Err(differs.into()),
            }
        }
        Ok(())
    }
}

/// The unnamed contents of a file, from all records it is spread over. Without `table`, the
/// file is the table itself: its later pieces are found through its earlier ones.
pub(super) fn gather(
    disk: &Disk<'_>,
    table: Option<&Stream>,
    base: &Record<'_>,
    job: Job<'_>,
) -> Result<Stream, Stop> {
    let file = base.number;
    let wrong = |what| NtfsReason::SystemFile { record: file, what };
    let Some(list) = base.find(ATTRIBUTE_LIST, &[], 0)? else {
        let attribute = base.find(DATA, &[], 0)?.ok_or(wrong("has no contents"))?;
        return Ok(Stream::begin(disk, file, &attribute)?.complete(disk)?);
    };
    let list = match list.value {
        Value::Resident(value) => value.to_vec(),
        Value::Mapped(mapped) if mapped.size > LIST_SIZE_MAX => {
            return Err(wrong("has an attribute list that is too long").into());
        }
        Value::Mapped(_) => {
            let stream = Stream::begin(disk, file, &list)?.complete(disk)?;
            if stream.initialised != stream.size {
                return Err(wrong("has an attribute list that is not written").into());
            }
            let mut list = vec![0; usize::try_from(stream.size).unwrap_or(0)];
            stream.read(disk, "read attribute list", 0, &mut list)?;
            list
        }
    };
    let mut stream: Option<Stream> = None;
    let mut buffer = vec![0; disk.geometry.record_size as usize];
    // The list is bounded, and every entry has 26 bytes at least.
    for entry in Entries(&list) {
        job.check()?;
        let entry = entry.ok_or(wrong("has a damaged attribute list"))?;
        if entry.kind != DATA || !entry.name.is_empty() {
            continue;
        }
        let lost = wrong("has an attribute list that does not agree with the records");
        let number = number_of(entry.record);
        let piece;
        let record = if number == file {
            base
        } else {
            let table = table.or(stream.as_ref()).ok_or(lost.clone())?;
            let at = number.checked_mul(buffer.len() as u64).ok_or(lost.clone())?;
            table.read(disk, "read file record", at, &mut buffer)?;
            piece = Record::parse_in_use(&mut buffer, number)?;
            let owner = file | u64::from(base.sequence) << 48;
            if piece.base != owner || u64::from(piece.sequence) != entry.record >> 48 {
                return Err(lost.into());
            }
            &piece
        };
        let attribute = record.find(DATA, &[], entry.vcn)?.ok_or(lost)?;
        match &mut stream {
            Some(stream) => stream.append(disk, &attribute)?,
            None if entry.vcn == 0 => stream = Some(Stream::begin(disk, file, &attribute)?),
            None => return Err(wrong("has no first piece").into()),
        }
    }
    Ok(stream.ok_or(wrong("has no contents"))?.complete(disk)?)
}

/// An entry of an attribute list: where a piece of an attribute is.
pub(super) struct Entry<'a> {
    pub(super) kind: u32,
    /// UTF-16, lowest byte first.
    pub(super) name: &'a [u8],
    pub(super) vcn: u64,
    pub(super) record: u64,
}

/// Walks an attribute list; `None` for an entry that cannot be, and the end after it.
pub(super) struct Entries<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        const ENTRY_SIZE: usize = 26;
        // Padding to eight bytes may follow the last entry.
        if self.0.len() < ENTRY_SIZE && self.0.iter().all(|&byte| byte == 0) {
            return None;
        }
        let list = std::mem::take(&mut self.0);
        let Some(entry) = list.get(..ENTRY_SIZE) else { return Some(None) };
        let len = usize::from(le16(entry, 4));
        let Some((whole, rest)) = list.split_at_checked(len) else { return Some(None) };
        if len < ENTRY_SIZE || !len.is_multiple_of(8) {
            return Some(None);
        }
        let name_at = usize::from(entry[7]);
        let name = match usize::from(entry[6]) {
            0 => Some(&[][..]),
            units => whole.get(name_at..name_at + 2 * units),
        };
        let Some(name) = name else { return Some(None) };
        self.0 = rest;
        Some(Some(Entry {
            kind: le32(entry, 0),
            name,
            vcn: le64(entry, 8),
            record: le64(entry, 16),
        }))
    }
}
