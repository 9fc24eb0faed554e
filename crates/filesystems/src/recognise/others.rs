//! Filesystems of which nothing is known but what they are called.

use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be32, le16, le32, le64};
use crate::crc32::crc32;
use crate::{FilesystemKind, Result};

pub(super) fn jfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0x8000, 512, 0, b"JFS1") else { return Ok(None) };
    let (block_size, log) = (le32(sb, 16), u32::from(le16(sb, 20)));
    if 1u32.checked_shl(log) != Some(block_size) {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Jfs);
    found.block_size = Some(block_size);
    found.size = le64(sb, 8).checked_mul(u64::from(le32(sb, 24)));
    found.uuid = text::uuid(array(sb, 136));
    found.label = text::label(&array::<16>(sb, 152));
    Ok(Some(found))
}

/// ReiserFS 3, whose label and UUID only its later versions have, and Reiser4.
pub(super) fn reiser(head: &Head<'_>) -> Result<Option<Recognised>> {
    for at in [0x2000, 0x1_0000] {
        let Some(sb) = head.get(at, 512) else { continue };
        if sb.starts_with(b"ReIsEr4") {
            return Ok(Some(named(FilesystemKind::Reiser4, (sb, 20), (sb, 36))));
        }
        let version = [&b"ReIsErFs"[..], b"ReIsEr2Fs", b"ReIsEr3Fs"]
            .iter()
            .position(|magic| sb[52..].starts_with(magic));
        let Some(version) = version else { continue };
        let mut found = match version {
            0 => Recognised::new(FilesystemKind::ReiserFs),
            _ => named(FilesystemKind::ReiserFs, (sb, 84), (sb, 100)),
        };
        let block_size = u32::from(le16(sb, 44));
        found.block_size = Some(block_size);
        found.size = Some(u64::from(le32(sb, 0)) * u64::from(block_size));
        return Ok(Some(found));
    }
    Ok(None)
}

/// Its magic is two bytes, but the superblock has a checksum.
pub(super) fn nilfs2(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(1024, 1024, 6, &[0x34, 0x34]) else { return Ok(None) };
    let Some(summed) = sb.get(..usize::from(le16(sb, 8))).filter(|sb| sb.len() >= 248) else {
        return Ok(None);
    };
    let mut summed = summed.to_vec();
    summed[16..20].fill(0);
    if crc32(le32(sb, 12), &summed) != le32(sb, 16) {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Nilfs2);
    found.block_size = le32(sb, 20).checked_add(10).and_then(|log| 1u32.checked_shl(log));
    found.size = Some(le64(sb, 32));
    found.uuid = text::uuid(array(sb, 152));
    found.label = text::label(&array::<80>(sb, 168));
    Ok(Some(found))
}

/// OCFS2, in the third block of whatever size.
pub(super) fn ocfs2(head: &Head<'_>) -> Result<Option<Recognised>> {
    for block_size in [512, 1024, 2048, 4096] {
        let Some(sb) = head.with_magic(2 * block_size, 512, 0, b"OCFSV2") else { continue };
        let mut found = Recognised::new(FilesystemKind::Ocfs2);
        found.block_size = 1u32.checked_shl(le32(sb, 0xc0 + 0x38));
        found.label = text::label(&array::<64>(sb, 0xc0 + 0x50));
        found.uuid = text::uuid(array(sb, 0xc0 + 0x90));
        return Ok(Some(found));
    }
    Ok(None)
}

pub(super) fn gfs2(head: &Head<'_>) -> Result<Option<Recognised>> {
    let magic = 0x0116_1970u32.to_be_bytes();
    let Some(sb) = head.with_magic(0x1_0000, 512, 0, &magic) else { return Ok(None) };
    // The format of the superblock, and of the filesystem since version 2.
    if be32(sb, 28) != 1900 || !(1801..=1899).contains(&be32(sb, 24)) {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Gfs2);
    found.block_size = Some(be32(sb, 36));
    found.label = text::label(&array::<64>(sb, 160));
    found.uuid = text::uuid(array(sb, 256));
    Ok(Some(found))
}

pub(super) fn bcachefs(head: &Head<'_>) -> Result<Option<Recognised>> {
    const MAGIC: [u8; 16] = [
        0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7,
        0xef,
    ];
    let sb = head.with_magic(4096, 512, 24, &MAGIC);
    Ok(sb.map(|sb| named(FilesystemKind::Bcachefs, (sb, 56), (sb, 72))))
}

/// VMFS of VMware: the volume, which a header of what it lies on comes before.
pub(super) fn vmfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.far(0x20_0000, 160)? else { return Ok(None) };
    if le32(&sb, 0) != 0x2fab_f15e {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Vmfs);
    found.label = text::label(&array::<128>(&sb, 29));
    let mut id: [u8; 16] = array(&sb, 9);
    [0..4, 4..8, 8..10].into_iter().for_each(|number| id[number].reverse());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    found.uuid = [&id[..4], &id[4..8], &id[8..10], &id[10..]].map(hex).join("-");
    Ok(Some(found))
}

pub(super) fn cramfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.get(0, 64) else { return Ok(None) };
    if ![le32(sb, 0), be32(sb, 0)].contains(&0x28cd_3d45) {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Cramfs);
    found.label = text::label(&array::<16>(sb, 48));
    Ok(Some(found))
}

pub(super) fn romfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 32, 0, b"-rom1fs-") else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Romfs);
    found.size = Some(u64::from(be32(sb, 8)));
    found.label = text::label(&array::<16>(sb, 16));
    Ok(Some(found))
}

/// The boot filesystem of UnixWare.
pub(super) fn bfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let is_it = head.get(0, 512).is_some_and(|sb| le32(sb, 0) == 0x1bad_face);
    Ok(is_it.then(|| Recognised::new(FilesystemKind::Bfs)))
}

/// Minix has two bytes of magic; what they say of the rest has to hold together.
pub(super) fn minix(head: &Head<'_>) -> Result<Option<Recognised>> {
    const BLOCK: u64 = 1024;
    const BITS: u64 = 8 * BLOCK;
    let Some(sb) = head.get(1024, 32) else { return Ok(None) };
    let is_third = le16(sb, 24) == 0x4d5a;
    // Inodes, zones, blocks of the maps of both, first zone, and how much larger zones are.
    let (inodes, zones, block) = match (is_third, le16(sb, 16)) {
        (true, _) => (u64::from(le32(sb, 0)), u64::from(le32(sb, 20)), u64::from(le16(sb, 28))),
        (false, 0x137f | 0x138f) => (u64::from(le16(sb, 0)), u64::from(le16(sb, 2)), BLOCK),
        (false, 0x2468 | 0x2478) => (u64::from(le16(sb, 0)), u64::from(le32(sb, 20)), BLOCK),
        _ => return Ok(None),
    };
    let at = if is_third { 6 } else { 4 };
    let (inode_blocks, zone_blocks) = (u64::from(le16(sb, at)), u64::from(le16(sb, at + 2)));
    let (first, log) = (u64::from(le16(sb, at + 4)), le16(sb, at + 6));
    let bits = BITS / BLOCK * block;
    let is_whole = inodes > 0
        && zones > first
        && (1024..=32_768).contains(&block)
        && log <= 4
        && inode_blocks * bits > inodes
        && zone_blocks * bits >= zones - first;
    let size = zones * block;
    if !is_whole || size > head.volume_len() {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Minix);
    found.block_size = u32::try_from(block).ok();
    found.size = Some(size);
    Ok(Some(found))
}

fn named(
    kind: FilesystemKind,
    (uuid, uuid_at): (&[u8], usize),
    (label, label_at): (&[u8], usize),
) -> Recognised {
    let mut found = Recognised::new(kind);
    found.uuid = text::uuid(array(uuid, uuid_at));
    found.label = text::label(&array::<16>(label, label_at));
    found
}
