//! Words of the user, on command lines and in configuration files, as typed values.

use std::num::NonZeroU64;

use aiv_backup_engine::{BadPattern, BlockSize, Compression, Pattern};

/// What is wrong with a word.
type Wrong = &'static str;

/// Bytes: a whole number, or one with K, M, G or T behind it in powers of 1024.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a number of bytes, or one with K, M, G or T behind it"),
    };
    let number: u64 = digits.parse().map_err(|_| "not a whole number")?;
    number.checked_mul(1 << shift).ok_or("larger than any disk")
}

/// Bytes per second, at least one.
///
/// # Errors
/// As [`size`].
pub fn rate(text: &str) -> Result<NonZeroU64, Wrong> {
    NonZeroU64::new(size(text)?).ok_or("nothing can be read at this rate")
}

/// A block size, written as a [`size`].
///
/// # Errors
/// What is wrong with the text, in words.
pub fn block_size(text: &str) -> Result<BlockSize, Wrong> {
    let bytes = u32::try_from(size(text)?).ok();
    bytes.and_then(BlockSize::new).ok_or("not a power of two from 16K to 4M")
}

/// Bytes of a segment file, written as a [`size`].
///
/// # Errors
/// What is wrong with the text, in words.
pub fn split(text: &str) -> Result<u64, Wrong> {
    const LEAST: u64 = 64 << 20;
    Some(size(text)?).filter(|&bytes| bytes >= LEAST).ok_or("less than 64M")
}

/// `bitmap:NAME`, a change tracker of the source.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn changes(text: &str) -> Result<String, Wrong> {
    let number = |kind| text.strip_prefix(kind).and_then(|number| number.parse::<u64>().ok());
    let counted = number("era:").or_else(|| number("thin:")).map(|_| text);
    let bitmap = text.strip_prefix("bitmap:").filter(|name| !name.is_empty());
    let name = bitmap.or(counted).map(str::to_owned);
    name.ok_or("bitmap: and a name, or era: or thin: and a number, of a tracker of the source")
}

/// A pattern that names files.
///
/// # Errors
/// The pattern, and what is wrong with it.
pub fn pattern(text: &str) -> Result<Pattern, BadPattern> {
    text.parse()
}

/// A day, or a time, as RFC 3339 writes them: seconds since 1970 UTC.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn moment(text: &str) -> Result<i64, Wrong> {
    const WRONG: Wrong = "a day as 2026-09-21, or a time as 2026-09-21T14:00:00Z";
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_second());
    }
    // A time without its zone would be a day to the parser.
    let day = Some(text).filter(|text| text.len() == "2026-09-21".len()).ok_or(WRONG)?;
    let day: jiff::civil::Date = day.parse().map_err(|_| WRONG)?;
    let start = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| WRONG)?;
    Ok(start.timestamp().as_second())
}

/// `zstd`, `zstd:LEVEL`, `lz4` or `none`.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn compression(text: &str) -> Result<Compression, Wrong> {
    match text.split_once(':') {
        None if text == "none" => Ok(Compression::None),
        None if text == "lz4" => Ok(Compression::Lz4),
        None if text == "zstd" => Ok(Compression::Zstd(1)),
        Some(("zstd", level)) => {
            let level =
                level.parse().ok().filter(|l| (1..=Compression::ZSTD_LEVEL_MAX).contains(l));
            level.map(Compression::Zstd).ok_or("zstd has levels 1 to 19")
        }
        _ => Err("not one of zstd, zstd:LEVEL, lz4, none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64K", 65_536), ("3m", 3 << 20), ("2T", 2 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "1.5G", "-1", "1KB", "99999999T", "1 K", "0x10", "1ä"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(rate("0").is_err());
        assert!(block_size("48K").is_err() && block_size("8M").is_err());
        assert!(split("63M").is_err() && split("x").is_err());
        assert_eq!((split("64M"), split("4G")), (Ok(64 << 20), Ok(4 << 30)));
        assert_eq!(block_size("64k").map(BlockSize::get), Ok(65_536));
    }

    #[test]
    fn moments_are_days_or_times_in_utc() {
        assert_eq!(moment("1970-01-02"), Ok(86_400));
        assert_eq!(moment("2026-09-21T14:13:20Z"), Ok(1_790_000_000));
        assert_eq!(moment("2026-09-21T16:13:20+02:00"), Ok(1_790_000_000));
        for text in ["", "yesterday", "2026-13-01", "21.9.2026", "2026-09-21T14:13"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn compression_is_a_method_with_a_level_where_it_has_levels() {
        assert_eq!(compression("zstd"), Ok(Compression::Zstd(1)));
        assert_eq!(compression("zstd:19"), Ok(Compression::Zstd(19)));
        assert_eq!(compression("lz4"), Ok(Compression::Lz4));
        assert_eq!(compression("none"), Ok(Compression::None));
        for text in ["zstd:0", "zstd:20", "zstd:", "lz4:1", "gzip", ""] {
            assert!(compression(text).is_err(), "{text}");
        }
    }
}
