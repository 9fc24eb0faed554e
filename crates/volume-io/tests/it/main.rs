//! Everything that crosses module or machine boundaries, in one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod device;
mod dir_storage;
mod file_disk;
mod lease;
mod machine;
mod partition;
mod past_cache;
mod sharing;
mod stamps;
