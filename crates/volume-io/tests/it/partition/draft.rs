//! Tables placed on other disks, judged by sgdisk, sfdisk and partx.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiv_volume_io::partition::{
    DiskId, Draft, Guid, Partition, PartitionTable, SectorSize, TableProblem, Unfit, read_table,
};
use aiv_volume_io::{Extent, FileDisk, MemDisk, ReadAt};
use proptest::prelude::*;

use super::build::{self, Gpt, GptEntry, guid};
use super::has;
use super::tools::run;
use crate::machine::Loop;

const MIB: u64 = 1 << 20;

/// A sparse file that goes away with its folder.
struct Disk {
    path: PathBuf,
    dir: tempfile::TempDir,
}

impl Disk {
    fn new(len: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(len).unwrap();
        Self { path, dir }
    }

    fn sgdisk(len: u64, sector: u32, arguments: &[&str]) -> Self {
        let disk = Self::new(len);
        disk.tool(sector, Command::new("sgdisk").args(arguments));
        disk
    }

    fn sfdisk(len: u64, sector: u32, script: &str) -> Self {
        let disk = Self::new(len);
        let path = disk.dir.path().join("script");
        fs::write(&path, script).unwrap();
        let mut sfdisk = Command::new("sfdisk");
        sfdisk.args(["--no-reread", "--no-tell-kernel"]).stdin(File::open(path).unwrap());
        disk.tool(sector, &mut sfdisk);
        disk
    }

    /// Runs a tool on the disk seen in sectors of `sector` bytes.
    fn tool(&self, sector: u32, command: &mut Command) -> String {
        if sector == 512 {
            return run(command.arg(&self.path));
        }
        let device = Loop::on(&self.path, &["--sector-size", &sector.to_string()]);
        run(command.arg(&device.path))
    }

    fn draft(&self, sector: u32) -> Result<Draft, Unfit> {
        Draft::read(&FileDisk::open_source(&self.path).unwrap(), size(sector)).unwrap()
    }

    fn table(&self, sector: u32) -> PartitionTable {
        read_table(&FileDisk::open_source(&self.path).unwrap(), size(sector)).unwrap()
    }

    fn bytes(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap()];
        FileDisk::open_source(&self.path).unwrap().read_exact_at(&mut bytes, extent.start).unwrap();
        bytes
    }

    /// Gives the disk its new length and writes the patches of the draft.
    fn become_what(&self, draft: &Draft, len: u64) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.set_len(len).unwrap();
        for patch in draft.patches().unwrap() {
            file.write_all_at(&patch.bytes, patch.offset).unwrap();
        }
    }

    /// All judges: nothing is wrong with the table, and the partitions are those of the draft.
    fn check(&self, draft: &Draft, sector: u32) {
        let table = self.table(sector);
        assert_eq!(table.problems, []);
        assert_eq!(table.partitions, draft.partitions());
        assert_eq!(table.disk_id, draft.disk_id());
        if let Some(DiskId::Gpt(_)) = table.disk_id {
            let verdict = self.tool(sector, Command::new("sgdisk").arg("--verify"));
            assert!(verdict.contains("No problems found"), "{verdict}");
        }
        let verdict = self.tool(sector, Command::new("sfdisk").arg("--verify"));
        assert!(verdict.contains("No errors detected"), "{verdict}");
        check_partx(&self.path, sector, &table);
    }
}

/// Whether `partx`, whose list the kernel gets where it reads no tables itself, has the same
/// partitions.
fn check_partx(path: &Path, sector: u32, table: &PartitionTable) {
    let device = Loop::on(path, &["--sector-size", &sector.to_string()]);
    let mut partx = Command::new("partx");
    partx.args(["--raw", "--noheadings", "--output", "NR,START,SECTORS"]);
    let printed = run(partx.arg(&device.path));
    let words = printed.lines().map(str::split_whitespace);
    let rows: Vec<Vec<u64>> =
        words.map(|row| row.map(|word| word.parse().unwrap()).collect()).collect();
    let row = |p: &Partition| vec![p.number.into(), p.extent.start / 512, p.extent.len / 512];
    assert_eq!(rows, table.partitions.iter().map(row).collect::<Vec<_>>());
}

fn size(sector: u32) -> SectorSize {
    SectorSize::new(sector).unwrap()
}

/// Three partitions between 1 MiB and 24 MiB, the ones in front aligned to all sector sizes.
const GPT: [&str; 7] = [
    "--clear",
    "--new=1:1M:+3M",
    "--typecode=1:ef00",
    "--new=2:8M:+8M",
    "--change-name=2:größe",
    "--new=5:16M:+8M",
    "--attributes=2:set:2",
];

const MBR: &str = "label: dos\nlabel-id: 0x8cad3deb\n\
    1: start=1MiB, size=8MiB, type=7, bootable\n3: start=10MiB, size=14MiB, type=f\n\
    5: start=11MiB, size=5MiB, type=83\n6: start=17MiB, size=6MiB, type=82\n\
    2: start=26MiB, size=2MiB, type=83\n";

#[test]
fn a_table_on_its_own_disk_is_what_it_was() {
    for sector in [512, 4096] {
        let disk = Disk::sgdisk(64 * MIB, sector, &GPT);
        let draft = disk.draft(sector).unwrap();
        let patches = draft.patches().unwrap();
        assert_eq!(patches.iter().filter(|patch| patch.is_backup).count(), 2);
        for patch in patches {
            assert!(disk.bytes(patch.extent()) == patch.bytes, "byte {}", patch.offset);
        }
        let disk = Disk::sfdisk(64 * MIB, sector, MBR);
        assert_eq!(disk.draft(sector).unwrap().patches(), Ok(Vec::new()));
    }
}

#[test]
fn a_gpt_moves_to_the_end_of_a_larger_disk_and_leaves_no_copy_behind() {
    for sector in [512, 4096] {
        let disk = Disk::sgdisk(64 * MIB, sector, &GPT);
        let mut draft = disk.draft(sector).unwrap();
        draft.place(size(sector), 100 * MIB + 8192);
        disk.become_what(&draft, 100 * MIB + 8192);
        disk.check(&draft, sector);
        let old = disk.bytes(Extent::between(63 * MIB, 64 * MIB));
        assert!(old.iter().all(|&byte| byte == 0), "a stale copy");
    }
}

#[test]
fn a_gpt_moves_to_the_end_of_a_smaller_disk_down_to_its_last_partition() {
    for sector in [512, 4096] {
        let disk = Disk::sgdisk(64 * MIB, sector, &GPT);
        let mut draft = disk.draft(sector).unwrap();
        let least = draft.len_min();
        assert!(least > 24 * MIB && least < 25 * MIB, "{least}");
        draft.place(size(sector), least - u64::from(sector));
        let refused = draft.patches().unwrap_err();
        assert!(matches!(refused, Unfit::PastEnd { number: 5, .. }), "{refused}");
        draft.place(size(sector), least);
        disk.become_what(&draft, least);
        disk.check(&draft, sector);
    }
}

#[test]
fn a_disk_that_grew_under_its_table_is_mended() {
    let disk = Disk::sgdisk(64 * MIB, 512, &GPT);
    File::options().write(true).open(&disk.path).unwrap().set_len(80 * MIB).unwrap();
    let draft = disk.draft(512).unwrap();
    assert!(
        draft.before().problems.iter().any(|p| matches!(p, TableProblem::BackupNotAtEnd { .. }))
    );
    disk.become_what(&draft, 80 * MIB);
    disk.check(&draft, 512);
}

#[test]
fn a_partition_grows_into_the_room_behind_it_and_no_further() {
    for sector in [512, 4096] {
        let disk = Disk::sgdisk(64 * MIB, sector, &GPT);
        let mut draft = disk.draft(sector).unwrap();
        draft.place(size(sector), 100 * MIB);
        assert_eq!(draft.room(1), Ok(8 * MIB));
        assert_eq!(draft.room(2), Ok(16 * MIB));
        assert_eq!(draft.room(5), Ok(draft.usable().unwrap().end()));
        assert_eq!(draft.room(3), Err(Unfit::NoSuchPartition { number: 3 }));
        let mut too_long = draft.clone();
        too_long.set_end(1, 8 * MIB + 4096).unwrap();
        assert_eq!(too_long.patches(), Err(Unfit::NoRoom { number: 1 }));
        draft.set_end(1, 8 * MIB).unwrap();
        draft.set_end(5, 99 * MIB).unwrap();
        disk.become_what(&draft, 100 * MIB);
        disk.check(&draft, sector);
        assert_eq!(disk.table(sector).partitions[2].extent, Extent::between(16 * MIB, 99 * MIB));
    }
}

#[test]
fn a_table_is_counted_in_other_sectors_and_back() {
    for (from, to) in [(512, 4096), (4096, 512)] {
        for disk in [Disk::sgdisk(64 * MIB, from, &GPT), Disk::sfdisk(64 * MIB, from, MBR)] {
            let mut draft = disk.draft(from).unwrap();
            draft.place(size(to), 80 * MIB);
            disk.become_what(&draft, 80 * MIB);
            disk.check(&draft, to);
            let stale = disk.table(from).problems;
            assert!(!stale.is_empty() || disk.table(from).partitions.is_empty(), "two tables");
        }
    }
}

#[test]
fn what_does_not_divide_into_larger_sectors_is_refused_by_number() {
    let disk = Disk::sgdisk(64 * MIB, 512, &["--set-alignment=1", "--new=3:2049:4095"]);
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(4096), 64 * MIB);
    let wanted = Unfit::Misaligned { number: 3, at: 2049 * 512, sector: 4096 };
    assert_eq!(draft.patches(), Err(wanted));

    let disk = Disk::sgdisk(64 * MIB, 512, &["--set-alignment=1", "--new=1:40:4095"]);
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(4096), 64 * MIB);
    let refused = draft.patches().unwrap_err();
    assert!(matches!(refused, Unfit::BeforeUsable { number: 1, start: 20480, .. }), "{refused}");

    let script = "label: dos\n1: start=4MiB, size=20MiB, type=f\n5: start=8200, size=16, type=83\n";
    let disk = Disk::sfdisk(64 * MIB, 512, script);
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(4096), 64 * MIB);
    assert!(draft.patches().is_ok(), "8200 is a multiple of eight");
    let disk = Disk::sfdisk(64 * MIB, 512, &script.replace("8200", "8201"));
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(4096), 64 * MIB);
    let refused = draft.patches().unwrap_err();
    assert!(matches!(refused, Unfit::Misaligned { number: 5, .. }), "{refused}");
}

#[test]
fn bytes_somebody_keeps_behind_the_table_are_not_overwritten() {
    let disk = Disk::sgdisk(64 * MIB, 512, &GPT);
    let file = File::options().write(true).open(&disk.path).unwrap();
    file.write_all_at(b"U-Boot", 20_000).unwrap();
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(4096), 64 * MIB);
    let refused = draft.patches().unwrap_err();
    assert!(matches!(refused, Unfit::GapInUse(gap) if gap.start <= 20_000), "{refused}");
    draft.place(size(512), 70 * MIB);
    assert!(draft.patches().is_ok(), "with the same sectors nothing there moves");
}

#[test]
fn a_hybrid_mbr_stays_as_it_is_and_cannot_be_converted() {
    let disk = Disk::sgdisk(64 * MIB, 512, &GPT);
    disk.tool(512, Command::new("sgdisk").arg("--hybrid=1"));
    let boot = disk.bytes(Extent::new(0, 512));
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(512), 80 * MIB);
    disk.become_what(&draft, 80 * MIB);
    assert!(disk.bytes(Extent::new(0, 512)) == boot);
    let problems = disk.table(512).problems;
    assert!(problems.contains(&TableProblem::HybridMbr { entries: 1 }));
    assert!(!has(&disk.table(512), |p| matches!(p, TableProblem::BackupNotAtEnd { .. })));
    draft.place(size(4096), 80 * MIB);
    assert_eq!(draft.patches(), Err(Unfit::Hybrid));
}

#[test]
fn primary_partitions_of_an_mbr_grow_and_logical_ones_do_not() {
    let disk = Disk::sfdisk(64 * MIB, 512, MBR);
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(512), 80 * MIB);
    assert_eq!(draft.room(1), Ok(10 * MIB));
    for number in [3, 5, 6] {
        assert_eq!(draft.set_end(number, 25 * MIB), Err(Unfit::Logical { number }));
    }
    draft.set_end(1, 10 * MIB).unwrap();
    draft.set_end(2, 80 * MIB).unwrap();
    disk.become_what(&draft, 80 * MIB);
    disk.check(&draft, 512);
    draft.place(size(512), 27 * MIB);
    let refused = draft.patches().unwrap_err();
    assert!(matches!(refused, Unfit::PastEnd { number: 2, .. }), "{refused}");
}

#[test]
fn an_mbr_partition_grows_to_two_tebibytes_and_no_further() {
    let disk = Disk::sfdisk(64 * MIB, 512, "label: dos\n1: start=1MiB, size=8MiB, type=83\n");
    let mut draft = disk.draft(512).unwrap();
    draft.place(size(512), 3 << 40);
    draft.set_end(1, (2 << 40) + MIB).unwrap();
    let wanted = Unfit::TooFar { number: 1, end: (1 << 32) + 2048, max: 1 << 32 };
    assert_eq!(draft.patches(), Err(wanted));
    draft.set_end(1, 2 << 40).unwrap();
    disk.become_what(&draft, 3 << 40);
    disk.check(&draft, 512);
}

fn numbered(number: u32) -> Guid {
    let mut bytes = [7; 16];
    bytes[0] = u8::try_from(number).unwrap();
    Guid::from_bytes(bytes)
}

#[test]
fn an_mbr_becomes_a_gpt_whose_partitions_have_the_same_bytes_and_numbers() {
    for (sector, len) in [(512, 64 * MIB), (512, 3 << 40), (4096, 80 * MIB)] {
        let disk = Disk::sfdisk(64 * MIB, sector, MBR);
        let before = disk.table(sector).partitions;
        let mut draft = disk.draft(sector).unwrap();
        draft.place(size(sector), len);
        draft.make_gpt(&mut numbered).unwrap();
        // What lay in the extended one can grow now.
        draft.set_end(2, len - MIB).unwrap();
        disk.become_what(&draft, len);
        disk.check(&draft, sector);
        let after = disk.table(sector).partitions;
        let kept: Vec<_> = before.iter().filter(|p| !p.kind.is_extended()).collect();
        assert_eq!(kept.len(), after.len());
        for (before, after) in kept.into_iter().zip(&after) {
            assert_eq!((before.number, before.extent.start), (after.number, after.extent.start));
            assert_eq!(before.bootable, after.bootable);
            assert!(before.extent == after.extent || before.number == 2);
            assert_eq!(after.unique_id, Some(numbered(after.number)));
        }
        // Boot code would jump into the table.
        assert_eq!(disk.bytes(Extent::new(0, 446)), [0; 446]);
        let printed = disk.tool(sector, Command::new("sgdisk").arg("--print"));
        for code in ["0700", "8300", "8200"] {
            assert!(printed.contains(code), "{printed}");
        }
    }
}

#[test]
fn an_mbr_that_cannot_become_a_gpt_says_why() {
    let foreign = "label: dos\n1: start=1MiB, size=8MiB, type=42\n";
    let mut draft = Disk::sfdisk(64 * MIB, 512, foreign).draft(512).unwrap();
    let refused = draft.make_gpt(&mut numbered).unwrap_err();
    let text = "partition 1 is of the type 0x42, which no type of a GPT stands for";
    assert_eq!(refused.to_string(), text);
    let early = "label: dos\n1: start=8, size=2048, type=83\n";
    let mut draft = Disk::sfdisk(64 * MIB, 512, early).draft(512).unwrap();
    draft.make_gpt(&mut numbered).unwrap();
    let wanted = Unfit::BeforeUsable { number: 1, start: 8 * 512, min: 34 * 512 };
    assert_eq!(draft.patches(), Err(wanted));
    let full = "label: dos\n1: start=1MiB, type=83\n";
    let mut draft = Disk::sfdisk(64 * MIB, 512, full).draft(512).unwrap();
    draft.make_gpt(&mut numbered).unwrap();
    assert!(matches!(draft.patches(), Err(Unfit::PastEnd { number: 1, .. })));
    // A GPT is one already.
    let mut draft = Disk::sgdisk(64 * MIB, 512, &GPT).draft(512).unwrap();
    let before = draft.clone();
    draft.make_gpt(&mut numbered).unwrap();
    assert_eq!(draft, before);
}

#[test]
fn a_disk_and_its_partitions_get_another_identity() {
    let disk = Disk::sgdisk(64 * MIB, 512, &GPT);
    let mut draft = disk.draft(512).unwrap();
    let (new, part) = (guid(build::DISK_GUID), guid(build::ESP));
    assert_eq!(draft.set_disk_id(DiskId::Mbr(7)), Err(Unfit::OtherKind));
    draft.set_disk_id(DiskId::Gpt(new)).unwrap();
    draft.set_partition_id(5, part).unwrap();
    disk.become_what(&draft, 64 * MIB);
    disk.check(&draft, 512);
    let printed = disk.tool(512, Command::new("sgdisk").arg("--info=5")).to_lowercase();
    assert!(printed.contains(&format!("partition unique guid: {part}")), "{printed}");

    let disk = Disk::sfdisk(64 * MIB, 512, MBR);
    let mut draft = disk.draft(512).unwrap();
    assert_eq!(draft.set_partition_id(1, part), Err(Unfit::NoSuchPartition { number: 1 }));
    draft.set_disk_id(DiskId::Mbr(0x0123_4567)).unwrap();
    disk.become_what(&draft, 64 * MIB);
    disk.check(&draft, 512);
}

#[test]
fn tables_with_real_problems_are_left_alone() {
    let blank = MemDisk::from_bytes(vec![0; 1 << 20]);
    assert_eq!(Draft::read(&blank, SectorSize::B512).unwrap(), Err(Unfit::NoTable));
    let sound = Gpt::small(512);
    let refuse = |bytes: Vec<u8>, what: &str| {
        let refused = Draft::read(&MemDisk::from_bytes(bytes), SectorSize::B512).unwrap();
        assert!(matches!(refused, Err(Unfit::Damaged(_))), "{what}: {refused:?}");
    };
    let mut primary = sound.bytes();
    primary[512 + 60] ^= 1;
    refuse(primary, "damaged primary");
    let mut overlapping = sound.clone();
    overlapping.entries.push(GptEntry::new(6, 30, 33));
    refuse(overlapping.bytes(), "overlapping partitions");
    let mut past = sound.clone();
    past.entries[2].last = 500;
    refuse(past.bytes(), "a partition past the end");
    let mut backup = sound.bytes();
    let at = backup.len() - 512 + 60;
    backup[at] ^= 1;
    let draft = Draft::read(&MemDisk::from_bytes(backup), SectorSize::B512).unwrap().unwrap();
    let Ok(patches) = draft.patches() else { panic!("a damaged backup is made anew") };
    assert!(patches.iter().any(|patch| sound.bytes().ends_with(&patch.bytes)));
}

#[test]
fn a_disk_without_room_for_the_table_is_refused() {
    let mut gpt = Gpt::small(512);
    gpt.entries.clear();
    let mut draft =
        Draft::read(&MemDisk::from_bytes(gpt.bytes()), SectorSize::B512).unwrap().unwrap();
    for sectors in 0..7 {
        draft.place(SectorSize::B512, sectors * 512);
        assert_eq!(draft.patches(), Err(Unfit::TooSmall { len: sectors * 512 }), "{sectors}");
    }
    draft.place(SectorSize::B512, 7 * 512);
    assert!(draft.patches().is_ok());
}

proptest! {
    #[test]
    fn whatever_a_table_says_its_patches_are_inside_the_disk_and_apart(
        changes in prop::collection::vec((0usize..1600, any::<u8>()), 0..6),
        reseal in any::<bool>(),
        from in prop_oneof![Just(512u32), Just(4096)],
        to in prop_oneof![Just(512u32), Just(2048), Just(4096)],
        len in prop_oneof![0u64..600_000, any::<u64>()],
        ends in prop::collection::vec((0u32..8, 0u64..700_000), 0..3),
    ) {
        let gpt = Gpt::small(from);
        let mut bytes = gpt.bytes();
        for (at, value) in changes {
            bytes[at % 1600] = value;
        }
        if reseal {
            build::seal_header(&mut bytes, from.into());
        }
        let disk = MemDisk::from_bytes(bytes);
        if let Ok(Ok(mut draft)) = Draft::read(&disk, size(from)) {
            draft.place(size(to), len);
            for (number, end) in ends {
                let _ = draft.set_end(number, end);
                let _ = draft.room(number);
            }
            if let Ok(patches) = draft.patches() {
                let mut at = 0;
                for patch in patches {
                    prop_assert!(patch.offset >= at && !patch.bytes.is_empty());
                    at = patch.extent().end();
                }
                prop_assert!(at <= len);
            }
        }
    }
}
