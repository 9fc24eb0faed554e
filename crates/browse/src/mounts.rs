//! Which volumes a table of mounts (`/etc/fstab`) asks for.

use crate::disk::Disk;
use crate::volume::Volume;

/// Entries that are looked at.
const ENTRIES_MAX: usize = 1000;

/// What an entry calls its volume by.
enum Wanted<'a> {
    /// An identity of the volume or of its partition.
    Tag(&'a str, &'a str),
    /// The name that LVM gives it in `/dev/mapper`.
    Logical(String),
}

/// How many entries of a table of mounts are volumes of `disk`, and which are nowhere.
pub(crate) fn mounts(disk: &Disk, text: &str) -> (u64, Vec<String>) {
    let (mut found, mut missing) = (0, Vec::new());
    for line in text.lines().take(ENTRIES_MAX) {
        let mut words = line.split_whitespace();
        let Some(what) = words.next().filter(|what| !what.starts_with('#')) else { continue };
        // A mount that may fail is missed by nobody.
        let options = words.nth(2).unwrap_or_default();
        let may_fail = options.split(',').any(|one| one == "nofail" || one == "noauto");
        match is_there(disk, what) {
            Some(true) => found += 1,
            Some(false) if !may_fail => missing.push(what.to_owned()),
            _ => {}
        }
    }
    (found, missing)
}

/// Whether a name is one of a volume, and no volume of `disk` has it.
pub(crate) fn is_missing(disk: &Disk, what: &str) -> bool {
    is_there(disk, what) == Some(false)
}

/// Whether a volume of `disk` has this name; `None` when it names none, or one that may be elsewhere.
fn is_there(disk: &Disk, what: &str) -> Option<bool> {
    let wanted = wanted(what)?;
    if disk.volumes().iter().any(|volume| is_wanted(volume, &wanted)) {
        return Some(true);
    }
    let may_be_elsewhere = match &wanted {
        // What is in a volume that is not opened may be the one.
        Wanted::Tag(..) => disk.volumes().iter().any(|volume| volume.why_closed().is_some()),
        // All volumes of a group are known; one of another group may be on another disk.
        Wanted::Logical(name) => !disk.volumes().iter().any(|volume| is_of_group(volume, name)),
    };
    (!may_be_elsewhere).then_some(false)
}

fn wanted(what: &str) -> Option<Wanted<'_>> {
    if let Some((tag, value)) = what.split_once('=') {
        return Some(Wanted::Tag(tag, value.trim_matches('"')));
    }
    let device = what.strip_prefix("/dev/")?;
    match device.split_once('/')? {
        ("mapper", name) => Some(Wanted::Logical(name.to_owned())),
        ("disk", place) => {
            let tags = [
                ("by-uuid/", "UUID"),
                ("by-label/", "LABEL"),
                ("by-partuuid/", "PARTUUID"),
                ("by-partlabel/", "PARTLABEL"),
            ];
            tags.iter()
                .find_map(|(prefix, tag)| Some(Wanted::Tag(tag, place.strip_prefix(prefix)?)))
        }
        (group, name) => Some(Wanted::Logical(mapped(group, name))),
    }
}

/// The name of a logical volume in `/dev/mapper`: a hyphen stands between group and volume, and is
/// doubled where it is part of either.
fn mapped(group: &str, name: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), name.replace('-', "--"))
}

fn is_wanted(volume: &Volume, wanted: &Wanted<'_>) -> bool {
    let found = volume.recognised();
    let partition = volume.partition();
    match *wanted {
        Wanted::Tag("UUID", value) => found.uuid.eq_ignore_ascii_case(value),
        Wanted::Tag("LABEL", value) => found.label == value,
        Wanted::Tag("PARTUUID", value) => partition
            .and_then(|partition| partition.unique_id)
            .is_some_and(|id| id.to_string().eq_ignore_ascii_case(value)),
        Wanted::Tag("PARTLABEL", value) => {
            partition.is_some_and(|partition| partition.name == value)
        }
        // A tag that is not known here is nothing that is missing.
        Wanted::Tag(..) => true,
        Wanted::Logical(ref name) => {
            let logical = volume.logical().and_then(|logical| logical.split_once('/'));
            logical.is_some_and(|(group, volume)| mapped(group, volume) == *name)
        }
    }
}

/// Whether a logical volume is of the group of another one, by its name in `/dev/mapper`.
fn is_of_group(volume: &Volume, name: &str) -> bool {
    let Some((group, _)) = volume.logical().and_then(|logical| logical.split_once('/')) else {
        return false;
    };
    let rest = name.strip_prefix(&mapped(group, ""));
    rest.is_some_and(|rest| rest.starts_with(|first| first != '-'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aiv_volume_io::{MemDisk, ReadAt};

    use super::*;

    fn logical(name: &str) -> Volume {
        let bytes: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(vec![0; 512]));
        Volume::of_bytes(format!("p1/{name}"), bytes).logical_volume(name.to_owned(), None)
    }

    #[test]
    fn logical_volumes_by_both_of_their_names() {
        let volume = logical("my-vg/ro-ot");
        for what in ["/dev/my-vg/ro-ot", "/dev/mapper/my--vg-ro--ot"] {
            assert!(is_wanted(&volume, &wanted(what).unwrap()), "{what}");
        }
        for what in ["/dev/my/vg-ro-ot", "/dev/mapper/my-vg-ro-ot", "/dev/my-vg/ro"] {
            assert!(!is_wanted(&volume, &wanted(what).unwrap()), "{what}");
        }
        assert!(wanted("/dev/sda1").is_none() && wanted("proc").is_none());
        assert!(is_of_group(&volume, "my--vg-other"));
        assert!(!is_of_group(&volume, "my--vg--x-other") && !is_of_group(&volume, "my-vg"));
    }
}
