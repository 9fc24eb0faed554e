//! Frames that are copied from images into another one, byte for byte.

use std::sync::Arc;

use aiv_image_format::hash::leaf;
use aiv_image_format::limits::{CHECKPOINT_ENTRIES_MAX, ORIGINS_MAX};
use aiv_image_format::{
    BlockPlace, Compression, Depth, Encoder, Error, Features, Image, ImageId, ImageKind,
    ImageSummary, ImageWriter, IndexEntry, Kind, ParentState, PointId, RunKind, Section,
    SessionTag, Superblock,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use crate::areas::Areas;
use crate::change::{Change, Increment, full_image};
use crate::forge::Forgery;
use crate::increments::noisy;
use crate::parents::{Files, read_block};
use crate::recipe::{Block, Fill, Recipe, open, read_all};
use crate::round_trip::check_dump;

/// A new image of the same disk, in another session.
fn superblock(of: &Superblock) -> Superblock {
    Superblock {
        image: ImageId([0xa1; 16]),
        point: PointId([0xa2; 16]),
        session: SessionTag([0xa3; 12]),
        ..of.clone()
    }
}

/// A new image while it is written.
struct Target {
    storage: MemStorage,
    writer: ImageWriter<'static>,
}

impl Target {
    fn new(superblock: Superblock) -> Self {
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        Self { writer: ImageWriter::create(file, superblock).unwrap(), storage }
    }

    fn finish(
        self,
        source: &Image,
        parent: Option<&dyn ParentState>,
    ) -> (Arc<Vec<u8>>, ImageSummary) {
        let meta = source.meta().clone();
        let summary = self.writer.finish_on(meta, parent).expect("memory does not fail");
        (self.storage.contents("image").unwrap(), summary)
    }
}

/// The frames of `entries`, which lie one behind the other, as they are in the file.
fn stretch<'b>(bytes: &'b [u8], entries: &[IndexEntry]) -> &'b [u8] {
    let start = usize::try_from(entries[0].address).unwrap();
    let last = usize::try_from(entries.last().unwrap().address).unwrap();
    let frames = Areas::of(bytes).frames;
    let last = frames.into_iter().find(|frame| frame.header.start == last).unwrap();
    &bytes[start..last.padding.end]
}

fn entries(image: &Image) -> Vec<IndexEntry> {
    image.entries(0).collect::<Result<_, _>>().unwrap()
}

/// Rows of entries whose frames follow each other, and the entries between them.
fn rows(entries: &[IndexEntry], bytes: &[u8]) -> Vec<Vec<IndexEntry>> {
    let frames = Areas::of(bytes).frames;
    let end = |entry: &IndexEntry| {
        let at = usize::try_from(entry.address).unwrap();
        frames.iter().find(|f| f.header.start == at).map(|f| f.padding.end as u64)
    };
    let mut rows: Vec<Vec<IndexEntry>> = Vec::new();
    for entry in entries {
        match rows.last_mut() {
            Some(row)
                if entry.has_frame()
                    && row.last().is_some_and(|last| {
                        last.end() == entry.block && end(last) == Some(entry.address)
                    }) =>
            {
                row.push(*entry);
            }
            _ => rows.push(vec![*entry]),
        }
    }
    rows
}

/// Copies what `image` decides; references to frames copied before stay references.
fn copy_all(target: &mut Target, image: &Image, bytes: &[u8]) {
    let mut places: Vec<(u64, BlockPlace)> = Vec::new();
    for row in rows(&entries(image), bytes) {
        let writer = &mut target.writer;
        let first = row[0];
        writer.inherit(first.block - writer.next_block()).ok();
        if let Some((_, place)) = places.iter().find(|(old, _)| *old == first.address)
            && first.kind == Kind::Ref
        {
            writer.push_ref(*place, first.leaf).unwrap();
        } else if first.has_frame() {
            let place = writer.copy_frames(&row, stretch(bytes, &row)).unwrap();
            for entry in &row {
                let address = place.address + (entry.address - first.address);
                places.push((entry.address, BlockPlace { address, frame_size: entry.frame_size }));
            }
        } else {
            match first.kind {
                Kind::Zero => writer.push_run(RunKind::Zero, first.run).unwrap(),
                Kind::Unused => writer.push_run(RunKind::Unused, first.run).unwrap(),
                Kind::Excluded => writer.push_run(RunKind::Excluded, first.run).unwrap(),
                Kind::Parent => writer.push_parent(first.parent_block, first.leaf).unwrap(),
                _ => writer.push_run(RunKind::Unreadable, first.run).unwrap(),
            }
        }
    }
    let left = image.geometry().blocks() - target.writer.next_block();
    target.writer.inherit(left).ok();
}

fn recipe() -> Recipe {
    Recipe::new(&[
        (Block::Data(Fill::Words(1)), 2),
        (Block::Data(Fill::Noise(2)), 1),
        (Block::Zero, 3),
        (Block::PartlyUnreadable(Fill::Words(3)), 1),
        (Block::Data(Fill::Words(4)), 1),
        (Block::Ref(2), 1),
        (Block::Unused, 4),
        (Block::Unreadable, 1),
        (Block::Data(Fill::Words(5)), 1),
    ])
}

/// Frames of a type by their bytes.
fn frames(bytes: &[u8], kinds: &[u8]) -> Vec<Vec<u8>> {
    let areas = Areas::of(bytes);
    let wanted = areas.frames.iter().filter(|frame| kinds.contains(&frame.kind));
    wanted.map(|frame| bytes[frame.header.start..frame.padding.end].to_vec()).collect()
}

#[test]
fn an_image_of_copied_frames_holds_the_same_frames_and_reads_the_same() {
    let bytes = recipe().build();
    let source = open(&bytes).unwrap();
    let mut target = Target::new(superblock(source.superblock()));
    copy_all(&mut target, &source, &bytes);
    let (copy, summary) = target.finish(&source, None);
    assert!(frames(&copy, &[1]) == frames(&bytes, &[1]), "byte for byte");
    let image = open(&copy).unwrap();
    assert!(read_all(&image).unwrap() == read_all(&source).unwrap());
    let (new, old) = (summary.trailer, source.trailer());
    assert_eq!(new.state_root, old.state_root);
    assert_eq!(new.totals, old.totals);
    let sessions = [SessionTag([0xa3; 12]), recipe().superblock().session];
    assert_eq!(image.meta().origins, sessions);
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

#[test]
fn differences_are_copied_like_other_frames() {
    let old = noisy(6);
    let increment = Increment::new(&[
        (Change::Patch(1), 2),
        (Change::Keep, 1),
        (Change::New(2), 1),
        (Change::Moved(0), 1),
    ]);
    let bytes = increment.build(&old);
    let source = open(&bytes).unwrap();
    let mut target = Target::new(superblock(source.superblock()));
    copy_all(&mut target, &source, &bytes);
    let (copy, summary) = target.finish(&source, Some(&old));
    assert_eq!(frames(&copy, &[1, 2]).len(), 3);
    assert!(frames(&copy, &[1, 2]) == frames(&bytes, &[1, 2]), "byte for byte");
    assert_eq!(summary.trailer.state_root, source.trailer().state_root);
    assert_eq!(summary.trailer.totals, source.trailer().totals);
    let report = open(&copy).unwrap().verify_on(&old, Depth::Data, Job::silent()).unwrap();
    assert_eq!(report.damage, []);
}

/// The image of [`recipe`] with two differences to its own blocks.
fn with_locals() -> Recipe {
    let mut blocks = recipe().blocks;
    blocks.extend([(Block::Shifted(0), 1), (Block::Shifted(1), 1)]);
    Recipe::new(&blocks)
}

#[test]
fn differences_to_blocks_of_their_own_image_are_copied_like_other_frames() {
    let bytes = with_locals().build();
    let source = open(&bytes).unwrap();
    let mut target = Target::new(superblock(source.superblock()));
    copy_all(&mut target, &source, &bytes);
    let (copy, summary) = target.finish(&source, None);
    assert_eq!(frames(&copy, &[7]).len(), 2);
    assert!(frames(&copy, &[1, 7]) == frames(&bytes, &[1, 7]), "byte for byte");
    assert_eq!(summary.trailer.totals, source.trailer().totals);
    assert_eq!(open(&copy).unwrap().verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

#[test]
fn a_difference_whose_bases_are_known_to_be_others_is_not_copied() {
    let bytes = with_locals().build();
    let all = entries(&open(&bytes).unwrap());
    let local = all.iter().find(|entry| entry.kind == Kind::Local).unwrap();
    let frame = stretch(&bytes, &[*local]);
    for features in [0, Features::LOCAL] {
        let mut superblock = superblock(with_locals().open().superblock());
        superblock.features.incompat = features;
        let mut target = Target::new(superblock);
        target.writer.push_run(RunKind::Zero, local.block).unwrap();
        let refused = target.writer.copy_frames(&[*local], frame);
        assert!(matches!(refused, Err(Error::Misuse(_))), "{refused:?}");
    }
    // A head that is damaged is damage of the frame.
    let forgery = Forgery::of(&bytes);
    let at = forgery.areas.frame(crate::areas::LOCAL).payload.start;
    let forged = forgery.at(at, &[9]).seal();
    let mut target = Target::new(superblock(with_locals().open().superblock()));
    target.writer.push_run(RunKind::Zero, local.block).unwrap();
    let refused = target.writer.copy_frames(&[*local], stretch(&forged, &[*local]));
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
}

#[test]
fn frames_of_two_images_make_one() {
    let old = noisy(9);
    let below = full_image(&old, 8);
    let increment = Increment {
        features: 0,
        ..Increment::new(&[(Change::New(3), 2), (Change::Keep, 3), (Change::New(4), 1)])
    };
    let above = increment.build(&old);
    let files = Files::new(open(&below).unwrap(), None).unwrap();
    let (newer, older) = (open(&above).unwrap(), open(&below).unwrap());
    assert!(newer.verify_on(&files, Depth::Data, Job::silent()).unwrap().is_sound());
    let whole =
        Superblock { kind: ImageKind::Full, parent: None, ..superblock(newer.superblock()) };
    let mut target = Target::new(whole);
    for block in 0..9 {
        let (image, bytes) = match newer.entry(block).unwrap() {
            Some(_) => (&newer, &above),
            None => (&older, &below),
        };
        let entry = image.entry(block).unwrap().unwrap();
        target.writer.copy_frames(&[entry], stretch(bytes, &[entry])).unwrap();
    }
    let (merged, summary) = target.finish(&newer, None);
    let image = open(&merged).unwrap();
    assert_eq!(summary.trailer.state_root, newer.trailer().state_root);
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    let sources = [frames(&above, &[1]), frames(&below, &[1])].concat();
    assert!(frames(&merged, &[1]).iter().all(|frame| sources.contains(frame)));
    assert_eq!(image.meta().origins.len(), 3);
}

#[test]
fn a_reference_copies_the_frame_it_names_when_that_is_not_there_yet() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Words(1)), 1), (Block::Ref(0), 2)]);
    let bytes = recipe.build();
    let source = open(&bytes).unwrap();
    let all = entries(&source);
    // The first block is another one in the new image, so the frame comes with the second.
    let mut target = Target::new(superblock(source.superblock()));
    target.writer.push_run(RunKind::Zero, 1).unwrap();
    let place = target.writer.copy_frames(&all[1..2], stretch(&bytes, &all[1..2])).unwrap();
    target.writer.push_ref(place, all[2].leaf).unwrap();
    let (copy, _) = target.finish(&source, None);
    let image = open(&copy).unwrap();
    assert_eq!(image.entry(1).unwrap().unwrap().kind, Kind::Ref);
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    assert_eq!(read_all(&image).unwrap()[1..], read_all(&source).unwrap()[1..]);
}

#[test]
fn frames_larger_than_the_index_can_say_are_copied() {
    let blocks = [(Block::Data(Fill::Noise(1)), 2), (Block::Data(Fill::Words(2)), 1)];
    let recipe =
        Recipe { block_size: 4 << 20, compression: Compression::Zstd(1), ..Recipe::new(&blocks) };
    let bytes = recipe.build();
    let source = open(&bytes).unwrap();
    let all = entries(&source);
    assert_eq!(all[0].frame_size, 0, "its header tells");
    let mut target = Target::new(superblock(source.superblock()));
    target.writer.copy_frames(&all, stretch(&bytes, &all)).unwrap();
    let (copy, _) = target.finish(&source, None);
    assert!(frames(&copy, &[1]) == frames(&bytes, &[1]), "byte for byte");
    let image = open(&copy).unwrap();
    assert_eq!(image.entry(1).unwrap().unwrap().frame_size, 0);
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

/// The refusal of the frames of `recipe`, each of `changes` made in the source, sealed or not.
fn refusal(seal: bool, change: impl FnOnce(Forgery) -> Forgery) -> Error {
    let bytes = recipe().build();
    let all = entries(&open(&bytes).unwrap());
    let forgery = change(Forgery::of(&bytes));
    let bytes = if seal { forgery.seal() } else { Arc::new(forgery.bytes) };
    let mut target = Target::new(superblock(&recipe().superblock()));
    let result = target.writer.copy_frames(&all[..3], stretch(&bytes, &all[..3]));
    result.expect_err("it is not what its entry says")
}

#[test]
fn a_damaged_frame_is_not_copied_and_named_by_its_place_in_the_source() {
    let at = Areas::of(&recipe().build()).frames[1].clone();
    for (place, wanted) in [
        (at.header.start, "its magic number is wrong"),
        (at.header.start + 33, "its checksum is"),
        (at.payload.start + 7, "its checksum is"),
    ] {
        let error = refusal(false, |forgery| forgery.at(place, &[0x99]));
        let message = error.to_string();
        let start = format!("the frame at byte {} is damaged: {wanted}", at.header.start);
        assert!(message.starts_with(&start), "{message}");
        assert!(matches!(error, Error::Corrupt(c) if c.section == Section::Frame));
    }
}

#[test]
fn a_frame_that_is_not_the_one_its_entry_names_is_not_copied() {
    let at = Areas::of(&recipe().build()).frames[1].header.start;
    for (offset, value, wanted) in [
        (4, 2, "its type and the index do not agree"),
        (6, 1, "its damage flag and the index do not agree"),
        (32, 9, "block number is 9, allowed is the one the index names"),
        (52, 0x77, "its leaf hash and the index do not agree"),
        (41, 0x20, "plain length is 8192, allowed is the block length"),
    ] {
        let error = refusal(true, |forgery| forgery.at(at + offset, &[value])).to_string();
        assert_eq!(error, format!("the frame at byte {at} is damaged: {wanted}"));
    }
}

#[test]
fn what_lies_in_the_padding_of_a_frame_is_not_copied() {
    let bytes = recipe().build();
    let source = open(&bytes).unwrap();
    let padding = Areas::of(&bytes).frames[0].padding.clone();
    assert!(!padding.is_empty());
    let dirty = Forgery::of(&bytes).at(padding.start, &vec![0xee; padding.len()]).bytes;
    let mut target = Target::new(superblock(source.superblock()));
    copy_all(&mut target, &source, &dirty);
    let (copy, _) = target.finish(&source, None);
    assert!(frames(&copy, &[1]) == frames(&bytes, &[1]), "zeros again");
}

#[test]
fn frames_that_do_not_follow_each_other_are_a_mistake_of_the_caller() {
    let bytes = recipe().build();
    let source = open(&bytes).unwrap();
    let all = entries(&source);
    let misuse = |entries: &[IndexEntry], bytes: &[u8]| {
        let mut target = Target::new(superblock(source.superblock()));
        let result = target.writer.copy_frames(entries, bytes);
        assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
    };
    misuse(&[], &[]);
    misuse(&all[1..2], stretch(&bytes, &all[1..2]));
    misuse(&[all[0], all[2]], stretch(&bytes, &all[..3]));
    // A gap between the frames.
    let far = IndexEntry { address: all[1].address + 64, ..all[1] };
    misuse(&[all[0], far], stretch(&bytes, &all[..3]));
    // The bytes end too early: that may be the file's fault.
    let mut target = Target::new(superblock(source.superblock()));
    let cut = stretch(&bytes, &all[..1]);
    let result = target.writer.copy_frames(&all[..1], &cut[..cut.len() - 64]);
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
    let result = target.writer.copy_frames(&all[..1], &[]);
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

#[test]
fn more_frames_than_a_checkpoint_lists_are_not_copied_at_once() {
    let bytes = Recipe::new(&[(Block::Data(Fill::Words(1)), 1)]).build();
    let entry = entries(&open(&bytes).unwrap())[0];
    let frame = stretch(&bytes, &[entry]);
    let disk = Recipe::new(&[(Block::Zero, 2 * CHECKPOINT_ENTRIES_MAX as u64)]);
    let of = |block: u64, address: u64| IndexEntry { block, address, kind: Kind::Ref, ..entry };
    let many: Vec<IndexEntry> = (0..=CHECKPOINT_ENTRIES_MAX as u64)
        .map(|number| of(number, 4096 + number * frame.len() as u64))
        .collect();
    let all = frame.repeat(many.len());
    let mut target = Target::new(superblock(&disk.superblock()));
    let result = target.writer.copy_frames(&many, &all);
    assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
    // As many as one lists, and again.
    let most = &many[..CHECKPOINT_ENTRIES_MAX];
    target.writer.copy_frames(most, &all).unwrap();
    let next = of(CHECKPOINT_ENTRIES_MAX as u64, 4096);
    target.writer.copy_frames(&[next], frame).unwrap();
    let left = disk.geometry().blocks() - target.writer.next_block();
    target.writer.push_run(RunKind::Zero, left).unwrap();
    target.writer.finish(disk.meta()).expect("every checkpoint can be read back");
    let copy = target.storage.contents("image").unwrap();
    assert_eq!(open(&copy).unwrap().verify(Depth::Stored, Job::silent()).unwrap().damage, []);
}

#[test]
fn an_entry_without_a_frame_is_not_copied() {
    let bytes = recipe().build();
    let source = open(&bytes).unwrap();
    let all = entries(&source);
    let mut target = Target::new(superblock(source.superblock()));
    target.writer.copy_frames(&all[..3], stretch(&bytes, &all[..3])).unwrap();
    let zero = all[3];
    assert_eq!(zero.kind, Kind::Zero);
    let result = target.writer.copy_frames(&[zero], stretch(&bytes, &all[..1]));
    assert!(result.is_err());
    // A difference needs its feature bit in the new image.
    let old = noisy(2);
    let image = Increment::new(&[(Change::Patch(1), 1)]).build(&old);
    let source = open(&image).unwrap();
    let mut bare = superblock(source.superblock());
    bare.features.incompat = Features::PARENT;
    let mut target = Target::new(bare);
    let all = entries(&source);
    let result = target.writer.copy_frames(&all, stretch(&image, &all));
    assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
}

#[test]
fn a_copied_block_of_another_length_is_refused() {
    let bytes = recipe().build();
    let all = entries(&open(&bytes).unwrap());
    let short = Recipe { short_by: 1, ..Recipe::new(&[(Block::Zero, 1)]) };
    let mut target = Target::new(superblock(&short.superblock()));
    let error = target.writer.copy_frames(&all[..1], stretch(&bytes, &all[..1]));
    let error = error.expect_err("the last block is short").to_string();
    assert!(error.contains("plain length is 16384, allowed is the block length"), "{error}");
}

#[test]
fn more_sessions_than_an_image_names_give_frames_the_header_of_its_own() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Words(1)), 1)]);
    let bytes = recipe.build();
    let source = open(&bytes).unwrap();
    let entry = entries(&source)[0];
    let frame = stretch(&bytes, &[entry]).to_vec();
    let of_session = |number: u64| {
        let mut forgery = Forgery::of(&bytes);
        let header = forgery.areas.frames[0].header.start;
        forgery = forgery.at(header + 8, &number.to_le_bytes()).at(header + 24, &[7]);
        forgery.seal()[header..header + frame.len()].to_vec()
    };
    let blocks = ORIGINS_MAX as u64 + 2;
    let disk = Recipe::new(&[(Block::Zero, blocks)]);
    let mut target = Target::new(superblock(&disk.superblock()));
    for number in 0..blocks {
        // References, as the subject of all these frames is block 0.
        let entry = IndexEntry { block: number, kind: Kind::Ref, ..entry };
        let bytes = match number {
            // Sealing is what takes the time; most sessions differ in the header only.
            0 => of_session(1 << 40),
            _ => session_header(&frame, number),
        };
        target.writer.copy_frames(&[entry], &bytes).unwrap();
    }
    let meta = disk.meta();
    let summary = target.writer.finish(meta).expect("memory does not fail");
    assert_eq!(summary.trailer.totals.blocks_ref, blocks);
    let copy = target.storage.contents("image").unwrap();
    let image = open(&copy).unwrap();
    assert_eq!(image.meta().origins.len(), ORIGINS_MAX);
    let copied = frames(&copy, &[1]);
    assert_eq!(copied.len() as u64, blocks);
    let own = [0xa3; 12];
    let rewritten: Vec<usize> =
        (0..copied.len()).filter(|&number| copied[number][8..20] == own).collect();
    assert_eq!(rewritten, [ORIGINS_MAX - 1, ORIGINS_MAX, ORIGINS_MAX + 1]);
    for number in rewritten {
        assert_eq!(copied[number][64..], frame[64..], "the payload is the same");
        assert_eq!(copied[number][32..48], frame[32..48], "what it is about, too");
    }
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}

/// The frame with the tag of another session.
fn session_header(frame: &[u8], number: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[8..16].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.fram"), &frame[..60]);
    frame[60..64].copy_from_slice(&crc.to_le_bytes());
    frame
}

#[test]
fn a_block_stored_whole_in_place_of_a_difference_counts_as_deep_as_that_was_in_copies_too() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Words(1)), 1)]);
    let source = recipe.open();
    let plain = Fill::Words(7).bytes(source.geometry().block_len(0) as usize);
    for (depth, stated) in [(0, 0), (1, 1), (8, 8), (255, 8)] {
        let mut encoder = Encoder::new(Compression::Zstd(1), true);
        let encoded = encoder.encode(&plain, leaf(&plain)).unwrap().standing_for(depth);
        let mut target = Target::new(superblock(source.superblock()));
        target.writer.push_block(&encoded).unwrap();
        let (bytes, _) = target.finish(&source, None);
        let all = entries(&open(&bytes).unwrap());
        let mut target = Target::new(superblock(source.superblock()));
        target.writer.copy_frames(&all, stretch(&bytes, &all)).unwrap();
        let (copy, _) = target.finish(&source, None);
        for bytes in [&bytes, &copy] {
            let image = open(bytes).unwrap();
            assert_eq!(read_block(&image, None, 0, &mut plain.clone()).unwrap(), stated);
            assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
            let text = check_dump(&image, bytes.len() as u64);
            assert_eq!(text.contains(&format!("in place of depth {stated}")), stated > 0);
        }
    }
}
