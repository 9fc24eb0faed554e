//! As much of HTTP as a test needs, with nothing between it and the bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether all of the body came.
    pub(crate) is_whole: bool,
}

impl Answer {
    /// The value of a header that is there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends bytes, and returns the connection.
pub(crate) fn send(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // Whoever refuses a request may not read all of it.
    let _ = stream.write_all(bytes);
    stream
}

/// A request with these headers, and the answer.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    let request = [request.as_bytes(), b"Connection: close\r\n\r\n", body].concat();
    read(send(to, &request), method == "HEAD")
}

/// Reads an answer.
pub(crate) fn read(stream: TcpStream, is_head: bool) -> Answer {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new(), is_whole: true };
    if is_head {
        return answer;
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.is_whole = read_chunks(&mut stream, &mut answer.body).is_some();
    } else if let Some(len) = answer.header("content-length").map(str::to_owned) {
        let len: u64 = len.parse().unwrap();
        let _ = stream.take(len).read_to_end(&mut answer.body);
        answer.is_whole = answer.body.len() as u64 == len;
    } else {
        let _ = stream.read_to_end(&mut answer.body);
    }
    answer
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let len = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let at = body.len();
        body.resize(at + len, 0);
        stream.read_exact(&mut body[at..]).ok()?;
        stream.read_line(&mut String::new()).ok()?;
        if len == 0 {
            return Some(());
        }
    }
}
