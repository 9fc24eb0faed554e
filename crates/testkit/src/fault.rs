use std::io;

/// Which operation fails, how, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultPlan {
    /// Fails the operation with this number, counting from zero only operations that `fault`
    /// can hit: so counting up until nothing fires visits them all.
    pub at: u64,
    /// How it fails.
    pub fault: Fault,
    /// Whether later operations that `fault` can hit fail as well.
    pub repeat: Repeat,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// One operation; a second try works.
    Once,
    /// Every operation from then on. [`Fault::Eintr`] strikes every other one, as a process
    /// that is interrupted for ever makes no sense.
    Persistent,
}

impl FaultPlan {
    /// The `at`-th operation fails, those after it work.
    #[must_use]
    pub fn once(at: u64, fault: Fault) -> Self {
        Self { at, fault, repeat: Repeat::Once }
    }

    /// The `at`-th operation and all after it fail.
    #[must_use]
    pub fn persistent(at: u64, fault: Fault) -> Self {
        Self { at, fault, repeat: Repeat::Persistent }
    }

    /// Whether the `number`-th operation that the fault can hit is hit.
    pub(crate) fn strikes(self, number: u64) -> bool {
        match self.repeat {
            Repeat::Once => number == self.at,
            Repeat::Persistent if self.fault == Fault::Eintr => {
                number >= self.at && (number - self.at).is_multiple_of(2)
            }
            Repeat::Persistent => number >= self.at,
        }
    }
}

/// What goes wrong. A fault hits only operations at which the kernel could report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The medium failed. Hits everything.
    Eio,
    /// No space left. Hits whatever may need a block: create, reopen, append, sync, publish,
    /// directory sync, lease.
    Enospc,
    /// Quota exceeded. Hits the same.
    Edquot,
    /// Interrupted by a signal, nothing done. Hits what may wait in the kernel and has no
    /// promise to go on by itself: everything but reads and leases, taken or checked.
    Eintr,
    /// Half of the data is taken, which is no error. Hits appends of two bytes and more.
    ShortWrite,
    /// The file ends halfway through the read. Hits reads of one byte and more.
    ShortRead,
    /// The sync fails; what it should have made durable reads as zeros from then on; the next
    /// sync reports success. Hits syncs of files, reopening a file, which syncs it, and directory
    /// syncs (which lose nothing).
    SyncFailsThenSucceeds,
    /// The rename fails and nothing is renamed. Hits publish.
    RenameFails,
}

impl Fault {
    /// All faults, for loops over them.
    pub const ALL: [Self; 8] = [
        Self::Eio,
        Self::Enospc,
        Self::Edquot,
        Self::Eintr,
        Self::ShortWrite,
        Self::ShortRead,
        Self::SyncFailsThenSucceeds,
        Self::RenameFails,
    ];

    /// Whether a correct program hides this fault when it strikes once, so that its scenario
    /// must succeed.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        self == Self::ShortWrite
    }

    pub(crate) fn can_hit(self, op: Op, bytes: usize) -> bool {
        use Op::{Append, CheckLease, Create, Lease, Publish, Read, Reopen, Sync, SyncDir};
        match self {
            Self::Eio => true,
            Self::Enospc | Self::Edquot => {
                matches!(op, Create | Reopen | Append | Sync | Publish | SyncDir | Lease)
            }
            Self::Eintr => !matches!(op, Read | Lease | CheckLease),
            Self::ShortWrite => op == Append && bytes >= 2,
            Self::ShortRead => op == Read && bytes >= 1,
            Self::SyncFailsThenSucceeds => matches!(op, Reopen | Sync | SyncDir),
            Self::RenameFails => op == Publish,
        }
    }

    pub(crate) fn error(self) -> io::Error {
        // Linux numbers (errno-base.h, errno.h): what a real call would carry.
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        match self {
            Self::Eio | Self::SyncFailsThenSucceeds | Self::RenameFails | Self::ShortWrite => {
                io::Error::from_raw_os_error(EIO)
            }
            Self::Enospc => io::Error::from_raw_os_error(ENOSPC),
            Self::Edquot => io::Error::from_raw_os_error(EDQUOT),
            Self::Eintr => io::Error::from_raw_os_error(EINTR),
            Self::ShortRead => io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

/// An operation of [`Storage`](aiv_volume_io::Storage) or of a file opened through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name, or of a lease")]
pub enum Op {
    Create,
    Reopen,
    Append,
    Read,
    Sync,
    Open,
    Publish,
    Remove,
    List,
    SyncDir,
    Lease,
    CheckLease,
}

/// One operation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which.
    pub op: Op,
    /// The file or lease it was about, by the name given when it was created, opened or taken;
    /// empty for the folder as a whole.
    pub name: String,
    /// Whether it was made to fail.
    pub failed: bool,
}
