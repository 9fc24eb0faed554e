//! The files of every filesystem with a reader, listed and read; of a sound image as independent
//! tools list them.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{
    Error, FileData, FileFlags, FileId, FileType, Filesystem, ReaderNote, Recognised,
    open_filesystem,
};
use aiv_volume_io::{Extent, Job, ReadAt};
use sha2::{Digest, Sha256};

use super::Verdict;
use super::check::FACT_SECTOR;
use super::manifest::{ImageFact, Trust};

/// Files that are read of an image nobody vouches for.
const DAMAGED_FILES_MAX: usize = 20_000;
/// Bytes that are read of each of those, at either end.
const DAMAGED_BYTES_MAX: u64 = 1 << 20;
/// Differences that are told of one image.
const TOLD_MAX: usize = 5;
/// Bytes hashed at once.
const STEP: u64 = 1 << 20;

/// What is said of a file: `f`, `d`, `l` or `o`; of a file its length; of a file or link the
/// SHA-256 of what it holds, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    kind: u8,
    len: Option<u64>,
    sha256: Option<String>,
}

/// By path.
type Listing = BTreeMap<Vec<u8>, Line>;

/// Lists and reads the files of a volume: of the whole disk, or of the partition that begins at a
/// byte.
pub(super) fn check(
    fact: &ImageFact,
    start: Option<u64>,
    volume: Arc<dyn ReadAt>,
    recognised: &Recognised,
    verdict: &mut Verdict,
) {
    let kind = recognised.kind;
    let is_sound = fact.trust == Trust::Valid;
    let listing = Listed::of(fact, start);
    let filesystem = match open_filesystem(volume, recognised, Job::silent()) {
        Ok(filesystem) => filesystem,
        Err(Error::Unsupported { what }) => {
            if listing.is_some() || is_sound && !what.ends_with("of unknown cannot be read") {
                verdict.remarks.push(format!("files of {kind}, not read: {what}"));
            }
            return;
        }
        // A sound disk may look like a filesystem that nobody says is there.
        Err(error) if is_sound && listing.is_some() => {
            verdict.problems.push(format!("files: {error}"));
            return;
        }
        Err(_) => return verdict.remarks.push(format!("files of {kind}: refused")),
    };
    if !is_sound {
        verdict.files += read_some(&*filesystem);
        return verdict.remarks.push(format!("files of {kind}, damaged or incomplete: survived"));
    }
    let mut reading = Reading { faults: Vec::new(), listing: Listing::new(), sealed: Vec::new() };
    reading.walk(&*filesystem);
    verdict.files += reading.listing.len() as u64;
    let Some(listed) = listing else {
        verdict.problems.extend(told(reading.faults));
        return verdict.remarks.push(format!("files of {kind}: read, no tool lists them"));
    };
    let differences = match listed.read(filesystem.notes()) {
        Ok(mut theirs) => {
            let is_sealed = |path: &[u8]| reading.sealed.iter().any(|seal| path.starts_with(seal));
            theirs.retain(|path, _| !is_sealed(path));
            differences(&reading.listing, &theirs, listed.hides_some)
        }
        Err(error) => vec![error],
    };
    verdict.problems.extend(told(reading.faults));
    verdict.problems.extend(told(differences));
    verdict.remarks.push(format!("files of {kind}: compared with what {} lists", listed.method));
}

/// The first few, and how many there are besides.
fn told(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > TOLD_MAX {
        let more = problems.len() - TOLD_MAX;
        problems.truncate(TOLD_MAX);
        problems.push(format!("files: {more} more of these"));
    }
    problems
}

/// What independent tools listed of one filesystem.
struct Listed<'a> {
    plain: Option<&'a Path>,
    /// After its log was replayed.
    replayed: Option<&'a Path>,
    method: &'a str,
    /// The tool leaves out some files.
    hides_some: bool,
}

impl<'a> Listed<'a> {
    fn of(fact: &'a ImageFact, start: Option<u64>) -> Option<Self> {
        let part = match start {
            None => None,
            Some(start) => Some(part_at(fact, start)?),
        };
        let name = part.map(|number| format!("@p{number}")).unwrap_or_default();
        let find = |suffix: &str| {
            let suffix = format!("{name}{suffix}.lst");
            let is_it = |path: &&Path| {
                let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let before = file.strip_suffix(suffix.as_str());
                before.is_some_and(|before| part.is_some() || !before.contains('@'))
            };
            // Some are named and were never made.
            let mut there =
                fact.listings.iter().map(AsRef::as_ref).filter(|path: &&Path| path.exists());
            there.find(is_it)
        };
        let (plain, replayed) = (find(""), find("@replayed"));
        if plain.is_none() && replayed.is_none() {
            return None;
        }
        let facts = part.map_or(&fact.expected, |number| &fact.expected[format!("p{number}")]);
        let method = facts["method"].as_str().unwrap_or("an unknown tool");
        Some(Self { plain, replayed, method, hides_some: method.starts_with("ntfs-3g") })
    }

    /// The listing of the state that files are read in.
    fn read(&self, notes: &[ReaderNote]) -> Result<Listing, String> {
        let path = match notes.contains(&ReaderNote::Replayed) {
            true => self.replayed.or(self.plain),
            false => self.plain.or(self.replayed),
        };
        let path = path.ok_or("there is no listing")?;
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        parse(&text).ok_or_else(|| format!("{} is no listing", path.display()))
    }
}

/// The number the facts give to the partition that begins at a byte.
fn part_at(fact: &ImageFact, start: u64) -> Option<usize> {
    let parts = fact.expected["pt"]["parts"].as_array()?;
    let begins = |part: &serde_json::Value| part[0].as_u64().map(|at| at * FACT_SECTOR);
    parts.iter().position(|part| begins(part) == Some(start)).map(|at| at + 1)
}

fn parse(text: &[u8]) -> Option<Listing> {
    let some = |word: &[u8]| match word {
        b"-" => None,
        word => String::from_utf8(word.to_vec()).ok(),
    };
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.splitn(4, |&byte| byte == b'\t');
            let kind = *words.next()?.first()?;
            let len = some(words.next()?).and_then(|len| len.parse().ok());
            let sha256 = some(words.next()?);
            Some((words.next()?.to_vec(), Line { kind, len, sha256 }))
        })
        .collect()
}

/// Whether a file is as a tool lists it. A tool that hides files is a driver of NTFS: it also
/// shows links as its own mount would resolve them, and folders it cannot follow as links.
fn agrees(our: &Line, line: &Line, hides_some: bool) -> bool {
    if hides_some && line.kind == b'l' {
        return matches!(our.kind, b'l' | b'd');
    }
    let is_same = line.sha256.is_none() || our.sha256 == line.sha256;
    (our.kind, our.len) == (line.kind, line.len) && is_same
}

fn differences(ours: &Listing, theirs: &Listing, may_have_more: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, line) in theirs {
        let path_said = path.escape_ascii();
        match ours.get(path) {
            None => found.push(format!("files: {path_said} is missing")),
            Some(our) if !agrees(our, line, may_have_more) => {
                found.push(format!("files: {path_said} is {our:?}, expected {line:?}"));
            }
            Some(_) => {}
        }
    }
    let more = ours.keys().filter(|path| !may_have_more && !theirs.contains_key(*path));
    found.extend(more.map(|path| format!("files: {} is not listed", path.escape_ascii())));
    found
}

/// A sound filesystem being read.
struct Reading {
    faults: Vec<String>,
    listing: Listing,
    /// How the paths of what is in encrypted folders begin: everybody shows other names there.
    sealed: Vec<Vec<u8>>,
}

impl Reading {
    fn walk(&mut self, filesystem: &dyn Filesystem) {
        let mut seen = HashSet::from([filesystem.root()]);
        let mut todo = vec![(Vec::new(), filesystem.root())];
        while let Some((path, folder)) = todo.pop() {
            let metadata = filesystem.metadata(folder);
            if metadata.is_ok_and(|of| of.flags.contains(FileFlags::ENCRYPTED)) {
                self.sealed.push([&path[..], b"/"].concat());
                continue;
            }
            let mut found = Vec::new();
            let read = filesystem.entries(folder, Job::silent(), &mut |entry| {
                found.push((entry.name, entry.id));
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                self.fault(&path, &error);
            }
            for (name, id) in found {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                let path = [&path, slash, &name].concat();
                match file(filesystem, id) {
                    Ok(line) => {
                        if line.kind == b'd' && seen.insert(id) {
                            todo.push((path.clone(), id));
                        }
                        self.listing.insert(path, line);
                    }
                    Err(error) => self.fault(&path, &error),
                }
            }
        }
    }

    fn fault(&mut self, path: &[u8], error: &Error) {
        self.faults.push(format!("files: {}: {error}", path.escape_ascii()));
    }
}

/// Reads all there is of one file.
fn file(filesystem: &dyn Filesystem, id: FileId) -> Result<Line, Error> {
    let metadata = filesystem.metadata(id)?;
    let _ = filesystem.attributes(id)?;
    for stream in filesystem.streams(id)? {
        sha256(&*filesystem.open_stream(id, &stream.name)?)?;
    }
    let line = |kind, len, sha256| Ok(Line { kind, len, sha256 });
    match metadata.file_type {
        FileType::File => {
            let data = filesystem.open(id)?;
            line(b'f', Some(data.len()), Some(sha256(&*data)?))
        }
        FileType::Folder => line(b'd', None, None),
        FileType::Link => {
            line(b'l', None, Some(hexadecimal(&Sha256::digest(filesystem.link_target(id)?))))
        }
        _ => line(b'o', None, None),
    }
}

fn sha256(data: &dyn FileData) -> Result<String, Error> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; usize::try_from(data.len().min(STEP)).unwrap_or_default()];
    for at in (0..data.len()).step_by(buffer.len().max(1)) {
        let len = usize::try_from(data.len() - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = data.read_exact_at(&mut buffer[..len], at);
        read.map_err(|source| Error::Io { op: "read file", offset: at, source })?;
        sha.update(&buffer[..len]);
    }
    Ok(hexadecimal(&sha.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what can be read of a filesystem nobody vouches for, and tells how many files that were.
fn read_some(filesystem: &dyn Filesystem) -> u64 {
    let mut seen = HashSet::new();
    let mut todo = vec![filesystem.root()];
    while let Some(id) = todo.pop() {
        if seen.len() == DAMAGED_FILES_MAX || !seen.insert(id) {
            continue;
        }
        let (_, _) = (filesystem.attributes(id), filesystem.link_target(id));
        let Ok(metadata) = filesystem.metadata(id) else { continue };
        if metadata.file_type == FileType::Folder {
            let _ = filesystem.entries(id, Job::silent(), &mut |entry| {
                todo.push(entry.id);
                match todo.len() < DAMAGED_FILES_MAX {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
        }
        if let Ok(data) = filesystem.open(id) {
            read_ends(&*data);
        }
        for stream in filesystem.streams(id).unwrap_or_default().into_iter().take(8) {
            if let Ok(data) = filesystem.open_stream(id, &stream.name) {
                read_ends(&*data);
            }
        }
    }
    seen.len() as u64
}

fn read_ends(data: &dyn FileData) {
    let len = data.len().min(DAMAGED_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(len).unwrap_or_default()];
    let _ = data.read_exact_at(&mut buffer, 0);
    let _ = data.read_exact_at(&mut buffer, data.len() - len);
    let (_, _) = (data.extents(), data.holes(Extent::new(0, data.len())));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// An image of a small ext4 filesystem with an empty file, and the listing `text` of it.
    fn check_listing(text: &str, name: &str, expected: serde_json::Value) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let [source, image] = ["source", "image"].map(|name| folder.path().join(name));
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("empty"), []).unwrap();
        std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let mut mkfs = crate::process::command("mkfs.ext4");
        crate::process::run(mkfs.arg("-q").arg("-d").arg(&source).arg(&image)).unwrap();
        let listing = folder.path().join(name);
        std::fs::write(&listing, text).unwrap();
        let fact = ImageFact {
            id: "test".into(),
            stored: vec!["test".into()],
            decompress: String::new(),
            unpacked_size: None,
            unpacked_sha256: None,
            kind: "ext4".into(),
            trust: Trust::Valid,
            expected,
            listings: vec![listing],
        };
        let volume: Arc<dyn ReadAt> =
            Arc::new(aiv_volume_io::FileDisk::open_source(&image).unwrap());
        let recognised = aiv_filesystems::recognise(&volume).unwrap();
        let mut verdict = Verdict::default();
        let start = fact.expected["pt"].is_object().then_some(512);
        check(&fact, start, volume, &recognised, &mut verdict);
        verdict
    }

    #[test]
    fn files_that_are_as_listed_pass_and_are_counted() {
        let text = format!("f\t0\t{EMPTY}\tempty\nd\t-\t-\tlost+found\n");
        let verdict = check_listing(&text, "test.lst", json!({"method": "some tool"}));
        assert_eq!(verdict.problems, [""; 0]);
        assert_eq!(verdict.remarks, ["files of ext4: compared with what some tool lists"]);
        assert_eq!(verdict.files, 2);
        let part = json!({
            "pt": {"parts": [[2048, 1, "83", ""], [1, 2047, "83", ""]]},
            "p2": {"method": "another"},
        });
        let verdict = check_listing(&text, "test@p2.lst", part);
        assert_eq!(verdict.remarks, ["files of ext4: compared with what another lists"]);
    }

    #[test]
    fn each_difference_is_a_problem() {
        let text = format!("f\t1\t{EMPTY}\tempty\nd\t-\t-\tother\n");
        let verdict = check_listing(&text, "test.lst", json!({}));
        assert_eq!(verdict.problems.len(), 3, "{:?}", verdict.problems);
        assert!(verdict.problems[0].starts_with("files: empty is Line"), "{:?}", verdict.problems);
        assert_eq!(verdict.problems[1], "files: other is missing");
        assert_eq!(verdict.problems[2], "files: lost+found is not listed");
        // A tool that hides files lists fewer.
        let hidden = format!("f\t0\t{EMPTY}\tempty\n");
        let verdict = check_listing(&hidden, "test.lst", json!({"method": "ntfs-3g ro"}));
        assert_eq!(verdict.problems, [""; 0]);
        // A file whose sum nobody has is compared by its length.
        let text = "f\t1\t-\tempty\nd\t-\t-\tlost+found\n";
        let verdict = check_listing(text, "test.lst", json!({}));
        assert!(verdict.problems[0].starts_with("files: empty is Line"), "{:?}", verdict.problems);
        assert_eq!(verdict.problems.len(), 1, "{:?}", verdict.problems);
        let verdict = check_listing("no listing\n", "test.lst", json!({}));
        assert!(verdict.problems[0].ends_with("is no listing"), "{:?}", verdict.problems);
    }

    #[test]
    fn many_problems_are_told_in_a_few_lines() {
        let many = (0..20).map(|n| format!("files: {n}")).collect();
        let told = told(many);
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told[TOLD_MAX], "files: 15 more of these");
    }
}
