//! What is compared: programs, the jobs they do, and the words that make them do it.

use std::fmt;

/// Tools are compared with those that make the same bargain between time and space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Codec {
    /// zstd at its fast levels.
    Zstd,
    Lz4,
    /// Bytes stored as they are.
    None,
}

/// What a tool is asked to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A full backup of the disk.
    Full,
    /// Back into a new file.
    Restore,
    /// Every stored byte is read and checked.
    Verify,
    /// Only the structure is checked.
    Quick,
}

/// One table of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub(super) step: Step,
    pub(super) codec: Codec,
}

impl Job {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let steps = [Step::Full, Step::Restore, Step::Verify, Step::Quick];
        let codecs = [Codec::Zstd, Codec::Lz4, Codec::None];
        steps.into_iter().flat_map(move |step| codecs.map(|codec| Self { step, codec }))
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Full => "full",
            Step::Restore => "restore",
            Step::Verify => "verify",
            Step::Quick => "quick",
        };
        let codec = match self.codec {
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
            Codec::None => "none",
        };
        write!(f, "{step}-{codec}")
    }
}

/// Who stands behind a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Aivory,
    Peer,
    /// A peer that is also a limit, and so runs in any case.
    Limit,
}

/// Which bytes must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Disk,
    /// Tables, gaps, and what the filesystems use.
    UsedOfDisk,
    /// What the root filesystem uses; the tool knows no disks.
    UsedOfRoot,
    /// The files of the root filesystem, wherever they come to lie; the tool knows no blocks.
    FilesOfRoot,
}

/// A program with its settings. Command lines are split at white space, then the places in
/// braces are filled in; `|` between words is a pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) side: Side,
    pub(super) codec: Codec,
    pub(super) scope: Scope,
    /// Must be installed; the first of them says which version is measured.
    pub(super) programs: &'static [&'static str],
    /// Prints the version in its first line.
    pub(super) version: &'static str,
    /// Not measured: what is done once before any backup.
    pub(super) prepare: Option<&'static str>,
    /// Runs in the folder of the disk.
    pub(super) full: &'static str,
    /// Runs in the folder `{restored}`. `{blank}` is a device over the restored file, which is
    /// empty and as long as the root filesystem.
    pub(super) restore: Option<&'static str>,
    /// The restored file in the folder `{restored}`.
    pub(super) restored: &'static str,
    pub(super) verify: Option<&'static str>,
    pub(super) quick: Option<&'static str>,
    /// What a reader must know to judge the row fairly.
    pub(super) note: &'static str,
}

impl Tool {
    /// The words of one step, if the tool can do it.
    pub(super) fn line(&self, step: Step) -> Option<&'static str> {
        match step {
            Step::Full => Some(self.full),
            Step::Restore => self.restore,
            Step::Verify => self.verify,
            Step::Quick => self.quick,
        }
    }
}

/// Splits a command line and fills in its places, which may hold white space.
pub(super) fn fill(line: &str, places: &[(&str, String)]) -> Vec<String> {
    let fill_word = |word: &str| {
        places.iter().fold(word.to_owned(), |word, (place, value)| word.replace(place, value))
    };
    line.split_whitespace().map(fill_word).collect()
}

/// Aivory at its defaults, once for each codec, and sealed.
pub(super) const AIVORY: [Tool; 4] = [
    aivory(
        "aiv zstd:1",
        Codec::Zstd,
        "{aiv} backup {disk} --to {stored} --full --compress zstd:1 --json --quiet",
    ),
    aivory(
        "aiv lz4",
        Codec::Lz4,
        "{aiv} backup {disk} --to {stored} --full --compress lz4 --json --quiet",
    ),
    aivory(
        "aiv none",
        Codec::None,
        "{aiv} backup {disk} --to {stored} --full --compress none --json --quiet",
    ),
    Tool {
        restore: Some(
            "{aiv} restore {image} --to {restored}/disk.raw --password-file {secret} --json --quiet",
        ),
        verify: Some("{aiv} verify {image} --depth data --password-file {secret} --json --quiet"),
        quick: Some("{aiv} verify {image} --depth quick --password-file {secret} --json --quiet"),
        note: "AES-256-GCM; a tenth of a second is Argon2id; otherwise as above",
        ..aivory(
            "aiv zstd:1 sealed",
            Codec::Zstd,
            "{aiv} backup {disk} --to {stored} --full --compress zstd:1 --seal \
             --password-file {secret} --json --quiet",
        )
    },
];

const fn aivory(name: &'static str, codec: Codec, full: &'static str) -> Tool {
    Tool {
        name,
        side: Side::Aivory,
        codec,
        scope: Scope::UsedOfDisk,
        programs: &[],
        version: "{aiv} --version",
        prepare: None,
        full,
        restore: Some("{aiv} restore {image} --to {restored}/disk.raw --json --quiet"),
        restored: "disk.raw",
        verify: Some("{aiv} verify {image} --depth data --json --quiet"),
        quick: Some("{aiv} verify {image} --depth quick --json --quiet"),
        note: "BLAKE3 of every block; all is synced; a restore is read back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_after_the_line_is_split() {
        let places = [("{disk}", "/a folder/disk".to_owned()), ("{threads}", "2".to_owned())];
        let words = fill("zstd -T{threads} {disk} | cat", &places);
        assert_eq!(words, ["zstd", "-T2", "/a folder/disk", "|", "cat"]);
    }

    #[test]
    fn every_job_has_a_name_of_its_own_and_aivory_does_it() {
        let mut names: Vec<String> = Job::all().map(|job| job.to_string()).collect();
        for job in Job::all() {
            let tool = AIVORY.iter().find(|tool| tool.codec == job.codec).unwrap();
            assert!(tool.line(job.step).is_some(), "{job}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 12);
    }
}
