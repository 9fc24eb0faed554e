//! Floor 8 of Aivory: the words of the command line, and the help that teaches them.
//!
//! What can be said, and nothing of what is done then: completions and manual pages are made from
//! it as well.

#![expect(missing_docs, reason = "the help of a word is its documentation")]

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use aiv_backup_engine::{BlockSize, Compression, Pattern, Sectors};
use aiv_browse::{FileType, Filter};
use aiv_chain::Depth;
use aiv_jobs::{Follow, Format};
use aiv_report::parse;
use aiv_restore_engine::recover::Existing;
use aiv_restore_engine::{Grow, Identity, TableMode, Unused};
use aiv_terminal::{GUARD, KeyCommand, SealArgs, SecretFiles};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
IMAGE is a file, or a point in a folder: DIR@latest, DIR@latest~2 (two points earlier),
DIR@3f9a (the beginning of a point's id), DIR@NAME:latest where a folder holds several sets.
SIZE is in bytes, or with K, M, G or T in powers of 1024.

Exit codes:
    0  done and proven
    1  failed; with --json, error.code says why
    2  the command line is wrong
    3  done with warnings: unreadable sectors, a source in use, an unusable image in a folder
    4  damage found
    5  refused for safety; nothing was written
    6  sealed, and no key was given, or not the right one; nothing was changed
  130  canceled with Ctrl-C; press it twice to stop at once

A first backup, proven, and put onto another disk:
    aiv devices
    aiv backup /dev/sda --to /mnt/backup
    aiv verify /mnt/backup@latest
    aiv restore /mnt/backup@latest --to /dev/sdb";

/// Disk images that can be trusted: back up disks, prove the images, restore them.
#[derive(Parser)]
#[command(name = "aiv", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Print exactly one JSON object on standard output, also on failure
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no report of what was done, only warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// List disks, what is on them, and what is mounted
    #[command(after_help = "Examples:\n  aiv devices\n  aiv devices --json")]
    Devices,
    Backup(Backup),
    /// List the sets and recovery points in a folder
    #[command(after_help = "Examples:\n  aiv list /mnt/backup\n  aiv list /mnt/backup --json")]
    List {
        /// The folder
        dir: PathBuf,
        #[command(flatten)]
        unlock: SecretFiles,
    },
    /// Show what an image says about itself: disk, partitions, machine, time
    #[command(after_help = "Examples:\n  aiv info disk.aiv\n  aiv info /mnt/backup@latest~1")]
    Info {
        /// A file, DIR@latest, DIR@ID or DIR@NAME:latest
        image: PathBuf,
        #[command(flatten)]
        unlock: SecretFiles,
    },
    Verify(Verify),
    Restore(Restore),
    Salvage(Salvage),
    Ls(Ls),
    Cat(Cat),
    Find(Find),
    Diff(Diff),
    Extract(Extract),
    Consolidate(Consolidate),
    Archive(Archive),
    /// Take points, with all the images they need, to another folder
    ///
    /// Every file is read back and proven there. What the other folder has already is not written
    /// again, and nothing is removed from the first one.
    #[command(after_help = "\
Examples:
  aiv copy /mnt/backup --to /mnt/second
  aiv copy /mnt/backup@latest --to /mnt/usb")]
    Copy(Transfer),
    /// Take points to another folder as `copy` does, then remove them from the first
    ///
    /// Removed is what no point that stays needs, newest first, after everything was read back
    /// and proven in the other folder. Refuses to begin when a point that stays builds on one
    /// that goes.
    #[command(after_help = "\
Examples:
  aiv move /mnt/backup --to /mnt/archive
  aiv move /mnt/backup@latest --to /mnt/archive")]
    Move(Transfer),
    /// Show and change what opens sealed images
    #[command(
        subcommand,
        after_help = "\
Examples:
  aiv key list /mnt/backup
  aiv key change /mnt/backup
  aiv key recovery-code /mnt/backup | lp"
    )]
    Key(KeyCommand),
    /// Print a readable account of every byte of an image file
    #[command(after_help = "Examples:\n  aiv dump disk.aiv | less\n  aiv dump /mnt/backup@latest")]
    Dump {
        /// A file, DIR@latest, DIR@ID or DIR@NAME:latest
        image: PathBuf,
        #[command(flatten)]
        unlock: SecretFiles,
    },
    /// Print the specification of the image format
    #[command(after_help = "Examples:\n  aiv format-spec | less\n  aiv format-spec > format.md")]
    FormatSpec,
    #[command(name = GUARD, hide = true)]
    FreezeGuard {
        seconds: u64,
        mounts: Vec<PathBuf>,
    },
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  aiv completions bash > /etc/bash_completion.d/aiv
  aiv completions zsh > /usr/share/zsh/vendor-completions/_aiv")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder
    #[command(after_help = "Examples:\n  aiv man | man -l -\n  aiv man --to /usr/local/man/man1")]
    Man {
        /// The folder to write to
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// Make an image of each of one or several disks, partitions, raw files or virtual disks
///
/// The first image of a source is full; later ones hold what changed since the newest point that
/// can be restored, and are full again when there is none. Points that were lost are listed, and
/// the exit code is 3.
///
/// Free space is left out where a filesystem's own records of it can be trusted (ext2, ext3, ext4,
/// XFS, Btrfs, F2FS, NTFS, FAT, exFAT, swap, also in logical volumes of LVM2); all else is captured
/// whole. The source is never written. An image appears in the folder only after it was written,
/// synced and read back. A backup that was interrupted is gone on with by the same command, if the
/// source still is what was stored of it; one with a key, --split or --parity, or that did not read
/// what --changes left out, begins anew.
///
/// A qcow2, VHD, VHDX or VMDK file is read as the disk it describes, and so is a disk behind an NBD
/// server: nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aiv backup /dev/sda --to /mnt/backup
  aiv backup /dev/sdb1 --to /mnt/backup --differential --freeze --exclude '*.iso'
  aiv backup /dev/vg/db --to /mnt/backup --snapshot --pre-freeze 'db stop' --post-thaw 'db start'
  aiv backup /dev/sda /dev/sdb --to /mnt/backup --rate-limit 100M --seal --password-file pass
  aiv backup vm.qcow2 --follow folder --to . --changes bitmap:monday --compress zstd:9 --verify")]
pub struct Backup {
    /// Block devices, raw disk files, virtual disks, or nbd://HOST/EXPORT
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Folder for the images; created when only its last part is missing
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// What to call the source [default: the name of its device or file]
    #[arg(long)]
    pub name: Option<String>,
    /// What a file is, where its name and its content do not say the same
    #[arg(long, value_name = "FORMAT", value_parser = choice(&Format::WORDS))]
    pub source_format: Option<Format>,
    /// Which other files a virtual disk may name: none but its own pieces, those in its folder,
    /// or any
    #[arg(long, value_name = "WHERE", default_value = "pieces", value_parser = choice(&Follow::WORDS))]
    pub follow: Follow,
    /// Make a full image, which needs no other
    #[arg(long, group = "kind")]
    pub full: bool,
    /// Store what changed since the newest usable point, as is done without any of these
    #[arg(long, group = "kind")]
    pub incremental: bool,
    /// Store what changed since the newest usable full image
    #[arg(long, group = "kind")]
    pub differential: bool,
    /// Store changed blocks whole, not as differences to what they were
    #[arg(long)]
    pub no_delta: bool,
    /// What filesystems use, or every sector
    #[arg(long, default_value = "used")]
    #[arg(value_parser = choice(&[("used", Sectors::Used), ("all", Sectors::All)]))]
    pub sectors: Sectors,
    /// Leave out what files hold whose path in their volume matches, as `*.iso`; repeatable
    #[arg(long, value_name = "PATTERN", value_parser = parse::pattern)]
    pub exclude: Vec<Pattern>,
    /// Begin anew, also where an interrupted backup of the source could be gone on with
    #[arg(long)]
    pub no_resume: bool,
    /// zstd, zstd:LEVEL with a level from 1 to 19, lz4, or none
    #[arg(long, value_name = "METHOD", default_value = "zstd:1", value_parser = parse::compression)]
    pub compress: Compression,
    /// Do not read what `bitmap:NAME`, a dirty bitmap of a qcow2 file or NBD server, does not mark
    #[arg(long, value_name = "HINT", value_parser = parse::changes)]
    pub changes: Option<String>,
    /// Believe nobody about what changed or is zeros: read holes, too
    #[arg(long, conflicts_with = "changes")]
    pub no_hints: bool,
    /// Read at most so many bytes per second
    #[arg(long, value_name = "SIZE", value_parser = parse::rate)]
    pub rate_limit: Option<NonZeroU64>,
    /// Go on although the source is in use; the point is marked inconsistent
    #[arg(long, group = "use")]
    pub live: bool,
    /// Freeze the mounted filesystems of the source while it is read
    #[arg(long, groups = ["use", "still"])]
    pub freeze: bool,
    /// Seconds after which they are thawed in any case, and the backup fails
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "freeze")]
    pub freeze_limit: NonZeroU64,
    /// Read a snapshot of the source, which has to be a logical volume of LVM
    #[arg(long, groups = ["use", "still"])]
    pub snapshot: bool,
    /// Room for what is overwritten meanwhile [default: a tenth of the volume]
    #[arg(long, value_name = "SIZE", requires = "snapshot", value_parser = parse::size)]
    pub snapshot_size: Option<u64>,
    /// Shell command to run before the freeze or snapshot; there is no backup when it fails
    #[arg(long, value_name = "COMMAND", requires = "still")]
    pub pre_freeze: Option<String>,
    /// Shell command to run when writers can go on, whatever happened since --pre-freeze
    #[arg(long, value_name = "COMMAND", requires = "still")]
    pub post_thaw: Option<String>,
    /// Seconds after which such a command is killed
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "still")]
    pub hook_limit: NonZeroU64,
    /// Store parity over the whole image, 3 % more: `verify --repair` mends damage by it
    #[arg(long)]
    pub parity: bool,
    /// Read every block of the finished image back and compare
    #[arg(long)]
    pub verify: bool,
    /// Bytes per block, a power of two from 16K to 4M [default: by the size of the source]
    #[arg(long, value_name = "SIZE", value_parser = parse::block_size)]
    pub block_size: Option<BlockSize>,
    /// Split the image into files of this size at most, 64M or more
    #[arg(long, value_name = "SIZE", value_parser = parse::split)]
    pub split: Option<u64>,
    /// Threads that hash and compress [default: one per processor]
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Identity of the source, instead of the one found on it
    #[arg(long, value_name = "ID")]
    pub source_id: Option<String>,
    /// Text to keep in the image
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub comment: String,
    #[command(flatten)]
    pub protect: SealArgs,
}

/// Prove that images are readable: every structure, every stored byte, every block
///
/// Ends with exit code 4 when anything is damaged, even where a second copy makes up for it; with
/// 3 when --repair could write all of it anew.
/// Results are remembered in the folder, so that --skip-verified can leave out what was proven.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aiv verify /mnt/backup
  aiv verify /mnt/backup --skip-verified 30
  aiv verify /mnt/backup@latest
  aiv verify disk.aiv --depth quick
  aiv verify /mnt/backup --repair --to /mnt/repaired --from /mnt/second")]
pub struct Verify {
    /// An image, or a folder to verify every image in it
    #[arg(value_name = "IMAGE|DIR")]
    pub target: PathBuf,
    /// Structures only, or every stored byte and block as well
    #[arg(long, default_value = "data")]
    #[arg(value_parser = choice(&[("quick", Depth::Quick), ("data", Depth::Data)]))]
    pub depth: Depth,
    /// In a folder, only the images of the set of this name or id
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// In a folder, leave out what was proven within so many days and did not change
    #[arg(long, value_name = "DAYS")]
    pub skip_verified: Option<u64>,
    /// Write what damaged images were, as far as parity or copies tell all of it, into the folder
    /// of --to; not yet those that are split
    #[arg(long, requires = "to")]
    pub repair: bool,
    /// Folder for repaired images; the damaged ones are not touched
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub to: Option<PathBuf>,
    /// Folder that may hold copies of the damaged images; repeatable
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub from: Vec<PathBuf>,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

/// Put a recovery point back onto a device or into a raw file
///
/// Refuses a target that is mounted or otherwise in use, too small, read-only, or holds the
/// image. What exists is overwritten only with --yes, or after its serial number or size was
/// typed. Everything written is read back and compared.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aiv restore /mnt/backup@latest --to /dev/sdb
  aiv restore /mnt/backup@latest --to disk.img
  aiv restore disk.aiv --to /dev/sdb2 --partition 2 --delta --yes")]
pub struct Restore {
    /// A file, DIR@latest, DIR@ID or DIR@NAME:latest, or a file made with --undo
    pub image: PathBuf,
    /// A block device, serial:NUMBER, wwn:NAME, or a raw file, which is created if it is missing
    #[arg(long, value_name = "TARGET", required_unless_present = "plan")]
    pub to: Option<PathBuf>,
    /// IMAGE is a JSON file: {"restores": [{"image": ..., "to": ..., ...}, ...]}
    #[arg(long, conflicts_with_all = ["to", "partition", "undo"])]
    pub plan: bool,
    /// Restore only the partition of this number
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// Read the target first and write only what differs
    #[arg(long)]
    pub delta: bool,
    /// Free space: keep what the target holds there, make it zeros, or give it back
    #[arg(long, default_value = "leave")]
    #[arg(value_parser = choice(&[
        ("leave", Unused::Leave), ("zero", Unused::Zero), ("discard", Unused::Discard)]))]
    pub unused: Unused,
    /// On a target of another size: fit the partition table to it, or keep its bytes
    #[arg(long, default_value = "fit")]
    #[arg(value_parser = choice(&[("fit", TableMode::Fit), ("keep", TableMode::Keep)]))]
    pub table: TableMode,
    /// Partitions that grow, with their filesystems: none, last, or numbers like 2,5
    #[arg(long, value_name = "WHICH", default_value = "none")]
    pub grow: Grow,
    /// Make the last filesystem smaller for a smaller target, in a copy here; so does a dry run
    #[arg(long, value_name = "DIR")]
    pub shrink: Option<PathBuf>,
    /// The GUID or signature of the disk: keep, new, or new-all for new partition GUIDs as well
    #[arg(long, value_name = "WHICH", default_value = "keep")]
    pub identity: Identity,
    /// Keep both ends of the target in this new file first; restore the file to put them back
    #[arg(long, value_name = "FILE")]
    pub undo: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Overwrite a target that exists without asking
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

/// Get out what is left of damaged, cut-off or unfinished images, and list what is lost
///
/// The files are only read, and nothing is overwritten. Exit code 0: everything came back; 3:
/// something is lost.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("out").required(true)), after_help = "\
Examples:
  aiv salvage broken.aiv --list
  aiv salvage broken.aiv --image /mnt/new
  aiv salvage full.aiv one.aii two.aii --to disk.img")]
pub struct Salvage {
    /// The files; several of one chain in any order
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write what is left into this new raw file; what is lost stays a hole
    #[arg(long, value_name = "RAW", group = "out")]
    pub to: Option<PathBuf>,
    /// Write what is left as a new full image into this folder; what is lost is unreadable there
    #[arg(long, value_name = "DIR", group = "out")]
    pub image: Option<PathBuf>,
    /// Read everything and list what is lost; write nothing
    #[arg(long, group = "out")]
    pub list: bool,
    /// In the raw file, write !AIV-UNREADABLE! over and over where bytes are lost
    #[arg(long, requires = "to")]
    pub fill: bool,
    /// Folder with the images they build on [default: that of the first file]
    #[arg(long, value_name = "DIR")]
    pub parent: Option<PathBuf>,
    /// Bytes of the disk, where nothing in the file tells
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub size: Option<u64>,
    /// Bytes per block, where nothing in the file tells
    #[arg(long, value_name = "SIZE", value_parser = parse::block_size)]
    pub block_size: Option<BlockSize>,
}

/// Merge older points into the ones that follow them
///
/// For each set, the newest N points stay, and so do the points named with --keep-point, points
/// that several others build on, and the newest point of every chain. All others vanish: what
/// they hold and later points need moves into one image, copied as it is. That image is written
/// and proven before anything is removed. A running backup is not disturbed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aiv consolidate /mnt/backup --keep 30 --dry-run
  aiv consolidate /mnt/backup --keep 30
  aiv consolidate /mnt/backup --set server --keep 7 --keep-point 3f9a")]
pub struct Consolidate {
    /// The folder
    pub dir: PathBuf,
    /// Newest points that stay, in each set
    #[arg(long, value_name = "N", default_value = "1")]
    pub keep: NonZeroUsize,
    /// A point that stays, by the beginning of its id; may be given several times
    #[arg(long, value_name = "ID")]
    pub keep_point: Vec<String>,
    /// Only the set of this name or id
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// Split what is written into files of this size at most [default: as what is merged]
    #[arg(long, value_name = "SIZE", value_parser = parse::split)]
    pub split: Option<u64>,
    /// Store parity over new images, also where those they are made of have none
    #[arg(long)]
    pub parity: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

/// Make one self-contained file of one point
///
/// The file is a full image that provides the same point; stored blocks are copied as they are.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aiv archive /mnt/backup@latest --to /mnt/usb/server.aiv
  aiv archive /mnt/backup@server:latest~5 --to server.aiv")]
pub struct Archive {
    /// A file, DIR@latest, DIR@ID or DIR@NAME:latest
    pub image: PathBuf,
    /// The new file; its folder must exist
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Split it into files of this size at most [default: as the images of the point]
    #[arg(long, value_name = "SIZE", value_parser = parse::split)]
    pub split: Option<u64>,
    #[command(flatten)]
    pub unlock: SecretFiles,
    /// Store parity over the file, also where the images it is made of have none
    #[arg(long)]
    pub parity: bool,
}

// No documentation here: it would replace that of the commands.
#[derive(clap::Args)]
pub struct Transfer {
    /// A folder with all its sets, or a point: a file, DIR@latest, DIR@ID, DIR@NAME:latest
    #[arg(value_name = "IMAGE|DIR")]
    pub what: PathBuf,
    /// The other folder; created when only its last part is missing
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

const PATHS: &str = "\
IMAGE is a file, DIR@latest, DIR@ID or DIR@NAME:latest; or a raw or virtual disk, or a device, that
is no image yet. PATH begins with a volume: /p2/etc is the folder etc on partition 2, /p0 the whole
disk where it has no partition table; a label may stand for its volume where only one has it.";

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
}

/// Find files of a recovery point by name, size, time and type, and list them or their checksums
#[derive(clap::Args)]
#[command(after_help = format!("\
Examples:
  aiv find /mnt/backup@latest --match '*.docx' --newer 2026-09-01
  aiv find disk.aiv /p2/home --type file --larger 100M
  aiv find disk.aiv /p2/etc --sha256 > sums; sha256sum --check sums\n\n{PATHS}"))]
pub struct Find {
    /// What to look into
    pub image: PathBuf,
    /// Where to begin [default: all volumes]
    #[arg(value_name = "PATH", default_value = "/", hide_default_value = true)]
    pub path: PathBuf,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Read every file, and print its SHA-256 as sha256sum does
    #[arg(long)]
    pub sha256: bool,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

/// Which files are meant.
#[derive(clap::Args)]
pub struct FilterArgs {
    /// Only what matches, as `*.iso` or `/home/*/.ssh`, from the root of its volume; repeatable
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
    /// same size and time, as after an interruption; or overwrite files
    #[arg(long, value_name = "WHAT", default_value = "refuse", requires = "to")]
    #[arg(value_parser = choice(&[("refuse", Existing::Refuse), ("skip", Existing::Skip),
        ("replace", Existing::Replace)]))]
    pub existing: Existing,
    /// Give files to the one who extracts them, also as root
    #[arg(long, requires = "to")]
    pub no_owners: bool,
    /// Read everything that was written back from the medium, and compare
    #[arg(long, requires = "to")]
    pub verify: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub unlock: SecretFiles,
}

/// One of a few words.
fn choice<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word)).try_map(|found| {
        words.iter().find(|(word, _)| *word == found).map(|(_, value)| *value).ok_or("unknown word")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
