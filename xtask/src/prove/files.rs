//! Whole trees of files: what `aiv` lists, and the bytes it reads, are what the driver of the
//! filesystem shows. Each volume is made by its own tools and filled through its driver.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aiv_browse::{Disk, FileType, Links, Path as FilePath};
use aiv_jobs::{Listed, Look};
use aiv_testkit::disks::Content;
use aiv_volume_io::partition::SectorSize;
use aiv_volume_io::{FileDisk, Job};
use sha2::{Digest, Sha256};

use super::maps::volumes::Scratch;
use super::{memory, said};
use crate::Outcome;

/// Files of each tree in the full tier.
pub(super) const FILES: u64 = 100_000;
/// Files in a folder but the large one, which has a tenth of all.
const PER_FOLDER: u64 = 250;
/// Folders in folders of the one path that is deep.
const DEEP: u64 = 200;
/// Bytes of the longest name.
const NAME: usize = 255;

/// A filesystem, who makes it, who mounts it, and what it can keep.
struct Kind {
    name: &'static str,
    tool: &'static str,
    options: &'static str,
    driver: &'static str,
    keeps: Keeps,
}

/// What a filesystem keeps of a file, as far as its driver tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Keeps {
    /// Bytes.
    Bytes,
    /// Times and further names as well.
    Times,
    /// All that POSIX knows.
    Everything,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "ext4",
        tool: "mke2fs",
        options: "-q -F -t ext4 -i 8192",
        driver: "ext4",
        keeps: Keeps::Everything,
    },
    Kind {
        name: "xfs",
        tool: "mkfs.xfs",
        options: "-q -f",
        driver: "xfs",
        keeps: Keeps::Everything,
    },
    Kind {
        name: "btrfs",
        tool: "mkfs.btrfs",
        options: "-q -f",
        driver: "btrfs",
        keeps: Keeps::Everything,
    },
    Kind {
        name: "ntfs",
        tool: "mkntfs",
        options: "-q -Q -F",
        driver: "ntfs-3g",
        keeps: Keeps::Times,
    },
    Kind {
        name: "exfat",
        tool: "mkfs.exfat",
        options: "-c 4096",
        driver: "exfat-fuse",
        keeps: Keeps::Bytes,
    },
];

/// What there is to say of a file, by its path below the root.
type Facts = BTreeMap<Vec<u8>, String>;

/// Names that `--only` takes.
pub(super) fn names() -> String {
    KINDS.map(|kind| kind.name).join(", ")
}

/// Compares a tree of `files` files on each filesystem, or on one.
pub(super) fn campaign(only: Option<&str>, files: u64) -> Outcome {
    if only.is_some_and(|only| KINDS.iter().all(|kind| kind.name != only)) {
        return Err(format!("--only is one of {}", names()));
    }
    for kind in KINDS.iter().filter(|kind| only.is_none_or(|only| kind.name == only)) {
        let started = Instant::now();
        let scratch = Scratch::made(((files * 16) << 10).max(400 << 20), kind.tool, kind.options)?;
        let theirs = filled(&scratch, kind, files)?;
        let (made, before) = (started.elapsed(), memory::peak_from_here()?);
        let started = Instant::now();
        let count = compare(&scratch.path, kind, theirs)?;
        let taken = memory::peak()?.saturating_sub(before);
        println!(
            "files: {}: {count} files and folders are as {} shows them; made and read there in \
             {} s, listed and read here in {} ms, {} KiB of memory",
            kind.name,
            kind.driver,
            made.as_secs(),
            started.elapsed().as_millis(),
            taken >> 10,
        );
    }
    Ok(())
}

/// Fills a volume through its driver, and tells what that shows when it is mounted anew.
fn filled(scratch: &Scratch, kind: &Kind, files: u64) -> Result<Facts, String> {
    let failed = |error: io::Error| format!("filling {}: {error}", kind.name);
    scratch
        .with_mounted(kind.driver, "rw", |root| fill(root, kind.keeps, files).map_err(failed))?;
    let failed = |error: io::Error| format!("reading {}: {error}", kind.name);
    scratch.with_mounted(kind.driver, "ro", |root| {
        let mut facts = Facts::new();
        shown(root, root, kind.keeps, &mut facts).map_err(failed)?;
        Ok(facts)
    })
}

fn fill(root: &Path, keeps: Keeps, files: u64) -> io::Result<()> {
    let large = root.join("all in one");
    fs::create_dir(&large)?;
    let mut deep = root.join("deep");
    fs::create_dir(&deep)?;
    let mut folder = root.to_owned();
    for n in 0..files {
        if n % PER_FOLDER == 0 {
            let upper = root.join(format!("Ordner \u{e4}\u{f6} {}", n / PER_FOLDER / 20));
            folder = upper.join(format!("\u{6587}\u{4ef6}{n}"));
            fs::create_dir_all(&folder)?;
        }
        if n < DEEP {
            // Paths that the system takes at once have 4,095 bytes.
            deep.push(format!("{n}"));
            fs::create_dir(&deep)?;
        }
        let place = match n {
            _ if n < DEEP && n % 20 == 0 => &deep,
            _ if n % 10 == 3 => &large,
            _ => &folder,
        };
        make(place, n, keeps)?;
    }
    rustix::fs::syncfs(File::open(root)?)?;
    Ok(())
}

/// One file: most of them small, some with long names, holes, other names, or none of text.
fn make(folder: &Path, n: u64, keeps: Keeps) -> io::Result<()> {
    let len = if n % 500 == 9 { 200_000 } else { (n * 7919 % 9000) as usize };
    let mut name = format!("file {n} \u{1f600}.dat").into_bytes();
    if n % 211 == 5 {
        name = n.to_string().into_bytes();
        name.resize(NAME, b'x');
    }
    if n % 97 == 6 && keeps == Keeps::Everything && name.len() < NAME - 1 {
        name.extend(b"\xff\xfe");
    }
    let path = folder.join(OsStr::from_bytes(&name));
    fs::write(&path, Content::Random(n).bytes(len))?;
    let other = |what: &str| folder.join(format!("{what} {n}"));
    if n % 301 == 7 && keeps > Keeps::Bytes {
        let file = File::create(other("sparse"))?;
        file.set_len(1 << 20)?;
        file.write_all_at(&Content::Random(n).bytes(5000), 700_000)?;
    }
    if n % 50 == 8 && keeps > Keeps::Bytes {
        fs::hard_link(&path, other("again"))?;
    }
    if keeps == Keeps::Everything {
        if n % 40 == 9 {
            symlink(OsStr::from_bytes(&name), other("link"))?;
        }
        if n % 30 == 1 {
            std::os::unix::fs::chown(&path, Some(1000), Some(2000))?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o4711))?;
        }
    }
    Ok(())
}

/// One line on a file: what its filesystem keeps.
struct Line<'a> {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    time: (i64, i64),
    len: u64,
    content: &'a str,
}

impl Line<'_> {
    fn text(&self, keeps: Keeps) -> String {
        let mut text = self.kind.to_string();
        if self.kind != 'd' {
            text += &format!(" {} {}", self.len, self.content);
        }
        if keeps > Keeps::Bytes {
            text += &format!(" {}.{:09}", self.time.0, self.time.1);
        }
        if keeps == Keeps::Everything {
            let (user, group) = self.owner;
            text += &format!(" {:o} {user}:{group}", self.mode);
        }
        if self.kind == '-' && keeps > Keeps::Bytes {
            text += &format!(" {}", self.links);
        }
        text
    }
}

/// What the driver shows of everything below a folder.
fn shown(root: &Path, folder: &Path, keeps: Keeps, facts: &mut Facts) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let (kind, content) = match found.file_type() {
            kind if kind.is_dir() => ('d', String::new()),
            kind if kind.is_symlink() => ('l', format!("{:?}", fs::read_link(&path)?.as_os_str())),
            _ => ('-', hex(&Sha256::digest(fs::read(&path)?))),
        };
        let line = Line {
            kind,
            mode: found.mode() & 0o7777,
            owner: (found.uid(), found.gid()),
            links: found.nlink(),
            time: (found.mtime(), found.mtime_nsec()),
            len: found.len(),
            content: &content,
        };
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        facts.insert(below.as_os_str().as_bytes().to_vec(), line.text(keeps));
        if kind == 'd' {
            shown(root, &path, keeps, facts)?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares what is listed and read here, and counts it.
fn compare(volume: &Path, kind: &Kind, mut theirs: Facts) -> Result<usize, String> {
    let count = theirs.len();
    let job = Job::silent();
    let bytes = Arc::new(FileDisk::open_source(volume).map_err(|e| said(&e))?);
    let disk = Disk::open(bytes, SectorSize::B512, job).map_err(|e| said(&e))?;
    let root = FilePath::parse(b"/p0").map_err(|e| said(&e))?;
    let place = disk.resolve(&root, Links::Keep, job).map_err(|e| said(&e))?;
    let mut wrong = None;
    for sha256 in [true, false] {
        let look = Look { sha256, ..Look::default() };
        let seen = look.at(&disk, &place, job, &mut |file| {
            let is_file = file.metadata.file_type == FileType::File;
            if is_file == sha256 {
                let path = file.path.parts().get(1..).unwrap_or_default().join(&b'/');
                let ours = line_of(file, kind.keeps);
                // Each is there once, and told once.
                let theirs = theirs.remove(&path);
                if theirs.as_ref() != Some(&ours) {
                    let why = format!("{}: {ours}, and there {theirs:?}", file.path);
                    wrong.get_or_insert(why);
                }
            }
            Ok(())
        });
        let seen = seen.map_err(|e| said(&e))?;
        if let Some((path, why)) = seen.troubles.first() {
            return Err(format!("{}: {path}: {why}", kind.name));
        }
    }
    let missing = theirs.keys().next().map(|path| String::from_utf8_lossy(path).into_owned());
    match wrong.or(missing.map(|path| format!("{path} is not listed"))) {
        Some(why) => Err(format!("{}: {why}", kind.name)),
        None => Ok(count),
    }
}

fn line_of(file: &Listed<'_>, keeps: Keeps) -> String {
    let metadata = file.metadata;
    let target = file.target.as_deref().map(|target| format!("{:?}", OsStr::from_bytes(target)));
    let content = file.sha256.clone().or(target).unwrap_or_default();
    let line = Line {
        kind: match metadata.file_type {
            FileType::File => '-',
            FileType::Folder => 'd',
            FileType::Link => 'l',
            _ => '?',
        },
        mode: metadata.mode.map_or(0, u32::from),
        owner: metadata.owner.map_or((0, 0), |owner| (owner.user, owner.group)),
        links: metadata.links.into(),
        time: metadata.modified.map_or((0, 0), |time| (time.seconds, time.nanoseconds.into())),
        len: metadata.len,
        content: &content,
    };
    line.text(keeps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_on_each_filesystem_is_what_its_driver_shows() {
        campaign(None, 300).unwrap();
    }

    #[test]
    fn a_byte_and_a_name_that_differ_are_found() {
        let kind = &KINDS[0];
        let scratch = Scratch::made(400 << 20, kind.tool, kind.options).unwrap();
        let theirs = filled(&scratch, kind, 20).unwrap();
        let changed = |change: &dyn Fn(&mut Facts)| {
            let mut theirs = theirs.clone();
            change(&mut theirs);
            compare(&scratch.path, kind, theirs)
        };
        assert_eq!(changed(&|_| ()), Ok(theirs.len()));
        let other = |theirs: &mut Facts| theirs.values_mut().for_each(|line| line.push('!'));
        assert!(changed(&other).unwrap_err().contains("and there"));
        let more = |theirs: &mut Facts| drop(theirs.insert(b"more".to_vec(), String::new()));
        assert!(changed(&more).unwrap_err().contains("more is not listed"));
        assert!(changed(&|theirs| drop(theirs.pop_first())).unwrap_err().contains("None"));
    }
}
