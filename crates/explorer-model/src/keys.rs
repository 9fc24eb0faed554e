//! What keys do on which screen. Help and the line of keys are made from the same tables.

use crate::event::Key;
use crate::screen::{Kind, Move};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Go(Move),
    Open,
    Back,
    Help,
    Quit,
    Stop,
    Refresh,
    Unlock,
    Verify,
    Describe,
    Mark,
    Compare,
    Map,
    Search,
    Extract,
    Download,
    NextTab,
}

/// A key, what it does, and what is said about it.
pub(crate) struct Binding {
    key: Key,
    action: Action,
    /// How the key is called.
    pub(crate) called: &'static str,
    /// What it does, in a word.
    pub(crate) short: &'static str,
    /// What it does, in a sentence.
    pub(crate) long: &'static str,
}

const fn key(
    key: char,
    called: &'static str,
    action: Action,
    short: &'static str,
    long: &'static str,
) -> Binding {
    Binding { key: Key::Char(key), action, called, short, long }
}

const fn enter(long: &'static str) -> Binding {
    Binding { key: Key::Enter, action: Action::Open, called: "Enter", short: "open", long }
}

const SETS: &[Binding] = &[
    enter("the recovery points of the set"),
    key('v', "v", Action::Verify, "verify", "read and prove all images of the set"),
    key('u', "u", Action::Unlock, "unlock", "ask for the passphrase of sealed images"),
    key('r', "r", Action::Refresh, "refresh", "look into the folder again"),
];

const POINTS: &[Binding] = &[
    enter("the disk as it was then: its partitions, folders and files"),
    key('i', "i", Action::Describe, "info", "all that is known about the image"),
    key('v', "v", Action::Verify, "verify", "read and prove the image"),
    key('m', "m", Action::Mark, "mark", "mark the point, to compare another one with it"),
    key('c', "c", Action::Compare, "compare", "compare with the marked point, or the one before"),
    key('u', "u", Action::Unlock, "unlock", "ask for the passphrase of sealed images"),
    key('r', "r", Action::Refresh, "refresh", "look into the folder again"),
];

const DISK: &[Binding] = &[
    enter("the files of the partition"),
    key('b', "b", Action::Map, "blocks", "the blocks of the point as a picture"),
    key('e', "e", Action::Extract, "extract", "recover all files of the partition"),
    key('d', "d", Action::Download, "download", "all files of the partition, as a zip archive"),
    key('/', "/", Action::Search, "search", "find files of the partition by their names"),
    key('r', "r", Action::Refresh, "refresh", "open it again"),
];

const FOLDER: &[Binding] = &[
    enter("the folder, or the beginning of the file"),
    key('i', "i", Action::Describe, "info", "all that is known about the file or folder"),
    key('e', "e", Action::Extract, "extract", "recover the file, or the folder with all in it"),
    key('d', "d", Action::Download, "download", "the file, or the folder as a zip archive"),
    key('/', "/", Action::Search, "search", "find files below this folder by their names"),
    key('r', "r", Action::Refresh, "refresh", "list the folder again"),
];

const FOUND: &[Binding] = &[
    enter("the folder, or the beginning of the file"),
    key('i', "i", Action::Describe, "info", "all that is known about the file or folder"),
    key('e', "e", Action::Extract, "extract", "recover the file, or the folder with all in it"),
    key('d', "d", Action::Download, "download", "the file, or the folder as a zip archive"),
];

const PREVIEW: &[Binding] = &[
    Binding {
        key: Key::Tab,
        action: Action::NextTab,
        called: "Tab",
        short: "text/hex/facts",
        long: "the file as text, as bytes, or what is known about it",
    },
    key(
        't',
        "t",
        Action::NextTab,
        "text/hex/facts",
        "the file as text, as bytes, or what is known",
    ),
    key('e', "e", Action::Extract, "extract", "recover the file"),
    key('d', "d", Action::Download, "download", "the file"),
];

const EVERYWHERE: &[Binding] = &[
    key('?', "?", Action::Help, "help", "this help"),
    Binding {
        key: Key::Escape,
        action: Action::Back,
        called: "Esc",
        short: "back",
        long: "one screen back; stops what is going on",
    },
    key('q', "q", Action::Quit, "quit", "leave the explorer"),
];

/// Keys that need no place in the line of keys.
const QUIET: &[(Key, Action)] = &[
    (Key::Up, Action::Go(Move::Up)),
    (Key::Char('k'), Action::Go(Move::Up)),
    (Key::Down, Action::Go(Move::Down)),
    (Key::Char('j'), Action::Go(Move::Down)),
    (Key::PageUp, Action::Go(Move::PageUp)),
    (Key::PageDown, Action::Go(Move::PageDown)),
    (Key::Char(' '), Action::Go(Move::PageDown)),
    (Key::Home, Action::Go(Move::First)),
    (Key::Char('g'), Action::Go(Move::First)),
    (Key::End, Action::Go(Move::Last)),
    (Key::Char('G'), Action::Go(Move::Last)),
    (Key::Right, Action::Open),
    (Key::Left, Action::Back),
    (Key::Backspace, Action::Back),
    (Key::Stop, Action::Stop),
];

/// What the quiet ones do, for the help.
pub(crate) const MOVES: &[(&str, &str)] = &[
    ("arrows, j k", "up and down; left goes back, right opens"),
    ("PgUp PgDn", "a screen up or down; so does Space"),
    ("Home End, g G", "to the first or the last line"),
    ("Ctrl-C", "stops what is going on, else leaves the explorer"),
];

/// The keys of a screen, where files can be downloaded or else extracted.
pub(crate) fn bindings(kind: Kind, downloads: bool) -> impl Iterator<Item = &'static Binding> {
    let own = match kind {
        Kind::Sets => SETS,
        Kind::Points => POINTS,
        Kind::Disk => DISK,
        Kind::Folder => FOLDER,
        Kind::Found => FOUND,
        Kind::Preview => PREVIEW,
        Kind::Map | Kind::Differences | Kind::Report => &[],
    };
    EVERYWHERE.iter().chain(own).filter(move |binding| binding.is_for(downloads))
}

impl Binding {
    /// Whether it is one where files are downloaded, or else one where they are extracted.
    fn is_for(&self, downloads: bool) -> bool {
        match (self.action, self.key) {
            (Action::Extract, _) => !downloads,
            (Action::Download, _) => downloads,
            // In a browser, Tab goes to what can be used next.
            (Action::NextTab, Key::Tab) => !downloads,
            (Action::NextTab, _) => downloads,
            _ => true,
        }
    }
}

/// What a key does on a screen.
pub(crate) fn action(kind: Kind, key: Key, downloads: bool) -> Option<Action> {
    let mut own = bindings(kind, downloads);
    let bound = own.find(|binding| binding.key == key).map(|binding| binding.action);
    let quiet = || QUIET.iter().find(|(quiet, _)| *quiet == key).map(|(_, action)| *action);
    bound.or_else(quiet)
}

/// What a screen is about, for the top of its help.
pub(crate) const fn about(kind: Kind, downloads: bool) -> &'static [&'static str] {
    match kind {
        Kind::Points if downloads => &[
            "The recovery points of a set, oldest first. In the picture, where a bar stands is",
            "when its point was made, and its height is how many bytes were stored for it.",
            "VERIFIED tells when the file was last read and proven.",
        ],
        Kind::Map if downloads => &[
            "Every cell stands for blocks in a row, from the first of the disk to the last.",
            "Of several kinds the one is shown that is most worth seeing: unreadable, delta,",
            "changed, used, zero, free. Changed and delta: stored in the image of this point,",
            "not in those it builds on.",
        ],
        Kind::Differences if downloads => &[
            "Files that are not the same: new, gone, renamed or changed.",
            "CHANGED counts bytes of a file that lie in changed blocks.",
        ],
        Kind::Sets => &["The sets of the folder: all recovery points of one source are one set."],
        Kind::Points => &[
            "The recovery points of a set, oldest first, and where they lie in time:",
            "F full, i incremental, d differential, ? sealed and locked, ! flawed, x lost.",
            "VERIFIED tells when the file was last read and proven.",
        ],
        Kind::Disk => &["The partitions of the disk, and how they share it."],
        Kind::Folder => &["A folder, read out of the image; nothing is mounted."],
        Kind::Found => &["What the search found, by its path below the folder it began in."],
        Kind::Preview => &["The first 64 KiB of a file."],
        Kind::Map => &[
            "Every sign stands for blocks in a row, from the first of the disk to the last.",
            "Of several kinds the one is shown that is most worth seeing: unreadable, delta,",
            "changed, used, zero, free. Changed and delta: stored in the image of this point,",
            "not in those it builds on.",
        ],
        Kind::Differences => &[
            "Files that are not the same: + new, - gone, > renamed, ~ changed.",
            "CHANGED counts bytes of a file that lie in changed blocks.",
        ],
        Kind::Report => &["What came of it."],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 9] = [
        Kind::Sets,
        Kind::Points,
        Kind::Disk,
        Kind::Folder,
        Kind::Found,
        Kind::Preview,
        Kind::Map,
        Kind::Differences,
        Kind::Report,
    ];

    #[test]
    fn no_key_has_two_meanings_on_one_screen() {
        for (kind, downloads) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            let bound = bindings(kind, downloads).map(|binding| binding.key);
            let keys: Vec<Key> = bound.chain(QUIET.iter().map(|(key, _)| *key)).collect();
            for (at, key) in keys.iter().enumerate() {
                assert!(!keys[..at].contains(key), "{kind:?} {key:?}");
            }
        }
    }

    #[test]
    fn every_screen_can_be_left_and_has_help_and_an_end() {
        for (kind, downloads) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            assert_eq!(action(kind, Key::Escape, downloads), Some(Action::Back));
            assert_eq!(action(kind, Key::Char('q'), downloads), Some(Action::Quit));
            assert_eq!(action(kind, Key::Char('?'), downloads), Some(Action::Help));
            assert!(!about(kind, downloads).is_empty());
        }
    }

    #[test]
    fn what_is_downloaded_is_not_extracted_and_the_other_way_round() {
        for kind in [Kind::Disk, Kind::Folder, Kind::Found, Kind::Preview] {
            assert_eq!(action(kind, Key::Char('e'), false), Some(Action::Extract));
            assert_eq!(action(kind, Key::Char('d'), false), None);
            assert_eq!(action(kind, Key::Char('e'), true), None);
            assert_eq!(action(kind, Key::Char('d'), true), Some(Action::Download));
        }
    }
}
