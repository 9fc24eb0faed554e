//! `nbd://host/export`: how people name a disk behind a server.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of NBD.
pub const PORT: u16 = 10809;

/// A disk behind an NBD server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// Where the server listens.
    pub address: Address,
    /// Which of its disks; empty for the server's default.
    pub export: String,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Tcp {
        /// Name or address, without the brackets of IPv6.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// On this machine.
    Unix {
        /// The socket.
        socket: PathBuf,
    },
}

/// Why a word is no NBD URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Encryption is asked for.
    #[error("NBD over TLS is not spoken; use a tunnel and a nbd:// or nbd+unix:// address")]
    Tls,
    /// It does not begin as one.
    #[error("it begins with neither nbd:// nor nbd+unix://")]
    Scheme,
    /// A part of it is wrong.
    #[error("{what}")]
    Part {
        /// Which, and why.
        what: String,
    },
}

fn part(what: impl Into<String>) -> UriError {
    UriError::Part { what: what.into() }
}

impl Uri {
    /// Whether a word is meant as an NBD URI, right or wrong.
    #[must_use]
    pub fn is_meant(word: &str) -> bool {
        ["nbd://", "nbds://", "nbd+", "nbds+"].iter().any(|scheme| word.starts_with(scheme))
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.starts_with("nbds://") || text.starts_with("nbds+") {
            return Err(UriError::Tls);
        }
        if let Some(rest) = text.strip_prefix("nbd+unix://") {
            return unix(rest);
        }
        let rest = text.strip_prefix("nbd://").ok_or(UriError::Scheme)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains(['?', '#']) {
            return Err(part("a nbd:// address has no parameters"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) =
                    inner.split_once(']').ok_or_else(|| part("a bracket is not closed"))?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = port.ok_or_else(|| part("something follows the bracket"))?;
        let port = match port {
            "" => PORT,
            digits => digits.parse().map_err(|_| part(format!("'{digits}' is no port")))?,
        };
        let host = decode(host)?;
        if host.is_empty() || host.contains('@') {
            return Err(part(format!("'{host}' is no host")));
        }
        Ok(Self { address: Address::Tcp { host, port }, export: decode(path)? })
    }
}

fn unix(rest: &str) -> Result<Uri, UriError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let export = path.strip_prefix('/').unwrap_or(path);
    if !path.is_empty() && export.len() == path.len() {
        return Err(part("a nbd+unix:// address has no host; write nbd+unix:///"));
    }
    let mut socket = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("socket", value)) if socket.is_none() => socket = Some(decode(value)?),
            _ => {
                return Err(part(format!("parameter '{pair}' is not known, only one socket=PATH")));
            }
        }
    }
    let socket = socket.filter(|socket| !socket.is_empty());
    let socket = socket.ok_or_else(|| part("a nbd+unix:// address needs ?socket=PATH"))?;
    Ok(Uri { address: Address::Unix { socket: socket.into() }, export: decode(export)? })
}

/// Undoes `%41`.
fn decode(text: &str) -> Result<String, UriError> {
    let wrong = || part(format!("'{text}' has a % without two digits, or is no text"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let pair = digit(rest.next()).zip(digit(rest.next()));
        let (high, low) = pair.ok_or_else(wrong)?;
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, port } => {
                let brackets = host.contains(':');
                let (open, close) = if brackets { ("[", "]") } else { ("", "") };
                write!(f, "nbd://{open}{}{close}:{port}/{}", Encoded(host), Encoded(&self.export))
            }
            Address::Unix { socket } => {
                let socket = socket.to_string_lossy();
                write!(f, "nbd+unix:///{}?socket={}", Encoded(&self.export), Encoded(&socket))
            }
        }
    }
}

struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                write!(f, "{}", char::from(byte))
            }
            other => write!(f, "%{other:02X}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16, export: &str) -> Result<Uri, UriError> {
        Ok(Uri { address: Address::Tcp { host: host.into(), port }, export: export.into() })
    }

    fn socket(socket: &str, export: &str) -> Result<Uri, UriError> {
        Ok(Uri { address: Address::Unix { socket: socket.into() }, export: export.into() })
    }

    #[test]
    fn addresses_are_understood() {
        assert_eq!("nbd://host".parse(), tcp("host", 10809, ""));
        assert_eq!("nbd://host/".parse(), tcp("host", 10809, ""));
        assert_eq!("nbd://10.0.0.1:99/a/b".parse(), tcp("10.0.0.1", 99, "a/b"));
        assert_eq!("nbd://[fe80::1]:99/x%20y".parse(), tcp("fe80::1", 99, "x y"));
        assert_eq!("nbd://[::1]/".parse(), tcp("::1", 10809, ""));
        assert_eq!("nbd+unix:///?socket=/run/a%26b".parse(), socket("/run/a&b", ""));
        assert_eq!("nbd+unix:///e?socket=s".parse(), socket("s", "e"));
        assert_eq!("nbd+unix://?socket=s".parse(), socket("s", ""));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, error) in [
            ("nbds://host", UriError::Tls),
            ("nbds+unix:///?socket=s", UriError::Tls),
            ("http://host", UriError::Scheme),
            ("nbd+vsock:///", UriError::Scheme),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
        for text in [
            "nbd://",
            "nbd:///x",
            "nbd://user@host/",
            "nbd://host:x/",
            "nbd://host:70000/",
            "nbd://[::1/",
            "nbd://[::1]x/",
            "nbd://host/%4",
            "nbd://host/%ff",
            "nbd://host/?a=b",
            "nbd+unix:///",
            "nbd+unix:///?socket=",
            "nbd+unix:///?socket=a&socket=b",
            "nbd+unix:///?socket=a&tls=1",
            "nbd+unix://host/x?socket=a",
        ] {
            assert!(matches!(text.parse::<Uri>(), Err(UriError::Part { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            host in "[a-z0-9.-]{1,20}",
            port: u16,
            export in "\\PC{0,20}",
            path in "/\\PC{1,20}",
        ) {
            for address in [Address::Tcp { host, port }, Address::Unix { socket: path.into() }] {
                let uri = Uri { address, export: export.clone() };
                prop_assert_eq!(uri.to_string().parse(), Ok(uri));
            }
        }

        #[test]
        fn no_word_brings_the_parser_down(word in "nbd(s|\\+unix)?://(\\PC|%|\\[|\\]|:|/|\\?|&|=){0,30}") {
            let _ = word.parse::<Uri>();
        }
    }
}
