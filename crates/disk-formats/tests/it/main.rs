//! Virtual disks against the programs that made them, and against people who forge them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::cast_possible_truncation, reason = "tests run on 64-bit machines")]

mod tools;

mod bitmaps;
mod follow;
mod hostile;
mod qcow2;
mod vhd;
mod vhd_maker;
mod vhdx;
mod vhdx_maker;
mod vmdk;
