//! Files of ext volumes of an attacker: no panic, no endless work; and where there are checksums,
//! never a wrong answer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_filesystems::{Attribute, Error, FileId, FileType, Filesystem, Metadata};
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, Sums, changes};
use aiv_volume_io::{Extent, MemDisk, ReadAt};

use crate::ext_reader::set;
use crate::ext_tools::{MIB, mke2fs};
use crate::reader_tools::{exhaust, names_of, opened};
use crate::tools::{Mounted, run};

/// A volume with changes, which fails once more was read of it than is honest.
struct Mutant {
    volume: Arc<MemDisk>,
    changes: Changes,
    left: AtomicU64,
}

impl Mutant {
    fn new(volume: &Arc<MemDisk>, changes: Changes) -> Arc<Self> {
        let left = AtomicU64::new(200 * volume.len());
        Arc::new(Self { volume: volume.clone(), changes, left })
    }
}

impl ReadAt for Mutant {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let len = out.len() as u64;
        let take = |left: u64| left.checked_sub(len);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.left.store(0, Ordering::Relaxed);
            return Err(io::Error::other("more was read than is honest"));
        }
        self.volume.read_exact_at(out, offset)?;
        for (&at, &value) in self.changes.range(offset..offset + len) {
            out[usize::try_from(at - offset).unwrap()] = value;
        }
        Ok(())
    }
}

/// Every kind of record; contents are alike everywhere, so that records are told from them.
fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for n in 0..40 {
        let folder = root.join(["", "a", "a/b", "a/b/c"][n % 4]);
        fs::write(folder.join(format!("file{n}")), vec![7; 700 * (n % 7)]).unwrap();
    }
    fs::write(root.join("a/large"), vec![7; 400_000]).unwrap();
    fs::hard_link(root.join("a/large"), root.join("a/b/large")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for n in 0..420 {
        sparse.write_all_at(&[7; 512], n * 4096).unwrap();
    }
    fs::create_dir(root.join("many")).unwrap();
    for n in 0..120 {
        let name = format!("many/a name of some length that fills the folder {n}");
        File::create(root.join(name)).unwrap();
    }
    symlink("short", root.join("short")).unwrap();
    symlink("\u{7}".repeat(200), root.join("long")).unwrap();
    run("mknod", &[root.join("device").to_str().unwrap(), "c", "300", "70000"]);
    for n in 0..4 {
        let path = root.join(format!("a/file{}", 1 + 4 * n));
        set(&path, "user.short", &[n; 10]);
        set(&path, "user.long", &[7; 400]);
        run("setfacl", &["-m", "u:1000:rw", path.to_str().unwrap()]);
    }
}

fn filled(options: &str) -> Arc<MemDisk> {
    let volume = mke2fs(6 * MIB, options);
    fill(Mounted::new(&volume, "rw,user_xattr,acl").path());
    Arc::new(MemDisk::from_bytes(fs::read(&volume.path).unwrap()))
}

/// Sectors with something in them that is not contents.
fn records(volume: &MemDisk) -> Vec<Extent> {
    let mut records = Vec::new();
    let mut bytes = [0; 512];
    for at in (0..volume.len()).step_by(512) {
        volume.read_exact_at(&mut bytes, at).unwrap();
        let is_record = bytes.iter().any(|byte| *byte != bytes[0]);
        let is_contents = bytes.contains(&7) && bytes.iter().all(|byte| [0, 7].contains(byte));
        if is_record && !is_contents {
            records.push(Extent::new(at, 512));
        }
    }
    records
}

/// Volumes with changes in their records, read as far as they can be.
fn attack(volume: &Arc<MemDisk>, sums: Sums, seeds: Range<u64>) {
    let sound = exhaust(Mutant::new(volume, Changes::new()));
    assert!(sound > 150, "{sound} files");
    let records = records(volume);
    let (cases, mut readable) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let mut changed = changes(&mut Random::new(&[seed]), volume, &records);
        sums.mend(volume, &records, &mut changed);
        let mutant = Mutant::new(volume, changed);
        readable += u64::from(exhaust(mutant.clone()) > 10);
        assert!(mutant.left.load(Ordering::Relaxed) > 0, "seed {seed}: endless reading");
    }
    assert!(readable > cases / 3, "{readable} of {cases} can be read");
}

const VARIANTS: [&str; 5] = [
    "-t ext2 -b 1024",
    "-t ext4 -b 1024 -O ^metadata_csum,^has_journal",
    "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,inline_data,ea_inode",
    "-t ext4 -b 4096 -O ^metadata_csum,inline_data,^has_journal -I 1024",
    "-t ext4 -b 1024 -O ^metadata_csum,bigalloc,^has_journal,^resize_inode -C 2048",
];

#[test]
fn files_of_changed_volumes_are_read_as_far_as_they_can_be() {
    for options in VARIANTS {
        attack(&filled(options), Sums::None, 0..150);
    }
    attack(&filled("-t ext4 -b 1024 -O ^has_journal"), Sums::Ext, 0..150);
}

/// All that is said of a file, its contents as their first bytes and a sum.
type Said = (Metadata, Option<Result<Vec<u8>, ()>>, Option<Vec<Attribute>>);

/// All that is said of a volume, and what cannot be read.
fn said(filesystem: &dyn Filesystem) -> BTreeMap<Vec<u8>, Option<Said>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(Vec::new(), filesystem.root())];
    while let Some((path, id)) = todo.pop() {
        assert!(found.len() < 1000);
        let Ok(metadata) = filesystem.metadata(id) else {
            found.insert(path, None);
            continue;
        };
        let contents = match metadata.file_type {
            FileType::File => Some(contents(filesystem, id).map_err(drop)),
            FileType::Link => Some(filesystem.link_target(id).map_err(drop)),
            _ => None,
        };
        if metadata.file_type == FileType::Folder {
            for (name, child) in names_of(filesystem, id) {
                todo.push(([&path, &b"/"[..], &name].concat(), child));
            }
        }
        found.insert(path, Some((metadata, contents, filesystem.attributes(id).ok())));
    }
    found
}

fn contents(filesystem: &dyn Filesystem, id: FileId) -> Result<Vec<u8>, Error> {
    let data = filesystem.open(id)?;
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
    data.read_exact_at(&mut bytes, 0).unwrap();
    Ok(bytes)
}

/// What can be read of changed volumes is what it was. Of an inode whose second half says that it is
/// empty only 16 bits of its checksum count: among very many changes one will pass.
fn check_never_wrong(volume: &Arc<MemDisk>, seeds: Range<u64>) {
    let sound = said(&*opened(volume.clone()).unwrap());
    let is_whole = |said: &Option<Said>| {
        said.as_ref().is_some_and(|said| said.1 != Some(Err(())) && said.2.is_some())
    };
    assert!(sound.len() > 150 && sound.values().all(is_whole));
    let records = records(volume);
    let (cases, mut less) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let changed = changes(&mut Random::new(&[seed]), volume, &records);
        let what = format!("seed {seed}: {changed:?}");
        let Ok(filesystem) = opened(Mutant::new(volume, changed)) else { continue };
        let found = said(&*filesystem);
        less += u64::from(found.len() < sound.len() || !found.values().all(is_whole));
        for (path, found) in found {
            let name = path.escape_ascii();
            let was = sound.get(&path).unwrap_or_else(|| panic!("{name} is new: {what}"));
            let (Some(found), Some(was)) = (found, was) else { continue };
            assert_eq!(found.0, was.0, "{name}: {what}");
            if let Some(Ok(_)) = &found.1 {
                assert!(found.1 == was.1, "{name} has other contents: {what}");
            }
            if found.2.is_some() {
                assert_eq!(found.2, was.2, "{name}: {what}");
            }
        }
    }
    assert!(less > cases / 3, "{less} of {cases} have faults");
}

#[test]
fn with_checksums_what_can_be_read_of_a_changed_volume_is_what_it_was() {
    for options in [
        "-t ext4 -b 1024 -O ^has_journal",
        "-t ext4 -b 1024 -O ^has_journal,inline_data,ea_inode,metadata_csum_seed",
    ] {
        check_never_wrong(&filled(options), 0..250);
    }
}
