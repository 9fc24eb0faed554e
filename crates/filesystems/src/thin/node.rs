use super::BLOCK;
use crate::bytes::{le32, le64};
use crate::{Error, Result};

const HEAD: usize = 32;
const INNER: u32 = 1;
const LEAF: u32 = 2;

/// A node of a tree whose values are numbers.
pub(super) struct Node {
    pub(super) is_leaf: bool,
    /// Ascending.
    pub(super) keys: Vec<u64>,
    /// As many: of a leaf values, else the nodes in which keys from this one on are.
    pub(super) values: Vec<u64>,
}

impl Node {
    pub(super) fn parse(raw: &[u8; BLOCK], number: u64) -> Result<Self> {
        let damaged =
            |what: &str| Error::damaged(format!("record {number} of its pool {what}"), None);
        let is_leaf = match le32(raw, 4) {
            LEAF => true,
            INNER => false,
            _ => return Err(damaged("is no node of a tree")),
        };
        let [count, most, value] =
            [16, 20, 24].map(|at| usize::try_from(le32(raw, at)).unwrap_or(usize::MAX));
        if value != 8 || most > (BLOCK - HEAD) / 16 || count > most {
            return Err(damaged("has more than fits into it"));
        }
        let numbers = |from: usize| (0..count).map(move |n| le64(raw, from + 8 * n));
        let keys: Vec<u64> = numbers(HEAD).collect();
        if keys.windows(2).any(|two| two[0] >= two[1]) {
            return Err(damaged("is out of order"));
        }
        Ok(Self { is_leaf, keys, values: numbers(HEAD + 8 * most).collect() })
    }
}
