//! Parity as `docs/format.md` section 7 defines it: a second implementation, for forged images
//! and as a judge of the first.

use crate::areas::PAGE;
use crate::naive::keyed;

const KEY_PAGE: &str = "aivory draft: index page        ";

/// Product in GF(2^8), by long multiplication and division by 0x11D.
pub(crate) fn product(a: u8, b: u8) -> u8 {
    let mut wide = 0u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            wide ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if wide >> bit & 1 == 1 {
            wide ^= 0x11d << (bit - 8);
        }
    }
    u8::try_from(wide).expect("reduced")
}

fn quotient(a: u8, b: u8) -> u8 {
    (0..=255).find(|&q| product(q, b) == a).expect("b is not zero")
}

pub(crate) fn coefficient(row: u8, column: u8) -> u8 {
    quotient(255 ^ column, (255 - row) ^ column)
}

/// The four parity shards of `shards`, one after the other.
pub(crate) fn parity(shards: &[&[u8]], len: usize) -> Vec<u8> {
    let packet = len / 8;
    let mut out = vec![0; 4 * len];
    for row in 0..4u8 {
        let parity = &mut out[usize::from(row) * len..][..len];
        for (column, shard) in (0u8..).zip(shards) {
            let factor = coefficient(row, column);
            for c in 0..8usize {
                let image = product(factor, 1 << c);
                let from = &shard[c * packet..][..packet];
                for r in (0..8usize).filter(|r| image >> r & 1 == 1) {
                    let to = &mut parity[r * packet..][..packet];
                    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= from);
                }
            }
        }
    }
    out
}

/// Pages of each group, and its stripes.
pub(crate) fn groups(pages: usize, with_data_parity: bool) -> Vec<(usize, usize)> {
    let count = pages.div_ceil(512);
    let stripes_min = if with_data_parity { 13 } else { 1 };
    (0..count)
        .map(|number| pages / count + usize::from(number < pages % count))
        .map(|pages| (pages, pages.div_ceil(16).max(stripes_min)))
        .collect()
}

/// The length of the parity area over so many pages.
pub(crate) fn area_len(pages: usize, with_data_parity: bool) -> usize {
    let of = |(pages, stripes): (usize, usize)| {
        let parity = 4 * stripes;
        parity + 2 * (pages + parity).div_ceil(252)
    };
    groups(pages, with_data_parity).into_iter().map(of).sum::<usize>() * PAGE
}

/// The parity area over `protected`: the superblock and everything from the index to the end of
/// the stored list.
pub(crate) fn area(protected: &[u8], image: &[u8], with_data_parity: bool) -> Vec<u8> {
    let all: Vec<&[u8]> = protected.chunks(PAGE).collect();
    let mut area = Vec::new();
    let (mut first, mut page_no) = (0, 0u64);
    for (count, stripes) in groups(all.len(), with_data_parity) {
        let pages = &all[first..first + count];
        first += count;
        let mut row: Vec<Vec<u8>> = vec![Vec::new(); 4 * stripes];
        for stripe in 0..stripes {
            let shards: Vec<&[u8]> = pages.iter().copied().skip(stripe).step_by(stripes).collect();
            let parity = parity(&shards, PAGE);
            // The parity pages of the stripe, in the order in which they come up.
            let places = (0..row.len()).filter(|place| (count + place) % stripes == stripe);
            places.zip(parity.chunks(PAGE)).for_each(|(place, page)| row[place] = page.to_vec());
        }
        let hashes: Vec<[u8; 16]> = pages
            .iter()
            .copied()
            .chain(row.iter().map(Vec::as_slice))
            .map(|page| keyed(KEY_PAGE, &[page])[..16].try_into().expect("half of it"))
            .collect();
        let mut directory = Vec::new();
        for (number, hashes) in hashes.chunks(252).enumerate() {
            let mut page = vec![0; PAGE];
            page[..4].copy_from_slice(b"AVP1");
            page[4] = 3;
            page[6..8].copy_from_slice(&u16::try_from(hashes.len()).unwrap().to_le_bytes());
            page[8..16].copy_from_slice(&page_no.to_le_bytes());
            page[16..24].copy_from_slice(&(number as u64 * 252).to_le_bytes());
            page[24..40].copy_from_slice(image);
            page[64..64 + hashes.len() * 16].copy_from_slice(&hashes.concat());
            let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.pdir"), &page[..60]);
            let crc = crc32c::crc32c_append(crc, &page[64..]);
            page[60..64].copy_from_slice(&crc.to_le_bytes());
            directory.extend_from_slice(&page);
            page_no += 1;
        }
        area.extend_from_slice(&directory);
        area.extend_from_slice(&row.concat());
        area.extend_from_slice(&directory);
    }
    area
}
