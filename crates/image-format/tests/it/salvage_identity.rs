//! Whose frames are whose: files with parts of several images, and none that would say so.

use std::sync::Arc;

use aiv_image_format::salvage::{Evidence, Fate, Hints, KnownBy, Loss};
use aiv_image_format::{Compression, Error, Kind, Unsalvageable};
use aiv_volume_io::MemDisk;

use crate::areas::{Areas, DATA, PAGE};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe};
use crate::salvage::{hints, read, recipe, scan};

fn with_id(id: u8, seed: u64) -> Recipe {
    let blocks: Vec<(Block, u64)> =
        (seed..seed + 12).map(|seed| (Block::Data(Fill::Words(seed)), 1)).collect();
    Recipe { id, small_meta: true, ..Recipe::new(&blocks) }
}

#[test]
fn each_head_that_is_left_says_which_image_it_is() {
    let recipe = recipe(Compression::Lz4);
    let bytes = recipe.build();
    let tail = bytes.len();
    let cases = [
        (vec![], KnownBy::Superblock),
        (vec![0], KnownBy::Copy),
        (vec![0, tail - 2 * PAGE], KnownBy::Trailer),
        (vec![0, tail - 2 * PAGE, tail - PAGE], KnownBy::Trailer),
        (vec![0, tail - 2 * PAGE, tail - PAGE, tail - 3 * PAGE - (64 << 10)], KnownBy::Frames),
    ];
    for (gone, by) in cases {
        let file = gone.iter().fold(Patched::new(&bytes), |f, &at| f.with(at, &[0; PAGE]));
        // META tells the size of the disk.
        let salvage = scan(Arc::new(file), &Hints::default()).unwrap();
        assert_eq!(salvage.identity().known_by, by);
        assert_eq!(salvage.geometry(), &recipe.geometry());
        assert_eq!(salvage.identity().image, Some(recipe.superblock().image), "{by:?}");
        assert!(read(&salvage).iter().all(std::result::Result::is_ok), "{by:?}");
    }
}

#[test]
fn something_appended_to_an_image_does_not_hide_it() {
    let recipe = with_id(1, 10);
    let bytes = [recipe.build().to_vec(), with_id(2, 50).build()[PAGE..].to_vec()].concat();
    for head in [0, PAGE] {
        let mut bytes = bytes.clone();
        bytes[..head].fill(0);
        let salvage = scan(Arc::new(MemDisk::from_bytes(bytes)), &Hints::default()).unwrap();
        if head == 0 {
            let found: Vec<_> = read(&salvage).into_iter().map(|r| r.unwrap().1).collect();
            let truth: Vec<_> = recipe.expected().into_iter().map(|e| e.bytes).collect();
            assert!(found == truth);
        }
    }
}

#[test]
fn older_frames_of_another_image_are_not_taken() {
    let (new, old) = (with_id(1, 10), with_id(2, 50));
    let (new_bytes, old_bytes) = (new.build(), old.build());
    // The new image was cut off, and what lies behind is what an older one had there.
    let cut = Areas::of(&new_bytes).frames[6].header.start;
    let bytes = [&new_bytes[..cut], &old_bytes[cut..]].concat();
    let salvage = scan(Arc::new(MemDisk::from_bytes(bytes)), &Hints::default()).unwrap();
    let truth = new.expected();
    for (block, found) in read(&salvage).into_iter().enumerate() {
        match found {
            Ok((_, bytes)) => assert!(block < 6 && bytes == truth[block].bytes, "block {block}"),
            Err(loss) => assert!(block >= 6 && loss == Loss::Unknown, "block {block}: {loss:?}"),
        }
    }
}

#[test]
fn two_frames_of_one_session_that_differ_are_a_conflict_and_two_that_do_not_are_one() {
    let (one, other) = (with_id(1, 10), with_id(1, 50));
    let (bytes, others) = (one.build(), other.build());
    let frame = |bytes: &[u8], number: usize| {
        let frame = Areas::of(bytes).frames[number].clone();
        bytes[frame.header.start..frame.padding.end].to_vec()
    };
    // Without index and checkpoint, nothing decides.
    let frames = Areas::of(&bytes).frames;
    let cut = frames.iter().find(|f| f.kind != DATA).unwrap().header.start;
    let file = [bytes[..cut].to_vec(), frame(&others, 2), frame(&bytes, 3)].concat();
    let salvage = scan(Arc::new(MemDisk::from_bytes(file)), &Hints::default()).unwrap();
    for (block, found) in (0..).zip(read(&salvage)) {
        if block == 2 {
            assert_eq!(found, Err(Loss::Conflict));
        } else {
            assert!(matches!(salvage.fate(block), Fate::Decided(Evidence::Frame, _)));
            assert_eq!(found.unwrap().0, Kind::Data, "block {block}");
        }
    }
    // With the checkpoint its entry decides, whichever frame comes first.
    let checkpoint = frames.iter().find(|f| f.kind != DATA).unwrap().padding.end;
    let file = [bytes[..checkpoint].to_vec(), frame(&others, 2)].concat();
    let salvage = scan(Arc::new(MemDisk::from_bytes(file)), &Hints::default()).unwrap();
    assert!(read(&salvage)[2].as_ref().unwrap().1 == one.expected()[2].bytes);
}

#[test]
fn a_file_without_anything_of_an_image_is_refused() {
    for bytes in [vec![], vec![0; 100], vec![7; 1 << 20]] {
        let nothing = scan(Arc::new(MemDisk::from_bytes(bytes)), &Hints::default());
        assert!(nothing.err().unwrap().to_string().contains("nothing of an Aivory image"));
    }
}

#[test]
fn an_image_that_needs_a_newer_program_is_refused_by_name() {
    let recipe = with_id(1, 10);
    let forged = crate::forge::Forgery::of(&recipe.build()).superblock(16, &[1 << 5]).seal();
    let refused = scan(Arc::new(Patched::new(&forged)), &hints(&recipe)).err().unwrap();
    assert!(refused.to_string().contains("dedup-store"), "{refused}");
}

#[test]
fn a_sealed_image_is_refused_as_sealed_with_and_without_its_heads() {
    let recipe = crate::sealed::sealed();
    let bytes = recipe.build();
    let copy = bytes.len() - 2 * PAGE;
    for gone in [vec![], vec![0]] {
        let file = gone.iter().fold(Patched::new(&bytes), |f, &at| f.with(at, &[0; PAGE]));
        let error = scan(Arc::new(file), &hints(&recipe)).err().unwrap();
        assert!(matches!(error, Error::Unsalvageable(Unsalvageable::Sealed)), "{error}");
    }
    let sealed = Areas::of(&bytes).frames.iter().filter(|f| [1, 3].contains(&f.kind)).count();
    let headless = Patched::new(&bytes).with(0, &[0; PAGE]).with(copy, &[0; PAGE]);
    for cut in [bytes.len(), bytes.len() - (90 << 10)] {
        let error = scan(Arc::new(headless.clone().cut(cut)), &hints(&recipe)).err().unwrap();
        let Error::Unsalvageable(Unsalvageable::SealedFrames { count }) = error else {
            panic!("{error}");
        };
        assert!(count >= sealed as u64 - 1, "{count} of {sealed}");
    }
    // A superblock that lies anywhere else.
    let stray = [vec![0; 8 * PAGE], bytes[..bytes.len() - (90 << 10)].to_vec()].concat();
    let error = scan(Arc::new(MemDisk::from_bytes(stray)), &hints(&recipe)).err().unwrap();
    assert!(matches!(error, Error::Unsalvageable(Unsalvageable::Sealed)), "{error}");
}

#[test]
fn an_authenticated_image_is_salvaged_as_one_without_a_key() {
    use aiv_image_format::{Mode, Seal};
    let recipe = crate::sealed::sealed();
    let seal = recipe.seal.clone().map(|seal| Seal { mode: Mode::Authenticated, ..seal });
    let recipe = Recipe { seal, ..recipe };
    let bytes = recipe.build();
    let headless = Patched::new(&bytes).with(0, &[0; PAGE]).cut(bytes.len() - (90 << 10));
    for file in [Patched::new(&bytes), headless] {
        let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
        let found = read(&salvage).into_iter().map(|read| read.unwrap().1);
        assert!(found.eq(recipe.expected().into_iter().map(|e| e.bytes)));
    }
}
