//! What was encrypted under which key and nonce, taken from the bytes that writers hand over.

use std::collections::HashMap;
use std::fmt;

use aiv_image_format::SessionTag;

const HEAD: usize = 64;
const PAGE: usize = 4096;
/// Types of frames that are sealed.
const SEALABLE: [u8; 5] = [1, 2, 3, 4, 7];

/// What stands for a key and a part of the nonce: the session, and the salt of its frames or (beyond
/// 32 bits) the kind of its pages.
type Series = (SessionTag, u64);

/// What was encrypted, as the authentication tag says that belongs to it: with one key and one nonce,
/// other bytes have another tag.
type Made = u64;

/// Nonces of a history.
#[derive(Default)]
pub(super) struct Seen {
    /// Numbers that were used one after the other, from the first on.
    rows: HashMap<Series, (u64, Vec<Made>)>,
    /// Those that were not.
    others: HashMap<(Series, u64), Made>,
    /// The next page of each kind that a writer has to write.
    next_pages: HashMap<(u64, u64), u64>,
    pub counts: Counts,
}

/// How much was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub frames: u64,
    pub pages: u64,
    /// Frames and pages that came a second time as they were.
    pub again: u64,
    /// Those under whose key and nonce something else was encrypted before.
    pub repeated: u64,
    /// Sealed frames of which only a part was handed over at once: nobody has looked at them.
    pub unread: u64,
    /// Writers that began an image, and that went on with one.
    pub begun: u64,
    pub gone_on: u64,
    pub finished: u64,
}

impl Counts {
    pub(super) fn add(&mut self, more: Self) {
        self.frames += more.frames;
        self.pages += more.pages;
        self.again += more.again;
        self.repeated += more.repeated;
        self.unread += more.unread;
        self.begun += more.begun;
        self.gone_on += more.gone_on;
        self.finished += more.finished;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, pages, again, repeated, unread, begun, gone_on, finished } = self;
        write!(
            f,
            "{frames} frames and {pages} pages, {again} of them twice as they were, {begun} images \
             begun, gone on with {gone_on} times, {finished} finished, {repeated} nonces repeated, \
             {unread} frames not looked at"
        )
    }
}

impl Seen {
    /// Looks at all frames and pages in what the `writer`th writer, in a session of its own, appends at
    /// `at`. What was looked at ends where the last one of them ends, maybe behind these bytes; returns
    /// where, from where it ended before on.
    pub(super) fn look(
        &mut self,
        writer: u64,
        session: SessionTag,
        at: u64,
        bytes: &[u8],
        mut looked: u64,
    ) -> u64 {
        loop {
            let place = looked.checked_sub(at).and_then(|place| usize::try_from(place).ok());
            let rest = place.and_then(|place| bytes.get(place..)).unwrap_or_default();
            if rest.len() < HEAD {
                return looked;
            }
            let size = match (Frame::of(rest), page(rest)) {
                (Some(frame), _) => {
                    if let Some(made) = frame.made {
                        self.counts.frames += 1;
                        self.used((frame.session, frame.salt), frame.seq, made);
                    }
                    self.counts.unread += u64::from(frame.is_sealed && frame.made.is_none());
                    frame.size
                }
                (None, Some((kind, number, made))) => {
                    // The sum of an odd number of pages, which parity has, looks like a page. Those of
                    // a writer come one after the other.
                    let next = self.next_pages.entry((writer, kind)).or_default();
                    if number == *next {
                        *next += 1;
                        self.counts.pages += 1;
                        // In its key is the session that closes the image, which is the one that writes.
                        self.used((session, kind), number, made);
                    }
                    PAGE
                }
                (None, None) => HEAD,
            };
            looked += size as u64;
        }
    }

    fn used(&mut self, series: Series, number: u64, made: Made) {
        let (first, row) = self.rows.entry(series).or_insert_with(|| (number, Vec::new()));
        let place = number.checked_sub(*first).and_then(|place| usize::try_from(place).ok());
        let before = match place {
            Some(place) if place == row.len() => {
                row.push(made);
                None
            }
            Some(place) if place < row.len() => Some(row[place]),
            _ => self.others.insert((series, number), made),
        };
        self.counts.again += u64::from(before == Some(made));
        self.counts.repeated += u64::from(before.is_some_and(|before| before != made));
    }

    /// The sessions that were seen.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionTag> {
        self.rows.keys().map(|(session, _)| *session)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A frame, as far as this matters here. Fields and checksums are those of docs/format.md, section 4.
struct Frame {
    session: SessionTag,
    salt: u64,
    seq: u64,
    size: usize,
    is_sealed: bool,
    /// Of a sealed one that is whole.
    made: Option<Made>,
}

impl Frame {
    /// The frame that `bytes` begin with.
    fn of(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        let sum = || crc32c::crc32c_append(crc32c::crc32c(b"aiv.fram"), &head[..60]);
        if !head.starts_with(b"AVF1") || u64::from(sum()) != number(&head[60..]) {
            return None;
        }
        let len = HEAD + usize::try_from(number(&head[44..48])).ok()?;
        let is_sealed = SEALABLE.contains(&head[4]) && head[32..44] == [0; 12];
        let payload = bytes.get(HEAD..len).filter(|_| is_sealed);
        Some(Self {
            session: SessionTag(*head[8..20].first_chunk()?),
            salt: number(&head[20..24]),
            seq: number(&head[24..32]),
            size: len.next_multiple_of(HEAD),
            is_sealed,
            made: payload.and_then(|payload| Some(number(payload.last_chunk::<8>()?))),
        })
    }
}

/// The sealed page that `bytes` begin with: its kind, number, and what was made (section 5).
fn page(bytes: &[u8]) -> Option<(u64, u64, Made)> {
    let page: &[u8; PAGE] = bytes.first_chunk()?;
    let name: &[u8] = match page[4] {
        1 => b"aiv.indx",
        2 => b"aiv.tree",
        _ => return None,
    };
    if !page.starts_with(b"AVP1") || page[40..56] == [0; 16] {
        return None;
    }
    let sum =
        [&page[..60], &page[HEAD..]].into_iter().fold(crc32c::crc32c(name), crc32c::crc32c_append);
    let is_sound = u64::from(sum) == number(&page[60..64]);
    is_sound.then(|| (1 << 32 | u64::from(page[4]), number(&page[8..16]), number(&page[40..48])))
}
