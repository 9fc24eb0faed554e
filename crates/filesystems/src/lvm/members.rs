//! Physical volumes that are at hand together, and the logical volumes in them.

use std::collections::HashSet;
use std::sync::Arc;

use aiv_volume_io::{Job, ReadAt};

use super::label::{self, Label};
use super::layout::{self, Disk};
use super::{group, text, used};
use crate::stop::Stop;
use crate::{Error, LogicalVolumes, Result};

/// Bytes of metadata that are kept at once, of all groups.
const TEXTS_MAX: usize = 32 << 20;

/// A volume group, by its newest metadata.
struct Group {
    id: String,
    seqno: u64,
    text: String,
    /// Identities of its physical volumes.
    disks: HashSet<String>,
    /// Two copies of that number say different things.
    differs: bool,
}

/// What a physical volume says of itself.
struct Own {
    label: Label,
    /// Identity of the group that its metadata is of, if it has any.
    group: Option<String>,
}

impl Group {
    fn has(&self, label: &Label) -> bool {
        std::str::from_utf8(&label.id).is_ok_and(|id| self.disks.contains(id))
    }
}

/// An answer, or why there is none.
type Told<T> = std::result::Result<T, String>;

/// Opens the logical volumes of all groups of which physical volumes are among `members`.
pub(crate) fn read(members: &[Arc<dyn ReadAt>], job: Job<'_>) -> Result<LogicalVolumes> {
    let mut groups: Vec<Group> = Vec::new();
    let mut labels: Vec<Told<Own>> = Vec::new();
    for member in members {
        job.check()?;
        labels.push(one(&**member, &mut groups)?);
    }
    let unknown = "its metadata is kept on other disks only";
    let why = |label: &Told<Own>| match label {
        Ok(Own { group: Some(_), .. }) => Err("it is no part of its group any more".to_owned()),
        Ok(_) => Err(unknown.to_owned()),
        Err(why) => Err(why.clone()),
    };
    let mut answer =
        LogicalVolumes { volumes: Vec::new(), members: labels.iter().map(why).collect() };
    for group in &groups {
        job.check()?;
        let is_of_group = |own: &Own| match &own.group {
            Some(id) => *id == group.id && group.has(&own.label),
            // Without metadata of its own it is of the one group that knows it.
            None => {
                let mut claims = groups.iter().filter(|group| group.has(&own.label));
                claims.next().is_some_and(|first| first.id == group.id) && claims.next().is_none()
            }
        };
        let of_group = |(n, own): (usize, &Told<Own>)| match own {
            Ok(own) => is_of_group(own).then(|| (n, own.label.clone())),
            Err(_) => None,
        };
        let here: Vec<(usize, Label)> = labels.iter().enumerate().filter_map(of_group).collect();
        let Some(first) = here.first().map(|first| first.0) else { continue };
        let disks: Vec<Disk> = here
            .iter()
            .map(|(n, label)| Disk {
                id: label.id,
                data_start: label.data_start,
                bytes: Arc::clone(&members[*n]),
                member: *n,
            })
            .collect();
        let read = match group.differs {
            true => Err("the copies of its metadata differ".to_owned()),
            false => open(&group.text, &disks, job)?,
        };
        for (n, _) in &here {
            answer.members[*n] = read.as_ref().map(|_| first).map_err(Clone::clone);
        }
        for mut volume in read.unwrap_or_default() {
            volume.member = first;
            answer.volumes.push(volume);
        }
    }
    answer.volumes.sort_by_key(|volume| volume.member);
    Ok(answer)
}

/// Reads the label of one physical volume, and what its metadata says of its group.
fn one(member: &dyn ReadAt, groups: &mut Vec<Group>) -> Result<Told<Own>> {
    let read = || -> std::result::Result<_, Stop> {
        let label = label::read(member)?;
        let texts = used::read_texts(member, &label)?;
        Ok((label, texts))
    };
    let (label, texts) = match read() {
        Ok(read) => read,
        Err(Stop::Whole(reason)) => return Ok(Err(reason.to_string())),
        Err(Stop::Failed(Error::Canceled(canceled))) => return Err(canceled.into()),
        Err(Stop::Failed(error)) => return Ok(Err(error.to_string())),
    };
    let mut own = Own { label, group: None };
    for text in texts {
        match take(text, groups) {
            Ok(id) if own.group.as_ref().is_some_and(|other| *other != id) => {
                return Ok(Err("the copies of its metadata are of two groups".to_owned()));
            }
            Ok(id) => own.group = Some(id),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(own))
}

/// Keeps the newest metadata of each group, as LVM does, and tells which it is of.
fn take(text: String, groups: &mut Vec<Group>) -> Told<String> {
    let (seqno, id, disks) = {
        let tree = parsed(&text)?;
        let (name, section) = group::of_text(&tree).map_err(|reason| reason.to_string())?;
        if [".", ".."].contains(&name) {
            return Err(format!("a volume group cannot be called {name:?}"));
        }
        let (seqno, id) = layout::version_of(name, section)?;
        (seqno, id, layout::disks_of(section))
    };
    let kept: usize = groups.iter().map(|group| group.text.len()).sum();
    let known = groups.iter_mut().find(|group| group.id == id);
    if kept.saturating_add(text.len()) > TEXTS_MAX {
        return Err("there is more metadata of volume groups than can be read".to_owned());
    }
    let of = id.clone();
    match known {
        None => groups.push(Group { id, seqno, text, disks, differs: false }),
        Some(group) if group.seqno < seqno => {
            *group = Group { id, seqno, text, disks, differs: false };
        }
        Some(group) if group.seqno == seqno && group.text != text => {
            group.differs |= !is_same(&group.text, &text)?;
        }
        Some(_) => {}
    }
    Ok(of)
}

fn parsed(text: &str) -> Told<text::Section<'_>> {
    text::parse(text).map_err(|wrong| {
        format!("metadata makes no sense at its byte {}: {}", wrong.at, wrong.what)
    })
}

/// Whether two texts say the same of a group; when they were written is no part of it.
fn is_same(one: &str, other: &str) -> Told<bool> {
    let (one, other) = (parsed(one)?, parsed(other)?);
    let of = |reason: super::LvmReason| reason.to_string();
    Ok(group::of_text(&one).map_err(of)? == group::of_text(&other).map_err(of)?)
}

fn open(text: &str, disks: &[Disk], job: Job<'_>) -> Result<Told<Vec<crate::LogicalVolume>>> {
    let tree = match parsed(text) {
        Ok(tree) => tree,
        Err(why) => return Ok(Err(why)),
    };
    match group::of_text(&tree) {
        Ok((name, section)) => layout::read(name, section, disks, job),
        Err(reason) => Ok(Err(reason.to_string())),
    }
}
