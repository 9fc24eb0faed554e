//! The tar archive.

use std::io::{self, Write};

use aiv_browse::{FileFlags, FileType, Metadata, Timestamp};
use aiv_volume_io::Extent;
use tar::{Builder, EntryType, Header};

use super::archive::{Archive, Body, Entry, Kept, output};
use super::metadata::mode_of;
use crate::error::Result;

/// Blocks of an archive.
const BLOCK: usize = 512;
/// Holes below this are written as zeros: a map would be longer.
const HOLES_MIN: u64 = 64 << 10;
/// The largest number of each field; greater ones are records of their own.
const SIZE_MAX: u64 = 0o777_7777_7777;
const ID_MAX: u32 = 0o777_7777;

/// A tar archive that is being written.
pub(super) struct Tar<'a> {
    builder: Builder<&'a mut dyn Write>,
}

impl<'a> Tar<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { builder: Builder::new(out) }
    }

    /// Writes what stands in front of the bytes of an entry. `len` is that of the stored bytes.
    fn head(&mut self, entry: &Entry<'_>, kind: EntryType, len: u64, more: Head<'_>) -> Result<()> {
        let metadata = entry.metadata;
        let mut records = Records::default();
        let mut path = entry.path.to_vec();
        if kind == EntryType::Directory {
            path.push(b'/');
        }
        if more.extra.is_empty() {
            records.text("path", &path, 100);
        } else {
            records.text("GNU.sparse.name", &path, 0);
        }
        if let Some(target) = more.target {
            records.text("linkpath", target, 100);
        }
        for (key, time) in [("mtime", metadata.modified), ("atime", metadata.accessed)] {
            // The field of the header has whole seconds, and none before 1970.
            if let Some(time) = time
                && (key == "atime" || time.nanoseconds != 0 || time.seconds < 0)
            {
                records.push(key, decimal(time).as_bytes());
            }
        }
        let (user, group) = metadata.owner.map_or((0, 0), |owner| (owner.user, owner.group));
        for (key, id) in [("uid", user), ("gid", group)] {
            if id > ID_MAX {
                records.push(key, id.to_string().as_bytes());
            }
        }
        if len > SIZE_MAX {
            records.push("size", len.to_string().as_bytes());
        }
        for attribute in entry.attributes {
            if let Some(name) = key_of(&attribute.name) {
                records.push(&format!("SCHILY.xattr.{name}"), &attribute.value);
            }
        }
        more.extra.iter().for_each(|(key, value)| records.push(key, value.as_bytes()));
        let all = records.0.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(all).map_err(output("writing"))?;

        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(len.min(SIZE_MAX));
        header.set_mode(mode_of(metadata, true).into());
        header.set_uid(user.min(ID_MAX).into());
        header.set_gid(group.min(ID_MAX).into());
        let seconds = metadata.modified.map_or(0, |time| time.seconds);
        header.set_mtime(u64::try_from(seconds).unwrap_or(0).min(SIZE_MAX));
        if let Some(device) = metadata.device {
            // Only the old small numbers fit; the call tells when not, and zero is written.
            let _ = header.set_device_major(device.major);
            let _ = header.set_device_minor(device.minor);
        }
        let raw = header.as_old_mut();
        fill(&mut raw.name, &path);
        if let Some(target) = more.target {
            fill(&mut raw.linkname, target);
        }
        header.set_cksum();
        self.raw(header.as_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.builder.get_mut().write_all(bytes).map_err(output("writing"))
    }

    fn pad(&mut self, len: u64) -> Result<()> {
        let rest = crate::zeros::in_memory(len % BLOCK as u64);
        if rest > 0 {
            self.raw(&[0; BLOCK][rest..])?;
        }
        Ok(())
    }
}

/// What else stands in front of an entry.
#[derive(Default)]
struct Head<'a> {
    target: Option<&'a [u8]>,
    /// Of a file with holes, their records; its name is one of them.
    extra: Vec<(String, String)>,
}

/// The name of an attribute as a key: text that ends at the first equals sign.
fn key_of(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| !name.contains('='))
}

/// Records of the extended header.
#[derive(Default)]
struct Records(Vec<(String, Vec<u8>)>);

impl Records {
    fn push(&mut self, key: &str, value: &[u8]) {
        self.0.push((key.to_owned(), value.to_vec()));
    }

    /// A path, where the field of `room` bytes cannot hold it.
    fn text(&mut self, key: &str, value: &[u8], room: usize) {
        if value.len() <= room && value.is_ascii() {
            return;
        }
        if std::str::from_utf8(value).is_err() && !self.0.iter().any(|(k, _)| k == "hdrcharset") {
            self.push("hdrcharset", b"BINARY");
        }
        self.push(key, value);
    }
}

/// As much of a path as fits; all of it is in a record then.
fn fill(field: &mut [u8; 100], path: &[u8]) {
    let len = path.len().min(field.len());
    field.fill(0);
    field[..len].copy_from_slice(&path[..len]);
}

fn decimal(time: Timestamp) -> String {
    // Nanoseconds count forward: half a second before 1970 is -0.5, not -1.5.
    if time.seconds < 0 && time.nanoseconds > 0 {
        let (seconds, nanoseconds) = (time.seconds + 1, 1_000_000_000 - time.nanoseconds);
        return format!("-{}.{nanoseconds:09}", seconds.unsigned_abs());
    }
    format!("{}.{:09}", time.seconds, time.nanoseconds)
}

impl Archive for Tar<'_> {
    fn folder(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.head(entry, EntryType::Directory, 0, Head::default())
    }

    fn file(&mut self, entry: &Entry<'_>, body: Body<'_>) -> Result<Vec<Extent>> {
        let len = body.data.len();
        let stored: u64 = body.ranges.iter().map(|range| range.len).sum();
        if len - stored < HOLES_MIN {
            self.head(entry, EntryType::Regular, len, Head::default())?;
            let lost = body.write(true, self.builder.get_mut())?;
            self.pad(len)?;
            return Ok(lost);
        }
        let mut map: Vec<Extent> = body.ranges.to_vec();
        // The end of the file is told by an empty range.
        if map.last().is_none_or(|last| last.end() < len) {
            map.push(Extent::new(len, 0));
        }
        let mut text = format!("{}\n", map.len());
        map.iter().for_each(|range| text += &format!("{}\n{}\n", range.start, range.len));
        let mut text = text.into_bytes();
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let extra = [
            ("GNU.sparse.major", "1".to_owned()),
            ("GNU.sparse.minor", "0".to_owned()),
            ("GNU.sparse.realsize", len.to_string()),
        ];
        let extra = extra.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let all = stored + text.len() as u64;
        self.head(entry, EntryType::Regular, all, Head { target: None, extra })?;
        self.raw(&text)?;
        let lost = body.write(false, self.builder.get_mut())?;
        self.pad(all)?;
        Ok(lost)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<()> {
        self.head(entry, EntryType::Symlink, 0, Head { target: Some(target), extra: Vec::new() })
    }

    fn hard_link(&mut self, entry: &Entry<'_>, first: &[u8]) -> Result<Kept> {
        let plain = Metadata { flags: FileFlags::default(), ..entry.metadata.clone() };
        let entry = Entry { metadata: &plain, attributes: &[], ..*entry };
        self.head(&entry, EntryType::Link, 0, Head { target: Some(first), extra: Vec::new() })?;
        Ok(Kept::Yes)
    }

    fn special(&mut self, entry: &Entry<'_>) -> Result<Kept> {
        let kind = match entry.metadata.file_type {
            FileType::CharDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Pipe => EntryType::Fifo,
            _ => return Ok(Kept::No),
        };
        self.head(entry, kind, 0, Head::default())?;
        Ok(Kept::Yes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut builder = self.builder;
        let finished: io::Result<()> = builder.finish();
        finished.and_then(|()| builder.get_mut().flush()).map_err(output("writing"))
    }

    fn has_owners(&self) -> bool {
        true
    }

    fn has_attribute(&self, name: &[u8]) -> bool {
        key_of(name).is_some()
    }

    fn has_any_name(&self) -> bool {
        true
    }
}
