//! Which of the index pages are opened, and the session that closed the image, which is part of
//! their key.

use aiv_volume_io::{Job, ReadAt};

use super::finds::{Finds, LeafPage};
use super::parts::Parts;
use super::scan::bounds;
use super::whose::Whose;
use crate::error::Result;
use crate::ids::SessionTag;
use crate::seal::Access;

/// Sessions of which it is tried whether they closed an image that has lost its trailer.
const CLOSING_MAX: usize = 64;
/// Pages at either end that it is tried on.
const TRIED: usize = 4;

/// Leaves the pages that are protected as the image is, and those of a sealed one only with what
/// they list. Returns what opens frames and pages.
pub(super) fn open(
    file: &dyn ReadAt,
    finds: &mut Finds,
    whose: &Whose,
    job: Job<'_>,
) -> Result<Access> {
    let Whose { identity, access, key, .. } = whose;
    let is_sealed = matches!(access, Access::Open(_));
    let image = identity.image.filter(|_| is_sealed);
    finds.pages.retain(|page| {
        page.is_sealed == is_sealed && image.is_none_or(|image| page.image == image)
    });
    let Some((key, image)) = key.as_ref().filter(|_| is_sealed).zip(image) else {
        finds.pages.retain(|_| !is_sealed);
        return Ok(access.clone());
    };
    let opened = candidates(finds, whose).into_iter().find_map(|session| {
        let access = Access::open(key, image, session);
        let parts = Parts { file, access: &access };
        let ends = finds.pages.iter().take(TRIED).chain(finds.pages.iter().rev().take(TRIED));
        let opens = ends.map(|page| page.at).any(|at| parts.page(at).is_some());
        opens.then_some(access)
    });
    let Some(access) = opened else {
        finds.pages.clear();
        return Ok(Access::open(key, image, SessionTag::default()));
    };
    let parts = Parts { file, access: &access };
    let mut left: Vec<LeafPage> = Vec::new();
    for page in finds.pages.drain(..) {
        job.check()?;
        if let Some((first, end)) = parts.page(page.at).and_then(|entries| bounds(&entries)) {
            left.push(LeafPage { first, end, ..page });
        }
    }
    finds.pages = left;
    Ok(access)
}

/// Sessions that may have closed the image, the likeliest first: the one of the trailer, those
/// that wrote META, and all others.
fn candidates(finds: &Finds, whose: &Whose) -> Vec<SessionTag> {
    let ours = |number: u16| whose.ours.has(number);
    let of = |number: u16| finds.sessions[usize::from(number)].tag;
    let trailer = whose.identity.trailer.as_ref().map(|trailer| trailer.session);
    let meta = finds.meta.iter().rev().map(|frame| frame.session).filter(|n| ours(*n)).map(of);
    let all = (0..)
        .zip(&finds.sessions)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .filter(|(n, _)| ours(*n))
        .map(|(_, s)| s.tag);
    let mut found: Vec<SessionTag> = Vec::new();
    for tag in trailer.into_iter().chain(meta).chain(all) {
        if !found.contains(&tag) && found.len() < CLOSING_MAX {
            found.push(tag);
        }
    }
    found
}
