//! What would happen if the parity of an open stripe were not computed again.

use std::sync::Arc;

use aiv_keys::Keys;
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, Storage};

use super::Unfinished;
use super::nonces::{BLOCKS, fill, part, superblock};
use crate::ids::SessionTag;
use crate::image::Image;
use crate::layout::{Features, Superblock};
use crate::meta::{DiskInfo, Meta};
use crate::parity::stripes::StripeSums;
use crate::verify::Depth;
use crate::writer::ImageWriter;

/// Damage of an image that is gone on with after `change`.
fn damage_after(change: impl Fn(&mut Unfinished)) -> usize {
    let storage = MemStorage::new();
    let features = Features { incompat: Features::PARITY, ..Features::default() };
    let superblock = Superblock { features, session: SessionTag([1; 12]), ..superblock() };
    let mut writer = ImageWriter::create(storage.create(&part(0)).unwrap(), superblock).unwrap();
    writer.set_checkpoint_bytes(100 << 10);
    fill(&mut writer, 1).unwrap();
    drop(writer);
    let file = storage.open(&part(0)).unwrap();
    let read = Unfinished::read(Arc::clone(&file), &Keys::none(), Job::silent());
    let mut found = read.unwrap().unwrap();
    assert!(found.next_block() > 4 && found.next_block() < BLOCKS);
    change(&mut found);
    let file = storage.reopen(&part(0), found.len()).unwrap();
    let mut writer = ImageWriter::resume(file, &found, SessionTag([2; 12]), None).unwrap();
    fill(&mut writer, 1).unwrap();
    let disk = DiskInfo::bare(found.superblock().geometry.len(), 512);
    writer.finish(Meta { disk, ..Meta::default() }).unwrap();
    let image = Image::open(storage.open(&part(0)).unwrap()).unwrap();
    image.verify(Depth::Data, Job::silent()).unwrap().damage.len()
}

#[test]
fn planted_parity_that_forgets_what_was_there_is_found_by_proving_the_image() {
    assert_eq!(damage_after(|_| ()), 0);
    assert_eq!(damage_after(|found| found.stripes = Some(StripeSums::new())), 1);
}
