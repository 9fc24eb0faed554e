//! Bytes deflated on their way to where they go.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use flate2::read::DeflateDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

/// Bytes that come out at once.
const OUT: usize = 32 << 10;
/// Bytes of a piece of what is kept in memory.
const PIECE: usize = 64 << 10;

/// A deflater that serves one stream after the other.
pub(super) struct Deflater {
    state: Compress,
    buffer: Vec<u8>,
}

impl Deflater {
    pub(super) fn new(level: Compression) -> Self {
        Self { state: Compress::new(level, false), buffer: vec![0; OUT] }
    }

    /// Takes some bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.run(bytes, FlushCompress::None, out)
    }

    /// Ends the stream: what is pushed next begins another one.
    pub(super) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.run(&[], FlushCompress::Finish, out)?;
        self.state.reset();
        Ok(())
    }

    fn run(&mut self, bytes: &[u8], flush: FlushCompress, out: &mut dyn Write) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            let before = (self.state.total_in(), self.state.total_out());
            let status = self.state.compress(rest, &mut self.buffer, flush)?;
            let taken = crate::zeros::in_memory(self.state.total_in() - before.0);
            let given = crate::zeros::in_memory(self.state.total_out() - before.1);
            rest = &rest[taken..];
            out.write_all(&self.buffer[..given])?;
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => rest.is_empty(),
            };
            if is_done {
                return Ok(());
            }
            if taken == 0 && given == 0 {
                return Err(io::Error::other("the deflater stands still"));
            }
        }
    }
}

/// The directory of an archive while that is written: deflated, because its records are alike, some
/// 30 bytes for each instead of 300.
pub(super) struct Directory {
    deflater: Deflater,
    pieces: Pieces,
    /// Its records.
    pub(super) entries: u64,
    /// Their bytes.
    pub(super) len: u64,
}

impl Directory {
    pub(super) fn new() -> Self {
        let deflater = Deflater::new(Compression::fast());
        Self { deflater, pieces: Pieces::default(), entries: 0, len: 0 }
    }

    pub(super) fn push(&mut self, record: &[u8]) -> io::Result<()> {
        self.entries += 1;
        self.len += record.len() as u64;
        self.deflater.push(record, &mut self.pieces)
    }

    /// Writes all records.
    pub(super) fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.deflater.end(&mut self.pieces)?;
        let written = io::copy(&mut DeflateDecoder::new(self.pieces), out)?;
        match written == self.len {
            true => Ok(()),
            false => Err(io::Error::other("the directory does not come back as it was")),
        }
    }
}

/// Bytes in pieces, each of which is given back when it was read: one row of them would be copied
/// whenever it grows.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    read: usize,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pieces.back().is_none_or(|last| last.len() == PIECE) {
            self.pieces.push_back(Vec::with_capacity(PIECE));
        }
        let Some(last) = self.pieces.back_mut() else { return Ok(0) };
        let some = &bytes[..bytes.len().min(PIECE - last.len())];
        last.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(first) = self.pieces.front() else { return Ok(0) };
        let rest = &first[self.read..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        if self.read == first.len() {
            self.pieces.pop_front();
            self.read = 0;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use aiv_testkit::disks::Content;

    use super::*;

    #[test]
    fn a_directory_comes_back_as_it_was_and_takes_little_memory() {
        let mut directory = Directory::new();
        let mut all = Vec::new();
        for n in 0..100_000_u64 {
            let mut record = vec![0; 40];
            record.extend(blake3::hash(&n.to_le_bytes()).as_bytes()[..4].iter());
            record.extend((n * 977).to_le_bytes());
            record.extend(format!("some/folder/of a tree/{}/file {n}", n / 500).bytes());
            directory.push(&record).unwrap();
            all.append(&mut record);
        }
        let held: usize = directory.pieces.pieces.iter().map(Vec::capacity).sum();
        assert!(held < 3_000_000, "{held} of {}", all.len());
        assert_eq!((directory.entries, directory.len), (100_000, all.len() as u64));
        let mut back = Vec::new();
        directory.write(&mut back).unwrap();
        assert!(back == all);
    }

    #[test]
    fn one_deflater_serves_many_streams_and_tells_of_a_full_disk() {
        let mut deflater = Deflater::new(Compression::default());
        for len in [0, 1, 100_000, 3] {
            let bytes = Content::Text(len).bytes(crate::zeros::in_memory(len));
            let mut packed = Vec::new();
            bytes.chunks(1000).for_each(|some| deflater.push(some, &mut packed).unwrap());
            deflater.end(&mut packed).unwrap();
            let mut back = Vec::new();
            DeflateDecoder::new(&*packed).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{len}");
        }
        let mut room = [0; 10];
        let noise: Vec<u8> =
            (0..4000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        let mut full = &mut room[..];
        let written = deflater.push(&noise, &mut full).and_then(|()| deflater.end(&mut full));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
