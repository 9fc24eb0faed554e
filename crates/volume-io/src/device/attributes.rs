//! Reading small files the kernel makes up, with a limit on each.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// One attribute in sysfs: the kernel makes them a page at most.
const ATTRIBUTE_MAX: u64 = 4096;

/// Bytes in front of the serial number in SCSI vital product data page 0x80 (SPC-4, 7.8.13).
const VPD_HEADER: usize = 4;

/// The whole file, an error beyond `max` bytes.
pub(super) fn read_limited(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("{} has more than {max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// An attribute as text without surrounding blanks; `None` when absent, unreadable or empty.
pub(super) fn text(path: &Path) -> Option<String> {
    let bytes = read_limited(path, ATTRIBUTE_MAX).ok()?;
    printable(&bytes)
}

/// An attribute as a number.
pub(super) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// An attribute that is `0` or `1`; absent means no.
pub(super) fn flag(path: &Path) -> bool {
    text(path).is_some_and(|value| value == "1")
}

/// The serial number in SCSI vital product data page 0x80.
pub(super) fn vpd_serial(path: &Path) -> Option<String> {
    let page = read_limited(path, ATTRIBUTE_MAX).ok()?;
    let header = page.get(..VPD_HEADER)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    printable(page.get(VPD_HEADER..VPD_HEADER + len)?)
}

/// Names in a folder, sorted; none when there is no such folder.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort_unstable();
    names
}

fn printable(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    (!text.is_empty()).then(|| text.to_owned())
}
