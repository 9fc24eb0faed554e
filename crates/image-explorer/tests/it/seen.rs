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

/// Milliseconds of a processor it has had: however busy the machine is, these are its own.
pub(crate) fn cpu_ms(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which may hold anything.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    ticks.sum::<u64>() * 10
}

fn field(process: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
