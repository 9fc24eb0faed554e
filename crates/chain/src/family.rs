//! Which points are read through which file.

use std::collections::{HashMap, HashSet};

use aiv_image_format::{PointId, SetId};

use crate::folder::{Folder, Point};

/// Who builds on whom in a folder.
pub(crate) struct Family<'f> {
    folder: &'f Folder,
    /// Points by the point they build on.
    children: HashMap<(SetId, PointId), Vec<&'f Point>>,
    by_file: HashMap<&'f str, (SetId, &'f Point)>,
}

impl<'f> Family<'f> {
    pub(crate) fn of(folder: &'f Folder) -> Self {
        let mut children: HashMap<(SetId, PointId), Vec<&Point>> = HashMap::new();
        let mut by_file = HashMap::new();
        for set in folder.sets.iter().chain(&folder.nameless) {
            for point in set.points.iter().chain(&set.nameless) {
                by_file.insert(point.file.as_str(), (set.id, point));
                if let Some(link) = point.parent {
                    children.entry((set.id, link.point)).or_default().push(point);
                }
            }
        }
        Self { folder, children, by_file }
    }

    /// The points that are read through `file`, its own first. None for a file beside another
    /// that provides the same state.
    pub(crate) fn affected_by(&self, file: &str) -> Vec<PointId> {
        let (set, mut open) = match self.by_file.get(file) {
            Some(&(set, point)) => (set, vec![(point.id, Some(point))]),
            // It cannot be opened any more.
            None => match self.folder.vanished.iter().find(|vanished| vanished.file == file) {
                Some(vanished) => (vanished.set, vec![(vanished.point, None)]),
                None => return Vec::new(),
            },
        };
        let mut affected = Vec::new();
        let mut seen = HashSet::new();
        while let Some((id, point)) = open.pop() {
            if !seen.insert((id, point.map(|point| point.state_root))) {
                continue;
            }
            affected.push(id);
            let below = self.children.get(&(set, id)).into_iter().flatten();
            let is_read_through =
                |child: &&&Point| point.is_none_or(|p| child.parent == Some(p.link()));
            open.extend(below.filter(is_read_through).map(|&child| (child.id, Some(child))));
        }
        affected
    }
}
