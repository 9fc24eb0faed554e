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
fn the_first_listing_of_a_volume_of_a_tebibyte_reads_a_few_mebibytes() {
    for (tool, arguments, most) in [
        ("mkfs.ext4", "-q -F -E lazy_itable_init=1,lazy_journal_init=1", 4 * MIB),
        // 4 MiB of it are the log before and behind its head: zeros here, and in an image none.
        ("mkfs.xfs", "-q", 5 * MIB),
        ("mkfs.btrfs", "-q", 4 * MIB),
        ("mkntfs", "-q -Q -F", 4 * MIB),
        ("mkfs.exfat", "", 4 * MIB),
    ] {
        let read = first_listing(tool, arguments);
        assert!(read <= most, "{tool}: {read} bytes");
    }
}
