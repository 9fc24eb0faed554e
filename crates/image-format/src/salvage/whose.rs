//! Which image a file holds, and which sessions made its frames.

use aiv_keys::{ChainKey, Keys};
use aiv_volume_io::{Job, ReadAt};

use super::finds::{Finds, MetaFrame, Session};
use super::open::Under;
use super::parts::Parts;
use super::{Hints, Identity, KnownBy, Sessions};
use crate::error::{Error, Result, Section, Unsalvageable};
use crate::ids::{Geometry, ImageId, SessionTag};
use crate::image::{read_page, tail_len};
use crate::layout::{Features, SegmentPlace, Superblock, Trailer};
use crate::limits::PAGE_SIZE;
use crate::meta::{Meta, SectionType};
use crate::seal::Access;

/// What a superblock in its place says.
pub(super) struct Known {
    pub superblock: Superblock,
    /// The bytes it stands in.
    pub page: Box<[u8; PAGE_SIZE]>,
    pub by: KnownBy,
    /// Bytes of the image that are missing in front: those of the segments before this one.
    pub shift: u64,
}

/// The superblock at the beginning of a file, or its copy at the end. The one of them, if any, that
/// a trailer in its place proves with its key.
///
/// # Errors
/// [`Error::Unsupported`] when it is sound and asks for another program.
pub(super) fn superblock(file: &dyn ReadAt, keys: &Keys) -> Result<Option<Known>> {
    let copy = file.len().checked_sub(2 * PAGE_SIZE as u64);
    let places = [(Some(0), KnownBy::Superblock), (copy, KnownBy::Copy)];
    let mut found = Vec::new();
    for (offset, by) in places {
        let Some(Ok(page)) = offset.map(|offset| read_page(file, offset)) else { continue };
        match Superblock::of_segment(&page, Section::Superblock, 0) {
            Ok((superblock, place)) => {
                let shift = place.start.saturating_sub(place.head_len());
                found.push(Known { page: of_stream(&superblock, &page), superblock, by, shift });
            }
            Err(error @ Error::Unsupported(_)) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    let is_proven = |known: &Known| {
        let key = keys.find(&known.superblock.key_commitment.0);
        key.is_some_and(|key| has_proof(file, known, key))
    };
    let best = if keys.is_empty() { None } else { found.iter().position(is_proven) };
    Ok(found.into_iter().nth(best.unwrap_or(0)))
}

/// The bytes that a trailer proves: those of the first segment, when the image is split.
fn of_stream(superblock: &Superblock, page: &[u8; PAGE_SIZE]) -> Box<[u8; PAGE_SIZE]> {
    let is_split = superblock.features.incompat & Features::SPLIT != 0;
    Box::new(if is_split { Superblock::with_place(page, SegmentPlace::default()) } else { *page })
}

/// Whether a trailer in its place proves a superblock.
fn has_proof(file: &dyn ReadAt, known: &Known, key: &ChainKey) -> bool {
    let len = file.len();
    let back = [(2, PAGE_SIZE as u64), (1, tail_len(known.superblock.features))];
    back.into_iter().any(|(copy, back)| {
        let Some(Ok(page)) = len.checked_sub(back).map(|at| read_page(file, at)) else {
            return false;
        };
        let trailer = Trailer::from_bytes(&page, copy, len - back);
        trailer.is_ok_and(|trailer| trailer.mac_of(key, &known.page) == trailer.mac)
    })
}

/// What protects an image, and its key where that is at hand.
///
/// # Errors
/// [`Unsalvageable::Sealed`] without a key for what is sealed, [`Error::WrongKey`] with others,
/// [`Error::NotKeyed`] when the keys are required and it has none.
pub(super) fn protection(
    superblock: &Superblock,
    keys: &Keys,
) -> Result<(Under, Option<ChainKey>)> {
    let commitment = superblock.key_commitment;
    if !superblock.is_keyed() {
        return if keys.is_required() { Err(Error::NotKeyed) } else { Ok((Under::Nothing, None)) };
    }
    let found = keys.iter().enumerate().find(|(_, key)| key.commitment() == commitment.0);
    match found {
        Some((number, key)) if superblock.is_sealed() => {
            Ok((Under::Key(number), Some(key.clone())))
        }
        Some((_, key)) => Ok((Under::Nothing, Some(key.clone()))),
        None if !keys.is_empty() => Err(Error::WrongKey { commitment }),
        None if superblock.is_sealed() => Err(Error::Unsalvageable(Unsalvageable::Sealed)),
        None => Ok((Under::Nothing, None)),
    }
}

/// Whose a file is.
pub(super) struct Whose {
    pub identity: Identity,
    /// The sessions whose frames count.
    pub ours: Sessions,
    /// What opens its frames.
    pub access: Access,
    /// The key of an image that has one.
    pub key: Option<ChainKey>,
}

/// Finds out whose frames are whose. `known` is what a superblock in its place said.
pub(super) fn identify(
    file: &dyn ReadAt,
    finds: &mut Finds,
    known: Option<Known>,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Whose> {
    let (superblock, mut by, in_front) = match known {
        Some(Known { superblock, page, by, shift }) => (Some((superblock, page)), by, shift),
        None => (stray_superblock(file, finds, keys), KnownBy::Elsewhere, 0),
    };
    let (under, key, first) = match &superblock {
        Some((superblock, _)) => {
            let (under, key) = protection(superblock, keys)?;
            (under, key, finds.session(superblock.session, under))
        }
        None => {
            let first = busiest(finds).map(|busiest| leader(finds, busiest));
            let under = first.map(|first| finds.sessions[usize::from(first)].under);
            let (under, key) = headless(finds, first, under, keys)?;
            (under, key, first)
        }
    };
    let Some(first) = first else {
        return Err(Error::Unsalvageable(Unsalvageable::Nothing));
    };
    let certain = finds.begun_by(first) || superblock.is_some();
    let access = access(under, key.as_ref());
    let ours = sessions(Parts { file, access: &access }, finds, first, certain, job)?;
    let image = match &superblock {
        Some((superblock, _)) => Some(superblock.image),
        None => most(finds.trailers.iter().map(|(_, trailer)| trailer.image))
            .or_else(|| most(finds.pages.iter().map(|page| page.image))),
    };
    let proof = key.as_ref().zip(superblock.as_ref().map(|(_, page)| page));
    let is_sound = |trailer: &Trailer| {
        Some(trailer.image) == image
            && proof.is_none_or(|(key, page)| trailer.mac_of(key, page) == trailer.mac)
    };
    let trailer = finds.trailers.iter().rev().find(|(_, trailer)| is_sound(trailer)).cloned();
    if superblock.is_none() {
        by = if trailer.is_some() { KnownBy::Trailer } else { KnownBy::Frames };
    }
    // A file that lost its beginning has all else nearer to the start.
    let shift = match (&trailer, by) {
        (_, KnownBy::Superblock) | (None, _) => in_front,
        (Some((shift, _)), _) => *shift,
    };
    let session = finds.sessions[usize::from(first)].tag;
    let is_authentic = proof.is_some() && trailer.is_some();
    let identity = Identity {
        superblock: superblock.map(|(superblock, _)| superblock),
        is_authentic,
        trailer: trailer.map(|(_, trailer)| trailer),
        image,
        session,
        known_by: by,
        shift,
    };
    Ok(Whose { identity, ours, access, key })
}

/// What opens frames; pages take more.
fn access(under: Under, key: Option<&ChainKey>) -> Access {
    match (under, key) {
        (Under::Key(_), Some(key)) => Access::open(key, ImageId::default(), SessionTag::default()),
        _ => Access::Clear,
    }
}

/// What protects the frames that are left of an image without a superblock.
fn headless(
    finds: &Finds,
    first: Option<u16>,
    under: Option<Under>,
    keys: &Keys,
) -> Result<(Under, Option<ChainKey>)> {
    match under {
        Some(Under::Unknown) => {
            let count = first.map_or(0, |first| finds.sessions[usize::from(first)].frames);
            Err(Error::Unsalvageable(Unsalvageable::SealedFrames { count }))
        }
        Some(Under::Nothing) if keys.is_required() => Err(Error::NotKeyed),
        Some(under @ Under::Key(number)) => Ok((under, keys.iter().nth(number).cloned())),
        Some(Under::Nothing) | None => Ok((Under::Nothing, None)),
    }
}

/// A superblock that is not where one belongs, with its bytes: of the session that made most
/// frames.
fn stray_superblock(
    file: &dyn ReadAt,
    finds: &mut Finds,
    keys: &Keys,
) -> Option<(Superblock, Box<[u8; PAGE_SIZE]>)> {
    let busiest = busiest(finds).map(|n| finds.first_of(n))?;
    let mut best: Option<(u64, u64)> = None;
    for (at, superblock) in finds.superblocks.clone() {
        let under = match protection(&superblock, keys) {
            Ok((under, _)) => under,
            Err(_) if superblock.is_sealed() => Under::Unknown,
            Err(_) => Under::Nothing,
        };
        let Some(number) = finds.number_of(superblock.session, under) else { continue };
        let bytes = finds.sessions[usize::from(number)].bytes;
        if finds.first_of(number) == busiest && best.is_none_or(|(most, _)| bytes > most) {
            best = Some((bytes, at));
        }
    }
    let (_, at) = best?;
    let page = read_page(file, at).ok()?;
    let (superblock, _) = Superblock::of_segment(&page, Section::Superblock, at).ok()?;
    let page = of_stream(&superblock, &page);
    Some((superblock, page))
}

/// The session whose frames, with those of the sessions it belongs together with, take most
/// bytes. What an image inside a damaged part of a disk has left is less; and what a key opened
/// counts before all that none did.
fn busiest(finds: &mut Finds) -> Option<u16> {
    let groups = groups(finds);
    let is_opened = |session: &Session| matches!(session.under, Under::Key(_));
    let any_opened = finds.sessions.iter().any(|s| is_opened(s) && s.frames > 0);
    let mut bytes = vec![0u64; finds.sessions.len()];
    for (group, session) in groups.iter().zip(&finds.sessions) {
        if any_opened && !is_opened(session) {
            continue;
        }
        let sum = &mut bytes[usize::from(*group)];
        *sum = sum.saturating_add(session.bytes).saturating_add(u64::from(session.wrote));
    }
    let most = bytes.iter().copied().max().filter(|&most| most > 0)?;
    let group = u16::try_from(bytes.iter().position(|&b| b == most)?).ok()?;
    let all = (0..).zip(&finds.sessions).zip(groups);
    let members = all.filter(|(_, of)| *of == group).map(|(member, _)| member);
    members.max_by_key(|(_, session)| session.bytes).map(|(number, _)| number)
}

/// The session that began the image of which `busiest` made much, as most checkpoints have it.
fn leader(finds: &mut Finds, busiest: u16) -> u16 {
    let group = finds.first_of(busiest);
    let groups = groups(finds);
    let mut counts = std::collections::BTreeMap::new();
    for checkpoint in &finds.checkpoints {
        if groups.get(usize::from(checkpoint.session)) == Some(&group) {
            *counts.entry(checkpoint.begun_by).or_insert(0u64) += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(busiest, |(first, _)| first)
}

/// For each session the first one that belongs together with it.
fn groups(finds: &mut Finds) -> Vec<u16> {
    let numbers = (0..finds.sessions.len()).map_while(|n| u16::try_from(n).ok());
    numbers.map(|n| finds.first_of(n)).collect()
}

fn most(ids: impl Iterator<Item = ImageId>) -> Option<ImageId> {
    let mut counts = std::collections::BTreeMap::new();
    ids.for_each(|id| *counts.entry(id).or_insert(0u64) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id)
}

/// The session that began the image, and every one that its checkpoints and META list. Only
/// what lists the first one first is asked: an image inside the disk may share others.
fn sessions(
    parts: Parts<'_>,
    finds: &mut Finds,
    first: u16,
    certain: bool,
    job: Job<'_>,
) -> Result<Sessions> {
    let Session { tag, under, .. } = finds.sessions[usize::from(first)];
    let mut tags = vec![tag];
    if certain {
        let named: Vec<u64> =
            finds.checkpoints.iter().filter(|c| c.names_first).map(|c| c.at).collect();
        // Each lists what the one before it lists: the last one is enough, and cheap.
        if let Some(last) = named.last().and_then(|&at| parts.checkpoint(at)) {
            tags.extend(last.origins());
        }
        let meta = finds.meta.iter().filter(|m| m.section == SectionType::Origins.code());
        let meta: Vec<MetaFrame> = meta.copied().collect();
        for section in parts.sections(&meta) {
            job.check()?;
            // As in checkpoints: images that were merged from this one list it further back.
            if section.origins.first() == Some(&tag) {
                tags.extend(section.origins);
            }
        }
        let own = finds.checkpoints.iter().filter(|c| c.names_first);
        let mut made: Vec<u16> = own.map(|c| c.session).collect();
        made.sort_unstable();
        made.dedup();
        tags.extend(made.iter().map(|n| finds.sessions[usize::from(*n)].tag));
    }
    let group = finds.first_of(first);
    let mut sessions: Vec<bool> =
        groups(finds).into_iter().map(|of| !certain && of == group).collect();
    for tag in tags {
        if let Some(n) = finds.number_of(tag, under)
            && let Some(is_ours) = sessions.get_mut(usize::from(n))
        {
            *is_ours = true;
        }
    }
    if let Some(is_ours) = sessions.get_mut(usize::from(first)) {
        *is_ours = true;
    }
    // What the first session of an image wrote is where it was written.
    if certain {
        finds.sessions[usize::from(first)].wrote = true;
    }
    Ok(Sessions(sessions))
}

/// Length, block size and sector size: from the superblock, else from META, hints and frames. What
/// META was `sealed` with counts more than a superblock that nothing proves.
pub(super) fn geometry(
    whose: &Whose,
    meta: &Meta,
    finds: &Finds,
    hints: &Hints,
) -> Result<Geometry> {
    let Whose { identity, ours, access, .. } = whose;
    if let Some(superblock) = &identity.superblock {
        let geometry = superblock.geometry;
        let is_sealed = matches!(access, Access::Open(_));
        let said = (meta.disk.len, meta.disk.logical_sector);
        let differs = said.0 > 0 && said != (geometry.len(), geometry.sector_size());
        if !is_sealed || identity.is_authentic || !differs {
            return Ok(geometry);
        }
    }
    let size = hints.block_size.or_else(|| finds.block_size(|n| ours.has(n)));
    let block_size = size.ok_or(Error::Unsalvageable(Unsalvageable::BlockSize))?;
    let (len, sector) = match meta.disk.len {
        0 => (hints.len, 512),
        len => (Some(len), meta.disk.logical_sector),
    };
    let frames =
        finds.frames.iter().filter(|f| ours.has(f.session)).map(|f| f.block.saturating_add(1));
    let checkpoints = finds.checkpoints.iter().filter(|c| ours.has(c.session));
    let blocks = frames.chain(checkpoints.map(|c| c.next_block)).max().unwrap_or(0);
    let at_least = blocks.saturating_mul(block_size.get().into());
    let unknown = Error::Unsalvageable(Unsalvageable::Length { at_least });
    let len = len.ok_or(unknown)?;
    Geometry::new(len, block_size, sector).ok_or(Error::Misuse("a disk of that size"))
}
