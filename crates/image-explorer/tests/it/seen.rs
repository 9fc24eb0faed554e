//! What the kernel says of a program that runs.

use std::fs;

/// The most memory it has had, in KiB: what it shares with others counts as well.
pub(crate) fn memory_kib(process: u32) -> u64 {
    field(process, "status", "VmHWM:")
}

/// Bytes it has read so far, from files and anything else.
pub(crate) fn bytes_read(process: u32) -> u64 {
    field(process, "io", "rchar:")
}

fn field(process: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
