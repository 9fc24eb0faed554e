use crate::error::{Error, Result};
use crate::hash::GroupNode;
use crate::ids::{BlockIndex, Geometry};
use crate::layout::{IndexEntry, ParentLink};

/// The state an image with a parent builds on, as far as one image file has to know it: which
/// files provide it is the chain's affair.
///
/// Nothing it says is believed before it is proven: writer and verification rebuild its roots
/// from its nodes and compare them with the link, what it says about single blocks is compared
/// with the node of their group, and the bytes of blocks with their leaves.
pub trait ParentState: Send + Sync {
    /// The point and the root of the state.
    fn link(&self) -> ParentLink;

    /// Length, block size and sector size of the state.
    fn geometry(&self) -> Geometry;

    /// What the state says about its blocks, in order from the one that covers `first` and
    /// without gaps. Kind, run and leaf of the entries count; places belong to whichever file
    /// they come from. Ends after the last block or the first error.
    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<IndexEntry>> + Send + '_>;

    /// The level-one nodes of every group in order. Ends after the last group or the first
    /// error.
    fn nodes(&self) -> Box<dyn Iterator<Item = Result<GroupNode>> + Send + '_>;

    /// Reads a block, checked against its leaf, into `out` of exactly its length, and returns
    /// its depth: how many differences its frame says have to be undone for it, zero when it is
    /// stored whole.
    ///
    /// # Errors
    /// Damage and failures of the files it comes from.
    fn read(&self, block: BlockIndex, out: &mut [u8]) -> Result<u8>;
}

/// Says of a failure of `state` that it is no damage of the image that builds on it.
pub(crate) fn failed(state: &dyn ParentState) -> impl FnOnce(Error) -> Error {
    let point = state.link().point;
    move |error| match error {
        Error::Parent { .. } | Error::Canceled(_) => error,
        other => Error::Parent { file: format!("point {point}"), source: Box::new(other) },
    }
}
