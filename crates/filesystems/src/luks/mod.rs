//! LUKS, versions 1 and 2: what an encrypted volume holds, for whoever has its passphrase.
//!
//! A header in front of the data names the cipher and keeps the volume key in key slots: each holds
//! it stretched over some 4000 stripes, encrypted with what a slow function makes of a passphrase. A
//! digest tells whether a slot gave the right key. Version 2 has its header twice, as JSON behind a
//! checksum: the newer copy that is whole counts.
//!
//! All of it is whoever wrote the disk's: what a slot may cost is bounded before anything is
//! computed, and so is what it may have read. Known are AES in XTS and CBC, and the hashes of the
//! SHA family. A header without its data, data with checksums between (dm-integrity), and a volume
//! that is being encrypted anew are told by name and not opened.
//!
//! # What cannot be known
//! Neither mode proves anything: sectors that were never written, or changed by somebody without the
//! key, give noise.
//!
//! Facts: the LUKS1 and LUKS2 on-disk format specifications of cryptsetup.

mod cipher;
mod hash;
mod secret;
mod slot;
mod split;
mod stretch;
mod version1;
mod version2;
mod view;

use std::sync::Arc;

use aiv_volume_io::{Extent, Job, ReadAt};
use zeroize::Zeroizing;

use crate::bytes::be16;
use crate::{Error, LuksContents, Result};
use cipher::{Cipher, Spec};
use hash::Hash;
pub use secret::{LuksKey, LuksKeys};
use slot::Slot;
use stretch::Work;
use view::View;

const SECTOR: u64 = 512;
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// Bytes of the largest volume key: two keys of AES-256.
const KEY_MAX: usize = 64;

/// What a header of either version says.
struct Header {
    /// In the order in which they are tried; those that cannot be used with the reason.
    slots: Vec<Result<Slot>>,
    proof: Proof,
    data: Data,
}

/// What tells the right volume key.
struct Proof {
    hash: Hash,
    rounds: u32,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// What is encrypted.
struct Data {
    extent: Extent,
    cipher: Spec,
    /// Bytes of a sector of the cipher.
    sector: u32,
    /// The number of the first one, in sectors of 512 bytes.
    first: u64,
}

pub(crate) fn open(volume: Arc<dyn ReadAt>, keys: &LuksKeys, job: Job<'_>) -> Result<LuksContents> {
    let header = read(&*volume)?;
    let key = keys.0.iter().map(|key| header.volume_key(&*volume, key, job));
    // The first that opens it; else the reason that says most.
    let mut why = Error::WrongKey { slots: header.slots.len() };
    for tried in key {
        match tried {
            Ok(key) => {
                let Data { extent, cipher, sector, first, .. } = header.data;
                let cipher = Cipher::new(&cipher, &key)?;
                let view = View::new(volume, extent, cipher, sector, first);
                let extent = Extent::new(extent.start, view.len());
                return Ok(LuksContents { bytes: Arc::new(view), extent });
            }
            Err(Error::WrongKey { .. }) => {}
            Err(error @ (Error::Canceled(_) | Error::Io { .. })) => return Err(error),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn read(volume: &dyn ReadAt) -> Result<Header> {
    let head = record(volume, 0, 8)?;
    if head[..6] != MAGIC {
        return Err(Error::damaged("there is no header of LUKS", Some(0)));
    }
    let header = match be16(&head, 6) {
        1 => version1::read(volume)?,
        version => match version2::read(volume) {
            // The number may be all that is damaged: the second copy has it, too.
            Err(_) if version != 2 => {
                return Err(unsupported(format!("version {version} of LUKS is not known")));
            }
            header => header?,
        },
    };
    let Data { extent, sector, .. } = &header.data;
    let end = extent.start.checked_add(extent.len);
    if end.is_none_or(|end| end > volume.len()) || extent.len < u64::from(*sector) {
        return Err(Error::damaged("the encrypted data does not fit into the volume", None));
    }
    if header.slots.is_empty() {
        return Err(unsupported("it has no key slot: nobody can open it".to_owned()));
    }
    Ok(header)
}

impl Header {
    /// The volume key out of the first slot that `key` opens.
    fn volume_key(
        &self,
        volume: &dyn ReadAt,
        key: &LuksKey,
        job: Job<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut work = Work::new();
        let mut why = Error::WrongKey { slots: self.slots.len() };
        for slot in &self.slots {
            job.check()?;
            let slot = match slot {
                Ok(slot) => slot,
                // What cannot be used may be the one for this key.
                Err(error) => {
                    why = unsupported(error.to_string());
                    continue;
                }
            };
            let found = slot.open(volume, key.bytes(), &mut work);
            match found.and_then(|found| Ok(self.proof.holds(&found, &mut work)?.then_some(found)))
            {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => why = error,
            }
        }
        Err(why)
    }
}

impl Proof {
    fn holds(&self, key: &[u8], work: &mut Work) -> Result<bool> {
        let mut digest = Zeroizing::new(vec![0; self.digest.len()]);
        stretch::pbkdf2(self.hash, key, &self.salt, self.rounds, &mut digest, work)?;
        // The digest is no secret, and neither is where it differs.
        Ok(*digest == self.digest)
    }
}

/// `len` bytes at `at`, of a few mebibytes at most.
fn record(volume: &dyn ReadAt, at: u64, len: usize) -> Result<Vec<u8>> {
    let end = at.checked_add(len as u64);
    if end.is_none_or(|end| end > volume.len()) {
        return Err(Error::damaged("the header of LUKS reaches behind the end", Some(at)));
    }
    let mut bytes = vec![0; len];
    volume.read_exact_at(&mut bytes, at).map_err(Error::io("read header of LUKS", at))?;
    Ok(bytes)
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { what }
}

/// A word of a header, as far as it can be shown.
fn shown(word: &str) -> String {
    word.chars().filter(char::is_ascii_graphic).take(64).collect()
}
