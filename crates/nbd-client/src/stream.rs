//! A connection, whatever it goes over, on which nothing takes for ever.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aiv_nbd_protocol::Address;

pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; from then on, a single wait for the server takes `timeout` at most.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        match address {
            Address::Unix { socket } => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Ok(Self::Unix(stream))
            }
            Address::Tcp { host, port } => {
                let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(timeout))?;
                            stream.set_write_timeout(Some(timeout))?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(e) => failure = e,
                    }
                }
                Err(failure)
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        };
        sent.map_err(plain)
    }

    /// Fills `out`.
    pub(crate) fn receive(&mut self, out: &mut [u8]) -> io::Result<()> {
        let received = match self {
            Self::Tcp(stream) => stream.read_exact(out),
            Self::Unix(stream) => stream.read_exact(out),
        };
        received.map_err(plain)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        self.receive(&mut out)?;
        Ok(out)
    }
}

/// An error of a connection, not of a disk: without a number of the system that could be taken
/// for that of a bad sector, and not the end of a file.
fn plain(error: io::Error) -> io::Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            (io::ErrorKind::ConnectionAborted, "the server closed the connection".to_owned())
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            (io::ErrorKind::TimedOut, "the server did not answer in time".to_owned())
        }
        kind => (kind, error.to_string()),
    };
    io::Error::new(kind, what)
}
