//! Names of files: eight and three letters, and long ones in pieces before them.

use super::record::Record;
use crate::bytes::le16;
use crate::reader::wtf8;

/// Units of UTF-16 in one piece of a long name.
const PIECE_UNITS: usize = 13;
/// Pieces of the longest name, of 255 units.
const PIECES_MAX: u8 = 20;
const NAME_UNITS_MAX: usize = 255;

/// Code page 437 from 0x80 on, in which DOS wrote names unless it was told otherwise.
const CODE_PAGE_437: &str = "\
ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// The name in the record of a file itself.
pub(super) fn short_name(record: &Record) -> Vec<u8> {
    const DELETED: u8 = 0xe5;
    const STANDS_FOR_DELETED: u8 = 0x05;
    const LOWER_BASE: u8 = 0x08;
    const LOWER_EXTENSION: u8 = 0x10;
    let case = record[12];
    let mut base = record[..8].to_vec();
    if base[0] == STANDS_FOR_DELETED {
        base[0] = DELETED;
    }
    let mut name = part(&base, case & LOWER_BASE != 0);
    let extension = part(&record[8..11], case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name.into_bytes()
}

fn part(bytes: &[u8], is_lower: bool) -> String {
    let end = bytes.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    bytes[..end].iter().map(|&byte| letter(byte, is_lower)).collect()
}

fn letter(byte: u8, is_lower: bool) -> char {
    if byte.is_ascii() {
        let byte = if is_lower { byte.to_ascii_lowercase() } else { byte };
        return char::from(byte);
    }
    let upper = CODE_PAGE_437.chars().nth(usize::from(byte & 0x7f)).unwrap_or('\u{fffd}');
    let lower = upper.to_lowercase().next().filter(|&lower| CODE_PAGE_437.contains(lower));
    lower.filter(|_| is_lower).unwrap_or(upper)
}

/// The checksum of a short name that every piece of its long name carries.
pub(super) fn checksum(record: &Record) -> u8 {
    record[..11].iter().fold(0, |sum: u8, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// The pieces of a long name as they come, the last one first.
#[derive(Default)]
pub(super) struct LongName {
    /// Of the name, from the front; filled from the back.
    units: Vec<u16>,
    /// Pieces that are still to come; 0 with units: the name is whole.
    left: u8,
    checksum: u8,
}

impl LongName {
    /// Takes a piece. One that does not follow those before it makes all of them worthless.
    pub(super) fn take(&mut self, record: &Record) {
        const LAST: u8 = 0x40;
        let (number, checksum) = (record[0] & !LAST, record[13]);
        if record[0] & LAST != 0 {
            self.clear();
            if number > PIECES_MAX {
                return;
            }
            self.left = number;
            self.checksum = checksum;
            self.units = vec![0; usize::from(number) * PIECE_UNITS];
        }
        if number == 0 || number != self.left || checksum != self.checksum {
            return self.clear();
        }
        self.left -= 1;
        let at = [(1, 5), (14, 6), (28, 2)];
        let places = at.into_iter().flat_map(|(at, count)| (0..count).map(move |n| at + 2 * n));
        let units = &mut self.units[usize::from(self.left) * PIECE_UNITS..];
        units.iter_mut().zip(places).for_each(|(unit, at)| *unit = le16(record, at));
    }

    /// The long name of the file whose record follows the pieces, if it is one and whole.
    pub(super) fn of(&mut self, record: &Record) -> Option<Vec<u8>> {
        let is_its = !self.units.is_empty() && self.left == 0 && self.checksum == checksum(record);
        let end = self.units.iter().position(|&unit| unit == 0).unwrap_or(self.units.len());
        let name = is_its && (1..=NAME_UNITS_MAX).contains(&end);
        let name = name.then(|| wtf8(self.units[..end].iter().copied()));
        self.clear();
        name
    }

    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.left = 0;
    }
}

/// The letters of a name, upper and lower case made the same.
pub(super) fn folded(name: &[u8]) -> impl Iterator<Item = u32> {
    const NO_LETTER: u32 = 1 << 24;
    name.utf8_chunks().flat_map(|chunk| {
        let letters = chunk.valid().chars().map(|letter| {
            let mut upper = letter.to_uppercase();
            // Upper case of several letters is no business of FAT.
            let one = if upper.len() == 1 { upper.next() } else { None };
            u32::from(one.unwrap_or(letter))
        });
        letters.chain(chunk.invalid().iter().map(|&byte| NO_LETTER | u32::from(byte)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8; 11], case: u8) -> Record {
        let mut record = [0; 32];
        record[..11].copy_from_slice(name);
        record[12] = case;
        record
    }

    fn short(name: &[u8; 11], case: u8) -> String {
        String::from_utf8(short_name(&record(name, case))).unwrap_or_default()
    }

    #[test]
    fn short_names_have_no_padding_and_the_case_that_windows_nt_noted() {
        assert_eq!(short(b"README  TXT", 0), "README.TXT");
        assert_eq!(short(b"README  TXT", 0x08), "readme.TXT");
        assert_eq!(short(b"README  TXT", 0x10), "README.txt");
        assert_eq!(short(b"A B     X  ", 0x18), "a b.x");
        assert_eq!(short(b"NOEXT      ", 0), "NOEXT");
        assert_eq!(short(b"           ", 0), "");
    }

    #[test]
    fn letters_of_the_code_page_become_unicode() {
        assert_eq!(CODE_PAGE_437.chars().count(), 128);
        assert_eq!(short(b"\x8eRGER   \xe1  ", 0), "\u{c4}RGER.\u{df}");
        // Greek without a small letter in the code page keeps its capital.
        assert_eq!(short(b"\x8e\x90\xe2\xe4    \x9a  ", 0x18), "\u{e4}\u{e9}\u{393}\u{3c3}.\u{fc}");
        assert_eq!(short(b"\x05BC        ", 0), "\u{3c3}BC");
        assert_eq!(short(b"\xff          ", 0), "\u{a0}");
    }

    fn piece(order: u8, checksum: u8, units: [u16; 13]) -> Record {
        let mut record = [0; 32];
        record[0] = order;
        record[13] = checksum;
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        for (unit, at) in units.into_iter().zip(places) {
            record[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        record
    }

    fn units(text: &str) -> [u16; 13] {
        let mut units = [0xffff; 13];
        let all = text.encode_utf16().chain([0]);
        units.iter_mut().zip(all).for_each(|(unit, value)| *unit = value);
        units
    }

    fn long(pieces: &[Record]) -> Option<String> {
        let mut name = LongName::default();
        pieces.iter().for_each(|piece| name.take(piece));
        let long = name.of(&record(b"LONG    TXT", 0));
        assert_eq!(name.of(&record(b"LONG    TXT", 0)), None);
        long.map(|name| String::from_utf8(name).unwrap_or_default())
    }

    #[test]
    fn long_names_are_put_together_from_the_back() {
        let sum = checksum(&record(b"LONG    TXT", 0));
        let first = piece(1, sum, units("a long name o"));
        assert_eq!(
            long(&[piece(0x42, sum, units("f two.txt")), first]).as_deref(),
            Some("a long name of two.txt")
        );
        assert_eq!(long(&[piece(0x41, sum, units("\u{e4}b"))]).as_deref(), Some("\u{e4}b"));
        assert_eq!(
            long(&[piece(0x41, sum, units("exactly thirt"))]).as_deref(),
            Some("exactly thirt")
        );
        // A left-over piece before a whole name.
        let pieces = [piece(0x43, 7, units("x")), piece(0x41, sum, units("ok"))];
        assert_eq!(long(&pieces).as_deref(), Some("ok"));
    }

    #[test]
    fn pieces_that_do_not_belong_together_are_no_name() {
        let sum = checksum(&record(b"LONG    TXT", 0));
        let (last, first) = (piece(0x42, sum, units("end")), piece(1, sum, units("abcdefghijklm")));
        assert!(long(&[last, first]).is_some());
        assert_eq!(long(&[]), None);
        assert_eq!(long(&[first]), None);
        assert_eq!(long(&[last]), None);
        assert_eq!(long(&[first, last]), None);
        assert_eq!(long(&[last, first, first]), None);
        assert_eq!(long(&[piece(0x43, sum, units("end")), first]), None);
        assert_eq!(long(&[last, piece(1, sum ^ 1, units("abcdefghijklm"))]), None);
        assert_eq!(long(&[piece(0x41, sum ^ 1, units("of another"))]), None);
        assert_eq!(long(&[piece(0x40, sum, units("no number"))]), None);
        assert_eq!(long(&[piece(0x41, sum, units(""))]), None);
        let full = |n| piece(n, sum, units("abcdefghijklm"));
        let all: Vec<Record> = [full(0x54)].into_iter().chain((1..20).rev().map(full)).collect();
        // 260 units are more than a name has.
        assert_eq!(long(&all), None);
        let all: Vec<Record> = [full(0x55)].into_iter().chain((1..21).rev().map(full)).collect();
        assert_eq!(long(&all), None);
    }

    #[test]
    fn names_of_255_units_are_whole() {
        let sum = checksum(&record(b"LONG    TXT", 0));
        let full = |n| piece(n, sum, units("abcdefghijklm"));
        let last = piece(0x54, sum, units("abcdefgh"));
        let all: Vec<Record> = [last].into_iter().chain((1..20).rev().map(full)).collect();
        assert_eq!(long(&all).map(|name| name.len()), Some(255));
    }

    #[test]
    fn case_is_folded_letter_by_letter() {
        let same = |a: &[u8], b: &[u8]| folded(a).eq(folded(b));
        assert!(same("Stra\u{df}e \u{e9}".as_bytes(), "STRA\u{df}E \u{c9}".as_bytes()));
        assert!(!same("Stra\u{df}e".as_bytes(), b"STRASSE"));
        assert!(same(&[0xed, 0xa0, 0xbd, b'a'], &[0xed, 0xa0, 0xbd, b'A']));
        assert!(!same(&[0xed, 0xa0, 0xbd], &[0xed, 0xa0, 0xbe]));
    }
}
