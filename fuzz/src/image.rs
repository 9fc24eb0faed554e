//! Image files, folders of them, and the catalogue.

use std::sync::Arc;

use aiv_chain::{Folder, StrayKind, View};
use aiv_image_format::{Depth, Image, dump, peek};
use aiv_testkit::{MemStorage, mutants};
use aiv_volume_io::{CATALOGUE_NAME, Job, MemDisk, ReadAt};

use crate::seeds;

/// Entries and blocks read of each image: a forged one may promise 2^40.
const BLOCKS_MAX: usize = 200;

/// One image file: opened, dumped, verified, read block by block.
pub fn image(data: &[u8]) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(data.to_vec()));
    let _ = peek(&*file);
    let Ok(image) = Image::open(Arc::clone(&file)) else { return false };
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

/// As [`image`], with every checksum and hash made right first: what lies behind them is reached.
pub fn image_mended(data: &[u8]) -> bool {
    let mut data = data.to_vec();
    mutants::mend_image(&mut data);
    image(&data)
}

/// A folder with a sound chain and, beside it, one more file.
pub fn folder(data: &[u8]) -> bool {
    let storage = MemStorage::new();
    for (name, bytes) in seeds::goldens() {
        storage.insert(&name, bytes);
    }
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
    let storage = MemStorage::new();
    for (name, bytes) in seeds::goldens() {
        storage.insert(&name, bytes);
    }
    storage.insert(CATALOGUE_NAME, data.to_vec());
    let (folder, _) = Folder::scan_with(&storage, Job::silent()).expect("a sound folder");
    for (set, point) in folder.sets.iter().flat_map(|set| set.points.iter().map(move |p| (set, p)))
    {
        let _ = View::of_point(&storage, set, point);
    }
    true
}
