//! Files of an NTFS volume of an attacker, or of a broken disk: what can be read is told, the rest
//! is an error, and nothing panics or lasts.

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiv_filesystems::{Error, FileId, Filesystem, ReaderNote};
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, Mutated, Sums, changes};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::ext_tools::MIB;
use crate::ntfs_reader::{compressible, filled, reader};
use crate::ntfs_tools::{
    Boot, VOLUME_INFORMATION, attribute, bytes_at, edit_record, edit_table, first_cluster, put,
    run_list,
};
use crate::reader_tools::{exhaust, names, opened};
use crate::tools::{Volume, noise, run};

const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xa0;
const INDEX_BITMAP: u32 = 0xb0;

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for n in 0..60 {
        let folder = root.join(["", "a", "a/b", "a/b/c"][n % 4]);
        fs::write(folder.join(format!("file {n}")), noise(n as u64, 700 * (n % 7))).unwrap();
    }
    fs::write(root.join("file7"), noise(50, 100_000)).unwrap();
    fs::hard_link(root.join("file7"), root.join("a/b/large")).unwrap();
    fs::write(root.join("file7:stream"), noise(50, 3000)).unwrap();
    std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for n in 0..300 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(n, 512), n * 8192).unwrap();
    }
}

fn find(reader: &dyn Filesystem, name: &str) -> FileId {
    reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap().unwrap()
}

fn record_of(volume: &Volume, name: &str) -> u64 {
    find(&*reader(volume), name).number & 0xffff_ffff_ffff
}

/// The names that are told, and how that ends.
fn told(reader: &dyn Filesystem, folder: FileId) -> (usize, Result<(), Error>) {
    let mut count = 0;
    let read = reader.entries(folder, Job::silent(), &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    (count, read)
}

fn is_damaged<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Damaged { .. }))
}

/// A folder whose names are in several blocks.
fn folder() -> Volume {
    filled(16 * MIB, "-c 4096", "noatime", |root| {
        for n in 0..500 {
            fs::write(root.join(format!("file number {n}")), []).unwrap();
        }
    })
}

#[test]
fn a_damaged_block_of_a_folder_hides_its_own_names_only() {
    let volume = folder();
    let all = names(&*reader(&volume), reader(&volume).root());
    assert_eq!(all.len(), 500);
    let disk = bytes_at(&volume, 0, usize::try_from(volume.open().len()).unwrap());
    let blocks: Vec<usize> =
        (0..disk.len()).step_by(4096).filter(|at| disk[*at..].starts_with(b"INDX")).collect();
    assert!(blocks.len() > 5);
    let mut hidden = 0;
    for at in blocks {
        let copy = volume.duplicate();
        copy.patch(at as u64 + 1022, &[0xaa, 0xaa]);
        let reader = reader(&copy);
        let (count, read) = told(&*reader, reader.root());
        if read.is_ok() {
            // Of another folder, or left over.
            assert_eq!(count, 500);
            continue;
        }
        hidden += 1;
        assert!(is_damaged(read) && count < 500 && count > 350, "{count}");
        let mut found = 0;
        for name in all.keys() {
            match reader.lookup(reader.root(), name, Job::silent()) {
                Ok(Some(_)) => found += 1,
                answer => assert!(is_damaged(answer)),
            }
        }
        assert_eq!(found, count);
    }
    assert!(hidden > 5);
}

#[test]
fn a_folder_without_a_bitmap_or_with_a_damaged_root_is_told_as_far_as_it_goes() {
    let volume = folder();
    let copy = volume.duplicate();
    edit_table(&copy, 5, |record| {
        let at = attribute(record, INDEX_BITMAP, false);
        record[at + 9] = 0;
    });
    let (count, read) = told(&*reader(&copy), reader(&copy).root());
    assert!(count == 500 && is_damaged(read));

    edit_table(&volume, 5, |record| {
        let at = attribute(record, INDEX_ROOT, false);
        let value = at + usize::from(record[at + 20]);
        // The length of the first entry.
        put(record, value + 32 + 8, &[7, 0]);
    });
    let reader = reader(&volume);
    let (count, read) = told(&*reader, reader.root());
    assert!(count > 480 && is_damaged(read), "{count}");
    let found = reader.lookup(reader.root(), b"file number 77", Job::silent());
    assert!(found.unwrap().is_some());
    assert!(is_damaged(reader.lookup(reader.root(), b"nobody", Job::silent())));
}

#[test]
fn a_tree_of_names_that_leads_in_circles_ends() {
    let volume = folder();
    // No block has a name, and each leads to the first.
    let disk = bytes_at(&volume, 0, usize::try_from(volume.open().len()).unwrap());
    for at in (0..disk.len()).step_by(4096).filter(|at| disk[*at..].starts_with(b"INDX")) {
        let first = disk[at + 24];
        let entry = at + 24 + usize::from(first);
        volume.patch(at as u64 + 28, &[first + 24, 0, 0, 0]);
        volume.patch(entry as u64, &[0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 3, 0, 0, 0]);
        volume.patch(entry as u64 + 16, &[0; 8]);
    }
    let reader = reader(&volume);
    let (count, _) = told(&*reader, reader.root());
    assert_eq!(count, 0);
    assert_eq!(reader.lookup(reader.root(), b"a", Job::silent()).unwrap(), None);
}

#[test]
fn without_the_first_record_of_the_table_its_mirror_is_used() {
    let volume = filled(16 * MIB, "-c 4096", "noatime,streams_interface=windows", fill);
    let expected = names(&*reader(&volume), reader(&volume).root());
    for number in [0, 2, 3] {
        let copy = volume.duplicate();
        copy.patch(Boot::of(&copy).mft + number * 1024 + 510, &[0xaa, 0xaa]);
        let reader = reader(&copy);
        let is_noted = matches!(reader.notes(), [ReaderNote::CopyUsed { .. }]);
        assert_eq!(is_noted, number == 0, "{:?}", reader.notes());
        assert_eq!(names(&*reader, reader.root()), expected);
        copy.patch(Boot::of(&copy).mirror + number * 1024 + 510, &[0xaa, 0xaa]);
        assert_eq!(is_damaged(opened(Arc::new(copy.open()))), number == 0);
    }
}

#[test]
fn a_volume_that_was_not_unmounted_is_read_with_a_note() {
    let volume = filled(16 * MIB, "-c 4096", "noatime,streams_interface=windows", fill);
    assert_eq!(reader(&volume).notes(), []);
    let dirty = volume.duplicate();
    edit_record(&dirty, 3, |record| {
        let at = attribute(record, VOLUME_INFORMATION, false) + 24 + 10;
        record[at] |= 1;
    });
    let log = volume.duplicate();
    let at = first_cluster(&log, 2) * Boot::of(&log).cluster_size;
    log.patch(at, b"RSTR");
    for (volume, word) in [(dirty, "dirty"), (log, "LogFile")] {
        let reader = reader(&volume);
        match reader.notes() {
            [ReaderNote::NotReplayed { why }] => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(names(&*reader, reader.root()).len() > 10);
    }
}

#[test]
fn what_lies_in_front_of_the_end_of_a_volume_that_was_cut_off_is_read() {
    let volume = filled(64 * MIB, "-c 4096", "noatime,streams_interface=windows", fill);
    let whole = names(&*reader(&volume), reader(&volume).root());
    // Contents begin behind the middle.
    for (len, is_there) in [(48 * MIB, true), (32 * MIB - 100, false)] {
        volume.set_len(len);
        let reader = reader(&volume);
        let missing = 64 * MIB - 512 - len;
        assert_eq!(reader.notes()[0], ReaderNote::CutOff { missing });
        assert_eq!(told(&*reader, reader.root()).0, whole.len());
        let small = reader.open(find(&*reader, "file 8"));
        match is_there {
            true => assert_eq!(small.unwrap().len(), 700),
            false => assert!(is_damaged(small)),
        }
    }
}

#[test]
fn one_bad_record_hides_no_other() {
    let volume = filled(16 * MIB, "-c 4096", "noatime,streams_interface=windows", fill);
    let number = record_of(&volume, "file7");
    volume.patch(Boot::of(&volume).mft + number * 1024 + 510, &[0xaa, 0xaa]);
    let reader = reader(&volume);
    let (count, read) = told(&*reader, reader.root());
    assert!(count > 15 && read.is_ok());
    let id = find(&*reader, "file7");
    assert!(is_damaged(reader.metadata(id)) && is_damaged(reader.open(id)));
    let other = find(&*reader, "file 8");
    assert_eq!(reader.open(other).unwrap().len(), 700);
}

/// Changes the first run list of a file, and tells what opening it says.
fn with_data(volume: &Volume, edit: impl FnOnce(&mut Vec<u8>, usize)) -> Result<u64, Error> {
    let copy = volume.duplicate();
    let number = record_of(&copy, "file7");
    edit_table(&copy, number, |record| {
        let at = attribute(record, 0x80, true);
        edit(record, at);
    });
    let reader = reader(&copy);
    let data = reader.open(find(&*reader, "file7"))?;
    let mut end = [1; 100];
    let from = data.len().saturating_sub(100);
    data.read_exact_at(&mut end[..usize::try_from(data.len() - from).unwrap()], from).unwrap();
    Ok(data.len())
}

#[test]
fn sizes_and_clusters_that_cannot_be_are_damage() {
    let volume = filled(16 * MIB, "-c 4096", "noatime,streams_interface=windows", fill);
    assert_eq!(with_data(&volume, |_, _| {}).unwrap(), 100_000);
    // The size of what nothing backs.
    for size in [200_000_u64, 1 << 40, i64::MAX as u64, u64::MAX] {
        let answer = with_data(&volume, |record, at| put(record, at + 48, &size.to_le_bytes()));
        assert!(is_damaged(answer), "{size}");
    }
    // Initialised as far as it likes: to the end.
    let all = with_data(&volume, |record, at| put(record, at + 56, &[0xff; 8]));
    assert_eq!(all.unwrap(), 100_000);
    let runs: [&[u8]; 4] = [
        &[0x41, 25, 0xff, 0xff, 0xff, 0x7f, 0],
        &[0x11, 24, 60, 0],
        &[0x11, 25, 60, 0x11, 25, 60, 0],
        &[0x01, 0, 0],
    ];
    for runs in runs {
        assert!(is_damaged(with_data(&volume, |record, _| {
            let at = run_list(record, 0x80);
            put(record, at, runs);
        })));
    }
    // A hole as large as it can be costs nothing.
    let len = with_data(&volume, |record, at| {
        let clusters = 1_u64 << 38;
        put(record, at + 24, &(clusters - 1).to_le_bytes());
        put(record, at + 40, &(clusters * 4096).to_le_bytes());
        put(record, at + 48, &(clusters * 4096 - 5).to_le_bytes());
        let at = run_list(record, 0x80);
        put(record, at, &[0x05, 0, 0, 0, 0, 0x40, 0]);
    });
    assert_eq!(len.unwrap(), (1 << 50) - 5);
}

#[test]
fn an_index_of_a_size_nothing_backs_is_no_work() {
    let volume = folder();
    edit_table(&volume, 5, |record| {
        let at = attribute(record, INDEX_ALLOCATION, true);
        let clusters = 1_u64 << 38;
        put(record, at + 24, &(clusters - 1).to_le_bytes());
        for field in [40, 48, 56] {
            put(record, at + field, &(clusters * 4096).to_le_bytes());
        }
        let at = run_list(record, INDEX_ALLOCATION);
        put(record, at, &[0x05, 0, 0, 0, 0, 0x40, 0]);
    });
    let volume = volume.open();
    let reader = opened(Arc::new(volume)).unwrap();
    assert!(is_damaged(told(&*reader, reader.root()).1));
}

#[test]
fn compressed_data_that_does_not_decompress_is_an_error_where_it_is() {
    let volume = filled(32 * MIB, "-C -c 4096", "compression,noatime", compressible);
    let reader = reader(&volume);
    let data = reader.open(find(&*reader, "text 1000000")).unwrap();
    let first = data.extents().unwrap()[0];
    let mut good = vec![0; 1_000_000];
    data.read_exact_at(&mut good, 0).unwrap();
    volume.patch(first.start, &[0xff; 3000]);
    let mut bytes = vec![0; 1_000_000];
    let error = data.read_exact_at(&mut bytes[..100], 70_000);
    assert!(error.is_ok());
    let reader = opened(Arc::new(volume.open())).unwrap();
    let data = reader.open(find(&*reader, "text 1000000")).unwrap();
    let error = data.read_exact_at(&mut bytes[..100], 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    data.read_exact_at(&mut bytes[65_536..], 65_536).unwrap();
    assert!(bytes[65_536..] == good[65_536..]);
}

/// A volume with changes.
struct Mutant {
    volume: Arc<MemDisk>,
    changes: Changes,
}

impl ReadAt for Mutant {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        Mutated::new(&*self.volume, &self.changes).read_exact_at(out, offset)
    }
}

/// Volumes with changes in what a reader reads: boot sector, records, blocks of folders, and the
/// beginnings of files.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn attack(volume: &Volume, seeds: Range<u64>) {
    let reader = reader(volume);
    let mut places = vec![Extent::new(0, 84)];
    for name in ["file7", "text 200000", "mixed 200000", "sparse"] {
        let id = reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap();
        let extents = id.map(|id| reader.open(id).unwrap().extents().unwrap()).unwrap_or_default();
        places.extend(extents.iter().take(3).map(|extent| Extent::new(extent.start, 512)));
    }
    // The descriptors of $Secure.
    let secure = FileId { space: 0, number: 9 };
    let descriptors = reader.open_stream(secure, b"$SDS").unwrap().extents().unwrap();
    places.push(Extent::new(descriptors[0].start, 512));
    let bytes = fs::read(&volume.path).unwrap();
    for (n, sector) in bytes.chunks(512).enumerate() {
        let at = n as u64 * 512;
        match sector[..4] {
            [b'F', b'I', b'L', b'E'] if sector[22] & 1 != 0 => places.push(Extent::new(at, 1024)),
            [b'I', b'N', b'D', b'X'] => places.push(Extent::new(at, 4096)),
            _ => {}
        }
    }
    let volume = Arc::new(MemDisk::from_bytes(bytes));
    let sound = exhaust(volume.clone());
    assert!(sound > 40, "{sound}");
    let (mut slowest, mut whole) = ((Duration::ZERO, 0), 0);
    for seed in seeds.clone() {
        let mut random = Random::new(&[seed]);
        let mut changes = changes(&mut random, &*volume, &places);
        Sums::Ntfs.mend(&*volume, &places, &mut changes);
        let start = Instant::now();
        let found = exhaust(Arc::new(Mutant { volume: volume.clone(), changes }));
        whole += u64::from(found >= sound);
        slowest = slowest.max((start.elapsed(), seed));
    }
    let cases = seeds.end - seeds.start;
    assert!(whole > cases / 20, "{whole} of {cases} with all files");
    assert!(slowest.0.as_secs() < 10, "{slowest:?}");
}

fn plain_seed() -> Volume {
    let volume = filled(4 * MIB, "-c 512", "noatime,streams_interface=windows,permissions", fill);
    let said = run("ntfsinfo", &["-F", "/sparse", "-f", volume.path()]);
    assert!(said.contains("$ATTRIBUTE_LIST"), "{said}");
    volume
}

fn compressed_seed() -> Volume {
    filled(8 * MIB, "-C -c 2048", "compression,noatime,permissions", |root| {
        compressible(root);
        for n in 0..30 {
            fs::write(root.join(format!("file{n}")), noise(n, 5000)).unwrap();
        }
    })
}

#[test]
fn mutated_volumes_do_no_harm() {
    attack(&plain_seed(), 0..600);
    attack(&compressed_seed(), 0..150);
}
