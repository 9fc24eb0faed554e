//! A filesystem in memory, with whatever names and loops a test needs, and somebody who reads all
//! of any filesystem.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;

use aiv_filesystems::{
    Attribute, Entry, Error, FileData, FileFlags, FileId, FileType, Filesystem, FilesystemKind,
    Metadata, NAME_BYTES_MAX, Owner, ReaderNote, Result, Stream, Timestamp,
};
use aiv_volume_io::{Extent, Job, ReadAt};

/// One file of a [`Tree`].
#[derive(Debug, Clone)]
pub struct Node {
    /// What is known about it.
    pub metadata: Metadata,
    /// Bytes of a file, or what a link says.
    pub bytes: Vec<u8>,
    /// Names in a folder, in this order, whatever they are.
    pub names: Vec<(Vec<u8>, u64)>,
    /// Extended attributes.
    pub attributes: Vec<Attribute>,
    /// Named streams.
    pub streams: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that cannot be read.
    pub bad: Vec<Extent>,
    /// Where its bytes lie on the volume.
    pub place: u64,
    /// Another length of a file than its bytes have; what lies behind them cannot be read.
    pub len: Option<u64>,
    /// Parts of a file that are holes.
    pub holes: Vec<Extent>,
    /// Nothing tells where its bytes are: a file that cannot be opened.
    pub is_broken: bool,
}

/// Files by number; 1 is the root.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<u64, Node>);

impl Tree {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        Self([(1, Node::of(FileType::Folder))].into())
    }

    /// The file of this number, to be changed.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&mut self, number: u64) -> &mut Node {
        self.0.get_mut(&number).expect("a node that was added")
    }

    /// Adds a file to a folder and returns its number.
    pub fn add(&mut self, folder: u64, name: &[u8], node: Node) -> u64 {
        let number = self.0.keys().last().map_or(1, |last| last + 1);
        self.0.insert(number, node);
        self.name(folder, name, number);
        number
    }

    /// Gives a file one more name.
    pub fn name(&mut self, folder: u64, name: &[u8], number: u64) {
        self.node(folder).names.push((name.to_vec(), number));
    }

    fn get(&self, id: FileId) -> Result<&Node> {
        let damaged = || Error::Damaged { what: "no such file".to_owned(), offset: None };
        self.0.get(&id.number).ok_or_else(damaged)
    }
}

impl Node {
    /// Something of this type.
    #[must_use]
    pub fn of(file_type: FileType) -> Self {
        let time = Some(Timestamp::utc(1_700_000_000, 5));
        let metadata = Metadata {
            file_type,
            len: 0,
            allocated: None,
            mode: Some(0o644),
            owner: Some(Owner { user: 0, group: 0 }),
            links: 1,
            modified: time,
            accessed: None,
            changed: time,
            created: time,
            device: None,
            flags: FileFlags::default(),
        };
        Self {
            metadata,
            bytes: Vec::new(),
            names: Vec::new(),
            attributes: Vec::new(),
            streams: Vec::new(),
            bad: Vec::new(),
            place: 0,
            len: None,
            holes: Vec::new(),
            is_broken: false,
        }
    }

    /// A file with these bytes.
    #[must_use]
    pub fn file(bytes: &[u8]) -> Self {
        let mut node = Self::of(FileType::File);
        node.metadata.len = bytes.len() as u64;
        node.bytes = bytes.to_vec();
        node
    }

    fn data(&self) -> Data<'_> {
        let len = self.len.unwrap_or(self.bytes.len() as u64);
        let (bytes, bad, holes) = (&self.bytes, &self.bad, &self.holes);
        Data { bytes, bad, holes, place: self.place, len }
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(target: &[u8]) -> Self {
        Self { bytes: target.to_vec(), ..Self::of(FileType::Link) }
    }
}

struct Data<'a> {
    bytes: &'a [u8],
    bad: &'a [Extent],
    holes: &'a [Extent],
    place: u64,
    len: u64,
}

impl ReadAt for Data<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        Ok(self.holes.iter().filter_map(|hole| hole.intersect(range)).collect())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let asked = Extent::new(offset, out.len() as u64);
        if self.holes.iter().any(|hole| hole.intersect(asked) == Some(asked)) {
            out.fill(0);
            return Ok(());
        }
        if self.bad.iter().any(|bad| bad.intersect(asked).is_some()) {
            return Err(io::Error::other("bad sector"));
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.bytes.get(start..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl FileData for Data<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        Ok(vec![Extent::new(self.place, self.bytes.len() as u64)])
    }
}

impl Filesystem for Tree {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Unknown
    }

    fn notes(&self) -> &[ReaderNote] {
        &[]
    }

    fn root(&self) -> FileId {
        FileId { space: 0, number: 1 }
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        Ok(self.get(file)?.metadata.clone())
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.get(folder)?;
        if node.metadata.file_type != FileType::Folder {
            return Err(Error::WrongType { wanted: "folder" });
        }
        for (name, number) in &node.names {
            job.check()?;
            let id = FileId { space: 0, number: *number };
            if visit(Entry { name: name.clone(), id, file_type: None }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let node = self.get(file)?;
        match node.metadata.file_type {
            FileType::File if node.is_broken => {
                Err(Error::Damaged { what: "no map".to_owned(), offset: None })
            }
            FileType::File => Ok(Box::new(node.data())),
            _ => Err(Error::WrongType { wanted: "file" }),
        }
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        let node = self.get(link)?;
        match node.metadata.file_type {
            FileType::Link => Ok(node.bytes.clone()),
            _ => Err(Error::WrongType { wanted: "symbolic link" }),
        }
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        Ok(self.get(file)?.attributes.clone())
    }

    fn streams(&self, file: FileId) -> Result<Vec<Stream>> {
        let streams = &self.get(file)?.streams;
        let stream = |(name, bytes): &(Vec<u8>, Vec<u8>)| Stream {
            name: name.clone(),
            len: bytes.len() as u64,
        };
        Ok(streams.iter().map(stream).collect())
    }

    fn open_stream(&self, file: FileId, name: &[u8]) -> Result<Box<dyn FileData + '_>> {
        let found = self.get(file)?.streams.iter().find(|(other, _)| other == name);
        let missing = || Error::Damaged { what: "no such stream".to_owned(), offset: None };
        let (_, bytes) = found.ok_or_else(missing)?;
        let len = bytes.len() as u64;
        Ok(Box::new(Data { bytes, bad: &[], holes: &[], place: 0, len }))
    }
}

/// Reads folders, records, attributes, links, streams and the beginnings and ends of files of a
/// filesystem that nobody vouches for, at most `files_max` of them and `bytes_max` bytes of each,
/// and tells how many there were.
///
/// # Panics
/// When an answer is not what [`Filesystem`] promises, whatever is on the volume: a name that is
/// none, a hole behind the end.
pub fn read_all(filesystem: &dyn Filesystem, files_max: usize, bytes_max: u64) -> usize {
    let mut found = HashSet::new();
    let mut todo = vec![filesystem.root()];
    while let Some(id) = todo.pop() {
        if found.len() == files_max || !found.insert(id) {
            continue;
        }
        let _ = filesystem.attributes(id);
        let _ = filesystem.link_target(id);
        for stream in filesystem.streams(id).unwrap_or_default().into_iter().take(8) {
            if let Ok(data) = filesystem.open_stream(id, &stream.name) {
                read_ends(&*data, bytes_max);
            }
        }
        let Ok(metadata) = filesystem.metadata(id) else { continue };
        if metadata.file_type == FileType::Folder {
            let _ = filesystem.entries(id, Job::silent(), &mut |entry| {
                let name = &entry.name;
                assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "{entry:?}");
                assert!(name != b"." && name != b"..", "{entry:?}");
                assert!(!name.contains(&b'/') && !name.contains(&0), "{entry:?}");
                todo.push(entry.id);
                match todo.len() < 4 * files_max {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
            let _ = filesystem.lookup(id, b"file7", Job::silent());
        }
        if let Ok(data) = filesystem.open(id) {
            read_ends(&*data, bytes_max);
        }
    }
    found.len()
}

fn read_ends(data: &dyn FileData, bytes_max: u64) {
    let _ = data.extents();
    let len = usize::try_from(data.len().min(bytes_max)).expect("memory for it");
    let mut buffer = vec![0; len];
    let _ = data.read_exact_at(&mut buffer, 0);
    for hole in data.holes(Extent::new(0, data.len())).unwrap_or_default() {
        assert!(hole.end() <= data.len() && !hole.is_empty(), "{hole:?} of {}", data.len());
    }
    let end = &mut buffer[..len.min(100)];
    let _ = data.read_exact_at(end, data.len() - end.len() as u64);
}
