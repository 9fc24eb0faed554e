//! Split images that were never finished go on in the segment in which their last whole checkpoint
//! is, and a segment that is not whole ends what is proven.

use std::io;
use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{
    Error, Features, Image, ImageWriter, Keys, SegmentFiles, SessionTag, Unfinished, segment_name,
    verify_segment,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{AppendFile, Job, ReadAt, Storage};

use crate::areas::number;
use crate::forge::crc;
use crate::naive::{keyed, root_of_list};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe};
use crate::resuming::{assert_same_image, recipe, recipes, seal_of, session, write_on};
use crate::sealed::key;
use crate::segments::{Files, open_keyed, split};

const PAGE: usize = 4096;
const TAIL: usize = 3 * PAGE + (64 << 10);
const PIECE: usize = 64 << 10;

fn part(no: usize) -> String {
    format!("{}.part", segment_name("image", u32::try_from(no).unwrap()))
}

/// Segments that are not finished, in a folder in memory.
struct Parts(MemStorage);

impl SegmentFiles for Parts {
    fn create(&mut self, no: u32) -> io::Result<Box<dyn AppendFile>> {
        self.0.create(&part(no as usize))
    }
    fn open(&self, no: u32) -> io::Result<Arc<dyn ReadAt>> {
        self.0.open(&part(no as usize))
    }
}

/// What is proven of the segments in `files`.
fn unfinished(files: &[Arc<Vec<u8>>]) -> aiv_image_format::Result<Option<Unfinished>> {
    let open = |bytes: &Arc<Vec<u8>>| Arc::new(Patched::new(bytes)) as Arc<dyn ReadAt>;
    let files: Vec<_> = files.iter().map(open).collect();
    Unfinished::read_segments(&files, &Keys::of(key()), Job::silent())
}

/// A folder with what is kept of `files`, and its last file to go on with.
fn reopened(files: &[Arc<Vec<u8>>], found: &Unfinished) -> (MemStorage, Box<dyn AppendFile>) {
    let storage = MemStorage::new();
    let mut last = None;
    for (no, len) in found.kept().into_iter().enumerate() {
        storage.insert(&part(no), files[no].to_vec());
        last = Some(storage.reopen(&part(no), len).unwrap());
    }
    (storage, last.unwrap())
}

/// Goes on with `files` to block `until`, or to the end: the blocks are those of `complete`.
fn go_on(
    files: &[Arc<Vec<u8>>],
    complete: &Image,
    session: SessionTag,
    until: Option<u64>,
) -> Files {
    let found = unfinished(files).unwrap().expect("a whole checkpoint");
    let (storage, last) = reopened(files, &found);
    let (parts, seal) = (Box::new(Parts(storage.clone())), seal_of(&found));
    let limit = SEGMENT_BYTES_MIN;
    let writer = ImageWriter::resume_split(parts, last, &found, session, seal, limit).unwrap();
    write_on(writer, &found, complete, None, until);
    (0..).map_while(|no| storage.contents(&part(no))).collect()
}

/// The first `len` bytes of all files one behind the other.
fn cut(files: &[Arc<Vec<u8>>], mut len: usize) -> Files {
    let mut left = Vec::new();
    for file in files {
        let now = len.min(file.len());
        left.push(Arc::new(file[..now].to_vec()));
        len -= now;
        if len == 0 {
            break;
        }
    }
    left
}

/// Whether the segments of an image are each sound, and together the image that `complete` is.
fn assert_same(complete: &Image, files: &[Arc<Vec<u8>>]) {
    let image = open_keyed(files, &Keys::of(key())).unwrap();
    assert_same_image(complete, None, &image);
    for (no, file) in files.iter().enumerate() {
        let file: Arc<dyn ReadAt> = Arc::new(Patched::new(file));
        let alone = verify_segment(&file, Job::silent()).unwrap();
        assert_eq!((alone.report.damage, alone.number as usize), (vec![], no + 1));
    }
}

/// Half a dozen of the smallest segments, with several checkpoints in most.
fn many() -> Recipe {
    let blocks = [
        (Block::Data(Fill::Noise(1)), 6),
        (Block::Zero, 3),
        (Block::Data(Fill::Noise(2)), 1),
        (Block::Ref(1), 2),
        (Block::PartlyUnreadable(Fill::Noise(3)), 1),
        (Block::Unused, 5),
        (Block::Data(Fill::Noise(4)), 8),
        (Block::Unreadable, 2),
        (Block::Data(Fill::Words(5)), 1),
    ];
    Recipe { checkpoint_every: 1, small_meta: true, short_by: 700, ..Recipe::new(&blocks) }
}

/// With and without a key, with and without parity.
fn all_recipes() -> Vec<Recipe> {
    let of = |recipe: &Recipe, features| Recipe { features, seal: recipe.seal.clone(), ..many() };
    let recipes = recipes();
    let all = recipes.iter().flat_map(|recipe| [0, Features::PARITY].map(|bits| of(recipe, bits)));
    all.collect()
}

#[test]
fn a_split_image_cut_anywhere_goes_on_in_the_segment_of_its_last_whole_checkpoint() {
    for (n, recipe) in all_recipes().into_iter().enumerate() {
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        let complete = open_keyed(&files, &Keys::of(key())).unwrap();
        let total: usize = files.iter().map(|file| file.len()).sum();
        let (mut before, mut kept, mut steps) = (0, Vec::new(), 0);
        for len in (PAGE + n * 12_000..=total).step_by(98_752).chain([total]) {
            let left = cut(&files, len);
            let Some(found) = unfinished(&left).unwrap() else {
                assert_eq!(before, 0);
                continue;
            };
            assert!(found.len() >= before, "cut at {len}");
            steps += u32::from(found.len() > before);
            before = found.len();
            kept.push(found.kept().len());
            let whole = go_on(&left, &complete, session(1), None);
            assert_same(&complete, &whole);
            // All that is complete stays as it is.
            let last = found.kept().len() - 1;
            assert_eq!(whole[..last], files[..last]);
        }
        kept.dedup();
        assert!(kept.len() >= 2 && kept.is_sorted() && steps >= 3, "{kept:?}, {steps} steps");
        assert!(kept.last() >= Some(&3), "{kept:?}");
    }
}

#[test]
fn a_split_image_is_interrupted_again_and_again_and_in_the_end_is_the_same_state() {
    for recipe in all_recipes() {
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        let complete = open_keyed(&files, &Keys::of(key())).unwrap();
        let mut left = cut(&files, 200 << 10);
        let mut most = 0;
        for n in 1..=6 {
            let found = unfinished(&left).unwrap().unwrap();
            let next = found.next_block() + 3;
            left = go_on(&left, &complete, session(n), Some(next));
            let found = unfinished(&left).unwrap().unwrap();
            assert_eq!(found.next_block(), next);
            let kept: u64 = found.kept().iter().sum();
            assert_eq!(kept, left.iter().map(|file| file.len() as u64).sum::<u64>());
            most = most.max(left.len());
        }
        assert!(most >= 2, "{most} segments");
        let whole = go_on(&left, &complete, session(7), None);
        assert_same(&complete, &whole);
        let origins = open_keyed(&whole, &Keys::of(key())).unwrap().meta().origins.clone();
        assert_eq!(origins[1..], [1, 2, 3, 4, 5, 6, 7].map(session));
    }
}

/// Bytes of the stream in front of each segment of an image, and behind the last.
fn borders(files: &[Arc<Vec<u8>>]) -> Vec<u64> {
    let mut borders = vec![0];
    for file in &files[..files.len() - 1] {
        let trailer = file.len() - PAGE;
        borders.push((number(file, trailer + 72) + number(file, trailer + 80)) as u64);
    }
    borders
}

#[test]
fn a_changed_bit_anywhere_in_a_segment_ends_what_is_proven_in_that_segment_or_before() {
    for recipe in [many(), all_recipes().remove(3)] {
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        let borders = borders(&files);
        let found = unfinished(&files).unwrap().unwrap();
        let all = found.len();
        assert!(found.kept().len() >= 4);
        for no in 0..found.kept().len() - 1 {
            let len = files[no].len();
            let few = if recipe.seal.is_some() { 7 } else { 2 };
            let mut places: Vec<usize> = (0..len).step_by(1699 * few).collect();
            // Superblock, list, both trailers, superblock copy.
            places.extend((len - TAIL - PAGE..len - TAIL + PAGE).step_by(97 * few));
            places.extend((len - 2 * PAGE..len).step_by(89 * few).chain((16..200).step_by(13)));
            for at in places {
                let mut bytes = files[no].to_vec();
                bytes[at] ^= 1 << (at % 8);
                let mut changed = files.clone();
                changed[no] = Arc::new(bytes);
                // Whoever goes on holds key slots to what they should be.
                let is_slot = no == 0 && (PAGE..36_864).contains(&at) && recipe.seal.is_some();
                match unfinished(&changed) {
                    Ok(Some(found)) if is_slot => assert_eq!(found.len(), all),
                    Ok(Some(found)) => {
                        let kept = found.kept();
                        assert!(found.len() <= borders[no + 1], "segment {no}, byte {at}");
                        assert!(kept.len() <= no + 1, "segment {no}, byte {at}");
                    }
                    Ok(None) => {}
                    Err(_) => assert!(no == 0 && at < PAGE, "segment {no}, byte {at}"),
                }
            }
        }
    }
}

#[test]
fn segments_that_are_missing_exchanged_or_of_another_image_do_not_count() {
    let files = split(&many(), SEGMENT_BYTES_MIN);
    let other = split(&Recipe { id: 3, ..many() }, SEGMENT_BYTES_MIN);
    let borders = borders(&files);
    assert!(files.len() >= 4);
    let proven = |files: &[&Arc<Vec<u8>>]| {
        let files: Files = files.iter().copied().cloned().collect();
        unfinished(&files).unwrap().map_or(0, |found| found.len())
    };
    let [a, b, c, d] = [&files[0], &files[1], &files[2], &files[3]];
    let all = proven(&[a, b, c, d]);
    assert!(all > borders[3]);
    let one = proven(&[a]);
    assert!(one > 0 && one <= borders[1]);
    let two = proven(&[a, b]);
    assert!(two > borders[1] && two <= borders[2]);
    assert_eq!(proven(&[a, c]), one, "missing");
    assert_eq!(proven(&[a, c, b]), one, "exchanged");
    assert_eq!(proven(&[a, b, b]), two, "twice");
    assert_eq!(proven(&[a, &other[1], c]), one, "of another image");
    assert_eq!(proven(&[a, b, &Arc::new(Vec::new()), d]), two, "empty");
    assert_eq!(proven(&[a, b, &Arc::new(vec![0; 5000])]), two, "zeros");
    assert_eq!(proven(&[a, b, &Arc::new(c[..PAGE].to_vec())]), two, "nothing but its superblock");
    let refused = unfinished(&files[1..]).err().unwrap();
    assert!(matches!(refused, Error::Segments(_)), "{refused:?}");
    assert!(matches!(unfinished(&[]), Err(Error::Misuse(_))));
}

/// Makes the list of a segment that is not the last one, and its trailers, fit its bytes.
fn mend(file: &mut [u8]) {
    let len = file.len();
    let (start, slice) = (number(file, len - PAGE + 72), number(file, len - PAGE + 80));
    let head = if start == 0 { 0 } else { PAGE };
    for piece in 0..slice / PIECE {
        let bytes = &file[head + piece * PIECE..head + (piece + 1) * PIECE];
        let hash = keyed("aivory draft: stored piece      ", &[bytes]);
        let at = head + slice + piece * 32;
        file[at..at + 32].copy_from_slice(&hash);
    }
    mend_trailers(file);
}

fn mend_trailers(file: &mut [u8]) {
    let len = file.len();
    let (start, slice) = (number(file, len - PAGE + 72), number(file, len - PAGE + 80));
    let list = if start == 0 { slice } else { PAGE + slice };
    let hashes = file[list..list + slice / PIECE * 32].as_chunks::<32>().0.to_vec();
    let root = root_of_list(hashes).0;
    for at in [len - TAIL, len - PAGE] {
        file[at + 112..at + 144].copy_from_slice(&root);
        let hash = keyed("aivory draft: segment trailer   ", &[&file[at..at + 4060]]);
        file[at + 4060..at + 4092].copy_from_slice(&hash);
        let sum = crc(b"aiv.segt", &[&file[at..at + 4092]]).to_le_bytes();
        file[at + 4092..at + 4096].copy_from_slice(&sum);
    }
}

/// Changes a block of the image in segment `no`, and its frame and the checkpoints so that they
/// agree; says where in the file.
fn other_bytes(files: &mut Files, no: usize) -> usize {
    let mut file = files[no].to_vec();
    let frame = (PAGE..file.len() - TAIL)
        .step_by(64)
        .find(|&at| file[at..].starts_with(b"AVF1") && file[at + 4] == 1)
        .unwrap();
    file[frame + 64 + 1000] ^= 1;
    let len = u32::from_le_bytes(file[frame + 44..frame + 48].try_into().unwrap()) as usize;
    let sum = crc(b"aiv.load", &[&file[frame + 64..frame + 64 + len]]).to_le_bytes();
    file[frame + 48..frame + 52].copy_from_slice(&sum);
    let sum = crc(b"aiv.fram", &[&file[frame..frame + 60]]).to_le_bytes();
    file[frame + 60..frame + 64].copy_from_slice(&sum);
    files[no] = Arc::new(file);
    frame
}

#[test]
fn mended_segments_are_held_to_the_checkpoints_and_checkpoints_to_the_segments() {
    let files = split(&many(), SEGMENT_BYTES_MIN);
    let borders = borders(&files);
    let found = unfinished(&files).unwrap().unwrap();
    let all = found.len();
    assert!(found.kept().len() >= 4);
    for no in 0..found.kept().len() - 1 {
        // As it is, mending changes nothing.
        let mut file = files[no].to_vec();
        mend(&mut file);
        assert!(file == *files[no], "the test makes lists and trailers as the writer does");
        // A block changed, and its segment made to fit: the next checkpoint lists its old piece.
        let mut forged = files.clone();
        let frame = other_bytes(&mut forged, no) as u64;
        let at = borders[no] + frame - if no == 0 { 0 } else { PAGE as u64 };
        let mut file = forged[no].to_vec();
        mend(&mut file);
        forged[no] = Arc::new(file);
        let proven = |files: &Files| unfinished(files).unwrap().map_or(0, |found| found.len());
        let found = proven(&forged);
        assert!(found < all && found <= borders[no + 1].max(at + PIECE as u64), "segment {no}");
        // A list of other hashes, with a root that fits: the bytes are not those.
        let mut forged = files.clone();
        let mut file = files[no].to_vec();
        let list = file.len() - TAIL - PAGE;
        file[list + 5] ^= 1;
        mend_trailers(&mut file);
        forged[no] = Arc::new(file);
        assert!(proven(&forged) <= borders[no + 1] && proven(&forged) < all, "segment {no}");
    }
}

#[test]
fn a_frame_across_a_border_ends_what_is_proven() {
    // The stream of an image whose frames nobody kept apart, in two segments that are sound.
    let blocks = [(Block::Data(Fill::Noise(1)), 1), (Block::Data(Fill::Noise(5)), 8)];
    let recipe = Recipe { checkpoint_every: 1, features: Features::SPLIT, ..recipe() };
    let recipe = Recipe { blocks: blocks.to_vec(), short_by: 0, ..recipe };
    let whole = recipe.build();
    let border = 2 * PIECE;
    let sample = split(&many(), SEGMENT_BYTES_MIN);
    let (mut first, mut second) = (whole[..border].to_vec(), whole[..PAGE].to_vec());
    second[WHERE.0..WHERE.0 + 4].copy_from_slice(&1u32.to_le_bytes());
    second[WHERE.1..WHERE.1 + 8].copy_from_slice(&(border as u64).to_le_bytes());
    let sum = crc(b"aiv.supr", &[&second[..4092]]).to_le_bytes();
    second[4092..PAGE].copy_from_slice(&sum);
    second.extend_from_slice(&whole[border..]);
    first.resize(border + PAGE, 0);
    let trailer = &sample[0][sample[0].len() - TAIL..];
    first.extend_from_slice(trailer);
    let len = first.len();
    for at in [len - TAIL, len - PAGE] {
        for (offset, field) in [(80, border), (96, border / PIECE), (104, len)] {
            first[at + offset..at + offset + 8].copy_from_slice(&(field as u64).to_le_bytes());
        }
        first.copy_within(48..64, at + 16);
        first.copy_within(64..80, at + 32);
        first.copy_within(80..96, at + 48);
    }
    let copy = first[..PAGE].to_vec();
    first[len - 2 * PAGE..len - PAGE].copy_from_slice(&copy);
    mend(&mut first);
    let file: Arc<dyn ReadAt> = Arc::new(Patched::new(&Arc::new(first.clone())));
    assert_eq!(verify_segment(&file, Job::silent()).unwrap().report.damage, []);
    let one = unfinished(&[Arc::new(whole[..border].to_vec())]).unwrap().unwrap();
    let two = unfinished(&[Arc::new(first), Arc::new(second)]).unwrap().unwrap();
    assert!(unfinished(&[whole]).unwrap().unwrap().len() > border as u64, "it goes on there");
    assert_eq!((two.len(), two.kept()), (one.len(), vec![one.len()]));
}

/// Where a superblock says which segment it is, and where that begins.
const WHERE: (usize, usize) = (148, 1824);

#[test]
fn a_split_image_goes_on_only_in_its_own_segment_and_only_where_it_was_cut() {
    let files = split(&many(), SEGMENT_BYTES_MIN);
    let found = unfinished(&files[..2]).unwrap().unwrap();
    assert_eq!(found.kept().len(), 2);
    let limit = SEGMENT_BYTES_MIN;
    let try_with = |storage: &MemStorage, file: Box<dyn AppendFile>, limit: u64| {
        let parts = Box::new(Parts(storage.clone()));
        ImageWriter::resume_split(parts, file, &found, session(1), None, limit).map(drop)
    };
    let (storage, file) = reopened(&files, &found);
    try_with(&storage, file, limit).unwrap();
    let (storage, file) = reopened(&files, &found);
    assert!(matches!(try_with(&storage, file, limit - 1), Err(Error::Misuse(_))));
    // Not cut.
    let (storage, _) = reopened(&files, &found);
    storage.insert(&part(1), files[1].to_vec());
    let file = storage.reopen(&part(1), files[1].len() as u64).unwrap();
    assert!(matches!(try_with(&storage, file, limit), Err(Error::Misuse(_))));
    // The first instead of the second.
    let (storage, _) = reopened(&files, &found);
    storage.insert(&part(7), files[0].to_vec());
    let file = storage.reopen(&part(7), found.kept()[1]).unwrap();
    assert!(matches!(try_with(&storage, file, limit), Err(Error::Misuse(_))));
    // The beginning of another image.
    let (storage, _) = reopened(&files, &found);
    storage.insert(&part(0), split(&Recipe { id: 3, ..many() }, limit)[0].to_vec());
    let file = storage.reopen(&part(1), found.kept()[1]).unwrap();
    assert!(matches!(try_with(&storage, file, limit), Err(Error::Misuse(_))));
    // As one that is not split, and one that is not split as one that is.
    let (_, file) = reopened(&files, &found);
    let refused = ImageWriter::resume(file, &found, session(1), None);
    assert!(matches!(refused, Err(Error::Misuse(_))));
    let plain = recipe().build();
    let found = unfinished(std::slice::from_ref(&plain)).unwrap().unwrap();
    assert_eq!(found.kept(), [found.len()]);
    let (storage, file) = reopened(&[plain], &found);
    let parts = Box::new(Parts(storage));
    let refused = ImageWriter::resume_split(parts, file, &found, session(1), None, limit);
    assert!(matches!(refused, Err(Error::Misuse(_))));
}
