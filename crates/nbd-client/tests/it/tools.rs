//! Servers of other people in processes of their own, gone with the test.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aiv_nbd_client::{Address, NbdDisk, NbdOptions, Uri};
use aiv_volume_io::{Extent, FileDisk, ReadAt};

pub(crate) const MIB: u64 = 1 << 20;

/// A folder for disks and sockets.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.0.path())
            .output()
            .unwrap_or_else(|error| panic!("{} is needed: {error}", words[0]));
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A sparse disk with bytes at odd places.
    pub(crate) fn raw(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(len).unwrap();
        for (seed, at) in [(1, 0), (2, 70_001), (3, len / 2 - 1), (4, len - 70_000)] {
            file.write_all_at(&noise(seed, 70_000), at).unwrap();
        }
        path
    }

    /// Starts a server that listens at the socket `s` of the folder.
    pub(crate) fn serve(&self, line: &str) -> Server {
        self.serve_at("s", line)
    }

    pub(crate) fn serve_at(&self, socket: &str, line: &str) -> Server {
        let socket = self.path(socket);
        let _ = std::fs::remove_file(&socket);
        let line = line.replace("SOCKET", socket.to_str().unwrap());
        let words: Vec<&str> = line.split_whitespace().collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} is needed: {error}", words[0]));
        let server = Server { child, socket };
        // Looking is not connecting: some servers serve one client and end.
        for _ in 0..3000 {
            if server.listens() {
                return server;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{line} does not listen");
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Server {
    /// The file of the socket is there a moment before somebody listens at it.
    fn listens(&self) -> bool {
        let sockets = std::fs::read("/proc/net/unix").unwrap();
        let is_it = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The flag of those that listen.
            words.get(3) == Some(&"00010000") && words.get(7).copied() == self.socket.to_str()
        };
        String::from_utf8_lossy(&sockets).lines().any(is_it)
    }

    pub(crate) fn uri(&self, export: &str) -> Uri {
        Uri { address: Address::Unix { socket: self.socket.clone() }, export: export.into() }
    }

    pub(crate) fn disk(&self) -> NbdDisk {
        NbdDisk::connect(self.uri(""), options()).unwrap()
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn options() -> NbdOptions {
    NbdOptions { timeout: Duration::from_secs(20), ..NbdOptions::default() }
}

/// Passes one connection after the other on to a server, over TCP, and keeps what it says.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) said: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    pub(crate) fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (socket, keep) = (socket.to_path_buf(), said.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&socket)) else {
                    return;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(from, to, None));
                let keep = keep.clone();
                thread::spawn(move || copy(server, client, Some(keep)));
            }
        });
        Self { port, said }
    }

    pub(crate) fn uri(&self) -> Uri {
        let host = "127.0.0.1".into();
        Uri { address: Address::Tcp { host, port: self.port }, export: String::new() }
    }
}

fn copy(mut from: impl Read, mut to: impl Write, keep: Option<Arc<Mutex<Vec<u8>>>>) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(keep) = &keep {
            keep.lock().unwrap().extend(&buffer[..count]);
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Every byte is that of the raw file, in strides that fit nothing, by several threads at once;
/// what is called a hole reads as zeros.
pub(crate) fn check_same(disk: &NbdDisk, raw: &Path) {
    let raw = FileDisk::open_source(raw).unwrap();
    assert_eq!(disk.len(), raw.len());
    thread::scope(|scope| {
        for stride in [100_003usize, 1 << 20, 3_000_001] {
            let raw = &raw;
            scope.spawn(move || {
                let (mut ours, mut theirs) = (vec![1; stride], vec![2; stride]);
                let mut at = 0;
                while at < raw.len() {
                    let count = stride.min((raw.len() - at) as usize);
                    disk.read_exact_at(&mut ours[..count], at).unwrap();
                    raw.read_exact_at(&mut theirs[..count], at).unwrap();
                    assert!(ours[..count] == theirs[..count], "{count} bytes at {at}");
                    at += count as u64;
                }
            });
        }
    });
    for hole in disk.holes(Extent::new(0, disk.len())).unwrap() {
        let mut bytes = vec![1; hole.len as usize];
        raw.read_exact_at(&mut bytes, hole.start).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{hole:?}");
    }
    assert!(disk.read_exact_at(&mut [0], disk.len()).is_err());
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The error and everything below it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
