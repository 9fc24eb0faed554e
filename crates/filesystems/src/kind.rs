use std::fmt;

/// A filesystem, or a container that holds other volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilesystemKind {
    /// Second extended filesystem: no journal, none of the ext4 features.
    Ext2,
    /// ext2 with a journal, none of the ext4 features.
    Ext3,
    /// Any ext filesystem with a feature ext3 does not know.
    Ext4,
    /// External journal of an ext filesystem.
    ExtJournal,
    /// Windows NT filesystem.
    Ntfs,
    /// FAT with 12-bit entries.
    Fat12,
    /// FAT with 16-bit entries.
    Fat16,
    /// FAT with 32-bit entries.
    Fat32,
    /// Extended FAT of large flash media.
    ExFat,
    /// XFS.
    Xfs,
    /// Btrfs, one device of possibly several.
    Btrfs,
    /// Linux swap space.
    Swap,
    /// Linux swap space that holds a sleeping system (suspend to disk).
    SwapSuspended,
    /// Flash-friendly filesystem.
    F2fs,
    /// Read-only compressed SquashFS, version 4.
    Squashfs,
    /// Read-only EROFS.
    Erofs,
    /// ISO 9660 optical disc.
    Iso9660,
    /// One device of a ZFS pool.
    Zfs,
    /// Apple filesystem container.
    Apfs,
    /// Apple HFS+ or HFSX.
    HfsPlus,
    /// Apple HFS, the predecessor of HFS+.
    Hfs,
    /// UFS of the BSDs.
    Ufs,
    /// Windows resilient filesystem.
    ReFs,
    /// UDF, of optical media.
    Udf,
    /// JFS of IBM.
    Jfs,
    /// ReiserFS 3.
    ReiserFs,
    /// Reiser4.
    Reiser4,
    /// NILFS2.
    Nilfs2,
    /// Cluster filesystem of Oracle.
    Ocfs2,
    /// Cluster filesystem of Red Hat.
    Gfs2,
    /// bcachefs.
    Bcachefs,
    /// Cluster filesystem of VMware.
    Vmfs,
    /// Compressed read-only filesystem, before SquashFS.
    Cramfs,
    /// Small read-only filesystem.
    Romfs,
    /// Boot filesystem of UnixWare.
    Bfs,
    /// Minix.
    Minix,
    /// Physical volume of LVM2.
    Lvm2Member,
    /// LUKS encrypted container, version 1 or 2.
    LuksContainer,
    /// BitLocker encrypted volume.
    BitLocker,
    /// Member of a Linux software RAID.
    MdRaidMember,
    /// A disk with a cache in front of it, or the cache.
    Bcache,
    /// A device with a checksum for each sector.
    DmIntegrity,
    /// Storage under a volume that is compressed and deduplicated.
    Vdo,
    /// None of the above.
    Unknown,
}

impl FilesystemKind {
    /// The name `blkid` prints for this kind; stable, scripts may compare it.
    /// [`Unknown`](Self::Unknown) is `"unknown"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "jbd",
            Self::Ntfs => "ntfs",
            Self::Fat12 | Self::Fat16 | Self::Fat32 => "vfat",
            Self::ExFat => "exfat",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Swap => "swap",
            Self::SwapSuspended => "swsuspend",
            Self::F2fs => "f2fs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso9660 => "iso9660",
            Self::Zfs => "zfs_member",
            Self::Apfs => "apfs",
            Self::HfsPlus => "hfsplus",
            Self::Hfs => "hfs",
            Self::Ufs => "ufs",
            Self::ReFs => "ReFS",
            Self::Udf => "udf",
            Self::Jfs => "jfs",
            Self::ReiserFs => "reiserfs",
            Self::Reiser4 => "reiser4",
            Self::Nilfs2 => "nilfs2",
            Self::Ocfs2 => "ocfs2",
            Self::Gfs2 => "gfs2",
            Self::Bcachefs => "bcachefs",
            Self::Vmfs => "VMFS",
            Self::Cramfs => "cramfs",
            Self::Romfs => "romfs",
            Self::Bfs => "bfs",
            Self::Minix => "minix",
            Self::Lvm2Member => "LVM2_member",
            Self::LuksContainer => "crypto_LUKS",
            Self::BitLocker => "BitLocker",
            Self::MdRaidMember => "linux_raid_member",
            Self::Bcache => "bcache",
            Self::DmIntegrity => "DM_integrity",
            Self::Vdo => "vdo",
            Self::Unknown => "unknown",
        }
    }

    /// Whether there can be files in it: not in swap space, nor in a journal.
    #[must_use]
    pub const fn has_files(self) -> bool {
        !matches!(self, Self::Swap | Self::SwapSuspended | Self::ExtJournal)
    }

    /// Whether this is a wrapping for other volumes (RAID, LVM, encryption, caches). What lies inside
    /// may show its own signature at its usual place; that is no contradiction.
    #[must_use]
    pub const fn is_container(self) -> bool {
        matches!(
            self,
            Self::Lvm2Member
                | Self::LuksContainer
                | Self::BitLocker
                | Self::MdRaidMember
                | Self::Zfs
                | Self::Bcache
                | Self::DmIntegrity
                | Self::Vdo
        )
    }
}

impl fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
