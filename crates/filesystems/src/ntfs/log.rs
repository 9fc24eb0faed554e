//! `$LogFile`: whether everything it holds was written to its place.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", `$LogFile`, and what ntfs-3g accepts: the
//! log begins with two restart pages; it is clean when nobody uses it or a flag says so. All
//! bits set is a log that was reset (by ntfs-3g and mkntfs).

use aiv_volume_io::Job;

use super::reason::NtfsLogReason;
use super::record::fix_up;
use super::stream::{Disk, Stream};
use crate::bytes::{array, le16, le32};
use crate::stop::Stop;

const STRIDE: u64 = 1 << 20;
const PAGE_SIZE_MAX: u32 = 64 << 10;

const fn damaged(what: &'static str) -> NtfsLogReason {
    NtfsLogReason::Damaged { what }
}

/// The log says that the records on the volume are all there is. Of an empty one `empty_max` bytes
/// are looked through.
pub(super) fn check_clean(
    disk: &Disk<'_>,
    log: &Stream,
    empty_max: u64,
    job: Job<'_>,
) -> Result<(), Stop> {
    const OP: &str = "read $LogFile";
    let mut head = [0; 512];
    if log.initialised < head.len() as u64 {
        return Err(damaged("it is too short").into());
    }
    log.read(disk, OP, 0, &mut head)?;
    if head == [0xff; 512] {
        return check_empty(disk, log, empty_max, job);
    }
    // Until the update sequence is checked this is only a size to try.
    let page_size = le32(&head, 16);
    if !page_size.is_power_of_two() || !(512..=PAGE_SIZE_MAX).contains(&page_size) {
        return Err(damaged("its pages have an impossible size").into());
    }
    if log.initialised < 2 * u64::from(page_size) {
        return Err(damaged("it is too short").into());
    }
    // Both restart pages are written when a volume is unmounted: one alone is not enough.
    for n in 0..2 {
        let mut page = vec![0; page_size as usize];
        log.read(disk, OP, n * u64::from(page_size), &mut page)?;
        check_restart_page(&mut page)?;
    }
    Ok(())
}

fn check_empty(disk: &Disk<'_>, log: &Stream, empty_max: u64, job: Job<'_>) -> Result<(), Stop> {
    let len = log.initialised.min(empty_max);
    let mut at = 0;
    while at < len {
        job.check()?;
        let mut piece = vec![0; usize::try_from(STRIDE.min(len - at)).unwrap_or(0)];
        log.read(disk, "read $LogFile", at, &mut piece)?;
        if piece.iter().any(|&byte| byte != 0xff) {
            return Err(damaged("it has records but no restart page").into());
        }
        at += STRIDE;
    }
    Ok(())
}

fn check_restart_page(page: &mut [u8]) -> Result<(), NtfsLogReason> {
    const NO_CLIENT: u16 = 0xffff;
    const VOLUME_IS_CLEAN: u16 = 2;
    const AREA_SIZE: usize = 48;
    match &page[..4] {
        b"RSTR" => {}
        b"CHKD" => return Err(NtfsLogReason::Chkdsk),
        _ => return Err(damaged("a restart page has no signature")),
    }
    let page_size = page.len();
    fix_up(page).map_err(|_| damaged("a restart page was not written completely"))?;
    if le32(page, 16) as usize != page_size {
        return Err(damaged("its restart pages have different sizes"));
    }
    let version = (i16::from_le_bytes(array(page, 28)), i16::from_le_bytes(array(page, 26)));
    let (major, minor) = version;
    if version != (1, 1) && version != (1, 0) {
        return Err(NtfsLogReason::Version { major, minor });
    }
    let at = usize::from(le16(page, 24));
    let Some(area) = page.get(at..).and_then(|rest| rest.get(..AREA_SIZE)) else {
        return Err(damaged("a restart area lies outside its page"));
    };
    let (clients, in_use, flags) = (le16(area, 8), le16(area, 12), le16(area, 14));
    if in_use != NO_CLIENT && in_use >= clients {
        return Err(damaged("a restart area has an impossible client"));
    }
    if in_use == NO_CLIENT || flags & VOLUME_IS_CLEAN != 0 {
        Ok(())
    } else {
        Err(NtfsLogReason::NotClean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restart page as Windows leaves it behind.
    fn page() -> Vec<u8> {
        let mut page = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RSTR");
        put(4, &[30, 0, 9, 0]);
        put(16, &4096u32.to_le_bytes());
        put(24, &[48, 0, 1, 0, 1, 0]);
        put(48 + 8, &[1, 0, 0xff, 0xff, 0, 0, 2, 0]);
        page
    }

    fn changed(at: usize, bytes: &[u8]) -> Result<(), NtfsLogReason> {
        let mut page = page();
        page[at..at + bytes.len()].copy_from_slice(bytes);
        check_restart_page(&mut page)
    }

    #[test]
    fn a_clean_restart_page_says_so_by_flag_or_by_having_no_client() {
        assert_eq!(changed(0, b"RSTR"), Ok(()));
        assert_eq!(changed(48 + 12, &[0xff, 0xff, 0, 0]), Ok(()));
        assert_eq!(changed(48 + 14, &[0, 0]), Err(NtfsLogReason::NotClean));
    }

    #[test]
    fn restart_pages_that_are_not_believed() {
        assert_eq!(changed(0, b"CHKD"), Err(NtfsLogReason::Chkdsk));
        let fast = NtfsLogReason::Version { major: 2, minor: 0 };
        assert_eq!(changed(26, &[0, 0, 2, 0]), Err(fast));
        for (at, bytes) in [
            (0, &b"RCRD"[..]),
            (6, &[8, 0]),
            (510, &[1, 0]),
            (16, &8192u32.to_le_bytes()),
            (24, &[0xf0, 0x0f]),
            (48 + 12, &[1, 0]),
        ] {
            let answer = changed(at, bytes);
            assert!(matches!(answer, Err(NtfsLogReason::Damaged { .. })), "{at}: {answer:?}");
        }
    }
}
