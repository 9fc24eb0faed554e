use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use aiv_volume_io::{CATALOGUE_NAME, DirStorage, Storage};

use crate::machine::{FastDisk, Loop, Mounted, resident, run, sparse};

pub(crate) fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("should fail").kind()
}

fn names(storage: &DirStorage) -> Vec<String> {
    storage.list().unwrap().into_iter().map(|file| file.name).collect()
}

pub(crate) fn put(storage: &DirStorage, name: &str, bytes: &[u8]) {
    let mut file = storage.create(name).unwrap();
    file.append_all(bytes).unwrap();
    file.sync().unwrap();
}

fn check_life_of_a_file(folder: &Path) {
    let storage = DirStorage::open(folder).unwrap();
    let lease = storage.lease("set").unwrap();
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let mut file = storage.create("sub/deep/a.tmp").unwrap();
    for part in content.chunks(70_001) {
        file.append_all(part).unwrap();
    }
    let mut back = vec![0; 1000];
    file.read_exact_at(&mut back, 12_345).unwrap();
    assert_eq!(back, content[12_345..13_345]);
    assert_eq!(kind(file.read_exact_at(&mut back, 399_001)), io::ErrorKind::UnexpectedEof);
    file.sync().unwrap();
    lease.check().unwrap();
    storage.publish("sub/deep/a.tmp", "other/a").unwrap();
    storage.sync_dir().unwrap();

    let listed = storage.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].len), ("other/a", 400_000));
    let open = storage.open("other/a").unwrap();
    let mut all = vec![0; 400_000];
    open.read_exact_at(&mut all, 0).unwrap();
    assert!(all == content);
    storage.remove("other/a").unwrap();
    storage.sync_dir().unwrap();
    assert_eq!(names(&storage), [""; 0]);
    assert_eq!(kind(storage.open("other/a")), io::ErrorKind::NotFound);
    assert_eq!(kind(storage.remove("other/a")), io::ErrorKind::NotFound);
}

#[test]
fn a_file_lives_the_same_life_on_every_filesystem() {
    let folder = tempfile::tempdir().unwrap();
    check_life_of_a_file(folder.path());
    let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
    fs::create_dir(&at).unwrap();
    {
        let _tmpfs = Mounted::tmpfs("2m", &at);
        check_life_of_a_file(&at);
    }
    sparse(&image, 16 << 20);
    run("mkfs.ext4", &[Path::new("-q"), &image]);
    let device = Loop::on(&image, &[]);
    let _ext4 = Mounted::new(&[], &device.path, &at);
    check_life_of_a_file(&at);
    assert!(at.join("lost+found").exists(), "which the list above did not show");
}

#[test]
fn nothing_is_replaced_where_rename_cannot_promise_that() {
    let folder = tempfile::tempdir().unwrap();
    let (image, at) = (folder.path().join("image"), folder.path().join("mnt"));
    fs::create_dir(&at).unwrap();
    sparse(&image, 16 << 20);
    run("mkfs.ntfs", &["-Q".as_ref(), "-F".as_ref(), image.as_os_str()]);
    let device = Loop::on(&image, &[]);
    let _ntfs = Mounted::new(&["-t", "ntfs-3g"], &device.path, &at);
    check_life_of_a_file(&at);
    check_nothing_is_replaced(&at);
}

#[test]
fn nothing_is_ever_replaced() {
    check_nothing_is_replaced(tempfile::tempdir().unwrap().path());
}

fn check_nothing_is_replaced(folder: &Path) {
    let storage = DirStorage::open(folder).unwrap();
    put(&storage, "a", b"old");
    put(&storage, "b", b"new");
    assert_eq!(kind(storage.create("a")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.publish("b", "a")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(storage.publish("missing", "c")), io::ErrorKind::NotFound);
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"old");
    assert_eq!(fs::read(folder.join("b")).unwrap(), b"new");
}

#[test]
fn names_that_leave_the_folder_are_refused_by_every_operation() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(folder.path().join("out"), b"").unwrap();
    let storage = DirStorage::open(folder.path().join("in")).unwrap();
    put(&storage, "a", b"");
    for bad in ["../out", "/etc/passwd", "", "x/../../out", ".aiv-lease-x"] {
        assert_eq!(kind(storage.create(bad)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.open(bad)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.remove(bad)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.publish("a", bad)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(storage.publish(bad, "b")), io::ErrorKind::InvalidInput);
    }
    assert_eq!(kind(storage.lease("../x")), io::ErrorKind::InvalidInput);
}

#[test]
fn links_planted_in_the_folder_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"secret").unwrap();
    symlink(&outside, inside.join("folder")).unwrap();
    symlink(outside.join("secret"), inside.join("file")).unwrap();
    symlink(outside.join("new"), inside.join("dangling")).unwrap();
    symlink(outside.join("lock"), inside.join(".aiv-lease-set")).unwrap();
    let storage = DirStorage::open(&inside).unwrap();

    assert_eq!(names(&storage), [""; 0]);
    for name in ["file", "folder/secret"] {
        storage.open(name).err().expect(name);
    }
    storage.create("folder/new").err().unwrap();
    storage.create("dangling").err().unwrap();
    storage.lease("set").err().unwrap();
    put(&storage, "a", b"");
    storage.publish("a", "folder/new").unwrap_err();
    storage.remove("folder/secret").unwrap_err();
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"]);
}

#[test]
fn the_folder_itself_may_be_a_link() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    put(&DirStorage::open(folder.path().join("link")).unwrap(), "a", b"");
    assert!(folder.path().join("real/a").exists());
}

#[test]
fn only_regular_files_are_listed_and_opened() {
    let folder = tempfile::tempdir().unwrap();
    run("mkfifo", &[folder.path().join("pipe")]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    put(&storage, "b", b"12");
    put(&storage, "a/c", b"");
    let _lease = storage.lease("set").unwrap();
    assert_eq!(names(&storage), ["a/c", "b"]);
    // Without care this would wait for a writer for ever.
    assert_eq!(kind(storage.open("pipe")), io::ErrorKind::InvalidInput);
    storage.open("empty").err().unwrap();
}

#[test]
fn a_catalogue_lives_the_life_of_a_file_and_is_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    let part = format!("{CATALOGUE_NAME}.part");
    put(&storage, "a", b"");
    put(&storage, &part, b"all about a");
    assert_eq!(names(&storage), ["a"]);
    storage.publish(&part, CATALOGUE_NAME).unwrap();
    put(&storage, &part, b"");
    assert_eq!(kind(storage.publish(&part, CATALOGUE_NAME)), io::ErrorKind::AlreadyExists);
    assert_eq!(names(&storage), ["a"]);
    assert_eq!(storage.open(CATALOGUE_NAME).unwrap().len(), 11);
    storage.remove(CATALOGUE_NAME).unwrap();
    storage.remove(&part).unwrap();
    assert_eq!(kind(storage.open(CATALOGUE_NAME)), io::ErrorKind::NotFound);
}

#[test]
fn folders_deeper_than_any_of_ours_are_not_descended_into() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    let deepest = "d/".repeat(aiv_volume_io::FOLDER_DEPTH_MAX);
    put(&storage, &format!("{deepest}a"), b"");
    fs::create_dir(folder.path().join(&deepest).join("d")).unwrap();
    fs::write(folder.path().join(&deepest).join("d/b"), b"").unwrap();
    assert_eq!(names(&storage), [format!("{deepest}a")]);
}

#[test]
fn images_are_private_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    put(&storage, "sub/a", b"");
    let mode = |name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("sub"), mode("sub/a")), (0o700, 0o600));
}

#[test]
fn of_many_who_publish_the_same_name_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    const RACERS: usize = 8;
    for round in 0..20 {
        let start = Barrier::new(RACERS);
        let race = |racer: usize| {
            let storage = DirStorage::open(folder.path()).unwrap();
            let own = format!("{round}-{racer}.tmp");
            put(&storage, &own, own.as_bytes());
            start.wait();
            storage.publish(&own, &format!("{round}")).map(|()| own)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let mut won = Vec::new();
        for result in results {
            match result {
                Ok(own) => won.push(own),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::AlreadyExists),
            }
        }
        assert_eq!(won.len(), 1);
        let published = fs::read(folder.path().join(round.to_string())).unwrap();
        assert_eq!(published, won[0].as_bytes());
    }
}

#[test]
fn of_many_who_take_a_lease_exactly_one_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    const RACERS: usize = 8;
    let (start, end) = (Barrier::new(RACERS), Barrier::new(RACERS));
    let race = || {
        let storage = DirStorage::open(folder.path()).unwrap();
        start.wait();
        let lease = storage.lease("set-1");
        end.wait();
        lease.is_ok()
    };
    let held = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
        racers.into_iter().filter_map(|racer| racer.join().unwrap().then_some(())).count()
    });
    assert_eq!(held, 1);
    DirStorage::open(folder.path()).unwrap().lease("set-1").unwrap();
}

#[test]
fn a_lease_held_by_another_process_dies_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    drop(storage.lease("set").unwrap());
    let file = folder.path().join(".aiv-lease-set");
    let mut holder = Command::new("flock")
        .args(["--close".as_ref(), file.as_os_str()])
        .args(["sh", "-c", "echo held; read -r forever"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    let refused = kind(storage.lease("set"));
    storage.lease("other").unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(refused, io::ErrorKind::WouldBlock);
    storage.lease("set").unwrap();
}

#[test]
fn a_full_filesystem_is_an_error_and_the_end_of_the_file_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("64k", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    let mut file = storage.create("a").unwrap();
    assert_eq!(kind(file.append_all(&[1; 100_000])), io::ErrorKind::StorageFull);
    file.append(b"x").unwrap_err();
    file.sync().unwrap_err();
    file.read_exact_at(&mut [0; 10], 0).unwrap_err();
    drop(file);
    storage.remove("a").unwrap();
    put(&storage, "b", &[2; 30_000]);
}

#[test]
fn free_bytes_are_what_the_filesystem_has_left_for_us() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("1m", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    let empty = storage.free_bytes().unwrap().unwrap();
    put(&storage, "a", &vec![1; 512 << 10]);
    let half = storage.free_bytes().unwrap().unwrap();
    assert!(empty <= 1 << 20 && half == empty - (512 << 10), "{empty} then {half}");
}

#[test]
fn a_filesystem_without_a_size_has_no_free_bytes_to_tell() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("0", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    assert_eq!(storage.free_bytes().unwrap(), None);
}

#[test]
fn a_failed_sync_is_never_followed_by_a_successful_one() {
    let folder = tempfile::tempdir().unwrap();
    let (small, at) = (folder.path().join("small"), folder.path().join("mnt"));
    fs::create_dir(&small).unwrap();
    fs::create_dir(&at).unwrap();
    // A disk that promises 64 MiB and has 4.
    let _tmpfs = Mounted::tmpfs("4m", &small);
    sparse(&small.join("image"), 64 << 20);
    run(
        "mkfs.ext4",
        &["-q".as_ref(), "-O".as_ref(), "^has_journal".as_ref(), small.join("image").as_os_str()],
    );
    let device = Loop::on(&small.join("image"), &[]);
    let _ext4 = Mounted::new(&[], &device.path, &at);
    let storage = DirStorage::open(&at).unwrap();
    let mut file = storage.create("a").unwrap();
    let written = file.append_all(&vec![1; 16 << 20]);
    assert!(written.is_err() || file.sync().is_err(), "the disk took more than it has");
    file.sync().unwrap_err();
    file.append(b"x").unwrap_err();
}

#[test]
fn what_was_written_does_not_stay_in_the_page_cache() {
    let folder = FastDisk::new();
    let storage = DirStorage::open(folder.path()).unwrap();
    let mut file = storage.create("a").unwrap();
    let part = vec![7; 1 << 20];
    for _ in 0..48 {
        file.append_all(&part).unwrap();
    }
    file.sync().unwrap();
    let left = resident(&folder.path().join("a"));
    assert!(left < 1 << 20, "{left}");
    let mut back = [0; 5];
    file.read_exact_at(&mut back, 47 << 20).unwrap();
    assert_eq!(back, [7; 5]);
}

#[test]
fn a_folder_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    assert_eq!(kind(DirStorage::open(&file)), io::ErrorKind::NotADirectory);
    assert_eq!(kind(DirStorage::open(folder.path().join("x"))), io::ErrorKind::NotFound);
}

#[test]
fn a_folder_is_created_for_its_owner_alone_when_only_its_last_part_is_missing() {
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("images");
    put(&DirStorage::open_or_create(&path).unwrap(), "a", b"kept");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(names(&DirStorage::open_or_create(&path).unwrap()), ["a"]);
    let orphan = path.join("not/there");
    assert_eq!(kind(DirStorage::open_or_create(&orphan)), io::ErrorKind::NotFound);
    let file = path.join("a");
    assert_eq!(kind(DirStorage::open_or_create(&file)), io::ErrorKind::NotADirectory);
}

#[test]
fn only_a_regular_file_with_one_name_is_ever_cut() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    put(&storage, "a.part", b"0123456789");
    // A publish by link and unlink that did not get to the second.
    fs::hard_link(folder.path().join("a.part"), folder.path().join("a.aiv")).unwrap();
    let refused = storage.reopen("a.part", 1).err().unwrap();
    assert!(refused.to_string().contains("second name"), "{refused}");
    assert_eq!(fs::read(folder.path().join("a.aiv")).unwrap(), b"0123456789");
    fs::write(folder.path().join("target"), b"somebody's file").unwrap();
    symlink("target", folder.path().join("link.part")).unwrap();
    storage.reopen("link.part", 1).err().unwrap();
    assert_eq!(fs::read(folder.path().join("target")).unwrap(), b"somebody's file");
    run("mkfifo", &[folder.path().join("pipe.part").as_os_str()]);
    assert_eq!(kind(storage.reopen("pipe.part", 0)), io::ErrorKind::InvalidInput);
}

#[test]
fn a_reopened_file_is_on_the_medium_and_read_back_from_there() {
    let disk = FastDisk::new();
    let storage = DirStorage::open(disk.path()).unwrap();
    let path = disk.path().join("a.part");
    storage.create("a.part").unwrap().append_all(&vec![7; 1 << 20]).unwrap();
    assert!(resident(&path) > 0, "just written");
    let file = storage.reopen("a.part", 1 << 19).unwrap();
    assert_eq!((resident(&path), fs::metadata(&path).unwrap().len()), (0, 1 << 19));
    let mut back = [0; 4096];
    file.read_exact_at(&mut back, 4096).unwrap();
    assert_eq!(back, [7; 4096]);
}

#[test]
fn key_slots_are_those_of_regular_files() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(folder.path()).unwrap();
    put(&storage, "a", &[0; 40_000]);
    fs::create_dir(folder.path().join("folder")).unwrap();
    symlink("a", folder.path().join("link")).unwrap();
    assert!(storage.open_slots("folder").is_err());
    assert!(storage.open_slots("link").is_err(), "no link is followed");
    storage.open_slots("a").unwrap();
}

#[test]
fn a_folder_made_for_nothing_goes_and_one_that_was_there_or_is_used_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    drop(DirStorage::open_or_create(&path).unwrap());
    assert!(!path.exists());
    let storage = DirStorage::open_or_create(&path).unwrap();
    storage.create("a").unwrap();
    drop(storage);
    drop(DirStorage::open_or_create(&path).unwrap());
    assert!(path.join("a").exists());
    std::fs::remove_file(path.join("a")).unwrap();
    drop(DirStorage::open_or_create(&path).unwrap());
    drop(DirStorage::open(&path).unwrap());
    assert!(path.exists(), "somebody else's");
    std::fs::remove_dir(&path).unwrap();
    // Nor another one that took its name.
    let storage = DirStorage::open_or_create(&path).unwrap();
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::fs::create_dir(&path).unwrap();
    drop(storage);
    assert!(path.exists() && dir.path().join("moved").exists());
}

#[test]
fn errors_name_the_folder_and_stay_of_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    storage.create("a").unwrap();
    let lease = storage.lease("one").unwrap();
    let errors = [
        (storage.create("a").err(), io::ErrorKind::AlreadyExists),
        (storage.open("b").err(), io::ErrorKind::NotFound),
        (storage.remove("b").err(), io::ErrorKind::NotFound),
        (storage.publish("b", "c").err(), io::ErrorKind::NotFound),
        (storage.lease("one").err(), io::ErrorKind::WouldBlock),
    ];
    std::fs::remove_file(dir.path().join(".aiv-lease-one")).unwrap();
    let lost = (lease.check().err(), io::ErrorKind::PermissionDenied);
    for (error, kind) in errors.into_iter().chain([lost]) {
        let error = error.unwrap();
        assert_eq!(error.kind(), kind);
        let said = error.to_string();
        assert!(said.starts_with(&format!("in {}: ", dir.path().display())), "{said}");
    }
}
