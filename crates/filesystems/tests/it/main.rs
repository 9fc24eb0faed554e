//! Judged by other people's tools: e2fsprogs, xfsprogs, btrfs-progs, ntfs-3g, partclone, dosfstools, mtools,
//! exfatprogs, exfat-fuse, util-linux, and the kernel's own filesystems.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod btrfs_extents;
mod btrfs_forge;
mod btrfs_histories;
mod btrfs_hostile;
mod btrfs_live;
mod btrfs_maps;
mod btrfs_refusals;
mod btrfs_tools;
mod exfat_maps;
mod exfat_refusals;
mod exfat_tools;
mod ext_files;
mod ext_journal;
mod ext_maps;
mod ext_reader;
mod ext_reader_damage;
mod ext_reader_features;
mod ext_reader_hostile;
mod ext_reader_states;
mod ext_refusals;
mod ext_tools;
mod f2fs_maps;
mod f2fs_refusals;
mod fat_maps;
mod fat_refusals;
mod fat_tools;
mod files_hostile;
mod hostile;
mod hostile_fat;
mod lvm_hostile;
mod lvm_maps;
mod lvm_refusals;
mod lvm_tools;
mod media;
mod ntfs_files;
mod ntfs_hostile;
mod ntfs_maps;
mod ntfs_records;
mod ntfs_refusals;
mod ntfs_tools;
mod reader_tools;
mod recognition;
mod swap;
mod tools;
mod xfs_frozen;
mod xfs_hostile;
mod xfs_logs;
mod xfs_maps;
mod xfs_refusals;
mod xfs_tools;
