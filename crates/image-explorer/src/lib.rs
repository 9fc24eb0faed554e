//! Floor 8 of Aivory: `aiv-explorer`, which looks into folders of images, points and disks.
//!
//! What there is to see, and what a key does, is decided by `aiv-explorer-model`. Here is the
//! rest: a page is drawn ([`draw`]), keys are read ([`key_of`]), what takes the outside is done on
//! a thread of its own ([`Worker`]), and the terminal is given back as it was ([`Screen`]).

mod answers;
mod draw;
mod input;
mod screen;
mod worker;

pub use draw::draw;
pub use input::key_of;
pub use screen::Screen;
pub use worker::Worker;
