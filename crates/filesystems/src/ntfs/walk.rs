//! One pass over `$MFT`: which clusters the files say are theirs.

use aiv_volume_io::Job;

use super::bitmap::Bitmap;
use super::mft::Mft;
use super::reason::NtfsReason;
use super::record::{Attribute, FILE_NAME, Record, Value, number_of};
use crate::bytes::le64;
use crate::stop::Stop;

/// Records below are the filesystem's own files ("NTFS documentation", system files; 11 is
/// `$Extend`).
const SYSTEM_RECORDS: u64 = 12;
/// Record of the root directory.
const ROOT: u64 = 5;

/// The clusters of all files. Fails when two files share one, or when `bitmap` calls a cluster
/// of a system file free.
pub(super) fn allocated(mft: &Mft<'_>, bitmap: &Bitmap, job: Job<'_>) -> Result<Bitmap, Stop> {
    let clusters = mft.disk.geometry.clusters;
    let mut walk = Walk { clusters, bitmap, seen: Bitmap::empty(clusters), hibernation: None };
    mft.for_each(job, |record| Ok(walk.record(record)?))?;
    let Walk { seen, hibernation, .. } = walk;
    check_awake(mft, hibernation, job)?;
    Ok(seen)
}

struct Walk<'a> {
    clusters: u64,
    bitmap: &'a Bitmap,
    seen: Bitmap,
    /// The file that Windows saves its memory in.
    hibernation: Option<u64>,
}

impl Walk<'_> {
    fn record(&mut self, record: &Record<'_>) -> Result<(), NtfsReason> {
        for attribute in record.attributes() {
            let attribute = attribute?;
            if is_hibernation_file(&attribute) {
                self.hibernation = Some(record.file());
            }
            let Value::Mapped(mapped) = attribute.value else { continue };
            for run in mapped.runs(record.number, self.clusters) {
                let run = run?;
                // A hole of a sparse or compressed file, or of the list of bad clusters.
                let Some(lcn) = run.lcn else { continue };
                self.claim(record, lcn, run.len)?;
            }
        }
        Ok(())
    }

    fn claim(&mut self, record: &Record<'_>, lcn: u64, len: u64) -> Result<(), NtfsReason> {
        if let Some(cluster) = self.seen.claim(lcn, len) {
            return Err(NtfsReason::Overlap { record: record.number, cluster });
        }
        let file = record.file();
        if file < SYSTEM_RECORDS
            && let Some(cluster) = self.bitmap.first_clear(lcn, len)
        {
            return Err(NtfsReason::SystemFree { record: file, cluster });
        }
        Ok(())
    }
}

/// Whether an attribute is the name `hiberfil.sys` in the root directory.
fn is_hibernation_file(attribute: &Attribute<'_>) -> bool {
    const NAME: &[u8] = b"hiberfil.sys";
    let Value::Resident(value) = attribute.value else { return false };
    if attribute.kind != FILE_NAME || value.len() != 66 + 2 * NAME.len() {
        return false;
    }
    let name = value[66..].chunks_exact(2);
    number_of(le64(value, 0)) == ROOT
        && name.zip(NAME).all(|(unit, byte)| unit[1] == 0 && unit[0].eq_ignore_ascii_case(byte))
}

/// While Windows is hibernated the file begins with a signature, and other volumes of the same
/// computer have one that is too short for a header (both are what ntfs-3g looks for). A file
/// that cannot be read proves nothing, so it counts as the former.
fn check_awake(mft: &Mft<'_>, file: Option<u64>, job: Job<'_>) -> Result<(), Stop> {
    const HEADER_SIZE: u64 = 4096;
    let Some(file) = file else { return Ok(()) };
    let contents = match mft.file(file, job) {
        Err(Stop::Whole(_)) => return Err(NtfsReason::Hibernated.into()),
        contents => contents?,
    };
    let mut signature = [0; 4];
    if contents.size >= HEADER_SIZE {
        contents.read(mft.disk, "read hiberfil.sys", 0, &mut signature)?;
        if !signature.eq_ignore_ascii_case(b"hibr") {
            return Ok(());
        }
    }
    Err(NtfsReason::Hibernated.into())
}
