//! The zip archive.

use std::collections::HashSet;
use std::io::{self, Write};

use aiv_browse::{Metadata, Timestamp};
use aiv_volume_io::Extent;
use jiff::tz::TimeZone;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::archive::{Archive, Body, Entry, Kept, output};
use super::metadata::mode_of;
use crate::error::{Error, Result};

/// Files from here on get the larger fields: what does not compress takes a little more than its
/// own length.
const LARGE: u64 = 0xf000_0000;
/// Bytes of a name: its length has a field of 16 bits, and a folder ends with a slash.
const NAME_MAX: usize = u16::MAX as usize - 1;

/// A zip archive that is being written, from its first byte to its last.
pub(super) struct Zip<'a> {
    writer: ZipWriter<StreamWriter<Out<'a>>>,
    /// Hashes of names: there may be millions.
    names: HashSet<[u8; 16]>,
}

impl<'a> Zip<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { writer: ZipWriter::new_stream(Out { out, is_broken: false }), names: HashSet::new() }
    }
}

/// Takes what it is given after the first error: an archive that is given up is finished when it is
/// dropped, and what fails then would be printed.
struct Out<'a> {
    out: &'a mut dyn Write,
    is_broken: bool,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes);
        self.is_broken = matches!(&written, Err(e) if e.kind() != io::ErrorKind::Interrupted);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_broken { Ok(()) } else { self.out.flush() }
    }
}

fn failed(error: zip::result::ZipError) -> Error {
    output("writing")(error.into())
}

fn options(metadata: &Metadata, len: u64) -> SimpleFileOptions {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(mode_of(metadata, false).into())
        .large_file(len >= LARGE);
    match metadata.modified.and_then(date) {
        Some(date) => options.last_modified_time(date),
        None => options,
    }
}

/// Times of zip begin with 1980 and end with 2107, in steps of two seconds.
fn date(time: Timestamp) -> Option<DateTime> {
    let at = jiff::Timestamp::from_second(time.seconds).ok()?.to_zoned(TimeZone::UTC);
    let small = |number: i8| u8::try_from(number).ok();
    DateTime::from_date_and_time(
        u16::try_from(at.year()).ok()?,
        small(at.month())?,
        small(at.day())?,
        small(at.hour())?,
        small(at.minute())?,
        small(at.second())?,
    )
    .ok()
}

/// A path as text: bytes that are none as `%XX`, and so a backslash, which some programs take for
/// a slash.
fn name(path: &[u8]) -> String {
    let mut name = String::new();
    for chunk in path.utf8_chunks() {
        name += &chunk.valid().replace('\\', "%5C");
        chunk.invalid().iter().for_each(|byte| name += &format!("%{byte:02X}"));
    }
    name
}

fn hash(name: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut hash);
    hash
}

impl Zip<'_> {
    fn take(&mut self, entry: &Entry<'_>) -> String {
        let name = name(entry.path);
        self.names.insert(hash(&name));
        name
    }
}

impl Archive for Zip<'_> {
    fn refuses(&self, path: &[u8]) -> Option<&'static str> {
        let name = name(path);
        if name.len() > NAME_MAX {
            return Some("its path is longer than a zip archive can hold");
        }
        self.names
            .contains(&hash(&name))
            .then_some("the archive has something of that name already")
    }

    fn folder(&mut self, entry: &Entry<'_>) -> Result<()> {
        let name = self.take(entry);
        let options = options(entry.metadata, 0);
        self.writer.add_directory(name, options).map_err(failed)
    }

    fn file(&mut self, entry: &Entry<'_>, body: Body<'_>) -> Result<Vec<Extent>> {
        let name = self.take(entry);
        let options = options(entry.metadata, body.data.len());
        self.writer.start_file(name, options).map_err(failed)?;
        body.write(true, &mut self.writer)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<()> {
        let target = String::from_utf8_lossy(target).into_owned();
        let name = self.take(entry);
        let options = options(entry.metadata, 0);
        self.writer.add_symlink(name, target, options).map_err(failed)
    }

    fn hard_link(&mut self, _: &Entry<'_>, _: &[u8]) -> Result<Kept> {
        Ok(Kept::No)
    }

    fn special(&mut self, _: &Entry<'_>) -> Result<Kept> {
        Ok(Kept::No)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut out = self.writer.finish().map_err(failed)?;
        out.flush().map_err(output("writing"))
    }

    fn has_owners(&self) -> bool {
        false
    }

    fn has_attribute(&self, _: &[u8]) -> bool {
        false
    }

    fn has_any_name(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_text_and_lead_nowhere_else() {
        assert_eq!(name("p2/gr\u{f6}\u{df}e".as_bytes()), "p2/gr\u{f6}\u{df}e");
        assert_eq!(name(b"p2/gr\xf6\xdfe"), "p2/gr%F6%DFe");
        assert_eq!(name(b"p2/..\\..\\evil"), "p2/..%5C..%5Cevil");
    }
}
