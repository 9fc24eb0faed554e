//! ZFS for the kernel of a guest: modules built from Debian's sources, and its programs.
//!
//! Debian has no modules of ZFS to download, for reasons of licenses; whoever wants them builds
//! them. They are not installed either. The build takes minutes, once for each kernel.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::failed;
use super::kernel::Kernel;
use super::packages::Packages;
use crate::{Outcome, process};

/// Where Debian keeps what is free and needs what is not, and ZFS.
const COMPONENT: &str = "contrib";
const SOURCE: &str = "zfs-dkms";
const PROGRAMS: [&str; 5] =
    ["zfsutils-linux", "libzfs4linux", "libzpool5linux", "libnvpair3linux", "libuutil3linux"];

pub(super) struct Zfs {
    /// Programs and libraries, as they would lie below `/`.
    pub(super) root: PathBuf,
    pub(super) modules: PathBuf,
}

impl Zfs {
    /// Downloads and builds it into `folder`, where it stays for the next time.
    pub(super) fn provide(folder: &Path, kernel: &Kernel) -> Result<Self, String> {
        let place = folder.join(format!("zfs-{}", kernel.release));
        if !place.is_dir() {
            // Renamed at the end: a folder of that name is a whole one.
            let part = folder.join("zfs.part");
            if part.exists() {
                fs::remove_dir_all(&part).map_err(failed("removing", &part))?;
            }
            build(&part, kernel)?;
            fs::rename(&part, &place).map_err(failed("renaming", &part))?;
        }
        Ok(Self { root: place.join("root"), modules: place.join("modules") })
    }
}

fn build(part: &Path, kernel: &Kernel) -> Outcome {
    println!("guest: building ZFS for {}, some minutes", kernel.release);
    let work = part.join("work");
    let contrib = Packages::of_component(COMPONENT, &work.join("apt"))?;
    contrib.unpack(&PROGRAMS, &part.join("root"))?;
    contrib.unpack(&[SOURCE], &work.join("source"))?;
    let headers = Headers::provide(&work.join("headers"), kernel)?;
    let source = only_folder(&work.join("source/usr/src"))?;
    let log = part.join("build.log");
    let mut configure = step(&source.join("configure").to_string_lossy(), &source);
    configure.arg("--with-config=kernel");
    configure.arg(format!("--with-linux={}", headers.common.display()));
    configure.arg(format!("--with-linux-obj={}", headers.built.display()));
    run_logged(&mut configure, &log)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    run_logged(step("make", &source).arg(format!("-j{threads}")), &log)?;
    let modules = part.join("modules");
    fs::create_dir_all(&modules).map_err(failed("creating", &modules))?;
    for module in modules_in(&source.join("module"))? {
        // What a debugger wants is most of them.
        let to = modules.join(module.file_name().unwrap_or_default());
        process::run(
            process::command("strip").arg("--strip-debug").arg("-o").args([&to, &module]),
        )?;
    }
    fs::remove_dir_all(&work).map_err(failed("removing", &work))
}

/// A command of the build, behind everything else on this machine.
fn step(program: &str, folder: &Path) -> Command {
    let mut command = process::command("nice");
    command.arg(program).current_dir(folder);
    command
}

/// Thousands of lines go to a file.
fn run_logged(command: &mut Command, log: &Path) -> Outcome {
    let out =
        File::options().create(true).append(true).open(log).map_err(failed("opening", log))?;
    let also = out.try_clone().map_err(failed("opening", log))?;
    process::run(command.stdout(out).stderr(also))
        .map_err(|failure| format!("{failure}; {} tells why", log.display()))
}

/// What modules of a kernel are built with.
struct Headers {
    /// The same for all flavours of a version.
    common: PathBuf,
    built: PathBuf,
}

impl Headers {
    fn provide(folder: &Path, kernel: &Kernel) -> Result<Self, String> {
        let package = format!("linux-headers-{}", kernel.release);
        let debian = Packages::of_machine();
        let needed = debian.dependencies(&package).map_err(|failure| {
            format!("{failure}: the kernel is not the newest one, remove target/guest/kernel")
        })?;
        let common = needed.iter().find(|name| name.ends_with("-common"));
        let common = common.ok_or_else(|| format!("{package} needs no common headers"))?;
        let mut names: Vec<&str> = needed.iter().map(String::as_str).collect();
        names.push(&package);
        debian.unpack(&names, folder)?;
        let sources = folder.join("usr/src");
        let headers = Self { common: sources.join(common), built: sources.join(&package) };
        // It expects to be installed.
        let makefile = headers.built.join("Makefile");
        let text = fs::read_to_string(&makefile).map_err(failed("reading", &makefile))?;
        let text = text.replace("/usr/src", &sources.to_string_lossy());
        fs::write(&makefile, text).map_err(failed("writing", &makefile))?;
        Ok(headers)
    }
}

fn only_folder(folder: &Path) -> Result<PathBuf, String> {
    let mut entries = fs::read_dir(folder).map_err(failed("reading", folder))?.flatten();
    match (entries.next(), entries.next()) {
        (Some(only), None) => Ok(only.path()),
        _ => Err(format!("there is not one folder in {}", folder.display())),
    }
}

/// Modules that were built, in the folders of one folder.
fn modules_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("reading", folder))?.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let files = fs::read_dir(&path).map_err(failed("reading", &path))?.flatten();
        let files = files.map(|file| file.path());
        found.extend(files.filter(|file| file.extension().is_some_and(|end| end == "ko")));
    }
    match found.is_empty() {
        true => Err(format!("no modules in {}", folder.display())),
        false => Ok(found),
    }
}
