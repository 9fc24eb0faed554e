//! Linux swap space: nothing but its header matters.
//!
//! What is swapped out belongs to a system that runs no more when the volume is restored. Only
//! the first page, with label and UUID, and what lies after the last page is kept. The magic
//! alone does not prove that the volume is still swap: a filesystem made later, whose own
//! records begin further inside, leaves it in place. So the header has to be as `mkswap` leaves
//! it (the first kilobyte and the rest of the page zero), and where filesystems that this crate
//! has no name for keep their signature there must not be one. A system suspended to disk lives
//! in the swapped pages and is kept, and so is a swap space with bad pages: rare, and old
//! disks deserve the whole copy.
//!
//! Facts: `union swap_header` in `include/linux/swap.h` and `kernel/power/swap.c` of Linux,
//! `mkswap` and `libblkid` of util-linux.

mod foreign;
mod reason;

use std::ops::Range;

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::bytes::{be32, le32};
use crate::stop::Stop;
use crate::{Error, Result, UsedMap};
pub use reason::SwapReason;

/// The last ten bytes of the first page.
pub(crate) const MAGIC: &[u8; 10] = b"SWAPSPACE2";

/// What takes the place of the magic while a system sleeps: the kernel's own, the older
/// kernel's, `uswsusp`, and hibernation of some phones.
pub(crate) const SUSPENDED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

/// How the first page begins while a system sleeps by TuxOnIce, which leaves the magic in place.
pub(crate) const TUXONICE: &[u8; 8] = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c";

/// Sizes a page has on some machine, smallest first.
pub(crate) const PAGE_SIZES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// Offset of the fields in the header, after room for boot code.
const INFO_AT: usize = 1024;
/// After version, last page, number of bad pages, UUID and label: padding and bad pages.
const INFO_END: usize = INFO_AT + 44;

/// Reads the used-block map of a swap space.
pub(crate) fn used_map(volume: &dyn ReadAt) -> Result<UsedMap> {
    Stop::answer(read(volume))
}

fn read(volume: &dyn ReadAt) -> std::result::Result<UsedMap, Stop> {
    let len = usize::try_from(volume.len()).unwrap_or(foreign::HEAD_LEN).min(foreign::HEAD_LEN);
    let mut head = vec![0; len];
    volume.read_exact_at(&mut head, 0).map_err(Error::io("read swap header", 0))?;
    let page_size = page_size(&head)?;
    let end = check_header(&head[..page_size], volume.len())?;
    if let Some(name) = foreign::signature(&head) {
        return Err(SwapReason::OtherSignature { name }.into());
    }
    let mut used = ExtentSet::new();
    used.push(Extent::new(0, page_size as u64));
    used.push(Extent::between(end, volume.len()));
    let cluster_size = u32::try_from(page_size).unwrap_or(u32::MAX);
    Ok(UsedMap::Used { used, cluster_size, notes: Vec::new() })
}

/// The page size whose first page ends with the magic, if there is only one.
fn page_size(head: &[u8]) -> std::result::Result<usize, SwapReason> {
    if head.starts_with(TUXONICE) {
        return Err(SwapReason::Suspended);
    }
    let mut found = None;
    for page_size in PAGE_SIZES {
        let Some(end) = head.get(page_size - MAGIC.len()..page_size) else { continue };
        if SUSPENDED.iter().any(|magic| end.starts_with(magic)) {
            return Err(SwapReason::Suspended);
        }
        if end == MAGIC && found.replace(page_size).is_some() {
            return Err(SwapReason::TwoPageSizes);
        }
    }
    found.ok_or(SwapReason::NoHeader)
}

/// Checks the first page, and returns the byte after the last one.
fn check_header(page: &[u8], volume_len: u64) -> std::result::Result<u64, SwapReason> {
    // The machine that made it may have had either byte order.
    let read32 = match (le32(page, INFO_AT), be32(page, INFO_AT)) {
        (1, _) => le32,
        (_, 1) => be32,
        (found, _) => return Err(SwapReason::Field { field: "version", found, allowed: "1" }),
    };
    let last_page = read32(page, INFO_AT + 4);
    if last_page == 0 {
        return Err(SwapReason::Field { field: "last_page", found: 0, allowed: "1 or more" });
    }
    let end = (u64::from(last_page) + 1) * page.len() as u64;
    if end > volume_len {
        return Err(SwapReason::LargerThanVolume { swap: end, volume: volume_len });
    }
    let pages = read32(page, INFO_AT + 8);
    if pages != 0 {
        return Err(SwapReason::BadPages { pages });
    }
    check_zero(page, 0..INFO_AT)?;
    check_zero(page, INFO_END..page.len() - MAGIC.len())?;
    Ok(end)
}

fn check_zero(page: &[u8], range: Range<usize>) -> std::result::Result<(), SwapReason> {
    match page[range.clone()].iter().position(|&byte| byte != 0) {
        Some(at) => Err(SwapReason::NotEmpty { offset: (range.start + at) as u64 }),
        None => Ok(()),
    }
}
