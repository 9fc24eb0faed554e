//! Which segments of a folder make which image.

use std::collections::{BTreeMap, HashMap};

use aiv_image_format::{
    Error as ImageError, ImageId, Keys, SegmentError, SegmentFile, SegmentHead, peek_segment,
    segment_name,
};
use aiv_volume_io::{FileEntry, Storage, causes};

use super::find::open_joined;
use crate::facts::Facts;
use crate::folder::{PART_EXTENSION, Stray, StrayKind};
use crate::look::Found;
use crate::open::Head;

/// A file that is a segment.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Its place among the files that were looked into.
    pub at: usize,
    pub head: SegmentHead,
}

/// Puts images together out of `pieces`, which `files` lists, and says of each piece what it is.
/// `known` are the images that were found before, by the names of their first files.
pub(crate) fn group(
    storage: &dyn Storage,
    files: &[&FileEntry],
    pieces: Vec<Piece>,
    known: &HashMap<ImageId, String>,
    keys: &Keys,
) -> Vec<(usize, Found)> {
    let mut images: BTreeMap<ImageId, Vec<Piece>> = BTreeMap::new();
    for piece in pieces {
        images.entry(piece.head.image).or_default().push(piece);
    }
    let mut found = Vec::new();
    for (image, mut pieces) in images {
        pieces.sort_by(|a, b| files[a.at].name.cmp(&files[b.at].name));
        let whole = known.get(&image).cloned();
        Group { storage, files, image, whole, keys }.sort_out(pieces, &mut found);
    }
    found
}

struct Group<'a> {
    storage: &'a dyn Storage,
    files: &'a [&'a FileEntry],
    image: ImageId,
    /// The first file of a copy of the image that is whole.
    whole: Option<String>,
    keys: &'a Keys,
}

impl Group<'_> {
    fn name(&self, piece: &Piece) -> &str {
        &self.files[piece.at].name
    }

    fn sort_out(mut self, pieces: Vec<Piece>, found: &mut Vec<(usize, Found)>) {
        let (firsts, mut others): (Vec<Piece>, Vec<Piece>) =
            pieces.into_iter().partition(|piece| piece.head.no == 0);
        let names: Vec<String> = firsts.iter().map(|first| self.name(first).to_owned()).collect();
        let mut broken = Vec::new();
        for (first, name) in firsts.iter().zip(&names) {
            let chosen = self.choose(name, &names, &others);
            match self.open(name, &chosen, &others) {
                Ok(facts) => {
                    self.whole.get_or_insert_with(|| name.clone());
                    found.push((first.at, Found::Image(Box::new(facts))));
                    let taken: Vec<usize> = chosen.iter().map(|&at| others[at].at).collect();
                    found.extend(taken.iter().map(|&at| (at, Found::Nothing)));
                    others.retain(|other| !taken.contains(&other.at));
                }
                Err(error) => broken.push((first, error)),
            }
        }
        let is_told = !broken.is_empty();
        for (first, error) in broken {
            let kind = match (&self.whole, &error) {
                (Some(whole), _) => StrayKind::Duplicate(whole.clone()),
                (None, ImageError::Io { .. }) => StrayKind::Unreadable(causes(&error)),
                (None, _) => StrayKind::Unusable(not_restorable(first, &error)),
            };
            found.push((first.at, self.stray(first, kind)));
        }
        self.leave(&others, is_told, found);
    }

    /// Segments that no image took.
    fn leave(&self, others: &[Piece], is_told: bool, found: &mut Vec<(usize, Found)>) {
        let is_under_way =
            self.whole.is_none() && !is_told && !others.is_empty() && self.has_part();
        for (number, other) in others.iter().enumerate() {
            let kind = match &self.whole {
                Some(whole) => StrayKind::Duplicate(whole.clone()),
                None if is_under_way => StrayKind::Unfinished,
                // The first segment, or one of these, says what is missing.
                None if is_told || number > 0 => {
                    found.push((other.at, Found::Nothing));
                    continue;
                }
                None => {
                    let missing = SegmentError::first_missing(self.name(other));
                    StrayKind::Unusable(not_restorable(other, &missing))
                }
            };
            found.push((other.at, self.stray(other, kind)));
        }
    }

    fn stray(&self, piece: &Piece, kind: StrayKind) -> Found {
        let FileEntry { name, len, .. } = self.files[piece.at];
        Found::Stray(Stray { file: name.clone(), size: *len, image: Some(self.image), kind })
    }

    /// One file for each of the other segments, as far as there are any: the one its writer put
    /// beside `first`, else one that belongs to no other.
    fn choose(&self, first: &str, firsts: &[String], others: &[Piece]) -> Vec<usize> {
        let mut chosen = Vec::new();
        for no in 1.. {
            let of_no = |at: &usize| others[*at].head.no == no;
            let is_called =
                |at: usize, first: &str| self.name(&others[at]) == segment_name(first, no);
            let mut candidates = (0..others.len()).filter(of_no).peekable();
            if candidates.peek().is_none() {
                break;
            }
            let candidates: Vec<usize> = candidates.collect();
            let own = candidates.iter().find(|&&at| is_called(at, first));
            let free = candidates
                .iter()
                .find(|&&at| !firsts.iter().any(|other| other != first && is_called(at, other)));
            let Some(&at) = own.or(free) else { break };
            chosen.push(at);
        }
        chosen
    }

    fn open(&self, first: &str, chosen: &[usize], others: &[Piece]) -> Result<Facts, ImageError> {
        let names = chosen.iter().map(|&at| self.name(&others[at]));
        let open = |name: &str| {
            let op = "open segment";
            let opened = self.storage.open(name);
            opened
                .map(|file| SegmentFile { name: name.to_owned(), file })
                .map_err(|source| ImageError::Io { op, offset: 0, source })
        };
        let files = std::iter::once(first).chain(names.clone()).map(open);
        let files: Vec<SegmentFile> = files.collect::<Result<_, _>>()?;
        // One of another key is locked.
        let image = match open_joined(files.clone(), Head::Read, self.keys) {
            Err(ImageError::WrongKey { .. }) => open_joined(files, Head::Read, &Keys::none()),
            opened => opened,
        }?;
        let segments = names.map(str::to_owned).collect();
        Ok(Facts { segments, ..Facts::of(&image, first.to_owned()) })
    }

    /// Whether the image is being written or removed, or was when somebody crashed: then its
    /// first segment has a temporary name.
    fn has_part(&self) -> bool {
        let parts = self.files.iter().filter(|entry| entry.name.ends_with(PART_EXTENSION));
        parts.into_iter().any(|entry| {
            let file = self.storage.open(&entry.name).ok();
            let head = file.and_then(|file| peek_segment(&*file));
            head.is_some_and(|head| head.image == self.image && head.no == 0)
        })
    }
}

fn not_restorable(piece: &Piece, why: &dyn std::error::Error) -> String {
    format!("point {} cannot be restored: {}", piece.head.point, causes(why))
}
