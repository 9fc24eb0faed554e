//! Members of Linux software RAIDs, by superblocks that `mdadm` reads and calls right.

use std::sync::Arc;

use aiv_filesystems::{
    Error, FilesystemKind, RaidContents, raid_contents, recognise, stale_mirrors,
};
use aiv_volume_io::{Extent, MemDisk, ReadAt};

use crate::ext_tools::MIB;
use crate::tools::{Volume, run};

pub(crate) const LEN: u64 = 16 * MIB;
const MAGIC: u32 = 0xa92b_4efc;
const RAID1: i32 = 1;
pub(crate) const LINEAR: i32 = -1;

/// A superblock to be written, and where.
pub(crate) struct Member {
    /// Of the member.
    len: u64,
    at: u64,
    record: Vec<u8>,
    is_big_endian: bool,
}

impl Member {
    /// Format 1: 1.0, 1.1 or 1.2; `role` of two members at a data offset of 1 MiB, or 0.
    pub(crate) fn version1(minor: u32, level: i32, members: u32, role: u16) -> Self {
        let at = [LEN - 8192, 0, 4096][minor as usize];
        let data = if minor == 0 { (0, LEN / 512 - 16) } else { (2048, LEN / 512 - 2048) };
        let record = vec![0; 256 + 2 * 128];
        let mut member = Self { len: LEN, at, record, is_big_endian: false };
        for (at, word) in [(0, MAGIC), (4, 1), (72, level.cast_unsigned()), (92, members)] {
            member.set(at, &word.to_le_bytes());
        }
        member.set(16, b"0123456789abcdef");
        member.set(32, b"host:3");
        member.set(168, b"fedcba9876543210");
        let used = if level == RAID1 { data.1 - 1000 } else { 0 };
        for (at, word) in [(80, used), (128, data.0), (136, data.1), (144, at / 512)] {
            member.set(at, &word.to_le_bytes());
        }
        member.set(200, &30_u64.to_le_bytes());
        member.set(208, &u64::MAX.to_le_bytes());
        member.set(220, &128_u32.to_le_bytes());
        member.set(88, &u32::from(level == 0).wrapping_mul(128).to_le_bytes());
        for slot in 0..128 {
            member.set(256 + 2 * slot, &0xffff_u16.to_le_bytes());
        }
        member.set(160, &1_u32.to_le_bytes());
        member.set(258, &role.to_le_bytes());
        member
    }

    /// Format 0.90.
    pub(crate) fn version0(level: i32, members: u32, role: u32, state: u32) -> Self {
        let at = LEN - (64 << 10);
        let mut member = Self { len: LEN, at, record: vec![0; 4096], is_big_endian: false };
        let size = u32::try_from((LEN - (64 << 10)) / 1024 - 100).unwrap();
        for (word, value) in [
            (0, MAGIC),
            (2, 90),
            (5, 0x1234_5678),
            (7, level.cast_unsigned()),
            (8, size),
            (9, members),
            (10, members),
            (13, 0x9abc_def0),
            (33, 1),
            (34, members),
            (35, members),
            (39, 30),
            (992, role),
            (995, role),
            (996, state),
            (128 + 32 * role, role),
            (128 + 32 * role + 3, role),
            (128 + 32 * role + 4, state),
        ] {
            member.set(word as usize * 4, &value.to_le_bytes());
        }
        member
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.record[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.set(at, bytes);
        self
    }

    /// The same one, of format 0.90, on a member of so many bytes.
    pub(crate) fn on(self, len: u64) -> Self {
        Self { len, at: (len & !0xffff) - (64 << 10), ..self }
    }

    /// The same one, of format 0.90, as a machine of the other byte order writes it.
    pub(crate) fn big_endian(mut self) -> Self {
        self.record[39 * 4..41 * 4].rotate_left(4);
        self.is_big_endian = true;
        self
    }

    /// A volume with the superblock, its checksum right.
    pub(crate) fn volume(mut self) -> Volume {
        let sum_at = if self.record.len() == 4096 { 152 } else { 216 };
        self.set(sum_at, &[0; 4]);
        let words =
            self.record.chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())));
        let sum = words.sum::<u64>();
        let sum = u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).unwrap();
        self.set(sum_at, &sum.to_le_bytes());
        if self.is_big_endian {
            self.record.chunks_mut(4).for_each(<[u8]>::reverse);
        }
        let volume = Volume::new(self.len);
        volume.patch(self.at, &self.record);
        volume
    }
}

/// What `mdadm` says, when it calls the superblock right.
pub(crate) fn examined(volume: &Volume) -> String {
    let said = run("mdadm", &["--examine", volume.path()]);
    assert!(said.contains("- correct"), "{said}");
    said
}

fn contents(volume: &Volume) -> RaidContents {
    assert_eq!(recognise(&volume.open()).unwrap().kind, FilesystemKind::MdRaidMember);
    raid_contents(&volume.open()).unwrap()
}

fn refused(member: Member) -> String {
    raid_contents(&member.volume().open()).unwrap_err().to_string()
}

/// `Data Offset : 2048 sectors` and the like.
fn sectors(said: &str, name: &str) -> u64 {
    let line = said.lines().find(|line| line.trim().starts_with(name)).unwrap();
    line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_member_of_a_mirror_in_every_format_by_mdadm() {
    for minor in 0..3 {
        for role in [0, 1] {
            let volume = Member::version1(minor, RAID1, 2, role).volume();
            let said = examined(&volume);
            assert!(said.contains(&format!("Version : 1.{}", minor.min(2))), "{said}");
            let offset = if minor == 0 { 0 } else { sectors(&said, "Data Offset") };
            let found = contents(&volume);
            assert_eq!(found.extent.start, offset * 512);
            // mdadm counts the array in KiB.
            assert_eq!(found.extent.len / 1024, sectors(&said, "Array Size"), "{said}");
            assert_eq!(found.note, None);
        }
    }
    for role in [0, 1] {
        let volume = Member::version0(RAID1, 2, role, 6).volume();
        let said = examined(&volume);
        assert!(said.contains("Version : 0.90"), "{said}");
        let found = contents(&volume);
        assert_eq!(found.extent, Extent::new(0, sectors(&said, "Array Size") * 1024));
        assert_eq!(found.note, None);
        let other = Member::version0(RAID1, 2, role, 6).big_endian().volume();
        assert_eq!(contents(&other), found);
    }
}

#[test]
fn arrays_of_one_device_are_their_member_and_others_need_the_rest() {
    for level in [LINEAR, 0] {
        let found = contents(&Member::version1(2, level, 1, 0).volume());
        assert_eq!(found.extent, Extent::new(MIB, LEN - MIB));
        let odd = Member::version1(2, level, 1, 0).with(136, &10_001_u64.to_le_bytes());
        let len = contents(&odd.volume()).extent.len / 512;
        assert_eq!(len, if level == 0 { 9984 } else { 10_001 });
        let rounded = Member::version1(2, level, 1, 0).with(88, &16_u32.to_le_bytes());
        let rounded = rounded.with(136, &10_001_u64.to_le_bytes());
        assert_eq!(contents(&rounded.volume()).extent.len / 512, 10_000);
        let found = contents(&Member::version0(level, 1, 0, 6).volume());
        assert_eq!(found.extent, Extent::new(0, LEN - (64 << 10)));
    }
    let needed = |of: &str| format!("it is one of 3 members of a {of}: the others are needed, too");
    assert_eq!(refused(Member::version1(2, LINEAR, 3, 0)), needed("linear array"));
    assert_eq!(refused(Member::version1(1, 5, 3, 0)), needed("RAID5"));
    assert_eq!(refused(Member::version0(0, 3, 0, 6)), needed("RAID0"));
}

#[test]
fn a_member_that_is_not_the_array_is_refused() {
    let mirror = |role| Member::version1(2, RAID1, 2, role);
    let feature = |bits: u32| refused(mirror(0).with(8, &bits.to_le_bytes()));
    assert_eq!(refused(mirror(0xffff)), "it is a spare of a RAID");
    assert_eq!(refused(mirror(0xfffd)), "it is the journal of a RAID");
    assert_eq!(refused(mirror(0xfffe)), "it failed, and its RAID went on without it");
    assert_eq!(feature(2), "it was being filled from other members");
    assert_eq!(feature(4), "the shape of its RAID was being changed");
    assert_eq!(feature(9), "it has blocks that only other members can give out");
    assert_eq!(feature(16), "it was being filled to replace another member");
    assert_eq!(feature(256), "its RAID has features that are not known (0x100)");
    assert_eq!(contents(&mirror(0).with(8, &1_u32.to_le_bytes()).volume()).note, None);
    assert_eq!(
        refused(Member::version0(RAID1, 2, 0, 1)),
        "it failed, and its RAID went on without it"
    );
    assert_eq!(refused(Member::version0(RAID1, 2, 0, 0)), "it is a spare of a RAID");
}

#[test]
fn a_mirror_in_use_is_noted_for_all_but_its_first_member() {
    let used = |role| Member::version1(2, RAID1, 2, role).with(208, &0_u64.to_le_bytes()).volume();
    assert_eq!(contents(&used(0)).note, None);
    assert!(contents(&used(1)).note.unwrap().contains("was in use"));
    let used = |role| Member::version0(RAID1, 2, role, 6).with(33 * 4, &[0; 4]).volume();
    assert_eq!(contents(&used(0)).note, None);
    assert!(contents(&used(1)).note.is_some());
}

#[test]
fn a_member_that_its_mirror_went_on_without_is_known_by_a_newer_one() {
    let new = |role| Member::version1(2, RAID1, 2, role);
    let old = |role| Member::version0(RAID1, 2, role, 6);
    let seen = |events: u64| events.to_le_bytes();
    let another = |role| new(role).with(16, b"another array...");
    let five = Member::version1(2, 5, 3, 0).with(200, &seen(90));
    let members: Vec<Arc<dyn ReadAt>> = [
        new(0),
        new(1).with(200, &seen(32)),
        old(0).with(4 * 39, &seen(1 << 32 | 4)),
        old(1),
        // One change behind is none.
        another(1).with(200, &seen(31)),
        another(0),
        // Neither a spare nor what is no mirror says anything.
        another(0xffff).with(200, &seen(99)),
        five.with(16, b"another array..."),
    ]
    .into_iter()
    .map(|member| Arc::new(member.volume().open()) as Arc<dyn ReadAt>)
    .collect();
    assert_eq!(stale_mirrors(&members), [0, 3]);
    assert_eq!(stale_mirrors(&members[..1]), [0; 0]);
}

#[test]
fn superblocks_of_an_attacker_are_damage() {
    let mirror = || Member::version1(2, RAID1, 2, 1);
    let (big, most) = (u64::MAX.to_le_bytes(), (u64::MAX / 512).to_le_bytes());
    for member in [
        mirror().with(80, &big),
        mirror().with(80, &0_u64.to_le_bytes()),
        mirror().with(80, &(1_u64 << 40).to_le_bytes()),
        mirror().with(128, &most),
        mirror().with(128, &big),
        mirror().with(136, &most),
        mirror().with(144, &7_u64.to_le_bytes()),
        mirror().with(220, &u32::MAX.to_le_bytes()),
        mirror().with(258, &9_u16.to_le_bytes()),
        Member::version0(RAID1, 2, 0, 6).with(32, &u32::MAX.to_le_bytes()),
        Member::version0(RAID1, 2, 0, 6).with(995 * 4, &9_u32.to_le_bytes()),
        Member::version0(RAID1, 2, 0, 6).with(8, &91_u32.to_le_bytes()),
        Member::version0(RAID1, 2, 0, 6).with(8, &92_u32.to_le_bytes()),
        Member::version0(RAID1, 2, 0, 6).with(40, &28_u32.to_le_bytes()),
    ] {
        let error = raid_contents(&member.volume().open()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    for at in [4096 + 72, 4096 + 256] {
        let volume = mirror().volume();
        volume.patch(at, &[0x55]);
        let error = raid_contents(&volume.open()).unwrap_err().to_string();
        assert!(error.contains("its checksum is wrong"), "{error}");
    }
    for len in [0, 511, 4096, 70_000, 1 << 20] {
        let blank = MemDisk::from_bytes(vec![0; len]);
        assert!(raid_contents(&blank).is_err());
    }
}
