//! What was found inside the filesystems of an image: JSON, text, remarks.

use aiv_browse::{BootFact, BootReport, Inspected, Path};
use serde_json::{Value, json};

use crate::words::{clean, size};
use crate::{Outcome, Remarks};

/// Troubles that people see; scripts get more.
const LINES_MAX: usize = 20;

/// Adds what was found inside an image to what else there is to say about it.
pub fn add_inside(outcome: &mut Outcome, image: &str, found: &[Inspected], boot: &BootReport) {
    let entry = json!({
        "image": image,
        "volumes": found.iter().map(volume_json).collect::<Value>(),
        "boot": boot_json(boot),
    });
    match outcome.json["filesystems"].as_array_mut() {
        Some(all) => all.push(entry),
        None => outcome.json["filesystems"] = json!([entry]),
    }
    outcome.text += &format!("inside {}:\n", clean(image));
    found.iter().for_each(|volume| outcome.text += &volume_text(volume));
    outcome.text += &boot_text(boot);
    let mut remarks = Remarks::default();
    for volume in found {
        if volume.trouble_count > 0 {
            let count = volume.trouble_count;
            remarks.warnings.push(format!(
                "{} records of the filesystem on {} cannot be read: the image is sound, and holds a \
                 damaged filesystem",
                count, volume.volume
            ));
        }
    }
    remarks.notes.extend(boot.faults.iter().map(|fault| format!("boot: {fault}")));
    outcome.add(remarks);
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&path.to_bytes()).into_owned()
}

fn volume_json(volume: &Inspected) -> Value {
    let trouble = |(path, why): &(Path, String)| json!({"path": text_of(path), "why": why});
    json!({
        "volume": volume.volume,
        "filesystem": volume.kind.name(),
        "not_read": volume.not_read,
        "files": volume.files,
        "folders": volume.folders,
        "links": volume.links,
        "others": volume.others,
        "size": volume.bytes,
        "notes": volume.notes,
        "trouble_count": volume.trouble_count,
        "troubles": volume.troubles.iter().map(trouble).collect::<Value>(),
    })
}

fn volume_text(volume: &Inspected) -> String {
    let title = format!("  {}, {}", volume.volume, volume.kind.name());
    if let Some(why) = &volume.not_read {
        return format!("{title}: {why}\n");
    }
    let mut text = format!(
        "{title}: {} files ({}), {} folders, {} symbolic links, {} others",
        volume.files,
        size(volume.bytes),
        volume.folders,
        volume.links,
        volume.others
    );
    text += if volume.trouble_count == 0 { "; all records can be read\n" } else { "\n" };
    volume.notes.iter().for_each(|note| text += &format!("    {}\n", clean(note)));
    for (path, why) in volume.troubles.iter().take(LINES_MAX) {
        text += &format!("    {path}: {}\n", clean(why));
    }
    let more = volume.trouble_count.saturating_sub(LINES_MAX as u64);
    if more > 0 && volume.trouble_count > LINES_MAX as u64 {
        text += &format!("    ... and {more} more; --json lists them\n");
    }
    text
}

fn boot_json(boot: &BootReport) -> Value {
    let path = |path: &Option<Path>| path.as_ref().map(text_of);
    let fact = |fact: &BootFact| match fact {
        BootFact::EfiSystem { volume, loaders, fallback } => json!({
            "kind": "efi",
            "volume": volume,
            "loaders": loaders.iter().map(text_of).collect::<Value>(),
            "fallback": fallback,
        }),
        BootFact::BiosCode { active, bios_boot } => {
            json!({"kind": "bios", "active": active, "bios_boot": bios_boot})
        }
        BootFact::Linux { volume, kernels, loader, mounts_found, mounts_missing, dangling } => {
            let kernel = |(kernel, ram_disk): &(Path, Option<Path>)| {
                let ram_disk = path(ram_disk);
                json!({"kernel": text_of(kernel), "initrd": ram_disk})
            };
            json!({
                "kind": "linux",
                "volume": volume,
                "kernels": kernels.iter().map(kernel).collect::<Value>(),
                "loader": path(loader),
                "mounts_found": mounts_found,
                "mounts_missing": mounts_missing,
                "dangling": dangling,
            })
        }
        BootFact::Windows { volume, loader, configuration } => json!({
            "kind": "windows",
            "volume": volume,
            "loader": loader,
            "configuration": path(configuration),
        }),
        _ => Value::Null,
    };
    json!({
        "facts": boot.facts.iter().map(fact).collect::<Value>(),
        "faults": boot.faults,
    })
}

fn boot_text(boot: &BootReport) -> String {
    let mut text = String::new();
    for fact in &boot.facts {
        let line = match fact {
            BootFact::EfiSystem { volume, loaders, fallback } => {
                let fallback = if *fallback { ", one of them the default" } else { "" };
                format!("EFI system partition {volume} with {} loaders{fallback}", loaders.len())
            }
            BootFact::BiosCode { active, bios_boot } => {
                let goes_on = active.as_ref().or(bios_boot.as_ref());
                let goes_on = goes_on.map_or_else(String::new, |on| format!(", goes on in {on}"));
                format!("boot code in the first sector{goes_on}")
            }
            BootFact::Linux { volume, kernels, loader, mounts_found, .. } => {
                let ram_disks = kernels.iter().filter(|(_, ram_disk)| ram_disk.is_some()).count();
                let loader = loader.as_ref().map_or_else(String::new, |path| format!(", {path}"));
                format!(
                    "Linux on {volume}: {} kernels, {ram_disks} with an initial RAM disk{loader}, \
                     {mounts_found} entries of fstab found",
                    kernels.len()
                )
            }
            BootFact::Windows { volume, configuration, .. } => {
                let where_is = configuration.as_ref();
                let where_is = where_is.map_or_else(String::new, |path| format!(", {path}"));
                format!("Windows on {volume}{where_is}")
            }
            _ => continue,
        };
        text += &format!("  {}\n", clean(&line));
    }
    text
}
