//! The text in front of an undo log: lines that a person can read, and that `dd` can be fed
//! with. The bytes follow behind it, at the places it names.

use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use aiv_volume_io::Extent;

use super::{END_LEN, Identity, Part};

/// First line of every log.
pub(super) const MAGIC: &str = "Aivory undo log 1\n";

/// Bytes of the text, padded with line feeds.
pub(super) const HEAD_LEN: usize = 256 << 10;

/// Parts of a log: both ends, and the records of as many logical partitions as we accept.
const PARTS_MAX: usize = 1_100;

/// The text.
pub(super) fn encode(identity: &Identity, saved_unix_ms: u64, parts: &[Part]) -> Option<Vec<u8>> {
    let Identity { path, len, sector_size, serial, wwn, offset } = identity;
    let mut text = MAGIC.to_owned();
    // Names may hold anything; in hexadecimal digits they are one word.
    let path = hex(path.as_os_str().as_bytes());
    let (serial, wwn) = (hex(serial.as_bytes()), hex(wwn.as_bytes()));
    let _ = write!(
        text,
        "path {path}\nlength {len}\nsector {sector_size}\nserial {serial}\nwwn {wwn}\n\
         offset {offset}\nsaved {saved_unix_ms}\n"
    );
    for Part { extent, place, hash } in parts {
        let _ = writeln!(text, "part {} {} {place} {hash}", extent.start, extent.len);
    }
    let sum = blake3::hash(text.as_bytes());
    let _ = writeln!(text, "end {sum}");
    let mut bytes = text.into_bytes();
    if bytes.len() > HEAD_LEN || parts.len() > PARTS_MAX {
        return None;
    }
    bytes.resize(HEAD_LEN, b'\n');
    Some(bytes)
}

/// What the text says; `None` when it is not what was written.
pub(super) fn decode(head: &[u8], file_len: u64) -> Option<(Identity, u64, Vec<Part>)> {
    let text = std::str::from_utf8(head).ok()?.trim_end_matches('\n');
    let (body, end) = text.split_at(text.rfind('\n')? + 1);
    let sum = blake3::Hash::from_hex(end.strip_prefix("end ")?).ok()?;
    if blake3::hash(body.as_bytes()) != sum {
        return None;
    }
    let mut lines = body.strip_prefix(MAGIC)?.lines();
    let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes(value("path")?)?));
    let len = value("length")?.parse().ok()?;
    let sector_size = value("sector")?.parse().ok()?;
    let serial = String::from_utf8(bytes(value("serial")?)?).ok()?;
    let wwn = String::from_utf8(bytes(value("wwn")?)?).ok()?;
    let offset = value("offset")?.parse().ok()?;
    let saved = value("saved")?.parse().ok()?;
    let identity = Identity { path, len, sector_size, serial, wwn, offset };
    let parts = lines.map(|line| part(line, len, file_len)).collect::<Option<Vec<_>>>()?;
    (parts.len() <= PARTS_MAX).then_some((identity, saved, parts))
}

fn part(line: &str, target_len: u64, file_len: u64) -> Option<Part> {
    let mut words = line.strip_prefix("part ")?.split(' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let (start, len, place) = (number()?, number()?, number()?);
    let hash = blake3::Hash::from_hex(words.next()?).ok()?;
    let inside = |start: u64, max: u64| start.checked_add(len).is_some_and(|end| end <= max);
    let sound =
        (1..=END_LEN).contains(&len) && inside(start, target_len) && inside(place, file_len);
    sound.then_some(Part { extent: Extent::new(start, len), place, hash })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    hex.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Identity, Vec<Part>) {
        let identity = Identity {
            path: "/dev/größe\n".into(),
            len: 1 << 30,
            sector_size: 512,
            serial: "A B".to_owned(),
            wwn: String::new(),
            offset: 7,
        };
        let hash = blake3::hash(b"part");
        let extent = Extent::new(0, END_LEN);
        (identity, vec![Part { extent, place: HEAD_LEN as u64, hash }])
    }

    #[test]
    fn what_was_written_is_read_and_any_change_is_noticed() {
        let (identity, parts) = sample();
        let head = encode(&identity, 99, &parts).unwrap();
        let file_len = head.len() as u64 + END_LEN;
        assert_eq!(decode(&head, file_len), Some((identity, 99, parts)));
        assert_eq!(decode(&head, file_len - 1), None, "the file was cut off");
        let used = head.iter().rposition(|&byte| byte != b'\n').unwrap();
        for at in 0..=used {
            let mut head = head.clone();
            head[at] ^= 1;
            assert_eq!(decode(&head, file_len), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_part_outside_of_target_or_file(
            line in "part [0-9]{1,21} [0-9]{1,8} [0-9]{1,21} [0-9a-f]{64}",
            target_len: u64, file_len: u64,
        ) {
            if let Some(part) = part(&line, target_len, file_len) {
                prop_assert!(part.extent.end() <= target_len);
                prop_assert!(part.place + part.extent.len <= file_len);
            }
        }
    }
}
