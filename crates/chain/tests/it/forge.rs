//! Bytes no writer makes: catalogues that lie, images that leave out what nobody else has.

use aiv_chain::{Geometry, Image};
use aiv_image_format::hash;
use aiv_testkit::MemStorage;
use aiv_volume_io::{CATALOGUE_NAME, MemDisk};

/// Replaces every occurrence of one text in the catalogue by another of the same length.
pub(crate) fn lie(storage: &MemStorage, changes: &[(&[u8], &[u8])]) {
    let mut bytes = storage.contents(CATALOGUE_NAME).unwrap().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let found = changes.iter().find(|(from, _)| bytes[at..].starts_with(from));
        if let Some((from, to)) = found {
            assert_eq!(from.len(), to.len());
            bytes[at..at + to.len()].copy_from_slice(to);
            at += to.len();
        } else {
            at += 1;
        }
    }
    sign(&mut bytes);
    storage.insert(CATALOGUE_NAME, bytes);
}

/// Makes the hash of a catalogue right again, as somebody who means harm would.
pub(crate) fn sign(bytes: &mut Vec<u8>) {
    let body = bytes.len().saturating_sub(32);
    bytes.truncate(body);
    let mut hasher = blake3::Hasher::new_derive_key("aivory catalogue of a folder");
    hasher.update(bytes);
    let hash = hasher.finalize();
    bytes.extend_from_slice(hash.as_bytes());
}

/// The same image of a disk of `len` bytes: what its index does not cover is left to a parent
/// that need not have it. META then contradicts the length, so the image is without.
pub(crate) fn of_length(bytes: &[u8], len: u64) -> Vec<u8> {
    let image = Image::open(std::sync::Arc::new(MemDisk::from_bytes(bytes.to_vec()))).unwrap();
    let old = *image.geometry();
    let geometry = Geometry::new(len, old.block_size(), old.sector_size()).unwrap();
    let trailer = image.trailer();
    let root = hash::state_root(&geometry, &trailer.content_root, &trailer.map_root);
    let end = bytes.len();
    let mut bytes = bytes.to_vec();
    for at in [0, end - 8192] {
        let page = &mut bytes[at..at + 4096];
        page[160..168].copy_from_slice(&len.to_le_bytes());
        checksum(page, b"aiv.supr");
    }
    for at in [end - 77_824, end - 4096] {
        let page = &mut bytes[at..at + 4096];
        page[176..208].copy_from_slice(&root.0);
        let hash = blake3::keyed_hash(b"aivory draft: trailer           ", &page[..4060]);
        page[4060..4092].copy_from_slice(hash.as_bytes());
        checksum(page, b"aiv.trlr");
    }
    bytes
}

fn checksum(page: &mut [u8], salt: &[u8; 8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &page[..4092]);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
}
