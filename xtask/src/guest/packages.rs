//! Packages of Debian, downloaded and unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::failed;
use crate::{Outcome, process, setup};

/// Where packages come from.
pub(super) struct Packages {
    /// For every call of apt.
    options: Vec<String>,
}

impl Packages {
    /// What apt knows on this machine.
    pub(super) fn of_machine() -> Self {
        Self { options: Vec::new() }
    }

    /// The component `name` of the release that runs here, whether apt knows it or not. `folder`
    /// keeps the lists, and nothing of the machine's changes.
    pub(super) fn of_component(name: &str, folder: &Path) -> Result<Self, String> {
        let lists = folder.join("lists");
        let partial = lists.join("partial");
        fs::create_dir_all(&partial).map_err(failed("creating", &partial))?;
        let sources = folder.join("sources.list");
        let (mirror, keyring) = (setup::MIRROR, setup::KEYRING);
        let line = format!("deb [signed-by={keyring}] {mirror} {} {name}\n", setup::codename()?);
        fs::write(&sources, line).map_err(failed("writing", &sources))?;
        let option =
            |key: &str, path: &Path| ["-o".to_owned(), format!("{key}={}", path.display())];
        let options = [
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &lists),
            option("Dir::Cache", folder),
        ];
        let packages = Self { options: options.concat() };
        process::run(packages.apt("apt-get").args(["--quiet", "update"]))?;
        Ok(packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = process::command(program);
        apt.args(&self.options);
        apt
    }

    /// What a package depends on, by name.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>, String> {
        let output = self.apt("apt-cache").args(["depends", package]).output();
        let output = output.map_err(|e| format!("apt-cache: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let names: Vec<String> = names.map(str::to_owned).collect();
        match names.is_empty() {
            true => Err(format!("apt knows no package {package}")),
            false => Ok(names),
        }
    }

    /// Downloads packages and unpacks them into `folder`.
    pub(super) fn unpack(&self, names: &[&str], folder: &Path) -> Outcome {
        let files = folder.with_extension("packages");
        fs::create_dir_all(&files).map_err(failed("creating", &files))?;
        let mut download = self.apt("apt-get");
        process::run(download.args(["download", "--quiet"]).args(names).current_dir(&files))?;
        let entries = fs::read_dir(&files).map_err(failed("reading", &files))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
        for file in entries.flatten().map(|entry| entry.path()).filter(is_package) {
            process::run(process::command("dpkg-deb").arg("--extract").args([&file, folder]))?;
        }
        fs::remove_dir_all(&files).map_err(failed("removing", &files))
    }
}
