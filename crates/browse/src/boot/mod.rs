//! Whether a disk has what it needs to boot, as far as its bytes tell.

mod entries;
mod linux;

use std::ops::ControlFlow;

use aiv_filesystems::FileType;
use aiv_volume_io::Job;
use aiv_volume_io::partition::{PartitionKind, TableKind};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::path::Path;
use crate::resolve::{File, Links, Place};
use crate::volume::Volume;

/// Bytes of a text that is read.
const TEXT_MAX: u64 = 1 << 20;
/// Programs of an EFI system partition that are named.
const LOADERS_MAX: usize = 300;
/// Type GUIDs of the partitions firmware and boot loaders look for, in lower case.
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

/// One thing a machine needs to boot, or that says it would not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootFact {
    /// An EFI system partition, with the loaders on it, as paths.
    EfiSystem {
        /// Volume.
        volume: String,
        /// Programs below `EFI`, at most a few hundred.
        loaders: Vec<Path>,
        /// The one that firmware starts without being told to, `\EFI\BOOT\BOOT*.EFI`.
        fallback: bool,
    },
    /// The first sector has code, and what it goes on with can be there.
    BiosCode {
        /// The partition marked active, of an MBR.
        active: Option<String>,
        /// The partition GRUB keeps its core in, of a GPT.
        bios_boot: Option<String>,
    },
    /// A Linux system.
    Linux {
        /// Volume with `/etc/fstab`.
        volume: String,
        /// Kernels, each with its initial RAM disk when one was found: the same file where one holds
        /// both.
        kernels: Vec<(Path, Option<Path>)>,
        /// Configuration of a boot loader.
        loader: Option<Path>,
        /// Entries of fstab whose volume is on this disk.
        mounts_found: u64,
        /// Names in fstab that no volume of this disk has.
        mounts_missing: Vec<String>,
        /// What the configuration of boot loaders names and is not there, as sentences.
        dangling: Vec<String>,
    },
    /// A Windows system.
    Windows {
        /// Volume with `Windows\System32`.
        volume: String,
        /// Whether the loader is there.
        loader: bool,
        /// Where boot configuration data was found.
        configuration: Option<Path>,
    },
}

/// What a disk has of what it needs to boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootReport {
    /// What was found.
    pub facts: Vec<BootFact>,
    /// What is wrong, as sentences.
    pub faults: Vec<String>,
}

impl BootReport {
    /// Whether there is a system at all.
    #[must_use]
    pub fn has_system(&self) -> bool {
        let is_system =
            |fact: &BootFact| matches!(fact, BootFact::Linux { .. } | BootFact::Windows { .. });
        self.facts.iter().any(is_system)
    }
}

/// Looks for what a machine needs to boot from `disk`. Reads a few folders and texts; proves
/// nothing about the programs themselves.
///
/// # Errors
/// [`Error::Canceled`] only: what cannot be read is not there.
pub fn boot_report(disk: &Disk, job: Job<'_>) -> Result<BootReport> {
    let mut report = BootReport::default();
    let look = Look { disk, job };
    for volume in disk.volumes() {
        report.facts.extend(look.efi_system(volume)?);
    }
    report.facts.extend(look.bios_code()?);
    let entries = look.entries()?;
    for volume in disk.volumes() {
        report.facts.extend(look.linux(volume, &entries)?);
        report.facts.extend(look.windows(volume)?);
    }
    if report.has_system() {
        report.faults = faults(&report.facts);
    }
    Ok(report)
}

fn faults(facts: &[BootFact]) -> Vec<String> {
    let mut faults = Vec::new();
    let by_bios = facts.iter().any(|fact| matches!(fact, BootFact::BiosCode { .. }));
    let mut by_efi = false;
    for fact in facts {
        match fact {
            BootFact::EfiSystem { volume, loaders, .. } if loaders.is_empty() => {
                faults.push(format!("the EFI system partition {volume} has no loader"));
            }
            BootFact::EfiSystem { .. } => by_efi = true,
            BootFact::Linux { volume, kernels, mounts_missing, dangling, .. } => {
                if kernels.is_empty() {
                    faults.push(format!("no kernel was found for the system on {volume}"));
                } else if kernels.iter().all(|(_, ram_disk)| ram_disk.is_none()) {
                    faults.push(format!(
                        "no kernel of the system on {volume} has an initial RAM disk beside it"
                    ));
                }
                faults.extend(dangling.iter().cloned());
                for missing in mounts_missing {
                    faults.push(format!(
                        "/etc/fstab on {volume} names {missing}, which no volume is"
                    ));
                }
            }
            BootFact::Windows { volume, loader, configuration } => {
                if !loader {
                    faults.push(format!("the system on {volume} has no loader"));
                }
                if configuration.is_none() {
                    faults.push("no boot configuration data of Windows was found".to_owned());
                }
            }
            BootFact::BiosCode { .. } => {}
        }
    }
    if !by_bios && !by_efi {
        faults.push("neither code in the first sector nor an EFI loader was found".to_owned());
    }
    faults
}

struct Look<'a> {
    disk: &'a Disk,
    job: Job<'a>,
}

impl Look<'_> {
    /// What is at `path` below the root of a volume, links followed.
    fn at(&self, volume: &Volume, path: &str) -> Result<Option<File>> {
        self.job.check()?;
        let mut full = volume.path();
        for part in path.split('/') {
            full = full.join(part.as_bytes());
        }
        match self.disk.resolve(&full, Links::Follow, self.job) {
            Ok(Place::File(file)) => Ok(Some(file)),
            Err(Error::Canceled(canceled)) => Err(canceled.into()),
            Ok(Place::Top | Place::Volumes(_)) | Err(_) => Ok(None),
        }
    }

    /// Names of files in a folder.
    fn names(&self, folder: &File) -> Result<Vec<(Vec<u8>, bool)>> {
        let mut names = Vec::new();
        let read = folder.filesystem.entries(folder.id, self.job, &mut |entry| {
            let is_folder = folder
                .filesystem
                .metadata(entry.id)
                .is_ok_and(|found| found.file_type == FileType::Folder);
            names.push((entry.name, is_folder));
            if names.len() < 10_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match read {
            Err(aiv_filesystems::Error::Canceled(canceled)) => Err(canceled.into()),
            _ => {
                names.sort();
                Ok(names)
            }
        }
    }

    fn text(&self, file: &File) -> Option<String> {
        let data = file.filesystem.open(file.id).ok()?;
        let len = usize::try_from(data.len().min(TEXT_MAX)).ok()?;
        let mut bytes = vec![0; len];
        data.read_exact_at(&mut bytes, 0).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn efi_system(&self, volume: &Volume) -> Result<Option<BootFact>> {
        let kind = volume.partition().map(|partition| partition.kind);
        let is_esp = match kind {
            Some(PartitionKind::Gpt(guid)) => guid.to_string().eq_ignore_ascii_case(ESP),
            Some(PartitionKind::Mbr(code)) => code == 0xef,
            None => false,
        };
        if !is_esp {
            return Ok(None);
        }
        let (mut loaders, mut fallback) = (Vec::new(), false);
        if let Some(efi) = self.at(volume, "EFI")? {
            for (vendor, is_folder) in self.names(&efi)? {
                if !is_folder {
                    continue;
                }
                let name = String::from_utf8_lossy(&vendor).into_owned();
                let Some(folder) = self.at(volume, &format!("EFI/{name}"))? else { continue };
                for (program, _) in self.names(&folder)? {
                    let lower = program.to_ascii_lowercase();
                    if lower.ends_with(b".efi") && loaders.len() < LOADERS_MAX {
                        let is_default = name.eq_ignore_ascii_case("boot");
                        fallback |= is_default && lower.starts_with(b"boot");
                        loaders.push(folder.path.join(&program));
                    }
                }
            }
        }
        Ok(Some(BootFact::EfiSystem { volume: volume.name().to_owned(), loaders, fallback }))
    }

    fn bios_code(&self) -> Result<Option<BootFact>> {
        self.job.check()?;
        // Code of a boot record, up to the signature of the disk.
        let mut code = [0; 440];
        let read = self.disk.bytes().read_exact_at(&mut code, 0);
        if read.is_err() || code.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let volumes = self.disk.volumes();
        let named = |is: &dyn Fn(&aiv_volume_io::partition::Partition) -> bool| {
            let found = volumes.iter().find(|volume| volume.partition().is_some_and(is));
            found.map(|volume| volume.name().to_owned())
        };
        let bios_boot = named(&|partition| match partition.kind {
            PartitionKind::Gpt(guid) => guid.to_string().eq_ignore_ascii_case(BIOS_BOOT),
            PartitionKind::Mbr(_) => false,
        });
        let active = named(&|partition| partition.bootable);
        match self.disk.table() {
            // Code with nowhere to go on from is left over.
            TableKind::Gpt if bios_boot.is_none() && active.is_none() => Ok(None),
            TableKind::None => Ok(None),
            _ => Ok(Some(BootFact::BiosCode { active, bios_boot })),
        }
    }

    fn windows(&self, volume: &Volume) -> Result<Option<BootFact>> {
        if self.at(volume, "Windows/System32")?.is_none() {
            return Ok(None);
        }
        let mut loader = false;
        for name in ["winload.efi", "winload.exe"] {
            loader |= self.at(volume, &format!("Windows/System32/{name}"))?.is_some();
        }
        let mut configuration = None;
        for other in self.disk.volumes() {
            for path in ["EFI/Microsoft/Boot/BCD", "Boot/BCD"] {
                if configuration.is_none() {
                    configuration = self.at(other, path)?.map(|file| file.path);
                }
            }
        }
        Ok(Some(BootFact::Windows { volume: volume.name().to_owned(), loader, configuration }))
    }
}
