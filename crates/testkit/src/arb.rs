//! Proptest strategies for disks.

use proptest::prelude::*;

use crate::disks::{Content, DiskLayout, Part, Table};

/// Primary partitions of a made-up MBR, so that an extended one still fits.
const PRIMARIES_MAX: usize = 3;

/// Any contents.
pub fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        any::<u64>().prop_map(Content::Text),
        any::<u64>().prop_map(Content::Random),
        Just(Content::Zeros),
        any::<u64>().prop_map(Content::Mixed),
    ]
}

/// Any layout: sectors of 512 or 4096 bytes; GPT, MBR or no table; up to five partitions of up
/// to 64 KiB with gaps between them. Every one can be built.
pub fn disk_layout() -> impl Strategy<Value = DiskLayout> {
    let sector_size = prop_oneof![Just(512u32), Just(4096)];
    let table = prop_oneof![Just(Table::Gpt), Just(Table::Mbr), Just(Table::None)];
    (sector_size, table).prop_flat_map(|(sector_size, table)| layout_of(sector_size, table))
}

/// Any layout of this kind.
pub fn layout_of(sector_size: u32, table: Table) -> impl Strategy<Value = DiskLayout> {
    let count = match table {
        Table::None => 1..=1,
        Table::Mbr | Table::Gpt => 0..=5,
    };
    let part = (1u64..=64 << 10, content(), 0u64..16).prop_map(|(len, content, gap)| Part {
        len,
        content,
        logical: false,
        gap,
    });
    let parts = prop::collection::vec(part, count);
    (parts, 0..=PRIMARIES_MAX, 0u64..64, any::<u64>()).prop_map(
        move |(mut parts, primaries, tail, seed)| {
            if table == Table::Mbr {
                parts.iter_mut().skip(primaries).for_each(|part| part.logical = true);
            }
            DiskLayout { sector_size, table, parts, tail, seed }
        },
    )
}
