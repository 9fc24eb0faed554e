//! Arrays of several members: as GRUB reads them, whose own code puts them together, from superblocks
//! that `mdadm` calls right.

use std::fs;
use std::sync::Arc;

use aiv_filesystems::{RaidArray, raid_arrays, raid_contents};
use aiv_volume_io::{Extent, ReadAt};

use crate::ext_tools::MIB;
use crate::md_members::{LEN, LINEAR, Member, examined};
use crate::tools::{Volume, noise, run};

/// Bytes of a member that may hold data.
const DATA: u64 = 3 * MIB;

/// What is different between arrays.
#[derive(Debug, Clone, Copy)]
struct Shape {
    format: Format,
    level: i32,
    layout: u32,
    members: u32,
    /// Sectors of a chunk.
    chunk: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// 0.90.
    Old,
    /// The same in the other byte order.
    Swapped,
    /// 1.2.
    New,
}

const fn shape(level: i32, layout: u32, members: u32, chunk: u32) -> Shape {
    Shape { format: Format::New, level, layout, members, chunk }
}

impl Shape {
    /// The same with superblocks of another format.
    const fn of(self, format: Format) -> Self {
        Self { format, ..self }
    }

    fn member(self, role: u16) -> Member {
        if self.format != Format::New {
            let used = if self.level > 0 { u32::try_from(DATA / 1024 - 1024).unwrap() } else { 0 };
            let member = Member::version0(self.level, self.members, role.into(), 6)
                .with(8 * 4, &used.to_le_bytes())
                .with(64 * 4, &self.layout.to_le_bytes())
                .with(65 * 4, &(self.chunk * 512).to_le_bytes());
            return if self.format == Format::Swapped { member.big_endian() } else { member };
        }
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
        roles.map(|role| self.filled(self.member(role), role)).collect()
    }

    /// The member with noise in its data.
    fn filled(self, member: Member, role: u16) -> Volume {
        let volume = member.volume();
        volume.patch(if self.format == Format::New { MIB } else { 0 }, &data_of(role));
        volume
    }

    /// The array as GRUB calls it.
    fn name(self) -> &'static str {
        match self.format {
            Format::New => "mduuid/30313233343536373839616263646566",
            Format::Old | Format::Swapped => "md/md0",
        }
    }
}

fn data_of(role: u16) -> Vec<u8> {
    noise(u64::from(role) + 1, usize::try_from(DATA).unwrap())
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
    // mdadm reads its own byte order only.
    let judged = shape.of(if shape.format == Format::New { Format::New } else { Format::Old });
    let said = examined(&judged.filled(judged.member(0), 0));
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
    let file = format!("({})0+{sectors}", shape.name());
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
    volumes[2] = linear.filled(linear.member(2).with(136, &1001_u64.to_le_bytes()), 2);
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
fn superblocks_of_format_0_90_in_either_byte_order() {
    for format in [Format::Old, Format::Swapped] {
        check(shape(0, 0, 2, 128).of(format));
        check(shape(5, 2, 3, 128).of(format));
    }
    check(shape(10, 0x102, 3, 64).of(Format::Old));
    check(shape(6, 2, 5, 64).of(Format::Swapped));
}

#[test]
fn members_of_a_linear_array_of_format_0_90_have_lengths_of_their_own() {
    for (format, chunk) in [(Format::Old, 0), (Format::Swapped, 0), (Format::Old, 2048)] {
        let linear = shape(LINEAR, 0, 3, chunk).of(format);
        // The superblock begins at the last multiple of 64 KiB that has 64 KiB behind it.
        let lens = [2 * MIB, 3 * MIB, 2 * MIB - 5000].map(|len| (len, (len & !65_535) - 65_536));
        let (mut volumes, mut expected) = (Vec::new(), Vec::new());
        for (role, (len, data)) in (0_u16..).zip(lens) {
            let volume = linear.member(role).on(len).volume();
            // The kernel rounds each of them down to whole chunks.
            let used = data - data.checked_rem(u64::from(chunk) * 512).unwrap_or(0);
            let content = noise(role.into(), usize::try_from(data).unwrap());
            volume.patch(0, &content);
            expected.extend_from_slice(&content[..usize::try_from(used).unwrap()]);
            if format == Format::Old {
                examined(&volume);
            }
            volumes.push(volume);
        }
        volumes.rotate_left(1);
        let [array] = arrays(&volumes).try_into().unwrap();
        assert_eq!((&array.members, &array.note), (&vec![0, 1, 2], &None));
        let bytes = array.bytes.unwrap();
        let mut all = vec![0; usize::try_from(bytes.len()).unwrap()];
        bytes.read_exact_at(&mut all, 0).unwrap();
        assert!(all == expected, "{format:?} {chunk}");
    }
}

#[test]
fn what_is_not_put_together_of_format_0_90_says_why() {
    let five = shape(5, 2, 3, 128).of(Format::Old);
    let missing = "1 of the 3 members of its RAID5 are not here";
    assert_eq!(why(&[five.member(2).volume(), five.member(0).volume()]), missing);
    let other =
        |member: Member| vec![five.member(0).volume(), five.member(1).volume(), member.volume()];
    // Failed, spare, and being filled.
    for state in [1_u32, 0, 2] {
        assert_eq!(why(&other(five.member(2).with(996 * 4, &state.to_le_bytes()))), missing);
    }
    // Where there is nothing to fill it from, a member in use is one.
    let zero = shape(0, 0, 2, 128).of(Format::Old);
    let active = zero.member(1).with(996 * 4, &2_u32.to_le_bytes()).volume();
    assert!(arrays(&[zero.member(0).volume(), active])[0].bytes.is_ok());
    let place = five.member(2).with(995 * 4, &1_u32.to_le_bytes());
    assert_eq!(why(&other(place)), missing);
    let place = five.member(2).with(995 * 4, &3_u32.to_le_bytes());
    assert_eq!(why(&other(place)), missing);
    for (word, value) in [(8, 1024), (10, 4), (64, 1), (65, 4096_u32)] {
        let told = why(&other(five.member(2).with(word * 4, &value.to_le_bytes())));
        assert!(told.contains("contradict"), "{word}: {told}");
    }
    // The low half of the number of changes, and the high one.
    for (word, value, is_read) in [(39, 31, true), (39, 32, false), (40, 1_u32, false)] {
        let volumes = other(five.member(2).with(word * 4, &value.to_le_bytes()));
        assert_eq!(arrays(&volumes)[0].bytes.is_ok(), is_read, "{word} {value}");
    }
    // One of another format with the same identity, and one with an identity of its own.
    let identity = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
    let new = shape(5, 2, 3, 128).member(2).with(16, &[0; 16]).with(16, &identity);
    assert!(why(&other(new)).contains("contradict"));
    let found = arrays(&other(five.member(2).with(15 * 4, &[1])));
    let members: Vec<_> = found.iter().map(|array| array.members.clone()).collect();
    assert_eq!(members, [vec![0, 1], vec![2]]);
    // Being changed to another shape, and with more members than there is room for.
    for (word, value) in [(2, 91), (10, 28_u32)] {
        let volumes = other(five.member(2).with(word * 4, &value.to_le_bytes()));
        assert_eq!(why(&volumes), missing);
        assert!(raid_contents(&volumes[2].open()).is_err());
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
        volumes[2] = five.filled(five.member(2).with(at, bytes), 2);
        volumes
    };
    assert!(why(&other(88, &64_u32.to_le_bytes())).contains("contradict"));
    assert!(why(&other(76, &1_u32.to_le_bytes())).contains("contradict"));
    assert!(why(&other(8, &4_u32.to_le_bytes())).contains("shape"));
    assert!(why(&other(80, &3000_u64.to_le_bytes())).contains("contradict"));
    let zero = shape(0, 0, 2, 128);
    let short = zero.filled(zero.member(1).with(136, &5000_u64.to_le_bytes()), 1);
    assert!(why(&[zero.filled(zero.member(0), 0), short]).contains("different lengths"));
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
    let ten = shape(10, 0x102, 2, 128);
    let used = |role| ten.member(role).with(208, &0_u64.to_le_bytes());
    let [array] = arrays(&[ten.filled(used(0), 0), ten.filled(used(1), 1)]).try_into().unwrap();
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
    // Of format 0.90, in words.
    let words = [5, 7, 8, 10, 33, 39, 40, 64, 65, 992, 995, 996];
    let (mut read, mut refused) = (0, 0);
    for _ in 0..CASES {
        let level = [LINEAR, 0, 4, 5, 6, 10][random.below(6)];
        let layout = [0, 2, 5, 0x102, 0x10201][random.below(5)];
        let format = [Format::New, Format::Old, Format::Swapped][random.below(3)];
        let shape = shape(level, layout, 4, 128).of(format);
        let at = match format {
            Format::New => fields[random.below(fields.len())],
            _ => words[random.below(words.len())] * 4,
        };
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
const CASES: u32 = 250;
