//! Volumes with files on them: what readers read of them, family by family. Drivers fill those that no
//! tool fills without a mount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use aiv_filesystems::{open_filesystem, recognise};
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, ExtentSet, FileDisk, Job, ReadAt};
use tempfile::TempDir;

use crate::Family;
use crate::seeds::{MIB, kept, run};

/// One for each reader.
pub(crate) const FAMILIES: &[Family] = &[
    Family { name: "ext", seeds: ext },
    Family { name: "ntfs", seeds: ntfs },
    Family { name: "fat", seeds: fat },
    Family { name: "exfat", seeds: exfat },
    Family { name: "xfs", seeds: xfs },
    Family { name: "btrfs", seeds: btrfs },
    Family { name: "squashfs", seeds: squashfs },
    Family { name: "iso9660", seeds: iso9660 },
];

/// Of all of them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    FAMILIES.iter().flat_map(|family| (family.seeds)()).collect()
}

/// Files that are put on volumes.
struct Files {
    folder: TempDir,
    root: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        let deep = root.join("folder/deep");
        std::fs::create_dir_all(&deep).expect("room");
        for n in 0..60_usize {
            let bytes = Content::Text(n as u64).bytes(if n < 4 { 70_000 } else { 100 * n });
            std::fs::write(root.join(format!("file{n}")), bytes).expect("room");
        }
        std::fs::write(deep.join("a long name, longer than eight"), b"x").expect("room");
        std::os::unix::fs::symlink("../../file7", deep.join("link")).expect("room");
        std::fs::hard_link(root.join("file9"), deep.join("again")).expect("room");
        Self { folder, root }
    }

    fn root(&self) -> &str {
        self.root.to_str().expect("text")
    }

    /// A new file beside them.
    fn volume(&self, len: u64) -> PathBuf {
        let path = self.folder.path().join("volume");
        let file = std::fs::File::create(&path).expect("room");
        file.set_len(len).expect("room");
        path
    }

    /// What is read of a volume that `words` make: a program, and what stands in front of its name.
    fn made(&self, len: u64, words: &str) -> Vec<u8> {
        self.made_and(len, words, |_| ())
    }

    fn made_and(&self, len: u64, words: &str, fill: impl FnOnce(&Path)) -> Vec<u8> {
        let path = self.volume(len);
        let mut words = words.split(' ');
        run(Command::new(words.next().unwrap_or_default()).args(words).arg(&path));
        fill(&path);
        reads_of(&path)
    }

    /// Mounts a volume by a driver that stays in front, and runs a script in what it shows, as its
    /// only argument.
    fn mounted(&self, driver: &str, path: &Path, script: &str) {
        let all = format!(
            "d=$(losetup --find --show \"$1\") || exit 1\n\
             trap 'losetup --detach \"$d\"' EXIT\n\
             {driver} \"$d\" \"$2\" >/dev/null 2>&1 & p=$!\n\
             n=0; until mountpoint -q \"$2\"; do \
             n=$((n+1)); [ $n -lt 400 ] || {{ kill $p; exit 2; }}; sleep 0.05; done\n\
             sh -e -c \"$4\" sh \"$2\" \"$3\"; s=$?\n\
             umount \"$2\" || umount -l \"$2\"; wait $p; exit $s"
        );
        let folder = self.folder.path().join("mounted");
        std::fs::create_dir_all(&folder).expect("room");
        let mut command = Command::new("sh");
        command.args(["-c", &all, "sh"]).arg(path).arg(&folder);
        run(command.arg(self.folder.path()).arg(script));
    }
}

fn ext() -> Vec<Vec<u8>> {
    let files = Files::new();
    let root = files.root();
    let inline = "^metadata_csum,inline_data";
    vec![
        files.made(4 * MIB, &format!("mke2fs -q -F -t ext2 -b 1024 -d {root}")),
        files.made(4 * MIB, &format!("mke2fs -q -F -t ext4 -b 1024 -O {inline} -I 256 -d {root}")),
        files.made(8 * MIB, &format!("mke2fs -q -F -t ext4 -b 4096 -d {root}")),
    ]
}

fn ntfs() -> Vec<Vec<u8>> {
    let files = Files::new();
    let few = files.made_and(2 * MIB, "mkntfs -q -Q -F -c 512", |volume| {
        for name in ["file1", "file7", "file30"] {
            let mut command = Command::new("ntfscp");
            command.args(["-q", "-f"]).arg(volume);
            run(command.args([files.root.join(name).as_path(), Path::new(name)]));
        }
    });
    // As wimlib packs a file, the filter of Windows does, too.
    let packed = [("XPRESS", 4096, 0), ("LZX", 32_768, 1)].map(|(method, chunk, number)| {
        let resource = resource(&files, method, chunk);
        std::fs::write(files.folder.path().join(method), resource).expect("room");
        format!(
            "truncate -s 70000 {method}\n\
             cp \"$2/{method}\" {method}:WofCompressedData\n\
             setfattr -n system.ntfs_reparse_data \
             -v 0x1700008010000000010000000200000001000000{number:02x}000000 {method}\n"
        )
    });
    let script = format!(
        "cd \"$1\"\ncp -r \"$2/root/folder\" .\n\
         mkdir small\nsetfattr -n system.ntfs_attrib_be -v 0x00000800 small\n\
         cp \"$2\"/root/file[1-9] small\necho x > small/file1:stream\n{}",
        packed.concat()
    );
    let all = files.made_and(4 * MIB, "mkntfs -q -Q -F -c 4096", |volume| {
        let driver = "ntfs-3g -o no_detach,compression,streams_interface=windows";
        files.mounted(driver, volume, &script);
    });
    vec![few, all]
}

/// The bytes of `file1` in an archive of Windows, compressed.
fn resource(files: &Files, method: &str, chunk: u32) -> Vec<u8> {
    let wim = files.folder.path().join("wim");
    let _ = std::fs::remove_file(&wim);
    let only = files.folder.path().join("only");
    std::fs::create_dir_all(&only).expect("room");
    std::fs::copy(files.root.join("file1"), only.join("file1")).expect("room");
    let mut command = Command::new("wimlib-imagex");
    command.arg("capture").arg(&only).arg(&wim).arg("--no-acls");
    command.args([format!("--compress={method}"), format!("--chunk-size={chunk}")]);
    run(&mut command);
    let mut command = Command::new("wimlib-imagex");
    let said = command.arg("dir").arg(&wim).args(["1", "--detailed"]).output().expect("it ran");
    let said = String::from_utf8_lossy(&said.stdout);
    let field = |name: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(name));
        let number = line.and_then(|line| line.split('=').nth(1)?.split_whitespace().next());
        number.and_then(|number| number.parse::<usize>().ok()).expect("a number")
    };
    let (at, len) = (field("Offset in WIM"), field("Compressed size"));
    assert!(len < 70_000, "{said}");
    std::fs::read(&wim).expect("just made")[at..at + len].to_vec()
}

fn fat() -> Vec<Vec<u8>> {
    let files = Files::new();
    let root = files.root();
    let made = |len, maker: &str| {
        files.made_and(len, maker, |volume| {
            let mut command = Command::new("mcopy");
            command.args(["-o", "-Q", "-s", "-i"]).arg(volume);
            command
                .args(["folder", "file7", "file1", "file30"].map(|name| format!("{root}/{name}")));
            run(command.arg("::").env("MTOOLS_SKIP_CHECK", "1"));
        })
    };
    vec![made(2 * MIB, "mkfs.fat -F 12"), made(35 * MIB, "mkfs.fat -F 32")]
}

fn exfat() -> Vec<Vec<u8>> {
    let files = Files::new();
    let empty = files.made(4 * MIB, "mkfs.exfat -b 64K");
    // A file that grew by turns with another one lies in pieces.
    let script = "cd \"$1\"\ncp -r -L \"$2\"/root/folder \"$2\"/root/file[1-4]* .\n\
                  for n in 1 2 3 4 5; do for f in a b; do \
                  head -c 5000 \"$2/root/file1\" >> pieces$f; sync; done; done\nrm file2*";
    let filled = files.made_and(4 * MIB, "mkfs.exfat -c 4096", |volume| {
        files.mounted("mount.exfat-fuse -d -o rw", volume, script);
    });
    vec![empty, filled]
}

fn xfs() -> Vec<Vec<u8>> {
    let files = Files::new();
    let root = files.root();
    let proto = files.folder.path().join("proto");
    let lines = (0..60).map(|n| format!("file{n} ---644 0 0 {root}/file{n}\n"));
    let lines = lines.collect::<String>();
    let text =
        format!("/\n0 0\nd--755 0 0\n{lines}folder d--755 0 0\nlink l--777 0 0 ../file7\n$\n$\n");
    std::fs::write(&proto, text).expect("room");
    let proto = proto.to_str().expect("text");
    vec![
        files.made(300 * MIB, &format!("mkfs.xfs -q -m crc=0 -d agcount=2 -p {proto}")),
        files.made(300 * MIB, &format!("mkfs.xfs -q -d agcount=2 -p {proto}")),
    ]
}

fn btrfs() -> Vec<Vec<u8>> {
    let files = Files::new();
    let words = format!("mkfs.btrfs -q -m single --rootdir {}", files.root());
    vec![files.made(128 * MIB, &words)]
}

fn squashfs() -> Vec<Vec<u8>> {
    let files = Files::new();
    let made = |options: &str| {
        let volume = files.volume(0);
        let mut command = Command::new("mksquashfs");
        command.arg(&files.root).arg(&volume).args(["-noappend", "-quiet", "-no-progress"]);
        run(command.args(options.split(' ')));
        reads_of(&volume)
    };
    vec![
        made("-noI -noId -b 16384"),
        made("-comp xz -b 16384"),
        made("-comp lzo -noI -noId -always-use-fragments"),
    ]
}

fn iso9660() -> Vec<Vec<u8>> {
    let files = Files::new();
    let made = |options: &str| {
        let volume = files.volume(0);
        let mut command = Command::new("genisoimage");
        command.arg("-quiet").args(options.split(' ')).arg("-o").arg(&volume);
        run(command.arg(&files.root));
        reads_of(&volume)
    };
    vec![made("-R"), made("-J -joliet-long"), made("-iso-level 3")]
}

/// What is read of a volume when its files are.
fn reads_of(path: &Path) -> Vec<u8> {
    let disk = Arc::new(FileDisk::open_source(path).expect("just made"));
    let recorded = Arc::new(Recorded { disk: Arc::clone(&disk), reads: Mutex::default() });
    let recognised = recognise(&recorded).expect("readable");
    let filesystem = open_filesystem(recorded.clone(), &recognised, Job::silent());
    let filesystem = filesystem.unwrap_or_else(|e| panic!("{:?}: {e}", recognised.kind));
    crate::volume::read_tree(&*filesystem);
    let mut reads = recorded.reads.lock().expect("nobody else").clone();
    reads.sort_by_key(|read| (read.start, read.len));
    let reads: ExtentSet = reads.into_iter().collect();
    kept(&*disk, reads.runs())
}

/// Remembers what is read.
struct Recorded {
    disk: Arc<FileDisk>,
    reads: Mutex<Vec<Extent>>,
}

impl ReadAt for Recorded {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.reads.lock().expect("nobody panics").push(Extent::new(offset, out.len() as u64));
        self.disk.read_exact_at(out, offset)
    }
}
