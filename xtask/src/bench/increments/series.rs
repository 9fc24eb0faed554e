//! Programs that keep several states of one disk, and the words that make them do it.

use std::fmt;

use super::super::tool::Side;

/// What is asked of a program, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// The first image.
    Full,
    /// The same bytes once more.
    Unchanged,
    /// The second state.
    Changed,
    /// The second state back into a new file.
    Restore,
    /// The second state once more, as what differs from the first image.
    Differential,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Unchanged => "increment, nothing changed",
            Self::Changed => "increment, second state",
            Self::Restore => "restore of the second state",
            Self::Differential => "differential, second state",
        })
    }
}

/// A program with its settings. Places: `{stored}`, `{restored}`, `{source}` is the path of the
/// state, which is also `disk.raw` in the folder where backups run, and `{n}` is the number of the
/// image, from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) side: Side,
    pub(super) programs: &'static [&'static str],
    pub(super) version: &'static str,
    /// Not measured: done once, and done before each later image.
    pub(super) prepare: Option<&'static str>,
    pub(super) prepare_again: Option<&'static str>,
    pub(super) full: &'static str,
    pub(super) again: &'static str,
    pub(super) differential: Option<&'static str>,
    pub(super) restore: &'static str,
    pub(super) note: &'static str,
}

impl Series {
    pub(super) fn line(&self, turn: Turn) -> Option<&'static str> {
        match turn {
            Turn::Full => Some(self.full),
            Turn::Unchanged | Turn::Changed => Some(self.again),
            Turn::Restore => Some(self.restore),
            Turn::Differential => self.differential,
        }
    }
}

const AIVORY: Series = Series {
    name: "aiv zstd:1",
    side: Side::Aivory,
    programs: &[],
    version: "{aiv} --version",
    prepare: None,
    prepare_again: None,
    full: "{aiv} backup disk.raw --to {stored} --compress zstd:1 --json --quiet",
    again: "{aiv} backup disk.raw --to {stored} --compress zstd:1 --json --quiet",
    differential: Some(
        "{aiv} backup disk.raw --to {stored} --differential --compress zstd:1 --json --quiet",
    ),
    restore: "{aiv} restore {stored}@latest --to {restored}/disk.raw --json --quiet",
    note: "BLAKE3 of every block; all is synced; a restore is read back",
};

const PEER: Series = Series { side: Side::Peer, ..AIVORY };

/// A disk has no time of change that could be trusted: peers must read it, as Aivory does.
const BORG: Series = Series {
    programs: &["borg"],
    version: "borg --version",
    prepare: Some("borg init -e none {stored}/repo"),
    differential: None,
    restore: "borg extract --sparse {stored}/repo::{n}",
    note: "one thread; fixed 4 MiB chunks; no --sparse: holes would shift its chunks",
    ..PEER
};

pub(super) const SERIES: &[Series] = &[
    AIVORY,
    Series {
        name: "aiv zstd:1, no deltas",
        full: "{aiv} backup disk.raw --to {stored} --no-delta --compress zstd:1 --json --quiet",
        again: "{aiv} backup disk.raw --to {stored} --no-delta --compress zstd:1 --json --quiet",
        differential: Some(
            "{aiv} backup disk.raw --to {stored} --differential --no-delta --compress zstd:1 \
             --json --quiet",
        ),
        note: "changed blocks stored whole",
        ..AIVORY
    },
    Series {
        name: "aiv lz4",
        full: "{aiv} backup disk.raw --to {stored} --compress lz4 --json --quiet",
        again: "{aiv} backup disk.raw --to {stored} --compress lz4 --json --quiet",
        differential: Some(
            "{aiv} backup disk.raw --to {stored} --differential --compress lz4 --json --quiet",
        ),
        note: "differences are zstd all the same",
        ..AIVORY
    },
    Series {
        name: "qemu-img rebase zstd",
        programs: &["qemu-img"],
        version: "qemu-img --version",
        prepare_again: Some(
            "qemu-img create -q -f qcow2 -o compression_type=zstd -b {source} -F raw \
             {stored}/{n}.qcow2",
        ),
        full: "qemu-img convert -c -W -f raw -O qcow2 -o compression_type=zstd disk.raw \
               {stored}/0.qcow2",
        again: "qemu-img rebase -c -b {stored}/0.qcow2 -F qcow2 {stored}/{n}.qcow2",
        differential: None,
        restore: "qemu-img convert -W -f qcow2 -O raw {stored}/{n}.qcow2 disk.raw",
        note: "backing file; 64 KiB clusters; no checksums",
        ..PEER
    },
    Series {
        name: "borg zstd:1",
        full: "borg create --files-cache disabled --compression zstd,1 \
               --chunker-params fixed,4194304 {stored}/repo::0 disk.raw",
        again: "borg create --files-cache disabled --compression zstd,1 \
                --chunker-params fixed,4194304 {stored}/repo::{n} disk.raw",
        ..BORG
    },
    Series {
        name: "borg lz4",
        full: "borg create --files-cache disabled --compression lz4 \
               --chunker-params fixed,4194304 {stored}/repo::0 disk.raw",
        again: "borg create --files-cache disabled --compression lz4 \
                --chunker-params fixed,4194304 {stored}/repo::{n} disk.raw",
        ..BORG
    },
    Series {
        name: "restic",
        programs: &["restic"],
        version: "restic version",
        prepare: Some("restic -q -r {stored}/repo init"),
        full: "restic -q -r {stored}/repo backup disk.raw",
        again: "restic -q -r {stored}/repo backup --force disk.raw",
        differential: None,
        restore: "restic -q -r {stored}/repo restore latest --target {restored}",
        note: "always encrypts; SHA-256 of content-defined chunks",
        ..PEER
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_a_command_line_is_declared() {
        for series in SERIES.iter().filter(|series| series.side == Side::Peer) {
            let lines = [series.prepare, series.prepare_again, series.differential];
            let lines = lines.into_iter().flatten();
            for line in lines.chain([series.full, series.again, series.restore]) {
                let program = line.split_whitespace().next().unwrap();
                assert!(series.programs.contains(&program), "{}: {program}", series.name);
            }
        }
    }

    #[test]
    fn only_aivory_is_asked_for_differentials() {
        let with = SERIES.iter().filter(|s| s.line(Turn::Differential).is_some());
        assert!(with.clone().all(|series| series.side == Side::Aivory));
        assert_eq!(with.count(), 3);
    }
}
