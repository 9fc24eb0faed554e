//! Labels and identities as people see them.

/// A label padded with NUL or blanks.
pub(super) fn label(bytes: &[u8]) -> String {
    let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim_end().to_owned()
}

/// A little-endian UTF-16 label, ended by NUL or by the end of `bytes`.
pub(super) fn label_utf16le(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)))
}

/// The same in big-endian UTF-16.
pub(super) fn label_utf16be(bytes: &[u8]) -> String {
    utf16(bytes.as_chunks().0.iter().map(|&pair| u16::from_be_bytes(pair)))
}

fn utf16(units: impl Iterator<Item = u16>) -> String {
    let text = char::decode_utf16(units.take_while(|&unit| unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    text.collect::<String>().trim_end().to_owned()
}

/// A UUID in its usual form; empty when all bytes are zero, which means "none" everywhere.
pub(super) fn uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The 32-bit serial number of FAT and exFAT.
pub(super) fn serial32(serial: u32) -> String {
    format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)
}
