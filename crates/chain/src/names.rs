//! What image files are called. Names are for people and decide nothing; headers do.

/// What the name of an image file says.
#[derive(Debug, Clone, Copy)]
pub struct ImageName<'a> {
    /// Host the source belongs to.
    pub host: &'a str,
    /// What people call the source.
    pub name: &'a str,
    /// When the source was read, milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
    /// Number of the full image in its set.
    pub full_number: u32,
    /// Number of the increment after it; `None` for the full image itself.
    pub increment_number: Option<u32>,
}

/// `HOST@NAME_YYYYMMDDTHHMMSSZ_b00001-x7k2.aiv` for a full image,
/// `..._b00001_i00003-x7k2.aii` for one that builds on another: the third after that full image.
#[must_use]
pub fn image_name(about: &ImageName<'_>, suffix: &str) -> String {
    let ImageName { host, name, time_unix_ms, full_number, increment_number } = *about;
    let time = i64::try_from(time_unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default()
        .strftime("%Y%m%dT%H%M%SZ");
    let (host, name) = (file_word(host), file_word(name));
    match increment_number {
        None => format!("{host}@{name}_{time}_b{full_number:05}-{suffix}.aiv"),
        Some(number) => format!("{host}@{name}_{time}_b{full_number:05}_i{number:05}-{suffix}.aii"),
    }
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
#[must_use]
pub fn suffix(random: [u8; 4]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    random.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str, name: &str, increment_number: Option<u32>) -> String {
        let time_unix_ms = 1_790_000_000_000;
        image_name(
            &ImageName { host, name, time_unix_ms, full_number: 7, increment_number },
            "x7k2",
        )
    }

    #[test]
    fn an_image_name_says_host_disk_time_and_number() {
        assert_eq!(name("web 1", "../sda", None), "web_1@_sda_20260921T141320Z_b00007-x7k2.aiv");
        assert_eq!(name("a", "b", Some(3)), "a@b_20260921T141320Z_b00007_i00003-x7k2.aii");
    }

    #[test]
    fn names_never_hide_a_file_or_leave_a_folder() {
        for hostile in ["..", ".hidden", "", "a/b", "a\0b"] {
            let name = name(hostile, hostile, None);
            assert!(!name.starts_with('.') && !name.contains(['/', '\0']), "{name}");
        }
    }
}
