//! Floor 9 of Aivory: the image explorer in a browser.
//!
//! What there is to see, and what a key or a click does, is decided by `aiv-explorer-model`, as on
//! a terminal; what takes the outside is done by `aiv-explorer-work`. Here is what is between that
//! and a page: a server on loopback that tells what is shown ([`Web`]), who it answers, and how
//! files are handed over. The page is part of the program; nothing is asked of any other machine.
//!
//! Nothing is written: no file, no catalogue, no log. One explorer has one state, and all windows
//! that show it show the same. Connections, what they send, how long they take, rows per answer
//! and downloads at a time are bounded, so memory is that of the state and a few buffers.
//!
//! The runtime that waits for connections lives as long as [`Web::serve`] and is no one else's;
//! randomness, the stop button, and the way from a passphrase to keys are arguments.

mod assets;
mod disposition;
mod download;
mod guard;
mod headers;
mod hub;
mod patient;
mod query;
mod range;
mod routes;
mod server;
mod tries;
mod watched;
mod wire;

pub use guard::SECRET_BYTES;
pub use hub::Unlock;
pub use server::{Ended, Setup, Web};
