//! Floor 7 of Aivory: the image explorer as a state machine.
//!
//! A [`State`] is what somebody sees and where they are. It takes an [`Event`] (a key, another
//! size, the answer to something that was asked for) and says which [`Command`]s the outside has
//! to carry out: scan a folder, open a point, list, read, verify, extract, compare, ask for a
//! passphrase. [`State::page`] is what to draw, as lines of text with a [`Tone`] each; how that
//! looks is up to the face that draws it. [`State::scene`] and [`State::rows`] are the same for a
//! face that has other means than characters.
//!
//! ```
//! use aiv_explorer_model::{Command, Event, Key, Start, State, Work};
//!
//! let (mut state, commands) = State::new(Start::Folder("/mnt/backup".into()), 80, 24);
//! assert!(matches!(&commands[..], [Command::Start { work: Work::Scan { .. }, .. }]));
//! assert_eq!(state.page().lines.len(), 21);
//! assert_eq!(state.update(Event::Key(Key::Char('q'))), [Command::Stop, Command::Quit]);
//! ```
//!
//! Pure: nothing here does I/O, knows a terminal or a secret, or panics, whatever comes in
//! whatever order. Memory is bounded by what is shown: a folder of which not all files are held
//! says so. Text from images is made safe before it becomes part of a page.

mod act;
mod ahead;
mod answered;
mod event;
mod facts;
mod keys;
mod map;
mod page;
mod preview;
mod prompt;
mod rows;
mod scene;
mod screen;
mod screens;
mod state;
mod timeline;

pub use event::{Amount, Answer, Asks, Command, Event, Key, Lock, Problem, ProvenNow, Work};
pub use facts::file_facts;
pub use map::{BLOCK_KINDS, BlockKind, BlockMap};
pub use page::{Line, Page, Panel, Span, Tone};
pub use preview::{PREVIEW_BYTES_MAX, Preview};
pub use rows::{
    DifferenceRow, Differences, DiskFacts, FileRow, Files, PointRow, Proof, SetRow, Truth,
    VolumeRow, sets_of,
};
pub use scene::{Help, Overlay, Part, Picture, PointMark, Row, Scene, Working};
pub use screens::Column;
pub use state::{FILES_MAX, Start, State};
