//! What POSIX knows of a file, in the part of a record that is the system's (SUSP, RRIP).

use aiv_volume_io::{Extent, ReadAt};

use super::time::{in_digits, recorded};
use crate::bytes::le32;
use crate::reader::{LINK_BYTES_MAX, NAME_BYTES_MAX, Volume};
use crate::{Device, Error, Owner, Result, Timestamp};

/// Areas in which the fields of one record go on.
const AREAS_MAX: usize = 64;
/// Bytes of one of them: more than a sector has no writer.
const AREA_BYTES_MAX: u32 = 16 << 10;

/// The fields of a record.
#[derive(Debug, Default)]
pub(super) struct Posix {
    /// Type and permissions.
    pub(super) mode: Option<u32>,
    pub(super) links: Option<u32>,
    pub(super) owner: Option<Owner>,
    pub(super) device: Option<Device>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) created: Option<Timestamp>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) changed: Option<Timestamp>,
    /// Block of a folder that was moved elsewhere, because it was too deep.
    pub(super) moved_to: Option<u32>,
    /// A folder that belongs elsewhere.
    pub(super) is_moved_here: bool,
    /// Its bytes are compressed, or have holes.
    pub(super) is_transformed: bool,
    link_goes_on: bool,
    /// `genisoimage` breaks those of some hundred bytes.
    is_link_broken: bool,
}

/// Bytes to leave out at the front of every such part, if the first record of the root folder
/// says that they have fields at all.
pub(super) fn skipped(first: &[u8]) -> Option<usize> {
    match first {
        [b'S', b'P', _, _, 0xbe, 0xef, skipped, ..] => Some(usize::from(*skipped)),
        _ => None,
    }
}

impl Posix {
    /// Reads the fields in `system`, and where they go on.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a field has no sense, [`Error::Io`] when the medium fails.
    pub(super) fn read(volume: &Volume, system: &[u8], block_size: u32) -> Result<Self> {
        let mut posix = Self::default();
        let mut area = system.to_vec();
        for _ in 0..AREAS_MAX {
            let Some(next) = posix.take_area(&area, block_size)? else { return Ok(posix) };
            let inside = next.end() <= volume.len();
            if !inside {
                return Err(damaged("goes on outside the volume"));
            }
            area.resize(usize::try_from(next.len).unwrap_or_default(), 0);
            let failed = Error::io("read record", next.start);
            volume.read_exact_at(&mut area, next.start).map_err(failed)?;
        }
        Err(damaged("goes on without end"))
    }

    /// Takes the fields of one area; where they go on.
    fn take_area(&mut self, area: &[u8], block_size: u32) -> Result<Option<Extent>> {
        let mut next = None;
        let mut rest = area;
        while let [a, b, len, _, ..] = *rest {
            let Some(field) = rest.get(..usize::from(len)).filter(|field| field.len() >= 4) else {
                // Zeros fill up a record.
                return if a == 0 { Ok(next) } else { Err(damaged("has a field without end")) };
            };
            rest = &rest[usize::from(len)..];
            match (&[a, b], field.len()) {
                (b"ST", _) => return Ok(next),
                (b"CE", 28..) => {
                    let len = le32(field, 20);
                    if len > AREA_BYTES_MAX {
                        return Err(damaged("goes on for too long"));
                    }
                    let at = u64::from(le32(field, 4)) * u64::from(block_size);
                    next = Some(Extent::new(at + u64::from(le32(field, 12)), len.into()));
                }
                (kind, _) => self.take(kind, field)?,
            }
        }
        Ok(next)
    }

    fn take(&mut self, kind: &[u8; 2], field: &[u8]) -> Result<()> {
        match (kind, field.len()) {
            (b"PX", 36..) => {
                self.mode = Some(le32(field, 4));
                self.links = Some(le32(field, 12));
                self.owner = Some(Owner { user: le32(field, 20), group: le32(field, 28) });
            }
            (b"PN", 20..) => self.device = Some(device(le32(field, 4), le32(field, 12))),
            (b"NM", 5..) => {
                const NOT_ITSELF: u8 = 0x6;
                let name = self.name.get_or_insert_default();
                if field[4] & NOT_ITSELF == 0 {
                    name.extend_from_slice(&field[5..]);
                }
                if name.len() > NAME_BYTES_MAX {
                    return Err(damaged("has too long a name"));
                }
            }
            (b"SL", 5..) if !self.is_link_broken => self.take_link(&field[5..]),
            (b"TF", 5..) => self.take_times(field),
            (b"CL", 12..) => self.moved_to = Some(le32(field, 4)),
            (b"RE", _) => self.is_moved_here = true,
            (b"ZF" | b"SF", _) => self.is_transformed = true,
            _ => {}
        }
        Ok(())
    }

    /// Takes parts of what a link says. A link that breaks off says nothing.
    fn take_link(&mut self, mut parts: &[u8]) {
        const GOES_ON: u8 = 0x1;
        let mut target = self.link_target.take().unwrap_or_default();
        while let [flags, len, rest @ ..] = parts {
            let text = rest.get(..usize::from(*len));
            let Some(text) = text.filter(|text| target.len() + text.len() < LINK_BYTES_MAX) else {
                self.is_link_broken = true;
                return;
            };
            parts = &rest[text.len()..];
            if !target.is_empty() && !self.link_goes_on && target != b"/" {
                target.push(b'/');
            }
            match flags & 0xe {
                0x2 => target.extend_from_slice(b"."),
                0x4 => target.extend_from_slice(b".."),
                0x8 => target = b"/".to_vec(),
                _ => target.extend_from_slice(text),
            }
            self.link_goes_on = flags & GOES_ON != 0;
        }
        self.link_target = Some(target);
    }

    fn take_times(&mut self, field: &[u8]) {
        const IN_DIGITS: u8 = 0x80;
        let flags = field[4];
        let width = if flags & IN_DIGITS != 0 { 17 } else { 7 };
        let mut times = field[5..].chunks_exact(width);
        let places = [&mut self.created, &mut self.modified, &mut self.accessed, &mut self.changed];
        for (bit, place) in places.into_iter().enumerate() {
            if flags & 1 << bit == 0 {
                continue;
            }
            let Some(time) = times.next() else { return };
            *place = if width == 17 { in_digits(time) } else { recorded(time) };
        }
    }
}

/// The numbers of a device: in two words, or both in the lower one as Linux packs them.
fn device(high: u32, low: u32) -> Device {
    match high {
        0 => Device { major: low >> 8 & 0xfff, minor: low & 0xff | low >> 12 & 0x000f_ff00 },
        _ => Device { major: high, minor: low },
    }
}

fn damaged(what: &str) -> Error {
    Error::damaged(format!("a record {what}"), None)
}
