//! Image files, folders of them, and the catalogue.

use std::sync::Arc;

use aiv_chain::{Folder, StrayKind, View};
use aiv_image_format::salvage::{Hints, Salvage};
use aiv_image_format::{
    Depth, Error, Image, Keys, SegmentFile, SegmentsRepair, Unfinished, Unsalvageable, dump, peek,
    peek_segment, verify_segment,
};
use aiv_keys::{Credential, KeyArea, KeyFile, Work};
use aiv_testkit::mutants;
use aiv_volume_io::{CATALOGUE_NAME, Job, MemDisk, ReadAt};

use crate::seeds;

/// Entries and blocks read of each image: a forged one may promise 2^40.
const BLOCKS_MAX: usize = 200;

/// One image file: opened, dumped, verified, read block by block.
pub fn image(data: &[u8]) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(data.to_vec()));
    let _ = peek(&*file);
    unfinished(&file);
    let Ok(image) = Image::open_with(Arc::clone(&file), &seeds::keys())
        .or_else(|_| Image::open(Arc::clone(&file)))
    else {
        return false;
    };
    let mut text = String::new();
    let _ = dump(&image, &mut text);
    let report = image.verify(Depth::Data, Job::silent());
    let mut reader = image.block_reader();
    let mut end = 0;
    for entry in image.entries(0).take(BLOCKS_MAX).map_while(Result::ok) {
        assert!(entry.block >= end && entry.end() <= image.geometry().blocks());
        end = entry.end();
        let len = image.geometry().block_len(entry.block);
        let mut out = vec![0; usize::try_from(len).expect("a block")];
        let read = reader.read(entry.block, &mut out);
        let is_proven = report.as_ref().is_ok_and(aiv_image_format::VerifyReport::is_sound);
        assert!(read.is_ok() || !is_proven || image.superblock().parent.is_some());
    }
    true
}

/// The same as an image to go on with: what is proven of it is in order.
fn unfinished(file: &Arc<dyn ReadAt>) {
    let Ok(Some(found)) = Unfinished::read(Arc::clone(file), &seeds::keys(), Job::silent()) else {
        return;
    };
    assert!(found.len() <= file.len());
    check_entries(&found);
}

pub(crate) fn check_entries(found: &Unfinished) {
    assert!(found.next_block() <= found.superblock().geometry.blocks());
    let mut end = 0;
    for entry in found.entries() {
        let entry = entry.expect("read a moment ago");
        assert!(entry.block >= end && entry.end() <= found.next_block());
        end = entry.end();
    }
}

/// One segment of a split image, proven alone, and as all that is left of its image.
pub fn segment(data: &[u8]) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(data.to_vec()));
    if let Some(head) = peek_segment(&*file) {
        let (image, name) = (head.image, "image".to_owned());
        let files = [SegmentFile { name, file: Arc::clone(&file) }];
        let found = SegmentsRepair::of(image, &files, &[], &Keys::none(), Job::silent());
        let is_whole = found.is_ok_and(|found| found.report().is_sound());
        assert!(!is_whole || head.no == 0, "others are missing");
    }
    verify_segment(&file, Job::silent()).is_ok()
}

/// What is left of an image: damaged, headless, cut off, or never one.
pub fn salvaged(data: &[u8]) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(data.to_vec()));
    let scan = |keys| Salvage::scan(Arc::clone(&file), keys, &Hints::default(), Job::silent());
    let salvage = match scan(&Keys::none()) {
        Ok(salvage) => salvage,
        // It says what it is, and that is all that can be got out without its key.
        Err(Error::Unsalvageable(Unsalvageable::Sealed | Unsalvageable::SealedFrames { .. })) => {
            let Ok(salvage) = scan(&seeds::keys()) else { return true };
            salvage
        }
        Err(_) => return false,
    };
    let mut end = 0;
    for stretch in salvage.walk(0).take(BLOCKS_MAX) {
        assert!(stretch.first == end && stretch.run > 0);
        end = stretch.first + stretch.run;
        assert!(end <= salvage.geometry().blocks());
    }
    true
}

/// Key slots, and an attempt to open them that knows nothing.
pub fn key_slots(data: &[u8]) -> bool {
    let Ok(area) = KeyArea::parse(data) else { return false };
    let nobody = KeyFile::new(&[7; 64]).map(Credential::KeyFile).expect("a key file");
    assert!(area.open(&nobody, &mut Work::new()).is_err(), "nobody has the key");
    assert_eq!(
        KeyArea::parse(&area.to_bytes()).map(|again| again.generation()),
        Ok(area.generation())
    );
    true
}

/// As [`image`], with every checksum and hash made right first: what lies behind them is reached.
pub fn image_mended(data: &[u8]) -> bool {
    let mut data = data.to_vec();
    mutants::mend_image(&mut data);
    image(&data)
}

/// A folder with a sound chain and, beside it, one more file.
pub fn folder(data: &[u8]) -> bool {
    let storage = seeds::golden_folder();
    let mut data = data.to_vec();
    mutants::mend_image(&mut data);
    storage.insert("mutant.aii", data);
    let Ok((folder, _)) = Folder::scan_with(&storage, Job::silent()) else { return false };
    for (set, point) in folder.sets.iter().flat_map(|set| set.points.iter().map(move |p| (set, p)))
    {
        if let Ok(view) = View::of_point(&storage, set, point) {
            let mut out = vec![0; 512.min(usize::try_from(view.len()).unwrap_or(512))];
            let _ = view.read_exact_at(&mut out, 0);
        }
    }
    // Unchanged, it is one of two files of a point.
    let mut strays = folder.strays.iter().filter(|stray| stray.file == "mutant.aii");
    strays.all(|stray| matches!(stray.kind, StrayKind::Duplicate(_)))
}

/// The catalogue of a folder, which is believed in nothing that matters.
pub fn catalogue(data: &[u8]) -> bool {
    let storage = seeds::golden_folder();
    storage.insert(CATALOGUE_NAME, data.to_vec());
    let (folder, _) = Folder::scan_with(&storage, Job::silent()).expect("a sound folder");
    for (set, point) in folder.sets.iter().flat_map(|set| set.points.iter().map(move |p| (set, p)))
    {
        let _ = View::of_point(&storage, set, point);
    }
    true
}
