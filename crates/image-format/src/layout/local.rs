use super::record;
use crate::error::Fault;
use crate::ids::{BlockIndex, Digest};
use crate::limits::LOCAL_BASES_MAX;

record! {
    /// Begins the payload of a LOCAL frame; the bases follow, then a zstd frame.
    struct RawLocalHead[8] {
        0 => count: u8,
    }
}

record! {
    /// What a LOCAL frame says about one of its bases.
    struct RawLocalBase[40] {
        0 => block: u64,
        8 => leaf: [u8; 32],
    }
}

/// A block of the same image, stored whole there, that another one is a difference to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamedBase {
    /// Its number, below that of the block.
    pub block: BlockIndex,
    /// Its leaf.
    pub leaf: Digest,
}

/// What a LOCAL frame is a difference to: one or two blocks of the same image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalHead {
    bases: [NamedBase; LOCAL_BASES_MAX],
    count: usize,
}

impl LocalHead {
    /// The head that names `bases`; `None` for none, or for more than two.
    pub(crate) fn new(bases: &[NamedBase]) -> Option<Self> {
        let mut head = Self { bases: Default::default(), count: bases.len() };
        head.bases.get_mut(..bases.len()).filter(|b| !b.is_empty())?.copy_from_slice(bases);
        Some(head)
    }

    /// The blocks it names, in the order in which their bytes stand before those of the block.
    #[must_use]
    pub fn bases(&self) -> &[NamedBase] {
        &self.bases[..self.count]
    }

    /// Bytes of the head with its bases.
    pub(crate) const fn size(count: usize) -> usize {
        8 + 40 * count
    }

    /// Splits the payload of the frame of `block` into its checked head and the zstd frame.
    pub(crate) fn split(
        payload: &[u8],
        block: BlockIndex,
    ) -> std::result::Result<(Self, &[u8]), Fault> {
        let Some((head, mut rest)) = payload.split_first_chunk() else { return Err(Fault::CutOff) };
        if let Some(at) = RawLocalHead::first_reserved_set(head) {
            return Err(Fault::Reserved { at });
        }
        let count = usize::from(RawLocalHead::decode(head).count);
        let value = |field, found, allowed| Fault::Value { field, found, allowed };
        if count == 0 || count > LOCAL_BASES_MAX {
            return Err(value("base count", count as u64, "1 or 2"));
        }
        let mut bases = [NamedBase::default(); LOCAL_BASES_MAX];
        for base in &mut bases[..count] {
            let Some((bytes, behind)) = rest.split_first_chunk() else {
                return Err(Fault::CutOff);
            };
            let raw = RawLocalBase::decode(bytes);
            if raw.block >= block {
                return Err(value("base block", raw.block, "below the block itself"));
            }
            *base = NamedBase { block: raw.block, leaf: Digest(raw.leaf) };
            rest = behind;
        }
        Ok((Self { bases, count }, rest))
    }

    /// Appends the head and its bases.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let count = u8::try_from(self.count).unwrap_or(u8::MAX);
        out.extend_from_slice(&RawLocalHead { count }.encode());
        for base in self.bases() {
            let raw = RawLocalBase { block: base.block, leaf: base.leaf.0 };
            out.extend_from_slice(&raw.encode());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Decoder;
    use crate::hash;
    use proptest::prelude::*;

    fn base() -> impl Strategy<Value = NamedBase> {
        (0..1000u64, any::<[u8; 32]>())
            .prop_map(|(block, leaf)| NamedBase { block, leaf: Digest(leaf) })
    }

    proptest! {
        #[test]
        fn a_head_survives_the_round_trip(
            bases in prop::collection::vec(base(), 1..=2),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = LocalHead::new(&bases).expect("one or two");
            let mut payload = Vec::new();
            head.put(&mut payload);
            prop_assert_eq!(payload.len(), LocalHead::size(bases.len()));
            payload.extend_from_slice(&rest);
            prop_assert_eq!(LocalHead::split(&payload, 1000), Ok((head, &rest[..])));
            prop_assert_eq!(head.bases(), &bases[..]);
        }

        #[test]
        fn any_88_bytes_are_a_head_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 88), count in 0u8..5, block in 0..1u64 << 40,
            is_low in any::<bool>(),
        ) {
            let mut bytes = bytes;
            bytes[0] = count;
            bytes[1..8].fill(0);
            if is_low {
                bytes[12..16].fill(0);
                bytes[52..56].fill(0);
            }
            match LocalHead::split(&bytes, block) {
                Ok((head, rest)) => {
                    let mut again = Vec::new();
                    head.put(&mut again);
                    again.extend_from_slice(rest);
                    prop_assert_eq!(again, bytes, "one way to say it");
                    prop_assert!(head.bases().iter().all(|base| base.block < block));
                }
                Err(Fault::Value { field, .. }) => {
                    prop_assert!(field != "base count" || !(1..=2).contains(&count));
                }
                Err(fault) => prop_assert!(false, "{}", fault),
            }
        }
    }

    /// The values of the test vector of the document.
    fn vector(name: &str) -> Vec<u8> {
        let (_, text) = crate::SPECIFICATION.split_once("**LOCAL.**").expect("its place");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the vector");
        let hex = line.trim();
        let pairs = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn the_payload_in_the_document_leads_to_its_block() {
        let of = |part: u64| -> Vec<u8> {
            (0..16384).map(|i| u8::try_from(i * i / part % 256).expect("a byte")).collect()
        };
        let whole = [of(256), of(128)];
        let block = [&whole[0][8192..], &whole[1][..8192]].concat();
        let mut payload = vector("head ");
        for (number, bytes) in (0u64..).zip(&whole) {
            let leaf = vector(&format!("leaf of block {number} "));
            assert_eq!(hash::leaf(bytes).0[..], leaf);
            payload.extend_from_slice(&number.to_le_bytes());
            payload.extend_from_slice(&leaf);
        }
        payload.extend_from_slice(&vector("zstd frame "));
        let (head, frame) = LocalHead::split(&payload, 2).expect("sound");
        assert_eq!(head.bases().len(), 2);
        let mut out = vec![0; 16384];
        Decoder::new().decode_delta(&whole.concat(), frame, &mut out).expect("decodes");
        assert!(out == block);
        assert_eq!(hash::leaf(&out).0[..], vector("leaf of block 2 "));
    }

    #[test]
    fn no_head_names_none_or_three_bases() {
        assert!(LocalHead::new(&[]).is_none());
        assert!(LocalHead::new(&[NamedBase::default(); 3]).is_none());
    }

    #[test]
    fn a_head_that_is_cut_off_or_has_reserved_bytes_set_is_refused() {
        let head = LocalHead::new(&[NamedBase::default(); 2]).expect("two");
        let mut payload = Vec::new();
        head.put(&mut payload);
        for len in 0..payload.len() {
            assert_eq!(LocalHead::split(&payload[..len], 1), Err(Fault::CutOff), "{len}");
        }
        assert!(LocalHead::split(&payload, 1).is_ok());
        for at in 1..8 {
            let mut payload = payload.clone();
            payload[at] = 1;
            assert_eq!(LocalHead::split(&payload, 1), Err(Fault::Reserved { at }));
        }
    }

    #[test]
    fn a_base_at_or_behind_the_block_is_refused() {
        let named = NamedBase { block: 7, leaf: Digest([1; 32]) };
        for bases in [&[named][..], &[NamedBase::default(), named]] {
            let mut payload = Vec::new();
            LocalHead::new(bases).expect("one or two").put(&mut payload);
            assert!(LocalHead::split(&payload, 8).is_ok());
            for block in [0, 6, 7] {
                let fault = LocalHead::split(&payload, block).expect_err("not below").to_string();
                assert!(fault.contains("base block"), "{fault}");
            }
        }
    }
}
