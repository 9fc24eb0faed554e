//! The first and only file system of a guest.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::failed;
use super::kernel::Kernel;
use crate::{Outcome, process};

/// Run first: makes the machine usable, runs the scenario and says how it ended.
const INIT: &str = include_str!("init.sh");
/// Sourced by those that want it.
const COMMON: &str = include_str!("common.sh");

pub(super) struct Initramfs {
    /// Contents by path, folders not among them.
    files: BTreeMap<String, Vec<u8>>,
    /// Other names of files, and the name in the same folder they stand for.
    links: BTreeMap<String, String>,
}

impl Initramfs {
    /// With busybox, what scripts share, and kernel modules that the first script loads.
    pub(super) fn new(kernel: &Kernel, modules: &[&str]) -> Result<Self, String> {
        let mut initramfs = Self { files: BTreeMap::new(), links: BTreeMap::new() };
        let busybox = process::find_program("busybox").ok_or("there is no program 'busybox'")?;
        initramfs.file("bin/busybox", &busybox)?;
        initramfs.text("init", INIT)?;
        initramfs.text("common", COMMON)?;
        let mut order = String::new();
        for (number, module) in kernel.modules(modules)?.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            let place = format!("modules/{number:02}-{name}");
            initramfs.file(&place, module)?;
            order += &format!("/{place}\n");
        }
        initramfs.text("modules/order", &order)?;
        Ok(initramfs)
    }

    pub(super) fn text(&mut self, place: &str, text: &str) -> Result<(), String> {
        self.files.insert(place.to_owned(), text.into());
        Ok(())
    }

    /// A program of this machine as `/usr/sbin/NAME`, and its libraries where it looks for them.
    pub(super) fn program(&mut self, program: &Path) -> Result<(), String> {
        let real = fs::canonicalize(program).map_err(failed("finding", program))?;
        self.file(&format!("usr/sbin/{}", name(&real)), &real)?;
        // A program of many names, as those of LVM are.
        if name(&real) != name(program) {
            self.links.insert(format!("usr/sbin/{}", name(program)), name(&real));
        }
        self.libraries_of(program, Path::new("/"))
    }

    /// The program at `place` below `root`, at the same place, with libraries from there where it
    /// has them.
    pub(super) fn program_below(&mut self, root: &Path, place: &str) -> Outcome {
        let program = root.join(place);
        self.file(place, &program)?;
        self.libraries_of(&program, root)
    }

    fn libraries_of(&mut self, program: &Path, root: &Path) -> Outcome {
        for library in libraries(program, root)? {
            let place = library.strip_prefix(root).unwrap_or(&library).to_string_lossy();
            self.file(place.trim_start_matches('/'), &library)?;
        }
        Ok(())
    }

    fn file(&mut self, place: &str, file: &Path) -> Result<(), String> {
        if !self.files.contains_key(place) {
            let content = fs::read(file).map_err(failed("reading", file))?;
            self.files.insert(place.to_owned(), content);
        }
        Ok(())
    }

    /// Writes it all to `path`.
    pub(super) fn write(&self, path: &Path) -> Result<PathBuf, String> {
        let out = fs::File::create(path).map_err(failed("creating", path))?;
        let mut archive = Archive::new(BufWriter::new(out));
        let mut folders: Vec<&str> = vec!["bin", "dev", "proc", "sys", "run", "tmp", "mnt"];
        folders.extend(["etc", "usr/bin", "usr/sbin"]);
        let mut known = std::collections::BTreeSet::new();
        let inside = self.files.keys().filter_map(|file| Some(file.rsplit_once('/')?.0));
        let written = folders.into_iter().chain(inside).try_for_each(|folder| {
            // Each after the one it is in.
            let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
            ends.map(|end| &folder[..end]).try_for_each(|part| {
                if known.insert(part.to_owned()) { archive.folder(part) } else { Ok(()) }
            })
        });
        written
            .and_then(|()| archive.link("bin/sh", "busybox"))
            .and_then(|()| self.files.iter().try_for_each(|(place, c)| archive.file(place, c)))
            .and_then(|()| self.links.iter().try_for_each(|(place, to)| archive.link(place, to)))
            .and_then(|()| archive.finish())
            .map_err(failed("writing", path))?;
        Ok(path.to_path_buf())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The libraries a program is loaded with, the loader among them. They are looked for below
/// `root` first.
fn libraries(program: &Path, root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut ldd = process::command("ldd");
    let folders = ["lib", "usr/lib"].map(|lib| root.join(lib).join("x86_64-linux-gnu"));
    let folders = std::env::join_paths(folders).map_err(|e| format!("ldd: {e}"))?;
    let output = ldd
        .env("LD_LIBRARY_PATH", folders)
        .arg(program)
        .output()
        .map_err(|e| format!("ldd: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() && !text.contains("not a dynamic") {
        return Err(format!("ldd says nothing of {}", program.display()));
    }
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}
