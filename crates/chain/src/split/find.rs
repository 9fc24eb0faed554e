//! Finds the other segments of an image: where its writer put them, and else wherever a file says
//! that it is one.

use std::sync::Arc;

use aiv_image_format::limits::SEGMENTS_MAX;
use aiv_image_format::{
    Error as ImageError, Image, ImageId, Keys, SegmentError, SegmentFile, Segments, peek_segment,
    segment_name,
};
use aiv_volume_io::{ReadAt, Storage};

use crate::folder::PART_EXTENSION;
use crate::open::{Head, open_stream};

/// Opens the split image whose first segment is `file`, called `name`.
pub(crate) fn open_split(
    storage: &dyn Storage,
    name: &str,
    file: Arc<dyn ReadAt>,
    image: ImageId,
    head: Head,
    keys: &Keys,
) -> Result<Image, ImageError> {
    let mut files = vec![SegmentFile { name: name.to_owned(), file }];
    for no in 1..SEGMENTS_MAX {
        let name = segment_name(name, no);
        let Ok(file) = storage.open(&name) else { break };
        let is_it = |file: &dyn ReadAt| {
            peek_segment(file).is_some_and(|head| (head.image, head.no) == (image, no))
        };
        if !is_it(&*file) {
            break;
        }
        files.push(SegmentFile { name, file });
    }
    match Segments::join(files.clone()) {
        Err(ImageError::Segments(SegmentError::Missing { .. })) => {
            search(storage, image, &mut files)?;
            open_joined(files, head, keys)
        }
        Err(error) => Err(error),
        Ok(segments) => open_segments(segments, head, keys),
    }
}

/// Opens an image from all of its segments.
pub(crate) fn open_joined(
    files: Vec<SegmentFile>,
    head: Head,
    keys: &Keys,
) -> Result<Image, ImageError> {
    open_segments(Segments::join(files)?, head, keys)
}

fn open_segments(segments: Segments, head: Head, keys: &Keys) -> Result<Image, ImageError> {
    let segments = Arc::new(segments);
    let image = open_stream(Arc::clone(&segments) as Arc<dyn ReadAt>, head, keys)?;
    Ok(image.with_segments(segments))
}

/// Looks into all files of the folder for segments that are not among `files` yet.
fn search(
    storage: &dyn Storage,
    image: ImageId,
    files: &mut Vec<SegmentFile>,
) -> Result<(), ImageError> {
    let op = "list the folder for segments";
    let listed = storage.list().map_err(|source| ImageError::Io { op, offset: 0, source })?;
    let mut known: Vec<u32> = (0..).take(files.len()).collect();
    for entry in listed.into_iter().filter(|entry| !entry.name.ends_with(PART_EXTENSION)) {
        if files.iter().any(|file| file.name == entry.name) {
            continue;
        }
        let Ok(file) = storage.open(&entry.name) else { continue };
        let Some(head) = peek_segment(&*file) else { continue };
        if head.image == image && !known.contains(&head.no) {
            known.push(head.no);
            files.push(SegmentFile { name: entry.name, file });
        }
    }
    Ok(())
}
