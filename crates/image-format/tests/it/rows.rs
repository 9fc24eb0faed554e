//! Long rows of frames with what lies between them, whose storage a filesystem may share.

use aiv_image_format::{
    Depth, Error, Image, ImageId, ImageWriter, IndexEntry, Kind, PointId, RowItem, RunKind,
    SessionTag, Superblock,
};
use aiv_volume_io::{DirStorage, Job, Storage};

use crate::recipe::{Block, Fill, Recipe, read_all};

/// An image of 100 blocks of noise with holes, in a real folder.
fn source(storage: &DirStorage) -> Image {
    let blocks: Vec<(Block, u64)> = (0..25)
        .flat_map(|n| {
            [
                (Block::Data(Fill::Noise(4 * n)), 1),
                (Block::Data(Fill::Noise(4 * n + 1)), 1),
                (Block::Zero, 1),
                (Block::Data(Fill::Words(4 * n + 2)), 1),
            ]
        })
        .collect();
    let recipe = Recipe { block_size: 128 << 10, ..Recipe::new(&blocks) };
    let mut file = storage.create("source").unwrap();
    file.append_all(&recipe.build()).unwrap();
    Image::open(storage.open("source").unwrap()).unwrap()
}

fn writer(storage: &DirStorage, image: &Image) -> ImageWriter<'static> {
    let superblock = Superblock {
        image: ImageId([0xa1; 16]),
        point: PointId([0xa2; 16]),
        session: SessionTag([0xa3; 12]),
        ..image.superblock().clone()
    };
    ImageWriter::create(storage.create("copy").unwrap(), superblock).unwrap()
}

/// The row from the first frame on, `keep` blocks of it, and its bytes.
fn row(image: &Image, keep: usize) -> (Vec<RowItem>, Vec<u8>, Vec<IndexEntry>) {
    let entries: Vec<_> = image.entries(0).take(keep).map(Result::unwrap).collect();
    let item = |entry: &IndexEntry| match entry.kind {
        Kind::Zero => RowItem::Run(RunKind::Zero, entry.run),
        _ => RowItem::Frame(*entry),
    };
    let framed: Vec<_> = entries.iter().copied().filter(IndexEntry::has_frame).collect();
    let (first, last) = (framed.first().unwrap(), framed.last().unwrap());
    let len = last.address + last.frame_size - first.address;
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    image.file().read_exact_at(&mut bytes, first.address).unwrap();
    (entries.iter().map(item).collect(), bytes, framed)
}

#[test]
fn a_long_row_lies_in_its_page_as_it_did_before_and_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    let image = source(&storage);
    let (items, bytes, framed) = row(&image, 99);
    let mut writer = writer(&storage, &image);
    let start = writer.copy_row(&items, &bytes, Some(image.file())).unwrap();
    assert_eq!(start % 4096, framed[0].address % 4096);
    // A block more that is one of the row's, and bytes behind it.
    let again = IndexEntry { block: 99, kind: Kind::Ref, ..framed[5] };
    let one = usize::try_from(again.address - framed[0].address).unwrap();
    writer.copy_row(&[RowItem::Frame(again)], &bytes[one..], Some(image.file())).unwrap();
    writer.finish(image.meta().clone()).unwrap();
    let copy = Image::open(storage.open("copy").unwrap()).unwrap();
    assert_eq!(copy.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    assert!(read_all(&copy).unwrap()[..99] == read_all(&image).unwrap()[..99]);
}

#[test]
fn a_reference_within_a_row_names_a_frame_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    let image = source(&storage);
    let (mut items, bytes, framed) = row(&image, 2);
    items.push(RowItem::Frame(IndexEntry { block: 2, kind: Kind::Ref, ..framed[1] }));
    items.push(RowItem::Run(RunKind::Zero, 97));
    let mut writer = writer(&storage, &image);
    writer.copy_row(&items, &bytes, Some(image.file())).unwrap();
    writer.finish(image.meta().clone()).unwrap();
    let copy = Image::open(storage.open("copy").unwrap()).unwrap();
    assert_eq!(copy.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    let cells = read_all(&copy).unwrap();
    assert!(cells[1].1 == cells[2].1);
}

#[test]
fn nothing_of_a_row_is_written_when_one_of_its_frames_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    let image = source(&storage);
    let (items, mut bytes, _) = row(&image, 99);
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    let mut writer = writer(&storage, &image);
    let before = writer.position();
    let refused = writer.copy_row(&items, &bytes, Some(image.file()));
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    assert_eq!((writer.position(), writer.next_block()), (before, 0));
}

#[test]
fn sessions_named_as_origins_are_listed_without_a_frame_of_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    let image = source(&storage);
    let mut writer = writer(&storage, &image);
    let own = SessionTag([0xa3; 12]);
    writer.name_origins(&[SessionTag([7; 12]), own, SessionTag([7; 12])]);
    writer.push_run(RunKind::Unused, 100).unwrap();
    writer.finish(image.meta().clone()).unwrap();
    let copy = Image::open(storage.open("copy").unwrap()).unwrap();
    assert_eq!(copy.meta().origins, [own, SessionTag([7; 12])]);
    assert_eq!(copy.verify(Depth::Data, Job::silent()).unwrap().damage, []);
}
