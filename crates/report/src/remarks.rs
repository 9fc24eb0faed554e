mod unproven;

use aiv_backup_engine::{
    BackupReport, HintReport, KeptFile, LostPoint, MapNote, NotUsed, PlanNote, Resumed,
};
use aiv_chain::{Folder, Image, Point, PointState, Stray, StrayKind};
use aiv_image_format::{Corrupt, Section};
use aiv_restore_engine::Note;
use aiv_volume_io::Extent;

use crate::words::{damage, size, stray};

/// Files that are kept although they match, one line each; of more there is the number.
const NAMED_MAX: usize = 20;

/// Sentences beside a result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remarks {
    /// Worth knowing.
    pub notes: Vec<String>,
    /// The result is not all it could be: the exit status is [`crate::Exit::Warnings`].
    pub warnings: Vec<String>,
}

impl Remarks {
    /// Remarks on a finished backup.
    #[must_use]
    pub fn on_backup(report: &BackupReport) -> Self {
        let mut remarks = Self::default();
        report.notes.iter().for_each(|note| remarks.take_plan_note(note));
        if let Some(Resumed { file, bytes, blocks, blocks_compared }) = &report.resumed {
            let (size, file) = (size(*bytes), file.as_str());
            let compared = match blocks_compared {
                0 => "which has not changed since",
                _ => "compared with what it is now",
            };
            let what = format!("{size} with {blocks} blocks of the source, {compared}");
            remarks.notes.push(format!("went on with {file}, which had {what}"));
        }
        if let Some(why) = &report.not_resumed {
            remarks.notes.push(format!("an interrupted backup was begun anew: {why}"));
        }
        for file in &report.leftovers_removed {
            remarks.notes.push(format!("removed {file}, which an interrupted backup left"));
        }
        for lost in &report.lost {
            let point = lost.id.map_or_else(|| "a point".to_owned(), |id| format!("point {id}"));
            let LostPoint { file, why, .. } = lost;
            remarks.warnings.push(format!("{point} is lost: {file}: {why}"));
        }
        if let Some(damage) = &report.parent_damage {
            remarks.warnings.push(format!(
                "the chain the image builds on is damaged, `aiv verify` shows where: {damage}"
            ));
        }
        if report.leaves_key {
            remarks.warnings.push(
                "the image has a new key: the source has earlier images that what was given does not \
                 open, and what opens those does not open this one"
                    .to_owned(),
            );
        }
        if let Some(hint) = &report.hint {
            remarks.take_hint(hint);
        }
        remarks.lost(&report.unreadable, "could not be read and are lost");
        remarks
    }

    /// A tracker that lied is worth a warning: whoever made it has other uses for it. One that
    /// was not asked cost time.
    fn take_hint(&mut self, HintReport { tracker, not_used, .. }: &HintReport) {
        match not_used {
            None | Some(NotUsed::Full) => {}
            Some(NotUsed::Lied { offset }) => self.warnings.push(format!(
                "bitmap {tracker} is not to be trusted: the change at byte {offset} was not marked; \
                 all of the source was read, and this image is right, but earlier ones that were made \
                 with bitmaps may lack changes"
            )),
            Some(why @ NotUsed::Distrusted { .. }) => self
                .warnings
                .push(format!("all was read, bitmap {tracker} is not to be trusted: {why}")),
            Some(why) => {
                self.notes.push(format!("all was read, bitmap {tracker} was not used: {why}"));
            }
        }
    }

    fn take_plan_note(&mut self, note: &PlanNote) {
        match note {
            PlanNote::Table(problem) => self.notes.push(format!("partition table: {problem}")),
            PlanNote::Filesystem { volume, note } => self.take_volume_note(*volume, note),
            PlanNote::Live(uses) => self.warnings.push(format!(
                "the source was in use while it was read, the point is inconsistent: {uses}"
            )),
            PlanNote::Swap(uses) => self.notes.push(format!(
                "{uses}; what it holds is not kept from changing, and means nothing after a restore"
            )),
            PlanNote::Twin { path } => self.notes.push(format!(
                "the point this one builds on is of {path}, which is there still and says that it \
                 is the same disk: copies of one disk share a set, where the newest point is of the \
                 one that was backed up last; --source-id tells them apart"
            )),
            PlanNote::NewIdentity { before } => self.notes.push(format!(
                "earlier images of this name are of another disk ({before}); a new set begins"
            )),
            PlanNote::NothingExcluded { volume, filesystem, why } => self.warnings.push(format!(
                "no file of the {filesystem} volume at byte {volume} is excluded: {why}"
            )),
            PlanNote::FilesNotRead { volume, filesystem, why } => self.notes.push(format!(
                "no file of the {filesystem} volume at byte {volume} is excluded: {why}"
            )),
            PlanNote::NotExcluded { volume, files, count } => {
                for KeptFile { path, reason } in files.iter().take(NAMED_MAX) {
                    self.warnings.push(format!(
                        "not excluded from the volume at byte {volume}: {path}: {reason}"
                    ));
                }
                let named = files.len().min(NAMED_MAX) as u64;
                if let more @ 1.. = count.saturating_sub(named) {
                    self.warnings.push(format!(
                        "{more} more files of the volume at byte {volume} match and are not excluded"
                    ));
                }
            }
            other => self.warnings.push(format!("{other:?}")),
        }
    }

    fn take_volume_note(&mut self, volume: u64, note: &MapNote) {
        match note {
            MapNote::Within { name, note } => match &**note {
                MapNote::LogicalVolume { name: inner, .. } => {
                    self.take_logical_volume(&format!("{name}/{inner}"), volume, note);
                }
                note => {
                    let place = format!("the filesystem in {name} (LVM at byte {volume})");
                    self.take_map_note(&place, note);
                }
            },
            MapNote::LogicalVolume { name, .. } => self.take_logical_volume(name, volume, note),
            note => self.take_map_note(&format!("the filesystem at byte {volume}"), note),
        }
    }

    /// What is stored of a logical volume, and why it is all of it.
    fn take_logical_volume(&mut self, name: &str, volume: u64, note: &MapNote) {
        let MapNote::LogicalVolume { filesystem, len, used, reason, .. } = note else { return };
        let place = format!("logical volume {name} (LVM at byte {volume})");
        self.notes.push(match reason {
            None => format!("{place}: {filesystem}, {used} of {len} bytes are used"),
            Some(reason) => format!("{place}: all {len} bytes are kept: {reason}"),
        });
    }

    /// Only what makes the point doubtful is a warning; the rest was so before the backup, and the
    /// image holds it as it is.
    fn take_map_note(&mut self, at: &str, note: &MapNote) {
        match note {
            MapNote::JournalPending { .. } => self.notes.push(format!(
                "{at} was not unmounted; its journal is replayed when it is mounted after a restore"
            )),
            MapNote::MountedElsewhere => {
                self.warnings.push(format!("another computer may be writing to {at}"));
            }
            MapNote::NotInBitmap { clusters } => self.notes.push(format!(
                "{at} has files in {clusters} clusters that it calls free; they are in the image, \
                 and a check of the filesystem repairs its records"
            )),
            MapNote::NotUnmounted => self.notes.push(format!(
                "{at} was not unmounted; check it after a restore, it has no journal"
            )),
            MapNote::MediaFailed => self
                .notes
                .push(format!("{at} remembers errors of its medium; the disk may be failing")),
            MapNote::BackupBootDiffers => self.notes.push(format!(
                "{at} has a backup boot region that is not the equal of the first; both are in \
                 the image as they are"
            )),
            MapNote::LogPending => self.notes.push(format!(
                "{at} was not unmounted; its log is replayed when it is mounted after a restore"
            )),
            MapNote::DamagedCopies { blocks } => self.notes.push(format!(
                "{at} has {blocks} blocks of metadata with one damaged copy; both are in the \
                 image, and `btrfs scrub` mends them"
            )),
            MapNote::SuperblockCopiesDiffer => self.notes.push(format!(
                "{at} has a copy of its superblock that is damaged or old; all are in the image, \
                 and the next mount for writing renews it"
            )),
            other => self.warnings.push(format!("{at}: {other:?}")),
        }
    }

    /// Remarks on a restore, planned or finished. `unreadable` are ranges of the target.
    #[must_use]
    pub fn on_restore(notes: &[Note], unreadable: &[Extent]) -> Self {
        let mut remarks = Self::default();
        notes.iter().for_each(|note| remarks.take_restore_note(note));
        remarks.lost(unreadable, "could not be read when the disk was imaged");
        remarks
    }

    fn take_restore_note(&mut self, note: &Note) {
        match note {
            Note::TargetLarger { rest } => self.notes.push(format!(
                "the target is larger; its {} bytes from byte {} on keep what they hold",
                rest.len, rest.start
            )),
            Note::BackupHeaderNotAtEnd => self.notes.push(
                "the backup partition table is not at the end of the target; `sgdisk -e` moves it"
                    .to_owned(),
            ),
            Note::TableFitted => self.notes.push(
                "the partition table was made for the target; `--table keep` keeps its bytes"
                    .to_owned(),
            ),
            Note::MadeGpt => self.warnings.push(
                "the MBR becomes a GPT: partitions have the same bytes and numbers, and other \
                 identities; a BIOS cannot start the disk until its boot loader is installed again"
                    .to_owned(),
            ),
            Note::BehindMbr { rest } => self.notes.push(format!(
                "the {} bytes of the target from byte {} on are of no use under an MBR; \
                 `--table gpt` makes it a GPT",
                rest.len, rest.start
            )),
            Note::TableKept(unfit) => self
                .warnings
                .push(format!("the partition table was not made for the target: {unfit}")),
            Note::TailCut { rest } => self.notes.push(format!(
                "the last {} bytes of the disk belong to no partition and are left out",
                rest.len
            )),
            Note::OldBackupCleared { extent } => self.notes.push(format!(
                "an older backup partition table at byte {} of the target is zeroed",
                extent.start
            )),
            Note::SectorsConverted { source, target } => self.warnings.push(format!(
                "the partition table was converted from sectors of {source} bytes to {target}; \
                 a boot loader may count in the old ones"
            )),
            Note::SameIdentity { other, id } => self.warnings.push(format!(
                "{other} has the same disk identity {id}: do not use both in one computer, or give \
                 this one another with `--identity new`"
            )),
            Note::NewIdentity { before, after, partitions } => {
                let all = if *partitions { "; the GUIDs of its partitions are new, too" } else { "" };
                self.notes.push(format!(
                    "the disk identity is {after} now, it was {before}{all}; boot entries and \
                     mounts by PARTUUID may refer to the old one"
                ));
            }
            Note::Shrunk { number, from, to } => self.notes.push(format!(
                "partition {number} was made smaller with its filesystem: {to} of {from} bytes"
            )),
            Note::Moved { number, from, to } => self.notes.push(format!(
                "partition {number} moves from byte {from} to {to}; the boot sectors of FAT, exFAT and \
                 NTFS are told, a boot loader that counts sectors has to be installed again"
            )),
            Note::GapsCut { bytes } => self.notes.push(format!(
                "{bytes} bytes between partitions that move belong to none of them and are left out: \
                 they are zeros on the target"
            )),
            Note::SourceDisk => self.notes.push(
                "the target is the disk that was imaged; what changed on it since is lost".to_owned(),
            ),
            Note::NotScaled { number, what } => self.warnings.push(format!(
                "partition {number}, the last one, is {what} and did not grow; name the one that is to"
            )),
            Note::NoRoomToGrow { number } => self.notes.push(format!(
                "partition {number} did not grow: less than 1 MiB is free behind it"
            )),
            Note::FilesystemGrown { number, filesystem } => self.notes.push(format!(
                "the {filesystem} filesystem of partition {number} was grown to its partition"
            )),
            Note::FilesystemNotGrown { number, filesystem, why, by_hand } => {
                let by_hand = if by_hand.is_empty() { "" } else { &format!("; by hand: {by_hand}") };
                let is_known = !["", "unknown"].contains(&filesystem.as_str());
                let what = if is_known { filesystem } else { "content" };
                self.warnings.push(format!(
                    "partition {number} grew, its {what} keeps its size: {why}{by_hand}"
                ));
            }
            Note::OtherSectorSize { source, target } => self.warnings.push(format!(
                "imaged with sectors of {source} bytes, the target has {target}: it may not mount"
            )),
            Note::Excluded { files } => self.notes.push(format!(
                "{} excluded from the backup: names and lengths are restored, what they hold is \
                 not (zeros, or what the target held there)",
                match files {
                    0 => "some files were".to_owned(),
                    1 => "1 file was".to_owned(),
                    n => format!("{n} files were"),
                }
            )),
            Note::TableProblems(problems) => self.warnings.push(format!(
                "the partition table had problems, the partition may be cut wrongly: {}",
                problems.join("; ")
            )),
            other => self.warnings.push(format!("{other:?}")),
        }
    }

    /// Remarks on an image that was opened: damage that does not keep its blocks from being read.
    #[must_use]
    pub fn on_image(image: &Image) -> Self {
        let words = |part: &Corrupt| match part.section {
            Section::Meta => format!("{part}; what the image says about the disk is lost"),
            _ => format!("{part}; a second copy was used"),
        };
        Self { notes: Vec::new(), warnings: image.damage().iter().map(words).collect() }
    }

    /// Remarks on the contents of a folder: images that are lost, or that live on second copies.
    #[must_use]
    pub fn on_folder(folder: &Folder) -> Self {
        let mut remarks = Self::default();
        let mut locked = 0_u64;
        for point in folder.sets.iter().flat_map(|set| &set.points) {
            let parts = damage(point).iter();
            remarks.warnings.extend(parts.map(|part| format!("{}: {part}", point.file)));
            if let Some(file) = &point.damaged_by {
                let id = point.id;
                remarks.warnings.push(format!("point {id} is damaged: see `aiv verify`: {file}"));
            }
            if matches!(point.state, PointState::Locked { .. }) {
                locked += 1;
            } else if !point.is_restorable() {
                let (id, file, why) = (point.id, &point.file, &point.state);
                remarks.warnings.push(format!("point {id} cannot be restored: {file}: {why}"));
            }
        }
        if locked > 0 {
            let count = if locked == 1 { "1 point".to_owned() } else { format!("{locked} points") };
            remarks.notes.push(format!("{count} sealed: what is in them needs the key"));
        }
        remarks.unprotected(folder);
        let stray = |file: &str| folder.strays.iter().find(|stray| stray.file == file);
        for lost in folder.vanished.iter().filter(|lost| stray(&lost.file).is_none()) {
            remarks.notes.push(format!("point {} is gone with its file {}", lost.point, lost.file));
        }
        for file in &folder.strays {
            let mut line = stray_line(file);
            if let Some(lost) = folder.vanished.iter().find(|lost| lost.file == file.file) {
                line += &format!("; point {} was in it", lost.point);
            }
            match file.kind {
                StrayKind::Unusable(_) | StrayKind::Unreadable(_) => remarks.warnings.push(line),
                _ => remarks.notes.push(line),
            }
        }
        remarks
    }

    /// Points without a key that are newer than others of their set that have one: no backup makes
    /// such.
    fn unprotected(&mut self, folder: &Folder) {
        for set in &folder.sets {
            let keyed = set.points.iter().filter(|point| point.protection.key().is_some());
            let Some(first) = keyed.map(|point| point.time_unix_ms).min() else { continue };
            let is_planted =
                |point: &&Point| point.protection.key().is_none() && point.time_unix_ms > first;
            for point in set.points.iter().filter(is_planted) {
                self.warnings.push(format!(
                    "point {} has no key, and older ones of its set have one: {} may have been put \
                     there by somebody else",
                    point.id, point.file
                ));
            }
        }
    }

    fn lost(&mut self, extents: &[Extent], how: &str) {
        if let Some(first) = extents.first() {
            let bytes: u64 = extents.iter().map(|extent| extent.len).sum();
            let (places, start) = (extents.len(), first.start);
            self.warnings
                .push(format!("{bytes} bytes in {places} places {how}, the first at byte {start}"));
        }
    }
}

fn stray_line(file: &Stray) -> String {
    let (kind, detail) = stray(&file.kind);
    format!("{}: {kind}: {detail}", file.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_backup_engine::{FilesystemKind, KeptReason, WholeReason};
    use aiv_chain::{Depth, Keys, PointId, SetId, Vanished};

    #[test]
    fn the_state_of_a_filesystem_is_told_with_its_place_and_what_to_do() {
        let told = |note: MapNote| {
            let mut remarks = Remarks::default();
            remarks.take_plan_note(&PlanNote::Filesystem { volume: 1 << 20, note });
            remarks
        };
        for (note, words) in [
            (MapNote::JournalPending { transactions: 3 }, "its journal is replayed when"),
            (
                MapNote::NotInBitmap { clusters: 7 },
                "in 7 clusters that it calls free; they are in the image, and a check",
            ),
            (MapNote::NotUnmounted, "was not unmounted; check it after a restore"),
            (MapNote::MediaFailed, "errors of its medium; the disk may be failing"),
            (MapNote::BackupBootDiffers, "backup boot region that is not the equal of the first"),
            (MapNote::LogPending, "was not unmounted; its log is replayed when it is mounted"),
            (MapNote::DamagedCopies { blocks: 3 }, "3 blocks of metadata with one damaged copy"),
            (MapNote::SuperblockCopiesDiffer, "copy of its superblock that is damaged or old"),
        ] {
            let Remarks { notes, warnings } = told(note);
            assert_eq!((notes.len(), warnings.len()), (1, 0), "{notes:?} {warnings:?}");
            assert!(notes[0].starts_with("the filesystem at byte 1048576 "), "{notes:?}");
            assert!(notes[0].contains(words), "{notes:?}");
        }
        // In a logical volume.
        let inner = Box::new(MapNote::NotUnmounted);
        let Remarks { notes, .. } =
            told(MapNote::Within { name: "vg/root".to_owned(), note: inner });
        assert!(notes[0].starts_with("the filesystem in vg/root (LVM at byte 1048576) was not"));
        // The one that makes the point doubtful.
        let text = "another computer may be writing to the filesystem at byte 1048576".to_owned();
        let doubt = Remarks { notes: Vec::new(), warnings: vec![text] };
        assert_eq!(told(MapNote::MountedElsewhere), doubt);
    }

    #[test]
    fn every_logical_volume_is_told_with_what_is_kept_of_it() {
        let volume = |name: &str, filesystem, reason: Option<WholeReason>| MapNote::LogicalVolume {
            name: name.to_owned(),
            filesystem,
            len: 4096,
            used: if reason.is_some() { 4096 } else { 1024 },
            reason: reason.map(Box::new),
        };
        let told = |note: MapNote| {
            let mut remarks = Remarks::default();
            remarks.take_plan_note(&PlanNote::Filesystem { volume: 512, note });
            assert!(remarks.warnings.is_empty(), "{remarks:?}");
            remarks.notes.concat()
        };
        let root = volume("vg/root", FilesystemKind::Ext4, None);
        assert_eq!(
            told(root.clone()),
            "logical volume vg/root (LVM at byte 512): ext4, 1024 of 4096 bytes are used"
        );
        let reason = Some(WholeReason::UnknownFilesystem);
        assert_eq!(
            told(volume("vg/raw", FilesystemKind::Unknown, reason)),
            "logical volume vg/raw (LVM at byte 512): all 4096 bytes are kept: unknown filesystem"
        );
        assert_eq!(
            told(MapNote::Within { name: "vg/guest".to_owned(), note: Box::new(root) }),
            "logical volume vg/guest/vg/root (LVM at byte 512): ext4, 1024 of 4096 bytes are used"
        );
    }

    #[test]
    fn files_that_are_not_excluded_are_warnings_with_reasons_and_few_are_named() {
        let told = |note: PlanNote| {
            let mut remarks = Remarks::default();
            remarks.take_plan_note(&note);
            assert_eq!(remarks.notes, [""; 0]);
            remarks.warnings
        };
        let volume = 512;
        let (filesystem, why) = ("ext4".to_owned(), "it was not unmounted".to_owned());
        let text = "no file of the ext4 volume at byte 512 is excluded: it was not unmounted";
        assert_eq!(told(PlanNote::NothingExcluded { volume, filesystem, why }), [text]);
        // What this program cannot do yet is no fault of the disk.
        let (filesystem, why) = ("xfs".to_owned(), "not yet".to_owned());
        let mut remarks = Remarks::default();
        remarks.take_plan_note(&PlanNote::FilesNotRead { volume, filesystem, why });
        assert_eq!((remarks.notes.len(), remarks.warnings.len()), (1, 0));
        let file = KeptFile { path: "a/b".to_owned(), reason: KeptReason::OtherName };
        let one = PlanNote::NotExcluded { volume, files: vec![file.clone()], count: 1 };
        let text = "not excluded from the volume at byte 512: a/b: it has another name that does \
                    not match";
        assert_eq!(told(one), [text]);
        let many = told(PlanNote::NotExcluded { volume, files: vec![file; 100], count: 1000 });
        assert_eq!(many.len(), NAMED_MAX + 1);
        let rest = "980 more files of the volume at byte 512 match and are not excluded";
        assert_eq!(many.last().map(String::as_str), Some(rest));
    }

    #[test]
    fn a_bitmap_that_lied_is_a_warning_and_one_that_was_not_asked_a_note() {
        let told = |not_used: Option<NotUsed>| {
            let (mut remarks, tracker) = (Remarks::default(), "b".to_owned());
            let hint = HintReport { tracker, bytes_skipped: 0, bytes_audited: 0, not_used };
            remarks.take_hint(&hint);
            remarks
        };
        assert_eq!(told(None), Remarks::default());
        assert_eq!(told(Some(NotUsed::Full)), Remarks::default());
        for why in [NotUsed::Lied { offset: 7 }, NotUsed::Distrusted { offset: 7 }] {
            let Remarks { notes, warnings } = told(Some(why));
            assert_eq!((notes.len(), warnings.len()), (0, 1));
            assert!(warnings[0].contains("change at byte 7 was not marked"), "{warnings:?}");
        }
        let text = "all was read, bitmap b was not used: it was cleared or made anew since the \
                    point the image builds on";
        assert_eq!(told(Some(NotUsed::Cleared)).notes, [text]);
    }

    #[test]
    fn lost_bytes_are_a_warning_with_their_place() {
        let lost = [Extent::new(4096, 512), Extent::new(8192, 1024)];
        let remarks = Remarks::on_restore(&[], &lost);
        let text = "1536 bytes in 2 places could not be read when the disk was imaged, the first \
                    at byte 4096";
        assert_eq!(remarks, Remarks { notes: Vec::new(), warnings: vec![text.to_owned()] });
    }

    #[test]
    fn a_larger_target_is_worth_a_note_and_other_sectors_a_warning() {
        let larger = Note::TargetLarger { rest: Extent::new(0, 7) };
        let remarks = Remarks::on_restore(&[larger, Note::BackupHeaderNotAtEnd], &[]);
        assert_eq!((remarks.notes.len(), remarks.warnings.len()), (2, 0));
        let moved = [Note::TableFitted, Note::TailCut { rest: Extent::new(7, 7) }];
        assert_eq!(Remarks::on_restore(&moved, &[]).notes.len(), 2);
        let converted = Note::SectorsConverted { source: 512, target: 4096 };
        assert_eq!(Remarks::on_restore(&[converted], &[]).warnings.len(), 1);
        let new = Note::NewIdentity { before: "a".into(), after: "b".into(), partitions: true };
        let notes = Remarks::on_restore(&[new, Note::SourceDisk], &[]).notes;
        assert!(notes[0].contains("is b now, it was a; the GUIDs of its partitions"), "{notes:?}");
        let same = Note::SameIdentity { other: "/dev/sdb".into(), id: "a".into() };
        assert_eq!(Remarks::on_restore(&[same], &[]).warnings.len(), 1);
        for (files, words) in [(0, "some files were"), (1, "1 file was"), (7, "7 files were")] {
            let told = Remarks::on_restore(&[Note::Excluded { files }], &[]).notes;
            assert!(told[0].starts_with(&format!("{words} excluded from")), "{told:?}");
        }
        let grown = Note::FilesystemGrown { number: 1, filesystem: "ext4".to_owned() };
        assert_eq!(Remarks::on_restore(&[grown], &[]).notes.len(), 1);
        let not_grown = Note::FilesystemNotGrown {
            number: 2,
            filesystem: "ntfs".to_owned(),
            why: "ntfsresize is not installed".to_owned(),
            by_hand: "ntfsresize PARTITION",
        };
        let text = "partition 2 grew, its ntfs keeps its size: ntfsresize is not installed; by \
                    hand: ntfsresize PARTITION";
        assert_eq!(Remarks::on_restore(&[not_grown], &[]).warnings, [text]);
        for filesystem in ["", "unknown"] {
            let (filesystem, why) = (filesystem.to_owned(), "no tool is known for it".to_owned());
            let note = Note::FilesystemNotGrown { number: 2, filesystem, why, by_hand: "" };
            let text = "partition 2 grew, its content keeps its size: no tool is known for it";
            assert_eq!(Remarks::on_restore(&[note], &[]).warnings, [text]);
        }
        let kept = Note::TableKept(aiv_restore_engine::Unfit::Hybrid);
        assert_eq!(Remarks::on_restore(&[kept], &[]).warnings.len(), 1);
        let sectors = Note::OtherSectorSize { source: 512, target: 4096 };
        assert_eq!(Remarks::on_restore(&[sectors], &[]).warnings.len(), 1);
    }

    #[test]
    fn a_lost_image_is_a_warning_and_a_file_of_somebody_else_is_not() {
        let file = |name: &str, kind| Stray { file: name.to_owned(), size: 9, image: None, kind };
        let strays = vec![
            file("a.aiv", StrayKind::Unusable("cut off".to_owned())),
            file("b.aiv", StrayKind::Foreign("begins with other bytes".to_owned())),
            file("c.aiv.part", StrayKind::Unfinished),
        ];
        let unverified = Remarks::on_unverified(&[], &strays, Depth::Data, &Keys::none());
        assert_eq!((unverified.notes.len(), unverified.warnings.len()), (1, 2));
        let mut folder = Folder::default();
        folder.strays.extend(strays);
        let remarks = Remarks::on_folder(&folder);
        assert_eq!(remarks.warnings, ["a.aiv: unusable: cut off"]);
        assert_eq!(remarks.notes.len(), 2);
        // A file is not both gone and there.
        let (point, set) = (PointId([7; 16]), SetId([1; 16]));
        for file in ["a.aiv", "gone.aiv"] {
            let name = file.to_owned();
            let set_name = String::new();
            folder.vanished.push(Vanished { file: name, point, set, set_name, time_unix_ms: 0 });
        }
        let remarks = Remarks::on_folder(&folder);
        assert_eq!(
            remarks.warnings,
            [format!("a.aiv: unusable: cut off; point {point} was in it")]
        );
        assert_eq!(remarks.notes[0], format!("point {point} is gone with its file gone.aiv"));
        assert_eq!(remarks.notes.len(), 3);
        let unused = Remarks::on_unused(&folder.strays[..1], "copied").warnings;
        assert_eq!(unused, ["not copied: a.aiv: unusable: cut off"]);
    }
}
