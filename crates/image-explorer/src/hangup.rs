//! A terminal that is closed.

use std::io;
use std::thread;
use std::time::Duration;

use aiv_report::Exit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// What stops on request has this long.
const GRACE: Duration = Duration::from_secs(2);

/// Ends the program when its terminal is gone, a window that was closed for example. Whoever waits
/// for keys of such a terminal waits without end, and without rest: the end of its input is told again
/// and again. Files that were being written have not got their names then.
#[expect(clippy::exit, reason = "the thread that could leave waits for keys that never come")]
pub fn end_with_the_terminal() {
    thread::spawn(|| {
        let stdin = io::stdin();
        loop {
            // Asked for nothing, the kernel tells of hang-ups and errors alone.
            let mut line = [PollFd::new(&stdin, PollFlags::empty())];
            match poll(&mut line, None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        thread::sleep(GRACE);
        std::process::exit(Exit::Canceled.status().into());
    });
}
