//! Arrays of several members: as GRUB reads them, whose own code puts them together, from superblocks
//! that `mdadm` calls right.

use std::fs;
use std::sync::Arc;

use aiv_filesystems::{RaidArray, raid_arrays};
use aiv_volume_io::{Extent, ReadAt};

use crate::ext_tools::MIB;
use crate::md_members::{LEN, LINEAR, Member, examined};
use crate::tools::{Volume, noise, run};

/// Bytes of a member that may hold data.
const DATA: u64 = 3 * MIB;

/// What is different between arrays.
#[derive(Debug, Clone, Copy)]
struct Shape {
    level: i32,
    layout: u32,
    members: u32,
    /// Sectors of a chunk.
    chunk: u32,
}

const fn shape(level: i32, layout: u32, members: u32, chunk: u32) -> Shape {
    Shape { level, layout, members, chunk }
}

impl Shape {
    fn member(self, role: u16) -> Member {
        let used = if self.level > 0 { DATA / 512 - 2048 } else { 0 };
        Member::version1(2, self.level, self.members, role)
            .with(76, &self.layout.to_le_bytes())
            .with(80, &used.to_le_bytes())
            .with(88, &self.chunk.to_le_bytes())
            .with(136, &(DATA / 512).to_le_bytes())
    }

    /// All of its members, with noise in their data.
    fn volumes(self) -> Vec<Volume> {
        let roles = (0..self.members).map(|role| u16::try_from(role).unwrap());
        roles.map(|role| filled(self.member(role), role)).collect()
    }
}

fn data_of(role: u16) -> Vec<u8> {
    noise(u64::from(role) + 1, usize::try_from(DATA).unwrap())
}

fn filled(member: Member, role: u16) -> Volume {
    let volume = member.volume();
    volume.patch(MIB, &data_of(role));
    volume
}

fn arrays(volumes: &[Volume]) -> Vec<RaidArray> {
    let members: Vec<Arc<dyn ReadAt>> =
        volumes.iter().map(|volume| Arc::new(volume.open()) as Arc<dyn ReadAt>).collect();
    raid_arrays(&members)
}

#[track_caller]
fn why(volumes: &[Volume]) -> String {
    let [array] = arrays(volumes).try_into().unwrap();
    let Err(why) = array.bytes else { panic!("it is read") };
    why
}

/// GRUB finds the same bytes in the array.
fn check(shape: Shape) {
    let volumes = shape.volumes();
    let said = examined(&volumes[0]);
    // In any order.
    let mut mixed = volumes;
    mixed.rotate_left(1);
    let [array] = arrays(&mixed).try_into().unwrap();
    assert_eq!(array.members, (0..mixed.len()).collect::<Vec<_>>());
    assert_eq!(array.note, None);
    let bytes = array.bytes.unwrap();
    // mdadm counts the array in KiB.
    let line = said.lines().find(|line| line.trim().starts_with("Array Size"));
    let size = line.map(|line| line.split_whitespace().nth(3).unwrap().parse().unwrap());
    assert_eq!(size.is_some(), shape.level > 0, "{said}");
    let size: u64 = size.unwrap_or(bytes.len() / 1024);
    // It does not round where the kernel does.
    let left = size - bytes.len() / 1024;
    assert!(left * 2 < u64::from(shape.chunk.max(1)), "{shape:?}: {said}");
    let mut all = vec![0; usize::try_from(bytes.len()).unwrap()];
    bytes.read_exact_at(&mut all, 0).unwrap();
    for (at, len) in [(1, 70_000), (65_535, 2), (300_000, 1_000_001), (all.len() - 5, 5)] {
        let mut part = vec![0; len];
        bytes.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == all[at..at + len], "{shape:?}: {len} bytes at {at}");
    }
    assert!(bytes.read_exact_at(&mut [0; 2], bytes.len() - 1).is_err());
    let ours = Volume::new(0);
    fs::write(&ours.path, &all).unwrap();
    let count = mixed.len().to_string();
    let mut words: Vec<&str> = mixed.iter().map(Volume::path).collect();
    let sectors = all.len() / 512;
    let file = format!("(mduuid/30313233343536373839616263646566)0+{sectors}");
    words.extend(["-c", &count, "cmp", &file, ours.path()]);
    let told = run("grub-fstest", &words);
    assert!(told.is_empty(), "{shape:?}: {told}");
}

#[test]
fn stripes_and_members_one_behind_the_other() {
    check(shape(0, 0, 2, 128));
    check(shape(0, 0, 3, 24));
    let linear = shape(LINEAR, 0, 3, 0);
    let mut volumes = linear.volumes();
    // The last one is shorter.
    volumes[2] = filled(linear.member(2).with(136, &1001_u64.to_le_bytes()), 2);
    let [array] = arrays(&volumes).try_into().unwrap();
    let mut all = vec![0; usize::try_from(array.bytes.as_ref().unwrap().len()).unwrap()];
    array.bytes.unwrap().read_exact_at(&mut all, 0).unwrap();
    let expected = [data_of(0), data_of(1), data_of(2)[..1001 * 512].to_vec()].concat();
    assert!(all == expected);
}

#[test]
fn rotating_parity_is_stepped_over_in_every_layout() {
    for layout in 0..4 {
        check(shape(5, layout, 3, 128));
        check(shape(6, layout, 5, 64));
    }
    check(shape(5, 2, 4, 1024));
    check(shape(6, 2, 4, 8));
    check(shape(4, 0, 3, 128));
}

#[test]
fn copies_side_by_side_and_far_apart() {
    for layout in [0x102, 0x201, 0x10201, 0x103] {
        check(shape(10, layout, 4, 128));
        check(shape(10, layout, 3, 64));
    }
}

#[test]
fn what_is_not_put_together_says_why() {
    let five = shape(5, 2, 3, 128);
    assert_eq!(why(&five.volumes()[1..]), "1 of the 3 members of its RAID5 are not here");
    let mut twice = five.volumes();
    twice.push(twice[0].duplicate());
    assert_eq!(why(&twice), "two of its members have one place");
    let other = |at: usize, bytes: &[u8]| {
        let mut volumes = five.volumes();
        volumes[2] = filled(five.member(2).with(at, bytes), 2);
        volumes
    };
    assert!(why(&other(88, &64_u32.to_le_bytes())).contains("contradict"));
    assert!(why(&other(76, &1_u32.to_le_bytes())).contains("contradict"));
    assert!(why(&other(8, &4_u32.to_le_bytes())).contains("shape"));
    assert!(why(&other(80, &3000_u64.to_le_bytes())).contains("contradict"));
    let zero = shape(0, 0, 2, 128);
    let short = filled(zero.member(1).with(136, &5000_u64.to_le_bytes()), 1);
    assert!(why(&[filled(zero.member(0), 0), short]).contains("different lengths"));
    // A change that one of them has not seen is none, and two are.
    for (events, is_read) in [(29_u64, true), (28, false), (31, true), (32, false)] {
        let [array] = arrays(&other(200, &events.to_le_bytes())).try_into().unwrap();
        assert_eq!(array.bytes.is_ok(), is_read, "{events}");
    }
    for (shape, reason) in [
        (shape(5, 16, 3, 128), "layout 0x10"),
        (shape(6, 10, 4, 128), "layout 0xa"),
        (shape(10, 0x20102, 4, 128), "layout 0x20102"),
        (shape(10, 0x302, 4, 128), "layout 0x302"),
        (shape(10, 0x100, 4, 128), "layout 0x100"),
        (shape(7, 0, 3, 128), "level 7"),
        (shape(0, 0, 2, 0), "chunks have a length"),
        (shape(0, 0, 2, u32::MAX), "chunks have a length"),
        (shape(5, 2, 2, 0x1f_fff8), "does not fit"),
    ] {
        let [array] = arrays(&shape.volumes()).try_into().unwrap();
        let why = array.bytes.err().unwrap_or_default();
        assert!(why.contains(reason), "{shape:?}: {why}");
    }
    let used = |role| shape(10, 0x102, 2, 128).member(role).with(208, &0_u64.to_le_bytes());
    let [array] = arrays(&[filled(used(0), 0), filled(used(1), 1)]).try_into().unwrap();
    assert!(array.note.unwrap().contains("in use"));
    // Spares, and members of two arrays at once.
    let mut all = shape(0, 0, 2, 128).volumes();
    let another = |role| shape(0, 0, 2, 64).member(role).with(16, b"another array...").volume();
    all.extend([another(0), shape(0, 0, 2, 128).member(0xffff).volume(), another(1)]);
    let found = arrays(&all);
    let members: Vec<_> = found.iter().map(|array| array.members.clone()).collect();
    assert_eq!(members, [vec![0, 1], vec![2, 4]]);
    assert!(found.iter().all(|array| array.bytes.is_ok()));
}

#[test]
fn superblocks_of_an_attacker_give_bytes_of_their_members_or_none() {
    let mut random = aiv_testkit::Random::new(&[5]);
    let fields = [8, 72, 76, 80, 84, 88, 92, 128, 132, 136, 140, 200, 258];
    let (mut read, mut refused) = (0, 0);
    for _ in 0..CASES {
        let level = [LINEAR, 0, 4, 5, 6, 10][random.below(6)];
        let layout = [0, 2, 5, 0x102, 0x10201][random.below(5)];
        let shape = shape(level, layout, 4, 128);
        let at = fields[random.below(fields.len())];
        let word = match random.below(3) {
            0 => u32::try_from(random.below(9)).unwrap(),
            1 => u32::try_from(random.next() & 0xffff_ffff).unwrap(),
            _ => 1 << random.below(32),
        };
        let everywhere = random.below(2) == 0;
        let volumes: Vec<Volume> = (0..4)
            .map(|role| match everywhere || role == 1 {
                true if at != 258 => shape.member(role).with(at, &word.to_le_bytes()),
                true => shape.member(role).with(at, &word.to_le_bytes()[..2]),
                false => shape.member(role),
            })
            .map(Member::volume)
            .collect();
        for array in arrays(&volumes) {
            let Ok(bytes) = array.bytes else {
                refused += 1;
                continue;
            };
            let len = bytes.len();
            assert!(len > 0 && len <= 4 * LEN);
            for at in [0, len / 2, len - 1] {
                let mut out = vec![0; usize::try_from((len - at).min(70_000)).unwrap()];
                bytes.read_exact_at(&mut out, at).unwrap();
            }
            assert!(bytes.holes(Extent::new(0, len)).unwrap().is_empty());
            read += 1;
        }
    }
    assert!(read > 10 && refused > 10, "{read} {refused}");
}

/// So many.
const CASES: u32 = 150;
