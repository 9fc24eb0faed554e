//! Backups in this process, for studies of many images.

use std::path::Path;

use aiv_backup_engine::{BackupIds, BackupOptions, BackupPlan, BackupReport, SourceFacts};
use aiv_chain::{Folder, View};
use aiv_image_format::GroupId;
use aiv_image_format::meta::Inventory;
use aiv_testkit::Random;
use aiv_volume_io::{DirStorage, FileDisk, Job, ReadAt};

/// Makes image after image of one raw file in one folder.
pub(in super::super) struct Maker {
    storage: DirStorage,
    /// Name of the source.
    name: String,
    taken: u64,
}

impl Maker {
    pub(super) fn new(folder: &Path) -> Result<Self, String> {
        Self::after(folder, 0)
    }

    /// Goes on in a folder with so many images.
    pub(in super::super) fn after(folder: &Path, taken: u64) -> Result<Self, String> {
        Self::of(folder, "bench", taken)
    }

    /// Goes on with the source of this name after so many images, of whatever source.
    pub(super) fn of(folder: &Path, name: &str, taken: u64) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let storage = DirStorage::open(folder);
        let storage = storage.map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { storage, name: name.to_owned(), taken })
    }

    pub(super) fn back_up(
        &mut self,
        source: &Path,
        options: BackupOptions,
    ) -> Result<BackupReport, String> {
        let disk = FileDisk::open_source(source).map_err(|e| e.to_string())?;
        self.back_up_disk(&disk, options)
    }

    pub(in super::super) fn back_up_disk(
        &mut self,
        disk: &dyn ReadAt,
        options: BackupOptions,
    ) -> Result<BackupReport, String> {
        self.taken += 1;
        let mut bytes = [0; BackupIds::RANDOM_LEN];
        Random::new(&[self.taken]).fill(&mut bytes);
        let ids = BackupIds::new(&bytes, GroupId([1; 16]), self.taken * 60_000);
        let facts = SourceFacts {
            name: self.name.clone(),
            source_id: Some(format!("{}, the source of a study", self.name)),
            ..SourceFacts::default()
        };
        let plan =
            BackupPlan::new(disk, facts, options, Job::silent()).map_err(|e| e.to_string())?;
        let inventory = Inventory::default();
        plan.apply(disk, &self.storage, &ids, &inventory, None, Job::silent())
            .map_err(|e| e.to_string())
    }

    /// The newest point.
    pub(super) fn view(&self) -> Result<View, String> {
        newest(&self.storage, &scan(&self.storage)?)
    }
}

pub(in super::super) fn scan(storage: &DirStorage) -> Result<Folder, String> {
    Folder::scan(storage, Job::silent()).map_err(|e| e.to_string())
}

/// Writes the catalogue of a folder, as the program does after each backup.
pub(super) fn catalogue(folder: &Path) -> Result<(), String> {
    let storage = DirStorage::open(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let (_, catalogue) = Folder::scan_with(&storage, Job::silent()).map_err(|e| e.to_string())?;
    catalogue.write(&storage).map(drop).map_err(|e| e.to_string())
}

pub(in super::super) fn newest(storage: &DirStorage, folder: &Folder) -> Result<View, String> {
    let set = folder.sets.first().ok_or("the folder holds no images")?;
    let point = set.points.last().ok_or("the folder holds no images")?;
    View::of_point(storage, set, point).map_err(|e| e.to_string())
}

/// Fails unless the view and the file have the same bytes.
pub(super) fn compare(view: &View, source: &Path) -> Result<(), String> {
    const PIECE: usize = 1 << 20;
    let disk = FileDisk::open_source(source).map_err(|e| e.to_string())?;
    let (mut old, mut new) = (vec![0; PIECE], vec![0; PIECE]);
    if view.len() != disk.len() {
        return Err(format!("{} bytes in the image, {} in the source", view.len(), disk.len()));
    }
    for start in (0..disk.len()).step_by(PIECE) {
        let len = usize::try_from(disk.len() - start).map_or(PIECE, |left| left.min(PIECE));
        disk.read_exact_at(&mut new[..len], start).map_err(|e| e.to_string())?;
        view.read_exact_at(&mut old[..len], start).map_err(|e| e.to_string())?;
        if old[..len] != new[..len] {
            return Err(format!("the image is not what the source was near byte {start}"));
        }
    }
    Ok(())
}
