//! Files of Btrfs volumes of an attacker: no panic, no endless work, no bytes of anything else.

use std::fs;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use aiv_filesystems::{Error, FileId, FileType, Filesystem};
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, Mutated, Sums, changes};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::btrfs_forge::{Item, forge_items, items, places_in, places_of, root_of, set_items};
use crate::btrfs_reader::{find, open};
use crate::btrfs_tools::{chunks_by_dump, mkfs, super_field};
use crate::ext_tools::MIB;
use crate::reader_tools::{exhaust, opened};
use crate::tools::{Mounted, Volume, noise, run};

const FILES: u64 = 5;
const SUMS: u64 = 7;

/// A few files, whose records are in one leaf.
static SMALL: LazyLock<Volume> = LazyLock::new(|| {
    let volume = mkfs(48 * MIB, "-m single");
    let mounted = Mounted::new(&volume, "rw,compress=zstd");
    let root = mounted.path();
    fs::write(root.join("plain"), noise(1, 100_000)).unwrap();
    fs::write(root.join("packed"), "text ".repeat(20_000)).unwrap();
    fs::write(root.join("inline"), noise(2, 100)).unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("folder/inner"), b"").unwrap();
    std::os::unix::fs::symlink("target", root.join("link")).unwrap();
    run("setfattr", &["-n", "user.a", "-v", "value", root.join("folder").to_str().unwrap()]);
    let subvolume = root.join("subvolume");
    run("btrfs", &["subvolume", "create", subvolume.to_str().unwrap()]);
    drop(mounted);
    volume
});

/// Its bytes, and where the leaves of files and of checksums are.
static BYTES: LazyLock<(Arc<MemDisk>, [u64; 2])> = LazyLock::new(|| {
    let bytes = MemDisk::from_bytes(fs::read(&SMALL.path).unwrap());
    let places = [FILES, SUMS].map(|tree| places_of(&SMALL, root_of(&SMALL, tree))[0]);
    (Arc::new(bytes), places)
});

/// A volume with a leaf that was written over.
struct Forged {
    volume: Arc<MemDisk>,
    place: u64,
    leaf: Vec<u8>,
}

impl ReadAt for Forged {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.volume.read_exact_at(out, offset)?;
        let read = Extent::new(offset, out.len() as u64);
        let (start, end) =
            (self.place.max(offset), read.end().min(self.place + self.leaf.len() as u64));
        if start < end {
            let [from, to, skip] = [start - offset, end - offset, start - self.place]
                .map(|number| usize::try_from(number).unwrap());
            out[from..to].copy_from_slice(&self.leaf[skip..][..to - from]);
        }
        Ok(())
    }
}

/// The volume with changed items of one of its trees.
fn forged(tree: u64, change: impl FnOnce(&mut Vec<Item>)) -> Forged {
    let (volume, [files, sums]) = &*BYTES;
    let place = if tree == FILES { *files } else { *sums };
    let mut leaf = vec![0; 16_384];
    volume.read_exact_at(&mut leaf, place).unwrap();
    let mut changed = items(&leaf);
    change(&mut changed);
    set_items(&mut leaf, &changed);
    let sum = crc32c::crc32c(&leaf[32..]);
    leaf[..4].copy_from_slice(&sum.to_le_bytes());
    Forged { volume: volume.clone(), place, leaf }
}

/// The number of a file.
fn number(path: &str) -> u64 {
    find(&*open(&SMALL), path).number
}

/// With another byte string in an item of a file.
fn with_item(path: &str, kind: u8, change: impl Fn(&mut Item)) -> Box<dyn Filesystem> {
    let number = number(path);
    let disk = Arc::new(forged(FILES, |items| {
        change(items.iter_mut().find(|item| item.0.0 == number && item.0.1 == kind).unwrap());
    }));
    exhaust(disk.clone());
    opened(disk).unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reading all of the file fails, and other files can be read.
fn check_contents(path: &str, change: impl Fn(&mut Item), expected: &str) {
    let filesystem = with_item(path, 108, change);
    let data = filesystem.open(find(&*filesystem, path)).unwrap();
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
    let failure = data.read_exact_at(&mut bytes, 0).expect_err(expected).to_string();
    assert!(failure.contains(expected), "{failure}, not {expected}");
    let other = if path == "plain" { "inline" } else { "plain" };
    let data = filesystem.open(find(&*filesystem, other)).unwrap();
    let mut bytes = vec![0; usize::try_from(data.len()).unwrap()];
    data.read_exact_at(&mut bytes, 0).unwrap();
}

#[test]
fn extents_that_are_none() {
    let check = |change: &dyn Fn(&mut Item), expected| check_contents("plain", change, expected);
    check(&|item| item.1.truncate(20), "its item is too short");
    check(&|item| item.1.truncate(52), "its kind is unknown");
    check(&|item| item.1[20] = 3, "its kind is unknown");
    check(&|item| item.1[16] = 4, "compressed in a way that is not known");
    check(&|item| item.1[17] = 1, "encoded in a way that is not known");
    check(&|item| item.1[18] = 1, "encoded in a way that is not known");
    for at in [21, 29, 37, 45] {
        check(&|item| item.1[at] = 1, "it does not consist of sectors");
    }
    check(&|item| item.0.2 += 1, "it does not consist of sectors");
    check(&|item| put(&mut item.1, 45, 0), "its length is out of range");
    check(&|item| put(&mut item.1, 45, u64::MAX << 12), "longer than what it is a part of");
    check(&|item| put(&mut item.1, 37, u64::MAX << 12), "longer than what it is a part of");
    check(&|item| put(&mut item.1, 37, 4096), "longer than what it is a part of");
    check(&|item| put(&mut item.1, 29, u64::MAX << 12), "longer than what it is a part of");
    check(&|item| put(&mut item.1, 21, 1 << 50), "in no chunk of data");
    check(&|item| put(&mut item.1, 21, u64::MAX << 20), "in no chunk of data");
}

#[test]
fn extents_that_lie_elsewhere_have_no_checksum_or_a_wrong_one() {
    // Free space, and tree blocks.
    let move_by = |by: u64| {
        move |item: &mut Item| {
            let logical = u64::from_le_bytes(item.1[21..29].try_into().unwrap());
            put(&mut item.1, 21, logical.wrapping_add(by));
        }
    };
    let filesystem = with_item("plain", 108, move_by(4 * MIB));
    let data = filesystem.open(find(&*filesystem, "plain")).unwrap();
    let failure = data.read_exact_at(&mut [0; 100], 0).unwrap_err().to_string();
    assert!(failure.ends_with("is missing"), "{failure}");
    let tree = root_of(&SMALL, FILES);
    check_contents("plain", |item| put(&mut item.1, 21, tree), "in no chunk of data");
    check_contents("plain", |item| put(&mut item.1, 21, 4096), "in no chunk of data");
}

#[test]
fn compressed_extents_that_are_none() {
    let check = |change: &dyn Fn(&mut Item), expected| check_contents("packed", change, expected);
    for method in [1, 2] {
        check(&|item| item.1[16] = method, "is damaged");
    }
    check(&|item| put(&mut item.1, 8, 1 << 40), "longer than compressed ones can be");
    check(&|item| put(&mut item.1, 29, 1 << 20), "longer than compressed ones can be");
    check(&|item| put(&mut item.1, 8, 4096), "longer than what it is a part of");
    check(&|item| put(&mut item.1, 37, 1 << 40), "longer than what it is a part of");
    let check = |change: &dyn Fn(&mut Item), expected| check_contents("inline", change, expected);
    check(&|item| put(&mut item.1, 8, 99), "does not fit into its item");
    check(&|item| put(&mut item.1, 8, u64::MAX), "does not fit into its item");
    for method in 1..4 {
        check(&|item| item.1[16] = method, "is damaged");
        let huge = move |item: &mut Item| {
            item.1[16] = method;
            put(&mut item.1, 8, u64::MAX);
        };
        check(&huge, "does not fit into its item");
    }
}

#[test]
fn extents_that_overlap() {
    let number = number("plain");
    let disk = Arc::new(forged(FILES, |items| {
        let n = items.iter().position(|item| item.0.0 == number && item.0.1 == 108).unwrap();
        let ((file, kind, _), data) = items[n].clone();
        items.insert(n + 1, ((file, kind, 8192), data));
    }));
    exhaust(disk.clone());
    let filesystem = opened(disk).unwrap();
    let data = filesystem.open(find(&*filesystem, "plain")).unwrap();
    let failure = data.read_exact_at(&mut [0; 20_000], 0).unwrap_err().to_string();
    assert!(failure.ends_with("extents of a file overlap"), "{failure}");
    assert!(data.extents().is_err() && data.holes(Extent::new(0, 100_000)).is_err());
}

#[test]
fn lengths_nothing_backs() {
    for len in [1 << 40, u64::MAX >> 1, u64::MAX] {
        let filesystem = with_item("plain", 1, |item| put(&mut item.1, 16, len));
        match filesystem.open(find(&*filesystem, "plain")) {
            Ok(data) => {
                assert_eq!(data.len(), len);
                let mut bytes = [1; 100];
                data.read_exact_at(&mut bytes, len - 100).unwrap();
                assert_eq!(bytes, [0; 100]);
                data.extents().unwrap();
                assert_ne!(len, u64::MAX);
            }
            // No kernel can count so far.
            Err(error) => assert!(len == u64::MAX && matches!(error, Error::Damaged { .. })),
        }
        let filesystem = with_item("link", 1, |item| put(&mut item.1, 16, len));
        let link = filesystem.link_target(find(&*filesystem, "link"));
        assert!(matches!(link, Err(Error::Damaged { .. })), "{link:?}");
    }
}

/// The names in the top folder, and how telling them ended.
fn told(filesystem: &dyn Filesystem) -> (Vec<Vec<u8>>, Result<(), Error>) {
    let mut told = Vec::new();
    let read = filesystem.entries(filesystem.root(), Job::silent(), &mut |entry| {
        told.push(entry.name);
        ControlFlow::Continue(())
    });
    (told, read)
}

/// One of the records of names is not as it must be: so many are told, then an error.
fn check_names(count: usize, change: impl Fn(&mut Item)) {
    let disk = Arc::new(forged(FILES, |items| {
        let is_name = |item: &&mut Item| item.0.0 == 256 && item.0.1 == 96;
        change(items.iter_mut().find(is_name).unwrap());
    }));
    exhaust(disk.clone());
    let (told, read) = told(&*opened(disk).unwrap());
    assert_eq!(told.len(), count, "{told:?}");
    assert!(matches!(read, Err(Error::Damaged { .. })), "{read:?}");
}

#[test]
fn names_that_are_none() {
    assert_eq!(told(&*open(&SMALL)).0.len(), 6);
    let rename = |name: &'static [u8]| {
        check_names(5, |item| {
            item.1.truncate(30);
            item.1.extend(name);
            item.1[27..29].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        });
    };
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b"inline", &[b'a'; 256]] {
        rename(name);
    }
    check_names(5, |item| item.1[27] = 200);
    check_names(5, |item| item.1[28] = 0xff);
    check_names(5, |item| item.1.truncate(29));
    check_names(6, |item| item.1.push(0));
    // To no file.
    check_names(5, |item| item.1[8] = 2);
    // To subvolumes there cannot be.
    check_names(5, |item| {
        item.1[8] = 132;
        put(&mut item.1, 0, 2);
    });
}

#[test]
fn folders_within_themselves_and_names_of_nothing() {
    for target in [256, 255, 0, u64::MAX, 1 << 40] {
        let disk = Arc::new(forged(FILES, |items| {
            for item in items.iter_mut().filter(|item| [84, 96].contains(&item.0.1)) {
                put(&mut item.1, 0, target);
            }
        }));
        exhaust(disk.clone());
        let filesystem = opened(disk).unwrap();
        let file = find(&*filesystem, "plain");
        match target {
            256 => {
                assert_eq!(file, filesystem.root());
                assert!(matches!(filesystem.open(file), Err(Error::WrongType { .. })));
            }
            _ => assert!(matches!(filesystem.metadata(file), Err(Error::Damaged { .. }))),
        }
    }
}

#[test]
fn a_subvolume_that_cannot_be_read_keeps_its_name() {
    let [cut, elsewhere, newer, other]: [&dyn Fn(&mut Item); 4] = [
        &|item| item.1.truncate(100),
        &|item| put(&mut item.1, 176, 4096),
        &|item| put(&mut item.1, 160, 99),
        &|item| item.0.2 = 1,
    ];
    // Which of several commits a root is of is nobody's business.
    for (change, is_read) in [(cut, false), (elsewhere, false), (newer, false), (other, true)] {
        let volume = SMALL.duplicate();
        forge_items(&volume, root_of(&volume, 1), |items| {
            change(items.iter_mut().find(|item| item.0.0 == 256 && item.0.1 == 132).unwrap());
        });
        exhaust(Arc::new(volume.open()));
        let filesystem = open(&volume);
        let (told, read) = told(&*filesystem);
        assert_eq!((told.len(), read.is_ok()), (6, true));
        let subvolume = find(&*filesystem, "subvolume");
        assert_eq!((subvolume.space, subvolume.number), (256, 256));
        match filesystem.metadata(subvolume) {
            Err(Error::Damaged { .. }) => assert!(!is_read),
            other => assert!(other.is_ok() && is_read, "{other:?}"),
        }
    }
}

#[test]
fn numbers_that_were_never_given_out() {
    let filesystem = open(&SMALL);
    for space in [0, 1, 2, 3, 4, 5, 6, 7, 256, 257, u64::MAX, u64::MAX - 9] {
        for number in [0, 1, 2, 5, 255, 256, 257, 300, u64::MAX, u64::MAX - 256] {
            let file = FileId { space, number };
            let is_there = filesystem.metadata(file).is_ok();
            assert!(!is_there || [5, 256].contains(&space), "{file:?}");
            let _ = filesystem.open(file).map(|data| data.extents());
            let _ = (filesystem.attributes(file), filesystem.link_target(file));
            let _ = filesystem.entries(file, Job::silent(), &mut |_| ControlFlow::Continue(()));
            let _ = filesystem.lookup(file, b"plain", Job::silent());
        }
    }
}

#[test]
fn records_of_files_that_are_none() {
    for change in [
        (&|item: &mut Item| item.1.truncate(159)) as &dyn Fn(&mut Item),
        &|item| item.0.1 = 2,
        &|item| item.0.2 = 1,
    ] {
        let filesystem = with_item("plain", 1, change);
        let failure = filesystem.metadata(find(&*filesystem, "plain"));
        assert!(matches!(failure, Err(Error::Damaged { .. })), "{failure:?}");
        filesystem.metadata(find(&*filesystem, "inline")).unwrap();
    }
    let filesystem = with_item("plain", 1, |item| item.1[52..56].fill(0xff));
    let metadata = filesystem.metadata(find(&*filesystem, "plain")).unwrap();
    assert_eq!((metadata.file_type, metadata.mode), (FileType::Unknown, Some(0o7777)));
}

#[test]
fn attributes_that_are_none() {
    for change in [
        (&|item: &mut Item| item.1[25] = 100) as &dyn Fn(&mut Item),
        &|item| item.1[27] = 0,
        &|item| item.1[27] = 0xff,
        &|item| item.1.truncate(20),
        &|item| item.1[32] = 0,
    ] {
        let filesystem = with_item("folder", 24, change);
        let attributes = filesystem.attributes(find(&*filesystem, "folder"));
        assert!(matches!(attributes, Err(Error::Damaged { .. })), "{attributes:?}");
    }
}

#[test]
fn checksums_of_other_places() {
    for change in [
        (&|item: &mut Item| item.0.2 += 1) as &dyn Fn(&mut Item),
        &|item| item.0.2 += 4096,
        &|item| item.1.clear(),
        &|item| item.1.truncate(7),
        &|item| item.1.fill(0),
        &|item| item.0.0 = 1,
    ] {
        let disk = Arc::new(forged(SUMS, |items| change(&mut items[0])));
        exhaust(disk.clone());
        let filesystem = opened(disk).unwrap();
        let data = filesystem.open(find(&*filesystem, "plain")).unwrap();
        let failure = data.read_exact_at(&mut vec![0; 100_000], 0).unwrap_err().to_string();
        assert!(failure.contains("checksum of the data at byte"), "{failure}");
    }
}

/// A small volume with something of everything, and where its live tree blocks are.
fn seed(options: &str, mount: &str) -> (MemDisk, Vec<Extent>) {
    let volume = mkfs(48 * MIB, options);
    let mounted = Mounted::new(&volume, mount);
    let path = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
    run("btrfs", &["subvolume", "create", &path("home")]);
    for n in 0..30 {
        let len = [5, 300, 5000][n % 3] + n;
        fs::write(path(&format!("home/file{n}")), noise(n as u64, len)).unwrap();
    }
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("folder/text"), "more text\n".repeat(5000)).unwrap();
    fs::write(path("folder/noise"), noise(9, 40_000)).unwrap();
    let sparse = fs::File::create(path("sparse")).unwrap();
    for n in 0..10 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"something", n * 12_288).unwrap();
    }
    std::os::unix::fs::symlink("target", path("link")).unwrap();
    run("setfattr", &["-n", "user.a", "-v", "b", &path("folder")]);
    run("btrfs", &["subvolume", "snapshot", &path("home"), &path("folder/snapshot")]);
    fs::write(path("folder/snapshot/new"), b"new").unwrap();
    drop((sparse, mounted));
    let node_size = super_field(&volume, "nodesize");
    let chunks = chunks_by_dump(&volume);
    let dump = run("btrfs", &["inspect-internal", "dump-tree", volume.path()]);
    let mut records = vec![Extent::new(64 << 10, 4096)];
    for line in dump.lines() {
        let mut words = line.split(' ');
        if let (Some("leaf" | "node"), Some(Ok(logical))) =
            (words.next(), words.next().map(str::parse))
        {
            let places = places_in(&chunks, logical).into_iter();
            records.extend(places.map(|place| Extent::new(place, node_size)));
        }
    }
    records.sort_unstable_by_key(|record| record.start);
    records.dedup();
    (MemDisk::from_bytes(fs::read(&volume.path).unwrap()), records)
}

/// Mutants of a volume are read as far as they go.
fn attack((volume, records): &(MemDisk, Vec<Extent>), seeds: std::ops::Range<u64>) {
    let volume: Arc<MemDisk> = Arc::new(MemDisk::from_bytes(bytes_of(volume)));
    let sound = exhaust(volume.clone());
    assert!(sound > 60, "{sound} files");
    let (mut answered, count) = (0, seeds.end - seeds.start);
    for seed in seeds {
        let mut random = Random::new(&[seed]);
        let mut changed = changes(&mut random, &*volume, records);
        Sums::Btrfs.mend(&*volume, records, &mut changed);
        answered += u64::from(exhaust(Arc::new(Mutant { volume: volume.clone(), changed })) > 20);
    }
    assert!(answered > count / 4, "{answered} of {count} with files");
    assert!(answered < count, "every change was believed");
}

fn bytes_of(volume: &MemDisk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
    volume.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

struct Mutant {
    volume: Arc<MemDisk>,
    changed: Changes,
}

impl ReadAt for Mutant {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        Mutated::new(&*self.volume, &self.changed).read_exact_at(out, offset)
    }
}

#[test]
fn mutants_are_read_as_far_as_they_go() {
    attack(&seed("-M -n 4096", "rw,compress-force=lzo"), 0..500);
    attack(&seed("-m single -n 4096 -O ^no-holes", "rw,compress-force=zlib"), 0..500);
    attack(&seed("-m single", "rw,nodatasum"), 0..250);
}
