//! META with every field filled in.

use aiv_image_format::GroupId;
use aiv_image_format::meta::{
    Capture, Consistency, DiskInfo, Excluded, Inventory, Manifest, Meta, PartitionInfo, RegionInfo,
    RegionKind, Trackers, VolumeInfo,
};
use aiv_volume_io::Extent;

/// Describes a GPT disk of `len` bytes with two partitions, one of them ext4.
pub(crate) fn full_meta(
    len: u64,
    logical_sector: u32,
    group: GroupId,
    source_errors: Vec<Extent>,
) -> Meta {
    Meta {
        manifest: Manifest {
            host: "lighthouse".into(),
            name: "rigel".into(),
            source: "/dev/disk/by-id/nvme-TEST".into(),
            source_id: "gpt:11111111-2222-3333-4444-555555555555".into(),
            full_number: 3,
            increment_number: 0,
            group,
            time_unix_ms: 1_790_000_000_123,
            consistency: Consistency::Crash,
            capture: Capture::Used,
            comment: "before the move \u{2013} keep".into(),
        },
        disk: DiskInfo {
            len,
            logical_sector,
            physical_sector: 4096,
            model: "TEST 9000".into(),
            serial: "S/N 0001".into(),
            wwn: "eui.0025385b71b0f001".into(),
            table: "gpt".into(),
            table_id: "11111111-2222-3333-4444-555555555555".into(),
            table_problems: vec!["the backup header is missing".into()],
            regions: regions(len),
        },
        inventory: Inventory {
            facts: vec![
                ("os.name".into(), "Debian GNU/Linux".into()),
                ("kernel.release".into(), "6.12.0".into()),
            ],
        },
        source_errors,
        origins: Vec::new(),
        // Long enough to be worth compressing, as the real one is.
        specification: "A text in the place of the specification, as long as one.\n".repeat(320),
        // The golden images are older than this section.
        excluded: Excluded::default(),
        trackers: Trackers::default(),
    }
}

/// Table, partition, gap, partition: every byte once.
fn regions(len: u64) -> Vec<RegionInfo> {
    let [a, b, c] = [len / 8, len / 4, len / 2];
    let partition = |number, name: &str| PartitionInfo {
        number,
        type_id: "0fc63daf-8483-4772-8e79-3d69d8477de4".into(),
        unique_id: format!("00000000-0000-0000-0000-00000000000{number}"),
        name: name.into(),
        attributes: 1 << 60 | 4,
        bootable: number == 1,
    };
    let volume = VolumeInfo {
        filesystem: "ext4".into(),
        label: "root".into(),
        uuid: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".into(),
        cluster_size: 4096,
        capture: Capture::Whole,
        reason: "the journal is not clean".into(),
        used_bytes: len / 3,
    };
    let all = [
        region(RegionKind::Table, 0, a, None, None),
        region(RegionKind::Partition, a, b, Some(partition(1, "boot")), None),
        region(RegionKind::Gap, b, c, None, None),
        region(RegionKind::Partition, c, len, Some(partition(2, "root")), Some(volume)),
    ];
    all.into_iter().filter(|region| !region.extent.is_empty()).collect()
}

fn region(
    kind: RegionKind,
    start: u64,
    end: u64,
    partition: Option<PartitionInfo>,
    volume: Option<VolumeInfo>,
) -> RegionInfo {
    RegionInfo { kind, extent: Extent::between(start, end), partition, volume }
}
