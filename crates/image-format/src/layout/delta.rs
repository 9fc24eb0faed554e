use super::record;
use crate::error::Fault;
use crate::ids::{BlockIndex, Digest};
use crate::limits::{BLOCKS_MAX, DELTA_DEPTH_MAX};

record! {
    /// Begins the payload of a DELTA frame; a zstd frame follows.
    struct RawDeltaHead[48] {
        0 => base_block: u64,
        8 => base_leaf: [u8; 32],
        40 => depth: u8,
    }
}

/// What a DELTA frame is a difference to: a block of the parent's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaHead {
    /// Number of the block.
    pub base_block: BlockIndex,
    /// Its leaf: whatever has these bytes will do.
    pub base_leaf: Digest,
    /// Differences to undo from here to a block stored whole, this one included, by whichever
    /// images the state is provided; a base that is itself a difference has a smaller depth.
    pub depth: u8,
}

impl DeltaHead {
    pub(crate) const SIZE: usize = 48;

    /// Splits a payload into its checked head and the zstd frame.
    pub(crate) fn split(payload: &[u8]) -> std::result::Result<(Self, &[u8]), Fault> {
        let Some((bytes, frame)) = payload.split_first_chunk::<{ Self::SIZE }>() else {
            return Err(Fault::CutOff);
        };
        if let Some(at) = RawDeltaHead::first_reserved_set(bytes) {
            return Err(Fault::Reserved { at });
        }
        let raw = RawDeltaHead::decode(bytes);
        let value = |field, found, allowed| Fault::Value { field, found, allowed };
        if raw.base_block >= BLOCKS_MAX {
            return Err(value("base block", raw.base_block, "below 2^40"));
        }
        if raw.depth == 0 || raw.depth > DELTA_DEPTH_MAX {
            return Err(value("delta depth", raw.depth.into(), "1 to 8"));
        }
        let head =
            Self { base_block: raw.base_block, base_leaf: Digest(raw.base_leaf), depth: raw.depth };
        Ok((head, frame))
    }

    /// Makes the depth in a payload that was just made at least `depth`.
    pub(crate) fn raise(payload: &mut [u8], depth: u8) {
        let Ok((head, _)) = Self::split(payload) else { return };
        let raised = Self { depth: head.depth.max(depth), ..head };
        payload[..Self::SIZE].copy_from_slice(&raised.to_bytes());
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let base_leaf = self.base_leaf.0;
        RawDeltaHead { base_block: self.base_block, base_leaf, depth: self.depth }.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_survives_the_round_trip(
            base_block in 0..BLOCKS_MAX, leaf in any::<[u8; 32]>(), depth in 1u8..=8,
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = DeltaHead { base_block, base_leaf: Digest(leaf), depth };
            let payload = [&head.to_bytes()[..], &rest].concat();
            prop_assert_eq!(DeltaHead::split(&payload), Ok((head, &rest[..])));
        }

        #[test]
        fn any_48_bytes_are_a_head_or_an_error(bytes in any::<[u8; 48]>(), depth in 0u8..12) {
            let mut bytes = bytes;
            bytes[5] = 0;
            bytes[6..8].fill(0);
            bytes[40] = depth;
            bytes[41..].fill(0);
            match DeltaHead::split(&bytes) {
                Ok((head, _)) => prop_assert_eq!(head.to_bytes(), bytes, "one way to say it"),
                Err(_) => prop_assert!(depth == 0 || depth > DELTA_DEPTH_MAX),
            }
        }
    }

    #[test]
    fn a_payload_that_ends_inside_the_head_is_cut_off() {
        for len in 0..DeltaHead::SIZE {
            assert_eq!(DeltaHead::split(&vec![1; len]), Err(Fault::CutOff));
        }
    }
}
