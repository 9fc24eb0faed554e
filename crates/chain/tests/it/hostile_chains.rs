//! Chains no writer makes: cycles, gaps, copies and differences that lie.

use aiv_chain::{Error, ParentLink, PointState, View, archive};
use aiv_image_format::{
    BlockIndex, BlockSize, Compression, DeltaBase, Digest, Encoder, Error as ImageError, Geometry,
    GroupNode, ImageWriter, IndexEntry, LocalBase, ParentState, RunKind, hash,
};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Job, ReadAt, Storage};

use crate::chain_maker::{Step, Way, point};
use crate::chains::{bytes_of, chain_of, of_point, open, scan, states, the_set};
use crate::common::BLOCK;
use crate::consolidate::ids;
use crate::forge;
use crate::sealed_merges::plainly;

/// The state of a view under another name.
struct Alias<'v>(&'v View, ParentLink);

impl ParentState for Alias<'_> {
    fn link(&self) -> ParentLink {
        self.1
    }
    fn geometry(&self) -> Geometry {
        ParentState::geometry(self.0)
    }
    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<IndexEntry, ImageError>> + Send + '_> {
        ParentState::stretches(self.0, first)
    }
    fn nodes(&self) -> Box<dyn Iterator<Item = Result<GroupNode, ImageError>> + Send + '_> {
        ParentState::nodes(self.0)
    }
    fn read(&self, block: BlockIndex, out: &mut [u8]) -> Result<u8, ImageError> {
        ParentState::read(self.0, block, out)
    }
}

/// An image that changes nothing, of the state of `view`, with `parent` as the point below.
fn idle(storage: &MemStorage, view: &View, number: u16, parent: u16) {
    let link = ParentLink { point: point(parent), ..view.link() };
    let alias = Alias(view, link);
    let step = Step::new(number, bytes_of(view));
    let superblock = step.superblock(Some(link));
    let file = storage.create(&format!("{number:02}")).unwrap();
    let mut writer = ImageWriter::create(file, superblock).unwrap();
    writer.inherit(view.geometry().blocks()).unwrap();
    writer.finish_on(step.meta(view.geometry()), Some(&alias)).unwrap();
}

#[test]
fn images_that_name_each_other_as_parents_are_told_and_refused() {
    let storage = chain_of(&states(1));
    let view = open(&storage, "01");
    for (number, parent) in [(2, 3), (3, 2), (4, 3), (5, 1)] {
        idle(&storage, &view, number, parent);
    }
    let folder = scan(&storage);
    let points = the_set(&folder).points.iter();
    let states: Vec<_> = points.map(|p| (p.file.as_str(), &p.state)).collect();
    let (circular, fine) = (&PointState::Circular, &PointState::Restorable);
    let expected =
        [("01", fine), ("02", circular), ("03", circular), ("04", circular), ("05", fine)];
    assert_eq!(states, expected);
    for file in ["02", "03", "04"] {
        let error = View::open(&storage, file, Job::silent()).err().unwrap();
        let Error::NotRestorable { state, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*state, PointState::Circular);
    }
    open(&storage, "05");
}

#[test]
fn a_chain_that_holds_a_point_twice_is_told_and_refused() {
    let all = states(4);
    let storage = chain_of(&all[..2]);
    let view = open(&storage, "02");
    let again = Step { point: point(1), ..Step::new(3, all[2].clone()) };
    again.write(&storage, "03", Some(&view));
    let folder = scan(&storage);
    let states: Vec<_> = the_set(&folder).points.iter().map(|p| &p.state).collect();
    assert_eq!(states, [&PointState::Restorable, &PointState::Restorable, &PointState::Circular]);
    let error = View::open(&storage, "03", Job::silent()).err().unwrap();
    assert!(matches!(error, Error::NotRestorable { state: PointState::Circular, .. }), "{error:?}");
}

#[test]
fn a_block_that_nobody_has_is_an_error_that_names_the_file() {
    let all = states(3);
    let storage = chain_of(&all);
    let longer = forge::of_length(&storage.contents("03").unwrap(), 6 * BLOCK as u64);
    storage.insert("03", longer);
    let view = open(&storage, "03");
    assert_eq!(view.geometry().blocks(), 6);
    let mut block = vec![0xEE; BLOCK];
    view.reader().read(3, &mut block).unwrap();
    assert!(block == all[2][3 * BLOCK..]);
    for number in [4, 5] {
        block.fill(0xEE);
        let error = view.reader().read(number, &mut block).unwrap_err();
        assert!(
            matches!(&error, Error::Image { file, source: ImageError::Corrupt(_) } if file == "03")
        );
        assert!(block.iter().all(|&b| b == 0xEE));
    }
    assert!(view.read_exact_at(&mut vec![0; 6 * BLOCK], 0).is_err());
    let last = view.stretches(0).last().unwrap();
    assert!(matches!(last, Err(Error::Image { file, .. }) if file == "03"), "no silent end");
}

/// An increment with one block, decided by `decide`, on top of the view of `02`, whose third block
/// is zeros.
fn hostile(decide: impl FnOnce(&mut ImageWriter, &View)) -> MemStorage {
    let mut below = states(2);
    below.iter_mut().for_each(|bytes| bytes[2 * BLOCK..3 * BLOCK].fill(0));
    let storage = chain_of(&below);
    let view = open(&storage, "02");
    let step = Step::new(3, bytes_of(&view));
    let file = storage.create("03").unwrap();
    let mut writer = ImageWriter::create(file, step.superblock(Some(view.link()))).unwrap();
    decide(&mut writer, &view);
    writer.inherit(3).unwrap();
    writer.finish_on(step.meta(view.geometry()), Some(&view)).unwrap();
    storage
}

#[test]
fn a_copy_of_a_block_with_other_bytes_is_refused() {
    for block in [0, 1, 2, 3, 4, 1 << 30] {
        let wrong = Digest([9; 32]);
        let storage = hostile(|writer, _| writer.push_parent(block, wrong).unwrap());
        let view = open(&storage, "03");
        let mut out = vec![0xEE; BLOCK];
        let error = view.reader().read(0, &mut out).unwrap_err();
        assert!(matches!(&error, Error::Image { file, .. } if file == "03"), "{error:?}");
        assert!(out.iter().all(|&b| b == 0xEE), "block {block}");
        view.reader().read(1, &mut out).unwrap();
    }
    let zeros = hash::leaf(&[0; BLOCK]);
    let storage = hostile(|writer, _| writer.push_parent(2, zeros).unwrap());
    assert!(bytes_of(&open(&storage, "03"))[..BLOCK].iter().all(|&b| b == 0));
}

/// A difference to block `base` of its own image, where a checkpoint keeps the writer from knowing
/// better: block 0 is stored whole, block 1 zeros, block 2 left to the parent.
fn hostile_local(base: u64, base_leaf: Option<Digest>) -> MemStorage {
    let (first, storage) = (Content::Random(6).bytes(BLOCK), chain_of(&states(2)));
    let view = open(&storage, "02");
    let step = Step { ways: vec![Way::Local], ..Step::new(3, bytes_of(&view)) };
    let file = storage.create("03").unwrap();
    let mut writer = ImageWriter::create(file, step.superblock(Some(view.link()))).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(1), true);
    writer.push_block(&encoder.encode(&first, hash::leaf(&first)).unwrap()).unwrap();
    writer.push_run(RunKind::Zero, 1).unwrap();
    writer.inherit(1).unwrap();
    writer.checkpoint().unwrap();
    let mut bytes = vec![0; BLOCK];
    match base {
        0 => bytes.copy_from_slice(&first),
        1 => {}
        _ => drop(view.reader().read(base, &mut bytes).unwrap()),
    }
    let leaf = base_leaf.unwrap_or_else(|| hash::leaf(&bytes));
    let base = LocalBase { block: base, leaf, bytes: &bytes };
    let mut block = bytes.clone();
    block[100..120].fill(0xA7);
    let encoded = encoder.encode_local(&block, hash::leaf(&block), &[base]).unwrap();
    assert!(encoded.is_local());
    writer.push_block(&encoded).unwrap();
    writer.finish_on(step.meta(view.geometry()), Some(&view)).unwrap();
    storage
}

#[test]
fn a_difference_that_lies_about_a_block_of_its_image_is_refused_with_the_name_of_its_file() {
    let storage = hostile_local(0, None);
    bytes_of(&open(&storage, "03"));
    for (base, leaf) in
        [(0, Some(Digest([9; 32]))), (1, None), (2, None), (2, Some(Digest([9; 32])))]
    {
        let storage = hostile_local(base, leaf);
        let view = open(&storage, "03");
        let mut out = vec![0xEE; BLOCK];
        let error = view.reader().read(3, &mut out).unwrap_err();
        assert!(matches!(&error, Error::Image { file, .. } if file == "03"), "{error:?}");
        assert!(out.iter().all(|&byte| byte == 0xEE), "block {base}");
        // Neither does a merge take it for one.
        let set = the_set(&scan(&storage)).clone();
        let (to, mut ids) = (MemStorage::new(), ids(0xb0));
        let wanted = set.point(point(3)).unwrap();
        let made = archive(&storage, &set, wanted, &to, plainly(), &mut ids, Job::silent());
        match made {
            // All in all it has the block that was to be one of its own.
            Ok(_) => assert_eq!((base, leaf), (2, None)),
            Err(Error::Image { file, .. }) => assert_eq!(file, "03"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_row_of_differences_that_lie_about_their_depth_is_followed_for_8_steps() {
    let mut bytes = Content::Random(5).bytes(2 * BLOCK);
    let storage = MemStorage::new();
    Step::new(1, bytes.clone()).write(&storage, "01", None);
    for number in 2..16u16 {
        let view = open(&storage, &format!("{:02}", number - 1));
        let below = bytes[..BLOCK].to_vec();
        bytes[usize::from(number)] ^= 1;
        let step = Step::new(number, bytes.clone());
        let file = storage.create(&format!("{number:02}")).unwrap();
        let mut writer = ImageWriter::create(file, step.superblock(Some(view.link()))).unwrap();
        // Always said to be a difference to a block stored whole.
        let base = DeltaBase { block: 0, leaf: hash::leaf(&below), depth: 0, bytes: &below };
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let leaf = hash::leaf(&bytes[..BLOCK]);
        writer.push_block(&encoder.encode_against(&bytes[..BLOCK], leaf, &base).unwrap()).unwrap();
        writer.inherit(1).unwrap();
        writer.finish_on(step.meta(view.geometry()), Some(&view)).unwrap();
        let view = open(&storage, &format!("{number:02}"));
        let mut out = vec![0; BLOCK];
        let read = view.reader().read(0, &mut out);
        if number < 10 {
            read.unwrap();
            assert!(out == bytes[..BLOCK]);
        } else {
            // Named is the file whose difference is one too many.
            assert!(
                matches!(&read, Err(Error::Image { file, .. }) if *file == format!("{:02}", number - 8)),
                "{number}: {read:?}"
            );
        }
    }
}

#[test]
fn the_block_size_of_a_chain_never_changes() {
    let storage = chain_of(&states(1));
    let view = open(&storage, "01");
    let step = Step::new(2, bytes_of(&view));
    let mut superblock = step.superblock(Some(view.link()));
    let block_size = BlockSize::new(2 * u32::try_from(BLOCK).unwrap()).unwrap();
    superblock.geometry = Geometry::new(superblock.geometry.len(), block_size, 512).unwrap();
    let geometry = superblock.geometry;
    let mut writer = ImageWriter::create(storage.create("02").unwrap(), superblock).unwrap();
    writer.push_run(RunKind::Zero, geometry.blocks()).unwrap();
    writer.finish_on(step.meta(&geometry), Some(&view)).unwrap();
    let differs = PointState::ParentDiffers { point: point(1) };
    assert_eq!(of_point(&scan(&storage), 2).state, differs);
    let error = View::open(&storage, "02", Job::silent()).err().unwrap();
    assert!(matches!(&error, Error::NotRestorable { state, .. } if *state == differs), "{error:?}");
}
