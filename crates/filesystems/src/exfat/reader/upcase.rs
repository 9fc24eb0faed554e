//! Which letters are upper and lower case of each other.

use super::super::entry_set::add;

/// Bytes of the largest table: one letter for each of 65,536.
pub(super) const UPCASE_BYTES_MAX: u64 = 128 << 10;

pub(super) struct UpCase {
    /// By unit of UTF-16; of those behind the end the upper case is the same.
    table: Vec<u16>,
    is_of_volume: bool,
}

impl UpCase {
    /// The table of a volume, if it matches its checksum.
    pub(super) fn read(bytes: &[u8], checksum: u32) -> Option<Self> {
        const SKIP: u16 = 0xffff;
        let sum = bytes.iter().fold(0u32, |sum, &b| sum.rotate_right(1).wrapping_add(b.into()));
        if sum != checksum || bytes.is_empty() {
            return None;
        }
        let mut table: Vec<u16> = Vec::new();
        let mut units = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
        while let (Some(unit), Ok(at)) = (units.next(), u16::try_from(table.len())) {
            match units.clone().next() {
                // So many letters are their own upper case.
                Some(count) if unit == SKIP && at != SKIP => {
                    units.next();
                    let end = at.saturating_add(count);
                    table.extend(at..end);
                }
                _ => table.push(unit),
            }
        }
        Some(Self { table, is_of_volume: true })
    }

    /// Where the volume has no table that could be believed.
    pub(super) fn of_ascii() -> Self {
        let table = (0..=0x7f_u8).map(|unit| unit.to_ascii_uppercase().into()).collect();
        Self { table, is_of_volume: false }
    }

    pub(super) fn upper(&self, unit: u16) -> u16 {
        self.table.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The hash of a name that its records carry; `None` when it cannot be told.
    pub(super) fn hash(&self, units: &[u16]) -> Option<u16> {
        let add_unit = |sum, &unit: &u16| add(sum, &self.upper(unit).to_le_bytes());
        self.is_of_volume.then(|| units.iter().fold(0, add_unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(units: &[u16]) -> UpCase {
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let sum = bytes.iter().fold(0u32, |sum, &b| sum.rotate_right(1).wrapping_add(b.into()));
        assert!(UpCase::read(&bytes, sum ^ 1).is_none());
        UpCase::read(&bytes, sum).unwrap()
    }

    #[test]
    fn letters_are_listed_or_skipped() {
        let table = read(&[5, 6, 0xffff, 0x60, 0x41, 0x42]);
        assert_eq!(
            [0, 1, 2, 0x61, 0x62, 0x63, 0x64].map(|unit| table.upper(unit)),
            [5, 6, 2, 0x61, 0x41, 0x42, 0x64]
        );
        // The last letter may be 0xffff itself; skips without end go nowhere.
        let table = read(&[0xffff, 0xffff, 0xffff, 7, 0xffff, 0xffff]);
        assert_eq!((table.upper(0xfffe), table.upper(0xffff)), (0xfffe, 0xffff));
        assert_eq!(read(&[0xffff, 0, 0xffff, 0, 9]).upper(0), 9);
    }
}
