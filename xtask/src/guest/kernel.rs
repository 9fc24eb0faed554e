//! Debian's kernel for clouds, unpacked and not installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::failed;
use super::packages::Packages;
use crate::Outcome;

/// The package that always depends on the newest one.
const NEWEST: &str = "linux-image-cloud-amd64";

pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// What `uname -r` will say.
    pub(super) release: String,
    /// Files of modules by their name, with `_` for `-`.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Downloads and unpacks it into `folder`, where it stays for the next time.
    pub(super) fn provide(folder: &Path) -> Result<Self, String> {
        let unpacked = folder.join("kernel");
        if !unpacked.is_dir() {
            download(folder, &unpacked)?;
        }
        let boot = unpacked.join("boot");
        let entries = fs::read_dir(&boot).map_err(failed("reading", &boot))?;
        let release_of = |path: PathBuf| {
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some((path, release))
        };
        let image = entries.flatten().map(|entry| entry.path()).find_map(release_of);
        let (image, release) = image.ok_or_else(|| format!("no kernel in {}", boot.display()))?;
        let mut modules = BTreeMap::new();
        find_modules(&unpacked.join("lib/modules"), &mut modules)?;
        Ok(Self { image, release, modules })
    }

    /// Modules that did not come with it.
    pub(super) fn add(&mut self, folder: &Path) -> Outcome {
        find_modules(folder, &mut self.modules)
    }

    /// The files of modules, each after those it depends on.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let mut ordered = Vec::new();
        for name in names {
            self.add_module(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add_module(&self, name: &str, ordered: &mut Vec<PathBuf>) -> Result<(), String> {
        let file = self.modules.get(&name.replace('-', "_"));
        let file = file.ok_or_else(|| format!("the kernel has no module '{name}'"))?;
        if ordered.contains(file) {
            return Ok(());
        }
        let bytes = fs::read(file).map_err(failed("reading", file))?;
        for needed in dependencies(&bytes) {
            self.add_module(&needed, ordered)?;
        }
        ordered.push(file.clone());
        Ok(())
    }
}

/// What a module says it needs: a text `depends=a,b` that ends with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list).into_owned();
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(failed("reading", folder))?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_modules(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            found.insert(name, path);
        }
    }
    Ok(())
}

fn download(folder: &Path, unpacked: &Path) -> Outcome {
    let debian = Packages::of_machine();
    let needed = debian.dependencies(NEWEST)?;
    let package = needed.iter().find(|name| name.starts_with("linux-image-"));
    let package = package.ok_or_else(|| format!("{NEWEST} needs no kernel"))?;
    // Renamed at the end: a folder of that name is a whole one.
    let part = folder.join("kernel.part");
    debian.unpack(&[package], &part)?;
    fs::rename(&part, unpacked).map_err(failed("renaming", &part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"...\0license=GPL\0depends=dm-mod,dm-bufio\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["dm-mod", "dm-bufio"]);
        assert_eq!(dependencies(b"\0depends=\0"), [""; 0]);
        assert_eq!(dependencies(b"no module"), [""; 0]);
    }
}
