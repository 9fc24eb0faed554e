//! Sealed images that build on sealed images, and frames copied between them.

use std::sync::Arc;

use aiv_image_format::{
    ChainKey, Depth, Error, Image, ImageId, ImageWriter, IndexEntry, Keys, Kind, Mode, ParentLink,
    ParentState, PointId, Scratch, Seal, SessionTag, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::areas::{Areas, DATA, DELTA};
use crate::change::{Change, Increment};
use crate::damage::{bits_of, for_each};
use crate::parents::{Files, read_block};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, open, open_with, read_all};
use crate::sealed::{key, seals};

pub(crate) fn base(seal: Option<Seal>) -> Recipe {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 3),
        (Block::Zero, 3),
        (Block::Unused, 300),
        (Block::Data(Fill::Noise(3)), 2),
        (Block::Data(Fill::Words(5)), 1),
    ];
    Recipe { seal, small_meta: true, ..Recipe::new(&blocks) }
}

pub(crate) fn increment(seal: Option<Seal>) -> Increment {
    let changes = [
        (Change::Patch(5000), 1),
        (Change::PatchOf(306, 9000), 1),
        (Change::Words(6), 1),
        (Change::Repeat(0), 1),
        (Change::Moved(1), 1),
        (Change::Keep, 3),
        (Change::Unreadable, 1),
        (Change::Zero, 1),
    ];
    Increment { checkpoint_every: 4, seal, ..Increment::new(&changes) }
}

fn files(bytes: &Arc<Vec<u8>>, below: Option<Files>) -> Files {
    Files::new(open_with(bytes, &Keys::of(key())).unwrap(), below).unwrap()
}

#[test]
fn an_increment_is_sealed_like_its_parent_and_reads_on_it() {
    for seal in seals() {
        let below = files(&base(seal.clone()).build(), None);
        let old = below.model();
        let bytes = increment(seal.clone()).build_on(&old, &below);
        let image = open_with(&bytes, &Keys::of(key())).unwrap();
        let wanted = increment(seal).state(&old);
        for (block, cell) in (0..).zip(&wanted.cells) {
            let mut out = vec![0; cell.1.len()];
            read_block(&image, Some(&below), block, &mut out).unwrap();
            assert!(out == cell.1, "block {block}");
        }
        assert_eq!(image.roots().unwrap().state, wanted.state_root);
        assert!(
            image.trailer().totals.blocks_delta > 0 && image.trailer().totals.blocks_parent > 0
        );
        let report = image.verify_on(&below, Depth::Data, Job::silent()).unwrap();
        assert_eq!(report.damage, []);
        let alone = image.verify(Depth::Data, Job::silent()).unwrap();
        assert!(alone.is_sound() && alone.without_parent);
        let again = files(&bytes, Some(below));
        let third = Increment { id: 3, ..increment(seals().pop().flatten()) };
        if image.superblock().is_sealed() {
            let bytes = third.build_on(&again.model(), &again);
            let image = open_with(&bytes, &Keys::of(key())).unwrap();
            assert_eq!(image.verify_on(&again, Depth::Data, Job::silent()).unwrap().damage, []);
        }
    }
}

#[test]
fn a_locked_increment_names_its_parent_as_the_parent_names_itself() {
    let seal = seals().pop().flatten();
    let parent = base(seal.clone()).build();
    let below = files(&parent, None);
    let child = increment(seal).build_on(&below.model(), &below);
    let (parent, child) = (open(&parent).unwrap(), open(&child).unwrap());
    assert!(parent.is_locked() && child.is_locked());
    let link = child.superblock().parent.unwrap();
    let (point, state_root) = (parent.superblock().point, parent.trailer().state_root);
    assert_eq!(link, ParentLink { point, state_root });
    assert_ne!(link.state_root, below.image.roots().unwrap().state, "the root itself is secret");
    let report = child.verify(Depth::Data, Job::silent()).unwrap();
    assert!(report.is_sound() && report.locked);
    let on = child.verify_on(&below, Depth::Data, Job::silent()).unwrap();
    assert!(on.is_sound() && on.locked);
}

#[test]
fn an_image_of_another_key_or_mode_than_its_parents_does_not_come_into_being() {
    let sealed = seals().pop().flatten();
    let other = sealed.clone().map(|seal| Seal { key: ChainKey::new([4; 32]), ..seal });
    let clear = sealed.clone().map(|seal| Seal { mode: Mode::Authenticated, ..seal });
    let below = files(&base(sealed).build(), None);
    let old = below.model();
    for seal in [None, other, clear] {
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        let error = increment(seal).write(file, &old, &below).unwrap_err();
        assert!(matches!(error, Error::Parent { .. }), "{error}");
    }
}

/// A new image with the frames of another, copied as they are.
fn copied(
    source: &Image,
    bytes: &[u8],
    seal: Option<Seal>,
    parent: Option<&dyn ParentState>,
) -> aiv_image_format::Result<Arc<Vec<u8>>> {
    let storage = MemStorage::new();
    let superblock = Superblock {
        image: ImageId([0xa1; 16]),
        point: PointId([0xa2; 16]),
        session: SessionTag([0xa3; 12]),
        features: aiv_image_format::Features {
            incompat: source.superblock().features.incompat & 0b1_1000,
            ..Default::default()
        },
        key_commitment: aiv_image_format::Digest::default(),
        ..source.superblock().clone()
    };
    let mut writer = ImageWriter::create_with(storage.create("image").unwrap(), superblock, seal)?;
    for entry in source.entries(0).map(Result::unwrap) {
        if entry.block > writer.next_block() {
            writer.inherit(entry.block - writer.next_block())?;
        }
        match entry.kind {
            Kind::Data | Kind::Delta | Kind::Ref => {
                let at = usize::try_from(entry.address).unwrap();
                let len = usize::try_from(entry.frame_size).unwrap();
                writer.copy_frames(&[entry], &bytes[at..at + len])?;
            }
            Kind::Parent => writer.push_parent(entry.parent_block, entry.leaf)?,
            Kind::Zero => writer.push_run(aiv_image_format::RunKind::Zero, entry.run)?,
            Kind::Unused => writer.push_run(aiv_image_format::RunKind::Unused, entry.run)?,
            _ => writer.push_run(aiv_image_format::RunKind::Unreadable, entry.run)?,
        }
    }
    let left = source.geometry().blocks() - writer.next_block();
    if left > 0 {
        writer.inherit(left)?;
    }
    writer.finish_on(source.meta().clone(), parent)?;
    Ok(storage.contents("image").unwrap())
}

fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let areas = Areas::of(bytes);
    let blocks = areas.frames.into_iter().filter(|frame| [DATA, DELTA].contains(&frame.kind));
    blocks.map(|frame| &bytes[frame.header.start..frame.padding.end]).collect()
}

#[test]
fn sealed_frames_are_copied_byte_for_byte_and_open_in_their_new_image() {
    let seal = seals().pop().flatten();
    let parent = base(seal.clone()).build();
    let below = files(&parent, None);
    let child = increment(seal.clone()).build_on(&below.model(), &below);
    let source = open_with(&child, &Keys::of(key())).unwrap();
    let copy = copied(&source, &child, seal.clone(), Some(&below)).unwrap();
    let old: std::collections::BTreeSet<&[u8]> = frames(&child).into_iter().collect();
    assert!(old.len() >= 3 && frames(&copy).iter().all(|frame| old.contains(frame)));
    let image = open_with(&copy, &Keys::of(key())).unwrap();
    assert_eq!(image.meta().origins.len(), 2);
    assert_eq!(image.roots().unwrap().state, source.roots().unwrap().state);
    assert_eq!(image.trailer().state_root, source.trailer().state_root);
    assert_eq!(image.verify_on(&below, Depth::Data, Job::silent()).unwrap().damage, []);
    let entries: Vec<IndexEntry> = source.entries(0).map(Result::unwrap).collect();
    let delta = entries.iter().find(|entry| entry.kind == Kind::Delta).unwrap();
    let at = usize::try_from(delta.address).unwrap();
    let head = source.delta_head(&mut Scratch::default(), &child[at..], delta).unwrap();
    assert_eq!(head.depth, 1);
    let locked = open(&child).unwrap();
    let refused = locked.delta_head(&mut Scratch::default(), &child[at..], delta);
    assert!(matches!(refused, Err(Error::Locked { .. })));
}

#[test]
fn frames_of_another_key_or_mode_are_not_copied() {
    let sealed = seals().pop().flatten().unwrap();
    let parent = base(Some(sealed.clone())).build();
    let source = open_with(&parent, &Keys::of(key())).unwrap();
    let other = Seal { key: ChainKey::new([4; 32]), ..sealed.clone() };
    let error = copied(&source, &parent, Some(other), None).err().unwrap();
    assert!(error.to_string().contains("does not open"), "{error}");
    let error = copied(&source, &parent, None, None).err().unwrap();
    assert!(error.to_string().contains("sealed although"), "{error}");
    let plain = base(None).build();
    let source = open(&plain).unwrap();
    let error = copied(&source, &plain, Some(sealed), None).err().unwrap();
    assert!(error.to_string().contains("not sealed although"), "{error}");
}

#[test]
fn a_copied_frame_that_was_changed_is_refused() {
    let seal = seals().pop().flatten();
    let bytes = base(seal.clone()).build();
    let source = open_with(&bytes, &Keys::of(key())).unwrap();
    let frame = Areas::of(&bytes).frame(DATA).clone();
    let mut changed = bytes.to_vec();
    changed[frame.payload.start + 5] ^= 1;
    // The checksums are right again: the tag is not.
    let changed = crate::forge::Forgery::of(&changed).seal_frames_only();
    let error = copied(&source, &changed, seal, None).err().unwrap();
    assert!(error.to_string().contains("does not open"), "{error}");
}

#[test]
fn every_flipped_bit_of_the_frames_of_a_sealed_increment_is_found() {
    let seal = seals().pop().flatten();
    let below = files(&base(seal.clone()).build(), None);
    let bytes = increment(seal).build_on(&below.model(), &below);
    let areas = Areas::of(&bytes);
    let end = areas.frames.iter().find(|frame| frame.kind == DELTA).unwrap().padding.end;
    for_each(
        4096..end,
        || (),
        |(), byte| {
            for bit in bits_of(&bytes, &areas, &(byte..byte + 1), byte) {
                let file = Arc::new(Patched::new(&bytes).flipped(byte, bit));
                let image = Image::open_with(file, &Keys::of(key())).unwrap();
                let report = image.verify_on(&below, Depth::Data, Job::silent()).unwrap();
                assert!(!report.is_sound(), "bit {bit} of byte {byte}");
            }
        },
    );
    assert!(read_all(&below.image).is_ok());
}
