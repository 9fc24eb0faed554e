//! Floor 7 of Aivory: what the outside world gives to a command of any frontend.
//!
//! The one place that reads the clock, asks for random bytes, draws on the terminal and listens
//! to Ctrl-C. Libraries below take all of these as arguments.

mod answer;
mod code;
mod folders;
mod key;
mod luks;
mod progress;
mod sealing;
mod secrets;
mod session;
mod tty;
mod unlock;

pub use answer::{List, print, print_bytes, print_stream};
pub use folders::{merge_ids, open_folder, open_or_create_folder, remember};
pub use key::{ChainArgs, KeyCommand};
pub use luks::LuksFiles;
pub use sealing::{SealArgs, Sealing};
pub use secrets::{NewSecretFiles, SecretFiles, recipient_in, write_secret};
pub use session::{
    GUARD, Session, SystemClock, guard_frozen, is_root, now_unix_ms, random, threads,
};
pub use unlock::Unlocked;
