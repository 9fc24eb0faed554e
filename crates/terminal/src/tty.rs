//! Asks on the terminal without showing what is typed.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Bytes of the longest answer.
const ANSWER_MAX: usize = 4096;

/// The terminal that shows nothing at the moment, and how it was before: a program that ends
/// meanwhile must not leave it so.
static HUSHED: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Shows what is typed again, if it was hidden.
pub(crate) fn unhush() {
    if let Some((tty, before)) = HUSHED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Nothing is left to be done about it where this fails.
        let _ = tcsetattr(&tty, OptionalActions::Flush, &before);
    }
}

/// Shows a prompt and returns the line that is typed, without its end.
///
/// # Errors
/// When there is no terminal, or it ends before a line does.
pub(crate) fn ask(prompt: &str) -> io::Result<Zeroizing<String>> {
    let mut tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&tty)?;
    let mut hushed = before.clone();
    hushed.local_modes.remove(LocalModes::ECHO);
    hushed.local_modes.insert(LocalModes::ECHONL);
    let keep = Some((tty.try_clone()?, before));
    *HUSHED.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    let asked = tcsetattr(&tty, OptionalActions::Flush, &hushed)
        .map_err(io::Error::from)
        .and_then(|()| tty.write_all(prompt.as_bytes()))
        .and_then(|()| read_line(&mut tty));
    unhush();
    asked
}

/// The first line, as a text. What comes behind it is not read, where that can be helped.
///
/// # Errors
/// When it is too long or no UTF-8, or when there is none at all.
pub(crate) fn read_line(from: &mut dyn Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    let mut byte = [0];
    let mut ended = false;
    while !ended {
        match from.read(&mut byte) {
            Ok(0) if line.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => ended = true,
            Ok(_) if byte == *b"\n" => ended = true,
            Ok(_) if line.len() == ANSWER_MAX => {
                return Err(io::Error::new(ErrorKind::InvalidData, "the line is too long"));
            }
            Ok(_) => line.extend_from_slice(&byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let end = if line.ends_with(b"\r") { line.len() - 1 } else { line.len() };
    let text = std::str::from_utf8(&line[..end]);
    let text = text.map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mut bytes: &[u8]) -> io::Result<String> {
        read_line(&mut bytes).map(|line| line.to_string())
    }

    #[test]
    fn the_first_line_counts_without_its_end() {
        assert_eq!(line(b"pass word \nsecond").unwrap(), "pass word ");
        assert_eq!(line(b"dos\r\n").unwrap(), "dos");
        assert_eq!(line(b"no end").unwrap(), "no end");
        assert_eq!(line(b"\n").unwrap(), "");
        assert_eq!(line(b"").unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(line(&[b'x'; ANSWER_MAX]).is_ok());
        assert!(line(&[b'x'; ANSWER_MAX + 1]).is_err());
        assert!(line(b"\xFF\n").is_err());
    }
}
