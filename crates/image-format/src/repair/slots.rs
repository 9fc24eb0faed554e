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

/// Looks for the key slots in `own`, the damaged file, and only where it has none in `copies`, files
/// of the same image. What commits to another key is none; where `keys` has the key, neither is
/// what somebody without it made. `stream` has the bytes that are written: those of `own`, and of
/// a split image those of copies, too, whose slots may be older.
pub(super) fn find(
    own: &dyn ReadAt,
    stream: &dyn ReadAt,
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
    let own = read(own);
    if let [Some(first), Some(second)] = &own
        && (first == second || key.is_none())
    {
        let state = if first == second { KeySlots::Sound } else { KeySlots::Differ };
        return if read(stream) == own { stay(state) } else { put([first, second], state) };
    }
    if let Some(areas) = choose(&own, key) {
        return put(areas, KeySlots::Copied);
    }
    let mut others = copies.iter().map(|copy| read(&**copy));
    let found = match key {
        // Each is proven: the newest of all.
        Some(_) => {
            let newest = others.flatten().flatten().max_by_key(KeyArea::generation);
            [newest.clone(), newest]
        }
        None => others.find(|areas| areas.iter().any(Option::is_some)).unwrap_or_default(),
    };
    choose(&found, key).map_or_else(|| stay(KeySlots::Lost), |areas| put(areas, KeySlots::FromCopy))
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
