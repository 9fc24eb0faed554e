//! File records: what `$MFT` consists of.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", file record, attribute, fixup.

use super::reason::NtfsReason;
use super::runlist::{Run, Runs};
use crate::bytes::{le16, le32, le64};

pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const FILE_NAME: u32 = 0x30;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const REPARSE_POINT: u32 = 0xc0;
const END: u32 = u32::MAX;

/// Protected blocks are 512 bytes whatever the size of a sector.
const STRIDE: usize = 512;
/// Header of a record before version 3.1, and its end since then.
const HEADER_SIZE: usize = 42;
const NUMBERED_HEADER_SIZE: usize = 48;

/// The low 48 bits of a reference are the record's number, the others its sequence number.
pub(super) const fn number_of(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
}

/// Undoes the protection of a record that was written in several sectors: the last two bytes
/// of each stride hold a number that tells whether all were written, their own bytes are in an
/// array. A record that was torn is not believed.
pub(super) fn fix_up(record: &mut [u8]) -> Result<(), &'static str> {
    const WRONG: &str = "has an update sequence that cannot be";
    if record.len() < STRIDE || !record.len().is_multiple_of(STRIDE) {
        return Err(WRONG);
    }
    let (at, count) = (usize::from(le16(record, 4)), usize::from(le16(record, 6)));
    if count != record.len() / STRIDE + 1 || at < 8 || !at.is_multiple_of(2) {
        return Err(WRONG);
    }
    // The array ends before the first bytes it protects.
    let end = at + 2 * count;
    if end > STRIDE - 2 {
        return Err(WRONG);
    }
    let (number, array) = {
        let array = record[at..end].to_vec();
        ([array[0], array[1]], array)
    };
    for (stride, own) in record.chunks_exact_mut(STRIDE).zip(array[2..].chunks_exact(2)) {
        let last = &mut stride[STRIDE - 2..];
        if *last != number {
            return Err("was not written completely");
        }
        last.copy_from_slice(own);
    }
    Ok(())
}

/// A file record in use whose frame was checked.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) number: u64,
    pub(super) sequence: u16,
    /// The record this one continues, with its sequence number; zero when it continues none.
    pub(super) base: u64,
    bytes: &'a [u8],
    attributes: usize,
}

impl<'a> Record<'a> {
    /// Checks the record `number`, whose bytes were just read. `None` when it is free, or was
    /// never written.
    pub(super) fn parse(bytes: &'a mut [u8], number: u64) -> Result<Option<Self>, NtfsReason> {
        const IN_USE: u16 = 1;
        let wrong = |what| NtfsReason::Record { record: number, what };
        if !bytes.starts_with(b"FILE") {
            if bytes.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            return Err(wrong("has no signature"));
        }
        // What a free record holds is left over.
        if le16(bytes, 22) & IN_USE == 0 {
            return Ok(None);
        }
        fix_up(bytes).map_err(wrong)?;
        let bytes: &[u8] = bytes;
        let fix_up_at = usize::from(le16(bytes, 4));
        let fix_up_end = fix_up_at + 2 * usize::from(le16(bytes, 6));
        let attributes = usize::from(le16(bytes, 20));
        let used = le32(bytes, 24) as usize;
        if fix_up_at < HEADER_SIZE || attributes < fix_up_end || !attributes.is_multiple_of(8) {
            return Err(wrong("has an impossible header"));
        }
        if le32(bytes, 28) as usize != bytes.len() || used > bytes.len() || attributes > used {
            return Err(wrong("has an impossible size"));
        }
        // Since version 3.1 a record knows its own number.
        if fix_up_at >= NUMBERED_HEADER_SIZE && u64::from(le32(bytes, 44)) != number {
            return Err(wrong("carries the number of another"));
        }
        let base = le64(bytes, 32);
        Ok(Some(Self {
            number,
            sequence: le16(bytes, 16),
            base,
            bytes: &bytes[..used],
            attributes,
        }))
    }

    /// The same for a record that has to be in use.
    pub(super) fn parse_in_use(bytes: &'a mut [u8], number: u64) -> Result<Self, NtfsReason> {
        let free = NtfsReason::Record { record: number, what: "is free and must not be" };
        Self::parse(bytes, number)?.ok_or(free)
    }

    /// The number of the file it belongs to: its own, or that of the record it continues.
    pub(super) const fn file(&self) -> u64 {
        if self.base == 0 { self.number } else { number_of(self.base) }
    }

    /// Whether it is the record of a folder.
    pub(super) fn is_folder(&self) -> bool {
        const FOLDER: u16 = 2;
        le16(self.bytes, 22) & FOLDER != 0
    }

    /// The record but for the array of its update sequence, which differs between copies.
    pub(super) fn content(&self) -> (&'a [u8], &'a [u8]) {
        let at = usize::from(le16(self.bytes, 4));
        let end = at + 2 * usize::from(le16(self.bytes, 6));
        (&self.bytes[..at], &self.bytes[end..])
    }

    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes { number: self.number, left: Some(&self.bytes[self.attributes..]) }
    }

    /// The first attribute of a kind and name, beginning at a cluster.
    pub(super) fn find(
        &self,
        kind: u32,
        name: &[u8],
        vcn: u64,
    ) -> Result<Option<Attribute<'a>>, NtfsReason> {
        for attribute in self.attributes() {
            let attribute = attribute?;
            if attribute.kind == kind && attribute.name == name && attribute.vcn() == vcn {
                return Ok(Some(attribute));
            }
        }
        Ok(None)
    }
}

/// Walks the attributes of a record. Ends after the first error; each step is 16 bytes or more.
pub(super) struct Attributes<'a> {
    number: u64,
    left: Option<&'a [u8]>,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, NtfsReason>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.left.take()?;
        let what = "has an attribute that cannot be";
        let wrong = NtfsReason::Record { record: self.number, what };
        match left.first_chunk::<4>().map(|kind| u32::from_le_bytes(*kind)) {
            Some(END) => return None,
            None => {
                let what = "has attributes without an end";
                return Some(Err(NtfsReason::Record { record: self.number, what }));
            }
            Some(_) => {}
        }
        let step = Attribute::parse(left);
        if let Some((_, rest)) = &step {
            self.left = Some(rest);
        }
        Some(step.map(|(attribute, _)| attribute).ok_or(wrong))
    }
}

/// One attribute, or one piece of one that is spread over several records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u32,
    /// UTF-16, lowest byte first; empty for the main one of its kind.
    pub(super) name: &'a [u8],
    /// Compressed, encrypted or sparse.
    pub(super) flags: u16,
    pub(super) value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// In the record itself.
    Resident(&'a [u8]),
    /// In clusters.
    Mapped(Mapped<'a>),
}

/// Clusters `vcn..vcn + len` of an attribute, and the list that says where they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped<'a> {
    pub(super) vcn: u64,
    pub(super) len: u64,
    /// These three mean something in the piece with cluster 0 only.
    pub(super) allocated: u64,
    pub(super) size: u64,
    pub(super) initialised: u64,
    /// What is compressed together: two to the power of it in clusters; zero is nothing.
    pub(super) unit: u16,
    /// Bytes in clusters without the holes, of what may have some.
    pub(super) stored: Option<u64>,
    pub(super) pairs: &'a [u8],
}

impl Mapped<'_> {
    /// Its runs, in a filesystem of `clusters`.
    pub(super) fn runs(
        &self,
        record: u64,
        clusters: u64,
    ) -> impl Iterator<Item = Result<Run, NtfsReason>> {
        Runs::new(self.pairs, self.vcn, self.len, clusters)
            .map(move |run| run.map_err(|what| NtfsReason::Runs { record, what }))
    }
}

impl<'a> Attribute<'a> {
    /// First cluster of the attribute this piece holds.
    fn vcn(&self) -> u64 {
        match self.value {
            Value::Resident(_) => 0,
            Value::Mapped(mapped) => mapped.vcn,
        }
    }

    /// The attribute at the start of `bytes`, and what follows it.
    fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        const RESIDENT_HEADER: usize = 24;
        const MAPPED_HEADER: usize = 64;
        let header = bytes.get(..16)?;
        let (kind, len) = (le32(header, 0), le32(header, 4) as usize);
        if kind == 0 || !len.is_multiple_of(8) {
            return None;
        }
        let (attribute, rest) = bytes.split_at_checked(len)?;
        let name_at = usize::from(le16(header, 10));
        let name = match usize::from(header[9]) {
            0 => &[][..],
            units => attribute.get(name_at..name_at + 2 * units)?,
        };
        let value = match header[8] {
            0 => {
                let header = attribute.get(..RESIDENT_HEADER)?;
                let at = usize::from(le16(header, 20));
                let end = at.checked_add(le32(header, 16) as usize)?;
                Value::Resident(attribute.get(at..end)?)
            }
            1 => {
                let header = attribute.get(..MAPPED_HEADER)?;
                let (vcn, last) = (le64(header, 16), le64(header, 24));
                // Empty when the last cluster is the one before the first, which may be -1.
                let len = last.wrapping_add(1).checked_sub(vcn)?;
                let pairs_at = usize::from(le16(header, 32));
                if pairs_at < MAPPED_HEADER || vcn > i64::MAX.unsigned_abs() {
                    return None;
                }
                Value::Mapped(Mapped {
                    vcn,
                    len,
                    allocated: le64(header, 40),
                    size: le64(header, 48),
                    initialised: le64(header, 56),
                    unit: le16(header, 34),
                    stored: attribute.get(64..72).filter(|_| pairs_at >= 72).map(|at| le64(at, 0)),
                    pairs: attribute.get(pairs_at..)?,
                })
            }
            _ => return None,
        };
        Some((Self { kind, name, flags: le16(header, 12), value }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record of 1024 bytes with these attributes, as it is on a volume.
    fn record(attributes: &[u8]) -> Vec<u8> {
        let mut record = vec![0; 1024];
        record[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        record[20..24].copy_from_slice(&[56, 0, 1, 0]);
        record[24..32].copy_from_slice(&[0, 4, 0, 0, 0, 4, 0, 0]);
        record[44] = 7;
        record[56..56 + attributes.len()].copy_from_slice(attributes);
        for (own, last) in [(50, 510), (52, 1022)] {
            let bytes = [record[last], record[last + 1]];
            record[own..own + 2].copy_from_slice(&bytes);
            record[last..last + 2].fill(0);
        }
        record
    }

    #[test]
    fn a_torn_record_is_not_believed_and_a_whole_one_gets_its_bytes_back() {
        let attributes: Vec<u8> = (0..968).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut whole = record(&attributes);
        let mut torn = whole.clone();
        fix_up(&mut whole).unwrap();
        assert_eq!(whole[56..], attributes);
        torn[510] ^= 1;
        assert_eq!(fix_up(&mut torn), Err("was not written completely"));
        for (at, value) in [(4, 6), (4, 49), (4, 0xff), (5, 0x02), (6, 2), (6, 4)] {
            let mut wrong = record(&attributes);
            wrong[at] = value;
            assert!(fix_up(&mut wrong).is_err(), "{at} {value}");
        }
        assert!(fix_up(&mut [0; 511]).is_err());
        assert!(fix_up(&mut []).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_attributes_are_walked_to_an_end(
            pieces in prop::collection::vec(
                (
                    any::<u8>(), 0u8..20, prop_oneof![Just(0u8), Just(1), any::<u8>()],
                    prop::collection::vec(prop_oneof![Just(0), Just(0x11), any::<u8>()], 160),
                ),
                1..6,
            ),
        ) {
            let mut attributes = Vec::new();
            for (kind, words, form, mut bytes) in pieces {
                bytes[..9].copy_from_slice(&[kind, 0, 0, 0, words * 8, 0, 0, 0, form]);
                bytes.truncate(usize::from(words).max(2) * 8);
                attributes.extend(bytes);
            }
            attributes.extend([0xff; 8]);
            let mut record = record(&attributes);
            let record = Record::parse(&mut record, 7).unwrap().unwrap();
            let mut count = 0;
            for attribute in record.attributes().flatten() {
                count += 1;
                if let Value::Mapped(mapped) = attribute.value {
                    for run in mapped.runs(7, 1000).flatten() {
                        prop_assert!(run.len > 0 && run.lcn.is_none_or(|lcn| lcn + run.len <= 1000));
                    }
                }
            }
            prop_assert!(count <= 1024 / 16);
            prop_assert!(record.find(DATA, &[], 0).is_ok_and(|found| found.is_none_or(|a| a.kind == DATA))
                || record.attributes().any(|attribute| attribute.is_err()));
        }
    }
}
