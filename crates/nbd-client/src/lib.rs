//! Floor 1 of Aivory: a disk behind an NBD server, as bytes at offsets.
//!
//! [`NbdDisk`] speaks to one export of one server over a few connections, one for each thread
//! that reads at the same time where the server allows several. It never writes: the requests
//! for that are not in [`aiv_nbd_protocol`]. What a server sends may be an attacker's: every
//! length is bounded before memory is taken, and a server that is silent for longer than the
//! time given by the caller is given up. A connection that breaks is made anew once for each read.
//!
//! ```no_run
//! use aiv_nbd_client::{NbdDisk, NbdOptions};
//! use aiv_volume_io::ReadAt;
//!
//! let uri = "nbd+unix:///?socket=/run/vm1.sock".parse()?;
//! let disk = NbdDisk::connect(uri, NbdOptions::default())?;
//! disk.read_exact_at(&mut [0; 512], disk.len() - 512)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod disk;
mod error;
mod handshake;
mod pool;
mod stream;

pub use aiv_nbd_protocol::{Address, Uri, UriError};
pub use disk::{BASE_ALLOCATION, NbdDisk, NbdOptions};
pub use error::{Error, Result};
