//! Which file decides which block, and the bytes it gives.

use aiv_image_format::salvage::{Evidence, Fate, Loss, SalvageReader, Stretch};
use aiv_image_format::{BaseBlock, BlockIndex, Error as ImageError, Kind, hash};

use super::{Layer, Salvaged};
use crate::reader::ViewReader;

/// Blocks that are looked up in all files in one go: bounds the memory.
const AT_ONCE: usize = 1 << 16;

/// Consecutive blocks that one file decides alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub first: BlockIndex,
    pub run: u64,
    pub by: By,
    /// Whether it was inherited by the word of a superblock that its key does not prove.
    pub by_word: bool,
}

/// Who decides blocks.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// A damaged file.
    Layer(usize, Fate),
    /// The sound state under them: how it keeps them, and whether in a frame.
    Below(Kind, bool),
    /// Nobody.
    Nobody(Loss),
}

impl Piece {
    /// The kind of blocks that no frame holds: it determines their bytes.
    pub(super) fn constant(&self) -> Option<Kind> {
        match self.by {
            By::Layer(_, Fate::Decided(by, entry)) if by <= Evidence::Checkpoint => {
                (!entry.has_leaf()).then_some(entry.kind)
            }
            By::Below(kind, false) => Some(kind),
            _ => None,
        }
    }

    /// Whether a frame alone says so, and it may have been another block; or it is that of a parent
    /// that nothing proves to be the right one.
    pub(super) fn is_unproven(&self) -> bool {
        self.by_word || matches!(self.by, By::Layer(_, Fate::Decided(Evidence::MovedFrame, _)))
    }

    /// The evidence, where a file decides.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        match self.by {
            By::Layer(_, Fate::Decided(by, _) | Fate::Inherited(by)) => Some(by),
            _ => None,
        }
    }
}

impl Salvaged {
    /// Everything, in block order and without gaps.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let cut = |whole: Stretch| {
            let starts = (whole.first..whole.end()).step_by(AT_ONCE);
            starts.map(move |first| {
                let run = (whole.end() - first).min(AT_ONCE as u64);
                Stretch { first, run, ..whole }
            })
        };
        self.newest().walk(0).flat_map(cut).flat_map(|stretch| {
            let mut pieces = Vec::new();
            self.lay(0, &stretch, false, &mut pieces);
            pieces
        })
    }

    /// The piece `block` is in, which begins with it.
    pub(super) fn piece_of(&self, block: BlockIndex) -> Piece {
        let fate = self.newest().fate(block);
        let mut pieces = Vec::new();
        self.lay(0, &Stretch { first: block, run: 1, fate }, false, &mut pieces);
        let by = By::Nobody(Loss::Unknown);
        let nobody = Piece { first: block, run: 1, by, by_word: false };
        pieces.first().copied().unwrap_or(nobody)
    }

    /// Adds the pieces of a stretch of `layer`, which is inherited `by_word` or not. What is
    /// inherited is looked for further down; there are at most as many steps as files.
    fn lay(&self, layer: usize, stretch: &Stretch, by_word: bool, pieces: &mut Vec<Piece>) {
        let Fate::Inherited(_) = stretch.fate else {
            let (first, run) = (stretch.first, stretch.run);
            let by = match stretch.fate {
                Fate::Lost(loss) => By::Nobody(loss),
                fate => By::Layer(layer, fate),
            };
            return pieces.push(Piece { first, run, by, by_word });
        };
        let by_word = by_word || self.layers[layer].doubts_parent();
        let end = stretch.end();
        let shared = self.shared(layer).clamp(stretch.first, end);
        let mut at = stretch.first;
        if let Some(below) = self.layers.get(layer + 1) {
            for part in below.salvage.walk_to(at, shared) {
                let run = part.end().min(shared) - at;
                let part = Stretch { first: at, run, fate: part.fate };
                self.lay(layer + 1, &part, by_word, pieces);
                at += run;
            }
        } else if let Some(view) = &self.below {
            for part in view.stretches(at) {
                let Ok(part) = part else { break };
                if at >= shared {
                    break;
                }
                let run = (part.block() + part.run()).min(shared) - at;
                pieces.push(Piece {
                    first: at,
                    run,
                    by: By::Below(part.kind(), part.leaf().is_some()),
                    by_word,
                });
                at += run;
            }
        }
        if at < end {
            let by = By::Nobody(Loss::Parent);
            pieces.push(Piece { first: at, run: end - at, by, by_word });
        }
    }

    /// Blocks that `layer` has with the same length as what lies below it.
    fn shared(&self, layer: usize) -> u64 {
        let new = self.layers[layer].salvage.geometry();
        let old = match (self.layers.get(layer + 1), &self.below) {
            (Some(below), _) => below.salvage.geometry(),
            (None, Some(view)) => view.geometry(),
            (None, None) => return 0,
        };
        match old.len() == new.len() {
            true => new.blocks(),
            false => old.len().min(new.len()) / u64::from(new.block_size().get()),
        }
    }

    pub(super) fn readers(&self) -> Readers<'_> {
        Readers {
            layers: &self.layers,
            readers: self.layers.iter().map(|layer| layer.salvage.reader()).collect(),
            below: self.below.as_ref().map(|view| (view.reader(), view)),
        }
    }
}

/// One reader for each file, for one thread.
pub(super) struct Readers<'s> {
    layers: &'s [Layer],
    readers: Vec<SalvageReader<'s>>,
    below: Option<(ViewReader<'s>, &'s crate::view::View)>,
}

impl Readers<'_> {
    /// Reads a block of `piece` into `out` of exactly its length, and says how it is kept.
    pub(super) fn read(
        &mut self,
        piece: &Piece,
        block: BlockIndex,
        out: &mut [u8],
    ) -> std::result::Result<Kind, Failed> {
        match piece.by {
            By::Nobody(loss) => Err(Failed::Lost(loss)),
            By::Below(..) => match &mut self.below {
                Some((reader, _)) => {
                    reader.read(block, out).map_err(|_| Failed::Lost(Loss::Parent))
                }
                None => Err(Failed::Lost(Loss::Parent)),
            },
            By::Layer(layer, fate) => {
                let mut stack = Stack {
                    layers: &self.layers[layer..],
                    readers: &mut self.readers[layer..],
                    below: self.below.as_mut(),
                };
                stack.read(block, &fate, out)
            }
        }
    }
}

/// Why a block could not be read.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is gone.
    Lost(Loss),
    /// The caller asked to stop, or this program is wrong.
    Error(ImageError),
}

/// A file, and those it builds on.
struct Stack<'r, 's> {
    layers: &'r [Layer],
    readers: &'r mut [SalvageReader<'s>],
    below: Option<&'r mut (ViewReader<'s>, &'s crate::view::View)>,
}

impl Stack<'_, '_> {
    fn read(
        &mut self,
        block: BlockIndex,
        fate: &Fate,
        out: &mut [u8],
    ) -> std::result::Result<Kind, Failed> {
        let Some((reader, readers)) = self.readers.split_first_mut() else {
            return Err(Failed::Lost(Loss::Parent));
        };
        let mut under =
            Stack { layers: &self.layers[1..], readers, below: self.below.as_deref_mut() };
        let mut base = |wanted: &BaseBlock, bytes: &mut [u8]| under.base(wanted, bytes);
        match reader.read(block, fate, out, &mut base) {
            Ok(Ok(kind)) => Ok(kind),
            Ok(Err(loss)) => Err(Failed::Lost(loss)),
            Err(error) => Err(Failed::Error(error)),
        }
    }

    /// A block of the state the file above builds on, compared with the leaf that is wanted.
    fn base(&mut self, wanted: &BaseBlock, out: &mut [u8]) -> Result<u8, ImageError> {
        let missing = || ImageError::Parent {
            file: "the parent".to_owned(),
            source: Box::new(ImageError::Misuse("a block of it that is not there")),
        };
        let block = wanted.block;
        let geometry = match (self.layers.first(), &self.below) {
            (Some(layer), _) => layer.salvage.geometry(),
            (None, Some((_, view))) => view.geometry(),
            (None, None) => return Err(missing()),
        };
        if geometry.block_len(block) as usize != out.len() {
            return Err(missing());
        }
        if let Some(layer) = self.layers.first() {
            let fate = layer.salvage.fate(block);
            match self.read(block, &fate, out) {
                Ok(_) => {}
                Err(Failed::Error(error)) => return Err(error),
                Err(Failed::Lost(_)) => return Err(missing()),
            }
        } else if let Some((reader, _)) = &mut self.below {
            reader.read(block, out).map_err(|_| missing())?;
        }
        let same = wanted.leaf.is_zero() || hash::leaf(out) == wanted.leaf;
        if same { Ok(0) } else { Err(missing()) }
    }
}
