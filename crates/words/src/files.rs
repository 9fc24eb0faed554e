//! Words about files of recovery points.

use std::path::PathBuf;

use aiv_backup_engine::Pattern;
use aiv_browse::{FileType, Filter};
use aiv_jobs::{Follow, Format, OpenOptions};
use aiv_report::parse;
use aiv_restore_engine::recover::Existing;
use aiv_terminal::{LuksFiles, SecretFiles};

use crate::choice;

const PATHS: &str = "\
IMAGE is a file, DIR@latest, DIR@ID or DIR@NAME:latest; or a raw or virtual disk, or a device, that
is no image yet. PATH begins with a volume: /p2/etc is the folder etc on partition 2, /p0 the whole
disk where it has no partition table, /p2/GROUP/NAME/etc is in a logical volume; a label may stand
for its volume where only one has it.";

/// List volumes, folders and files of a recovery point
///
/// Nothing is mounted, and no root is needed. A volume that was not unmounted is read as its log
/// says where that can be done.
#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  aiv ls /mnt/backup@latest
  aiv ls /mnt/backup@latest /p2/etc
  aiv ls disk.aiv /p1 --recursive --json\n\n{PATHS}"))]
pub struct Ls {
    /// What to look into
    pub image: PathBuf,
    /// A folder, a file, or nothing for the volumes
    #[arg(default_value = "/", hide_default_value = true)]
    pub path: PathBuf,
    /// Everything below, too
    #[arg(long, short = 'R')]
    pub recursive: bool,
    #[command(flatten)]
    pub unlock: SecretFiles,
    #[command(flatten)]
    pub luks: LuksFiles,
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Write the bytes of one file of a recovery point to standard output
///
/// Ends with exit code 4 at the first byte that cannot be read; `extract` gets everything else.
#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  aiv cat /mnt/backup@latest /p2/etc/fstab
  aiv cat disk.aiv /p2/var/db.sqlite > db.sqlite\n\n{PATHS}"))]
pub struct Cat {
    /// What to look into
    pub image: PathBuf,
    /// The file; symbolic links are followed
    pub path: PathBuf,
    #[command(flatten)]
    pub unlock: SecretFiles,
    #[command(flatten)]
    pub luks: LuksFiles,
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Find files of a recovery point by name, size and time
///
/// They are listed, or their checksums are.
#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  aiv find /mnt/backup@latest --match '*.docx' --newer 2026-09-01
  aiv find disk.aiv /p2/home --type file --larger 100M
  aiv find disk.aiv /p2/etc --sha256 > sums; sha256sum -c sums\n\n{PATHS}"))]
pub struct Find {
    /// What to look into
    pub image: PathBuf,
    /// Where to begin [default: all volumes]
    #[arg(value_name = "PATH", default_value = "/", hide_default_value = true)]
    pub path: PathBuf,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Read every file, and print its SHA-256 as sha256sum does; exit code 4 where bytes are lost
    #[arg(long)]
    pub sha256: bool,
    #[command(flatten)]
    pub unlock: SecretFiles,
    #[command(flatten)]
    pub luks: LuksFiles,
    #[command(flatten)]
    pub open: OpenArgs,
}

/// What a file is, and what it may name.
#[derive(clap::Args)]
pub struct OpenArgs {
    /// What a file is, where its name and its content do not say the same
    #[arg(long, value_name = "FORMAT", value_parser = choice(&Format::WORDS))]
    pub source_format: Option<Format>,
    /// Which other files a virtual disk may name: none but its own pieces, those in its folder,
    /// or any
    #[arg(long, value_name = "WHERE", default_value = "pieces", value_parser = choice(&Follow::WORDS))]
    pub follow: Follow,
}

impl OpenArgs {
    /// Both for whoever opens it.
    #[must_use]
    pub const fn options(&self) -> OpenOptions {
        OpenOptions { format: self.source_format, follow: self.follow }
    }
}

/// Which files are meant.
#[derive(clap::Args)]
pub struct FilterArgs {
    /// Only what matches, as `*.iso` or `/home/*/.ssh`, from the root of its volume; when files are
    /// extracted, a folder takes everything below it along; repeatable
    #[arg(long = "match", value_name = "PATTERN", value_parser = parse::pattern)]
    pub patterns: Vec<Pattern>,
    /// Upper and lower case of patterns are the same
    #[arg(long, requires = "patterns")]
    pub ignore_case: bool,
    /// Only files of more bytes than this
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub larger: Option<u64>,
    /// Only files of fewer bytes than this
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub smaller: Option<u64>,
    /// Only what was changed at this day or time, or later
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    pub newer: Option<i64>,
    /// Only what was changed before this day or time
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    pub older: Option<i64>,
    /// Only files, folders or symbolic links
    #[arg(long = "type", value_name = "TYPE")]
    #[arg(value_parser = choice(&[("file", FileType::File), ("folder", FileType::Folder),
        ("link", FileType::Link)]))]
    pub file_type: Option<FileType>,
}

impl FilterArgs {
    /// All of it as one filter; none when every file is meant.
    #[must_use]
    pub fn filter(&self) -> Option<Filter> {
        let len = (self.larger.is_some() || self.smaller.is_some()).then(|| {
            let least = self.larger.map_or(0, |bytes| bytes.saturating_add(1));
            let most = self.smaller.map_or(u64::MAX, |bytes| bytes.saturating_sub(1));
            least..=most
        });
        let modified = (self.newer.is_some() || self.older.is_some()).then(|| {
            let first = self.newer.unwrap_or(i64::MIN);
            first..=self.older.map_or(i64::MAX, |end| end.saturating_sub(1))
        });
        let pattern = |pattern: &Pattern| match self.ignore_case {
            true => pattern.without_case(),
            false => pattern.clone(),
        };
        let patterns: Vec<_> = self.patterns.iter().map(pattern).collect();
        let is_some =
            !patterns.is_empty() || len.is_some() || modified.is_some() || self.file_type.is_some();
        let (file_type, ignore_case) = (self.file_type, self.ignore_case);
        is_some.then_some(Filter { patterns, ignore_case, len, modified, file_type })
    }
}

/// Compare two recovery points: files that are new, gone, renamed or changed, and blocks
///
/// Where both are points of one disk, the blocks that changed tell which files have to be read, and
/// the files in which most of them lie are listed: why an incremental is large.
#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  aiv diff /mnt/backup@latest~1 /mnt/backup@latest
  aiv diff old.aiv new.aiv /p2/etc\n\n{PATHS}"))]
pub struct Diff {
    /// The older one
    #[arg(value_name = "IMAGE")]
    pub old: PathBuf,
    /// The newer one
    #[arg(value_name = "IMAGE")]
    pub new: PathBuf,
    /// A folder or file [default: all volumes]
    #[arg(default_value = "/", hide_default_value = true)]
    pub path: PathBuf,
    /// How many of the files are listed in which most changed blocks lie
    #[arg(long, value_name = "N", default_value = "10")]
    pub top: usize,
    #[command(flatten)]
    pub unlock: SecretFiles,
    #[command(flatten)]
    pub luks: LuksFiles,
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Get files and folders out of a recovery point, into a folder, a tar or a zip archive
///
/// Nothing is mounted, and no root is needed. Each file appears when it is complete, with its
/// times, permissions, attributes, links and holes, as far as the place can keep them; what it
/// cannot is counted. A file with bytes that cannot be read comes with zeros in their place, with
/// `.damaged` behind its name, and the exit code is 4. Nothing is written outside of DIR, whatever
/// the names and links in the image say.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("out").required(true)), after_help = format!("\
Examples:
  aiv extract /mnt/backup@latest /p2/home/anna --to /tmp/back
  aiv extract disk.aiv /p2/etc /p2/srv --to /tmp/back --existing skip
  aiv extract disk.aiv /p2 --tar p2.tar --match '*.conf'\n\n{PATHS}"))]
pub struct Extract {
    /// What to look into
    pub image: PathBuf,
    /// Files and folders; a folder comes with everything below it
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The folder to put them into; created when only its last part is missing
    #[arg(long, value_name = "DIR", group = "out")]
    pub to: Option<PathBuf>,
    /// Write a new tar archive, with everything that is known about each file
    #[arg(long, value_name = "FILE", group = "out")]
    pub tar: Option<PathBuf>,
    /// Write a new zip archive, without owners and attributes
    #[arg(long, value_name = "FILE", group = "out")]
    pub zip: Option<PathBuf>,
    /// What to do where a name is taken: nothing at all; leave out files that are there with the
    /// same size, time and bytes, as after an interruption; or overwrite files
    #[arg(long, value_name = "WHAT", default_value = "refuse", conflicts_with_all = ["tar", "zip"])]
    #[arg(value_parser = choice(&[("refuse", Existing::Refuse), ("skip", Existing::Skip),
        ("replace", Existing::Replace)]))]
    pub existing: Existing,
    /// Give files to the one who extracts them, also as root
    #[arg(long, conflicts_with_all = ["tar", "zip"])]
    pub no_owners: bool,
    /// Read everything that was written back from the medium, and compare
    #[arg(long, conflicts_with_all = ["tar", "zip"])]
    pub verify: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub unlock: SecretFiles,
    #[command(flatten)]
    pub luks: LuksFiles,
    #[command(flatten)]
    pub open: OpenArgs,
}
