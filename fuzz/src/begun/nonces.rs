//! What was encrypted under which key and nonce, looked for in the bytes of files.

use std::collections::HashMap;

use aiv_image_format::{ImageId, SessionTag, peek};
use aiv_testkit::MemStorage;
use aiv_volume_io::Storage;

use super::make::part;

const HEAD: usize = 64;
const PAGE: usize = 4096;
/// Kinds of frames that are sealed.
const SEALABLE: [u8; 5] = [1, 2, 3, 4, 7];

/// What stands for a key of an image (session and what is encrypted), and the nonce under it.
type Use = (SessionTag, u16, u64, u32);

/// Sealed frames and pages that were seen, with a hash of each.
#[derive(Default)]
pub(super) struct Nonces {
    seen: HashMap<(ImageId, Use), [u8; 32]>,
    /// Pairs that were used for two different things.
    twice: usize,
}

impl Nonces {
    /// Looks at every frame and page of the image in a folder; of one session alone, where it is told.
    pub(super) fn see(&mut self, storage: &MemStorage, session: Option<SessionTag>) {
        let files = (0..).map_while(|no| storage.contents(&part(no)));
        let Some(superblock) = storage.open(&part(0)).ok().and_then(|first| peek(&*first)) else {
            return;
        };
        let image = superblock.image;
        for bytes in files.filter(|_| superblock.is_sealed()) {
            for at in (0..bytes.len().saturating_sub(HEAD)).step_by(HEAD) {
                let found = match (frame(&bytes[at..]), session) {
                    (None, Some(session)) => page(&bytes[at..], session),
                    (found, _) => found,
                };
                let Some((sealed, used)) = found else { continue };
                if session.is_none_or(|session| session == used.0) {
                    let made = *blake3::hash(sealed).as_bytes();
                    let before = self.seen.insert((image, used), made);
                    self.twice += usize::from(before.is_some_and(|before| before != made));
                }
            }
        }
    }

    /// Number of pairs.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Pairs that were used for two different things here, or here and there.
    pub(super) fn repeated(&self, others: &Self) -> usize {
        let differs = |(used, made): (&(ImageId, Use), &[u8; 32])| {
            others.seen.get(used).is_some_and(|before| before != made)
        };
        self.twice + self.seen.iter().filter(|seen| differs(*seen)).count()
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The sealed frame that `bytes` begin with: it says nothing about its content.
fn frame(bytes: &[u8]) -> Option<(&[u8], Use)> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    if !head.starts_with(b"AVF1") || !SEALABLE.contains(&head[4]) || head[32..44] != [0; 12] {
        return None;
    }
    let len = usize::try_from(number(&head[44..48])).ok()?;
    let frame = bytes.get(..HEAD.checked_add(len)?)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(b"aiv.load"), &frame[HEAD..]);
    let salt = u32::try_from(number(&head[20..24])).ok()?;
    let session = SessionTag(*head[8..20].first_chunk()?);
    let is_sound = u64::from(sum) == number(&head[48..52]);
    is_sound.then(|| (frame, (session, 0, number(&head[24..32]), salt)))
}

/// The sealed page that `bytes` begin with: in its key is the session that closes the image, which it
/// does not tell.
fn page(bytes: &[u8], by: SessionTag) -> Option<(&[u8], Use)> {
    let page: &[u8; PAGE] = bytes.first_chunk()?;
    let is_sealed = page.starts_with(b"AVP1") && page[40..56] != [0; 16];
    let used = (by, 0x100 | u16::from(page[4]), number(&page[8..16]), 0);
    is_sealed.then_some((&page[..], used))
}
