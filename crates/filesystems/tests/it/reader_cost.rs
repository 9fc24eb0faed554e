//! What the first listing of a large volume reads.

use std::ops::ControlFlow;
use std::sync::Arc;

use aiv_volume_io::Job;

use crate::ext_tools::MIB;
use crate::reader_tools::opened;
use crate::tools::Volume;

const TIB: u64 = 1 << 40;

fn first_listing(tool: &str, arguments: &str) -> u64 {
    let volume = Arc::new(Volume::made_by(TIB, tool, arguments).open());
    let filesystem = opened(volume.clone()).unwrap();
    let root = filesystem.root();
    filesystem.entries(root, Job::silent(), &mut |_| ControlFlow::Continue(())).unwrap();
    volume.bytes_read()
}

#[test]
fn the_first_listing_of_a_volume_of_a_tebibyte_reads_at_most_four_mebibytes() {
    for (tool, arguments) in [
        ("mkfs.ext4", "-q -F -E lazy_itable_init=1,lazy_journal_init=1"),
        ("mkfs.xfs", "-q"),
        ("mkfs.btrfs", "-q"),
        ("mkntfs", "-q -Q -F"),
        ("mkfs.exfat", ""),
    ] {
        let read = first_listing(tool, arguments);
        assert!(read <= 4 * MIB, "{tool}: {read} bytes");
    }
}
