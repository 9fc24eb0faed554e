//! What was interrupted goes: files under temporary names, and the segments that had their final
//! names already when their first one had not, or had it no more.

use std::collections::HashSet;
use std::io;

use aiv_image_format::{ImageId, SetId, peek_segment, peek_set};
use aiv_volume_io::{FileEntry, Storage};

use crate::folder::PART_EXTENSION;

/// Removes what was left of images of `set` whose writing or removal was interrupted: files of
/// which `is_part` says that their names are temporary ones, and the segments that belong to
/// them. The caller holds the lease that proves that nobody is busy with them. Returns the names.
///
/// # Errors
/// Whatever the storage reports.
pub fn remove_interrupted(
    storage: &dyn Storage,
    set: SetId,
    is_part: &dyn Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let listed = storage.list()?;
    let mut removed = Vec::new();
    let mut firsts: Vec<(String, ImageId)> = Vec::new();
    for entry in listed.iter().filter(|entry| is_part(&entry.name)) {
        let Ok(file) = storage.open(&entry.name) else { continue };
        if peek_set(&*file) != Some(set) {
            continue;
        }
        match peek_segment(&*file) {
            // It tells whose the others are, so it goes last.
            Some(head) if head.no == 0 => firsts.push((entry.name.clone(), head.image)),
            _ => {
                storage.remove(&entry.name)?;
                removed.push(entry.name.clone());
            }
        }
    }
    if firsts.is_empty() {
        return Ok(removed);
    }
    let orphans = orphans(storage, &listed, &firsts)?;
    for name in orphans {
        storage.remove(&name)?;
        removed.push(name);
    }
    storage.sync_dir()?;
    for (name, _) in firsts {
        storage.remove(&name)?;
        removed.push(name);
    }
    Ok(removed)
}

/// Segments under their final names of the images that begin with `firsts`, unless such an image
/// is whole: then its first one is there under its final name, too.
fn orphans(
    storage: &dyn Storage,
    listed: &[FileEntry],
    firsts: &[(String, ImageId)],
) -> io::Result<Vec<String>> {
    let mut published: HashSet<ImageId> = HashSet::new();
    let mut found = Vec::new();
    for entry in listed.iter().filter(|entry| !entry.name.ends_with(PART_EXTENSION)) {
        // A file that cannot be read now may be the first segment of one of them.
        let file = match storage.open(&entry.name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if file.len() > 0 {
            file.read_exact_at(&mut [0], 0)?;
        }
        let Some(head) = peek_segment(&*file) else { continue };
        if !firsts.iter().any(|(_, image)| *image == head.image) {
            continue;
        }
        if head.no == 0 {
            published.insert(head.image);
        } else {
            found.push((head.image, entry.name.clone()));
        }
    }
    found.retain(|(image, _)| !published.contains(image));
    Ok(found.into_iter().map(|(_, name)| name).collect())
}
