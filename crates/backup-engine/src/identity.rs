//! Who a source is, and what its images are called. Names decide nothing; headers do.

use aiv_image_format::SetId;
use aiv_volume_io::partition::{DiskId, PartitionTable};

use crate::facts::SourceFacts;

const KEY_SET: &[u8; 32] = b"aivory draft: set of a source   ";

/// The set all images of the source with this identity belong to, in every folder.
#[must_use]
pub fn set_id(source_id: &str) -> SetId {
    let hash = blake3::keyed_hash(KEY_SET, source_id.as_bytes());
    let mut id = SetId::default();
    id.0.copy_from_slice(&hash.as_bytes()[..16]);
    id
}

/// Identity of a source: what the user chose, else GPT disk GUID, MBR signature with size,
/// filesystem UUID, serial number or WWN, and where nothing else is known the place it was
/// found at.
pub(crate) fn source_id(
    facts: &SourceFacts,
    table: &PartitionTable,
    len: u64,
    whole_volume_uuid: &str,
) -> String {
    if let Some(chosen) = &facts.source_id {
        return format!("user:{chosen}");
    }
    match table.disk_id {
        Some(DiskId::Gpt(guid)) => return format!("gpt:{guid}"),
        Some(DiskId::Mbr(signature)) => return format!("mbr:{signature:08x}-{len}"),
        None => {}
    }
    let known = [("fs", whole_volume_uuid), ("serial", &facts.serial), ("wwn", &facts.wwn)];
    match known.iter().find(|(_, value)| !value.is_empty()) {
        Some((kind, value)) => format!("{kind}:{value}"),
        None => format!("path:{}:{}", facts.host, facts.label),
    }
}

/// `HOST@NAME_YYYYMMDDTHHMMSSZ_b00001-x7k2.aiv`.
pub(crate) fn image_name(
    host: &str,
    name: &str,
    time_unix_ms: u64,
    full_number: u32,
    suffix: &str,
) -> String {
    let time = i64::try_from(time_unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default()
        .strftime("%Y%m%dT%H%M%SZ");
    format!("{}@{}_{time}_b{full_number:05}-{suffix}.aiv", file_word(host), file_word(name))
}

/// Characters every filesystem and shell takes, at most 64 of them.
fn file_word(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let word: String = text.chars().map(safe).take(64).collect();
    match word.trim_start_matches('.') {
        "" => "disk".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// Four characters from random bytes, without those that read alike.
pub(crate) fn suffix(random: [u8; 4]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_says_host_disk_time_and_number() {
        let name = image_name("web 1", "../sda", 1_790_000_000_000, 7, "x7k2");
        assert_eq!(name, "web_1@_sda_20260921T141320Z_b00007-x7k2.aiv");
    }

    #[test]
    fn names_never_hide_a_file_or_leave_a_folder() {
        for hostile in ["..", ".hidden", "", "a/b", "a\0b"] {
            let name = image_name(hostile, hostile, 0, 1, "aaaa");
            assert!(!name.starts_with('.') && !name.contains(['/', '\0']), "{name}");
        }
    }

    #[test]
    fn a_set_id_depends_on_nothing_but_the_identity() {
        assert_eq!(set_id("gpt:1"), set_id("gpt:1"));
        assert_ne!(set_id("gpt:1"), set_id("gpt:2"));
    }
}
