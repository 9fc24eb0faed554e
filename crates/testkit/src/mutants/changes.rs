use aiv_volume_io::{Extent, MemDisk, ReadAt};

use super::Changes;
use crate::Random;

/// Numbers at which code goes wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// Most bytes that one change concerns.
const BURST_MAX: usize = 64;

/// Changes one to four places in `records` of a volume: bits, bytes, whole numbers of either
/// byte order, bursts, stretches of zeros, bytes of another record, and digits of texts.
///
/// Every record is as likely as every other, however long it is, and the first three, where
/// geometry is, and the front of each, where its header is, more so.
///
/// # Panics
/// When there are no records, or one that the volume does not have.
#[must_use]
pub fn changes(random: &mut Random, volume: &dyn ReadAt, records: &[Extent]) -> Changes {
    let mut changes = Changes::new();
    for _ in 0..=random.below(4) {
        let at = place(random, records);
        let record = records.iter().find(|r| r.start <= at && at < r.end()).expect("in a record");
        let room = usize::try_from(record.end() - at).unwrap_or(BURST_MAX).min(BURST_MAX);
        let mut bytes = vec![0; room];
        volume.read_exact_at(&mut bytes, at).expect("records are on the volume");
        let len = change(random, volume, records, &mut bytes);
        changes.extend((at..).zip(bytes.into_iter().take(len)));
    }
    changes
}

/// A copy of `seed` that was changed as [`changes`] does, and now and then cut off or made longer.
/// Where all of a page is alike nothing is changed: it would swallow most changes.
#[must_use]
pub fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let mut mutant = seed.to_vec();
    let records: Vec<Extent> = (0u64..)
        .step_by(PAGE)
        .zip(seed.chunks(PAGE))
        .filter(|(_, page)| page.iter().any(|byte| *byte != page[0]))
        .map(|(at, page)| Extent::new(at, page.len() as u64))
        .collect();
    if !records.is_empty() {
        for (at, byte) in changes(random, &MemDisk::from_bytes(seed.to_vec()), &records) {
            mutant[usize::try_from(at).expect("inside the seed")] = byte;
        }
    }
    match random.below(16) {
        0 => mutant.truncate(random.below(seed.len().max(1))),
        1 => mutant.resize(seed.len() + random.below(PAGE), 0),
        _ => {}
    }
    mutant
}

/// A byte of a record.
fn place(random: &mut Random, records: &[Extent]) -> u64 {
    let record = match random.below(3) {
        0 => records[random.below(records.len().min(3))],
        _ => records[random.below(records.len())],
    };
    let reach = if random.below(3) > 0 { record.len.min(256) } else { record.len };
    let at = random.next() % reach.max(1);
    // Most fields are where a number of their width may be.
    record.start + if random.below(3) > 0 { at & !3 } else { at }
}

/// Changes the front of `bytes`, and returns how many of them.
fn change(random: &mut Random, volume: &dyn ReadAt, records: &[Extent], bytes: &mut [u8]) -> usize {
    let some = 1 + random.below(bytes.len());
    match random.below(9) {
        0 | 1 => {
            bytes[0] ^= 1 << random.below(8);
            1
        }
        2 => {
            bytes[0] = edge(random).to_le_bytes()[0];
            1
        }
        3..=5 => number(random, bytes),
        6 => {
            random.fill(&mut bytes[..some]);
            some
        }
        7 => {
            let from = records[random.below(records.len())];
            let len = some.min(usize::try_from(from.len).unwrap_or(some));
            let at = from.start + random.next() % (from.len - len as u64 + 1);
            if random.below(2) == 0 {
                bytes[..len].fill(0);
            } else {
                volume.read_exact_at(&mut bytes[..len], at).expect("records are on the volume");
            }
            len
        }
        _ => match bytes.iter().position(u8::is_ascii_digit) {
            Some(at) => {
                bytes[at] = b'0' + u8::try_from(random.below(10)).unwrap_or(0);
                at + 1
            }
            None => {
                bytes[0] = edge(random).to_le_bytes()[0];
                1
            }
        },
    }
}

fn edge(random: &mut Random) -> u64 {
    EDGES[random.below(EDGES.len())]
}

/// Makes a number of 2, 4 or 8 bytes another one: an edge, a neighbour, a multiple, any.
fn number(random: &mut Random, bytes: &mut [u8]) -> usize {
    let width = [2, 4, 4, 8][random.below(4)].min(bytes.len());
    let little = random.below(2) == 0;
    let field = &mut bytes[..width];
    if little {
        field.reverse();
    }
    // Big endian now.
    let old = field.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let new = match random.below(6) {
        0 | 1 => edge(random),
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => old.wrapping_mul(1 << random.below(8)),
        _ => random.next() >> random.below(64),
    };
    let new = new.to_be_bytes();
    field.copy_from_slice(&new[new.len() - width..]);
    if little {
        field.reverse();
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_changes_within_the_records_every_time() {
        let volume = MemDisk::from_bytes((0..=255).cycle().take(5000).collect());
        let records = [Extent::new(100, 1), Extent::new(500, 300), Extent::new(2000, 3000)];
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..2000 {
            let of_seed = || changes(&mut Random::new(&[seed]), &volume, &records);
            let found = of_seed();
            assert_eq!(found, of_seed());
            assert!(!found.is_empty());
            kinds.insert(found.len());
            for &at in found.keys() {
                assert!(records.iter().any(|r| r.start <= at && at < r.end()), "byte {at}");
            }
        }
        assert!(kinds.len() > 50, "{kinds:?}");
    }
}
