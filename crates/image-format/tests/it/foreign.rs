//! Files that are no images, images of others, and images inside images.

use std::sync::Arc;

use aiv_image_format::{Compression, Depth, Error, Image};
use aiv_volume_io::Job;

use crate::areas::{Areas, PAGE, TAIL};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise, open, read_all, refusal};

fn small(id: u8) -> Recipe {
    let blocks = [(Block::Data(Fill::Words(id.into())), 3), (Block::Unused, 5)];
    Recipe { id, ..Recipe::new(&blocks) }
}

fn assert_foreign(what: &str, bytes: Vec<u8>) -> String {
    match open(&Arc::new(bytes)) {
        Err(error @ Error::Foreign(_)) => {
            let message = error.to_string();
            assert!(message.starts_with("not an Aivory image: "), "{what}: {message}");
            message
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what} is an image"),
    }
}

#[test]
fn files_of_others_are_foreign() {
    assert!(assert_foreign("nothing", vec![]).contains("0 bytes are too few"));
    assert!(assert_foreign("one byte", vec![0x89]).contains("1 bytes are too few"));
    assert_foreign("a short text", b"Dear diary,\n".to_vec());
    let text = assert_foreign("a long text", b"Dear diary,\n".repeat(50_000));
    assert!(text.contains("it begins with 4465617220646961"), "{text}");
    assert_foreign("zeros", vec![0; 1 << 20]);
    assert_foreign("noise", noise(1, 1 << 20));
    assert_foreign("qcow2", [b"QFI\xfb\0\0\0\x03".to_vec(), noise(2, 200_000)].concat());
    let vendor = b"AIV\x02VOLUME-BACKUP 7.1\0".to_vec();
    assert_foreign("the .aiv of another product", [vendor, noise(3, 300_000)].concat());
    // A transfer in text mode: the magic number is made to show it.
    let image = small(1).build();
    let mangled = image.iter().flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] });
    assert_foreign("an image mangled as text", mangled.collect());
}

#[test]
fn a_foreign_file_is_no_damaged_image_even_if_it_is_long() {
    let message = refusal(noise(7, 4 * TAIL));
    assert!(message.contains("not an Aivory image"), "{message}");
}

#[test]
fn the_trailers_of_another_image_are_refused() {
    let (one, two) = (small(1).build(), small(2).build());
    assert_eq!(one.len(), two.len(), "only ids differ");
    let areas = Areas::of(&one);
    let splice = |parts: &[&std::ops::Range<usize>]| {
        let mut bytes = one.to_vec();
        parts.iter().for_each(|p| bytes[(*p).clone()].copy_from_slice(&two[(*p).clone()]));
        Arc::new(bytes)
    };
    let both = refusal(splice(&[&areas.first_trailer, &areas.last_trailer]));
    assert!(both.contains("the trailer at byte"), "{both}");
    assert!(both.contains("it belongs to another image"), "{both}");
    // One of them alone is damage that the other makes up for.
    for one in [&areas.first_trailer, &areas.last_trailer] {
        let image = open(&splice(&[one])).expect("one trailer is right");
        assert!(image.damage()[0].to_string().contains("belongs to another image"));
        assert!(!image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
    }
}

#[test]
fn the_superblock_of_another_image_is_refused() {
    let (one, two) = (small(1).build(), small(2).build());
    let message = refusal([&two[..PAGE], &one[PAGE..]].concat());
    assert!(message.contains("belongs to another image"), "{message}");
    let copy = Areas::of(&one).superblock_copy;
    let file = Patched::new(&one).with(copy.start, &two[copy.clone()]);
    let image = Image::open(Arc::new(file)).expect("the copy is not needed");
    let report = image.verify(Depth::Quick, Job::silent()).unwrap();
    assert!(report.damage[0].to_string().contains("superblock copy at byte"));
}

#[test]
fn pages_and_frames_of_another_image_are_refused() {
    let (one, two) = (small(1).build(), small(2).build());
    let areas = Areas::of(&one);
    for (area, what) in [(&areas.index, "index page"), (&areas.tree, "tree page")] {
        let file = Patched::new(&one).with(area.start, &two[area.clone()]);
        let image = Image::open(Arc::new(file)).expect("pages are read later");
        let report = image.verify(Depth::Data, Job::silent()).unwrap();
        let found = report
            .damage
            .iter()
            .any(|c| c.to_string().contains(what) && c.what().contains("belongs to another image"));
        assert!(found, "{:?}", report.damage);
    }
    let meta = areas.meta.start..areas.meta_padding.end;
    let message = refusal([&one[..meta.start], &two[meta.clone()], &one[meta.end..]].concat());
    assert!(message.contains("META section"), "{message}");
}

#[test]
fn two_images_in_one_file_are_refused() {
    let (one, two) = (small(1).build(), small(2).build());
    let message = refusal([one.to_vec(), two.to_vec()].concat());
    assert!(message.contains("belongs to another image"), "{message}");
    let message = refusal([one.to_vec(), one.to_vec()].concat());
    assert!(message.contains("its file length and the file do not agree"), "{message}");
    let message = refusal([b"text\n".to_vec(), one.to_vec()].concat());
    assert!(message.contains("its file length and the file do not agree"), "{message}");
}

#[test]
fn an_image_of_a_disk_full_of_images_is_right() {
    let inner = small(2).build();
    // The blocks of the outer image are the bytes of the inner one, stored as they are: every
    // magic number of the format occurs inside frames, at places a scan looks at.
    let blocks = inner.len().div_ceil(16 << 10);
    let mut disk = inner.to_vec();
    disk.resize(blocks * (16 << 10), 0);
    let outer = image_of(&disk);
    let image = open(&outer).expect("a fresh image is sound");
    let read: Vec<u8> = read_all(&image).unwrap().into_iter().flat_map(|b| b.1).collect();
    assert!(read == disk);
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
    let text = crate::round_trip::check_dump(&image, outer.len() as u64);
    assert_eq!(text.lines().filter(|l| l.contains(" DATA block ")).count(), blocks);
    let restored = open(&Arc::new(read[..inner.len()].to_vec())).expect("the inner image");
    assert_eq!(restored.superblock().image, small(2).superblock().image);
}

/// The image of a disk, uncompressed.
fn image_of(disk: &[u8]) -> Arc<Vec<u8>> {
    use aiv_image_format::{Encoder, ImageWriter, hash};
    use aiv_testkit::MemStorage;
    use aiv_volume_io::Storage;

    let blocks = (disk.len() / (16 << 10)) as u64;
    let recipe = Recipe::new(&[(Block::Zero, blocks)]);
    let storage = MemStorage::new();
    let file = storage.create("image").unwrap();
    let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
    let mut encoder = Encoder::new(Compression::None, false);
    for block in disk.chunks(16 << 10) {
        writer.push_block(&encoder.encode(block, hash::leaf(block)).unwrap()).unwrap();
    }
    writer.finish(recipe.meta()).unwrap();
    storage.contents("image").unwrap()
}
