//! Facts about the machine without which a figure means nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) threads: usize,
    memory_bytes: u64,
    kernel: String,
    /// Filesystem of the work folder.
    pub(super) filesystem: String,
    /// Processes that wanted to run in the last minute, when we began.
    load: String,
}

impl Machine {
    pub(super) fn of(work: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let load = text("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
        let kib = field(&text("/proc/meminfo"), "MemTotal")
            .and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        Self {
            cpu: field(&text("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or_default() << 10,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem_of(work, &text("/proc/mounts")),
            load,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "threads": self.threads,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
            "work_filesystem": self.filesystem,
            "load_before": self.load,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, threads, kernel, filesystem, load, .. } = self;
        let gib = self.memory_bytes >> 30;
        write!(
            f,
            "{threads} threads of {cpu}, {gib} GiB, Linux {kernel}, work folder on {filesystem}, \
             load {load} before we began"
        )
    }
}

/// The first value of `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value_of = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value_of)
}

/// The kind of the filesystem that holds `path`, from the text of `/proc/mounts`.
fn filesystem_of(path: &Path, mounts: &str) -> String {
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let folder = PathBuf::from(words.next()?.replace("\\040", " "));
        path.starts_with(&folder).then_some((folder, words.next()?.to_owned()))
    };
    let holder =
        mounts.lines().filter_map(mount).max_by_key(|(folder, _)| folder.as_os_str().len());
    holder.map_or_else(|| "unknown".into(), |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_names_the_filesystem() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\nx /a\\040b xfs rw 0 0\n";
        assert_eq!(filesystem_of(Path::new("/dev/shm/bench"), mounts), "tmpfs");
        assert_eq!(filesystem_of(Path::new("/dev/shmoo"), mounts), "ext4");
        assert_eq!(filesystem_of(Path::new("/a b/c"), mounts), "xfs");
        assert_eq!(filesystem_of(Path::new("/x"), ""), "unknown");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotalX: 3 kB\nMemTotal:       24684096 kB\n";
        assert_eq!(field(text, "MemTotal").as_deref(), Some("24684096 kB"));
        assert_eq!(field(text, "Mem"), None);
    }
}
