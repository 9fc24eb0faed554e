use super::features::{FEATURE_NAME_SIZE, Features, check_keyed, printable};
use super::segment::SegmentPlace;
use super::{record, salted_crc};
use crate::error::{Error, Fault, Foreign, Result, Section, SegmentError, Unsupported};
use crate::ids::{BlockSize, Digest, Geometry, ImageId, PointId, SessionTag, SetId};
use crate::limits::{PAGE_SIZE, SEGMENTS_MAX};
use crate::{MAJOR, MINOR};

record! {
    /// The first 4 KiB of an image and, once more, the 4 KiB before the last trailer.
    struct RawSuperblock[4096] {
        0 => magic: [u8; 8],
        8 => major: u16,
        10 => minor: u16,
        16 => incompat: u64,
        24 => ro_compat: u64,
        32 => compat: u64,
        40 => autoclear: u64,
        48 => image_uuid: [u8; 16],
        64 => set_uuid: [u8; 16],
        80 => recovery_point: [u8; 16],
        96 => parent_point: [u8; 16],
        112 => parent_state_root: [u8; 32],
        144 => kind: u8,
        145 => block_log2: u8,
        146 => align_log2: u8,
        147 => sector_log2: u8,
        148 => segment_no: u32,
        152 => segment_count: u32,
        156 => slot_area_len: u32,
        160 => address_space_len: u64,
        168 => created_unix_ms: u64,
        176 => session_tag: [u8; 12],
        192 => writer: [u8; 32],
        224 => feature_names: [u8; 1536],
        1760 => key_commitment: [u8; 32],
        1792 => source_token: [u8; 32],
        1824 => segment_start: u64,
        4092 => crc: u32,
    }
}

pub(crate) const MAGIC: [u8; 8] = *b"\x89AIV\r\n\x1a\n";
const SALT: [u8; 8] = *b"aiv.supr";
const FRAME_ALIGN_LOG2: u8 = 6;

/// What an image holds, relative to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Everything; needs no other image.
    Full,
    /// Changes since the previous point.
    Incremental,
    /// Changes since the last full image.
    Differential,
}

impl ImageKind {
    /// The word of the command line and of reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Differential => "differential",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::Incremental => 2,
            Self::Differential => 3,
        }
    }
}

/// The point an increment builds on: its id, and the root its bytes must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentLink {
    /// Recovery point of the parent.
    pub point: PointId,
    /// `state_root` of the parent; a chain whose parent has another root is refused.
    pub state_root: Digest,
}

/// What is known about an image before its first block is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Feature words.
    pub features: Features,
    /// This file.
    pub image: ImageId,
    /// All images of the same source.
    pub set: SetId,
    /// The state this image provides.
    pub point: PointId,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// The point it builds on; present exactly when the kind is not full.
    pub parent: Option<ParentLink>,
    /// Length, block size and sector size.
    pub geometry: Geometry,
    /// When the image was begun, milliseconds since 1970 UTC. Informational: decides nothing.
    pub created_unix_ms: u64,
    /// The writing session.
    pub session: SessionTag,
    /// Program and version that wrote it, at most 32 bytes.
    pub writer: String,
    /// Stands for the chain key of a sealed or authenticated image; zero in others.
    pub key_commitment: Digest,
    /// What the writer recognises the source by when it goes on with an unfinished image; zero
    /// when it never does. Means nothing to anybody else.
    pub source_token: Digest,
}

impl Superblock {
    /// Whether blocks, index, hashes and META are encrypted.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.features.incompat & Features::SEALED != 0
    }

    /// Whether a chain key belongs to the image: it is sealed or authenticated.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        self.features.incompat & Features::KEYED != 0
    }

    /// Bytes of the key-slot area behind the superblock.
    #[must_use]
    pub const fn slot_area_len(&self) -> u64 {
        self.features.slot_area_len()
    }

    /// Where the frames begin.
    pub(crate) const fn frames_start(&self) -> u64 {
        self.features.frames_start()
    }

    /// Checks everything and returns what can be trusted. `offset` is where the bytes came
    /// from, for messages. That of a later segment is refused: no image begins with it.
    pub(crate) fn from_bytes(
        bytes: &[u8; PAGE_SIZE],
        section: Section,
        offset: u64,
    ) -> Result<Self> {
        match Self::of_segment(bytes, section, offset)? {
            (superblock, SegmentPlace { no: 0, .. }) => Ok(superblock),
            (superblock, place) => Err(SegmentError::part(superblock.image, place.no).into()),
        }
    }

    /// As [`Superblock::from_bytes`], of any segment, and which one it is.
    pub(crate) fn of_segment(
        bytes: &[u8; PAGE_SIZE],
        section: Section,
        offset: u64,
    ) -> Result<(Self, SegmentPlace)> {
        let raw = RawSuperblock::decode(bytes);
        if raw.magic != MAGIC {
            let begins = bytes[..8].iter().map(|b| format!("{b:02x}")).collect();
            return Err(Error::Foreign(Foreign::Magic { begins }));
        }
        let found = salted_crc(SALT, &bytes[..4092]);
        if found != raw.crc {
            return Err(Fault::Checksum { found, stored: raw.crc }.at(section, offset));
        }
        if (raw.major, raw.minor) != (MAJOR, MINOR) {
            return Err(Unsupported::Version { major: raw.major, minor: raw.minor }.into());
        }
        let unknown = raw.incompat & !Features::KNOWN;
        if unknown != 0 {
            let names: Vec<String> = (0..64)
                .filter(|bit| unknown >> bit & 1 == 1)
                .map(|bit| Features::name(bit, &raw.feature_names))
                .collect();
            let names = names.join(", ");
            return Err(Unsupported::Features { bits: unknown, names }.into());
        }
        if let Some(at) = RawSuperblock::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at }.at(section, offset));
        }
        let place = SegmentPlace { no: raw.segment_no, start: raw.segment_start };
        let superblock = Self::check(&raw).map_err(|fault| fault.at(section, offset))?;
        Ok((superblock, place))
    }

    fn check(raw: &RawSuperblock) -> std::result::Result<Self, Fault> {
        let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
        let parent = ParentLink {
            point: PointId(raw.parent_point),
            state_root: Digest(raw.parent_state_root),
        };
        let kind = match raw.kind {
            1 => ImageKind::Full,
            2 => ImageKind::Incremental,
            3 => ImageKind::Differential,
            other => return Err(value("kind", other.into(), "1, 2 or 3")),
        };
        let has_parent = !parent.point.is_zero();
        if has_parent == parent.state_root.is_zero() {
            return Err(Fault::Differs { field: "parent point", other: "parent state root" });
        }
        if has_parent == (kind == ImageKind::Full) {
            return Err(value("kind", raw.kind.into(), "full exactly without a parent"));
        }
        for (field, id) in [
            ("image_uuid", &raw.image_uuid),
            ("set_uuid", &raw.set_uuid),
            ("recovery_point", &raw.recovery_point),
        ] {
            if id.iter().all(|&b| b == 0) {
                return Err(value(field, 0, "not zero"));
            }
        }
        if raw.parent_point == raw.recovery_point {
            return Err(Fault::Differs { field: "parent point", other: "rule that it is another" });
        }
        if raw.align_log2 != FRAME_ALIGN_LOG2 {
            return Err(value("align_log2", raw.align_log2.into(), "6"));
        }
        check_segment(raw)?;
        if raw.autoclear != 0 {
            return Err(value("autoclear", raw.autoclear, "0 outside overlay files"));
        }
        let block_size = 1u32
            .checked_shl(raw.block_log2.into())
            .and_then(BlockSize::new)
            .ok_or(value("block_log2", raw.block_log2.into(), "14 to 22"))?;
        let sector_size = 1u32.checked_shl(raw.sector_log2.into()).unwrap_or(0);
        if !(512..=4096).contains(&sector_size) {
            return Err(value("sector_log2", raw.sector_log2.into(), "9 to 12"));
        }
        let geometry = Geometry::new(raw.address_space_len, block_size, sector_size)
            .ok_or(value("address_space_len", raw.address_space_len, "1 byte to 2^40 blocks"))?;
        if !has_parent && raw.incompat & (Features::DELTA | Features::PARENT) != 0 {
            let found = raw.incompat;
            return Err(value("incompat", found, "no delta, no parent-blocks without a parent"));
        }
        check_keyed(raw.incompat, raw.slot_area_len, &Digest(raw.key_commitment))?;
        let features = Features {
            incompat: raw.incompat,
            ro_compat: raw.ro_compat,
            compat: raw.compat,
            autoclear: raw.autoclear,
        };
        Ok(Self {
            features,
            image: ImageId(raw.image_uuid),
            set: SetId(raw.set_uuid),
            point: PointId(raw.recovery_point),
            kind,
            parent: has_parent.then_some(parent),
            geometry,
            created_unix_ms: raw.created_unix_ms,
            session: SessionTag(raw.session_tag),
            writer: printable(&raw.writer).ok_or(Fault::Text)?,
            key_commitment: Digest(raw.key_commitment),
            source_token: Digest(raw.source_token),
        })
    }

    /// The bytes of a sound superblock as those that another segment of the image begins with.
    pub(crate) fn with_place(page: &[u8; PAGE_SIZE], place: SegmentPlace) -> [u8; PAGE_SIZE] {
        let mut raw = RawSuperblock::decode(page);
        (raw.segment_no, raw.segment_start) = (place.no, place.start);
        raw.crc = salted_crc(SALT, &raw.encode()[..4092]);
        raw.encode()
    }

    /// As an image begins with it.
    pub(crate) fn to_bytes(&self) -> [u8; PAGE_SIZE] {
        self.to_segment_bytes(SegmentPlace::default())
    }

    /// As a segment of the image begins with it.
    pub(crate) fn to_segment_bytes(&self, place: SegmentPlace) -> [u8; PAGE_SIZE] {
        let mut writer = [0; 32];
        put_text(&mut writer, &self.writer);
        let mut feature_names = [0; 1536];
        let set = (0u8..64).filter(|&bit| self.features.incompat >> bit & 1 == 1);
        for (row, bit) in feature_names.chunks_exact_mut(FEATURE_NAME_SIZE).zip(set) {
            row[0] = 1;
            row[1] = bit;
            put_text(&mut row[4..], Features::NAMES.get(usize::from(bit)).unwrap_or(&""));
        }
        let parent = self.parent;
        let mut raw = RawSuperblock {
            magic: MAGIC,
            major: MAJOR,
            minor: MINOR,
            incompat: self.features.incompat,
            ro_compat: self.features.ro_compat,
            compat: self.features.compat,
            autoclear: self.features.autoclear,
            image_uuid: self.image.0,
            set_uuid: self.set.0,
            recovery_point: self.point.0,
            parent_point: parent.map_or([0; 16], |p| p.point.0),
            parent_state_root: parent.map_or([0; 32], |p| p.state_root.0),
            kind: self.kind.code(),
            block_log2: log2_byte(self.geometry.block_size().get()),
            align_log2: FRAME_ALIGN_LOG2,
            sector_log2: log2_byte(self.geometry.sector_size()),
            segment_no: place.no,
            segment_count: 0,
            slot_area_len: u32::try_from(self.slot_area_len()).unwrap_or(0),
            address_space_len: self.geometry.len(),
            created_unix_ms: self.created_unix_ms,
            session_tag: self.session.0,
            writer,
            feature_names,
            segment_start: place.start,
            key_commitment: self.key_commitment.0,
            source_token: self.source_token.0,
            crc: 0,
        };
        raw.crc = salted_crc(SALT, &raw.encode()[..4092]);
        raw.encode()
    }
}

/// The rules about segments: none without the feature, and with it a place an image can have.
fn check_segment(raw: &RawSuperblock) -> std::result::Result<(), Fault> {
    let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
    if raw.incompat & Features::SPLIT == 0 {
        for (field, found) in [
            ("segment_no", raw.segment_no.into()),
            ("segment_count", raw.segment_count.into()),
            ("segment_start", raw.segment_start),
        ] {
            if found != 0 {
                return Err(value(field, found, "0 without its feature bit"));
            }
        }
        return Ok(());
    }
    if raw.segment_no >= SEGMENTS_MAX {
        return Err(value("segment_no", raw.segment_no.into(), "below 1,000"));
    }
    // No writer knows it when it begins; the trailer tells.
    if raw.segment_count != 0 {
        return Err(value("segment_count", raw.segment_count.into(), "0"));
    }
    SegmentPlace { no: raw.segment_no, start: raw.segment_start }.check()
}

/// Base-two logarithm of a power of two; at most 31, so it fits a byte.
fn log2_byte(power_of_two: u32) -> u8 {
    power_of_two.trailing_zeros().to_le_bytes()[0]
}

/// Copies as much of `text` as fits, cut at a character boundary; the rest stays zero.
fn put_text(out: &mut [u8], text: &str) {
    let fits = text.floor_char_boundary(out.len());
    out[..fits].copy_from_slice(&text.as_bytes()[..fits]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            features: Features::default(),
            image: ImageId([1; 16]),
            set: SetId([2; 16]),
            point: PointId([3; 16]),
            kind: ImageKind::Full,
            parent: None,
            geometry: Geometry::new(
                1_000_000,
                BlockSize::new(65536).expect("64 KiB is a block size"),
                512,
            )
            .expect("a small disk is a geometry"),
            created_unix_ms: 1_790_000_000_000,
            session: SessionTag([4; 12]),
            writer: "aivory test".into(),
            key_commitment: Digest::default(),
            source_token: Digest([5; 32]),
        }
    }

    fn check(change: impl FnOnce(&mut [u8; PAGE_SIZE])) -> Error {
        let mut bytes = sample().to_bytes();
        change(&mut bytes);
        let crc = salted_crc(SALT, &bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        Superblock::from_bytes(&bytes, Section::Superblock, 0).expect_err("the change is refused")
    }

    #[test]
    fn a_superblock_survives_the_round_trip() {
        let bytes = sample().to_bytes();
        let back = Superblock::from_bytes(&bytes, Section::Superblock, 0).expect("just written");
        assert_eq!(back, sample());
    }

    #[test]
    fn a_newer_major_version_is_refused_by_number() {
        let error = check(|b| b[8] = 7);
        assert!(error.to_string().contains("format version 7."), "{error}");
    }

    #[test]
    fn another_draft_is_refused_by_number() {
        let error = check(|b| b[10] = 99);
        assert!(error.to_string().contains(".99"), "{error}");
    }

    #[test]
    fn a_defined_feature_this_version_lacks_is_refused_by_name() {
        let mut unknown = 0;
        let alone = Features::DELTA | Features::PARENT | Features::PARITY | Features::SPLIT;
        for (bit, name) in Features::NAMES.iter().enumerate() {
            if (Features::KNOWN & !alone) >> bit & 1 == 1 || alone >> bit & 1 == 1 {
                continue;
            }
            let error = check(|b| b[16 + bit / 8] |= 1 << (bit % 8));
            assert!(error.to_string().contains(name), "{error}");
            unknown += 1;
        }
        assert!(unknown > 0, "nothing is left to refuse");
    }

    fn keyed(incompat: u64) -> Superblock {
        let features = Features { incompat, ..Features::default() };
        Superblock { features, key_commitment: Digest([5; 32]), ..sample() }
    }

    #[test]
    fn a_keyed_superblock_survives_the_round_trip() {
        for (bits, slots) in [
            (1, 0),
            (2, 0),
            (1 | 1 << 7, 32768),
            (2 | 1 << 7, 32768),
            (1 | 1 << 6, 0),
            (2 | 1 << 6 | 1 << 7, 32768),
            (1 | 1 << 2, 0),
            (2 | 1 << 2 | 1 << 6 | 1 << 7, 32768),
        ] {
            let superblock = keyed(bits);
            let bytes = superblock.to_bytes();
            let back = Superblock::from_bytes(&bytes, Section::Superblock, 0);
            assert_eq!(back.expect("just written"), superblock);
            assert_eq!(superblock.slot_area_len(), slots);
            assert_eq!(superblock.is_sealed(), bits & 1 == 1);
            assert!(superblock.is_keyed() && !sample().is_keyed());
        }
    }

    #[test]
    fn features_of_keys_that_do_not_go_together_are_refused() {
        let refused = |superblock: Superblock, change: &dyn Fn(&mut [u8; PAGE_SIZE])| {
            let mut bytes = superblock.to_bytes();
            change(&mut bytes);
            let crc = salted_crc(SALT, &bytes[..4092]);
            bytes[4092..].copy_from_slice(&crc.to_le_bytes());
            let read = Superblock::from_bytes(&bytes, Section::Superblock, 0);
            read.expect_err("refused").to_string()
        };
        let none = |_: &mut [u8; PAGE_SIZE]| {};
        assert!(refused(keyed(3), &none).contains("sealed or authenticated, not both"));
        assert!(refused(keyed(1 << 7), &none).contains("key-slots with sealed"));
        assert!(refused(keyed(0), &none).contains("key commitment"));
        let unnamed = Superblock { key_commitment: Digest::default(), ..keyed(1) };
        assert!(refused(unnamed, &none).contains("key commitment"));
        assert!(refused(keyed(1), &|b| b[157] = 0x80).contains("slot_area_len is 32768"));
        assert!(refused(keyed(1 | 1 << 7), &|b| b[157] = 0).contains("slot_area_len is 0"));
        assert!(refused(keyed(1 | 1 << 7), &|b| b[158] = 1).contains("slot_area_len"));
    }

    #[test]
    fn an_unknown_incompatible_feature_is_refused_by_the_name_the_image_gives() {
        let error = check(|b| {
            b[16 + 5] = 1; // bit 40
            b[224] = 1;
            b[225] = 40;
            b[228..238].copy_from_slice(b"time-warps");
        });
        assert!(error.to_string().contains("time-warps"), "{error}");
        assert!(check(|b| b[16 + 5] = 1).to_string().contains("bit 40"));
    }

    #[test]
    fn a_feature_name_that_would_steer_a_terminal_is_not_shown() {
        let error = check(|b| {
            b[16 + 5] = 1; // bit 40
            b[224..226].copy_from_slice(&[1, 40]);
            b[228..232].copy_from_slice(b"\x1b[2J");
        });
        assert!(error.to_string().ends_with("bit 40"), "{error:?}");
    }

    #[test]
    fn unknown_compatible_features_are_accepted() {
        let mut superblock = sample();
        superblock.features.compat = 1 << 50;
        superblock.features.ro_compat = 1 << 51;
        let bytes = superblock.to_bytes();
        let back = Superblock::from_bytes(&bytes, Section::Superblock, 0).expect("compatible");
        assert_eq!(back.features, superblock.features);
    }

    #[test]
    fn every_value_out_of_range_is_refused_by_field() {
        for (at, value, field) in [
            (144, 9, "kind"),
            (144, 2, "kind is 2, allowed is full exactly without a parent"),
            (16, 8, "incompat is 8"),
            (145, 13, "block_log2"),
            (145, 200, "block_log2"),
            (146, 12, "align_log2"),
            (147, 8, "sector_log2"),
            (148, 1, "segment_no"),
            (152, 1, "segment_count"),
            (1826, 1, "segment_start"),
            (156, 1, "slot_area_len"),
            (40, 1, "autoclear"),
            (12, 1, "reserved byte 12"),
            (3000, 1, "reserved byte 3000"),
        ] {
            let error = check(|b| b[at] = value);
            assert!(error.to_string().contains(field), "{at}: {error}");
        }
        let error = check(|b| b[160..168].fill(0));
        assert!(error.to_string().contains("address_space_len is 0"), "{error}");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = sample().to_bytes();
        for bit in 0..PAGE_SIZE * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::from_bytes(&bytes, Section::Superblock, 0).is_err(), "bit {bit}");
        }
    }
}
