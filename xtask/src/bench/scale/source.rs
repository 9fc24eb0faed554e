//! A source larger than any disk here: data in one place, each block of its own, computed when
//! it is read.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use aiv_backup_engine::{BackupOptions, Sectors};
use aiv_volume_io::{Extent, ReadAt};

use super::super::increments::Maker;
use crate::Outcome;

/// The argument that asks this program for one backup of a simulated source: a folder, the
/// number of the backup, bytes of the source, bytes of data.
pub(in super::super) const SIMULATE: &str = "--simulate";

const PAGE: u64 = 4096;

/// Data from the middle on, holes around it.
struct Simulated {
    len: u64,
    data: Extent,
}

impl Simulated {
    fn new(len: u64, data: u64) -> Self {
        Self { len, data: Extent { start: (len - data) / 2 / PAGE * PAGE, len: data } }
    }
}

impl ReadAt for Simulated {
    fn len(&self) -> u64 {
        self.len
    }

    /// Pages that begin with their number: no two blocks are the same, and all compress well, so
    /// that a terabyte of them fits anywhere.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.fill(0);
        let Some(part) = self.data.intersect(Extent::between(offset, end)) else { return Ok(()) };
        let within = |at: u64| usize::try_from(at - offset).map_err(io::Error::other);
        out[within(part.start)?..within(part.end())?].fill(0x5A);
        for page in (part.start.next_multiple_of(PAGE)..part.end()).step_by(4096) {
            let at = within(page)?;
            let number = (page / PAGE).to_le_bytes();
            for (byte, value) in out[at..].iter_mut().zip(number) {
                *byte = value;
            }
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let around =
            [Extent::between(0, self.data.start), Extent::between(self.data.end(), self.len)];
        Ok(around.into_iter().filter_map(|hole| hole.intersect(range)).collect())
    }
}

/// The other side of [`SIMULATE`].
pub(in super::super) fn simulate(words: &[String]) -> Outcome {
    let [folder, number, len, data] = words else {
        return Err("a simulated backup takes a folder and three numbers".into());
    };
    let parse = |word: &String| word.parse::<u64>().map_err(|e| format!("{word}: {e}"));
    let (number, len, data) = (parse(number)?, parse(len)?, parse(data)?);
    if data > len {
        return Err("more data than source".into());
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = BackupOptions { sectors: Sectors::All, threads, ..BackupOptions::default() };
    let mut maker = Maker::after(Path::new(folder), number - 1)?;
    maker.back_up_disk(&Simulated::new(len, data), options).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_where_it_is_said_to_be_and_every_page_is_another() {
        let source = Simulated::new(64 << 20, 1 << 20);
        let mut bytes = vec![1; 64 << 20];
        source.read_exact_at(&mut bytes, 0).unwrap();
        let range = |extent: Extent| {
            let at = |offset: u64| usize::try_from(offset).unwrap();
            at(extent.start)..at(extent.end())
        };
        let data = range(source.data);
        let mut pages: Vec<&[u8]> = bytes[data.clone()].chunks(4096).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 256);
        for hole in source.holes(Extent { start: 0, len: 64 << 20 }).unwrap() {
            assert!(bytes[range(hole)].iter().all(|b| *b == 0));
        }
        // A read that begins anywhere gives the same bytes.
        let (start, mut part) = (data.start + 4091, vec![0; 9000]);
        source.read_exact_at(&mut part, start as u64).unwrap();
        assert_eq!(part, bytes[start..start + 9000]);
        assert!(source.read_exact_at(&mut part, (64 << 20) - 1).is_err());
    }

    #[test]
    fn a_simulated_source_is_backed_up_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        for number in ["1", "2"] {
            let words = [path, number, "1099511627776", "16777216"].map(str::to_owned);
            simulate(&words).unwrap();
        }
        let images = folder.path().read_dir().unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().contains(".ai") && !name.to_string_lossy().starts_with('.')
        });
        assert_eq!(images.count(), 2);
    }
}
