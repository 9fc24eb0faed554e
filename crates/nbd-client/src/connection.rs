//! One request at a time, and its reply.

use std::collections::BTreeMap;
use std::io;

use aiv_nbd_protocol::{
    Broken, Chunk, ChunkKind, Command, ERROR_IO, PAYLOAD_MAX, Reply, error_name, error_payload,
    reply_kind, request, status_payload,
};

use crate::stream::Stream;

/// Chunks of one reply that are read at most: a server that gives single sectors of the largest
/// request stays below.
const CHUNKS_MAX: usize = 1 << 16;

pub(crate) struct Connection {
    stream: Stream,
    is_structured: bool,
    /// Number and name of the contexts that the server knows.
    contexts: Vec<(u32, String)>,
    cookie: u64,
}

/// Why a request failed.
pub(crate) enum Failure {
    /// The server says so; the connection is as good as before.
    Refused(io::Error),
    /// The connection is lost.
    Lost(io::Error),
}

type Answer<T> = Result<T, Failure>;

fn lost(error: io::Error) -> Failure {
    Failure::Lost(error)
}

fn broken(what: Broken) -> Failure {
    Failure::Lost(io::Error::new(io::ErrorKind::InvalidData, what))
}

fn refused(error: u32, text: &str) -> io::Error {
    match (error, text) {
        // The one error that is one of the medium, not of the server.
        (ERROR_IO, _) => io::Error::from_raw_os_error(5),
        (error, "") => io::Error::other(format!("the server says: {}", error_name(error))),
        (error, text) => {
            io::Error::other(format!("the server says: {} ({text})", error_name(error)))
        }
    }
}

impl Connection {
    pub(crate) fn new(stream: Stream, is_structured: bool, contexts: Vec<(u32, String)>) -> Self {
        Self { stream, is_structured, contexts, cookie: 0 }
    }

    pub(crate) fn knows(&self, context: &str) -> bool {
        self.contexts.iter().any(|(_, name)| name == context)
    }

    /// What follows `beginning` in the names of those contexts that begin with it.
    pub(crate) fn contexts_of(&self, beginning: &str) -> Vec<String> {
        let names = self.contexts.iter().filter_map(|(_, name)| name.strip_prefix(beginning));
        names.map(str::to_owned).collect()
    }

    /// Fills `out`, which must be of a size the server allows.
    pub(crate) fn read(&mut self, out: &mut [u8], offset: u64) -> Answer<()> {
        let len = u32::try_from(out.len()).map_err(|e| lost(io::Error::other(e)))?;
        let cookie = self.ask(Command::Read, offset, len)?;
        let mut covered = Covered::default();
        let mut failure = None;
        for _ in 0..CHUNKS_MAX {
            let Some(chunk) = self.head(cookie, &mut failure)? else {
                // A simple reply is all of it at once.
                return match failure {
                    Some(error) => Err(Failure::Refused(error)),
                    None => self.stream.receive(out).map_err(lost),
                };
            };
            match chunk.kind {
                ChunkKind::None => {}
                ChunkKind::Data => {
                    let at = u64::from_be_bytes(self.stream.array().map_err(lost)?);
                    let part = covered.part(out, offset, at, chunk.len - 8).map_err(broken)?;
                    self.stream.receive(part).map_err(lost)?;
                }
                ChunkKind::Hole => {
                    let at = u64::from_be_bytes(self.stream.array().map_err(lost)?);
                    let len = u32::from_be_bytes(self.stream.array().map_err(lost)?);
                    covered.part(out, offset, at, len).map_err(broken)?.fill(0);
                }
                ChunkKind::Error => self.error(chunk, &mut failure)?,
                ChunkKind::Status => return Err(broken(Broken::new("a status nobody asked for"))),
            }
            if chunk.is_last {
                return match failure {
                    Some(error) => Err(Failure::Refused(error)),
                    None if covered.total == u64::from(len) => Ok(()),
                    None => {
                        let what = format!("{} bytes of {len} that were asked for", covered.total);
                        Err(broken(Broken::new(what)))
                    }
                };
            }
        }
        Err(broken(Broken::new(format!("more than {CHUNKS_MAX} chunks"))))
    }

    /// The runs from `offset` in a context, as `(length, flags)`: at least one; they may end
    /// before `len` bytes, or behind them.
    pub(crate) fn status(
        &mut self,
        context: &str,
        offset: u64,
        len: u32,
    ) -> Answer<Vec<(u32, u32)>> {
        let wanted = self.contexts.iter().find(|(_, name)| name == context).map(|(id, _)| *id);
        let cookie = self.ask(Command::BlockStatus, offset, len)?;
        let (mut found, mut failure) = (Vec::new(), None);
        for _ in 0..CHUNKS_MAX {
            let Some(chunk) = self.head(cookie, &mut failure)? else {
                return match failure {
                    Some(error) => Err(Failure::Refused(error)),
                    None => Err(broken(Broken::new("a status without one"))),
                };
            };
            match chunk.kind {
                ChunkKind::None => {}
                ChunkKind::Status => {
                    let payload = self.payload(chunk.len)?;
                    let (id, runs) = status_payload(&payload).map_err(broken)?;
                    if Some(id) == wanted && !found.is_empty() {
                        return Err(broken(Broken::new("two answers for one context")));
                    }
                    if Some(id) == wanted {
                        found = runs;
                    }
                }
                ChunkKind::Error => self.error(chunk, &mut failure)?,
                ChunkKind::Data | ChunkKind::Hole => {
                    return Err(broken(Broken::new("data where a status was asked for")));
                }
            }
            if chunk.is_last {
                return match failure {
                    Some(error) => Err(Failure::Refused(error)),
                    None if found.is_empty() => {
                        Err(broken(Broken::new(format!("no status in {context}"))))
                    }
                    None => Ok(found),
                };
            }
        }
        Err(broken(Broken::new(format!("more than {CHUNKS_MAX} chunks"))))
    }

    /// Says goodbye; nobody waits for an answer.
    pub(crate) fn leave(mut self) {
        let _ = self.ask(Command::Disconnect, 0, 0);
    }

    fn ask(&mut self, command: Command, offset: u64, len: u32) -> Answer<u64> {
        self.cookie = self.cookie.wrapping_add(1);
        self.stream.send(&request(command, self.cookie, offset, len)).map_err(lost)?;
        Ok(self.cookie)
    }

    /// The head of the next chunk; `None` for a simple reply, whose error goes to `failure`.
    fn head(&mut self, cookie: u64, failure: &mut Option<io::Error>) -> Answer<Option<Chunk>> {
        let is_chunk = reply_kind(self.stream.array().map_err(lost)?).map_err(broken)?;
        if is_chunk {
            if !self.is_structured {
                return Err(broken(Broken::new("a structured reply that was not agreed on")));
            }
            let rest = self.stream.array().map_err(lost)?;
            return Chunk::from_bytes(&rest, cookie).map(Some).map_err(broken);
        }
        let rest = self.stream.array().map_err(lost)?;
        let reply = Reply::from_bytes(&rest, cookie).map_err(broken)?;
        if reply.error != 0 {
            *failure = Some(refused(reply.error, ""));
        } else if self.is_structured {
            return Err(broken(Broken::new("a simple reply where chunks were agreed on")));
        }
        Ok(None)
    }

    fn error(&mut self, chunk: Chunk, failure: &mut Option<io::Error>) -> Answer<()> {
        let payload = self.payload(chunk.len)?;
        let (error, text) = error_payload(&payload).map_err(broken)?;
        // An error in the whole of it says more than that in a part.
        failure.get_or_insert_with(|| refused(error, &text));
        Ok(())
    }

    fn payload(&mut self, len: u32) -> Answer<Vec<u8>> {
        // The protocol crate has refused longer ones.
        let mut payload = vec![0; usize::try_from(len.min(PAYLOAD_MAX)).unwrap_or_default()];
        self.stream.receive(&mut payload).map_err(lost)?;
        Ok(payload)
    }
}

/// Which bytes of a request were answered: each once.
#[derive(Default)]
struct Covered {
    /// Start and end.
    runs: BTreeMap<u64, u64>,
    total: u64,
}

impl Covered {
    /// The part of `out`, which holds the bytes from `offset`, for `len` bytes at `at`.
    fn part<'a>(
        &mut self,
        out: &'a mut [u8],
        offset: u64,
        at: u64,
        len: u32,
    ) -> Result<&'a mut [u8], Broken> {
        let what = || Broken::new(format!("{len} bytes at {at}, which were not asked for"));
        let from = at.checked_sub(offset).and_then(|from| usize::try_from(from).ok());
        let count = usize::try_from(len).map_err(|_| what())?;
        let range = from.zip(from.and_then(|from| from.checked_add(count)));
        let (from, to) = range.filter(|(_, to)| *to <= out.len()).ok_or_else(what)?;
        let end = at + u64::from(len);
        let before = self.runs.range(..end).next_back();
        if len == 0 || before.is_some_and(|(_, earlier)| *earlier > at) {
            return Err(Broken::new(format!("{len} bytes at {at} for a second time")));
        }
        self.runs.insert(at, end);
        self.total += u64::from(len);
        Ok(&mut out[from..to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_answered_once_and_none_outside() {
        let mut out = [0; 100];
        let mut covered = Covered::default();
        let mut part = |at, len| covered.part(&mut out, 1000, at, len).map(|part| part.len()).ok();
        assert_eq!(part(1010, 10), Some(10));
        assert_eq!(part(1020, 80), Some(80));
        for (at, len) in [(1019, 1), (1005, 6), (1000, 100), (1015, 1), (1010, 10)] {
            assert_eq!(part(at, len), None, "{at} {len}");
        }
        for (at, len) in [(999, 1), (1099, 2), (0, 1), (u64::MAX, 1), (1000, u32::MAX), (1000, 0)] {
            assert_eq!(part(at, len), None, "{at} {len}");
        }
        assert_eq!(part(1000, 10), Some(10));
        assert_eq!(covered.total, 100);
    }
}
