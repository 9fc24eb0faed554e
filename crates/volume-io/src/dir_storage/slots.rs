use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::given_up;
use super::place::Place;
use crate::{SlotCopy, SlotFile};

/// A finished file, opened to change its key slots.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    place: Place,
    failed: bool,
}

impl Slots {
    pub(super) fn new(file: File, place: Place) -> Self {
        Self { file, place, failed: false }
    }

    fn run(&mut self, act: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        if self.failed {
            return Err(given_up("an earlier write or sync of this file"));
        }
        let done = act(&self.file);
        self.failed = done.is_err();
        done
    }
}

impl SlotFile for Slots {
    fn write(&mut self, copy: SlotCopy<'_>) -> io::Result<()> {
        self.place.clone().run(|| {
            copy.check_inside(self.file.metadata()?.len())?;
            self.run(|file| file.write_all_at(copy.bytes(), copy.offset()))
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.place.clone().run(|| self.run(File::sync_all))
    }
}
