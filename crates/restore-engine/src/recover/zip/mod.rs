//! The zip archive, written from its first byte to its last: what its directory says is kept
//! deflated until the end, because there may be millions of files.

mod pack;
mod records;

use std::collections::HashSet;
use std::io::{self, Write};

use aiv_browse::{FileType, Metadata};
use aiv_volume_io::Extent;
use flate2::{Compression, Crc};

use self::pack::{Deflater, Directory};
use self::records::{Record, Sums};
use super::archive::{Archive, Body, Entry, Kept, output};
use super::metadata::mode_of;
use crate::error::Result;

/// Files from here on get the larger fields: what does not compress takes a little more than its
/// own length.
const LARGE: u64 = 0xf000_0000;
/// Bytes of a name: its length has a field of 16 bits, and a folder ends with a slash.
const NAME_MAX: usize = u16::MAX as usize - 1;
/// Permissions that an entry has.
const PERMISSIONS: u32 = 0o777;

/// A zip archive that is being written.
pub(super) struct Zip<'a> {
    out: Out<'a>,
    deflater: Deflater,
    directory: Directory,
    /// Hashes of names: there may be millions.
    names: HashSet<[u8; 16]>,
    /// From which length on files get the larger fields.
    large: u64,
}

impl<'a> Zip<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out: Out { out, count: 0 },
            deflater: Deflater::new(Compression::default()),
            directory: Directory::new(),
            names: HashSet::new(),
            large: LARGE,
        }
    }

    /// Writes something whose few bytes are known, as they are.
    fn stored(&mut self, record: &Record<'_>, bytes: &[u8]) -> io::Result<()> {
        let start = self.out.count;
        let mut crc = Crc::new();
        crc.update(bytes);
        let len = bytes.len() as u64;
        let sums = Sums { crc: crc.sum(), packed: len, len };
        self.out.write_all(&record.local(sums))?;
        self.out.write_all(bytes)?;
        self.directory.push(&record.central(sums, start))
    }
}

/// Where an archive goes, with the number of bytes that went there.
struct Out<'a> {
    out: &'a mut dyn Write,
    count: u64,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The bytes of a file on their way through the deflater.
struct Packed<'z, 'a> {
    deflater: &'z mut Deflater,
    out: &'z mut Out<'a>,
    crc: Crc,
    len: u64,
}

impl Write for Packed<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        self.deflater.push(bytes, self.out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kind of a file and its permissions. A stream of a folder is a file.
fn mode(metadata: &Metadata, kind: FileType) -> u32 {
    let kind = match kind {
        FileType::Folder => 0o040_000,
        FileType::Link => 0o120_000,
        _ => 0o100_000,
    };
    kind | u32::from(mode_of(metadata, false)) & PERMISSIONS
}

/// A path as text: bytes that are none as `%XX`, and so a backslash, which some programs take for
/// a slash.
fn name(path: &[u8]) -> String {
    let mut name = String::new();
    for chunk in path.utf8_chunks() {
        name += &chunk.valid().replace('\\', "%5C");
        chunk.invalid().iter().for_each(|byte| name += &format!("%{byte:02X}"));
    }
    name
}

fn hash(name: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut hash);
    hash
}

/// An entry whose bytes are stored as they are.
fn record<'a>(name: &'a [u8], metadata: &Metadata, kind: FileType) -> Record<'a> {
    Record {
        name,
        mode: mode(metadata, kind),
        modified: metadata.modified,
        is_streamed: false,
        is_large: false,
    }
}

impl Zip<'_> {
    fn take(&mut self, entry: &Entry<'_>) -> String {
        let name = name(entry.path);
        self.names.insert(hash(&name));
        name
    }
}

impl Archive for Zip<'_> {
    fn refuses(&self, path: &[u8]) -> Option<&'static str> {
        let name = name(path);
        if name.len() > NAME_MAX {
            return Some("its path is longer than a zip archive can hold");
        }
        self.names
            .contains(&hash(&name))
            .then_some("the archive has something of that name already")
    }

    fn folder(&mut self, entry: &Entry<'_>) -> Result<()> {
        let name = self.take(entry) + "/";
        let record = record(name.as_bytes(), entry.metadata, FileType::Folder);
        self.stored(&record, &[]).map_err(output("writing"))
    }

    fn file(&mut self, entry: &Entry<'_>, body: Body<'_>) -> Result<Vec<Extent>> {
        let name = self.take(entry);
        let record = Record {
            is_streamed: true,
            is_large: body.data.len() >= self.large,
            ..record(name.as_bytes(), entry.metadata, FileType::File)
        };
        let start = self.out.count;
        self.out.write_all(&record.local(Sums::default())).map_err(output("writing"))?;
        let from = self.out.count;
        let (deflater, out) = (&mut self.deflater, &mut self.out);
        let mut packed = Packed { deflater, out, crc: Crc::new(), len: 0 };
        let lost = body.write(true, &mut packed)?;
        let (crc, len) = (packed.crc.sum(), packed.len);
        self.deflater.end(&mut self.out).map_err(output("writing"))?;
        let sums = Sums { crc, packed: self.out.count - from, len };
        self.out.write_all(&record.descriptor(sums)).map_err(output("writing"))?;
        self.directory.push(&record.central(sums, start)).map_err(output("writing"))?;
        Ok(lost)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<()> {
        let target = String::from_utf8_lossy(target);
        let name = self.take(entry);
        let record = record(name.as_bytes(), entry.metadata, FileType::Link);
        self.stored(&record, target.as_bytes()).map_err(output("writing"))
    }

    fn hard_link(&mut self, _: &Entry<'_>, _: &[u8]) -> Result<Kept> {
        Ok(Kept::No)
    }

    fn special(&mut self, _: &Entry<'_>) -> Result<Kept> {
        Ok(Kept::No)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { mut out, directory, .. } = *self;
        let (start, entries, len) = (out.count, directory.entries, directory.len);
        let written = directory
            .write(&mut out)
            .and_then(|()| out.write_all(&records::end(entries, len, start)))
            .and_then(|()| out.flush());
        written.map_err(output("writing"))
    }

    /// `unzip` leaves a folder as it is that was there before its entry, and gives others what they
    /// have when everything is in them.
    fn folders_first(&self) -> bool {
        true
    }

    fn has_owners(&self) -> bool {
        false
    }

    fn has_attribute(&self, _: &[u8]) -> bool {
        false
    }

    fn has_any_name(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom};
    use std::process::Command;

    use aiv_browse::Filesystem;
    use aiv_testkit::files::{Node, Tree};
    use aiv_volume_io::Job;

    use super::super::copy::ranges;
    use super::*;

    #[test]
    fn names_are_text_and_lead_nowhere_else() {
        assert_eq!(name("p2/gr\u{f6}\u{df}e".as_bytes()), "p2/gr\u{f6}\u{df}e");
        assert_eq!(name(b"p2/gr\xf6\xdfe"), "p2/gr%F6%DFe");
        assert_eq!(name(b"p2/..\\..\\evil"), "p2/..%5C..%5Cevil");
    }

    /// Files behind 5 GiB of an archive, which are a hole here; one has the larger fields.
    #[test]
    fn what_lies_behind_four_gibibytes_is_found_by_others() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("large.zip");
        let mut file = File::create(&path).unwrap();
        let start = 5 << 30;
        file.seek(SeekFrom::Start(start)).unwrap();
        let mut zip = Zip::new(&mut file);
        (zip.out.count, zip.large) = (start, 1 << 20);
        let mut tree = Tree::new();
        let len = 3 << 20;
        let holes = vec![Extent::new(3, len - 3)];
        let large = Node { len: Some(len), holes, ..Node::file(b"abc") };
        for (name, node) in [(&b"large"[..], large), (b"small", Node::file(b"small"))] {
            let number = tree.add(1, name, node);
            let id = aiv_browse::FileId { space: 0, number };
            let (data, metadata) = (tree.open(id).unwrap(), tree.metadata(id).unwrap());
            let entry = Entry { path: name, metadata: &metadata, attributes: &[] };
            let (ranges, mut buffer) = (ranges(&*data).unwrap(), Vec::new());
            let body =
                Body { data: &*data, ranges: &ranges, buffer: &mut buffer, job: Job::silent() };
            zip.file(&entry, body).unwrap();
        }
        Box::new(zip).finish().unwrap();
        let path = path.to_str().unwrap();
        let said = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{program}: {text}{output:?}");
            text
        };
        let python = "import sys, zipfile\n\
                      z = zipfile.ZipFile(sys.argv[1])\n\
                      print(z.read('small'), [(e.file_size, e.header_offset) for e in z.infolist()])";
        let told = said("python3", &["-c", python, path]);
        assert!(told.starts_with(&format!("b'small' [({len}, {start}), (5, ")), "{told}");
        assert!(said("unzip", &["-p", path, "small"]) == "small");
        assert!(said("bsdtar", &["-x", "-O", "-f", path, "small"]) == "small");
        let tested = said("unzip", &["-t", path]);
        assert!(tested.contains("No errors detected"), "{tested}");
    }
}
