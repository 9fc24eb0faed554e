//! Whether payloads are what their headers say, at a cost that the length of the file bounds.
//!
//! A payload that is damaged is summed for nothing, and a file may hold a header at every 64 bytes
//! that asks for 16 MiB. So when more was summed for nothing than the file was long up to here,
//! the sum of a payload is taken from two sums of everything in front of its ends: that of a part
//! follows from them, since a CRC is linear. No frame is missed by that.

use std::collections::VecDeque;

use crate::layout::{FRAME_HEADER_SIZE, FrameHeader};
use crate::limits::{FRAME_ALIGN, PAGE_SIZE, STORED_LEN_MAX};

const STRIDE: usize = 64;
const _: () = assert!(STRIDE as u64 == FRAME_ALIGN && STRIDE == FRAME_HEADER_SIZE);

/// Bytes that may be summed for nothing at the beginning of a file: some honest damage.
const CREDIT: u64 = 2 * STORED_LEN_MAX as u64;

/// Bits of the length of a payload.
const LEN_BITS: u32 = STORED_LEN_MAX.ilog2() + 1;

/// Checks payloads, front to back.
#[derive(Default)]
pub(super) struct Checks {
    /// Bytes that were summed for nothing.
    in_vain: u64,
    sums: Option<Sums>,
}

impl Checks {
    /// The payload of the frame at `at`, with whose `header` the bytes in `frame` begin, if it is
    /// sound. Offsets never go back.
    pub(super) fn payload<'f>(
        &mut self,
        header: &FrameHeader,
        frame: &'f [u8],
        at: u64,
    ) -> Option<&'f [u8]> {
        let len = header.stored_len as usize;
        let payload = frame.get(FRAME_HEADER_SIZE..)?.get(..len)?;
        // Short ones cost no more than what looks like a page.
        let is_sound = if len <= PAGE_SIZE || self.in_vain <= at.saturating_add(CREDIT) {
            let is_sound = FrameHeader::payload_crc(payload) == header.payload_crc;
            self.in_vain += if is_sound { 0 } else { len as u64 };
            is_sound
        } else {
            let sums = self.sums.get_or_insert_with(Sums::new);
            sums.of(payload, at.saturating_add(STRIDE as u64)) == header.payload_crc
        };
        is_sound.then_some(payload)
    }
}

/// Sums from one place on up to every 64th byte: those a payload may begin and end behind.
struct Sums {
    /// What 2^n zero bytes make of each bit of a sum.
    zeros: Vec<[u32; 32]>,
    /// The sum of no payload: that of the salt.
    salt: u32,
    /// Where in the file the first of `sums` ends.
    first: u64,
    /// Never empty.
    sums: VecDeque<u32>,
    /// Bytes that were summed.
    #[cfg(test)]
    summed: u64,
}

impl Sums {
    fn new() -> Self {
        let of_bit = |log2: u32| move |bit| crc32c::crc32c_combine(1u32 << bit, 0, 1 << log2);
        Self {
            zeros: (0..LEN_BITS).map(|log2| std::array::from_fn(of_bit(log2))).collect(),
            salt: FrameHeader::payload_crc(&[]),
            first: 0,
            sums: VecDeque::from([0]),
            #[cfg(test)]
            summed: 0,
        }
    }

    /// The sum of the salt and `payload`, which begins at `at`.
    fn of(&mut self, payload: &[u8], at: u64) -> u32 {
        let stride = STRIDE as u64;
        let behind = (at.saturating_sub(self.first) / stride).min(self.sums.len() as u64);
        self.sums.drain(..usize::try_from(behind).unwrap_or(self.sums.len()));
        if self.sums.is_empty() || at < self.first {
            self.sums = VecDeque::from([0]);
        }
        self.first = at;
        let (whole, rest) = payload.as_chunks::<STRIDE>();
        let mut last = self.sums.back().copied().unwrap_or(0);
        for chunk in whole.get(self.sums.len() - 1..).unwrap_or_default() {
            last = crc32c::crc32c_append(last, chunk);
            self.sums.push_back(last);
            #[cfg(test)]
            {
                self.summed += stride;
            }
        }
        let front = self.sums.front().copied().unwrap_or(0);
        let end = self.sums.get(whole.len()).copied().unwrap_or(0);
        self.before(self.salt ^ front, payload.len()) ^ crc32c::crc32c_append(end, rest)
    }

    /// What `sum` becomes of, when `len` zero bytes follow.
    fn before(&self, mut sum: u32, len: usize) -> u32 {
        for (log2, zeros) in self.zeros.iter().enumerate() {
            if len >> log2 & 1 == 1 {
                let bits = zeros.iter().enumerate().filter(|(bit, _)| sum >> bit & 1 == 1);
                sum = bits.fold(0, |made, (_, of_bit)| made ^ of_bit);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::FrameKind;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn a_sum_made_of_two_is_the_sum_of_the_payload() {
        let bytes = noise(300_000);
        let mut sums = Sums::new();
        let mut random = aiv_testkit::Random::new(&[1]);
        let mut at = 0;
        while at < bytes.len() - 64 {
            for _ in 0..3 {
                let len = random.below((bytes.len() - at).min(40_000));
                let payload = &bytes[at..at + len];
                assert_eq!(sums.of(payload, at as u64), FrameHeader::payload_crc(payload), "{at}");
            }
            let most = if random.below(9) == 0 { 900 } else { 4 };
            at += 64 * (1 + random.below(most));
        }
    }

    #[test]
    fn headers_at_every_64_bytes_cost_a_few_times_the_length_of_the_file() {
        let bytes = noise(18 << 20);
        let header = FrameHeader {
            kind: FrameKind::Data,
            codec: 1,
            is_damaged: false,
            depth: 0,
            session: crate::ids::SessionTag::default(),
            seq: 0,
            subject: 0,
            plain_len: 1 << 16,
            stored_len: STORED_LEN_MAX,
            payload_crc: 0,
            leaf_prefix: [0; 8],
            seal: None,
        };
        let mut checks = Checks::default();
        let len = bytes.len() - FRAME_HEADER_SIZE;
        let mut looks = 0;
        for at in (0..len).step_by(STRIDE) {
            let stored = (len - at).min(STORED_LEN_MAX as usize);
            let header = FrameHeader { stored_len: u32::try_from(stored).unwrap(), ..header };
            assert!(checks.payload(&header, &bytes[at..], at as u64).is_none());
            looks += 1;
        }
        assert!(looks > 250_000);
        let summed = checks.in_vain + checks.sums.unwrap().summed;
        // The credit and one payload more, once the file, and the shortest ones.
        let most = CREDIT + u64::from(STORED_LEN_MAX) + 2 * bytes.len() as u64;
        assert!(summed < most + 64 * 4096, "{summed}");
        assert!(summed > 50 << 20, "and all of them were looked at");
    }
}
