//! A file as its records describe it: the first one, and those a list of attributes names.

use super::Ntfs;
use super::contents::Contents;
use crate::ntfs::mft::{Entries, LIST_SIZE_MAX};
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::{ATTRIBUTE_LIST, Attribute, FILE_NAME, Record, Value, number_of};
use crate::{Error, FileId, Result};

/// An attribute, or a piece of one, that outlives the record it was in.
#[derive(Debug, Clone)]
pub(super) struct Attr {
    pub(super) kind: u32,
    /// UTF-16, lowest byte first.
    pub(super) name: Vec<u8>,
    pub(super) flags: u16,
    pub(super) value: Held,
}

#[derive(Debug, Clone)]
pub(super) enum Held {
    Resident(Vec<u8>),
    Mapped(HeldMap),
}

/// Like [`Mapped`](crate::ntfs::record::Mapped).
#[derive(Debug, Clone)]
pub(super) struct HeldMap {
    pub(super) vcn: u64,
    pub(super) len: u64,
    pub(super) allocated: u64,
    pub(super) size: u64,
    pub(super) initialised: u64,
    pub(super) unit: u16,
    pub(super) stored: Option<u64>,
    pub(super) pairs: Vec<u8>,
}

impl Attr {
    fn of(attribute: &Attribute<'_>) -> Self {
        let value = match attribute.value {
            Value::Resident(value) => Held::Resident(value.to_vec()),
            Value::Mapped(mapped) => Held::Mapped(HeldMap {
                vcn: mapped.vcn,
                len: mapped.len,
                allocated: mapped.allocated,
                size: mapped.size,
                initialised: mapped.initialised,
                unit: mapped.unit,
                stored: mapped.stored,
                pairs: mapped.pairs.to_vec(),
            }),
        };
        let name = attribute.name.to_vec();
        Self { kind: attribute.kind, name, flags: attribute.flags, value }
    }

    /// Whether it begins with what is at `vcn`.
    fn begins_at(&self, vcn: u64) -> bool {
        match &self.value {
            Held::Resident(_) => vcn == 0,
            Held::Mapped(mapped) => mapped.vcn == vcn,
        }
    }

    /// Bytes of the attribute, of which this is the first piece.
    pub(super) fn len(&self) -> u64 {
        match &self.value {
            Held::Resident(value) => value.len() as u64,
            Held::Mapped(mapped) => mapped.size,
        }
    }
}

/// A record whose frame was checked.
struct Checked {
    sequence: u16,
    base: u64,
    is_folder: bool,
    /// Those in front of the first that cannot be.
    attributes: Vec<Attr>,
    fault: Option<NtfsReason>,
}

/// Where a piece of an attribute is.
struct Place {
    kind: u32,
    name: Vec<u8>,
    vcn: u64,
    record: u64,
}

/// The records of a file.
pub(super) struct File {
    /// Of its first record.
    pub(super) number: u64,
    sequence: u16,
    pub(super) is_folder: bool,
    own: Vec<Attr>,
    list: Option<Vec<Place>>,
    /// What is wrong with a part of it, when the rest can be used.
    fault: Option<Error>,
}

impl File {
    /// A reference to it that no later file of this record has.
    pub(super) const fn id(&self) -> FileId {
        FileId { space: 0, number: self.number | (self.sequence as u64) << 48 }
    }
}

pub(super) fn damaged(reason: &NtfsReason) -> Error {
    Error::damaged(reason.to_string(), None)
}

impl Ntfs {
    /// The file of a reference; one without a sequence number means whatever is there.
    pub(super) fn file(&self, id: FileId) -> Result<File> {
        let (number, sequence) = (number_of(id.number), id.number >> 48);
        let wrong = |what| Err(damaged(&NtfsReason::Record { record: number, what }));
        if id.space != 0 {
            return wrong("is not of this volume");
        }
        let record = self.record(number)?;
        if record.base != 0 {
            return wrong("continues another and must not");
        }
        if sequence != 0 && sequence != u64::from(record.sequence) {
            return wrong("is that of a later file");
        }
        let mut file = File {
            number,
            sequence: record.sequence,
            is_folder: record.is_folder,
            own: record.attributes,
            list: None,
            fault: record.fault.map(|fault| damaged(&fault)),
        };
        if let Some(list) = file.own.iter().find(|attr| attr.kind == ATTRIBUTE_LIST) {
            let (list, fault) = match self.list(number, list) {
                Ok((list, is_whole)) => {
                    let what = "has a damaged attribute list";
                    let fault = NtfsReason::Record { record: number, what };
                    (Some(list), (!is_whole).then(|| damaged(&fault)))
                }
                Err(error) => (None, Some(error)),
            };
            file.list = list;
            file.fault = file.fault.or(fault);
        }
        Ok(file)
    }

    /// The places in an attribute list, and whether all of it could be understood.
    fn list(&self, number: u64, attr: &Attr) -> Result<(Vec<Place>, bool)> {
        let bytes = self.bytes_of(number, std::slice::from_ref(attr), LIST_SIZE_MAX)?;
        let mut places = Vec::new();
        for entry in Entries(&bytes) {
            let Some(entry) = entry else { return Ok((places, false)) };
            let name = entry.name.to_vec();
            let (kind, vcn, record) = (entry.kind, entry.vcn, entry.record);
            places.push(Place { kind, name, vcn, record });
        }
        Ok((places, true))
    }

    /// Record `number` of the table, or of its mirror when that of the table is damaged.
    fn record(&self, number: u64) -> Result<Checked> {
        let mut bytes = self.record_bytes(number)?;
        match check(&mut bytes, number) {
            Ok(record) => Ok(record),
            Err(reason) => match self.mirrored(number)? {
                Some(mut bytes) => check(&mut bytes, number).map_err(|_| damaged(&reason)),
                None => Err(damaged(&reason)),
            },
        }
    }

    /// A record that continues `file`, named by its attribute list.
    fn continued(&self, file: &File, reference: u64) -> Result<Vec<Attr>> {
        let number = number_of(reference);
        let record = self.record(number)?;
        let (base, sequence) = (record.base, u64::from(record.sequence));
        if base != file.id().number || sequence != reference >> 48 {
            let what = "has an attribute list that does not agree with the records";
            return Err(damaged(&NtfsReason::Record { record: file.number, what }));
        }
        Ok(record.attributes)
    }

    /// Tells every attribute of a kind, the first pieces of those that are spread. A record that
    /// cannot be read comes last, as an error.
    pub(super) fn each(&self, file: &File, kind: u32, visit: &mut dyn FnMut(&Attr)) -> Result<()> {
        let mut tell = |attributes: &[Attr]| {
            let all = attributes.iter().filter(|attr| attr.kind == kind);
            all.filter(|attr| attr.begins_at(0)).for_each(&mut *visit);
        };
        tell(&file.own);
        let mut fault = file.fault.as_ref().map(copy);
        let others = file.list.iter().flatten().filter(|place| place.kind == kind);
        let mut references: Vec<u64> = others.map(|place| place.record).collect();
        references.sort_unstable();
        references.dedup();
        for reference in references {
            if number_of(reference) == file.number {
                continue;
            }
            match self.continued(file, reference) {
                Ok(attributes) => tell(&attributes),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// The first piece of an attribute; of a spread one it has the sizes.
    pub(super) fn first(&self, file: &File, kind: u32, name: &[u8]) -> Result<Option<Attr>> {
        let is_it = |attr: &&Attr| attr.kind == kind && attr.name == name && attr.begins_at(0);
        if let Some(own) = file.own.iter().find(is_it) {
            return Ok(Some(own.clone()));
        }
        let mut all = file.list.iter().flatten();
        let place = all.find(|place| place.kind == kind && place.name == name && place.vcn == 0);
        if let Some(place) = place.filter(|place| number_of(place.record) != file.number) {
            return self.found(file, place).map(Some);
        }
        match &file.fault {
            Some(fault) => Err(copy(fault)),
            None => Ok(None),
        }
    }

    fn found(&self, file: &File, place: &Place) -> Result<Attr> {
        let is_it = |attr: &&Attr| {
            attr.kind == place.kind && attr.name == place.name && attr.begins_at(place.vcn)
        };
        let found = match number_of(place.record) == file.number {
            true => file.own.iter().find(is_it).cloned(),
            false => self.continued(file, place.record)?.iter().find(is_it).cloned(),
        };
        found.ok_or_else(|| {
            let what = "has an attribute list that does not agree with the records";
            damaged(&NtfsReason::Record { record: file.number, what })
        })
    }

    /// All pieces of an attribute, in their order.
    pub(super) fn pieces(&self, file: &File, kind: u32, name: &[u8]) -> Result<Vec<Attr>> {
        let Some(first) = self.first(file, kind, name)? else { return Ok(Vec::new()) };
        let mut pieces = vec![first];
        let others = file.list.iter().flatten();
        let others = others.filter(|place| place.kind == kind && place.name == name);
        // The list is bounded, and so is what is held of each record.
        for place in others.filter(|place| place.vcn != 0) {
            pieces.push(self.found(file, place)?);
        }
        Ok(pieces)
    }

    /// The bytes of an attribute that is small by nature; `None` when the file has none.
    pub(super) fn value(
        &self,
        file: &File,
        kind: u32,
        name: &[u8],
        max: u64,
    ) -> Result<Option<Vec<u8>>> {
        let pieces = self.pieces(file, kind, name)?;
        if pieces.is_empty() {
            return Ok(None);
        }
        self.bytes_of(file.number, &pieces, max).map(Some)
    }

    fn bytes_of(&self, number: u64, pieces: &[Attr], max: u64) -> Result<Vec<u8>> {
        let wrong = |what| damaged(&NtfsReason::Record { record: number, what });
        let contents = Contents::of(&self.geometry, number, pieces)?;
        if contents.size > max {
            return Err(wrong("has an attribute that is too long"));
        }
        let len = usize::try_from(contents.size).map_err(|_| wrong("is too long"))?;
        let mut bytes = vec![0; len];
        contents.read(&self.volume, "read attribute", 0, &mut bytes)?;
        Ok(bytes)
    }

    /// How many names a file has; the short form of one is none.
    pub(super) fn names(&self, file: &File) -> u32 {
        const SHORT: u8 = 2;
        let mut count = 0_u32;
        // What cannot be read is not counted.
        let _ = self.each(file, FILE_NAME, &mut |attr| {
            if let Held::Resident(value) = &attr.value {
                let is_name = value.get(65).is_some_and(|&space| space != SHORT);
                count = count.saturating_add(u32::from(is_name));
            }
        });
        count.max(1)
    }
}

fn check(bytes: &mut [u8], number: u64) -> std::result::Result<Checked, NtfsReason> {
    let record = Record::parse_in_use(bytes, number)?;
    let mut fault = None;
    let mut attributes = Vec::new();
    for attribute in record.attributes() {
        match attribute {
            Ok(attribute) => attributes.push(Attr::of(&attribute)),
            Err(reason) => fault = Some(reason),
        }
    }
    Ok(Checked {
        sequence: record.sequence,
        base: record.base,
        is_folder: record.is_folder(),
        attributes,
        fault,
    })
}

/// The same error again: it is about a record, and told whenever that is asked for.
fn copy(error: &Error) -> Error {
    match error {
        Error::Damaged { what, offset } => Error::damaged(what.clone(), *offset),
        Error::Io { op, offset, source } => {
            Error::Io { op, offset: *offset, source: source.kind().into() }
        }
        other => Error::damaged(other.to_string(), None),
    }
}
