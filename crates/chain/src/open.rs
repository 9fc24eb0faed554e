//! Opens image files with few reads: what opening needs, and the index of a small image, lie
//! at the end of the file, on both sides of the gap between the trailers.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aiv_image_format::limits::{PAGE_SIZE, TRAILER_GAP};
use aiv_image_format::{Error as ImageError, Image, Keys, SegmentError};
use aiv_volume_io::{Extent, ReadAt, Storage, Tail};

use crate::error::{Error, Result};
use crate::split::open_split;

/// Bytes of the end of a file that are read at once, but for that gap: of hundreds of files, its bytes
/// cost more than a second read. The tail of the format takes 76 KiB with it, the parity area of a
/// small image 24 KiB; what is left holds stored list and META of such an image, and its tree pages
/// and index, too, when some eighty blocks changed.
const TAIL_BYTES: usize = 120 << 10;

/// Where the index is known to begin, it is read along, unless that is more than this: then a
/// read here and there costs less than all of it.
const TAIL_BYTES_MAX: u64 = 192 << 10;

/// How much of the beginning and the end of a file an opening looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// The first superblock is read: its damage is found.
    Read,
    /// A scan has read it, now or when the file had the same stamp. Its copy, which lies in the
    /// tail and is checked as strictly, stands for it: one read less for each file of a chain.
    Known {
        /// Bytes from the beginning of the index to the end of the file; zero when that is not known.
        tail: u64,
    },
}

impl Head {
    fn tail_bytes(self) -> usize {
        match self {
            Self::Known { tail } if (1..=TAIL_BYTES_MAX).contains(&tail) => {
                usize::try_from(tail).unwrap_or(TAIL_BYTES)
            }
            _ => TAIL_BYTES,
        }
    }
}

/// Opens one image of a folder, with the other segments when it is split, and with whichever of
/// `keys` is its own; a sealed one without a key is locked.
pub(crate) fn open(storage: &dyn Storage, name: &str, head: Head, keys: &Keys) -> Result<Image> {
    let file =
        storage.open(name).map_err(|source| Error::Io { op: format!("opening {name}"), source })?;
    let opened = match open_file(Arc::clone(&file), head, keys) {
        Err(ImageError::Segments(SegmentError::Part { image, number: 1 })) => {
            open_split(storage, name, file, image, head, keys)
        }
        opened => opened,
    };
    opened.map_err(|source| Error::Image { file: name.to_owned(), source })
}

/// As [`open`], and an image of another key is locked like one without.
pub(crate) fn open_or_locked(
    storage: &dyn Storage,
    name: &str,
    head: Head,
    keys: &Keys,
) -> Result<Image> {
    match open(storage, name, head, keys) {
        Err(Error::Image { source: ImageError::WrongKey { .. }, .. }) => {
            open(storage, name, head, &Keys::none())
        }
        opened => opened,
    }
}

/// Opens one file of a folder that is an image by itself; one of another key is locked.
pub(crate) fn open_alone(storage: &dyn Storage, name: &str, keys: &Keys) -> Result<Image> {
    let file =
        storage.open(name).map_err(|source| Error::Io { op: format!("opening {name}"), source })?;
    let opened = match open_file(Arc::clone(&file), Head::Read, keys) {
        Err(ImageError::WrongKey { .. }) => open_file(file, Head::Read, &Keys::none()),
        opened => opened,
    };
    opened.map_err(|source| Error::Image { file: name.to_owned(), source })
}

/// Opens the image in `file`, all of it.
pub(crate) fn open_file(
    file: Arc<dyn ReadAt>,
    head: Head,
    keys: &Keys,
) -> std::result::Result<Image, ImageError> {
    let image = open_stream(file, head, keys)?;
    match image.trailer().segment_count {
        0 | 1 => Ok(image),
        // The slices of several in one file: nobody writes that, and nobody copies it.
        told => Err(SegmentError::Count { told, number: 1 }.into()),
    }
}

/// Opens the image whose bytes `file` has, be they in one file or in several.
pub(crate) fn open_stream(
    file: Arc<dyn ReadAt>,
    head: Head,
    keys: &Keys,
) -> std::result::Result<Image, ImageError> {
    let ends = Arc::new(Ends::of(file, head));
    let opened = Image::open_with(Arc::clone(&ends) as Arc<dyn ReadAt>, keys);
    ends.release();
    match opened {
        // The copy may be what is damaged; whatever is wrong, the usual way says it best.
        Err(_) if head != Head::Read => open_stream(Arc::clone(&ends.inner), Head::Read, keys),
        opened => opened,
    }
}

/// A file whose end is read at once while it is being opened. Afterwards it is the file and
/// nothing else: hundreds of images of a chain must not keep their tails in memory, and the
/// system's cache has just seen them.
struct Ends {
    inner: Arc<dyn ReadAt>,
    /// Where the tail begins, and its length.
    from: u64,
    tail_bytes: usize,
    tail: RwLock<State>,
    /// Whether the first superblock is read from where its copy lies.
    head_is_known: AtomicBool,
}

enum State {
    /// Not needed so far: a foreign file shows itself in its first bytes.
    Unread,
    Here(Tail),
    /// Opening is over, or the tail cannot be read as a whole: a bad sector in it must not
    /// cost the parts beside it.
    Without,
}

impl Ends {
    fn of(inner: Arc<dyn ReadAt>, head: Head) -> Self {
        let tail_bytes = head.tail_bytes();
        let from = inner.len().saturating_sub(tail_bytes as u64);
        // A file that lies in the tail wholly has its head there, too.
        let head_is_known = AtomicBool::new(head != Head::Read && from > 0);
        Self { inner, from, tail_bytes, tail: RwLock::new(State::Unread), head_is_known }
    }

    fn release(&self) {
        self.head_is_known.store(false, Ordering::Relaxed);
        *self.tail.write().unwrap_or_else(PoisonError::into_inner) = State::Without;
    }

    /// Reads from the tail, or says that it cannot.
    fn read_in_tail(&self, out: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        match &*self.tail.read().unwrap_or_else(PoisonError::into_inner) {
            State::Here(tail) => return Some(tail.read_exact_at(out, offset)),
            State::Without => return None,
            State::Unread => {}
        }
        let len = self.inner.len();
        let before_gap = len.saturating_sub(2 * PAGE_SIZE as u64 + TRAILER_GAP);
        // An image with parity over all of it has a wider one; what is asked for is read then.
        let gap = Extent::between(before_gap, len.saturating_sub(2 * PAGE_SIZE as u64));
        let read = Tail::read_around(Arc::clone(&self.inner), self.tail_bytes, gap);
        let mut state = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        *state = read.map_or(State::Without, State::Here);
        match &*state {
            State::Here(tail) => Some(tail.read_exact_at(out, offset)),
            State::Unread | State::Without => None,
        }
    }
}

impl ReadAt for Ends {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset == 0 && out.len() == PAGE_SIZE && self.head_is_known.load(Ordering::Relaxed) {
            offset = self.len() - 2 * PAGE_SIZE as u64;
        }
        // Frames lie before the tail and are read without asking for the lock.
        if offset >= self.from
            && let Some(read) = self.read_in_tail(out, offset)
        {
            return read;
        }
        self.inner.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.inner.holes(range)
    }

    fn file(&self) -> Option<&File> {
        self.inner.file()
    }
}

#[cfg(test)]
mod tests {
    use aiv_testkit::{FaultStorage, MemStorage, Op};
    use aiv_volume_io::MemDisk;

    use super::*;
    use crate::testing::{image, image_of};

    const KNOWN: Head = Head::Known { tail: 0 };

    /// A full image with a tail larger than what is read at once, so that its head lies apart.
    fn large() -> Vec<u8> {
        image_of(1, "sda", 1, &vec![7; 256 << 10])
    }

    fn reads(bytes: Vec<u8>, head: Head) -> (usize, std::result::Result<usize, String>) {
        let storage = MemStorage::new();
        storage.insert("a", bytes);
        let storage = FaultStorage::new(storage);
        let opened = open(&storage, "a", head, &Keys::none());
        let reads = storage.trace().iter().filter(|o| o.op == Op::Read).count();
        (reads, opened.map(|image| image.damage().len()).map_err(|e| crate::folder::why(&e)))
    }

    #[test]
    fn an_image_is_opened_with_three_reads_and_with_two_when_its_head_is_known() {
        assert_eq!(reads(image(1, "sda", 1), Head::Read), (3, Ok(0)));
        assert_eq!(reads(image(1, "sda", 1), KNOWN), (2, Ok(0)));
        assert_eq!(reads(large(), Head::Read), (3, Ok(0)));
        assert_eq!(reads(large(), KNOWN), (2, Ok(0)));
    }

    #[test]
    fn damage_of_either_superblock_is_found_or_made_up_for() {
        let mut first = large();
        first[100] ^= 1;
        assert_eq!(reads(first.clone(), Head::Read), (3, Ok(1)));
        assert_eq!(reads(first, KNOWN), (2, Ok(0)), "a scan has said so");
        let mut copy = large();
        let at = copy.len() - 8000;
        copy[at] ^= 1;
        assert_eq!(reads(copy, KNOWN).1, Ok(0), "the first one is sound");
    }

    #[test]
    fn a_foreign_file_is_read_no_further_than_needed() {
        let (reads, opened) = reads(vec![7; 1 << 20], Head::Read);
        assert!(opened.unwrap_err().contains("not an Aivory image"));
        assert!(reads <= 3, "{reads}");
    }

    #[test]
    fn a_bad_sector_in_the_tail_costs_only_what_lies_in_it() {
        struct Bad(Vec<u8>, usize);
        impl ReadAt for Bad {
            fn len(&self) -> u64 {
                self.0.len() as u64
            }
            fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
                let from = usize::try_from(offset).unwrap();
                if (from..from + out.len()).contains(&self.1) {
                    return Err(io::Error::from_raw_os_error(5));
                }
                out.copy_from_slice(&self.0[from..from + out.len()]);
                Ok(())
            }
        }
        let bytes = large();
        let len = bytes.len();
        for (at, damage) in [(len - 100, 1), (len - 77_000, 1), (len - 5000, 0), (len - 20_000, 0)]
        {
            for head in [Head::Read, KNOWN] {
                let image =
                    open_file(Arc::new(Bad(bytes.clone(), at)), head, &Keys::none()).unwrap();
                assert_eq!(image.damage().len(), damage, "bad sector at {at}, {head:?}");
            }
        }
    }

    #[test]
    fn an_open_image_keeps_no_tail() {
        let file: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(large()));
        let ends = Ends::of(file, Head::Read);
        ends.read_exact_at(&mut [0; 10], ends.from).unwrap();
        assert!(matches!(*ends.tail.read().unwrap(), State::Here(_)));
        ends.release();
        ends.read_exact_at(&mut [0; 10], ends.from).unwrap();
        assert!(matches!(*ends.tail.read().unwrap(), State::Without));
    }
}
