//! Floor 10 of Aivory: `aiv-explorer`, which looks into folders of images, points and disks.
//!
//! What there is to see, and what a key does, is decided by `aiv-explorer-model`; what takes the
//! outside is done by `aiv-explorer-work`. Here is the face: a page is drawn ([`draw`]), keys are
//! read ([`key_of`]), and the terminal is given back as it was ([`Screen`]).

mod draw;
mod hangup;
mod input;
mod screen;

pub use draw::draw;
pub use hangup::end_with_the_terminal;
pub use input::key_of;
pub use screen::Screen;
