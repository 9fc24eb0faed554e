//! Unfinished images go on from their last whole checkpoint, and nothing that is wrong in one
//! is taken for proven.

use std::collections::HashMap;
use std::sync::Arc;

use aiv_image_format::hash::leaf;
use aiv_image_format::{
    BlockPlace, ChainKey, Compression, Depth, Digest, Encoder, Error, Image, ImageWriter, Keys,
    Kind, LocalBase, Mode, ParentState, RunKind, Seal, SessionTag, Unfinished,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::change::{Change, Increment, small_meta};
use crate::increments::noisy;
use crate::patched::Patched;
use crate::recipe::{Block, Expected, Fill, Recipe, open_with, read_all};
use crate::sealed::{key, seals};

const PART: &str = "image.part";

/// Frames, equal blocks, runs that are cut, bad places; a checkpoint every few of them.
pub(crate) fn recipe() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 3),
        (Block::Zero, 5),
        (Block::Data(Fill::Words(2)), 4),
        (Block::Ref(1), 2),
        (Block::Unused, 7),
        (Block::PartlyUnreadable(Fill::Noise(3)), 1),
        (Block::Unreadable, 2),
        (Block::Data(Fill::Noise(4)), 4),
        (Block::Excluded, 3),
        (Block::Ref(0), 1),
    ];
    Recipe { checkpoint_every: 3, small_meta: true, short_by: 700, ..Recipe::new(&blocks) }
}

pub(crate) fn session(n: u8) -> SessionTag {
    SessionTag([0xc0 + n; 12])
}

/// What `bytes` hold of an unfinished image.
pub(crate) fn unfinished(bytes: &[u8]) -> aiv_image_format::Result<Option<Unfinished>> {
    let file = Arc::new(Patched::new(&Arc::new(bytes.to_vec())));
    Unfinished::read(file, &Keys::of(key()), Job::silent())
}

/// The seal that such an image was begun with.
pub(crate) fn seal_of(found: &Unfinished) -> Option<Seal> {
    let mode = if found.superblock().is_sealed() { Mode::Sealed } else { Mode::Authenticated };
    let slots = (!found.slots().is_empty()).then(|| found.slots().into());
    let seal = Seal { mode, slots, ..Seal::new(key(), 0x0ff_5a17) };
    found.superblock().is_keyed().then_some(seal)
}

/// Without a key, sealed, and authenticated.
pub(crate) fn recipes() -> Vec<Recipe> {
    let sealed = seals().into_iter().flatten().find(|seal| seal.padding && seal.slots.is_some());
    let authenticated = sealed.clone().map(|s| Seal { mode: Mode::Authenticated, ..s });
    [None, sealed, authenticated].map(|seal| Recipe { seal, ..recipe() }).to_vec()
}

fn open(bytes: &Arc<Vec<u8>>) -> aiv_image_format::Result<Image> {
    open_with(bytes, &Keys::of(key()))
}

/// Goes on with `bytes` to block `until`, or to the end: the blocks are those of `complete`.
pub(crate) fn go_on(
    bytes: &[u8],
    complete: &Image,
    parent: Option<&dyn ParentState>,
    session: SessionTag,
    until: Option<u64>,
) -> Arc<Vec<u8>> {
    let storage = MemStorage::new();
    storage.insert(PART, bytes.to_vec());
    let found = unfinished(bytes).unwrap();
    let found = found.expect("a whole checkpoint");
    let file = storage.reopen(PART, found.len()).unwrap();
    let writer = ImageWriter::resume(file, &found, session, seal_of(&found)).unwrap();
    write_on(writer, &found, complete, parent, until);
    storage.contents(PART).unwrap()
}

/// Writes the blocks of `complete` from where `found` ended to block `until`, or to the end.
pub(crate) fn write_on(
    mut writer: ImageWriter<'_>,
    found: &Unfinished,
    complete: &Image,
    parent: Option<&dyn ParentState>,
    until: Option<u64>,
) {
    let mut seen: HashMap<Digest, BlockPlace> = HashMap::new();
    for entry in found.entries().map(Result::unwrap).filter(|e| e.kind == Kind::Data) {
        let place = BlockPlace { address: entry.address, frame_size: entry.frame_size };
        seen.entry(entry.leaf).or_insert(place);
    }
    let mut encoder = Encoder::new(Compression::Lz4, true);
    let mut reader = complete.block_reader();
    let end = until.unwrap_or(complete.geometry().blocks());
    while writer.next_block() < end {
        let block = writer.next_block();
        let entry = complete.entries(block).next().transpose().unwrap();
        let Some(entry) = entry.filter(|entry| entry.block <= block) else {
            writer.inherit(1).unwrap();
            continue;
        };
        let run = match entry.kind {
            Kind::Zero => Some(RunKind::Zero),
            Kind::Unused => Some(RunKind::Unused),
            Kind::Excluded => Some(RunKind::Excluded),
            Kind::Unreadable if !entry.has_frame() => Some(RunKind::Unreadable),
            _ => None,
        };
        if let Some(run) = run {
            writer.push_run(run, 1).unwrap();
        } else if entry.kind == Kind::Parent {
            writer.push_parent(entry.parent_block, entry.leaf).unwrap();
        } else if entry.kind == Kind::Ref {
            writer.push_ref(seen[&entry.leaf], entry.leaf).unwrap();
        } else {
            let mut content = vec![0; complete.geometry().block_len(block) as usize];
            reader.read(block, &mut content).unwrap();
            let encoded = encoder.encode(&content, entry.leaf).unwrap();
            match entry.kind {
                Kind::Unreadable => drop(writer.push_damaged_block(&encoded).unwrap()),
                _ => drop(seen.insert(entry.leaf, writer.push_block(&encoded).unwrap())),
            }
        }
    }
    if until.is_some() {
        writer.suspend().unwrap();
    } else {
        writer.finish_on(complete.meta().clone(), parent).unwrap();
    }
}

/// Whether two images are of one state, the second without a fault.
fn assert_same_state(complete: &Image, parent: Option<&dyn ParentState>, bytes: &Arc<Vec<u8>>) {
    assert_same_image(complete, parent, &open(bytes).unwrap());
}

pub(crate) fn assert_same_image(complete: &Image, parent: Option<&dyn ParentState>, image: &Image) {
    let found = match parent {
        None => image.verify(Depth::Data, Job::silent()).unwrap(),
        Some(parent) => image.verify_on(parent, Depth::Data, Job::silent()).unwrap(),
    };
    assert_eq!((found.damage, image.damage()), (vec![], &[][..]));
    let (was, is) = (complete.trailer(), image.trailer());
    assert_eq!((was.state_root, was.content_root), (is.state_root, is.content_root));
    assert_eq!(was.totals.payload_bytes > 0, is.totals.payload_bytes > 0);
    assert_eq!(was.totals.blocks_decided(), is.totals.blocks_decided());
    if parent.is_none() {
        assert_eq!(read_all(complete).unwrap(), read_all(image).unwrap());
    }
}

#[test]
fn an_image_cut_anywhere_goes_on_from_its_last_whole_checkpoint_to_the_same_state() {
    for recipe in recipes() {
        let bytes = recipe.build();
        let complete = open(&bytes).unwrap();
        let (mut before, mut steps) = (0, 0);
        for cut in (4096..=bytes.len()).step_by(if recipe.seal.is_some() { 2944 } else { 1472 }) {
            match unfinished(&bytes[..cut]).unwrap() {
                None => assert_eq!(before, 0),
                Some(found) => {
                    assert!(found.len() <= cut as u64 && found.len() >= before, "cut at {cut}");
                    steps += u32::from(found.len() > before);
                    before = found.len();
                    let whole = go_on(&bytes[..cut], &complete, None, session(1), None);
                    assert_same_state(&complete, None, &whole);
                    assert_eq!(whole[..4096], bytes[..4096], "the superblock stays");
                }
            }
        }
        let least = if recipe.seal.is_some() { 4 } else { 5 };
        assert!(steps >= least, "{steps} checkpoints");
    }
}

#[test]
fn an_image_with_differences_to_its_own_blocks_goes_on_and_new_ones_build_on_what_was_there() {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 2),
        (Block::Shifted(0), 1),
        (Block::Data(Fill::Words(2)), 1),
        (Block::Shifted(2), 2),
        (Block::Data(Fill::Noise(3)), 1),
        (Block::Shifted(3), 1),
        (Block::Unused, 3),
    ];
    for recipe in recipes() {
        let recipe = Recipe { blocks: blocks.to_vec(), checkpoint_every: 2, short_by: 0, ..recipe };
        let bytes = recipe.build();
        let complete = open(&bytes).unwrap();
        let mut resumed = 0;
        for cut in (4096..=bytes.len()).step_by(4736) {
            let Some(found) = unfinished(&bytes[..cut]).unwrap() else { continue };
            let whole = go_on(&bytes[..cut], &complete, None, session(1), None);
            let image = open(&whole).unwrap();
            assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
            let (was, is) = (complete.trailer(), image.trailer());
            assert_eq!(was.state_root, is.state_root);
            assert_eq!(is.totals.blocks_local, found.totals().blocks_local);
            resumed += u64::from(found.totals().blocks_local > 0);
        }
        assert!(resumed > 5, "{resumed}");
    }
    // The writer does not know what older sessions have stored; who verifies it does.
    let recipe = Recipe { blocks: blocks.to_vec(), checkpoint_every: 2, short_by: 0, ..recipe() };
    let (bytes, expected) = (recipe.build(), recipe.expected());
    let storage = MemStorage::new();
    storage.insert(PART, bytes[..38 << 10].to_vec());
    let found = unfinished(&bytes[..38 << 10]).unwrap().unwrap();
    let next = usize::try_from(found.next_block()).unwrap();
    let file = storage.reopen(PART, found.len()).unwrap();
    let mut writer = ImageWriter::resume(file, &found, session(1), None).unwrap();
    let base = |at: usize| LocalBase {
        block: at as u64,
        leaf: leaf(&expected[at].bytes),
        bytes: &expected[at].bytes,
    };
    for Expected { bytes, .. } in &expected[next..] {
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let encoded = encoder.encode_local(bytes, leaf(bytes), &[base(0), base(1)]).unwrap();
        match bytes.iter().all(|&byte| byte == 0) {
            true => writer.push_run(RunKind::Unused, 1).unwrap(),
            false => drop(writer.push_block(&encoded).unwrap()),
        }
    }
    writer.finish(recipe.meta()).unwrap();
    let image = open(&storage.contents(PART).unwrap()).unwrap();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let read = read_all(&image).unwrap();
    assert!(read.iter().zip(&expected).all(|(read, expected)| read.1 == expected.bytes));
    assert!(image.trailer().totals.blocks_local > found.totals().blocks_local);
}

#[test]
fn an_increment_goes_on_with_gaps_and_copies_of_its_parent() {
    let old = noisy(40);
    let increment = Increment {
        checkpoint_every: 4,
        ..Increment::new(&[
            (Change::Keep, 3),
            (Change::New(1), 3),
            (Change::Keep, 9),
            (Change::Moved(2), 4),
            (Change::Zero, 6),
            (Change::New(2), 2),
        ])
    };
    let bytes = increment.build(&old);
    let complete = open(&bytes).unwrap();
    let cuts = (4096..bytes.len()).step_by(2240);
    let mut resumed = 0;
    for cut in cuts.filter(|&cut| unfinished(&bytes[..cut]).unwrap().is_some()) {
        let whole = go_on(&bytes[..cut], &complete, Some(&old), session(1), None);
        assert_same_state(&complete, Some(&old), &whole);
        resumed += 1;
    }
    assert!(resumed > 20, "{resumed}");
}

#[test]
fn an_image_that_is_interrupted_again_and_again_names_each_session_that_wrote_what_is_left() {
    for recipe in recipes() {
        let bytes = recipe.build();
        let complete = open(&bytes).unwrap();
        let begun = if recipe.seal.is_some() { 92 << 10 } else { 60 << 10 };
        let mut part = bytes[..begun].to_vec();
        for n in 1..=5 {
            let next = unfinished(&part).unwrap().unwrap().next_block();
            part = go_on(&part, &complete, None, session(n), Some(next + 3)).to_vec();
            let found = unfinished(&part).unwrap().unwrap();
            assert_eq!((found.next_block(), found.len()), (next + 3, part.len() as u64));
        }
        let whole = go_on(&part, &complete, None, session(6), None);
        assert_same_state(&complete, None, &whole);
        let origins = open(&whole).unwrap().meta().origins.clone();
        assert_eq!(origins[1..], [1, 2, 3, 4, 5, 6].map(session));
        assert_eq!(origins[0], recipe.superblock().session);
    }
}

#[test]
fn a_session_whose_frames_were_cut_off_is_no_origin_and_its_tag_is_not_used_again() {
    for recipe in recipes() {
        let bytes = recipe.build();
        let complete = open(&bytes).unwrap();
        let found = unfinished(&bytes[..120 << 10]).unwrap().unwrap();
        let next = found.next_block();
        let more = go_on(&bytes[..120 << 10], &complete, None, session(1), Some(next + 4));
        // All but its checkpoint: the frames of the session are there, and will be cut off.
        let part = &more[..more.len() - 64];
        let again = unfinished(part).unwrap().unwrap();
        assert_eq!(again.len(), found.len());
        assert!(again.has_session(session(1)) && !again.has_session(session(2)));
        for used in [session(1), recipe.superblock().session] {
            let storage = MemStorage::new();
            storage.insert(PART, part.to_vec());
            let file = storage.reopen(PART, again.len()).unwrap();
            let refused = ImageWriter::resume(file, &again, used, seal_of(&again));
            assert!(matches!(refused, Err(Error::Misuse(_))), "{used}");
        }
        let whole = go_on(part, &complete, None, session(2), None);
        assert_same_state(&complete, None, &whole);
        let origins = open(&whole).unwrap().meta().origins.clone();
        assert_eq!(origins, [recipe.superblock().session, session(2)]);
    }
}

#[test]
fn an_image_goes_on_only_in_its_own_file_and_only_where_it_was_cut() {
    let bytes = recipe().build();
    let found = unfinished(&bytes[..80 << 10]).unwrap().unwrap();
    let len = usize::try_from(found.len()).unwrap();
    let mut other = bytes[..len].to_vec();
    other[len - 1] ^= 1;
    let mut stranger = Recipe { id: 2, ..recipe() }.build()[..len].to_vec();
    stranger[4096..].copy_from_slice(&bytes[4096..len]);
    for (content, keep) in [(bytes[..80 << 10].to_vec(), 80 << 10), (other, len), (stranger, len)] {
        let storage = MemStorage::new();
        storage.insert(PART, content);
        let file = storage.reopen(PART, keep as u64).unwrap();
        let refused = ImageWriter::resume(file, &found, session(1), None);
        assert!(matches!(refused, Err(Error::Misuse(_))));
        assert_eq!(storage.contents(PART).unwrap().len(), keep, "nothing was written");
    }
}

#[test]
fn a_file_without_a_whole_checkpoint_has_nothing_to_go_on_with() {
    let bytes = recipe().build();
    assert!(unfinished(&bytes[..4096]).unwrap().is_none());
    assert!(unfinished(&bytes[..30_000]).unwrap().is_none());
    assert!(matches!(unfinished(&bytes[..4095]), Err(Error::Io { .. })));
    assert!(matches!(unfinished(&[0; 8192]), Err(Error::Foreign(_))));
    let garbage = [&bytes[..4096], &[0xa5; 100_000]].concat();
    assert!(unfinished(&garbage).unwrap().is_none());
}

#[test]
fn a_changed_bit_is_never_among_what_is_proven() {
    for recipe in recipes() {
        let bytes = recipe.build();
        let whole = &bytes[..140 << 10];
        let len = unfinished(whole).unwrap().unwrap().len();
        for at in (0..usize::try_from(len).unwrap()).step_by(if recipe.seal.is_some() {
            1009
        } else {
            37
        }) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            match unfinished(&bytes) {
                // Key slots may be changed: whoever goes on holds them to what they should be.
                Ok(Some(found)) if (4096..36_864).contains(&at) && recipe.seal.is_some() => {
                    let slots = recipe.seal.as_ref().unwrap().slots.as_deref().unwrap();
                    assert!(found.slots() != slots, "byte {at}");
                }
                Ok(Some(found)) => assert!(found.len() <= at as u64, "byte {at}"),
                Ok(None) => {}
                Err(_) => assert!(at < 4096),
            }
        }
    }
}

#[test]
fn a_finished_image_without_its_end_is_an_unfinished_one() {
    for recipe in recipes() {
        let bytes = recipe.build();
        let complete = open(&bytes).unwrap();
        let found = unfinished(&bytes).unwrap().unwrap();
        assert_eq!(found.next_block(), complete.geometry().blocks());
        assert!(found.len() <= complete.trailer().frames_end);
        assert_same_state(&complete, None, &go_on(&bytes, &complete, None, session(1), None));
    }
}

#[test]
fn the_source_token_is_read_back_as_it_was_written() {
    let superblock =
        aiv_image_format::Superblock { source_token: Digest([7; 32]), ..recipe().superblock() };
    let storage = MemStorage::new();
    let mut writer =
        ImageWriter::create(storage.create(PART).unwrap(), superblock.clone()).unwrap();
    writer.push_run(RunKind::Zero, 2).unwrap();
    writer.suspend().unwrap();
    let found = unfinished(&storage.contents(PART).unwrap()).unwrap().unwrap();
    assert_eq!((found.superblock(), found.next_block()), (&superblock, 2));
    assert_eq!(found.totals().blocks_zero, 2);
    // And of an image that has no source errors to list.
    let meta = small_meta(&superblock.geometry, &[]);
    let file = storage.reopen(PART, found.len()).unwrap();
    let mut writer = ImageWriter::resume(file, &found, session(1), None).unwrap();
    writer.push_run(RunKind::Unused, superblock.geometry.blocks() - 2).unwrap();
    writer.finish(meta).unwrap();
    let image = open(&storage.contents(PART).unwrap()).unwrap();
    assert_eq!(image.superblock().source_token, Digest([7; 32]));
}

#[test]
fn an_image_with_a_key_goes_on_only_with_its_key_its_mode_and_its_slots() {
    for recipe in recipes().into_iter().skip(1) {
        let bytes = recipe.build();
        let part = &bytes[..120 << 10];
        let file = || Arc::new(Patched::new(&Arc::new(part.to_vec())));
        let read = |keys: &Keys| Unfinished::read(file(), keys, Job::silent()).err().unwrap();
        assert!(matches!(read(&Keys::none()), Error::Locked { .. }));
        assert!(matches!(read(&Keys::of(ChainKey::new([3; 32]))), Error::WrongKey { .. }));
        let found = unfinished(part).unwrap().unwrap();
        let seal = seal_of(&found).unwrap();
        let other = match seal.mode {
            Mode::Sealed => Mode::Authenticated,
            Mode::Authenticated => Mode::Sealed,
        };
        let mut slots = seal.slots.clone().unwrap();
        slots[2000] ^= 1;
        let storage = MemStorage::new();
        storage.insert(PART, part.to_vec());
        for wrong in [
            None,
            Some(Seal { mode: other, ..seal.clone() }),
            Some(Seal { key: ChainKey::new([3; 32]), ..seal.clone() }),
            Some(Seal { slots: None, ..seal.clone() }),
            Some(Seal { slots: Some(slots), ..seal.clone() }),
        ] {
            let file = storage.reopen(PART, found.len()).unwrap();
            let refused = ImageWriter::resume(file, &found, session(1), wrong);
            assert!(matches!(refused, Err(Error::Misuse(_))), "{:?}", seal.mode);
        }
    }
    let clear = recipe().build();
    let file = Arc::new(Patched::new(&clear));
    let refused = Unfinished::read(file, &Keys::of(key()).required(), Job::silent());
    assert!(matches!(refused, Err(Error::NotKeyed)));
}

#[test]
fn a_frame_that_the_key_did_not_make_ends_what_is_proven_however_sound_it_seems() {
    let recipe = &recipes()[1];
    let bytes = recipe.build();
    let part = &bytes[..140 << 10];
    let whole = unfinished(part).unwrap().unwrap().len();
    let areas = crate::areas::Areas::of(&bytes);
    let frames = areas.frames.iter().filter(|frame| (frame.padding.end as u64) <= whole);
    for (number, frame) in frames.enumerate() {
        let changed = [frame.header.start + 24, frame.header.start + 20, frame.payload.start + 40];
        for at in changed {
            let forged = crate::forge::Forgery::of(&bytes).at(at, &[bytes[at] ^ 1]);
            let forged = forged.seal_frames_only();
            let found = unfinished(&forged[..140 << 10]).unwrap();
            let proven = found.map_or(0, |found| found.len());
            assert!(proven <= frame.header.start as u64, "frame {number}, byte {at}");
        }
    }
}
