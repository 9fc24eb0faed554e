//! Facts about the machine a source is attached to, from the kernel's and the system's files.

use std::fs;
use std::path::Path;

use aiv_image_format::meta::Inventory;
use aiv_volume_io::device;

/// Bytes read of any single file: these files are small, and nothing forces them to be.
const FILE_MAX: usize = 1 << 20;

/// Reads what the files below `root` (`/` in production) tell: host, system, kernel, processor,
/// memory, firmware and disks. What cannot be read is left out.
#[must_use]
pub fn machine_inventory(root: &Path) -> Inventory {
    let mut facts = Vec::new();
    let mut note = |key: &str, value: &str| {
        if !value.trim().is_empty() {
            facts.push((key.to_owned(), value.trim().to_owned()));
        }
    };
    note("host.name", &text(root, "proc/sys/kernel/hostname"));
    note("host.machine_id", &text(root, "etc/machine-id"));
    let release = text(root, "etc/os-release");
    note("os.name", &field(&release, "PRETTY_NAME", '='));
    note("os.id", &field(&release, "ID", '='));
    note("os.version", &field(&release, "VERSION_ID", '='));
    note("kernel.release", &text(root, "proc/sys/kernel/osrelease"));
    note("kernel.version", &text(root, "proc/sys/kernel/version"));
    let processors = text(root, "proc/cpuinfo");
    note("cpu.model", &field(&processors, "model name", ':'));
    let count = processors.lines().filter(|l| l.starts_with("processor")).count();
    note("cpu.count", &count.to_string());
    note("memory.total", &field(&text(root, "proc/meminfo"), "MemTotal", ':'));
    note("machine.vendor", &text(root, "sys/class/dmi/id/sys_vendor"));
    note("machine.product", &text(root, "sys/class/dmi/id/product_name"));
    note("firmware.version", &text(root, "sys/class/dmi/id/bios_version"));
    let efi = if root.join("sys/firmware/efi").is_dir() { "uefi" } else { "bios" };
    note("firmware.kind", efi);
    let disks = device::list(root).unwrap_or_default();
    for disk in disks.iter().filter(|d| d.kind == device::DeviceKind::Disk) {
        let key = |what: &str| format!("disk.{}.{what}", disk.name);
        note(&key("size"), &disk.size.to_string());
        note(&key("model"), disk.model.as_deref().unwrap_or_default());
        note(&key("serial"), disk.serial.as_deref().unwrap_or_default());
        note(&key("wwn"), disk.wwn.as_deref().unwrap_or_default());
    }
    Inventory { facts }
}

pub(crate) fn text(root: &Path, path: &str) -> String {
    let bytes = fs::read(root.join(path)).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(FILE_MAX)]).into_owned()
}

/// The value of the first line `key SEPARATOR value`, without quotes.
fn field(text: &str, key: &str, separator: char) -> String {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(separator)?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    });
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_the_files_and_missing_ones_are_left_out() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(root.path().join("etc")).expect("created");
        fs::write(root.path().join("etc/os-release"), "ID=debian\nPRETTY_NAME=\"Debian 12\"\n")
            .expect("written");
        let facts = machine_inventory(root.path()).facts;
        assert!(facts.contains(&("os.name".into(), "Debian 12".into())), "{facts:?}");
        assert!(facts.iter().all(|(key, _)| key != "host.name"), "{facts:?}");
    }
}
