//! Puts damaged files of one chain in order, and finds the state under them.

use std::sync::{Arc, Mutex};

use aiv_image_format::salvage::{Hints, Salvage};
use aiv_image_format::{ImageId, Keys, ParentLink};
use aiv_keys::KeyArea;
use aiv_volume_io::{Job, ReadAt, Storage};

use super::{Layer, SALVAGE_FILES_MAX, Salvaged, slots};
use crate::error::{Error, Result};
use crate::facts::Protection;
use crate::folder::Folder;
use crate::scan::Trust;
use crate::view::View;

impl Salvaged {
    /// Scans `files`, each with its name for messages, which are images of one chain in any
    /// order. What the oldest of them builds on is looked for in the folders `parents`. `keys` open
    /// those that are sealed: see [`salvage_chains`](super::salvage_chains).
    ///
    /// # Errors
    /// [`Error::Image`] when nothing can be salvaged from one of the files, [`Error::NoChain`]
    /// when they do not build on each other, [`Error::Canceled`]. A parent that is not found is
    /// no error: see [`Salvaged::missing_parent`].
    pub fn open(
        files: Vec<(String, Arc<dyn ReadAt>)>,
        parents: &[&dyn Storage],
        keys: &Keys,
        hints: &Hints,
        job: Job<'_>,
    ) -> Result<Self> {
        if files.len() > SALVAGE_FILES_MAX {
            let what = format!("more than {SALVAGE_FILES_MAX} files");
            return Err(Error::NoChain { what });
        }
        let mut layers = Vec::with_capacity(files.len());
        for (file, bytes) in &files {
            let salvage = Salvage::scan(Arc::clone(bytes), keys, hints, job);
            let salvage = salvage.map_err(|e| Error::in_file(file, e))?;
            layers.push(Layer { salvage, file: file.clone() });
        }
        let layers = in_order(layers)?;
        let link = layers.last().and_then(|layer| layer.salvage.identity().parent());
        let below = link.and_then(|link| find(link, &layers, parents, keys, job));
        job.check()?;
        let missing = if below.is_none() { link } else { None };
        let key = layers.first().and_then(|layer| layer.salvage.key());
        let slots = key.map(|key| slots::newest(&files, parents, key, job));
        let slots = slots.transpose()?.flatten();
        Ok(Self { layers, below, missing, slots, recent: Mutex::default() })
    }

    /// Looks for key slots in the images of more folders, too: the newest of all go into a new
    /// image.
    ///
    /// # Errors
    /// Those of [`keyed_chains`](crate::keyed_chains).
    pub fn with_slots_of(mut self, folders: &[&dyn Storage], job: Job<'_>) -> Result<Self> {
        if let Some(key) = self.newest().key() {
            let there = slots::newest_in(folders, key, job)?;
            self.slots = there.into_iter().chain(self.slots).max_by_key(KeyArea::generation);
        }
        Ok(self)
    }
}

/// The files from the newest to the oldest, each of which builds on the next.
fn in_order(mut layers: Vec<Layer>) -> Result<Vec<Layer>> {
    let no_chain = |what: String| Error::NoChain { what };
    let mut seen: Vec<(ImageId, &str)> = Vec::new();
    for layer in &layers {
        let Some(image) = layer.salvage.identity().image else { continue };
        if let Some((_, other)) = seen.iter().find(|(seen, _)| *seen == image) {
            let what = "hold the same image; segments are salvaged one at a time";
            return Err(no_chain(format!("{other} and {} {what}", layer.file)));
        }
        seen.push((image, &layer.file));
    }
    let parents: Vec<ParentLink> =
        layers.iter().filter_map(|layer| layer.salvage.identity().parent()).collect();
    let is_parent = |layer: &Layer| {
        let point = layer.salvage.identity().point();
        parents.iter().any(|link| Some(link.point) == point)
    };
    let newest: Vec<usize> = (0..layers.len()).filter(|&n| !is_parent(&layers[n])).collect();
    let &[newest] = &newest[..] else {
        let names: Vec<&str> = newest.iter().map(|&n| layers[n].file.as_str()).collect();
        return Err(no_chain(match names.len() {
            0 => "they name each other as parents".to_owned(),
            _ => format!("nothing builds on any of {}", names.join(", ")),
        }));
    };
    let mut ordered = vec![layers.swap_remove(newest)];
    while let Some(last) = ordered.last()
        && !layers.is_empty()
    {
        let link = last.salvage.identity().parent();
        let next = link.and_then(|link| layers.iter().position(|layer| fits(layer, link, last)));
        let Some(next) = next else {
            return Err(no_chain(format!("{} does not build on {}", last.file, layers[0].file)));
        };
        ordered.push(layers.swap_remove(next));
    }
    Ok(ordered)
}

/// Whether a file is what `link` of `child` names, as far as it still says.
fn fits(layer: &Layer, link: ParentLink, child: &Layer) -> bool {
    let identity = layer.salvage.identity();
    let (old, new) = (layer.salvage.geometry(), child.salvage.geometry());
    identity.point() == Some(link.point)
        && identity.trailer.as_ref().is_none_or(|t| t.state_root == link.state_root)
        && old.block_size() == new.block_size()
        && is_alike(layer.protection(), child.protection())
}

/// Images of one chain have one key and one mode.
fn is_alike(one: Option<Protection>, other: Option<Protection>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The state `link` names, from sound files.
fn find(
    link: ParentLink,
    layers: &[Layer],
    parents: &[&dyn Storage],
    keys: &Keys,
    job: Job<'_>,
) -> Option<View> {
    let child = layers.last()?;
    let oldest = child.salvage.geometry();
    // Other images of a folder need not have any.
    let mut known = Keys::none();
    keys.iter().for_each(|key| known.add(key.clone()));
    for storage in parents {
        let Ok((folder, _)) = Folder::scan_keyed(*storage, &known, Trust::Catalogue, job) else {
            continue;
        };
        for set in folder.sets.iter().chain(&folder.nameless) {
            let Some(point) = set.provider(link) else { continue };
            let Ok(view) = View::of_point(*storage, set, point) else { continue };
            let protection = Protection::of(view.image().superblock());
            if view.geometry().block_size() == oldest.block_size()
                && !view.image().is_locked()
                && is_alike(child.protection(), Some(protection))
            {
                return Some(view);
            }
        }
    }
    None
}
