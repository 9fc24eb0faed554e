use std::path::{Path, PathBuf};

use aiv_backup_engine::SourceFacts;
use aiv_volume_io::{FileDisk, ReadAt};

use crate::error::Result;

/// A source, opened for reading, and what is known about it besides its bytes.
pub struct Source {
    /// Its bytes.
    pub disk: Box<dyn ReadAt>,
    /// Name, identity, sectors, and who could write to it.
    pub facts: SourceFacts,
    /// Every file and device its bytes come from. Images must not be written onto any of them.
    pub made_of: Vec<PathBuf>,
}

impl Source {
    /// Opens what `word` names: a block device or a raw disk file. `root` is where `/sys` and
    /// `/proc` are found.
    ///
    /// # Errors
    /// [`crate::Error::Volume`] when it cannot be opened, [`crate::Error::Backup`] when the
    /// machine cannot be asked about it.
    pub fn open(root: &Path, word: &Path) -> Result<Self> {
        let mut disk = FileDisk::open_source(word)?;
        let facts = SourceFacts::gather(root, word)?;
        if !facts.writers.is_empty() {
            disk = FileDisk::open_source_direct(word)?;
        }
        Ok(Self { disk: Box::new(disk), facts, made_of: vec![word.to_path_buf()] })
    }
}
