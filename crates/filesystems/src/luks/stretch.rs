//! What is made of a passphrase, slowly, and how slow a header may ask it to be.

use aiv_keys::{Argon2, Cost, Error as KeyError};

use super::hash::Hash;
use super::unsupported;
use crate::{Error, Result};

/// KiB x passes of Argon2 one slot may ask for: 16 GiB-passes, some fifteen seconds. cryptsetup
/// asks for what took two seconds in four threads, with at most a gibibyte.
const KIB_PASSES_MAX: u64 = 16 << 20;
/// Rounds of HMAC one slot may ask for, in all blocks of its key: some ten seconds.
const ROUNDS_MAX: u64 = 1 << 25;

/// How a slot stretches a passphrase.
pub(super) enum Stretch {
    Pbkdf2 { hash: Hash, rounds: u32, salt: Vec<u8> },
    Argon2 { kind: Argon2, cost: Cost, salt: Vec<u8> },
}

/// What trying one passphrase with all slots may still cost: twice what one may.
pub(super) struct Work {
    kib_passes: u64,
    rounds: u64,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { kib_passes: 2 * KIB_PASSES_MAX, rounds: 2 * ROUNDS_MAX }
    }

    fn take_rounds(&mut self, asked: u64) -> Result<()> {
        let left = self.rounds.checked_sub(asked).filter(|_| asked <= ROUNDS_MAX);
        self.rounds = left.ok_or_else(|| {
            unsupported(format!(
                "a key slot asks for {asked} rounds of PBKDF2: more than the {} that are still tried",
                self.rounds.min(ROUNDS_MAX)
            ))
        })?;
        Ok(())
    }
}

impl Stretch {
    /// By what a slot of version 2 says.
    pub(super) fn argon2(
        kind: Argon2,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        salt: Vec<u8>,
    ) -> Result<Self> {
        let cost = Cost::foreign(memory_kib, passes, lanes, KIB_PASSES_MAX).map_err(|_| {
            unsupported(format!(
                "a key slot asks for {passes} passes over {memory_kib} KiB in {lanes} lanes of \
                 Argon2: more than is tried"
            ))
        })?;
        Ok(Self::Argon2 { kind, cost, salt })
    }

    pub(super) fn run(&self, secret: &[u8], out: &mut [u8], work: &mut Work) -> Result<()> {
        match self {
            Self::Pbkdf2 { hash, rounds, salt } => pbkdf2(*hash, secret, salt, *rounds, out, work),
            Self::Argon2 { kind, cost, salt } => {
                let left = work.kib_passes.checked_sub(cost.kib_passes());
                work.kib_passes = left.ok_or_else(|| {
                    unsupported("its key slots ask for more work than is done".to_owned())
                })?;
                cost.stretch_into(*kind, secret, salt, out).map_err(|error| match error {
                    error @ KeyError::NoMemory { .. } => unsupported(error.to_string()),
                    _ => Error::damaged("a key slot has a salt that is none", None),
                })
            }
        }
    }
}

/// PBKDF2, as far as there is work left for it.
pub(super) fn pbkdf2(
    hash: Hash,
    secret: &[u8],
    salt: &[u8],
    rounds: u32,
    out: &mut [u8],
    work: &mut Work,
) -> Result<()> {
    if rounds == 0 {
        return Err(Error::damaged("no rounds of PBKDF2 are asked for", None));
    }
    let blocks = out.len().div_ceil(hash.size()) as u64;
    work.take_rounds(u64::from(rounds).saturating_mul(blocks))?;
    hash.pbkdf2(secret, salt, rounds, out);
    Ok(())
}
