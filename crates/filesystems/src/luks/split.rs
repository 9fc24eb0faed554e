//! The anti-forensic splitter: a key in so many stripes that losing one of them loses it.

use zeroize::Zeroizing;

use super::hash::Hash;

/// The key of `len` bytes that `material`, whole stripes of as many bytes, was made of.
pub(super) fn merge(material: &[u8], len: usize, hash: Hash) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; len]);
    let mut stripes = material.chunks_exact(len).peekable();
    while let Some(stripe) = stripes.next() {
        key.iter_mut().zip(stripe).for_each(|(key, byte)| *key ^= byte);
        if stripes.peek().is_some() {
            diffuse(&mut key, hash);
        }
    }
    key
}

/// Each piece as long as a digest becomes that of its number and itself, cut where it ends.
fn diffuse(key: &mut [u8], hash: Hash) {
    for (number, piece) in (0_u32..).zip(key.chunks_mut(hash.size())) {
        let digest = hash.digest(&[&number.to_be_bytes(), piece]);
        piece.iter_mut().zip(digest.iter()).for_each(|(byte, new)| *byte = *new);
    }
}
