//! Images that a crash, or an enemy, left unfinished: read, gone on with, finished and proven.

mod files;
mod make;
mod nonces;

use std::sync::OnceLock;

use aiv_chain::{open_parts, unfinished_chains};
use aiv_image_format::{Corrupt, Depth, ImageSummary, Section, SessionTag, Unfinished};
use aiv_testkit::{MemStorage, mutants};
use aiv_volume_io::Job;

use crate::image::check_entries;
use crate::seeds;
use make::{FILE, PART, finish, folder, push, read, reopen};
use nonces::Nonces;

/// Blocks of an image that is gone on with: what a backup goes on with has the size of its source.
const BLOCKS_MAX: u64 = 64;

/// The seeds of [`reopened`]: the files of each in one.
pub(crate) fn inputs() -> Vec<Vec<u8>> {
    make::seeds().iter().map(|parts| files::join(parts)).collect()
}

/// An unfinished image, in one file or several: its checksums are made right, then it is gone on with as a
/// backup does, and finished. Whatever is wrong with it then is in frames that were there before, and
/// nothing is, where those are sealed; no nonce was used before with its key.
pub fn reopened(data: &[u8]) -> bool {
    let mut parts = files::split(data);
    mutants::mend_begun(&mut parts);
    let storage = folder(&parts);
    drop(parts);
    let _ = unfinished_chains(&storage, Job::silent()).expect("memory");
    let Some((begun, found)) = read(&storage) else { return false };
    check_entries(&found);
    if found.superblock().geometry.blocks() > BLOCKS_MAX {
        return true;
    }
    let session = session(&found);
    if let Some(finished) = finished(&storage, session) {
        judge(&storage, &found, &finished);
        let mut nonces = Nonces::default();
        nonces.see(&storage, Some(session));
        assert_eq!(nonces.repeated(known()), 0, "a nonce comes again");
    } else if let Some(begun) = begun {
        begun.remove(&storage).expect("memory");
        assert_eq!(begun.names().filter(|name| storage.contents(name).is_some()).count(), 0);
    }
    true
}

/// The session of whoever goes on. Random numbers and time are the same for all, as in a virtual machine
/// that is set back: what was there before has to make the difference.
fn session(found: &Unfinished) -> SessionTag {
    let (image, state) = (found.superblock().image, found.fingerprint());
    SessionTag::hedged(&[7; 32], 0, "", image, Some(state))
}

/// Goes on with the image in a folder and finishes it; `None` where that is refused.
fn finished(storage: &MemStorage, session: SessionTag) -> Option<ImageSummary> {
    let (begun, found) = read(storage)?;
    let mut writer = reopen(storage, begun.as_ref(), &found, session).ok()?;
    let blocks = writer.superblock().geometry.blocks();
    push(&mut writer, blocks).ok()?;
    finish(writer).ok()
}

/// Opens and proves what was finished.
fn judge(storage: &MemStorage, found: &Unfinished, finished: &ImageSummary) {
    let keys = match found.superblock().is_keyed() {
        true => seeds::keys().required(),
        false => seeds::keys(),
    };
    let count = finished.trailer.segment_count;
    let image = open_parts(storage, FILE, PART, count, &keys).expect("what was finished opens");
    let is_sealed = found.superblock().is_sealed();
    let report = match image.superblock().parent {
        Some(_) => image.verify_on(make::parent(is_sealed), Depth::Data, Job::silent()),
        None => image.verify(Depth::Data, Job::silent()),
    };
    let report = report.expect("memory");
    // What others say of blocks is for whoever goes on to compare and to prove: in frames, and where a block
    // is a copy of the parent's, in an entry of a checkpoint: which one it is, and its leaf.
    let was_there = |it: &Corrupt| match (it.section, it.what()) {
        (Section::Frame, _) => it.offset < found.len(),
        (Section::IndexPage, what) => {
            ["leaf of a copied block", "parent block"].iter().any(|it_is| what.contains(it_is))
        }
        _ => false,
    };
    let new = report.damage.iter().find(|it| is_sealed || !was_there(it));
    assert!(new.is_none(), "what was written is damaged: {new:?}");
}

/// What was encrypted when the seeds were written, and when each of them was gone on with.
fn known() -> &'static Nonces {
    static KNOWN: OnceLock<Nonces> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut known = Nonces::default();
        for parts in make::seeds() {
            let storage = folder(parts);
            known.see(&storage, None);
            if let Some((_, found)) = read(&storage) {
                let session = session(&found);
                finished(&storage, session).expect("a sound seed");
                known.see(&storage, None);
                known.see(&storage, Some(session));
            }
        }
        known
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_seeds_are_gone_on_with_and_say_what_they_are() {
        let (mut seen, mut split, mut sealed) = (0, 0, 0);
        for parts in make::seeds() {
            let storage = folder(parts);
            let (_, found) = read(&storage).expect("a whole checkpoint");
            let mut mended = parts.clone();
            mutants::mend_begun(&mut mended);
            assert!(mended == *parts, "what is right stays as it is");
            assert!(found.next_block() > 0);
            split += usize::from(found.kept().len() > 1);
            sealed += usize::from(found.superblock().is_sealed());
            let finished = finished(&storage, session(&found)).expect("sound");
            judge(&storage, &found, &finished);
            seen += 1;
        }
        assert!(seen >= 80 && split >= 20 && sealed >= 25, "{seen} {split} {sealed}");
        assert_eq!(known().repeated(&Nonces::default()), 0);
        assert!(known().len() > 300, "{}", known().len());
    }

    /// What would happen if two that go on from different places were one session.
    #[test]
    fn planted_a_session_that_does_not_depend_on_what_was_there_is_caught() {
        let mut caught = 0;
        for parts in make::seeds() {
            let storage = folder(parts);
            let (_, found) = read(&storage).unwrap();
            if !found.superblock().is_sealed() || found.kept().len() > 1 {
                continue;
            }
            // As it was one checkpoint before.
            let mut before = parts[0].clone();
            before.truncate(usize::try_from(found.len()).unwrap() - 1);
            let shorter = folder(&[before]);
            let Some((_, less)) = read(&shorter) else { continue };
            let same = SessionTag([0xdd; 12]);
            assert_ne!(session(&found), session(&less));
            let mut nonces = Nonces::default();
            for storage in [&storage, &shorter] {
                finished(storage, same).unwrap();
                nonces.see(storage, Some(same));
            }
            caught += usize::from(nonces.repeated(&Nonces::default()) > 0);
        }
        assert!(caught >= 5, "{caught}");
    }
}
