//! Files of a recovery point go back: into a folder, or into an archive.
//!
//! [`RecoverPlan::new`] walks what was asked for and says how much it is. Then every file is read
//! in the order in which it lies in the image, not in that of its folder. What cannot be read
//! does not end the job: a file of which some bytes are lost comes with zeros in their place under
//! a name that says so, and the [`RecoverReport`] names the bytes; what has no equal where the
//! files go (owners, attributes, streams) is counted there.
//!
//! In a folder nothing outside it is ever written, whatever names and links the volume holds:
//! every step below the folder refuses symbolic links and `..`. A file gets its name when it
//! is complete, with its metadata; folders get theirs when everything in them is.

mod archive;
mod before;
mod beneath;
mod copy;
mod file;
mod folder;
mod items;
mod metadata;
mod naming;
mod report;
mod tar;
mod verify;
mod zip;

pub use folder::{Existing, RecoverOptions};
pub use items::RecoverPlan;
pub use naming::give_name;
pub use report::{Damaged, NotDone, NotKept, RecoverReport};
