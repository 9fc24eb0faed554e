//! What boot loaders are told: entries of the Boot Loader Specification, kernels that are programs of
//! EFI, and the roots that are named there.

use super::Look;
use crate::error::Result;
use crate::mounts;
use crate::path::Path;
use crate::volume::Volume;

/// Entries of each folder that are looked at.
const ENTRIES_MAX: usize = 100;
/// Sentences of what is missing.
const DANGLING_MAX: usize = 100;
/// What stands in front of the name of the root in a line for a kernel.
const ROOT: &str = "root=";

/// What the entries of all volumes say.
#[derive(Default)]
pub(super) struct Entries {
    /// Kernels that are there, each with its RAM disk.
    pub(super) kernels: Vec<(Path, Option<Path>)>,
    /// What is not there, as sentences.
    pub(super) dangling: Vec<String>,
}

impl Look<'_> {
    /// Reads the entries of all volumes.
    pub(super) fn entries(&self) -> Result<Entries> {
        let mut entries = Entries::default();
        for volume in self.disk.volumes() {
            for base in ["", "boot/"] {
                if let Some(folder) = self.at(volume, &format!("{base}loader/entries"))? {
                    let names = self.names(&folder)?;
                    let names = names.into_iter().filter(|(name, _)| name.ends_with(b".conf"));
                    for (name, _) in names.take(ENTRIES_MAX) {
                        let path = String::from_utf8_lossy(&name).into_owned();
                        let path = format!("{base}loader/entries/{path}");
                        self.entry(volume, &path, &mut entries)?;
                    }
                }
                self.programs(volume, &format!("{base}EFI/Linux"), &mut entries)?;
            }
        }
        entries.dangling.truncate(DANGLING_MAX);
        Ok(entries)
    }

    /// Kernels that are programs of EFI hold their RAM disk.
    fn programs(&self, volume: &Volume, path: &str, entries: &mut Entries) -> Result<()> {
        let Some(folder) = self.at(volume, path)? else { return Ok(()) };
        let names = self
            .names(&folder)?
            .into_iter()
            .filter(|(name, is_folder)| !is_folder && name.to_ascii_lowercase().ends_with(b".efi"));
        entries.kernels.extend(names.take(ENTRIES_MAX).map(|(name, _)| {
            let kernel = folder.path.join(&name);
            (kernel.clone(), Some(kernel))
        }));
        Ok(())
    }

    /// An entry names its files from the root of the volume it is on.
    fn entry(&self, volume: &Volume, path: &str, entries: &mut Entries) -> Result<()> {
        let Some(file) = self.at(volume, path)? else { return Ok(()) };
        let text = self.text(&file).unwrap_or_default();
        let (mut kernel, mut ram_disk) = (None, None);
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once(char::is_whitespace) else { continue };
            let value = value.trim();
            match key {
                "linux" | "initrd" | "efi" if !value.contains('$') => {
                    let found = self.at(volume, value.trim_matches('/'))?.map(|found| found.path);
                    if found.is_none() {
                        let why = format!("{} names {value}, which is not there", file.path);
                        entries.dangling.push(why);
                    }
                    if key == "linux" {
                        kernel = kernel.or(found);
                    } else if key == "initrd" {
                        ram_disk = ram_disk.or(found);
                    }
                }
                "options" => self.roots(value, &file.path, &mut entries.dangling),
                _ => {}
            }
        }
        if let Some(kernel) = kernel
            && entries.kernels.iter().all(|(known, _)| *known != kernel)
        {
            entries.kernels.push((kernel, ram_disk));
        }
        Ok(())
    }

    /// Says which volumes the configuration at `path` names as roots of systems, and are nowhere.
    pub(super) fn roots(&self, text: &str, path: &Path, dangling: &mut Vec<String>) {
        let mut words: Vec<&str> = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(ROOT))
            .filter(|word| !word.contains('$'))
            .collect();
        words.sort_unstable();
        words.dedup();
        for word in words.into_iter().take(DANGLING_MAX) {
            if mounts::is_missing(self.disk, word) {
                dangling.push(format!("{path} names {word}, which no volume is"));
            }
        }
    }
}
