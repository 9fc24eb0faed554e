//! The program itself on a terminal that a test holds the other end of.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use rustix::termios::{LocalModes, Termios, tcgetattr, tcsetwinsize};

use crate::made::{HELLO, Made};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

const DOWN: &str = "\u{1b}[B";
const ESCAPE: &str = "\u{1b}";

/// The explorer on a terminal of its own.
pub(crate) struct Terminal {
    keyboard: File,
    /// The end that the program has, to see how it leaves it.
    line: OwnedFd,
    before: Termios,
    seen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

fn modes(termios: &Termios) -> (LocalModes, rustix::termios::InputModes) {
    (termios.local_modes, termios.input_modes)
}

impl Terminal {
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_aiv-explorer")), folder, args)
    }

    fn of(program: &Path, folder: &Path, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let (keyboard, line) = (File::from(pty.master), pty.slave);
        let before = tcgetattr(&line).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        // In a session of its own, whose terminal this is: as a shell in a window.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program).args(args);
        command.current_dir(folder).env("TERM", "xterm");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, all) = (keyboard.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { keyboard, line, before, seen, child }
    }

    /// What is on the screen now.
    pub(crate) fn screen(&self) -> String {
        shown(&String::from_utf8_lossy(&self.seen.lock().unwrap()))
    }

    /// Waits until this is on the screen.
    pub(crate) fn sees(&self, wanted: &str) {
        let began = Instant::now();
        while !self.screen().contains(wanted) {
            let screen = self.screen();
            assert!(began.elapsed() < PATIENCE, "{wanted:?} was not seen:\n{screen}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn ends(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it ended by itself");
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: \n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The terminal is as it was: its modes, the screen below, the cursor.
    fn is_given_back(&self) {
        let after = tcgetattr(&self.line).unwrap();
        assert_eq!(modes(&after), modes(&self.before));
        let is_back = || {
            let seen = self.seen.lock().unwrap();
            let seen = String::from_utf8_lossy(&seen);
            let last = |sequence: &str| seen.rfind(sequence);
            let screen = last("\u{1b}[?1049l") > last("\u{1b}[?1049h");
            screen && last("\u{1b}[?25h") > last("\u{1b}[?25l")
        };
        // The last bytes may still be on their way.
        let began = Instant::now();
        while !is_back() {
            assert!(began.elapsed() < PATIENCE, "the screen below and the cursor are back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal of 80 columns and 24 lines shows after all this was written to it: as much of
/// one as the explorer and a prompt need.
fn shown(written: &str) -> String {
    const BLANK: [[char; 80]; 24] = [[' '; 80]; 24];
    let mut cells = BLANK;
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row = (row + 1).min(23),
            '\u{1b}' => {
                let mut words = String::new();
                let end = loop {
                    match chars.next() {
                        Some(c) if c.is_ascii_alphabetic() => break c,
                        Some(c) => words.push(c),
                        None => break ' ',
                    }
                };
                let mut numbers = words.trim_start_matches('[').split(';');
                let mut number = || {
                    let number: Option<usize> = numbers.next().and_then(|word| word.parse().ok());
                    number.unwrap_or(1).saturating_sub(1)
                };
                match end {
                    'H' => (row, column) = (number(), number()),
                    'J' => cells = BLANK,
                    // Another screen, or the one below, of which nothing is known here.
                    'h' | 'l' if words == "[?1049" => {
                        cells = BLANK;
                        (row, column) = (0, 0);
                    }
                    _ => {}
                }
            }
            c => {
                if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}

#[test]
fn somebody_goes_down_to_a_file_gets_it_out_and_leaves() {
    let made = Made::new();
    made.back_up(None);
    let home = made.path("tree");
    let mut terminal = Terminal::start(&home, &[&made.arg("images")]);
    terminal.sees("restorable");
    let raw = tcgetattr(&terminal.line).unwrap();
    assert!(!raw.local_modes.contains(LocalModes::ECHO), "keys are not echoed");
    terminal.press("\r");
    terminal.sees("VERIFIED");
    terminal.press("\r");
    terminal.sees("LABEL");
    terminal.press("\r");
    terminal.sees("lost+found/");
    terminal.press("\r");
    terminal.sees("deep/");
    terminal.press(DOWN);
    terminal.press("\r");
    terminal.sees("hello from the image");
    terminal.press("e");
    terminal.sees("NAME.tar");
    terminal.press("\r");
    terminal.sees("1 files");
    assert_eq!(fs::read_to_string(home.join("restored/hello.txt")).unwrap(), HELLO);
    // Another size is drawn anew.
    let mut size = rustix::termios::tcgetwinsize(&terminal.line).unwrap();
    (size.ws_col, size.ws_row) = (40, 10);
    tcsetwinsize(&terminal.line, size).unwrap();
    // The line of keys is cut off where the screen ends now.
    terminal.sees("quit\n");
    terminal.press(ESCAPE);
    terminal.sees("hello from the image");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_given_back();
    let seen = terminal.seen.lock().unwrap();
    let hostile = b"\x1b[2Jred";
    assert!(!seen.windows(hostile.len()).any(|bytes| bytes == hostile), "a name is only shown");
}

#[test]
fn a_sealed_point_asks_for_its_passphrase_on_the_terminal_and_does_not_show_it() {
    let made = Made::new();
    made.back_up(Some("correct horse"));
    let mut terminal = Terminal::start(&made.path("tree"), &[&made.arg("images")]);
    terminal.sees("1 locked");
    terminal.press("\r");
    terminal.sees("sealed");
    terminal.press("\r");
    terminal.sees("Passphrase");
    terminal.press("wrong\n");
    // Whatever is typed before it asks is not taken.
    terminal.sees("Once more.\nPassphrase");
    terminal.press("correct horse\n");
    terminal.sees("LABEL");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_given_back();
    let seen = String::from_utf8_lossy(&terminal.seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("correct"), "what is typed is not shown");
}

#[test]
fn an_encrypted_volume_asks_for_its_passphrase_and_says_when_it_was_wrong() {
    let made = Made::new();
    let raw = made.encrypted("correct horse");
    let mut terminal = Terminal::start(&made.path("tree"), &[raw.to_str().unwrap()]);
    terminal.sees("Enter asks for its passphrase");
    terminal.press("\r");
    terminal.sees("Passphrase of the volume");
    terminal.press("battery\n");
    terminal.sees("does not open /p0\nPassphrase of the volume");
    terminal.press("correct horse\n");
    terminal.sees("etc/");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    terminal.is_given_back();
    let seen = String::from_utf8_lossy(&terminal.seen.lock().unwrap()).into_owned();
    assert!(!seen.contains("correct") && !seen.contains("battery"), "what is typed is not shown");
    // What is in a file opens it unasked.
    let key = made.arg("key");
    let args = ["--luks-key-file", &key, raw.to_str().unwrap()];
    let mut terminal = Terminal::start(&made.path("tree"), &args);
    terminal.sees("Enter asks");
    terminal.press("\r");
    terminal.sees("etc/");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn ctrl_c_and_a_signal_leave_the_terminal_as_it_was() {
    let made = Made::new();
    made.back_up(None);
    let mut terminal = Terminal::start(&made.path("tree"), &[&made.arg("images")]);
    terminal.sees("restorable");
    terminal.press("\u{3}");
    assert_eq!(terminal.ends(), 0);
    terminal.is_given_back();

    let mut terminal = Terminal::start(&made.path("tree"), &[&made.arg("disk.raw")]);
    terminal.sees("ext4");
    let explorer = terminal.child.id().to_string();
    let status = Command::new("kill").args(["-TERM", &explorer]).status().unwrap();
    assert!(status.success());
    assert_eq!(terminal.ends(), 130);
    terminal.is_given_back();
}

#[test]
fn a_window_that_is_closed_ends_the_program_and_leaves_no_busy_one_behind() {
    let made = Made::new();
    made.back_up(None);
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let (mut keyboard, line) = (File::from(pty.master), pty.slave);
    // A program that has the other end of its own terminal keeps it open.
    rustix::io::fcntl_setfd(&keyboard, rustix::io::FdFlags::CLOEXEC).unwrap();
    let end = || Stdio::from(line.try_clone().unwrap());
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_aiv-explorer"), &made.arg("images")]);
    command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().unwrap();
    // Closed in the middle of its life.
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("restorable") {
        let mut bytes = [0; 4096];
        let count = keyboard.read(&mut bytes).unwrap();
        seen.extend_from_slice(&bytes[..count]);
    }
    drop((keyboard, line, command));
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it goes on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_panic_on_any_thread_gives_the_terminal_back_and_tells_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_aiv-explorer")).parent().unwrap();
    for thread in ["main", "other"] {
        let mut terminal =
            Terminal::of(&programs.join("examples/panics"), folder.path(), &[thread]);
        assert_eq!(terminal.ends(), if thread == "main" { 101 } else { 1 });
        terminal.is_given_back();
        terminal.sees("panicked on purpose");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let output = Command::new(env!("CARGO_BIN_EXE_aiv-explorer")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("needs a terminal") && said.contains("`aiv list`"), "{said}");
    assert!(output.stdout.is_empty());
}
