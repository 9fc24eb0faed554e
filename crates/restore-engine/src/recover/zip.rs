//! The zip archive.

use std::io::Write;

use aiv_browse::{Metadata, Timestamp};
use aiv_volume_io::Extent;
use jiff::tz::TimeZone;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::archive::{Archive, Body, Entry, Kept, output};
use super::metadata::mode_of;
use crate::error::{Error, Result};

/// Files from here on need the larger fields.
const LARGE: u64 = u32::MAX as u64;

/// A zip archive that is being written, from its first byte to its last.
pub(super) struct Zip<'a> {
    writer: ZipWriter<StreamWriter<&'a mut dyn Write>>,
}

impl<'a> Zip<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { writer: ZipWriter::new_stream(out) }
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

fn name(entry: &Entry<'_>) -> String {
    String::from_utf8_lossy(entry.path).into_owned()
}

impl Archive for Zip<'_> {
    fn folder(&mut self, entry: &Entry<'_>) -> Result<()> {
        let options = options(entry.metadata, 0);
        self.writer.add_directory(name(entry), options).map_err(failed)
    }

    fn file(&mut self, entry: &Entry<'_>, body: Body<'_>) -> Result<Vec<Extent>> {
        let options = options(entry.metadata, body.data.len());
        self.writer.start_file(name(entry), options).map_err(failed)?;
        body.write(true, &mut self.writer)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<()> {
        let target = String::from_utf8_lossy(target).into_owned();
        let options = options(entry.metadata, 0);
        self.writer.add_symlink(name(entry), target, options).map_err(failed)
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

    fn has_attributes(&self) -> bool {
        false
    }
}
