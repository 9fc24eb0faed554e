//! Floor 0 of Aivory: an erasure code, Reed-Solomon over GF(2^8) with a Cauchy matrix.
//!
//! A *stripe* is up to 128 data shards and four parity shards, all of one length; any four of
//! them can be lost and are found again, when it is known which. A shard is eight packets of
//! equal length. Symbol `t` of a shard is the byte whose bit `b` is bit `t` of packet `b`, so a
//! product with a constant is an XOR of whole packets, which plain code does many bytes at a
//! time. `docs/format.md` section 7 is normative.
//!
//! ```
//! use aiv_parity::{PARITY_SHARDS, SHARD_ALIGN, add_shard, solve};
//!
//! let shards = [[1; SHARD_ALIGN], [2; SHARD_ALIGN], [3; SHARD_ALIGN]];
//! let mut parity = vec![0; PARITY_SHARDS * SHARD_ALIGN];
//! for (column, shard) in shards.iter().enumerate() {
//!     add_shard(column, shard, &mut parity);
//! }
//! // Shards 0 and 2 are lost, and parity shard 1: what is left is the part of the lost ones.
//! let mut difference = parity;
//! add_shard(1, &shards[1], &mut difference);
//! let found = solve(&[0, 2], &[0, 2, 3], &difference);
//! assert_eq!(found, Some(vec![shards[0].to_vec(), shards[2].to_vec()]));
//! ```
//!
//! It proves nothing: whoever uses it compares what was found with a hash.

use multiversion::multiversion;

/// Bytes of a packet that are worked on at once.
const STRIP: usize = 64;
type Strip = [u8; STRIP];

/// Strips of a packet for which all shards are added before the next ones: their sums and the
/// tables stay in the first-level cache. The sums themselves lie as many bytes apart as packets,
/// for which a cache has little room, so they are touched once for many shards.
const TILE: usize = 4;

/// Packets of a shard: the bits of a symbol.
const BITS: usize = 8;

/// What every shard's length is a multiple of.
pub const SHARD_ALIGN: usize = BITS * STRIP;

/// Parity shards of a stripe at most.
pub const PARITY_SHARDS: usize = 4;

/// Data shards of a stripe at most: those of a stripe of pieces.
pub const DATA_SHARDS_MAX: usize = 128;

// The numbers of data and parity shards are different elements of the field.
const _: () = assert!(DATA_SHARDS_MAX + PARITY_SHARDS <= 255);

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = (a << 1) ^ if a & 0x80 != 0 { 0x1d } else { 0 };
        b >>= 1;
    }
    sum
}

/// The element whose product with `a`, which is not zero, is one: `a` to the power of 254.
const fn inverse(a: u8) -> u8 {
    let mut power = a;
    let mut result = 1;
    let mut step = 0;
    while step < 7 {
        power = product(power, power);
        result = product(result, power);
        step += 1;
    }
    result
}

/// The field element of a row or column.
#[expect(clippy::cast_possible_truncation, reason = "asserted to be below 255 by the callers")]
const fn element(number: usize) -> u8 {
    number as u8
}

/// What data shard `column` counts in parity shard `row`: `(x0 + y) / (x + y)` with
/// `x = 255 - row`, `x0 = 255` and `y = column`. It does not depend on the numbers of shards, and
/// any square part of the matrix can be inverted, as it is a Cauchy matrix with scaled columns.
/// Row 0 is all ones.
const fn coefficient(row: usize, column: usize) -> u8 {
    let x = 255 - element(row);
    let y = element(column);
    product(255 ^ y, inverse(x ^ y))
}

/// The sums of packets that make up each packet of a product with `factor`: bit `c` of row `r`
/// says that packet `c` is part of packet `r`.
fn bit_matrix(factor: u8) -> [u8; BITS] {
    let mut rows = [0; BITS];
    for c in 0..BITS {
        let column = product(factor, 1 << c);
        for (r, row) in rows.iter_mut().enumerate() {
            *row |= (column >> r & 1) << c;
        }
    }
    rows
}

// Whoever is compiled for wide vectors takes its parts along.
#[inline(always)]
fn add_strips(sum: &mut Strip, a: &Strip, b: &Strip) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum ^= a ^ b;
    }
}

/// All sums of four strips; vectors of any size begin at whole ones.
#[repr(align(64))]
struct Table([Strip; 16]);

impl Table {
    const ZEROS: Self = Self([[0; STRIP]; 16]);

    #[inline(always)]
    fn fill(&mut self, strips: [&Strip; 4]) {
        for (bit, strip) in strips.into_iter().enumerate() {
            let (lower, upper) = self.0.split_at_mut(1 << bit);
            for (new, old) in upper.iter_mut().zip(&*lower) {
                for ((new, old), byte) in new.iter_mut().zip(old).zip(strip) {
                    *new = old ^ byte;
                }
            }
        }
    }
}

/// The sums of one tile: for each packet of each of them its strips.
#[repr(align(64))]
struct Sums([[Strip; TILE]; BITS * PARITY_SHARDS]);

/// How often a shard counts in each of up to four sums.
type Factors = [u8; PARITY_SHARDS];

/// Adds each shard, times its factors, to the sums in `out`: as many as there is room for, one
/// after the other and as long as a shard each. All shards are of one length.
fn add_products(terms: &[(Factors, &[u8])], out: &mut [u8]) {
    let Some((_, first)) = terms.first() else { return };
    let len = first.len();
    assert!(len.is_multiple_of(SHARD_ALIGN), "a shard of whole strips");
    assert!(terms.iter().all(|(_, shard)| shard.len() == len), "shards of one length");
    if len == 0 {
        return;
    }
    let sums = out.len() / len;
    assert!(sums <= PARITY_SHARDS && out.len() == sums * len, "a sum for each factor");
    let of_term = |&(factors, shard): &(Factors, _)| (factors.map(bit_matrix), shard);
    let terms: Vec<Term<'_>> = terms.iter().map(of_term).collect();
    add_terms(&terms, sums, len / STRIP / BITS, out);
}

/// A shard with the packets that each packet of its products is the sum of.
type Term<'s> = ([[u8; BITS]; PARITY_SHARDS], &'s [u8]);

/// Adds terms to sums whose packets are `per_packet` strips long. It is the same plain code for every
/// processor, compiled for those with wide vectors once more: XORs are all it does.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn add_terms(terms: &[Term<'_>], sums: usize, per_packet: usize, out: &mut [u8]) {
    let (mut low, mut high) = (Table::ZEROS, Table::ZEROS);
    let mut tile = Sums([[[0; STRIP]; TILE]; BITS * PARITY_SHARDS]);
    for start in (0..per_packet).step_by(TILE) {
        let count = TILE.min(per_packet - start);
        tile.0 = [[[0; STRIP]; TILE]; BITS * PARITY_SHARDS];
        let packets = &mut tile.0[..BITS * sums];
        for (matrices, shard) in terms {
            let strips = shard.as_chunks::<STRIP>().0;
            for n in 0..count {
                let packet = |b: usize| &strips[b * per_packet + start + n];
                low.fill([packet(0), packet(1), packet(2), packet(3)]);
                high.fill([packet(4), packet(5), packet(6), packet(7)]);
                for (row, sum) in matrices.as_flattened().iter().zip(packets.iter_mut()) {
                    let (low, high) =
                        (&low.0[usize::from(row & 15)], &high.0[usize::from(row >> 4)]);
                    add_strips(&mut sum[n], low, high);
                }
            }
        }
        let out = out.as_chunks_mut::<STRIP>().0.chunks_exact_mut(per_packet);
        for (sum, packet) in packets.iter().zip(out) {
            for (sum, strip) in sum.iter().zip(&mut packet[start..start + count]) {
                strip.iter_mut().zip(sum).for_each(|(byte, sum)| *byte ^= sum);
            }
        }
    }
}

/// Adds data shards `first`, `first + 1` and so on to the four parity shards in `parity`, one
/// after the other. The parity of a stripe is the sum over its data shards, in any order; those it
/// does not have count as zeros. Many at once take less time than one after the other.
///
/// Each shard is the same multiple of [`SHARD_ALIGN`] long, their numbers are below
/// [`DATA_SHARDS_MAX`].
///
/// # Panics
/// When they are not, or `parity` is not four times as long as a shard.
pub fn add_shards(first: usize, shards: &[&[u8]], parity: &mut [u8]) {
    let fits = first <= DATA_SHARDS_MAX && shards.len() <= DATA_SHARDS_MAX - first;
    assert!(fits, "a stripe has no shard {first} and {} behind it", shards.len());
    let shards = (first..).zip(shards).map(|(column, &shard)| {
        assert_eq!(parity.len(), shard.len() * PARITY_SHARDS, "four parity shards");
        (std::array::from_fn(|row| coefficient(row, column)), shard)
    });
    let terms: Vec<(Factors, &[u8])> = shards.collect();
    add_products(&terms, parity);
}

/// Adds data shard `column` as [`add_shards`] does.
///
/// # Panics
/// As [`add_shards`].
pub fn add_shard(column: usize, shard: &[u8], parity: &mut [u8]) {
    add_shards(column, &[shard], parity);
}

/// Finds the data shards `lost` again. `difference` holds the stored parity shards, one after
/// the other, with every data shard that is there added by [`add_shard`]: what is left of each is
/// the part of the lost ones. `rows` are the parity shards that are there. Returns the lost
/// shards in the order of `lost`; `None` when there are fewer rows than lost shards, or one is
/// named twice.
///
/// # Panics
/// When a number is that of no shard.
pub fn solve(lost: &[usize], rows: &[usize], difference: &[u8]) -> Option<Vec<Vec<u8>>> {
    assert!(lost.iter().all(|&column| column < DATA_SHARDS_MAX), "no such data shard");
    assert!(rows.iter().all(|&row| row < PARITY_SHARDS), "no such parity shard");
    let rows = rows.get(..lost.len())?;
    let len = difference.len() / PARITY_SHARDS;
    let matrix: Vec<Vec<u8>> = rows
        .iter()
        .map(|&row| lost.iter().map(|&column| coefficient(row, column)).collect())
        .collect();
    let inverted = inverted(matrix)?;
    let mut found = vec![0; len * lost.len()];
    let of_row = |(place, &row): (usize, &usize)| {
        let mut factors = Factors::default();
        factors.iter_mut().zip(&inverted).for_each(|(factor, line)| *factor = line[place]);
        (factors, &difference[row * len..(row + 1) * len])
    };
    let terms: Vec<(Factors, &[u8])> = rows.iter().enumerate().map(of_row).collect();
    add_products(&terms, &mut found);
    Some(found.chunks(len.max(1)).map(<[u8]>::to_vec).collect())
}

/// The inverse of a square matrix, by elimination; `None` when it has none.
fn inverted(mut matrix: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let n = matrix.len();
    let mut result: Vec<Vec<u8>> =
        (0..n).map(|row| (0..n).map(|column| u8::from(row == column)).collect()).collect();
    for pivot in 0..n {
        let row = (pivot..n).find(|&row| matrix[row][pivot] != 0)?;
        matrix.swap(pivot, row);
        result.swap(pivot, row);
        let scale = inverse(matrix[pivot][pivot]);
        for line in [&mut matrix[pivot], &mut result[pivot]] {
            line.iter_mut().for_each(|value| *value = product(*value, scale));
        }
        let (of_matrix, of_result) = (matrix[pivot].clone(), result[pivot].clone());
        for row in (0..n).filter(|&row| row != pivot) {
            let factor = matrix[row][pivot];
            for (line, by) in [(&mut matrix[row], &of_matrix), (&mut result[row], &of_result)] {
                line.iter_mut().zip(by).for_each(|(value, by)| *value ^= product(*by, factor));
            }
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Multiplication by logarithms: shares nothing with the code above.
    struct Naive {
        exp: [u8; 512],
        log: [usize; 256],
    }

    impl Naive {
        fn new() -> Self {
            let (mut exp, mut log) = ([0; 512], [0; 256]);
            let mut value = 1u16;
            for power in 0..255 {
                exp[power] = u8::try_from(value).expect("reduced");
                exp[power + 255] = exp[power];
                log[usize::from(value)] = power;
                value *= 2;
                if value > 255 {
                    value ^= 0x11d;
                }
            }
            Self { exp, log }
        }

        fn product(&self, a: u8, b: u8) -> u8 {
            match (a, b) {
                (0, _) | (_, 0) => 0,
                (a, b) => self.exp[self.log[usize::from(a)] + self.log[usize::from(b)]],
            }
        }

        fn quotient(&self, a: u8, b: u8) -> u8 {
            match a {
                0 => 0,
                a => self.exp[self.log[usize::from(a)] + 255 - self.log[usize::from(b)]],
            }
        }

        /// Parity as the document defines it, symbol by symbol.
        fn parity(&self, shards: &[Vec<u8>]) -> Vec<Vec<u8>> {
            let len = shards.first().map_or(0, Vec::len);
            (0..4u8)
                .map(|row| {
                    let mut out = vec![0; len];
                    for t in 0..len {
                        let mut sum = 0;
                        for (column, shard) in (0u8..).zip(shards) {
                            let factor = self.quotient(255 ^ column, (255 - row) ^ column);
                            sum ^= self.product(factor, symbol(shard, t));
                        }
                        put_symbol(&mut out, t, sum);
                    }
                    out
                })
                .collect()
        }
    }

    /// Symbol `t` of a shard: bit `t` of each of its eight packets.
    fn symbol(shard: &[u8], t: usize) -> u8 {
        let packet = shard.len() / 8;
        (0..8).fold(0, |symbol, b| symbol | (shard[b * packet + t / 8] >> (t % 8) & 1) << b)
    }

    fn put_symbol(shard: &mut [u8], t: usize, symbol: u8) {
        let packet = shard.len() / 8;
        (0..8).for_each(|b| shard[b * packet + t / 8] |= (symbol >> b & 1) << (t % 8));
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn shards(seed: u64, count: usize) -> Vec<Vec<u8>> {
        (0..count as u64).map(|n| noise(seed ^ n << 32, SHARD_ALIGN)).collect()
    }

    fn encode(shards: &[Vec<u8>]) -> Vec<u8> {
        let mut parity = vec![0; PARITY_SHARDS * SHARD_ALIGN];
        shards.iter().enumerate().for_each(|(column, shard)| add_shard(column, shard, &mut parity));
        parity
    }

    /// What is found for the `lost` data shards when the parity shards `gone` are not there.
    fn recover(shards: &[Vec<u8>], lost: &[usize], gone: &[usize]) -> Option<Vec<Vec<u8>>> {
        let mut difference = encode(shards);
        for (column, shard) in shards.iter().enumerate().filter(|(c, _)| !lost.contains(c)) {
            add_shard(column, shard, &mut difference);
        }
        for row in gone {
            difference[row * SHARD_ALIGN..(row + 1) * SHARD_ALIGN].fill(0xee);
        }
        let rows: Vec<usize> = (0..PARITY_SHARDS).filter(|row| !gone.contains(row)).collect();
        solve(lost, &rows, &difference)
    }

    #[test]
    fn products_are_those_of_the_field() {
        let naive = Naive::new();
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(product(a, b), naive.product(a, b), "{a} x {b}");
            }
            assert!(a == 0 || product(a, inverse(a)) == 1, "{a}");
        }
    }

    const VECTORS: [[u8; 4]; 3] =
        [[0x7f, 0xfc, 0x7e, 0x55], [0xe2, 0xff, 0xe6, 0x5e], [0x80, 0x1d, 0x83, 0x26]];
    const BITS_OF_FIRST: [u8; 8] = [189, 123, 75, 43, 235, 215, 175, 94];
    const HASH: &str = "b95fc1f6d404c9f2e254a6af42f679300cf9f83dac8e271abb902a070eb371ae";

    #[test]
    fn the_vectors_of_the_document_hold() {
        let row = |row| [0, 1, 2, 127].map(|column| coefficient(row, column));
        assert_eq!(row(0), [1, 1, 1, 1]);
        assert_eq!([row(1), row(2), row(3)], VECTORS);
        assert_eq!(bit_matrix(coefficient(1, 0)), BITS_OF_FIRST);
        let counted: Vec<u8> = (0..=255).chain(0..=255).collect();
        let shards: Vec<Vec<u8>> =
            (0..3u8).map(|n| counted.iter().map(|byte| byte ^ n).collect()).collect();
        let hash = blake3::hash(&encode(&shards)).to_string();
        assert_eq!(hash, HASH);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn packets_and_symbols_give_the_same_parity(seed: u64, count in 1usize..=DATA_SHARDS_MAX) {
            let shards = shards(seed, count);
            let parity = Naive::new().parity(&shards).concat();
            prop_assert_eq!(encode(&shards), parity);
        }

        #[test]
        fn shards_added_at_once_are_those_added_one_by_one(
            seed: u64,
            strips in 1usize..=2 * TILE + 1,
            runs in prop::collection::vec(0usize..20, 1..6),
        ) {
            let len = strips * SHARD_ALIGN;
            let shards: Vec<Vec<u8>> =
                (0..runs.iter().sum::<usize>() as u64).map(|n| noise(seed ^ n << 32, len)).collect();
            let all: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
            let (mut at_once, mut single) =
                (vec![0; PARITY_SHARDS * len], vec![0; PARITY_SHARDS * len]);
            let mut first = 0;
            for run in runs {
                add_shards(first, &all[first..first + run], &mut at_once);
                first += run;
            }
            all.iter().enumerate().for_each(|(n, shard)| add_shard(n, shard, &mut single));
            prop_assert_eq!(&at_once, &single);
            let naive = Naive::new().parity(&shards).concat();
            prop_assert_eq!(at_once, if naive.is_empty() { single } else { naive });
        }

        #[test]
        fn any_four_shards_are_found_again(
            seed: u64,
            count in 4usize..=DATA_SHARDS_MAX,
            picks: [prop::sample::Index; 4],
        ) {
            let shards = shards(seed, count);
            let mut all: Vec<usize> = (0..count + PARITY_SHARDS).collect();
            let erased: Vec<usize> =
                picks.iter().map(|pick| all.remove(pick.index(all.len()))).collect();
            let lost: Vec<usize> = erased.iter().copied().filter(|&s| s < count).collect();
            let gone: Vec<usize> =
                erased.iter().filter(|&&s| s >= count).map(|s| s - count).collect();
            let found = recover(&shards, &lost, &gone).expect("as many rows as lost shards");
            for (column, found) in lost.iter().zip(found) {
                prop_assert!(found == shards[*column], "shard {}", column);
            }
        }
    }

    #[test]
    fn every_four_of_twenty_shards_are_found_again() {
        let shards = shards(7, 16);
        let mut tried = 0;
        for mask in (0u32..1 << 20).filter(|mask| mask.count_ones() == 4) {
            let is_lost = |shard: &usize| mask >> shard & 1 == 1;
            let lost: Vec<usize> = (0..16).filter(is_lost).collect();
            let gone: Vec<usize> = (16..20).filter(is_lost).map(|s| s - 16).collect();
            let matrix: Vec<Vec<u8>> = (0..4)
                .filter(|row| !gone.contains(row))
                .take(lost.len())
                .map(|row| lost.iter().map(|&column| coefficient(row, column)).collect())
                .collect();
            assert!(inverted(matrix).is_some(), "{mask:#x}");
            if mask % 97 == 0 {
                let found = recover(&shards, &lost, &gone).expect("enough rows");
                assert!(lost.iter().zip(found).all(|(c, f)| f == shards[*c]), "{mask:#x}");
                tried += 1;
            }
        }
        assert!(tried > 20, "{tried}");
    }

    #[test]
    fn five_lost_shards_are_too_many() {
        let shards = shards(3, 9);
        assert!(recover(&shards, &[0, 2, 4, 6, 8], &[]).is_none());
        assert!(recover(&shards, &[0, 2, 4, 6], &[1]).is_none());
        assert!(recover(&shards, &[0, 2, 4], &[1]).is_some());
    }
}
