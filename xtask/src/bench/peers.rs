//! The tools people use today, each with the settings that suit it best here.

use super::tool::{Codec, Scope, Side, Tool};

const PEER: Tool = Tool {
    name: "",
    side: Side::Peer,
    codec: Codec::Zstd,
    scope: Scope::Disk,
    programs: &[],
    version: "",
    prepare: None,
    full: "",
    restore: None,
    restored: "disk.raw",
    verify: None,
    quick: None,
    note: "",
};

const PARTCLONE: Tool = Tool {
    scope: Scope::UsedOfRoot,
    version: "partclone.ext4 -v",
    restored: "root.raw",
    // A file as its target must be declared as such.
    restore: Some(
        "zstd -dc {stored}/root.zst | partclone.ext4 -r -q -W -L {logs}/r -s - -o root.raw",
    ),
    note: "root volume only; its walls are multiples of 2 s",
    ..PEER
};

const BORG: Tool = Tool {
    programs: &["borg"],
    version: "borg --version",
    restore: Some("borg extract --sparse {stored}/repo::one"),
    verify: Some("borg check --verify-data {stored}/repo"),
    note: "one thread; fixed 4 MiB chunks, deduplicated",
    ..PEER
};

pub(super) const PEERS: &[Tool] = &[
    Tool {
        name: "zstd -1",
        programs: &["zstd"],
        version: "zstd --version",
        full: "zstd -q -f -1 -T{threads} {disk} -o {stored}/disk.zst",
        restore: Some("zstd -q -d -f {stored}/disk.zst -o disk.raw"),
        verify: Some("zstd -q -t {stored}/disk.zst"),
        note: "all threads; 32-bit checksum of the whole",
        ..PEER
    },
    Tool {
        name: "zstd -3",
        programs: &["zstd"],
        version: "zstd --version",
        full: "zstd -q -f -3 -T{threads} {disk} -o {stored}/disk.zst",
        restore: Some("zstd -q -d -f {stored}/disk.zst -o disk.raw"),
        verify: Some("zstd -q -t {stored}/disk.zst"),
        note: "all threads; 32-bit checksum of the whole",
        ..PEER
    },
    Tool {
        name: "qemu-img zstd",
        programs: &["qemu-img"],
        version: "qemu-img --version",
        full: "qemu-img convert -c -W -f raw -O qcow2 -o compression_type=zstd {disk} {stored}/d.qcow2",
        restore: Some("qemu-img convert -W -f qcow2 -O raw {stored}/d.qcow2 disk.raw"),
        quick: Some("qemu-img check -q {stored}/d.qcow2"),
        note: "no checksums",
        ..PEER
    },
    Tool {
        name: "squashfs zstd:1",
        programs: &["mksquashfs", "unsquashfs"],
        version: "mksquashfs -version",
        full: "mksquashfs {disk} {stored}/d.sqfs -comp zstd -Xcompression-level 1 \
               -processors {threads} -noappend -quiet -no-progress",
        restore: Some("unsquashfs -q -n -f -d {restored} {stored}/d.sqfs"),
        note: "no checksums",
        ..PEER
    },
    Tool {
        name: "partclone -a 0 | zstd -1",
        programs: &["partclone.ext4", "zstd"],
        full: "partclone.ext4 -c -q -a 0 -L {logs}/c -s {root} -o - \
               | zstd -q -f -1 -T{threads} -o {stored}/root.zst",
        ..PARTCLONE
    },
    Tool {
        name: "partclone | zstd -1",
        programs: &["partclone.ext4", "partclone.chkimg", "zstd"],
        full: "partclone.ext4 -c -q -L {logs}/c -s {root} -o - \
               | zstd -q -f -1 -T{threads} -o {stored}/root.zst",
        verify: Some("zstd -dc {stored}/root.zst | partclone.chkimg -L {logs}/v -s -"),
        ..PARTCLONE
    },
    Tool {
        name: "restic",
        programs: &["restic"],
        version: "restic version",
        prepare: Some("restic -q -r {stored}/repo init"),
        full: "restic -q -r {stored}/repo backup disk.raw",
        restore: Some("restic -q -r {stored}/repo restore latest --target {restored}"),
        verify: Some("restic -q -r {stored}/repo check --read-data"),
        note: "always encrypts; SHA-256 of content-defined chunks",
        ..PEER
    },
    Tool {
        name: "rustic",
        programs: &["rustic"],
        version: "rustic --version",
        prepare: Some("rustic -r {stored}/repo --log-level error init"),
        full: "rustic -r {stored}/repo --no-progress --log-level error backup disk.raw",
        restore: Some(
            "rustic -r {stored}/repo --no-progress --log-level error restore latest {restored}",
        ),
        verify: Some("rustic -r {stored}/repo --no-progress --log-level error check --read-data"),
        note: "always encrypts; SHA-256 of content-defined chunks",
        ..PEER
    },
    Tool {
        name: "borg zstd:1 encrypted",
        prepare: Some("borg init -e repokey-blake2 {stored}/repo"),
        full: "borg create --sparse --compression zstd,1 --chunker-params fixed,4194304 \
               {stored}/repo::one disk.raw",
        ..BORG
    },
    Tool {
        name: "fsarchiver zstd:1",
        scope: Scope::FilesOfRoot,
        programs: &["fsarchiver"],
        version: "fsarchiver --version",
        full: "fsarchiver savefs -o -Z 1 -j {threads} {stored}/root.fsa {root}",
        restore: Some("fsarchiver restfs -j {threads} {stored}/root.fsa id=0,dest={blank}"),
        restored: "root.raw",
        note: "files of the root volume only, no blocks",
        ..PEER
    },
    Tool {
        name: "lz4 -1",
        codec: Codec::Lz4,
        programs: &["lz4"],
        version: "lz4 --version",
        full: "lz4 -q -f -1 {disk} {stored}/disk.lz4",
        restore: Some("lz4 -q -d -f {stored}/disk.lz4 disk.raw"),
        verify: Some("lz4 -q -t {stored}/disk.lz4"),
        note: "one thread",
        ..PEER
    },
    Tool {
        name: "borg lz4",
        codec: Codec::Lz4,
        prepare: Some("borg init -e none {stored}/repo"),
        full: "borg create --sparse --compression lz4 --chunker-params fixed,4194304 \
               {stored}/repo::one disk.raw",
        ..BORG
    },
    Tool {
        name: "partclone -a 0 | lz4 -1",
        codec: Codec::Lz4,
        programs: &["partclone.ext4", "lz4"],
        full: "partclone.ext4 -c -q -a 0 -L {logs}/c -s {root} -o - | lz4 -q -f -1 - {stored}/root.lz4",
        restore: Some(
            "lz4 -dc {stored}/root.lz4 | partclone.ext4 -r -q -W -L {logs}/r -s - -o root.raw",
        ),
        ..PARTCLONE
    },
    Tool {
        name: "cp --sparse=always",
        side: Side::Limit,
        codec: Codec::None,
        programs: &["cp"],
        version: "cp --version",
        full: "cp --sparse=always {disk} {stored}/disk.raw",
        restore: Some("cp --sparse=always {stored}/disk.raw disk.raw"),
        note: "a copy, no checks at all",
        ..PEER
    },
    Tool {
        name: "qemu-img raw qcow2",
        codec: Codec::None,
        programs: &["qemu-img"],
        version: "qemu-img --version",
        full: "qemu-img convert -W -f raw -O qcow2 {disk} {stored}/d.qcow2",
        restore: Some("qemu-img convert -W -f qcow2 -O raw {stored}/d.qcow2 disk.raw"),
        quick: Some("qemu-img check -q {stored}/d.qcow2"),
        note: "no checksums",
        ..PEER
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_a_command_line_is_declared() {
        for peer in PEERS {
            let lines = [Some(peer.full), peer.restore, peer.verify, peer.quick, peer.prepare];
            for line in lines.into_iter().flatten() {
                for command in line.split(" | ") {
                    let program = command.split_whitespace().next().unwrap();
                    assert!(peer.programs.contains(&program), "{}: {program}", peer.name);
                }
            }
        }
    }

    #[test]
    fn no_two_rows_of_a_table_have_one_name() {
        for (index, peer) in PEERS.iter().enumerate() {
            assert!(!PEERS[index + 1..].iter().any(|other| other.name == peer.name));
        }
    }
}
