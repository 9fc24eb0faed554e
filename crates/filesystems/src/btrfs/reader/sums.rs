//! Data by its logical address, proven by its checksums.

use std::io;
use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job};

use super::super::key::{Key, kind};
use super::super::superblock::Root;
use super::super::tree::Tree;
use super::search::{Trees, error};
use crate::{Error, Result};

/// Bytes that are read and checked at once.
const WINDOW: u64 = 1 << 20;
/// `BTRFS_EXTENT_CSUM_OBJECTID`.
const SUMS_OBJECT: u64 = 10u64.wrapping_neg();

/// The checksum tree, or why there is none.
pub(super) type SumsRoot = std::result::Result<Root, &'static str>;

/// Checksums of consecutive sectors.
struct Sums {
    /// One behind the other.
    bytes: Vec<u8>,
    /// Which of them there are.
    is_known: Vec<bool>,
    len: usize,
}

impl Trees<'_> {
    /// Fills `out` from a logical address. Sectors whose first copy is damaged are taken from the
    /// second.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where no copy has the right checksum, else what the medium
    /// reports.
    pub(super) fn read_data(
        &self,
        sums: Option<SumsRoot>,
        logical: u64,
        out: &mut [u8],
    ) -> io::Result<()> {
        let sector_size = u64::from(self.superblock.sector_size);
        let (mut at, mut rest) = (logical, out);
        while !rest.is_empty() {
            // Windows end at the same places whatever is read.
            let window = WINDOW - at % WINDOW;
            let count = usize::try_from(window).map_or(rest.len(), |window| window.min(rest.len()));
            let (now, later) = rest.split_at_mut(count);
            match sums {
                None => self.read_unchecked(at, now)?,
                Some(root) => {
                    let end = (at + count as u64).next_multiple_of(sector_size);
                    let sectors = Extent::between(at - at % sector_size, end);
                    let bytes = self.read_checked(root, sectors)?;
                    let skip = usize::try_from(at - sectors.start).map_err(io::Error::other)?;
                    now.copy_from_slice(&bytes[skip..][..count]);
                }
            }
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    /// Where data lie on the device, once or twice.
    pub(super) fn data_places(&self, extent: Extent) -> Result<Vec<Extent>> {
        let logical = extent.start;
        let lost = |why| Error::damaged(format!("data at logical byte {logical}: {why}"), None);
        let chunk = self.chunks.around(extent).map(|(_, chunk)| chunk);
        let chunk = chunk.filter(|chunk| chunk.holds_data());
        let chunk = chunk.ok_or_else(|| lost("it lies in no chunk of data"))?;
        let places: Vec<Extent> = chunk.places_of(extent).collect();
        match places.is_empty() {
            true => Err(lost("it lies on another device, or in stripes")),
            false => Ok(places),
        }
    }

    fn read_unchecked(&self, logical: u64, out: &mut [u8]) -> io::Result<()> {
        let places = self.data_places(Extent::new(logical, out.len() as u64)).map_err(invalid)?;
        let mut failure = None;
        for place in places {
            match self.volume.data().read_exact_at(out, place.start) {
                Ok(()) => return Ok(()),
                Err(failed) => failure = failure.or(Some(failed)),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
    }

    fn read_checked(&self, root: SumsRoot, sectors: Extent) -> io::Result<Vec<u8>> {
        let sums = self.sums(root, sectors).map_err(invalid)?;
        let places = self.data_places(sectors).map_err(invalid)?;
        let sector_size = self.superblock.sector_size as usize;
        let mut bytes = vec![0; usize::try_from(sectors.len).map_err(io::Error::other)?];
        let mut bad: Vec<usize> = (0..bytes.len() / sector_size).collect();
        let mut failure = None;
        for (n, place) in places.into_iter().enumerate() {
            // Of a second copy, and around what cannot be read, only what is missing.
            let is_read =
                n == 0 && self.volume.data().read_exact_at(&mut bytes, place.start).is_ok();
            bad.retain(|&sector| {
                let at = sector * sector_size;
                let bytes = &mut bytes[at..at + sector_size];
                let offset = place.start + at as u64;
                if !is_read && let Err(failed) = self.volume.data().read_exact_at(bytes, offset) {
                    failure.get_or_insert(failed);
                    return true;
                }
                let is_right = sums
                    .of(sector)
                    .is_some_and(|sum| self.superblock.algorithm.is_sum_of(sum, bytes));
                if !is_right {
                    let what = if sums.of(sector).is_some() { "wrong" } else { "missing" };
                    failure.get_or_insert_with(|| {
                        let what = format!("checksum of the data at byte {offset} is {what}");
                        io::Error::new(io::ErrorKind::InvalidData, what)
                    });
                }
                !is_right
            });
            if bad.is_empty() {
                return Ok(bytes);
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
    }

    fn sums(&self, root: SumsRoot, sectors: Extent) -> Result<Sums> {
        let tree = (Tree::CHECKSUM, root.map_err(|why| Error::damaged(why, None))?);
        let sector_size = u64::from(self.superblock.sector_size);
        let len = self.superblock.algorithm.len();
        let count = usize::try_from(sectors.len / sector_size).unwrap_or(0);
        let mut sums = Sums { bytes: vec![0; count * len], is_known: vec![false; count], len };
        let first = Key::new(SUMS_OBJECT, kind::EXTENT_CSUM, sectors.start);
        let floor = self
            .floor(tree, first)?
            .filter(|key| key.object == SUMS_OBJECT && key.kind == kind::EXTENT_CSUM);
        let to = Key { offset: sectors.end() - 1, ..first };
        self.scan(tree, floor.unwrap_or(first), to, Job::silent(), &mut |item| {
            let start = item.key.offset;
            if start.is_multiple_of(sector_size) {
                let skip = (sectors.start.saturating_sub(start) / sector_size).try_into();
                let mine = start.saturating_sub(sectors.start) / sector_size;
                let theirs = item.data.chunks_exact(len).skip(skip.unwrap_or(usize::MAX));
                let mine = usize::try_from(mine).unwrap_or(usize::MAX)..count;
                for (n, sum) in mine.zip(theirs) {
                    sums.bytes[n * len..][..len].copy_from_slice(sum);
                    sums.is_known[n] = true;
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(sums)
    }

    /// Where the checksum tree begins.
    pub(super) fn sums_root(&self) -> SumsRoot {
        match self.root_of(Tree::CHECKSUM.owner) {
            Ok(Some(root)) => Ok(root),
            Ok(None) => Err("there is no checksum tree"),
            Err(_) => Err("the root of the checksum tree cannot be read"),
        }
    }

    /// Where a tree begins, by the root tree.
    pub(super) fn root_of(&self, tree: u64) -> Result<Option<Root>> {
        let from = Key::new(tree, kind::ROOT_ITEM, 0);
        let to = Key { offset: u64::MAX, ..from };
        let mut found = None;
        let roots = (Tree::ROOT, self.superblock.root);
        self.scan(roots, from, to, Job::silent(), &mut |item| {
            found = Some(super::super::roots::parse(item, Tree::ROOT, self.superblock.generation));
            ControlFlow::Continue(())
        })?;
        found.transpose().map_err(error)
    }
}

impl Sums {
    fn of(&self, sector: usize) -> Option<&[u8]> {
        self.is_known[sector].then(|| &self.bytes[sector * self.len..][..self.len])
    }
}

/// An error of the reader for whoever reads bytes.
pub(super) fn invalid(failure: Error) -> io::Error {
    match failure {
        Error::Io { source, .. } => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
