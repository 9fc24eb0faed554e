//! Puts damaged files of one chain in order, and finds the state under them.

use std::sync::{Arc, Mutex};

use aiv_image_format::salvage::{Hints, Salvage};
use aiv_image_format::{ImageId, ParentLink};
use aiv_volume_io::{Job, ReadAt, Storage};

use super::{Layer, SALVAGE_FILES_MAX, Salvaged};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::view::View;

impl Salvaged {
    /// Scans `files`, each with its name for messages, which are images of one chain in any
    /// order. What the oldest of them builds on is looked for in the folders `parents`.
    ///
    /// # Errors
    /// [`Error::Image`] when nothing can be salvaged from one of the files, [`Error::NoChain`]
    /// when they do not build on each other, [`Error::Canceled`]. A parent that is not found is
    /// no error: see [`Salvaged::missing_parent`].
    pub fn open(
        files: Vec<(String, Arc<dyn ReadAt>)>,
        parents: &[&dyn Storage],
        hints: &Hints,
        job: Job<'_>,
    ) -> Result<Self> {
        if files.len() > SALVAGE_FILES_MAX {
            let what = format!("more than {SALVAGE_FILES_MAX} files");
            return Err(Error::NoChain { what });
        }
        let mut layers = Vec::with_capacity(files.len());
        for (file, bytes) in files {
            let salvage = Salvage::scan(bytes, hints, job).map_err(|e| Error::in_file(&file, e))?;
            layers.push(Layer { salvage, file });
        }
        let layers = in_order(layers)?;
        let link = layers.last().and_then(|layer| layer.salvage.identity().parent());
        let below = link.and_then(|link| find(link, &layers, parents, job));
        job.check()?;
        let missing = if below.is_none() { link } else { None };
        Ok(Self { layers, below, missing, recent: Mutex::default() })
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
}

/// The state `link` names, from sound files.
fn find(
    link: ParentLink,
    layers: &[Layer],
    parents: &[&dyn Storage],
    job: Job<'_>,
) -> Option<View> {
    let oldest = layers.last()?.salvage.geometry();
    for storage in parents {
        let Ok(folder) = Folder::scan(*storage, job) else { continue };
        for set in folder.sets.iter().chain(&folder.nameless) {
            let Some(point) = set.provider(link) else { continue };
            let Ok(view) = View::of_point(*storage, set, point) else { continue };
            if view.geometry().block_size() == oldest.block_size() {
                return Some(view);
            }
        }
    }
    None
}
