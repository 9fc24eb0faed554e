use md5::{Digest, Md5};

use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be16, be32, le32, le64};
use crate::{FilesystemKind, Result};

pub(super) fn apfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 88, 32, b"NXSB") else { return Ok(None) };
    let (block_size, blocks) = (le32(sb, 36), le64(sb, 40));
    let mut found = Recognised::new(FilesystemKind::Apfs);
    found.uuid = text::uuid(array(sb, 72));
    found.block_size = Some(block_size);
    found.size = blocks.checked_mul(u64::from(block_size));
    Ok(Some(found))
}

/// HFS+ and HFSX, also within a wrapping that older systems take for HFS.
pub(super) fn hfs_plus(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(start) = hfs_plus_start(head) else { return Ok(None) };
    let Some(sb) = head.far(start + 1024, 512)? else { return Ok(None) };
    // Signature and version belong together: "H+" 4, "HX" 5.
    if !sb.starts_with(b"H+\0\x04") && !sb.starts_with(b"HX\0\x05") {
        return Ok(None);
    }
    let (block_size, blocks) = (be32(&sb, 40), be32(&sb, 44));
    let mut found = Recognised::new(FilesystemKind::HfsPlus);
    found.block_size = Some(block_size);
    found.size = Some(u64::from(blocks) * u64::from(block_size));
    found.uuid = finder_uuid(array(&sb, 80 + FINDER_ID));
    let catalog = Catalog { head, start, block_size: block_size.into(), runs: &sb[288..352] };
    found.label = catalog.label()?.unwrap_or_default();
    Ok(Some(found))
}

/// Where an HFS+ begins: at once, or where the HFS around it says.
fn hfs_plus_start(head: &Head<'_>) -> Option<u64> {
    match hfs_mdb(head) {
        None => Some(0),
        Some(mdb) if [b"H+", b"HX"].iter().any(|magic| mdb[124..].starts_with(*magic)) => {
            let first = u64::from(be16(mdb, 28)) * 512;
            Some(first + u64::from(be16(mdb, 126)) * u64::from(be32(mdb, 20)))
        }
        Some(_) => None,
    }
}

/// The tree of all names of an HFS+.
struct Catalog<'a> {
    head: &'a Head<'a>,
    /// Where the HFS+ begins.
    start: u64,
    block_size: u64,
    /// The first runs of its blocks, each a start and a count.
    runs: &'a [u8],
}

impl Catalog<'_> {
    /// The name of the root folder, which begins the first leaf.
    fn label(&self) -> Result<Option<String>> {
        const NAME_MAX: usize = 255;
        const ROOT_PARENT: u32 = 1;
        let Some(tree) = self.read(0, 34)? else { return Ok(None) };
        let (leaf, node_size) = (u64::from(be32(&tree, 24)), u64::from(be16(&tree, 32)));
        // A node begins with 14 bytes of its own, a key with its length, parent and name.
        let Some(node) = self.read(leaf * node_size, 14 + 8)? else { return Ok(None) };
        let len = usize::from(be16(&node, 20));
        if node[8] != 0xff || be32(&node, 16) != ROOT_PARENT || len > NAME_MAX {
            return Ok(None);
        }
        let name = self.read(leaf * node_size + 14 + 8, 2 * len)?;
        Ok(name.map(|name| text::label_utf16be(&name)))
    }

    /// Bytes of the tree, `None` when its first runs or the volume do not have them.
    fn read(&self, at: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let Some(mut block) = at.checked_div(self.block_size) else { return Ok(None) };
        for run in self.runs.chunks_exact(8) {
            let (first, count) = (u64::from(be32(run, 0)), u64::from(be32(run, 4)));
            if block < count {
                let offset = (first + block).checked_mul(self.block_size);
                let offset = offset.and_then(|offset| offset.checked_add(at % self.block_size));
                let offset = offset.and_then(|offset| offset.checked_add(self.start));
                return offset.map_or(Ok(None), |offset| self.head.far(offset, len));
            }
            block -= count;
        }
        Ok(None)
    }
}

/// HFS, which HFS+ took the place of.
pub(super) fn hfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let mdb = hfs_mdb(head).filter(|_| hfs_plus_start(head).is_none());
    let Some(mdb) = mdb else { return Ok(None) };
    let block_size = be32(mdb, 20);
    if block_size == 0 || !block_size.is_multiple_of(512) {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Hfs);
    found.block_size = Some(block_size);
    found.size = Some(u64::from(be16(mdb, 18)) * u64::from(block_size));
    found.uuid = finder_uuid(array(mdb, 92 + FINDER_ID));
    let label: [u8; 27] = array(mdb, 37);
    found.label = text::label(&label[..label.len().min(mdb[36].into())]);
    Ok(Some(found))
}

/// The master directory block of an HFS.
fn hfs_mdb<'a>(head: &'a Head<'_>) -> Option<&'a [u8]> {
    head.with_magic(1024, 512, 0, b"BD")
}

/// Where in what the Finder keeps the identity is.
const FINDER_ID: usize = 24;

/// As macOS and `blkid` make a UUID of the eight bytes that there are: one of version 3.
fn finder_uuid(id: [u8; 8]) -> String {
    const NAMESPACE: [u8; 16] = [
        0xb3, 0xe2, 0x0f, 0x39, 0xf2, 0x92, 0x11, 0xd6, 0x97, 0xa4, 0x00, 0x30, 0x65, 0x43, 0xec,
        0xac,
    ];
    if id == [0; 8] {
        return String::new();
    }
    // It proves nothing to anybody.
    let mut uuid: [u8; 16] = Md5::new().chain_update(NAMESPACE).chain_update(id).finalize().into();
    uuid[6] = uuid[6] & 0x0f | 0x30;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    text::uuid(uuid)
}
