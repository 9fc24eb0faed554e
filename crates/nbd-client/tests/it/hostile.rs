//! Servers that say what they must not: true conversations with bytes changed.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use aiv_nbd_client::{Address, NbdDisk, NbdOptions, Uri};
use aiv_volume_io::{Extent, ReadAt};
use proptest::prelude::*;

use crate::tools::{MIB, Proxy, Scratch, options};

/// What servers said to a client that connects, reads, and asks for holes.
static SAID: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let scratch = Scratch::new();
    scratch.raw("disk.raw", MIB);
    scratch.run("qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2");
    for name in ["one", "two"] {
        scratch.run(&format!("qemu-img bitmap --add disk.qcow2 {name}"));
        scratch.run("qemu-img convert -n -f raw -O qcow2 disk.raw disk.qcow2");
    }
    let servers = [
        "nbdkit -f -U SOCKET -r file disk.raw",
        "nbdkit -f -U SOCKET -r --no-sr file disk.raw",
        "qemu-nbd -t -k SOCKET -r -e 8 -f raw disk.raw",
        "qemu-nbd -t -k SOCKET -r -e 8 -f qcow2 -B one -B two disk.qcow2",
    ];
    servers
        .iter()
        .map(|line| {
            let server = scratch.serve(line);
            let proxy = Proxy::to(&server.socket);
            let all_bitmaps = line.contains("qcow2");
            let connections = std::num::NonZeroUsize::MIN;
            let one = NbdOptions { connections, all_bitmaps, ..options() };
            let disk = Arc::new(NbdDisk::connect(proxy.uri(), one).unwrap());
            assert_eq!(disk.change_trackers().len(), if all_bitmaps { 2 } else { 0 });
            assert!(talk(&disk), "{line}");
            proxy.said.lock().unwrap().clone()
        })
        .collect()
});

/// Whether everything was answered.
fn talk(disk: &Arc<NbdDisk>) -> bool {
    let len = disk.len();
    let mut out = vec![0; 100_000.min(len as usize)];
    if disk.read_exact_at(&mut out, 0).is_err() {
        return false;
    }
    let Ok(holes) = disk.holes(Extent::new(0, len.min(MIB))) else { return false };
    assert!(holes.iter().all(|hole| hole.end() <= len && !hole.is_empty()));
    assert!(holes.windows(2).all(|pair| pair[0].end() < pair[1].start));
    for tracker in disk.change_trackers() {
        let Ok(runs) = tracker.changed(Extent::new(0, len.min(MIB))) else { return false };
        assert!(runs.iter().all(|run| run.end() <= len && !run.is_empty()));
        assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].start));
    }
    disk.read_exact_at(&mut [0; 512], len.saturating_sub(512)).is_ok()
}

/// Says the same to everybody, and hears nothing.
struct Parrot {
    socket: PathBuf,
    text: Arc<Mutex<Vec<u8>>>,
    is_over: Arc<AtomicBool>,
    _scratch: Scratch,
}

impl Parrot {
    fn new() -> Self {
        let scratch = Scratch::new();
        let socket = scratch.path("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let (text, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (words, over) = (text.clone(), is_over.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (mut client, text) = (client.unwrap(), words.lock().unwrap().clone());
                thread::spawn(move || {
                    let _ = client.write_all(&text);
                    let _ = client.shutdown(Shutdown::Write);
                    let _ = client.read_to_end(&mut Vec::new());
                });
            }
        });
        Self { socket, text, is_over, _scratch: scratch }
    }

    /// Says `text`, and returns whether somebody took it for a whole conversation.
    fn say(&self, text: Vec<u8>, all_bitmaps: bool) -> bool {
        *self.text.lock().unwrap() = text;
        let address = Address::Unix { socket: self.socket.clone() };
        let uri = Uri { address, export: String::new() };
        let timeout = Duration::from_secs(5);
        match NbdDisk::connect(uri, NbdOptions { timeout, all_bitmaps, ..options() }) {
            Ok(disk) => talk(&Arc::new(disk)),
            Err(_) => false,
        }
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = std::os::unix::net::UnixStream::connect(&self.socket);
    }
}

static PARROT: LazyLock<Mutex<Parrot>> = LazyLock::new(|| Mutex::new(Parrot::new()));

/// The last of the conversations is about bitmaps.
fn say(text: Vec<u8>, which: usize) -> bool {
    // After a failed assertion the parrot is as good as before.
    PARROT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).say(text, which == 3)
}

fn value() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_conversation_brings_nobody_down(
        which in 0..4usize,
        changes in prop::collection::vec(
            (0u64..1 << 20, any::<bool>(), value()),
            1..4,
        ),
    ) {
        let mut text = SAID[which].clone();
        for (at, front, value) in changes {
            // What is no data lies at the front.
            let len = if front { 400 } else { text.len() };
            text[at as usize % len] = value;
        }
        say(text, which);
    }

    #[test]
    fn a_conversation_that_is_cut_off_or_goes_on_with_noise_ends(
        which in 0..4usize, kept in 0..600usize, noise in 0..3000usize, seed: u64,
    ) {
        let mut text = SAID[which][..kept].to_vec();
        text.extend(crate::tools::noise(seed, noise));
        prop_assert!(!say(text, which));
    }
}

#[test]
fn the_conversations_are_whole() {
    for (which, text) in SAID.iter().enumerate() {
        assert!(say(text.clone(), which));
    }
}

/// The conversation about bitmaps, with so many more in the server's list.
fn with_bitmaps_listed(count: usize) -> Vec<u8> {
    const REPLY: [u8; 8] = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    const LIST: [u8; 4] = 9_u32.to_be_bytes();
    let text = &SAID[3];
    // In front of the acknowledgement that ends the list.
    let end = [&REPLY[..], &LIST, &1_u32.to_be_bytes()].concat();
    let at = text.windows(end.len()).position(|bytes| bytes == end).unwrap();
    let mut changed = text[..at].to_vec();
    for number in 0..count {
        let name = format!("qemu:dirty-bitmap:more{number}");
        let len = u32::try_from(name.len() + 4).unwrap();
        let head = [&REPLY[..], &LIST, &4_u32.to_be_bytes(), &len.to_be_bytes(), &[0; 4]].concat();
        changed.extend(head);
        changed.extend(name.as_bytes());
    }
    changed.extend(&text[at..]);
    changed
}

#[test]
fn a_disk_with_a_thousand_bitmaps_is_read_and_a_list_without_end_is_given_up() {
    for count in [1, 126, 1024, 2000] {
        assert!(say(with_bitmaps_listed(count), 3), "{count}");
    }
    assert!(!say(with_bitmaps_listed(100_000), 3));
}
