//! The label and the header of a physical volume: who it is, and where its metadata lies.

use aiv_volume_io::{Extent, ReadAt};

use super::checksum;
use super::reason::LvmReason;
use crate::bytes::{array, le32, le64};
use crate::stop::Stop;
use crate::{Error, FilesystemKind};

const SECTOR: usize = 512;
/// The label is in any of the first sectors.
const SECTORS: usize = 4;
/// After magic, sector number and checksum, which it does not cover.
const SUMMED_FROM: usize = 20;
/// A label and its header fill one sector; more places than this are none of LVM's.
const PLACES_MAX: usize = 16;

/// What the header of a physical volume says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// The 32 letters of its identity.
    pub(super) id: [u8; 32],
    /// Bytes of the volume when LVM last looked.
    pub(super) device_len: u64,
    /// First byte of the first physical extent.
    pub(super) data_start: u64,
    /// Where copies of the metadata are.
    pub(super) areas: Vec<Extent>,
    /// Set aside for a boot loader.
    pub(super) boot_areas: Vec<Extent>,
}

/// Finds and checks the one label of `volume`.
pub(super) fn read(volume: &dyn ReadAt) -> Result<Label, Stop> {
    let len = usize::try_from(volume.len()).unwrap_or(usize::MAX).min(SECTORS * SECTOR);
    let mut front = vec![0; len];
    volume.read_exact_at(&mut front, 0).map_err(Error::io("read LVM label", 0))?;
    let mut found = None;
    for (sector, bytes) in front.as_chunks::<SECTOR>().0.iter().enumerate() {
        if bytes.starts_with(b"LABELONE") && found.replace((sector as u64, bytes)).is_some() {
            return Err(LvmReason::TwoLabels.into());
        }
    }
    let (sector, bytes) = found.ok_or(LvmReason::NoLabel)?;
    Ok(label(sector, bytes)?)
}

fn label(sector: u64, bytes: &[u8; SECTOR]) -> Result<Label, LvmReason> {
    let offset = sector * SECTOR as u64;
    if le64(bytes, 8) != sector || bytes[24..32] != *b"LVM2 001" {
        return Err(LvmReason::NoLabel);
    }
    if checksum::of(&bytes[SUMMED_FROM..]) != le32(bytes, 16) {
        return Err(LvmReason::Checksum { section: "label", offset });
    }
    let header_at = usize::try_from(le32(bytes, 20)).unwrap_or(usize::MAX);
    let mut places = match bytes.get(header_at..) {
        Some(rest) if header_at >= 32 && rest.len() >= 40 => Places { bytes, at: header_at + 40 },
        _ => {
            return Err(LvmReason::Header {
                field: "pv_header",
                found: header_at as u64,
                allowed: "32 to 472",
            });
        }
    };
    let data = places.list()?;
    let areas = places.list()?;
    // LVM before 2.02.99 wrote no extension, and zeros where it would be.
    let version = places.word()?;
    let boot_areas = match version {
        0 => Vec::new(),
        1 | 2 => {
            places.word()?;
            places.list()?
        }
        found => {
            let found = u64::from(found);
            return Err(LvmReason::Header { field: "ext_version", found, allowed: "0 to 2" });
        }
    };
    let [Extent { start: data_start, len: 0 }] = *data.as_slice() else {
        let found = data.len() as u64;
        return Err(LvmReason::Header { field: "data areas", found, allowed: "one to the end" });
    };
    Ok(Label {
        id: array(bytes, header_at),
        device_len: le64(bytes, header_at + 32),
        data_start,
        areas,
        boot_areas,
    })
}

/// Lists of places, each ended by a place at byte 0.
struct Places<'a> {
    bytes: &'a [u8; SECTOR],
    at: usize,
}

impl Places<'_> {
    fn word(&mut self) -> Result<u32, LvmReason> {
        let word = self.bytes.get(self.at..self.at + 4).ok_or(Self::cut_off())?;
        self.at += 4;
        Ok(le32(word, 0))
    }

    fn list(&mut self) -> Result<Vec<Extent>, LvmReason> {
        let mut places = Vec::new();
        loop {
            let place = self.bytes.get(self.at..self.at + 16).ok_or(Self::cut_off())?;
            self.at += 16;
            match le64(place, 0) {
                0 => return Ok(places),
                _ if places.len() == PLACES_MAX => return Err(Self::cut_off()),
                start => places.push(Extent::new(start, le64(place, 8))),
            }
        }
    }

    const fn cut_off() -> LvmReason {
        LvmReason::Header { field: "disk areas", found: PLACES_MAX as u64 + 1, allowed: "0 to 16" }
    }
}

/// A filesystem whose signature lies in front of the first physical extent, where LVM has
/// nothing but its own records: one of the two is a left-over.
pub(super) fn other_signature(
    volume: &dyn ReadAt,
    data_start: u64,
) -> Result<Option<FilesystemKind>, Stop> {
    let front = Extent::new(0, data_start.min(volume.len()));
    let front = aiv_volume_io::Slice::new(volume, front);
    let front = front.map_err(Error::io("read signatures", 0))?;
    Ok(crate::recognise::beside(&front, FilesystemKind::Lvm2Member)?)
}
