//! A catalogue as bytes. Not a part of the image format: another version is no catalogue, and
//! the next scan writes one of its own.
//!
//! Magic, version, entries by name of the file, vanished points, and a hash of all of that.

use aiv_image_format::{
    BlockSize, Depth, Digest, Geometry, ImageId, ImageKind, ParentLink, PointId, SetId,
};

use super::bytes::{In, Out};
use super::{Catalogue, Entry, VANISHED_MAX, Vanished, Verified};
use crate::facts::{About, Facts, Protection};

const MAGIC: [u8; 8] = *b"AIVCATLG";
/// Raised with every change of the bytes below.
const VERSION: u32 = 1;
/// Keeps the hash of a catalogue from standing for one of anything else.
const HASH_CONTEXT: &str = "aivory catalogue of a folder";

/// Bytes of the shortest entry, and of the shortest vanished point.
const ENTRY_MIN: usize = 160;
const VANISHED_MIN: usize = 48;

/// The bytes of a catalogue and the hash they end with.
pub(super) fn encode(catalogue: &Catalogue) -> (Vec<u8>, blake3::Hash) {
    let mut out = Out::default();
    out.fixed(&MAGIC);
    out.u32(VERSION);
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    out.u32(count(catalogue.entries.len()));
    catalogue.entries.iter().for_each(|entry| put_entry(&mut out, entry));
    out.u32(count(catalogue.vanished.len()));
    for vanished in &catalogue.vanished {
        out.fixed(&vanished.set.0);
        out.text(&vanished.set_name);
        out.fixed(&vanished.point.0);
        out.u64(vanished.time_unix_ms);
        out.text(&vanished.file);
    }
    let hash = hash(&out.0);
    out.fixed(hash.as_bytes());
    (out.0, hash)
}

/// The catalogue in `bytes`; `None` when anything about it is not as [`encode`] makes it.
pub(super) fn decode(bytes: &[u8]) -> Option<Catalogue> {
    let (body, stored) = bytes.split_last_chunk::<32>()?;
    let mut input = In(body);
    if input.fixed()? != MAGIC || input.u32()? != VERSION {
        return None;
    }
    let hash = hash(body);
    if hash != blake3::Hash::from_bytes(*stored) {
        return None;
    }
    let count = input.count(ENTRY_MIN)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = take_entry(&mut input)?;
        if entries.last().is_some_and(|last| last.facts.file >= entry.facts.file) {
            return None;
        }
        entries.push(entry);
    }
    let count = input.count(VANISHED_MIN).filter(|&count| count <= VANISHED_MAX)?;
    let mut vanished = Vec::with_capacity(count);
    for _ in 0..count {
        vanished.push(Vanished {
            set: SetId(input.fixed()?),
            set_name: input.text()?,
            point: PointId(input.fixed()?),
            time_unix_ms: input.u64()?,
            file: input.text()?,
        });
    }
    let read_from = Some(hash);
    input.0.is_empty().then_some(Catalogue { entries, vanished, read_from })
}

fn hash(body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
    hasher.update(body);
    hasher.finalize()
}

fn put_entry(out: &mut Out, entry: &Entry) {
    let Entry { stamp, flawed, facts } = entry;
    out.text(&facts.file);
    out.u64(facts.size_stored);
    out.u64(facts.tail);
    out.u64(*stamp);
    out.byte((*flawed).into());
    for id in [facts.image.0, facts.set.0, facts.point.0] {
        out.fixed(&id);
    }
    out.fixed(&facts.state_root.0);
    out.fixed(&facts.content_root.0);
    out.byte(match facts.kind {
        ImageKind::Full => 1,
        ImageKind::Incremental => 2,
        ImageKind::Differential => 3,
    });
    if let Some(ParentLink { point, state_root }) = facts.parent {
        out.fixed(&point.0);
        out.fixed(&state_root.0);
    }
    out.u64(facts.size);
    out.u32(facts.block_size.get());
    out.u32(facts.sector_size);
    out.byte(facts.about.is_some().into());
    if let Some(about) = &facts.about {
        for text in [&about.host, &about.name, &about.source_id, &about.comment] {
            out.text(text);
        }
        out.u32(about.full_number);
        out.u32(about.increment_number);
        out.u64(about.time_unix_ms);
    }
    out.byte(facts.verified.is_some().into());
    if let Some(verified) = facts.verified {
        out.byte(match verified.depth {
            Depth::Quick => 1,
            Depth::Stored => 2,
            Depth::Data => 3,
        });
        out.u64(verified.time_unix_ms);
        out.byte(verified.sound.into());
    }
}

fn take_entry(input: &mut In<'_>) -> Option<Entry> {
    let file = input.text()?;
    let size_stored = input.u64()?;
    let tail = input.u64()?;
    let stamp = input.u64()?;
    let flawed = input.flag()?;
    let image = ImageId(input.fixed()?);
    let set = SetId(input.fixed()?);
    let point = PointId(input.fixed()?);
    let state_root = Digest(input.fixed()?);
    let content_root = Digest(input.fixed()?);
    let kind = match input.byte()? {
        1 => ImageKind::Full,
        2 => ImageKind::Incremental,
        3 => ImageKind::Differential,
        _ => return None,
    };
    let parent = match kind {
        ImageKind::Full => None,
        _ => {
            Some(ParentLink { point: PointId(input.fixed()?), state_root: Digest(input.fixed()?) })
        }
    };
    let size = input.u64()?;
    let block_size = BlockSize::new(input.u32()?)?;
    let sector_size = input.u32()?;
    Geometry::new(size, block_size, sector_size)?;
    let about = match input.flag()? {
        false => None,
        true => Some(take_about(input)?),
    };
    let verified = match input.flag()? {
        false => None,
        true => Some(take_verified(input)?),
    };
    let facts = Facts {
        file,
        image,
        set,
        point,
        state_root,
        content_root,
        kind,
        parent,
        protection: Protection::None,
        locked: false,
        size,
        block_size,
        sector_size,
        size_stored,
        tail,
        about,
        damage: Vec::new(),
        verified,
    };
    // Without META an image opens with damage.
    let odd = facts.about.is_none() && !flawed;
    (!odd).then_some(Entry { stamp, flawed, facts })
}

fn take_about(input: &mut In<'_>) -> Option<About> {
    Some(About {
        host: input.text()?,
        name: input.text()?,
        source_id: input.text()?,
        comment: input.text()?,
        full_number: input.u32()?,
        increment_number: input.u32()?,
        time_unix_ms: input.u64()?,
    })
}

fn take_verified(input: &mut In<'_>) -> Option<Verified> {
    let depth = match input.byte()? {
        1 => Depth::Quick,
        2 => Depth::Stored,
        3 => Depth::Data,
        _ => return None,
    };
    Some(Verified { depth, time_unix_ms: input.u64()?, sound: input.flag()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn arb_entry()(
            ids in any::<([u8; 16], [u8; 16], [u8; 16])>(),
            roots in any::<([u8; 32], [u8; 32], [u8; 32])>(),
            numbers in any::<(u64, u64, u64, u32, u32)>(),
            size in 1..1u64 << 50,
            kind in 0..3usize,
            texts in prop::collection::vec(".{0,20}", 4),
            flags in any::<(bool, bool)>(),
            verified in prop::option::of((0..3usize, any::<u64>(), any::<bool>())),
            file in "[a-zä/]{1,30}",
        ) -> Entry {
            let kind = [ImageKind::Full, ImageKind::Incremental, ImageKind::Differential][kind];
            let link = ParentLink { point: PointId(ids.0), state_root: Digest(roots.2) };
            let about = About {
                host: texts[0].clone(),
                name: texts[1].clone(),
                source_id: texts[2].clone(),
                comment: texts[3].clone(),
                full_number: numbers.3,
                increment_number: numbers.4,
                time_unix_ms: numbers.0,
            };
            let depths = [Depth::Quick, Depth::Stored, Depth::Data];
            let verified = verified.map(|(depth, time_unix_ms, sound)| {
                Verified { depth: depths[depth], time_unix_ms, sound }
            });
            let facts = Facts {
                file,
                image: ImageId(ids.0),
                set: SetId(ids.1),
                point: PointId(ids.2),
                state_root: Digest(roots.0),
                content_root: Digest(roots.1),
                kind,
                parent: (kind != ImageKind::Full).then_some(link),
                protection: Protection::None,
                locked: false,
                size,
                block_size: BlockSize::new(1 << 16).unwrap(),
                sector_size: 512,
                size_stored: numbers.1,
                tail: numbers.1 / 2,
                about: flags.0.then_some(about),
                damage: Vec::new(),
                verified,
            };
            Entry { stamp: numbers.2, flawed: flags.1 || !flags.0, facts }
        }
    }

    prop_compose! {
        fn arb_catalogue()(
            mut entries in prop::collection::vec(arb_entry(), 0..5),
            lost in prop::collection::vec((any::<([u8; 16], [u8; 16], u64)>(), ".{0,9}"), 0..4),
        ) -> Catalogue {
            entries.sort_by(|a, b| a.facts.file.cmp(&b.facts.file));
            entries.dedup_by(|a, b| a.facts.file == b.facts.file);
            let vanished = lost.into_iter().map(|((set, point, time_unix_ms), text)| Vanished {
                set: SetId(set),
                set_name: text.clone(),
                point: PointId(point),
                time_unix_ms,
                file: text,
            });
            Catalogue { entries, vanished: vanished.collect(), read_from: None }
        }
    }

    /// Makes the hash right again, as somebody who means harm would.
    fn rehash(bytes: &mut Vec<u8>) {
        let body = bytes.len().saturating_sub(32);
        bytes.truncate(body);
        let hash = hash(bytes);
        bytes.extend_from_slice(hash.as_bytes());
    }

    proptest! {
        #[test]
        fn a_catalogue_reads_back_as_it_was(catalogue in arb_catalogue()) {
            let (bytes, hash) = encode(&catalogue);
            let back = decode(&bytes).unwrap();
            prop_assert_eq!(&back.entries, &catalogue.entries);
            prop_assert_eq!(&back.vanished, &catalogue.vanished);
            prop_assert_eq!(back.read_from, Some(hash));
            prop_assert_eq!(encode(&back).0, bytes);
        }

        #[test]
        fn no_catalogue_with_a_changed_bit_or_another_length_is_read(
            catalogue in arb_catalogue(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let (mut bytes, _) = encode(&catalogue);
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_none());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_none());
            bytes[at] ^= 1 << bit;
            bytes.push(0);
            prop_assert!(decode(&bytes).is_none());
        }

        #[test]
        fn whatever_is_read_of_forged_bytes_would_be_written_the_same(
            catalogue in arb_catalogue(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, _) = encode(&catalogue);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let len = bytes.len() - cut.index(40);
            bytes.truncate(len);
            rehash(&mut bytes);
            if let Some(back) = decode(&bytes) {
                prop_assert_eq!(encode(&back).0, bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_catalogue(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_none());
            bytes.splice(0..0, [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat());
            rehash(&mut bytes);
            if let Some(back) = decode(&bytes) {
                prop_assert_eq!(encode(&back).0, bytes);
            }
        }
    }

    #[test]
    fn the_smallest_entry_takes_as_much_as_counts_are_held_against() {
        proptest!(|(mut entry in arb_entry())| {
            entry.facts = Facts {
                file: String::new(),
                kind: ImageKind::Full,
                parent: None,
                about: None,
                verified: None,
                ..entry.facts
            };
            let mut out = Out::default();
            put_entry(&mut out, &entry);
            prop_assert_eq!(out.0.len(), ENTRY_MIN);
        });
        assert_eq!(encode(&Catalogue::default()).0.len(), 8 + 4 + 4 + 4 + 32);
    }

    #[test]
    fn a_count_beyond_the_bytes_allocates_nothing() {
        let (mut bytes, _) = encode(&Catalogue::default());
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        rehash(&mut bytes);
        assert!(decode(&bytes).is_none());
    }
}
