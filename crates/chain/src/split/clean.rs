//! What was interrupted goes: files under temporary names, and the segments that had their final
//! names already when their first one had not, or had it no more.

use std::io;

use aiv_image_format::limits::SEGMENTS_MAX;
use aiv_image_format::{ImageId, SetId, peek_segment, peek_set, segment_name};
use aiv_volume_io::{FileEntry, Storage};

use super::{PUBLISHING, REMOVED};
use crate::folder::PART_EXTENSION;
use crate::merge::MERGE_PART;

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
    let mut markers: Vec<(String, &str, ImageId)> = Vec::new();
    for entry in listed.iter().filter(|entry| is_part(&entry.name)) {
        let Ok(file) = storage.open(&entry.name) else { continue };
        if peek_set(&*file) != Some(set) {
            continue;
        }
        match (marked(&entry.name), peek_segment(&*file)) {
            // It tells whose the others are, so it goes last.
            (Some(file), Some(head)) if head.no == 0 => {
                markers.push((entry.name.clone(), file, head.image));
            }
            _ => {
                storage.remove(&entry.name)?;
                removed.push(entry.name.clone());
            }
        }
    }
    if markers.is_empty() {
        return Ok(removed);
    }
    for (_, file, image) in &markers {
        for name in orphans(storage, &listed, file, *image)? {
            storage.remove(&name)?;
            removed.push(name);
        }
    }
    storage.sync_dir()?;
    for (name, ..) in markers {
        storage.remove(&name)?;
        removed.push(name);
    }
    Ok(removed)
}

/// Beside which file the segments of an image are, or were, that is being published or removed:
/// the temporary name of its first one says it.
pub(super) fn marked(name: &str) -> Option<&str> {
    let name = name.strip_suffix(MERGE_PART).or_else(|| name.strip_suffix(PART_EXTENSION))?;
    name.strip_suffix(PUBLISHING).or_else(|| name.strip_suffix(REMOVED))
}

/// The segments of `image` that have their final names beside `file`. None when that file is there:
/// the image is whole. Those that lie elsewhere are somebody's own copies: an image whose first
/// segment is damaged may be copied once more into the folder it is in.
fn orphans(
    storage: &dyn Storage,
    listed: &[FileEntry],
    file: &str,
    image: ImageId,
) -> io::Result<Vec<String>> {
    let is_there =
        |name: &str| listed.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok();
    let mut found = Vec::new();
    if is_there(file) {
        return Ok(found);
    }
    for no in 1..SEGMENTS_MAX {
        let name = segment_name(file, no);
        if !is_there(&name) {
            continue;
        }
        let file = match storage.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        // What cannot be read now may be one of them, which nobody would ever find again.
        if file.len() > 0 {
            file.read_exact_at(&mut [0], 0)?;
        }
        if peek_segment(&*file).is_some_and(|head| (head.image, head.no) == (image, no)) {
            found.push(name);
        }
    }
    Ok(found)
}
