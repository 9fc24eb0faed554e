//! The memory of this process, as the system counts it.

/// Forgets the highest memory this process ever had, and returns what it has.
pub(super) fn peak_from_here() -> Result<u64, String> {
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|e| format!("/proc/self/clear_refs: {e}"))?;
    peak()
}

/// The most memory this process had at once, in bytes.
pub(super) fn peak() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.map(|kib| kib << 10).ok_or_else(|| "/proc/self/status has no VmHWM".to_owned())
}
