//! Linux systems: their tables of mounts, kernels and boot loaders.

use aiv_filesystems::FilesystemKind;
use aiv_volume_io::Job;

use super::entries::Entries;
use super::{BootFact, Look};
use crate::error::{Error, Result};
use crate::mounts::mounts;
use crate::path::Path;
use crate::resolve::{Links, Place};
use crate::volume::Volume;

/// Subvolumes of Btrfs that are looked at.
const SUBVOLUMES_MAX: usize = 100;
/// Where a first system lies whose root is a snapshot that can be rolled back.
const SNAPSHOT: &str = "@/.snapshots/1/snapshot/";
/// Where kernels lie.
const KERNELS: [&str; 3] = ["vmlinuz-", "vmlinux-", "kernel-"];

impl Look<'_> {
    pub(super) fn linux(&self, volume: &Volume, entries: &Entries) -> Result<Option<BootFact>> {
        let Some((root, text)) = self.system(volume)? else { return Ok(None) };
        let mut kernels = self.kernels(volume, &format!("{root}boot"))?;
        // A volume of its own for /boot has its kernels in its root.
        for other in self.disk.volumes() {
            if kernels.is_empty() && other.name() != volume.name() {
                kernels = self.kernels(other, "")?;
            }
        }
        for (kernel, ram_disk) in &entries.kernels {
            match kernels.iter_mut().find(|(known, _)| known == kernel) {
                Some((_, known)) => *known = known.take().or_else(|| ram_disk.clone()),
                None => kernels.push((kernel.clone(), ram_disk.clone())),
            }
        }
        let mut loader = None;
        let own = format!("{root}boot/");
        for (place, prefix) in self.disk.volumes().iter().flat_map(|v| [(v, &*own), (v, "")]) {
            for name in
                ["grub/grub.cfg", "grub2/grub.cfg", "loader/loader.conf", "extlinux/extlinux.conf"]
            {
                if loader.is_none() {
                    loader = self.at(place, &format!("{prefix}{name}"))?;
                }
            }
        }
        let mut dangling = entries.dangling.clone();
        if let Some(file) = loader.as_ref().filter(|file| file.path.name() == b"grub.cfg") {
            self.roots(&self.text(file).unwrap_or_default(), &file.path, &mut dangling);
        }
        let (mounts_found, mounts_missing) = mounts(self.disk, &text);
        let volume = volume.name().to_owned();
        let loader = loader.map(|file| file.path);
        Ok(Some(BootFact::Linux {
            volume,
            kernels,
            loader,
            mounts_found,
            mounts_missing,
            dangling,
        }))
    }

    /// Where the root of a system is on a volume, with a slash at its end or empty, and its table of
    /// mounts: systems on Btrfs lie in a subvolume.
    fn system(&self, volume: &Volume) -> Result<Option<(String, String)>> {
        let mut roots = vec![String::new()];
        if volume.recognised().kind == FilesystemKind::Btrfs
            && let Some(top) = self.root(volume)?
        {
            let folders = self.names(&top)?.into_iter().filter(|(_, is_folder)| *is_folder);
            let names = folders.filter_map(|(name, _)| String::from_utf8(name).ok());
            roots.extend(names.take(SUBVOLUMES_MAX).map(|name| format!("{name}/")));
            roots.push(SNAPSHOT.to_owned());
        }
        for root in roots {
            if let Some(table) = self.at(volume, &format!("{root}etc/fstab"))? {
                return Ok(Some((root, self.text(&table).unwrap_or_default())));
            }
        }
        Ok(None)
    }

    fn root(&self, volume: &Volume) -> Result<Option<crate::resolve::File>> {
        let job: Job<'_> = self.job;
        match self.disk.resolve(&volume.path(), Links::Keep, job) {
            Ok(Place::File(root)) => Ok(Some(root)),
            Err(Error::Canceled(canceled)) => Err(canceled.into()),
            _ => Ok(None),
        }
    }

    fn kernels(&self, volume: &Volume, folder: &str) -> Result<Vec<(Path, Option<Path>)>> {
        let root = if folder.is_empty() { self.root(volume)? } else { self.at(volume, folder)? };
        let Some(root) = root else { return Ok(Vec::new()) };
        let names = self.names(&root)?;
        let mut kernels = Vec::new();
        for (name, is_folder) in &names {
            let text = String::from_utf8_lossy(name);
            let version = KERNELS.iter().find_map(|prefix| text.strip_prefix(prefix));
            let Some(version) = version.filter(|_| !is_folder) else { continue };
            let ram_disks = [
                format!("initrd.img-{version}"),
                format!("initramfs-{version}.img"),
                format!("initrd-{version}"),
                format!("initramfs-{version}"),
            ];
            let found = names.iter().find(|(other, _)| {
                ram_disks.iter().any(|wanted| wanted.as_bytes() == other.as_slice())
            });
            kernels.push((root.path.join(name), found.map(|(other, _)| root.path.join(other))));
        }
        Ok(kernels)
    }
}
