//! What happens, and what is to be done about it.

use std::path::PathBuf;

use aiv_browse::Path;
use aiv_report::{Exit, Failure, LOCKED, VOLUME_LOCKED, VOLUME_WRONG_KEY, Verdict, words};

use crate::map::BlockMap;
use crate::preview::Preview;
use crate::rows::{Differences, DiskFacts, Files, SetRow};

/// A key, as far as the explorer has a use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// Back, or one character to the left.
    Left,
    /// Into what is selected, or one character to the right.
    Right,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// Into what is selected, or done.
    Enter,
    /// Back.
    Escape,
    /// Removes the character to the left; back where nothing is typed.
    Backspace,
    /// The next of several views of the same thing.
    Tab,
    /// Ctrl-C: stops what is going on, else quits.
    Stop,
    /// A character.
    Char(char),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A key was pressed.
    Key(Key),
    /// What is drawn on has another size, in characters.
    Resize {
        /// Columns.
        width: u16,
        /// Lines.
        height: u16,
    },
    /// A row was chosen; where there is nothing to choose, nothing happens.
    Select(usize),
    /// One of the views of a file was chosen: text, bytes, what is known.
    Tab(usize),
    /// Back, until only so many screens are on top of each other.
    BackTo(usize),
    /// A whole line was typed where one was asked for.
    Typed(String),
    /// Something that was asked for came to its end. Answers to what nobody waits for any more
    /// are passed over.
    Answer {
        /// The one of [`Command::Start`].
        ticket: u64,
        /// What came of it.
        answer: Result<Answer, Problem>,
    },
    /// Something that was asked for goes on.
    Progress {
        /// The one of [`Command::Start`].
        ticket: u64,
        /// How far it is.
        amount: Amount,
    },
    /// What goes on is to stop. Where it has ended by itself meanwhile, or was stopped already, this
    /// means nothing: it is not the way back.
    Stop,
    /// Nobody looks any more: what goes on for somebody to see it stops. A verification goes on.
    Abandoned,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Bytes of a step.
    Bytes {
        /// The step, in words.
        step: &'static str,
        /// Bytes done.
        done: u64,
        /// Bytes of the step; 0 when that is not known.
        total: u64,
    },
    /// Files and folders that were looked at.
    Looked(u64),
}

/// What the outside has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Do this, one after the other, and answer with the ticket.
    Start {
        /// Names it in its answer.
        ticket: u64,
        /// What to do.
        work: Work,
    },
    /// Stop whatever was started; its answer is not waited for.
    Stop,
    /// Hand over a file, or a folder with all in it. Only where [`State::for_downloads`] is shown.
    ///
    /// [`State::for_downloads`]: crate::State::for_downloads
    Download {
        /// What.
        path: Path,
    },
    /// The user wants to leave.
    Quit,
}

/// Something to do that takes the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Look into all files of a folder: [`Answer::Sets`].
    Scan {
        /// The folder.
        folder: PathBuf,
    },
    /// Open a point or a disk, which all that follows is about: [`Answer::Disk`].
    Open {
        /// Its file or device.
        what: PathBuf,
    },
    /// Tell all about an image: [`Answer::Report`].
    Describe {
        /// Its file.
        image: PathBuf,
    },
    /// List a folder of the opened disk, up to [`FILES_MAX`](crate::FILES_MAX) files of it:
    /// [`Answer::Files`].
    List {
        /// The folder.
        path: Path,
    },
    /// Find files below a folder of the opened disk, up to as many: [`Answer::Files`].
    Search {
        /// The folder.
        below: Path,
        /// What their names look like, as somebody typed it.
        pattern: String,
    },
    /// Read the beginning of a file of the opened disk, and what is known of it:
    /// [`Answer::Preview`].
    Read {
        /// The file.
        path: Path,
        /// Whether what is known is shown first.
        facts: bool,
    },
    /// Make a picture of the blocks of the opened point: [`Answer::Map`].
    Map,
    /// Prove an image, or all of a set: [`Answer::Report`].
    Verify {
        /// The folder of the set, or the file of the image.
        what: PathBuf,
        /// The set, by its id; `None` for one image.
        set: Option<String>,
    },
    /// Recover a file or folder of the opened disk: [`Answer::Report`].
    Extract {
        /// What.
        path: Path,
        /// The folder or archive it goes into.
        to: PathBuf,
    },
    /// Compare two points: [`Answer::Differences`].
    Compare {
        /// The file of the older one.
        old: PathBuf,
        /// The file of the newer one.
        new: PathBuf,
    },
    /// Ask the user for the passphrase of what is locked, and remember what it opens:
    /// [`Answer::Unlocked`].
    Unlock {
        /// The folder or image.
        what: PathBuf,
    },
    /// Open the opened disk once more, and the encrypted volume on the way to a file with it, by
    /// what was given for such volumes before: [`Answer::Disk`].
    UnlockVolume {
        /// The file, or the volume itself.
        path: Path,
        /// Ask the user for its passphrase first, which is remembered where it opens the volume.
        asks: Option<Asks>,
    },
}

/// What is said where a passphrase is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// Why, in one line, safe to show.
    pub line: String,
    /// The one that was typed before was wrong.
    pub again: bool,
}

/// What came of a [`Work`].
#[derive(Debug)]
pub enum Answer {
    /// The sets of a folder, and what people should know about it.
    Sets(Vec<SetRow>, Vec<String>),
    /// The disk that was opened.
    Disk(DiskFacts),
    /// Files of a folder, or files that were found.
    Files(Files),
    /// The beginning of a file.
    Preview(Preview),
    /// The blocks of a point.
    Map(BlockMap),
    /// What is different.
    Differences(Differences),
    /// Text to read, of many lines.
    Report {
        /// Safe to show, but for characters that [`words::clean`] takes out.
        text: String,
        /// Whether something is wrong.
        bad: bool,
        /// Images that were proven by it, or not.
        proven: Vec<ProvenNow>,
    },
    /// Something opens.
    Unlocked,
}

/// What a verification found out about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenNow {
    /// Name of its file, without folder.
    pub file: String,
    /// Whether nothing is wrong with it.
    pub sound: bool,
    /// When that was found, milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
}

/// Something that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What happened, in one line.
    pub line: String,
    /// The next step.
    pub hint: String,
    /// What a passphrase would open.
    pub lock: Lock,
    /// Somebody stopped it.
    pub canceled: bool,
}

/// What keeps somebody out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lock {
    /// Nothing that a passphrase opens.
    #[default]
    None,
    /// An image is sealed.
    Image,
    /// A volume of the disk is encrypted.
    Volume,
    /// The same, and what was given does not open it.
    WrongKey,
}

impl Problem {
    /// That of a failure.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        Self {
            line: words::clean(&words::without_secret_keys(&failure.message)),
            hint: hint_of(failure.verdict).to_owned(),
            lock: match failure.verdict.code {
                LOCKED => Lock::Image,
                VOLUME_LOCKED => Lock::Volume,
                VOLUME_WRONG_KEY => Lock::WrongKey,
                _ => Lock::None,
            },
            canceled: failure.verdict.exit == Exit::Canceled,
        }
    }
}

/// The next step for somebody who has keys, and no options of a command.
fn hint_of(verdict: Verdict) -> &'static str {
    match verdict.code {
        "exists" => "nothing was written: choose another folder, or a new archive",
        "no_files" => {
            "nothing can be read here; other partitions, where there are any, may hold files"
        }
        "source_damaged" => "take another copy, or let the program that made it repair one",
        "no_such_file" | "no_such_volume" => "r lists what is there",
        _ => verdict.hint,
    }
}
