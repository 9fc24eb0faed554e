//! Test machinery: storage that fails, storage that loses power, and tiny disks.
//!
//! - [`MemStorage`]: a folder of files in memory.
//! - [`FaultStorage`]: makes the n-th operation fail. Run a scenario with n = 0, 1, 2, … until
//!   no fault fires, and every failure the medium can show has been met once.
//! - [`CrashStorage`]: remembers the history of a scenario and builds the states a power cut
//!   may leave at any point of it. The model is written down in [`crash_storage`].
//! - [`WatchedFile`]: shows what is appended to a file, until it takes no more.
//! - [`disks`]: disks of a few hundred KiB with real partition tables, and disks that fail.
//! - [`files`]: a filesystem in memory, with names and loops no driver would make.
//! - [`mutants`]: volumes with some bytes changed, for readers of filesystems.
//! - [`arb`]: proptest strategies for such disks.
//!
//! ```
//! use aiv_testkit::CrashStorage;
//! use aiv_volume_io::Storage;
//!
//! let storage = CrashStorage::new();
//! let mut file = storage.create("a.tmp")?;
//! file.append_all(b"all of it")?;
//! file.sync()?;
//! storage.publish("a.tmp", "a")?;
//! storage.sync_dir()?;
//! storage.mark("a is safe");
//!
//! for state in storage.crash_states(1, 20) {
//!     let safe = state.acknowledged.contains(&"a is safe".to_owned());
//!     match state.storage.contents("a") {
//!         Some(bytes) => assert_eq!(bytes.as_slice(), b"all of it", "{state}"),
//!         None => assert!(!safe, "{state}"),
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Everything is deterministic: what looks random comes from a seed the test chooses.
//! Only ever a dev-dependency.

pub mod arb;
pub mod crash_storage;
pub mod disks;
mod fault;
mod fault_storage;
pub mod files;
mod mem_storage;
pub mod mutants;
mod random;
mod watched;

pub use crash_storage::{CrashState, CrashStates, CrashStorage};
pub use fault::{Fault, FaultPlan, Op, Operation, Repeat};
pub use fault_storage::FaultStorage;
pub use mem_storage::MemStorage;
pub use random::Random;
pub use watched::WatchedFile;
