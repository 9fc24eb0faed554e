//! Whose a snapshot is: a mark of the process that made it, by which others know whether it is gone.
//!
//! A snapshot is of no use to anybody but the backup it was made for, so one whose process is gone
//! was left behind. Nothing else says that: its age does not, since commands of the user may run
//! for as long as they like before it is read, and neither does that nobody has it open.
//!
//! A process is told by the boot of its kernel, the namespaces that number it and count its time,
//! its number, and when it began. Of another boot none is left. One of other namespaces, or where
//! only one's own processes are shown, cannot be seen: then its snapshots stay.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// That one of a number is not there.
const NO_SUCH_PROCESS: i32 = rustix::io::Errno::SRCH.raw_os_error();

const NO_MARK: &str = "nothing says which process made it";
const ELSEWHERE: &str = "it was made in another namespace, whose processes are not seen here";
const HIDDEN: &str = "processes of others are not seen here";
const NOT_TOLD: &str = "whether the process that made it still runs cannot be told";

/// A process, as mark of what it makes: of letters, digits, `-` and `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    boot: String,
    /// Of numbers of processes, and of time; 0 where the kernel has none.
    namespaces: [u64; 2],
    number: u32,
    /// In ticks of the kernel since it was started.
    began: u64,
}

/// Snapshots of other backups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Leftovers {
    /// Names of those that were removed: nobody needs them any more.
    pub(crate) removed: Vec<String>,
    /// Names of those that may be left over and stay, and why.
    pub(crate) kept: Vec<(String, String)>,
}

/// What is known of the process that made something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Runs,
    Gone,
    Unknown(&'static str),
}

impl Owner {
    /// The process `number`, which must be this one. `root` is where `/proc` is found.
    ///
    /// # Errors
    /// When `/proc` is not there, or is that of other namespaces.
    pub(super) fn this_process(root: &Path, number: u32) -> io::Result<Self> {
        let proc = root.join("proc");
        let boot = fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?;
        let boot = boot.trim_end().to_owned();
        let of_proc = fs::read(proc.join("self/stat"))?;
        let is_it = of_proc.starts_with(format!("{number} ").as_bytes());
        let began = began(root, number)?;
        let (Some(began), true, true) = (began, is_it, is_boot(&boot)) else {
            return Err(io::Error::other("/proc does not show this process"));
        };
        let namespaces = [namespace(root, "pid")?, namespace(root, "time")?];
        Ok(Self { boot, namespaces, number, began })
    }

    fn parse(mark: &str) -> Option<Self> {
        let mut parts = mark.split(':');
        let boot = parts.next().filter(|boot| is_boot(boot))?.to_owned();
        let mut number = || parts.next()?.parse::<u64>().ok();
        let namespaces = [number()?, number()?];
        let (process, began) = (u32::try_from(number()?).ok()?, number()?);
        let owner = Self { boot, namespaces, number: process, began };
        // Written in one way only.
        (owner.to_string() == mark).then_some(owner)
    }

    /// What became of whoever left this mark, as far as this process sees.
    fn fate(&self, root: &Path, mark: &str) -> Fate {
        let Some(other) = Self::parse(mark) else { return Fate::Unknown(NO_MARK) };
        if other.boot != self.boot {
            return Fate::Gone;
        }
        if other.namespaces != self.namespaces {
            return Fate::Unknown(ELSEWHERE);
        }
        match (began(root, other.number), began(root, 1)) {
            (Ok(Some(began)), _) if began == other.began => Fate::Runs,
            // Its number was given to another one.
            (Ok(Some(_)), _) | (Ok(None), Ok(Some(_))) => Fate::Gone,
            (Ok(None), _) => Fate::Unknown(HIDDEN),
            (Err(_), _) => Fate::Unknown(NOT_TOLD),
        }
    }

    /// Removes, by `remove`, those snapshots whose makers are gone; leaves alone those whose makers
    /// run, and tells of the others. Each is a name and a mark.
    pub(super) fn remove_leftovers(
        &self,
        root: &Path,
        found: impl IntoIterator<Item = (String, String)>,
        remove: impl Fn(&str) -> io::Result<()>,
    ) -> Leftovers {
        let mut leftovers = Leftovers::default();
        for (name, mark) in found {
            match self.fate(root, &mark) {
                Fate::Runs => {}
                Fate::Unknown(why) => leftovers.kept.push((name, why.to_owned())),
                Fate::Gone => match remove(&name) {
                    Ok(()) => leftovers.removed.push(name),
                    Err(why) => leftovers.kept.push((name, why.to_string())),
                },
            }
        }
        leftovers
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, namespaces: [processes, time], number, began } = self;
        write!(f, "{boot}:{processes}:{time}:{number}:{began}")
    }
}

/// An identity in lower case, as the kernel writes it.
fn is_boot(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// When a process began; `None` when there is none of this number, or it is not shown.
fn began(root: &Path, number: u32) -> io::Result<Option<u64>> {
    let text = match fs::read(root.join(format!("proc/{number}/stat"))) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(NO_SUCH_PROCESS) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Its name is in parentheses and may have any bytes. Behind it is the third field; this is the 22nd.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields);
    let began = fields.and_then(|fields| fields.split_whitespace().nth(19)?.parse().ok());
    began.map(Some).ok_or_else(|| io::Error::other("/proc/PID/stat is not understood"))
}

/// The number of a namespace of this process: `pid:[4026531836]`. 0 when the kernel has no such kind.
fn namespace(root: &Path, kind: &str) -> io::Result<u64> {
    let link = match fs::read_link(root.join("proc/self/ns").join(kind)) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let text = link.to_string_lossy();
    let number = text.strip_prefix(kind).and_then(|text| text.strip_prefix(":["));
    let number = number.and_then(|text| text.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{text} is not understood")))
}

#[cfg(test)]
pub(super) mod tests;
