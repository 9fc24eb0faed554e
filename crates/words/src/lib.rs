//! Floor 8 of Aivory: the words of the command line, and the help that teaches them.
//!
//! What can be said, and nothing of what is done then: completions and manual pages are made from
//! it as well.

#![expect(missing_docs, reason = "the help of a word is its documentation")]

mod files;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use aiv_backup_engine::{BlockSize, Compression, Pattern, Sectors};
use aiv_chain::Depth;
use aiv_report::parse;
use aiv_restore_engine::{Grow, Identity, TableMode, Unused};
use aiv_terminal::{GUARD, KeyCommand, LuksFiles, SealArgs, SecretFiles};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

pub use files::{Cat, Diff, Extract, FilterArgs, Find, Ls, OpenArgs};

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
/// source still is what was stored of it, and --split and --parity are as they were; one that did
/// not read what --changes left out begins anew.
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
    #[command(flatten)]
    pub open: OpenArgs,
    /// Make a full image, which needs no other
    #[arg(long, group = "kind")]
    pub full: bool,
    /// Store what changed since the newest usable point, as is done without any of these
    #[arg(long, group = "kind")]
    pub incremental: bool,
    /// Store what changed since the newest usable full image
    #[arg(long, group = "kind")]
    pub differential: bool,
    /// Store blocks whole, not as differences to what they were, or to others of the image
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
    /// Do not read what did not change, by `bitmap:NAME` (qcow2, NBD), `era:N` or `thin:ID` (--marks)
    #[arg(long, value_name = "HINT", value_parser = parse::changes)]
    pub changes: Option<String>,
    /// What `era_dump` or `thin_delta` say of the source, for this and later --changes
    #[arg(long, value_name = "FILE")]
    pub marks: Vec<PathBuf>,
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
    /// Read a snapshot of the source, which has to be a logical volume of LVM or a volume of ZFS
    #[arg(long, groups = ["use", "still"])]
    pub snapshot: bool,
    /// Room for what is overwritten meanwhile, of LVM without a pool [default: a tenth of the volume]
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

/// How much `verify` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyDepth {
    /// Structures.
    Quick,
    /// Every stored byte and block.
    Data,
    /// Every record of the filesystems inside, too.
    Filesystem,
}

impl VerifyDepth {
    /// What that is for the image itself.
    #[must_use]
    pub const fn of_image(self) -> Depth {
        match self {
            Self::Quick => Depth::Quick,
            Self::Data | Self::Filesystem => Depth::Data,
        }
    }

    /// The word of the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Data => "data",
            Self::Filesystem => "filesystem",
        }
    }
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
  aiv verify /mnt/backup@latest --depth filesystem
  aiv verify /mnt/backup --repair --to /mnt/repaired --from /mnt/second")]
pub struct Verify {
    /// A folder, with every image in it; a point, with those it is read through; or an image file
    #[arg(value_name = "IMAGE|DIR")]
    pub target: PathBuf,
    /// Structures only; every stored byte and block as well; or also every folder and record of
    /// the filesystems inside, of the newest point of each set, and what the disk has to boot
    #[arg(long, default_value = "data")]
    #[arg(value_parser = choice(&[("quick", VerifyDepth::Quick), ("data", VerifyDepth::Data),
        ("filesystem", VerifyDepth::Filesystem)]))]
    pub depth: VerifyDepth,
    /// In a folder, only the images of the set of this name or id
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// In a folder, leave out what was proven within so many days and did not change
    #[arg(long, value_name = "DAYS")]
    pub skip_verified: Option<u64>,
    /// Write what damaged images were, as far as parity or copies tell all of it, into the folder
    /// of --to; of a split one all files
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
    #[command(flatten)]
    pub luks: LuksFiles,
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
    /// The partition table: fit it to the target, make an MBR a GPT as well, or keep its bytes
    #[arg(long, default_value = "fit")]
    #[arg(value_parser = choice(&[
        ("fit", TableMode::Fit), ("gpt", TableMode::Gpt), ("keep", TableMode::Keep)]))]
    pub table: TableMode,
    /// Partitions that grow, with their filesystems: none, last, or numbers like 2,5
    #[arg(long, value_name = "WHICH", default_value = "none")]
    pub grow: Grow,
    /// Make a filesystem smaller for a smaller target, in a copy here; so does a dry run
    #[arg(long, value_name = "DIR")]
    pub shrink: Option<PathBuf>,
    /// GUID or signature of the disk: keep, unique (no other disk may have it), new, or new-all
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
/// The files are only read, and nothing is overwritten. Sealed images take their key, which any
/// image of the chain leads to; the new image is sealed with it again. `aiv verify --repair` needs
/// no key. Exit code 0: everything came back; 3: something is lost; 6: it is sealed, and nothing
/// opened it.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("out").required(true)), after_help = "\
Examples:
  aiv salvage broken.aiv --list
  aiv salvage broken.aiv --image /mnt/new
  aiv salvage sealed.aiv --image /mnt/new --password-file /root/pass
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
    /// Write the new image without a key, though the damaged one has one: whoever gets it reads it
    #[arg(long, requires = "image")]
    pub plain: bool,
    /// In the raw file, write !AIV-UNREADABLE! over and over where bytes are lost
    #[arg(long, requires = "to")]
    pub fill: bool,
    /// Folder with the images they build on, or the key slots of their chain [default: that of the
    /// first file]
    #[arg(long, value_name = "DIR")]
    pub parent: Option<PathBuf>,
    /// Bytes of the disk, where nothing in the file tells
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub size: Option<u64>,
    /// Bytes per block, where nothing in the file tells
    #[arg(long, value_name = "SIZE", value_parser = parse::block_size)]
    pub block_size: Option<BlockSize>,
    #[command(flatten)]
    pub unlock: SecretFiles,
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

/// One of a few words.
pub(crate) fn choice<T: Copy + Send + Sync + 'static>(
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
