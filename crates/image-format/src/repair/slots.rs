//! Key slots, which neither parity nor the stored list covers: which copies stay, and what comes
//! in the place of those that are lost.

use std::sync::Arc;

use aiv_keys::{ChainKey, KeyArea, Keys};
use aiv_volume_io::ReadAt;

use crate::image::slot_places;
use crate::layout::{Superblock, Trailer};

/// What a repair does about the key slots of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySlots {
    /// Nothing: both copies are sound and the same, or the image has none.
    #[default]
    Sound,
    /// Nothing: both copies are sound by themselves and differ, after a change that was cut off or
    /// because somebody forged one of them. Only the key, which was not given, tells which.
    Differ,
    /// One copy is put in the place of the other.
    Copied,
    /// Another file of the same image has them.
    FromCopy,
    /// No copy is sound, and nothing else leads to them.
    Lost,
}

/// The key slots that a repaired file gets.
pub(super) struct Found {
    /// Where each copy belongs, with its bytes; none where everything stays as it is.
    pub places: Vec<(u64, Vec<u8>)>,
    pub state: KeySlots,
}

/// Looks for the key slots in `file`, and only where it has none in `copies`, files of the same
/// image. What commits to another key is none; where `keys` has the key, neither is what somebody
/// without it made.
pub(super) fn find(
    file: &dyn ReadAt,
    copies: &[Arc<dyn ReadAt>],
    keys: &Keys,
    superblock: &Superblock,
    trailer: &Trailer,
) -> Found {
    let stay = |state| Found { places: Vec::new(), state };
    let len = usize::try_from(superblock.slot_area_len()).unwrap_or(0);
    if len == 0 {
        return stay(KeySlots::Sound);
    }
    let key = keys.find(&superblock.key_commitment.0);
    let places = slot_places(superblock.features, trailer);
    let read = |file: &dyn ReadAt| {
        places.map(|offset| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).ok()?;
            let area = KeyArea::parse(&bytes).ok()?;
            is_ours(&area, superblock, key).then_some(area)
        })
    };
    let put = |[first, second]: [&KeyArea; 2], state| {
        let bytes = [first, second].map(KeyArea::to_bytes);
        Found { places: places.into_iter().zip(bytes).collect(), state }
    };
    let own = read(file);
    match &own {
        [Some(first), Some(second)] if first == second => return stay(KeySlots::Sound),
        [Some(_), Some(_)] if key.is_none() => return stay(KeySlots::Differ),
        _ => {}
    }
    if let Some(areas) = choose(&own, key) {
        return put(areas, KeySlots::Copied);
    }
    let others = copies.iter().map(|copy| read(&**copy));
    match others.into_iter().find(|areas| areas.iter().any(Option::is_some)) {
        Some(areas) => choose(&areas, key)
            .map_or_else(|| stay(KeySlots::Lost), |areas| put(areas, KeySlots::FromCopy)),
        None => stay(KeySlots::Lost),
    }
}

fn is_ours(area: &KeyArea, superblock: &Superblock, key: Option<&ChainKey>) -> bool {
    *area.commitment() == superblock.key_commitment.0
        && key.is_none_or(|key| area.prove(key).is_ok())
}

/// What goes to the two places: the only one for both; of two that the key proved the newer one,
/// which completes a change that was cut off; and else each its own, since a higher generation
/// without a proof is anybody's.
fn choose<'a>(areas: &'a [Option<KeyArea>; 2], key: Option<&ChainKey>) -> Option<[&'a KeyArea; 2]> {
    match areas {
        [Some(first), Some(second)] if key.is_some() => {
            let newer = if second.generation() > first.generation() { second } else { first };
            Some([newer; 2])
        }
        [Some(first), Some(second)] => Some([first, second]),
        [Some(only), None] | [None, Some(only)] => Some([only; 2]),
        [None, None] => None,
    }
}
