use aiv_keys::{ChainKey, Purpose};

use super::{record, salted_crc};
use crate::error::{Fault, Result, Section};
use crate::ids::{Digest, ImageId, PointId, SessionTag, SetId};
use crate::layout::{Kind, ParentLink};
use crate::limits::PAGE_SIZE;
use crate::{MAJOR, MINOR};

record! {
    /// The last 4 KiB of an image and, once more, 72 KiB before them.
    struct RawTrailer[4096] {
        0 => magic: [u8; 8],
        8 => major: u16,
        10 => minor: u16,
        12 => copy: u8,
        16 => image_uuid: [u8; 16],
        32 => set_uuid: [u8; 16],
        48 => recovery_point: [u8; 16],
        64 => parent_point: [u8; 16],
        80 => parent_state_root: [u8; 32],
        112 => content_root: [u8; 32],
        144 => map_root: [u8; 32],
        176 => state_root: [u8; 32],
        208 => stored_root: [u8; 32],
        240 => file_len: u64,
        248 => frames_end: u64,
        256 => index_offset: u64,
        264 => index_pages: u64,
        272 => index_leaf_pages: u64,
        280 => index_root: [u8; 32],
        312 => tree_offset: u64,
        320 => tree_pages: u64,
        328 => tree_hash: [u8; 32],
        360 => meta_offset: u64,
        368 => meta_len: u64,
        376 => meta_hash: [u8; 32],
        408 => stored_offset: u64,
        416 => stored_pieces: u64,
        424 => last_checkpoint: u64,
        432 => frames: u64,
        440 => blocks_data: u64,
        448 => blocks_zero: u64,
        456 => blocks_unused: u64,
        464 => blocks_excluded: u64,
        472 => blocks_unreadable: u64,
        480 => blocks_ref: u64,
        488 => payload_bytes: u64,
        496 => blocks_delta: u64,
        504 => blocks_parent: u64,
        512 => mac: [u8; 32],
        544 => session_tag: [u8; 12],
        560 => parity_offset: u64,
        568 => parity_len: u64,
        576 => parity_hash: [u8; 32],
        608 => segment_count: u32,
        616 => blocks_local: u64,
        4060 => hash: [u8; 32],
        4092 => crc: u32,
    }
}

const MAGIC: [u8; 8] = *b"AIVTRAIL";
const SALT: [u8; 8] = *b"aiv.trlr";

/// Counts over the whole image, known when it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Frames of every kind, those of META and PAD included; for display.
    pub frames: u64,
    /// Blocks with a DATA frame of their own.
    pub blocks_data: u64,
    /// Blocks in use and all zeros.
    pub blocks_zero: u64,
    /// Blocks the filesystem calls free.
    pub blocks_unused: u64,
    /// Blocks left out on request.
    pub blocks_excluded: u64,
    /// Blocks with unreadable places.
    pub blocks_unreadable: u64,
    /// Blocks equal to another block of the image.
    pub blocks_ref: u64,
    /// Sum of the payloads of all block frames.
    pub payload_bytes: u64,
    /// Blocks stored as a difference to a block of the parent's state.
    pub blocks_delta: u64,
    /// Blocks equal to another block of the parent's state.
    pub blocks_parent: u64,
    /// Blocks stored as a difference to other blocks of the image.
    pub blocks_local: u64,
}

impl Totals {
    /// The count that blocks of `kind` go into.
    pub(crate) fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Data => &mut self.blocks_data,
            Kind::Zero => &mut self.blocks_zero,
            Kind::Unused => &mut self.blocks_unused,
            Kind::Excluded => &mut self.blocks_excluded,
            Kind::Unreadable => &mut self.blocks_unreadable,
            Kind::Ref => &mut self.blocks_ref,
            Kind::Delta => &mut self.blocks_delta,
            Kind::Parent => &mut self.blocks_parent,
            Kind::Local => &mut self.blocks_local,
        }
    }

    /// Blocks the image decides; all others of its state are inherited.
    #[must_use]
    pub const fn blocks_decided(&self) -> u64 {
        // The counts of a forged trailer may be anything.
        self.blocks_data
            .saturating_add(self.blocks_zero)
            .saturating_add(self.blocks_unused)
            .saturating_add(self.blocks_excluded)
            .saturating_add(self.blocks_unreadable)
            .saturating_add(self.blocks_ref)
            .saturating_add(self.blocks_delta)
            .saturating_add(self.blocks_parent)
            .saturating_add(self.blocks_local)
    }

    /// Blocks stored as differences, to the parent's state or to other blocks of the image.
    #[must_use]
    pub const fn blocks_as_differences(&self) -> u64 {
        self.blocks_delta.saturating_add(self.blocks_local)
    }
}

/// What is known about an image when it is complete; its presence is the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of docs/format.md, section 7")]
pub struct Trailer {
    pub image: ImageId,
    pub set: SetId,
    pub point: PointId,
    pub parent: Option<ParentLink>,
    /// Hash over the bytes of the address space as they read.
    pub content_root: Digest,
    /// Hash over the states of the blocks.
    pub map_root: Digest,
    /// Hash over both with the geometry: the name of the state.
    pub state_root: Digest,
    /// Hash over every stored byte before the stored list.
    pub stored_root: Digest,
    pub file_len: u64,
    pub frames_end: u64,
    pub index_offset: u64,
    pub index_pages: u64,
    pub index_leaf_pages: u64,
    pub index_root: Digest,
    pub tree_offset: u64,
    pub tree_pages: u64,
    pub tree_hash: Digest,
    pub meta_offset: u64,
    pub meta_len: u64,
    pub meta_hash: Digest,
    pub stored_offset: u64,
    pub stored_pieces: u64,
    pub last_checkpoint: u64,
    /// Segments of a split image, zero of any other.
    pub segment_count: u32,
    pub totals: Totals,
    pub parity_offset: u64,
    pub parity_len: u64,
    pub parity_hash: Digest,
    /// Authenticates the trailer under the chain key; zero without one.
    pub mac: Digest,
    /// The session that wrote index, tree and META.
    pub session: SessionTag,
}

/// What the authentication code covers of a trailer: all but itself, hash and crc.
const MAC_COVERS: [std::ops::Range<usize>; 2] = [0..512, 544..4060];

impl Trailer {
    /// The code that either copy must have under `key`: of the trailer as copy 0, so that one copy
    /// leads to the other, and of the superblock, so that nothing of an image is believed that
    /// somebody without the key wrote.
    pub(crate) fn mac_of(&self, key: &ChainKey, superblock: &[u8; PAGE_SIZE]) -> Digest {
        let bytes = Self { mac: Digest::default(), ..*self }.to_bytes(0);
        let [head, rest] = MAC_COVERS.map(|range| &bytes[range]);
        Digest(*key.derive(Purpose::TrailerMac, &[head, rest, superblock]).expose())
    }

    /// Checks one copy (1 or 2) read at `offset`.
    pub(crate) fn from_bytes(bytes: &[u8; PAGE_SIZE], copy: u8, offset: u64) -> Result<Self> {
        Self::check(bytes, copy).map_err(|fault| fault.at(Section::Trailer, offset))
    }

    fn check(bytes: &[u8; PAGE_SIZE], copy: u8) -> std::result::Result<Self, Fault> {
        let raw = RawTrailer::decode(bytes);
        if raw.magic != MAGIC {
            return Err(Fault::Magic);
        }
        let found = salted_crc(SALT, &bytes[..4092]);
        if found != raw.crc {
            return Err(Fault::Checksum { found, stored: raw.crc });
        }
        if trailer_hash(bytes) != raw.hash {
            return Err(Fault::Hash { by: "trailer itself" });
        }
        if let Some(at) = RawTrailer::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at });
        }
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        if (raw.major, raw.minor) != (MAJOR, MINOR) {
            return Err(Fault::Differs { field: "version", other: "superblock" });
        }
        if raw.copy != copy {
            return Err(value("copy", raw.copy.into(), "1 for the first, 2 for the last trailer"));
        }
        let point = PointId(raw.parent_point);
        let state_root = Digest(raw.parent_state_root);
        let has_parent = !(point.is_zero() && state_root.is_zero());
        Ok(Self {
            image: ImageId(raw.image_uuid),
            set: SetId(raw.set_uuid),
            point: PointId(raw.recovery_point),
            parent: has_parent.then_some(ParentLink { point, state_root }),
            content_root: Digest(raw.content_root),
            map_root: Digest(raw.map_root),
            state_root: Digest(raw.state_root),
            stored_root: Digest(raw.stored_root),
            file_len: raw.file_len,
            frames_end: raw.frames_end,
            index_offset: raw.index_offset,
            index_pages: raw.index_pages,
            index_leaf_pages: raw.index_leaf_pages,
            index_root: Digest(raw.index_root),
            tree_offset: raw.tree_offset,
            tree_pages: raw.tree_pages,
            tree_hash: Digest(raw.tree_hash),
            meta_offset: raw.meta_offset,
            meta_len: raw.meta_len,
            meta_hash: Digest(raw.meta_hash),
            stored_offset: raw.stored_offset,
            stored_pieces: raw.stored_pieces,
            last_checkpoint: raw.last_checkpoint,
            segment_count: raw.segment_count,
            totals: Totals {
                frames: raw.frames,
                blocks_data: raw.blocks_data,
                blocks_zero: raw.blocks_zero,
                blocks_unused: raw.blocks_unused,
                blocks_excluded: raw.blocks_excluded,
                blocks_unreadable: raw.blocks_unreadable,
                blocks_ref: raw.blocks_ref,
                payload_bytes: raw.payload_bytes,
                blocks_delta: raw.blocks_delta,
                blocks_parent: raw.blocks_parent,
                blocks_local: raw.blocks_local,
            },
            parity_offset: raw.parity_offset,
            parity_len: raw.parity_len,
            parity_hash: Digest(raw.parity_hash),
            mac: Digest(raw.mac),
            session: SessionTag(raw.session_tag),
        })
    }

    pub(crate) fn to_bytes(self, copy: u8) -> [u8; PAGE_SIZE] {
        let parent = self.parent;
        let mut raw = RawTrailer {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            copy,
            image_uuid: self.image.0,
            set_uuid: self.set.0,
            recovery_point: self.point.0,
            parent_point: parent.map_or([0; 16], |p| p.point.0),
            parent_state_root: parent.map_or([0; 32], |p| p.state_root.0),
            content_root: self.content_root.0,
            map_root: self.map_root.0,
            state_root: self.state_root.0,
            stored_root: self.stored_root.0,
            file_len: self.file_len,
            frames_end: self.frames_end,
            index_offset: self.index_offset,
            index_pages: self.index_pages,
            index_leaf_pages: self.index_leaf_pages,
            index_root: self.index_root.0,
            tree_offset: self.tree_offset,
            tree_pages: self.tree_pages,
            tree_hash: self.tree_hash.0,
            meta_offset: self.meta_offset,
            meta_len: self.meta_len,
            meta_hash: self.meta_hash.0,
            stored_offset: self.stored_offset,
            stored_pieces: self.stored_pieces,
            last_checkpoint: self.last_checkpoint,
            frames: self.totals.frames,
            blocks_data: self.totals.blocks_data,
            blocks_zero: self.totals.blocks_zero,
            blocks_unused: self.totals.blocks_unused,
            blocks_excluded: self.totals.blocks_excluded,
            blocks_unreadable: self.totals.blocks_unreadable,
            blocks_ref: self.totals.blocks_ref,
            payload_bytes: self.totals.payload_bytes,
            blocks_delta: self.totals.blocks_delta,
            blocks_parent: self.totals.blocks_parent,
            blocks_local: self.totals.blocks_local,
            parity_offset: self.parity_offset,
            parity_len: self.parity_len,
            parity_hash: self.parity_hash.0,
            segment_count: self.segment_count,
            mac: self.mac.0,
            session_tag: self.session.0,
            hash: [0; 32],
            crc: 0,
        };
        raw.hash = trailer_hash(&raw.encode());
        raw.crc = salted_crc(SALT, &raw.encode()[..4092]);
        raw.encode()
    }
}

fn trailer_hash(bytes: &[u8; PAGE_SIZE]) -> [u8; 32] {
    crate::hash::trailer(&bytes[..4060]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Trailer {
        Trailer {
            image: ImageId([1; 16]),
            set: SetId([2; 16]),
            point: PointId([3; 16]),
            parent: Some(ParentLink { point: PointId([4; 16]), state_root: Digest([5; 32]) }),
            content_root: Digest([6; 32]),
            map_root: Digest([7; 32]),
            state_root: Digest([8; 32]),
            stored_root: Digest([9; 32]),
            file_len: 10,
            frames_end: 11,
            index_offset: 12,
            index_pages: 13,
            index_leaf_pages: 14,
            index_root: Digest([15; 32]),
            tree_offset: 16,
            tree_pages: 17,
            tree_hash: Digest([18; 32]),
            meta_offset: 19,
            meta_len: 20,
            meta_hash: Digest([21; 32]),
            stored_offset: 22,
            stored_pieces: 23,
            last_checkpoint: 24,
            segment_count: 35,
            totals: Totals {
                frames: 25,
                blocks_data: 26,
                blocks_zero: 27,
                blocks_unused: 28,
                blocks_excluded: 29,
                blocks_unreadable: 30,
                blocks_ref: 31,
                payload_bytes: 32,
                blocks_delta: 33,
                blocks_parent: 34,
                blocks_local: 40,
            },
            parity_offset: 35,
            parity_len: 36,
            parity_hash: Digest([37; 32]),
            mac: Digest([38; 32]),
            session: SessionTag([39; 12]),
        }
    }

    fn refused(change: impl FnOnce(&mut [u8; PAGE_SIZE])) -> String {
        let mut bytes = sample().to_bytes(2);
        change(&mut bytes);
        let hash = trailer_hash(&bytes);
        bytes[4060..4092].copy_from_slice(&hash);
        let crc = salted_crc(SALT, &bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        Trailer::from_bytes(&bytes, 2, 0).expect_err("the change is refused").to_string()
    }

    #[test]
    fn a_trailer_survives_the_round_trip() {
        for copy in [1, 2] {
            let bytes = sample().to_bytes(copy);
            assert_eq!(Trailer::from_bytes(&bytes, copy, 0).expect("just written"), sample());
        }
    }

    #[test]
    fn counts_of_a_forged_trailer_are_added_up_without_overflowing() {
        let forged = Totals { blocks_delta: u64::MAX, blocks_local: 2, ..Totals::default() };
        assert_eq!(forged.blocks_as_differences(), u64::MAX);
        assert_eq!(forged.blocks_decided(), u64::MAX);
        let sound = Totals { blocks_delta: 3, blocks_local: 2, ..Totals::default() };
        assert_eq!(sound.blocks_as_differences(), 5);
    }

    #[test]
    fn a_trailer_in_the_place_of_the_other_is_refused() {
        assert!(refused(|b| b[12] = 1).contains("copy is 1"));
        assert!(Trailer::from_bytes(&sample().to_bytes(2), 1, 0).is_err());
    }

    #[test]
    fn a_trailer_of_another_version_or_with_reserved_bytes_set_is_refused() {
        assert!(refused(|b| b[10] ^= 1).contains("version"));
        assert!(refused(|b| b[13] = 1).contains("reserved byte 13"));
        assert!(refused(|b| b[2000] = 1).contains("reserved byte 2000"));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample().to_bytes(2);
        for bit in 0..PAGE_SIZE * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::from_bytes(&bytes, 2, 0).is_err(), "bit {bit}");
        }
    }
}
