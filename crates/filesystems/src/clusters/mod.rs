//! What the readers of FAT and exFAT share: clusters in chains, folders of records of 32 bytes,
//! and times of DOS.

mod chain;
mod data;
mod dos_time;
mod names;
mod records;
mod window;

pub(crate) use chain::{Chain, Run, Step, follow};
pub(crate) use data::Chained;
pub(crate) use dos_time::dos_time;
pub(crate) use names::{Told, is_name};
pub(crate) use records::{Record, visit_records};
pub(crate) use window::Window;
