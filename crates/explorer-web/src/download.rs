//! Files and folders on their way to a browser.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aiv_browse::Path;
use aiv_explorer_work::{Handed, Shelf, write_file, write_zip};
use aiv_jobs::Opened;
use aiv_report::Failure;
use aiv_volume_io::{Cancel, Job};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::disposition::attachment;
use crate::headers::CONTENTS;
use crate::query;
use crate::range::{Wanted, wanted};

/// Downloads at a time: each has a thread.
pub(crate) const DOWNLOADS_MAX: usize = 4;
/// Pieces of a download that nobody has taken yet, and bytes of each.
const PIECES_MAX: usize = 4;
const PIECE: usize = 64 << 10;
/// How long a browser may take none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Hands over what the address names.
pub(crate) async fn download(
    shelf: &Shelf,
    permits: &Arc<Semaphore>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Response<Body> {
    let Some(path) = query::value(query, "path").and_then(|path| Path::parse(&path).ok()) else {
        return said(StatusCode::BAD_REQUEST, "that is no path");
    };
    let disk = query::number(query, "disk").and_then(|number| shelf.take(number));
    let Some(opened) = disk else {
        return said(StatusCode::NOT_FOUND, "another disk is open by now: go back to the file");
    };
    let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
        return said(StatusCode::SERVICE_UNAVAILABLE, "other downloads go on: wait for one");
    };
    let given = Given(Arc::new(Cancel::new()));
    let cancel = Arc::clone(&given.0);
    let found = tokio::task::spawn_blocking({
        let (opened, path, cancel) = (Arc::clone(&opened), path.clone(), Arc::clone(&cancel));
        move || {
            let handed = Handed::of(&opened, &path, Job::new(Job::silent().progress, &cancel));
            // Whoever is gone meanwhile keeps the place until this thread is free.
            handed.map(|handed| (handed, permit))
        }
    });
    let (handed, permit) = match found.await {
        Ok(Ok(handed)) => handed,
        Ok(Err(failure)) => {
            return said(StatusCode::NOT_FOUND, &aiv_report::words::clean(&failure.message));
        }
        Err(_) => return said(StatusCode::INTERNAL_SERVER_ERROR, "that went wrong"),
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut answer = Response::builder().header(header::CONTENT_SECURITY_POLICY, CONTENTS);
    let (len, part) = match &handed {
        Handed::Folder => (None, 0..0),
        Handed::File(_, len) => {
            let len = *len;
            answer = answer.header(header::ACCEPT_RANGES, "bytes");
            // A point stays as it is; what else is read may change between two parts.
            // The address names the disk and the path.
            let tag = opened.point.is_some().then(|| format!("\"{len}\""));
            if let Some(tag) = &tag {
                answer = answer.header(header::ETAG, tag);
            }
            let is_same = text("if-range").is_none_or(|known| Some(known) == tag.as_deref());
            let part = match wanted(text("range").filter(|_| is_same), len) {
                Wanted::All => 0..len,
                Wanted::Part(part) => {
                    let range = format!("bytes {}-{}/{len}", part.start, part.end - 1);
                    answer = answer.status(StatusCode::PARTIAL_CONTENT);
                    answer = answer.header(header::CONTENT_RANGE, range);
                    part
                }
                Wanted::Nothing => {
                    let mut answer =
                        said(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes");
                    if let Ok(range) = HeaderValue::from_str(&format!("bytes */{len}")) {
                        answer.headers_mut().insert(header::CONTENT_RANGE, range);
                    }
                    return answer;
                }
            };
            (Some(part.end - part.start), part)
        }
    };
    let ending = if len.is_none() { ".zip" } else { "" };
    let kind = if len.is_none() { "application/zip" } else { "application/octet-stream" };
    if let Some(len) = len {
        answer = answer.header(header::CONTENT_LENGTH, len);
    }
    let answer = answer
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_DISPOSITION, attachment(path.name(), ending));
    let (pieces, taken) = channel(PIECES_MAX);
    let way = Way { pieces, runtime: Handle::current(), full: Vec::new() };
    let body = Pieces { taken, _given: given };
    let work = Work { opened, handed, path, part, cancel, _permit: permit };
    tokio::task::spawn_blocking(move || work.run(way));
    answer
        .body(Body::new(body))
        .unwrap_or_else(|_| said(StatusCode::INTERNAL_SERVER_ERROR, "that went wrong"))
}

/// An answer that is a sentence.
pub(crate) fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("{text}\n")));
    *answer.status_mut() = status;
    answer
}

/// What a thread does for one download.
struct Work {
    opened: Arc<Opened>,
    handed: Handed,
    path: Path,
    part: std::ops::Range<u64>,
    cancel: Arc<Cancel>,
    _permit: OwnedSemaphorePermit,
}

impl Work {
    fn run(self, mut way: Way) {
        let job = Job::new(Job::silent().progress, &self.cancel);
        let done = match &self.handed {
            Handed::File(file, _) => write_file(file, self.part.clone(), &mut way, job),
            Handed::Folder => write_zip(&self.opened, &self.path, &mut way, job),
        };
        let done = done.and_then(|()| way.flush().map_err(Failure::from));
        if let Err(failure) = done {
            // The browser sees that it is not all: the connection ends before its time.
            let _ = way.send(Err(io::Error::other(failure.message)));
        }
    }
}

/// Takes bytes, and waits while nobody takes them from it.
struct Way {
    pieces: Sender<io::Result<Bytes>>,
    runtime: Handle,
    full: Vec<u8>,
}

impl Way {
    fn send(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = tokio::time::timeout(PATIENCE, self.pieces.send(piece));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Way {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.full.len());
        let now = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.full.extend_from_slice(now);
        if self.full.len() >= PIECE {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.full.is_empty() {
            true => Ok(()),
            false => {
                let piece = std::mem::take(&mut self.full);
                self.send(Ok(piece.into()))
            }
        }
    }
}

/// What somebody waits for. When a browser gives up, this is dropped, and the work stops: the search
/// for the file, or what is made of it.
struct Given(Arc<Cancel>);

impl Drop for Given {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The other end.
struct Pieces {
    taken: Receiver<io::Result<Bytes>>,
    _given: Given,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.taken.poll_recv(context);
        next.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_any_more_is_stopped_before_and_after_its_first_byte() {
        let begun = || {
            let given = Given(Arc::new(Cancel::new()));
            let cancel = Arc::clone(&given.0);
            assert!(cancel.check().is_ok());
            (given, cancel)
        };
        // The file is looked for.
        let (given, cancel) = begun();
        drop(given);
        assert!(cancel.check().is_err());
        // It is on its way.
        let (given, cancel) = begun();
        let (pieces, taken) = channel(PIECES_MAX);
        let body = Pieces { taken, _given: given };
        assert!(cancel.check().is_ok());
        drop(body);
        assert!(cancel.check().is_err() && pieces.is_closed());
    }
}
