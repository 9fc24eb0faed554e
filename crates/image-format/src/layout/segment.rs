use super::{record, salted_crc};
use crate::error::{Fault, Result, Section};
use crate::ids::{Digest, ImageId, PointId, SetId};
use crate::limits::{ADDRESS_UNITS_MAX, FRAME_ALIGN, PAGE_SIZE, PIECE_SIZE, SEGMENTS_MAX};
use crate::{MAJOR, MINOR};

record! {
    /// The last 4 KiB of a segment that is not the last one of its image and, once more, 72 KiB
    /// before them.
    struct RawSegmentTrailer[4096] {
        0 => magic: [u8; 8],
        8 => major: u16,
        10 => minor: u16,
        12 => copy: u8,
        16 => image_uuid: [u8; 16],
        32 => set_uuid: [u8; 16],
        48 => recovery_point: [u8; 16],
        64 => segment_no: u32,
        72 => segment_start: u64,
        80 => slice_len: u64,
        88 => first_piece: u64,
        96 => pieces: u64,
        104 => file_len: u64,
        112 => stored_root: [u8; 32],
        4060 => hash: [u8; 32],
        4092 => crc: u32,
    }
}

const MAGIC: [u8; 8] = *b"AIVSEGMT";
const SALT: [u8; 8] = *b"aiv.segt";
const PIECE: u64 = PIECE_SIZE as u64;

/// Which segment of an image a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SegmentPlace {
    /// Its number, from 0.
    pub no: u32,
    /// Where in the image its slice begins.
    pub start: u64,
}

impl SegmentPlace {
    /// The number as people count.
    pub(crate) const fn number(self) -> u32 {
        self.no.saturating_add(1)
    }

    /// Bytes in front of the slice: the image itself begins with its superblock.
    pub(crate) const fn head_len(self) -> u64 {
        if self.no == 0 { 0 } else { PAGE_SIZE as u64 }
    }

    pub(super) fn check(self) -> std::result::Result<(), Fault> {
        let value = |found, allowed| Fault::Value { field: "segment_start", found, allowed };
        if self.no >= SEGMENTS_MAX {
            let (field, found) = ("segment_no", self.no.into());
            return Err(Fault::Value { field, found, allowed: "below 1,000" });
        }
        if (self.no == 0) != (self.start == 0) {
            return Err(value(self.start, "0 exactly in the first segment"));
        }
        if !self.start.is_multiple_of(PIECE) || self.start / FRAME_ALIGN >= ADDRESS_UNITS_MAX {
            return Err(value(self.start, "a multiple of 64 KiB below 16 PiB"));
        }
        Ok(())
    }
}

/// What ends every segment of an image but the last: which bytes it holds, and what proves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentTrailer {
    pub image: ImageId,
    pub set: SetId,
    pub point: PointId,
    pub place: SegmentPlace,
    /// Bytes of the image in this segment: whole pieces, at least one.
    pub slice_len: u64,
    /// Length of the file.
    pub file_len: u64,
    /// Root over the segment's own list.
    pub stored_root: Digest,
}

impl SegmentTrailer {
    /// Pieces of the slice.
    pub(crate) const fn pieces(&self) -> u64 {
        self.slice_len / PIECE
    }

    /// Number of the first of them in the image.
    pub(crate) const fn first_piece(&self) -> u64 {
        self.place.start / PIECE
    }

    /// Whether the bytes at the place of a trailer claim to be one of these.
    pub(crate) fn is_one(bytes: &[u8; PAGE_SIZE]) -> bool {
        bytes[..8] == MAGIC
    }

    /// Checks one copy (1 or 2) read at `offset`; `number` is for messages, from 1.
    pub(crate) fn from_bytes(
        bytes: &[u8; PAGE_SIZE],
        copy: u8,
        number: u32,
        offset: u64,
    ) -> Result<Self> {
        Self::check(bytes, copy).map_err(|fault| fault.at(Section::SegmentTrailer(number), offset))
    }

    fn check(bytes: &[u8; PAGE_SIZE], copy: u8) -> std::result::Result<Self, Fault> {
        let raw = RawSegmentTrailer::decode(bytes);
        if raw.magic != MAGIC {
            return Err(Fault::Magic);
        }
        let found = salted_crc(SALT, &bytes[..4092]);
        if found != raw.crc {
            return Err(Fault::Checksum { found, stored: raw.crc });
        }
        if hash(bytes) != raw.hash {
            return Err(Fault::Hash { by: "trailer itself" });
        }
        if let Some(at) = RawSegmentTrailer::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at });
        }
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        if (raw.major, raw.minor) != (MAJOR, MINOR) {
            return Err(Fault::Differs { field: "version", other: "superblock" });
        }
        if raw.copy != copy {
            return Err(value("copy", raw.copy.into(), "1 for the first, 2 for the last trailer"));
        }
        let place = SegmentPlace { no: raw.segment_no, start: raw.segment_start };
        place.check()?;
        let end = place.start.checked_add(raw.slice_len);
        if raw.slice_len == 0
            || !raw.slice_len.is_multiple_of(PIECE)
            || end.is_none_or(|end| end / FRAME_ALIGN > ADDRESS_UNITS_MAX)
        {
            return Err(value("slice_len", raw.slice_len, "a multiple of 64 KiB up to 16 PiB"));
        }
        if raw.first_piece != place.start / PIECE || raw.pieces != raw.slice_len / PIECE {
            return Err(Fault::Differs { field: "pieces", other: "slice" });
        }
        Ok(Self {
            image: ImageId(raw.image_uuid),
            set: SetId(raw.set_uuid),
            point: PointId(raw.recovery_point),
            place,
            slice_len: raw.slice_len,
            file_len: raw.file_len,
            stored_root: Digest(raw.stored_root),
        })
    }

    pub(crate) fn to_bytes(self, copy: u8) -> [u8; PAGE_SIZE] {
        let mut raw = RawSegmentTrailer {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            copy,
            image_uuid: self.image.0,
            set_uuid: self.set.0,
            recovery_point: self.point.0,
            segment_no: self.place.no,
            segment_start: self.place.start,
            slice_len: self.slice_len,
            first_piece: self.first_piece(),
            pieces: self.pieces(),
            file_len: self.file_len,
            stored_root: self.stored_root.0,
            hash: [0; 32],
            crc: 0,
        };
        raw.hash = hash(&raw.encode());
        raw.crc = salted_crc(SALT, &raw.encode()[..4092]);
        raw.encode()
    }
}

fn hash(bytes: &[u8; PAGE_SIZE]) -> [u8; 32] {
    crate::hash::segment_trailer(&bytes[..4060]).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, SegmentError};
    use crate::ids::{BlockSize, Geometry, SessionTag};
    use crate::layout::{Features, ImageKind, Superblock};

    fn sample() -> SegmentTrailer {
        SegmentTrailer {
            image: ImageId([1; 16]),
            set: SetId([2; 16]),
            point: PointId([3; 16]),
            place: SegmentPlace { no: 4, start: 5 * PIECE },
            slice_len: 6 * PIECE,
            file_len: 7,
            stored_root: Digest([8; 32]),
        }
    }

    fn refused(change: impl FnOnce(&mut [u8; PAGE_SIZE])) -> String {
        let mut bytes = sample().to_bytes(1);
        change(&mut bytes);
        let hash = hash(&bytes);
        bytes[4060..4092].copy_from_slice(&hash);
        let crc = salted_crc(SALT, &bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        SegmentTrailer::from_bytes(&bytes, 1, 5, 0).expect_err("the change is refused").to_string()
    }

    #[test]
    fn a_segment_trailer_survives_the_round_trip_in_its_own_place_only() {
        for copy in [1, 2] {
            let bytes = sample().to_bytes(copy);
            assert_eq!(SegmentTrailer::from_bytes(&bytes, copy, 5, 0).expect("written"), sample());
            assert!(SegmentTrailer::from_bytes(&bytes, 3 - copy, 5, 0).is_err());
        }
    }

    #[test]
    fn every_value_beyond_its_limit_is_refused_by_its_name() {
        let put = |at: usize, value: u64| {
            refused(move |b| b[at..at + 8].copy_from_slice(&value.to_le_bytes()))
        };
        assert!(refused(|b| b[10] ^= 1).contains("version"));
        assert!(refused(|b| b[13] = 1).contains("reserved byte 13"));
        assert!(refused(|b| b[68] = 1).contains("reserved byte 68"));
        assert!(put(64, u32::MAX.into()).contains("segment_no"));
        assert!(put(64, 0).contains("exactly in the first segment"));
        for start in [0, 1, !0xffff, 1 << 54] {
            assert!(put(72, start).contains("segment_start"), "{start}");
        }
        for slice in [0, 1, u64::MAX, !0xffff, 1 << 54] {
            assert!(put(80, slice).contains("slice_len"), "{slice}");
        }
        assert!(put(88, 6).contains("pieces") && put(96, u64::MAX).contains("pieces"));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample().to_bytes(2);
        for bit in 0..PAGE_SIZE * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentTrailer::from_bytes(&bytes, 2, 5, 0).is_err(), "bit {bit}");
        }
    }

    fn split() -> Superblock {
        let block_size = BlockSize::new(65536).expect("64 KiB is a block size");
        Superblock {
            features: Features { incompat: Features::SPLIT, ..Features::default() },
            image: ImageId([1; 16]),
            set: SetId([2; 16]),
            point: PointId([3; 16]),
            kind: ImageKind::Full,
            parent: None,
            geometry: Geometry::new(1_000_000, block_size, 512).expect("a small disk"),
            created_unix_ms: 0,
            session: SessionTag([4; 12]),
            writer: "aivory test".into(),
            key_commitment: Digest::default(),
            source_token: Digest([0; 32]),
        }
    }

    #[test]
    fn a_segment_says_which_one_it_is_and_is_no_beginning_of_an_image() {
        let superblock = split();
        let place = SegmentPlace { no: 3, start: 5 << 16 };
        let bytes = superblock.to_segment_bytes(place);
        let back = Superblock::of_segment(&bytes, Section::Superblock, 0).expect("just written");
        assert_eq!(back, (superblock.clone(), place));
        let refused = Superblock::from_bytes(&bytes, Section::Superblock, 0);
        assert!(matches!(
            refused,
            Err(Error::Segments(SegmentError::Part { number: 4, image })) if image == superblock.image
        ));
        let first = superblock.to_bytes();
        assert_eq!(
            Superblock::from_bytes(&first, Section::Superblock, 0).expect("the first is one"),
            superblock
        );
    }

    #[test]
    fn places_that_no_segment_has_are_refused() {
        let superblock = split();
        for (no, start, field) in [
            (0, 1 << 16, "segment_start"),
            (1, 0, "segment_start"),
            (1, 4096, "segment_start"),
            (1, 1 << 54, "segment_start"),
            (1000, 1 << 16, "segment_no"),
        ] {
            let bytes = superblock.to_segment_bytes(SegmentPlace { no, start });
            let error = Superblock::of_segment(&bytes, Section::Superblock, 0).expect_err(field);
            assert!(error.to_string().contains(field), "{error}");
        }
        let mut bytes = split().to_bytes();
        bytes[152] = 3;
        let crc = salted_crc(*b"aiv.supr", &bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        let error = Superblock::of_segment(&bytes, Section::Superblock, 0).expect_err("a count");
        assert!(error.to_string().contains("segment_count"), "{error}");
    }
}
