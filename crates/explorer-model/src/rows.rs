//! What there is to see of folders, points, disks and files, out of what the libraries say.

use aiv_browse::{Change, Difference, Disk, FileType, Metadata, Path, Volume};
use aiv_chain::{Folder, ImageKind, Point, PointState, Protection, Set, Verified};
use aiv_jobs::Compared;
use aiv_report::words;

/// All points of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct SetRow {
    /// Its id.
    pub id: String,
    /// What people call the source; empty when its images are locked.
    pub name: String,
    /// The machine it was on.
    pub host: String,
    /// The points, oldest first.
    pub points: Vec<PointRow>,
}

/// One recovery point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointRow {
    /// Name of its file in the folder.
    pub file: String,
    /// The first digits of its id.
    pub id: String,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// When the source was read, milliseconds since 1970 UTC; of a locked one, when that began.
    pub time_unix_ms: u64,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of its file, or files.
    pub size_stored: u64,
    /// Whether it can be restored.
    pub truth: Truth,
    /// What a key does for it.
    pub protection: Protection,
    /// The last verification of its file.
    pub verified: Option<Proof>,
    /// Free text of the user.
    pub comment: String,
}

/// What a verification said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// When, milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
    /// Whether nothing was wrong.
    pub sound: bool,
}

impl From<Verified> for Proof {
    fn from(verified: Verified) -> Self {
        Self { time_unix_ms: verified.time_unix_ms, sound: verified.sound }
    }
}

/// Whether a point can be restored, as far as opening its files tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truth {
    /// Every image it needs opens.
    Restorable,
    /// Every image it needs opens, and something is wrong: what.
    Flawed(String),
    /// Every image it needs is there, and the key is missing.
    Locked,
    /// It cannot be restored: why.
    Lost(String),
}

impl PointRow {
    fn of(point: &Point) -> Self {
        Self {
            file: point.file.clone(),
            id: words::short(point.id),
            kind: point.kind,
            time_unix_ms: point.time_unix_ms,
            size: point.size,
            size_stored: point.size_stored,
            truth: Truth::of(point),
            protection: point.protection,
            verified: point.verified.map(Proof::from),
            comment: point.comment.clone(),
        }
    }
}

impl Truth {
    fn of(point: &Point) -> Self {
        match &point.state {
            PointState::Restorable => match &point.damaged_by {
                Some(file) => Self::Flawed(format!("damage was found in {file}")),
                None => Self::Restorable,
            },
            PointState::Damaged(parts) => {
                let what = parts.first().map(ToString::to_string).unwrap_or_default();
                Self::Flawed(format!("read by its second copy: {what}"))
            }
            PointState::Locked { .. } => Self::Locked,
            PointState::MissingParent { point } => {
                Self::Lost(format!("point {} that it builds on is missing", words::short(point)))
            }
            PointState::ParentDiffers { point } => {
                Self::Lost(format!("point {} that it builds on is another", words::short(point)))
            }
            PointState::Circular => Self::Lost("its images name each other as parents".to_owned()),
            PointState::TooLong => Self::Lost("it needs too many images".to_owned()),
            _ => Self::Lost("its state is not known here".to_owned()),
        }
    }

    /// Whether it can be opened without a key that is missing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::Restorable
    }
}

/// The sets of a folder, and what people should know about the rest of it.
#[must_use]
pub fn sets_of(folder: &Folder) -> (Vec<SetRow>, Vec<String>) {
    let row = |set: &Set| SetRow {
        id: set.id.to_string(),
        name: set.name.clone(),
        host: set.host.clone(),
        points: set.points.iter().map(PointRow::of).collect(),
    };
    let remarks = aiv_report::Remarks::on_folder(folder);
    let notes = remarks.warnings.into_iter().chain(remarks.notes).collect();
    (folder.sets.iter().map(row).collect(), notes)
}

/// A disk that was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskFacts {
    /// Bytes.
    pub len: u64,
    /// Its partition table, in a word.
    pub table: &'static str,
    /// Whether it is a recovery point, with blocks to make a picture of.
    pub is_point: bool,
    /// Its partitions.
    pub volumes: Vec<VolumeRow>,
}

/// A partition, or a disk without partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRow {
    /// `p` and its number, and in a volume group its name.
    pub name: String,
    /// First byte, where it lies in one piece on the disk.
    pub start: Option<u64>,
    /// Bytes.
    pub len: u64,
    /// What is on it.
    pub holds: &'static str,
    /// The label of that.
    pub label: String,
    /// Why files that may be on it cannot be read, as a sentence; empty where they can.
    pub closed: String,
    /// Its folder of everything.
    pub path: Path,
}

impl DiskFacts {
    /// What is known of a disk.
    #[must_use]
    pub fn of(disk: &Disk, is_point: bool) -> Self {
        let row = |volume: &Volume| VolumeRow {
            name: volume.name().to_owned(),
            start: volume.extent().map(|extent| extent.start),
            len: volume.len(),
            holds: volume.recognised().kind.name(),
            label: volume.recognised().label.clone(),
            closed: match volume.why_closed() {
                _ if volume.is_locked() => "encrypted: Enter asks for its passphrase".to_owned(),
                why => why.map(words::clean).unwrap_or_default(),
            },
            path: volume.path(),
        };
        Self {
            len: disk.bytes().len(),
            table: words::table_kind(disk.table()),
            is_point,
            volumes: disk.volumes().iter().map(row).collect(),
        }
    }
}

/// A file in a folder, or one that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRow {
    /// Its name; of one that was found, the names from the folder of the search to it.
    pub below: Vec<Vec<u8>>,
    /// What is known about it.
    pub metadata: Metadata,
    /// What a symbolic link says.
    pub target: Option<Vec<u8>>,
}

impl FileRow {
    /// Whether there can be something in it.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.metadata.file_type == FileType::Folder
    }

    /// Its path, where the folder is at `folder`.
    #[must_use]
    pub fn path(&self, folder: &Path) -> Path {
        self.below.iter().fold(folder.clone(), |path, part| path.join(part))
    }

    /// Its name, safe to show.
    #[must_use]
    pub fn shown(&self) -> String {
        let name = self.path(&Path::default()).to_string();
        let mut text = name.trim_start_matches('/').to_owned();
        if self.is_folder() {
            text.push('/');
        }
        if let Some(target) = &self.target {
            text += " -> ";
            text += &String::from_utf8_lossy(target);
        }
        words::clean(&text)
    }
}

/// Files of a folder, or files that were found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Files {
    /// Those that are held.
    pub rows: Vec<FileRow>,
    /// How many more there are.
    pub more: u64,
    /// What is to be known about them, and what could not be read, as sentences.
    pub notes: Vec<String>,
}

/// What is different between two points.
#[derive(Debug, Clone, PartialEq)]
pub struct Differences {
    /// Files that are not the same.
    pub rows: Vec<DifferenceRow>,
    /// How many more there are.
    pub more: u64,
    /// Counts, and what could not be compared, as sentences.
    pub notes: Vec<String>,
}

/// A file that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferenceRow {
    /// `+` new, `-` gone, `>` renamed, `~` changed.
    pub sign: char,
    /// Its path and what is different, safe to show.
    pub text: String,
    /// Its length.
    pub len: u64,
    /// Bytes of it in blocks that changed.
    pub changed: u64,
}

impl DifferenceRow {
    fn of(one: &Difference) -> Self {
        let (sign, more) = match &one.change {
            Change::Added => ('+', String::new()),
            Change::Removed => ('-', String::new()),
            Change::Renamed { from } => ('>', format!(" (was {from})")),
            Change::Changed { what } => {
                let what: Vec<_> =
                    what.iter().map(|&what| aiv_report::diff::what_name(what)).collect();
                ('~', format!(" ({})", what.join(", ")))
            }
        };
        let text = words::clean(&format!("{}{more}", one.path));
        Self { sign, text, len: one.len, changed: one.changed_bytes }
    }
}

impl Differences {
    /// What a comparison found, up to `rows_max` files of it.
    #[must_use]
    pub fn of(compared: &Compared, rows_max: usize) -> Self {
        let mut all = Self { rows: Vec::new(), more: 0, notes: Vec::new() };
        if let Some(changed) = &compared.changed {
            let bytes = words::size(changed.total_len());
            all.notes.push(format!("{bytes} in blocks that changed"));
        }
        let mut count = 0;
        for volume in &compared.volumes {
            let files = &volume.files;
            let name = words::clean(&volume.name);
            all.notes.push(format!("{name}: {} different, {} the same", files.count(), files.same));
            let room = rows_max.saturating_sub(all.rows.len());
            all.rows.extend(files.differences().take(room).map(|one| DifferenceRow::of(&one)));
            count += files.count();
            if let Some((path, why)) = files.troubles.first() {
                let others = files.trouble_count - 1;
                let text = format!("{name}: {path}: {why}; and {others} more not compared");
                all.notes.push(words::clean(&text));
            }
        }
        for (name, why) in &compared.not_compared {
            all.notes.push(words::clean(&format!("{name} was not compared: {why}")));
        }
        all.more = count.saturating_sub(all.rows.len() as u64);
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An incremental point that is all right.
    pub(crate) fn point(file: &str, time_unix_ms: u64) -> PointRow {
        PointRow {
            file: file.to_owned(),
            id: "0123abcd".to_owned(),
            kind: ImageKind::Incremental,
            time_unix_ms,
            size: 1 << 30,
            size_stored: 1 << 20,
            truth: Truth::Restorable,
            protection: Protection::None,
            verified: None,
            comment: String::new(),
        }
    }
}
