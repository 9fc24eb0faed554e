//! Split images: what is cut is joined again, and nothing else is.

use std::io;
use std::sync::Arc;

use aiv_image_format::limits::{PAGE_SIZE, SEGMENT_BYTES_MIN, SEGMENTS_MAX};
use aiv_image_format::{
    Compression, Depth, Error, Features, Image, ImageWriter, Keys, SegmentError, SegmentFile,
    SegmentFiles, Segments, peek, peek_segment, segment_name, verify_segment,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{AppendFile, Job, ReadAt, Storage};
use proptest::prelude::*;

use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, read_all};
use crate::round_trip::check_dump;

/// Segments in a folder in memory.
pub(crate) struct InMemory(pub(crate) MemStorage);

impl SegmentFiles for InMemory {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        self.0.create(&segment_name("image", no))
    }
    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(&segment_name("image", no))
    }
}

/// The files of a split image, in order.
pub(crate) type Files = Vec<Arc<Vec<u8>>>;

pub(crate) fn split(recipe: &Recipe, limit: u64) -> Files {
    let storage = MemStorage::new();
    let files = Box::new(InMemory(storage.clone()));
    let (superblock, seal) = (recipe.superblock(), recipe.seal.clone());
    let writer = ImageWriter::create_split_with(files, superblock, limit, seal).unwrap();
    recipe.fill(writer).unwrap();
    (0..SEGMENTS_MAX).map_while(|no| storage.contents(&segment_name("image", no))).collect()
}

pub(crate) fn named(no: usize, file: impl ReadAt + 'static) -> SegmentFile {
    let name = segment_name("image", u32::try_from(no).unwrap());
    SegmentFile { name, file: Arc::new(file) }
}

pub(crate) fn parts(files: &[Arc<Vec<u8>>]) -> Vec<SegmentFile> {
    files.iter().enumerate().map(|(no, bytes)| named(no, Patched::new(bytes))).collect()
}

pub(crate) fn open(files: &[Arc<Vec<u8>>]) -> aiv_image_format::Result<Image> {
    Image::open_segments(parts(files))
}

pub(crate) fn open_keyed(files: &[Arc<Vec<u8>>], keys: &Keys) -> aiv_image_format::Result<Image> {
    Image::open_segments_with(parts(files), keys)
}

/// Three segments of 160 KiB, one piece each, and noise so that they are filled.
pub(crate) fn three() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 1),
        (Block::Data(Fill::Words(2)), 1),
        (Block::Zero, 4),
        (Block::Data(Fill::Noise(3)), 1),
        (Block::Data(Fill::Noise(4)), 1),
        (Block::Unused, 200),
        (Block::Ref(2), 1),
        (Block::Data(Fill::Noise(5)), 1),
        (Block::PartlyUnreadable(Fill::Words(6)), 1),
        (Block::Data(Fill::Noise(7)), 1),
        (Block::Data(Fill::Noise(8)), 1),
    ];
    let small = Recipe { small_meta: true, compression: Compression::Lz4, ..Recipe::new(&blocks) };
    Recipe { checkpoint_every: 6, id: 9, ..small }
}

pub(crate) fn check(recipe: &Recipe, limit: u64) -> Files {
    let files = split(recipe, limit);
    assert_eq!(files, split(recipe, limit), "same inputs, same bytes");
    let image = open_keyed(&files, &recipe.keys()).unwrap();
    assert_eq!(image.damage(), []);
    let segments = image.segments().unwrap();
    assert_eq!(segments.count() as usize, files.len());
    assert_eq!(image.trailer().segment_count, segments.count());
    assert_eq!(segments.bytes(), files.iter().map(|file| file.len() as u64).sum::<u64>());
    let whole = recipe.open();
    assert_eq!(image.trailer().state_root, whole.trailer().state_root);
    let features = recipe.superblock().features.incompat | Features::SPLIT;
    assert_eq!(image.superblock().features.incompat, features);
    assert_eq!(read_all(&image).unwrap(), read_all(&whole).unwrap());
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    let locked = open(&files).unwrap();
    assert_eq!(locked.is_locked(), image.superblock().is_sealed());
    assert_eq!(locked.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    check_dump(&image, image.trailer().file_len);
    for (no, file) in files.iter().enumerate() {
        let file: Arc<dyn ReadAt> = Arc::new(Patched::new(file));
        let alone = verify_segment(&file, Job::silent()).unwrap();
        assert_eq!(alone.report.damage, [], "segment {no}");
        assert_eq!(alone.number as usize, no + 1);
        assert_eq!(alone.image, image.superblock().image);
        assert_eq!(alone.count.is_some(), no + 1 == files.len());
        let head = peek_segment(&*file).unwrap();
        assert_eq!((head.no as usize, head.point), (no, image.superblock().point));
        assert_eq!(peek(&*file).as_ref(), Some(image.superblock()));
    }
    files
}

fn blocks() -> impl Strategy<Value = Vec<(Block, u64)>> {
    let block = prop_oneof![
        5 => any::<u64>().prop_map(|seed| (Block::Data(Fill::Noise(seed)), 3)),
        2 => any::<u64>().prop_map(|seed| (Block::Data(Fill::Words(seed)), 2)),
        1 => any::<usize>().prop_map(|n| (Block::Ref(n), 1)),
        1 => any::<u64>().prop_map(|seed| (Block::PartlyUnreadable(Fill::Noise(seed)), 1)),
        1 => (1u64..300).prop_map(|run| (Block::Unused, run)),
        1 => (1u64..30).prop_map(|run| (Block::Zero, run)),
    ];
    prop::collection::vec(block, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_split_image_gives_back_what_was_written(
        blocks in blocks(), limit in SEGMENT_BYTES_MIN..600 << 10, block_log2 in 14u32..=15,
        checkpoint_every in 0usize..9, short_by in 0u64..9000,
        seal in prop::sample::select(crate::sealed::seals()), has_parity in any::<bool>(),
    ) {
        let has_slots = seal.as_ref().is_some_and(|seal| seal.slots.is_some());
        let recipe = Recipe {
            short_by,
            seal,
            features: if has_parity { Features::PARITY } else { 0 },
            checkpoint_every,
            small_meta: true,
            block_size: 1 << block_log2,
            compression: Compression::None,
            ..Recipe::new(&blocks)
        };
        let files = check(&recipe, limit);
        // No frame is larger than 40 KiB: a segment of 160 KiB holds each of them, but the first
        // one with key slots in it, and that with the parity of a stripe.
        let rest = if has_parity { &[] } else { &files[usize::from(has_slots).min(files.len())..] };
        for file in rest {
            prop_assert!(file.len() as u64 <= limit, "{} of {limit}", file.len());
        }
    }
}

#[test]
fn an_image_that_fits_is_a_single_segment_and_one_file() {
    let files = check(&three(), 100 << 20);
    assert_eq!(files.len(), 1);
    let image = crate::recipe::open(&files[0]).unwrap();
    assert_eq!(image.trailer().segment_count, 1);
}

#[test]
fn an_index_larger_than_a_segment_is_cut_between_its_pages() {
    // Single blocks, so that each has an entry: 60 KiB of index and more.
    let runs = (0..4000).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]);
    let recipe = Recipe { small_meta: true, ..Recipe::new(&runs.collect::<Vec<_>>()) };
    let files = check(&recipe, SEGMENT_BYTES_MIN);
    let image = open(&files).unwrap();
    let (from, to) = (image.trailer().index_offset, image.trailer().meta_offset);
    let starts = files.iter().map(|file| u64::from_le_bytes(file[1824..1832].try_into().unwrap()));
    let inside: Vec<u64> = starts.filter(|start| (from + 1..to).contains(start)).collect();
    assert!(inside.len() >= 3, "borders at {inside:?} of {from} to {to}");
    // The first one has the checkpoint of so many entries, which is larger, and the last one the
    // parity of all pages.
    let (last, others) = files[1..].split_last().unwrap();
    assert!(others.iter().all(|file| file.len() as u64 <= SEGMENT_BYTES_MIN));
    assert!(last.len() as u64 <= SEGMENT_BYTES_MIN + image.trailer().parity_len);
}

#[test]
fn a_frame_larger_than_a_segment_makes_its_own_larger() {
    let blocks = [(Block::Data(Fill::Noise(1)), 1), (Block::Data(Fill::Noise(2)), 2)];
    let recipe = Recipe {
        block_size: 1 << 20,
        small_meta: true,
        compression: Compression::None,
        ..Recipe::new(&blocks)
    };
    let files = check(&recipe, SEGMENT_BYTES_MIN);
    // Each has a block, but the last, which has index and META.
    assert!(files.len() >= 4 && files.iter().all(|file| file.len() < (1 << 20) + (240 << 10)));
}

#[test]
fn every_missing_segment_is_named_by_its_number_and_what_it_was_called() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    assert!(files.len() >= 3);
    for gone in 0..files.len() {
        let mut some = parts(&files);
        some.remove(gone);
        let error = Segments::join(some).err().unwrap();
        let name = segment_name("image", u32::try_from(gone).unwrap());
        let number = u32::try_from(gone + 1).unwrap();
        let Error::Segments(SegmentError::Missing { number: told, pattern }) = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*told, pattern), (number, &name));
        assert!(error.to_string().contains(&format!("segment {number} is missing")), "{error}");
    }
}

#[test]
fn a_segment_that_is_there_twice_is_refused_by_name() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    for twice in 0..files.len() {
        let mut more = parts(&files);
        more.push(SegmentFile { name: "z".to_owned(), file: more[twice].file.clone() });
        let error = Segments::join(more).err().unwrap();
        let wanted =
            SegmentError::Twice { number: u32::try_from(twice + 1).unwrap(), file: "z".to_owned() };
        // Behind the last one there is none.
        assert!(matches!(&error, Error::Segments(found) if *found == wanted), "{error:?}");
    }
}

#[test]
fn a_segment_of_another_image_is_refused_although_number_and_place_fit() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let other = split(&Recipe { id: 10, ..three() }, SEGMENT_BYTES_MIN);
    for at in 0..files.len() {
        let mut mixed = files.clone();
        mixed[at] = other[at].clone();
        let error = open(&mixed).err().unwrap();
        assert!(matches!(error, Error::Segments(SegmentError::Stranger { .. })), "{error:?}");
    }
}

#[test]
fn the_order_and_the_names_of_the_files_mean_nothing() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let mut shuffled = parts(&files);
    shuffled.reverse();
    for (number, part) in shuffled.iter_mut().enumerate() {
        part.name = format!("renamed-{number}");
    }
    let image = Image::open_segments(shuffled).unwrap();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn a_segment_by_itself_is_no_image_and_says_what_it_is() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    for (at, file) in files.iter().enumerate() {
        let error = crate::recipe::open(file).err().unwrap();
        let number = u32::try_from(at + 1).unwrap();
        let Error::Segments(SegmentError::Part { number: told, .. }) = error else {
            panic!("segment {number}: {error:?}");
        };
        assert_eq!(told, number);
    }
}

#[test]
fn a_segment_that_was_cut_off_anywhere_is_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    for at in 0..files.len() {
        let len = files[at].len();
        let step = 4096 - 1;
        for cut in (0..len).step_by(step).chain([len - 1]) {
            let mut some = parts(&files);
            some[at] = named(at, Patched::new(&files[at]).cut(cut));
            assert!(Image::open_segments(some).is_err(), "segment {at} cut to {cut}");
            let alone: Arc<dyn ReadAt> = Arc::new(Patched::new(&files[at]).cut(cut));
            assert!(verify_segment(&alone, Job::silent()).is_err(), "segment {at} cut to {cut}");
        }
    }
}

#[test]
fn what_is_asked_for_must_make_sense() {
    let storage = MemStorage::new();
    let begun = |limit| {
        let files = Box::new(InMemory(storage.clone()));
        ImageWriter::create_split(files, three().superblock(), limit).map(drop)
    };
    assert!(matches!(begun(SEGMENT_BYTES_MIN - 1), Err(Error::Misuse(_))));
    assert!(storage.names().is_empty(), "nothing was created");
    assert!(matches!(Segments::join(Vec::new()), Err(Error::Misuse(_))));
    let whole: Arc<dyn ReadAt> = Arc::new(Patched::new(&three().build()));
    let refused = verify_segment(&whole, Job::silent());
    assert!(matches!(refused, Err(Error::Segments(SegmentError::NotSplit))));
    assert_eq!(peek_segment(&*whole), None);
    let many = vec![SegmentFile { name: String::new(), file: whole }; SEGMENTS_MAX as usize + 1];
    assert!(matches!(Segments::join(many), Err(Error::Misuse(_))));
}

/// Interrupts the creation of the second file once, as a signal may.
struct Interrupted(InMemory, bool);

impl SegmentFiles for Interrupted {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        if no == 1 && !std::mem::replace(&mut self.1, true) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.0.create(no)
    }
    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(no)
    }
}

#[test]
fn an_interruption_at_a_border_ends_the_image_and_is_not_repeated() {
    let files = Box::new(Interrupted(InMemory(MemStorage::new()), false));
    let recipe = three();
    let writer = ImageWriter::create_split(files, recipe.superblock(), SEGMENT_BYTES_MIN).unwrap();
    assert!(matches!(recipe.fill(writer), Err(Error::Io { .. })));
}

#[test]
fn more_segments_than_an_image_may_have_are_refused_while_it_is_written() {
    let blocks = [(Block::Data(Fill::Noise(1)), u64::from(SEGMENTS_MAX) * 4)];
    let recipe = Recipe { small_meta: true, ..Recipe::new(&blocks) };
    let recipe = Recipe { compression: Compression::None, ..recipe };
    let files = Box::new(InMemory(MemStorage::new()));
    let writer = ImageWriter::create_split(files, recipe.superblock(), SEGMENT_BYTES_MIN).unwrap();
    let error = recipe.fill(writer).err().unwrap();
    assert!(error.to_string().contains("larger ones are needed"), "{error}");
    assert_eq!(PAGE_SIZE, 4096);
}

#[test]
fn a_checkpoint_lists_every_piece_in_front_of_it_also_where_a_border_or_parity_stands_there() {
    // Noise, so that segments and stripes end wherever checkpoints do; verification counts pieces.
    for checkpoint_every in 1..12 {
        for features in [0, Features::PARITY] {
            let blocks: Vec<_> = (0..40).map(|n| (Block::Data(Fill::Noise(n)), 1)).collect();
            let recipe =
                Recipe { checkpoint_every, features, small_meta: true, ..Recipe::new(&blocks) };
            for limit in [SEGMENT_BYTES_MIN, 200 << 10, 333_000] {
                let image = open(&split(&recipe, limit)).unwrap();
                let found = image.verify(Depth::Data, Job::silent()).unwrap();
                assert!(found.is_sound(), "every {checkpoint_every}, {limit}: {:?}", found.damage);
            }
        }
    }
}
