//! The META area of a file: each section compressed into a frame of its own.

use aiv_volume_io::ReadAt;

use super::{Meta, SectionType, read_roots, write_roots};
use crate::block::{Buffer, frame_header};
use crate::codec::{CODEC_NONE, Decoder, compress_meta};
use crate::error::{Error, Fault, Result, Section};
use crate::hash::{Roots, SectionHasher};
use crate::ids::Geometry;
use crate::layout::{FRAME_HEADER_SIZE, FrameKind, Trailer, frame_size};
use crate::limits::{
    META_SECTION_MAX, META_SECTIONS_MAX, META_TOTAL_MAX, PAGE_SIZE, STORED_LEN_MAX,
};
use crate::seal::Access;

/// A section ready to be framed.
pub(crate) struct EncodedSection {
    pub section: SectionType,
    pub codec: u8,
    pub plain_len: u32,
    pub payload: Vec<u8>,
}

impl Meta {
    /// The sections as they go into the image of a disk of this geometry. Whatever a reader would
    /// refuse is refused here, where the caller can still mend it: a finished image whose META
    /// cannot be read would be a lost backup.
    /// `stored_len` says how many bytes a frame stores for so many of content.
    pub(crate) fn encode(
        &self,
        geometry: &Geometry,
        stored_len: impl Fn(usize) -> usize,
    ) -> Result<Vec<EncodedSection>> {
        let mut read_back = Self::default();
        let mut encoded = Vec::new();
        let mut total = 0;
        for (section, plain) in self.sections() {
            let plain_len = u32::try_from(plain.len())
                .ok()
                .filter(|&len| len <= META_SECTION_MAX)
                .ok_or(Error::Misuse("more than 16 MiB in one META section"))?;
            read_back.read_section(section, &plain).map_err(|_| {
                Error::Misuse("META with lists beyond their limits or out of order")
            })?;
            let (codec, payload) = compress_meta(&plain);
            let stored = stored_len(payload.len()) as u64;
            if stored > STORED_LEN_MAX.into() {
                return Err(Error::Misuse("more than 16 MiB in one META section"));
            }
            total += frame_size(stored);
            encoded.push(EncodedSection { section, codec, plain_len, payload });
        }
        // The roots of a sealed image, which are not known yet, take a page at most.
        let room = if stored_len(0) == 0 { 0 } else { PAGE_SIZE as u64 };
        if total + room > META_TOTAL_MAX {
            return Err(Error::Misuse("more than 32 MiB of META"));
        }
        read_back
            .check(geometry)
            .map_err(|_| Error::Misuse("META that contradicts the size of the disk"))?;
        Ok(encoded)
    }
}

/// The section with the roots of a sealed image, which stand nowhere else.
pub(crate) fn encode_roots(roots: &Roots) -> EncodedSection {
    let payload = write_roots(roots);
    let plain_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    EncodedSection { section: SectionType::Roots, codec: CODEC_NONE, plain_len, payload }
}

/// What the META area holds.
#[derive(Default)]
pub(crate) struct Area {
    pub meta: Meta,
    /// Only in sealed images, and always there.
    pub roots: Option<Roots>,
}

/// Reads and checks the META area, whose length was bounded with the other areas.
pub(crate) fn read_area(
    file: &dyn ReadAt,
    trailer: &Trailer,
    geometry: &Geometry,
    access: &Access,
) -> Result<Area> {
    let area = trailer.meta_offset;
    let len =
        usize::try_from(trailer.meta_len).map_err(|_| Fault::Bounds.at(Section::Meta, area))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, area).map_err(Error::io("read META", area))?;
    let mut hasher = SectionHasher::new();
    hasher.update(&bytes);
    if hasher.finish() != trailer.meta_hash {
        return Err(Fault::Hash { by: "trailer" }.at(Section::Meta, area));
    }
    let Area { mut meta, mut roots } = Area::default();
    let mut opened = Buffer::default();
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let offset = area + (bytes.len() - rest.len()) as u64;
        let at = |fault: Fault| fault.at(Section::Meta, offset);
        let header = frame_header(rest, offset)?;
        let size = usize::try_from(header.frame_size()).map_err(|_| at(Fault::Bounds))?;
        let (frame, next) = rest.split_at_checked(size).ok_or_else(|| at(Fault::Bounds))?;
        access.check_mode(&header).map_err(at)?;
        let (header, payload) = if header.seal.is_some() {
            access.open_frame(header, frame, &mut opened, offset)?
        } else {
            let end = FRAME_HEADER_SIZE + header.stored_len as usize;
            let payload = &frame[FRAME_HEADER_SIZE..end];
            header.check_payload(payload, offset)?;
            (header, payload)
        };
        if header.kind != FrameKind::Meta || header.plain_len > META_SECTION_MAX {
            return Err(at(Fault::Differs { field: "type", other: "area" }));
        }
        if seen.contains(&header.subject) || seen.len() == META_SECTIONS_MAX {
            let (field, found) = ("repeated section type", header.subject);
            return Err(at(Fault::Value { field, found, allowed: "once" }));
        }
        seen.push(header.subject);
        if let Some(section) = SectionType::from_code(header.subject) {
            let mut plain = vec![0; header.plain_len as usize];
            decoder.decode(header.codec, payload, &mut plain).map_err(at)?;
            if section == SectionType::Roots {
                roots = Some(read_roots(&plain).map_err(at)?);
            }
            meta.read_section(section, &plain).map_err(at)?;
        }
        rest = next;
    }
    for needed in [SectionType::Manifest, SectionType::Disk, SectionType::Origins] {
        if !seen.contains(&needed.code()) {
            let fault = Fault::Differs { field: needed.name(), other: "required sections" };
            return Err(fault.at(Section::Meta, area));
        }
    }
    if roots.is_some() != matches!(access, Access::Open(_)) {
        let fault = Fault::Differs { field: "roots section", other: "feature bits" };
        return Err(fault.at(Section::Meta, area));
    }
    meta.check(geometry).map_err(|fault| fault.at(Section::Meta, area))?;
    Ok(Area { meta, roots })
}
