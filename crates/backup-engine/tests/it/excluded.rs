//! Excluded files: the image is smaller by what they hold, and everything else comes back, over
//! whatever was on the target.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aiv_backup_engine::{BackupOptions, BackupPlan, Error, PlanNote, Refusal, Sectors};
use aiv_chain::{Depth, Kind, View};
use aiv_image_format::ImageKind;
use aiv_image_format::meta::Excluded;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, ExtentSet, FileDisk, Job, ReadAt};
use tempfile::TempDir;

use crate::common::{BLOCK, apply, backup, facts, options};
use crate::filesystems::restore_over_noise;
use crate::tools::{Files, Mounted, files_below, fill_with_noise, make_files, run};

const MIB: u64 = 1 << 20;
const LEN: u64 = 48 * MIB;

/// A volume of ext4 in a file, on ground that is not blank.
struct Disk {
    folder: TempDir,
    storage: MemStorage,
    backups: u8,
}

impl Disk {
    fn new(mkfs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source");
        fill_with_noise(&File::create_new(&path).unwrap(), LEN);
        run("mkfs.ext4", &[&["-q", "-E", "nodiscard"], mkfs, &[path.to_str().unwrap()]].concat());
        let disk = Self { folder, storage: MemStorage::new(), backups: 0 };
        disk.change(|root| {
            make_files(root);
            fs::create_dir_all(root.join("iso/old")).unwrap();
            fs::write(root.join("iso/one.iso"), Content::Random(11).bytes(3 << 20)).unwrap();
            fs::write(root.join("iso/old/two.iso"), Content::Random(12).bytes(5_000_001)).unwrap();
            fs::write(root.join("iso/small.iso"), Content::Random(13).bytes(5000)).unwrap();
            fs::write(root.join("iso/read.me"), Content::Random(14).bytes(50_000)).unwrap();
        });
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn change(&self, change: impl FnOnce(&Path)) {
        let mounted = Mounted::new(&self.path(), 0, LEN, "rw");
        change(mounted.path());
    }

    fn files(&self) -> Files {
        files_below(Mounted::new(&self.path(), 0, LEN, "ro").path())
    }

    fn try_plan(&self, options: BackupOptions) -> Result<BackupPlan, Error> {
        let source = FileDisk::open_source(self.path()).unwrap();
        BackupPlan::new(&source, facts("disk"), options, Job::silent())
    }

    fn plan(&self, patterns: &[&str]) -> BackupPlan {
        self.try_plan(excluding(patterns)).unwrap()
    }

    /// The next backup, proven, and the view of it.
    fn backup(&mut self, patterns: &[&str]) -> (aiv_backup_engine::BackupReport, View) {
        self.backups += 1;
        let source = FileDisk::open_source(self.path()).unwrap();
        let report = apply(&self.plan(patterns), &source, &self.storage, self.backups).unwrap();
        let view = View::open(&self.storage, &report.image, Job::silent()).unwrap();
        let image = view.image();
        assert_eq!(image.damage(), &[][..]);
        if report.kind == ImageKind::Full {
            assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
        }
        (report, view)
    }

    /// Restores over noise: sound, with every file but the content of those in `left_out`.
    fn check_restored(&self, view: &View, left_out: &[&str]) {
        let target = self.folder.path().join(format!("target{}", self.backups));
        restore_over_noise(view, &target);
        run("e2fsck", &["-fn", target.to_str().unwrap()]);
        let mut is = files_below(Mounted::new(&target, 0, LEN, "ro").path());
        let mut was = self.files();
        for path in left_out {
            let (is, was) =
                (is.remove(Path::new(path)).unwrap(), was.remove(Path::new(path)).unwrap());
            assert_eq!(is.len(), was.len(), "{path}");
            assert!(is != was, "{path} is excluded");
        }
        assert!(is == was, "the files differ");
    }
}

fn excluding(patterns: &[&str]) -> BackupOptions {
    let exclude = patterns.iter().map(|text| text.parse().unwrap()).collect();
    BackupOptions { exclude, verify: true, ..options() }
}

const ISOS: [&str; 3] = ["iso/old/two.iso", "iso/one.iso", "iso/small.iso"];

/// Excluded blocks of a state.
fn excluded_blocks(view: &View) -> u64 {
    let stretches = view.stretches(0).map(|stretch| stretch.unwrap());
    stretches.filter(|stretch| stretch.kind() == Kind::Excluded).map(|s| s.run()).sum()
}

fn check_files(excluded: &Excluded) {
    let paths: Vec<_> = excluded.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((paths, excluded.file_count), (ISOS.to_vec(), 3));
    let lens: Vec<_> = excluded.files.iter().map(|file| file.len).collect();
    assert_eq!(lens, [5_000_001, 3 << 20, 5000]);
    let extents = excluded.files.iter().flat_map(|file| &file.extents);
    assert_eq!(extents.map(|extent| extent.len).sum::<u64>(), excluded.bytes);
    assert!((8_150_000..8_250_000).contains(&excluded.bytes), "{}", excluded.bytes);
}

fn check_backup(mkfs: &[&str]) {
    let mut disk = Disk::new(mkfs);
    let (whole, _) = disk.backup(&[]);
    disk.storage = MemStorage::new();
    let (report, view) = disk.backup(&["*.iso"]);
    let meta = &view.image().meta().excluded;
    assert_eq!(meta.patterns, ["*.iso"]);
    check_files(meta);
    // Random content, which no compression makes smaller.
    let saved = whole.bytes_stored - report.bytes_stored;
    assert!(saved.abs_diff(meta.bytes) < meta.bytes / 20, "{saved} of {} bytes saved", meta.bytes);
    assert_eq!(report.bytes_used + meta.bytes, whole.bytes_used);
    assert_eq!(report.totals.blocks_excluded, excluded_blocks(&view));
    assert!(report.totals.blocks_excluded * BLOCK as u64 > meta.bytes * 9 / 10);
    disk.check_restored(&view, &ISOS);
}

/// A source that remembers what was read of it.
struct Watched {
    disk: FileDisk,
    reads: Mutex<Vec<Extent>>,
}

impl ReadAt for Watched {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.lock().unwrap().push(Extent::new(offset, out.len() as u64));
        self.disk.read_exact_at(out, offset)
    }
}

#[test]
fn no_block_that_is_excluded_is_read() {
    let disk = Disk::new(&["-b", "4096"]);
    let file = FileDisk::open_source(disk.path()).unwrap();
    let source = Watched { disk: file, reads: Mutex::default() };
    let plan =
        BackupPlan::new(&source, facts("disk"), excluding(&["*.iso"]), Job::silent()).unwrap();
    let report = apply(&plan, &source, &disk.storage, 1).unwrap();
    let view = View::open(&disk.storage, &report.image, Job::silent()).unwrap();
    let reads: ExtentSet = source.reads.into_inner().unwrap().into_iter().collect();
    assert!(reads.total_len() > report.bytes_used / 2, "reads were not noticed");
    for stretch in view.stretches(0).map(|stretch| stretch.unwrap()) {
        let bytes = Extent::new(stretch.block() * BLOCK as u64, stretch.run() * BLOCK as u64);
        let is_excluded = stretch.kind() == Kind::Excluded;
        assert!(!is_excluded || reads.within(bytes).next().is_none(), "{bytes:?} was read");
    }
    assert!(excluded_blocks(&view) > 400);
}

#[test]
fn an_image_without_some_files_restores_to_a_sound_filesystem_with_all_others() {
    check_backup(&["-b", "4096"]);
}

#[test]
fn so_does_one_of_a_filesystem_whose_blocks_are_small() {
    check_backup(&["-b", "1024", "-O", "^extent,^64bit,^metadata_csum"]);
}

#[test]
fn increments_leave_out_what_their_parent_has_and_bring_back_what_they_shall() {
    let mut disk = Disk::new(&["-b", "4096"]);
    let (full, view) = disk.backup(&[]);
    assert_eq!((full.kind, excluded_blocks(&view)), (ImageKind::Full, 0));
    disk.check_restored(&view, &[]);

    let (without, view) = disk.backup(&["*.iso"]);
    assert_eq!(without.kind, ImageKind::Incremental);
    assert!(without.totals.blocks_excluded > 0);
    assert_eq!(without.totals.blocks_excluded, excluded_blocks(&view));
    check_files(&view.image().meta().excluded);
    disk.check_restored(&view, &ISOS);

    // Nothing new: what is excluded is inherited as such.
    let (same, view) = disk.backup(&["/iso/**/*.iso"]);
    assert_eq!((same.totals.blocks_excluded, same.totals.blocks_data), (0, 0));
    assert_eq!(same.state_root, without.state_root);
    check_files(&view.image().meta().excluded);

    // The content of excluded files may change; only their records do in the image.
    disk.change(|root| {
        fs::write(root.join("iso/one.iso"), Content::Random(21).bytes(3 << 20)).unwrap();
    });
    let (changed, view) = disk.backup(&["*.iso"]);
    assert!(changed.bytes_stored < MIB, "{} bytes", changed.bytes_stored);
    disk.check_restored(&view, &ISOS);

    let (whole, view) = disk.backup(&[]);
    assert_eq!((whole.kind, excluded_blocks(&view)), (ImageKind::Incremental, 0));
    assert_eq!(view.image().meta().excluded, Excluded::default());
    disk.check_restored(&view, &[]);
}

#[test]
fn what_is_not_excluded_although_it_matches_is_told() {
    let disk = Disk::new(&["-b", "4096"]);
    disk.change(|root| fs::hard_link(root.join("iso/one.iso"), root.join("kept")).unwrap());
    let plan = disk.plan(&["*.iso"]);
    assert_eq!(plan.excluded_files.file_count, 2);
    let [PlanNote::NotExcluded { volume: 0, files, count: 1 }] = plan.notes.as_slice() else {
        panic!("{:?}", plan.notes);
    };
    assert_eq!(files[0].path, "iso/one.iso");
    assert_eq!(files[0].reason.to_string(), "it has another name that does not match");
}

#[test]
fn of_a_source_that_may_change_nothing_is_excluded() {
    let disk = Disk::new(&["-b", "4096"]);
    let source = FileDisk::open_source(disk.path()).unwrap();
    let facts = aiv_backup_engine::SourceFacts { writers: vec!["a mount".into()], ..facts("disk") };
    let options = BackupOptions { live: true, ..excluding(&["*"]) };
    let plan = BackupPlan::new(&source, facts, options, Job::silent()).unwrap();
    assert_eq!(plan.excluded_files.file_count, 0);
    let why = "the source may change while it is read".to_owned();
    let note = PlanNote::NothingExcluded { volume: 0, filesystem: "ext4".to_owned(), why };
    assert!(plan.notes.contains(&note), "{:?}", plan.notes);
    let whole = disk.plan(&[]);
    assert_eq!(plan.used_bytes(), whole.used_bytes());
}

#[test]
fn all_sectors_and_excluded_files_contradict_each_other() {
    let disk = Disk::new(&["-b", "4096"]);
    let options = BackupOptions { sectors: Sectors::All, ..excluding(&["*"]) };
    let refused = disk.try_plan(options);
    assert!(matches!(refused, Err(Error::Refused(Refusal::ExcludeFromAll))), "{refused:?}");
}

#[test]
fn a_partition_is_named_by_its_place_and_files_by_bytes_of_the_disk() {
    let disk = Disk::new(&["-b", "4096"]);
    let whole = disk.folder.path().join("disk");
    let file = File::create_new(&whole).unwrap();
    file.set_len(LEN + 2 * MIB).unwrap();
    run("sgdisk", &["-o", "-n", "1:1M:+48M", "-t", "1:8300", whole.to_str().unwrap()]);
    let volume = fs::read(disk.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &volume, MIB).unwrap();
    let source = FileDisk::open_source(&whole).unwrap();
    let plan =
        BackupPlan::new(&source, facts("disk"), excluding(&["*.iso"]), Job::silent()).unwrap();
    let alone = disk.plan(&["*.iso"]);
    assert_eq!(plan.excluded_files.file_count, 3);
    for (in_disk, alone) in plan.excluded_files.files.iter().zip(&alone.excluded_files.files) {
        assert_eq!((in_disk.volume, &in_disk.path), (MIB, &alone.path));
        let moved = alone.extents.iter().map(|e| Extent::new(e.start + MIB, e.len));
        assert_eq!(in_disk.extents, moved.collect::<Vec<_>>());
    }
}

#[test]
fn of_ntfs_everything_else_comes_back_over_noise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source");
    fill_with_noise(&File::create_new(&path).unwrap(), LEN);
    run("mkntfs", &["-q", "-Q", "-F", "-c", "4096", path.to_str().unwrap()]);
    let mount = |disk: &Path, options| Mounted::of_type("ntfs-3g", disk, 0, LEN, options);
    let files = |disk: &Path| files_below(mount(disk, "ro").path());
    {
        let mounted = mount(&path, "rw");
        make_files(mounted.path());
        fs::write(mounted.path().join("PageFile.sys"), Content::Random(11).bytes(3 << 20)).unwrap();
    }
    let source = FileDisk::open_source(&path).unwrap();
    let made = backup(&source, excluding(&["/pagefile.sys"]));
    let excluded = &made.view.image().meta().excluded;
    assert_eq!((excluded.files[0].path.as_str(), excluded.bytes), ("PageFile.sys", 3 << 20));
    assert_eq!(made.report.totals.blocks_excluded, excluded_blocks(&made.view));
    assert!(made.report.totals.blocks_excluded > 150);
    let target = folder.path().join("target");
    restore_over_noise(&made.view, &target);
    run("ntfsfix", &["-n", target.to_str().unwrap()]);
    let (mut is, mut was) = (files(&target), files(&path));
    let page = Path::new("PageFile.sys");
    let (is_page, was_page) = (is.remove(page).unwrap(), was.remove(page).unwrap());
    assert!(is_page.len() == was_page.len() && is_page != was_page);
    assert!(is == was && !is.is_empty(), "the files differ");
}
