//! Sizes, times, ids, steps, and foreign text made safe.

use std::fmt::Display;
use std::ops::Range;

use aiv_chain::meta::{DiskInfo, RegionInfo, RegionKind};
use aiv_chain::{Depth, Point, PointState, StrayKind};
use aiv_image_format::Corrupt;
use aiv_keys::Credential;
use aiv_volume_io::Step;
use aiv_volume_io::partition::TableKind;

/// Bytes with a binary unit and about three digits: `512 B`, `1.50 GiB`. Rounded down.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let hundredths = (u128::from(bytes) * 100) >> (10 * power);
    format!("{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[power - 1])
}

/// A time in UTC as RFC 3339 writes it, to the second.
#[must_use]
pub fn time(unix_ms: u64) -> String {
    let known = i64::try_from(unix_ms / 1000).ok();
    let known = known.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    known.map_or_else(|| "unknown".to_owned(), |time| time.to_string())
}

/// The first digits of an id: enough to name it in a folder.
#[must_use]
pub fn short(id: impl Display) -> String {
    id.to_string().chars().take(8).collect()
}

/// Text from a disk without characters that could steer a terminal or reverse what is read.
#[must_use]
pub fn clean(text: &str) -> String {
    // Controls, and the marks and embeddings of bidirectional text.
    let bidi = ['\u{61c}', '\u{200e}', '\u{200f}'];
    let steers = |c: char| {
        c.is_control()
            || bidi.contains(&c)
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// What the secret keys of recipients begin with.
const SECRET_KEY: &str = "aiv-secret-";

/// Whether somebody put the secret key of a recipient, a recovery code or a paper key where everybody
/// can see it.
#[must_use]
pub fn is_secret_key(word: &str) -> bool {
    word.to_ascii_lowercase().contains(SECRET_KEY)
        || runs(word).any(|run| is_from_paper(&word[run.clone()]))
}

/// Stretches of a text that may be a code from paper, as people print it or without its dashes.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let of_code = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(of_code)?;
        at = text[start..].find(|c| !of_code(c)).map_or(text.len(), |len| start + len);
        Some(start..at)
    })
}

fn is_from_paper(run: &str) -> bool {
    Credential::is_printed(run) || Credential::from_paper(run).is_ok()
}

/// Text without codes from paper, and without what follows the beginning of a secret key: a word of a
/// command line may be one, and errors name words.
#[must_use]
pub fn without_secret_keys(text: &str) -> String {
    let (mut clear, mut end) = (String::with_capacity(text.len()), 0);
    for run in runs(text).filter(|run| is_from_paper(&text[run.clone()])) {
        clear += &text[end..run.start];
        clear += "...";
        end = run.end;
    }
    without_recipients(&(clear + &text[end..]))
}

fn without_recipients(text: &str) -> String {
    // Of the same length: only ASCII letters change.
    let lower = text.to_ascii_lowercase();
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(found) = lower[at..].find(SECRET_KEY) {
        let secret = at + found + SECRET_KEY.len();
        shown += &text[at..secret];
        let rest = &text[secret..];
        let of_key = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let len = rest.find(|c| !of_key(c)).unwrap_or(rest.len());
        if len > 0 {
            shown += "...";
        }
        at = secret + len;
    }
    shown + &text[at..]
}

/// What a job is doing.
#[must_use]
pub const fn step(step: Step) -> &'static str {
    match step {
        Step::ReadSource => "reading the source",
        Step::CompareSource => "comparing with the interrupted backup",
        Step::SealImage => "finishing the image",
        Step::CopyImage => "copying",
        Step::SalvageImage => "looking through",
        Step::VerifyImage => "checking the image",
        Step::WriteTarget => "writing the target",
        Step::VerifyTarget => "checking the target",
        Step::RecoverFiles => "recovering files",
        _ => "working",
    }
}

/// How thorough a verification was.
pub(crate) const fn depth(depth: Depth) -> &'static str {
    match depth {
        Depth::Quick => "quick",
        Depth::Stored => "stored",
        Depth::Data => "data",
    }
}

/// What a file that is no usable image is: a stable word, and an explanation.
pub(crate) fn stray(kind: &StrayKind) -> (&'static str, String) {
    match kind {
        StrayKind::Unfinished => (
            "unfinished",
            "a backup or a merge that is running, or was interrupted: the next one goes on with it, \
             or removes it and begins anew"
                .into(),
        ),
        StrayKind::Foreign(why) => ("foreign", format!("not an Aivory image: {why}")),
        StrayKind::Unusable(why) => ("unusable", why.clone()),
        StrayKind::Unreadable(why) => ("unreadable", format!("cannot be read: {why}")),
        StrayKind::Duplicate(first) => ("duplicate", format!("the same point as {first}")),
        _ => ("other", String::new()),
    }
}

/// Damage of a point that second copies make up for.
pub(crate) fn damage(point: &Point) -> &[Corrupt] {
    match &point.state {
        PointState::Damaged(parts) => parts,
        _ => &[],
    }
}

/// The regions of a disk that hold volumes.
pub(crate) fn volumes(disk: &DiskInfo) -> impl Iterator<Item = &RegionInfo> {
    disk.regions.iter().filter(|region| region.kind == RegionKind::Partition)
}

/// A kind of partition table.
#[must_use]
pub fn table_kind(kind: TableKind) -> &'static str {
    match kind {
        TableKind::None => "none",
        TableKind::Mbr => "mbr",
        TableKind::Gpt => "gpt",
    }
}

/// ` in 3 files` of an image that is split.
pub(crate) fn in_files(count: u32) -> String {
    if count > 1 { format!(" in {count} files") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_digits_and_never_round_up_to_another_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            ((1 << 20) - 1, "1023.99 KiB"),
            (3 << 29, "1.50 GiB"),
            (1 << 40, "1.00 TiB"),
            (u64::MAX, "15.99 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_utc_and_a_time_beyond_the_calendar_is_unknown() {
        assert_eq!(time(1_790_000_000_999), "2026-09-21T14:13:20Z");
        assert_eq!(time(u64::MAX), "unknown");
    }

    #[test]
    fn a_label_cannot_move_the_cursor_or_turn_text_around() {
        let hostile = "ro\u{1b}[2Jot\u{202e}gpj.\r\n";
        assert_eq!(clean(hostile), "ro\u{fffd}[2Jot\u{fffd}gpj.\u{fffd}\u{fffd}");
        assert_eq!(clean("Größe 東京"), "Größe 東京");
    }

    #[test]
    fn nothing_is_left_of_a_code_from_paper_but_that_there_was_one() {
        let paper = "000GD-40R4X-0M300-E209K-185G3-R38ED-1W811-24GKZ-2GAH1-C5RR2-34D1B-P70XX-3RFGZ";
        let code = &paper[..47];
        for word in [paper.to_owned(), code.to_owned(), code.to_lowercase(), paper.replace('-', "")]
        {
            assert!(is_secret_key(&word));
            let shown = without_secret_keys(&format!("cannot read ./{word}: no such file"));
            assert_eq!(shown, "cannot read ./...: no such file");
        }
        // Mistyped ones tell nearly as much; names of files look otherwise.
        assert!(is_secret_key(&paper.replace("GD", "GE")));
        for word in ["2026-11-28", "0123456789abcdef0123456789abcdef01234567", "a-b-c-d-e-f-g-h"] {
            assert!(!is_secret_key(word), "{word}");
            assert_eq!(without_secret_keys(word), word);
        }
    }

    #[test]
    fn nothing_is_left_of_a_secret_key_but_what_it_is() {
        for (text, shown) in [
            ("no file aiv-secret-00ff-11 there", "no file aiv-secret-... there"),
            ("'AIV-SECRET-AB'\u{fc}, aiv-secret-x", "'AIV-SECRET-...'\u{fc}, aiv-secret-..."),
            ("begins with \"aiv-secret-\"", "begins with \"aiv-secret-\""),
            ("aiv-public-00ff", "aiv-public-00ff"),
        ] {
            assert_eq!(without_secret_keys(text), shown);
        }
    }
}
