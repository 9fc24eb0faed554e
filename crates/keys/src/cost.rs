//! What trying a passphrase may cost, and what one attempt may cost in all.

use zeroize::{Zeroize, Zeroizing};

use crate::{Error, KEY_SIZE, Result};

/// Which Argon2 it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argon2 {
    /// Argon2id.
    Id,
    /// Argon2i.
    I,
}

/// How expensive it is to try one passphrase: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second choice of RFC 9106: 64 MiB, three passes, here in one lane. About a third of a
    /// second.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// KiB of memory a slot may ask for: 1 GiB. It is the file that asks, and a file may be an
    /// attacker's.
    pub const MEMORY_KIB_MAX: u32 = 1024 * 1024;
    /// KiB x passes a slot may ask for: 2 GiB-passes, some four seconds.
    pub const KIB_PASSES_MAX: u64 = 2 * 1024 * 1024;
    /// Lanes a slot may ask for.
    pub const LANES_MAX: u32 = 8;
    /// KiB each lane needs at least, by RFC 9106.
    pub const LANE_KIB_MIN: u32 = 8;

    /// A cost of `memory_kib` KiB, filled `passes` times in so many `lanes`.
    ///
    /// # Errors
    /// [`Error::Cost`] when that is outside of what the format allows.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        Self::foreign(memory_kib, passes, lanes, Self::KIB_PASSES_MAX)
    }

    /// The cost that a key slot of LUKS2 asks for: more passes than a slot of ours may.
    ///
    /// # Errors
    /// [`Error::Cost`] when it is more than `kib_passes`, or than the memory and lanes of any slot.
    pub fn foreign(memory_kib: u32, passes: u32, lanes: u32, kib_passes: u64) -> Result<Self> {
        let cost = Self { memory_kib, passes, lanes };
        let allowed = (1..=Self::LANES_MAX).contains(&lanes)
            && (lanes * Self::LANE_KIB_MIN..=Self::MEMORY_KIB_MAX).contains(&memory_kib)
            && passes >= 1
            && cost.kib_passes() <= kib_passes;
        if allowed { Ok(cost) } else { Err(Error::Cost { memory_kib, passes, lanes }) }
    }

    /// KiB of memory.
    #[must_use]
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    #[must_use]
    pub fn passes(self) -> u32 {
        self.passes
    }

    /// Lanes.
    #[must_use]
    pub fn lanes(self) -> u32 {
        self.lanes
    }

    /// The work, which the time is in proportion to.
    #[must_use]
    pub fn kib_passes(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    pub(crate) fn mib_passes(self) -> u64 {
        self.kib_passes() / 1024
    }

    /// Argon2id version 1.3 over the passphrase.
    pub(crate) fn stretch(
        self,
        passphrase: &[u8],
        salt: &[u8; 32],
    ) -> Result<Zeroizing<[u8; KEY_SIZE]>> {
        let mut out = Zeroizing::new([0; KEY_SIZE]);
        self.stretch_into(Argon2::Id, passphrase, salt, out.as_mut_slice())?;
        Ok(out)
    }

    /// What Argon2 1.3 makes of a passphrase and a salt at this cost. What belongs to another
    /// program may ask for more than [`Cost::new`] allows: see [`Cost::foreign`].
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::Cost`] where Argon2 takes no such salt or length.
    pub fn stretch_into(
        self,
        kind: Argon2,
        passphrase: &[u8],
        salt: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let no_memory = Error::NoMemory { kib: self.memory_kib };
        let mut memory = Memory(Vec::new());
        let blocks = usize::try_from(self.memory_kib).map_err(|_| no_memory.clone())?;
        memory.0.try_reserve_exact(blocks).map_err(|_| no_memory)?;
        memory.0.resize(blocks, argon2::Block::new());
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(out.len()))
            .map_err(|_| self.refused())?;
        let kind = match kind {
            Argon2::Id => argon2::Algorithm::Argon2id,
            Argon2::I => argon2::Algorithm::Argon2i,
        };
        argon2::Argon2::new(kind, argon2::Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, salt, out, &mut memory.0)
            .map_err(|_| self.refused())
    }

    fn refused(self) -> Error {
        Error::Cost { memory_kib: self.memory_kib, passes: self.passes, lanes: self.lanes }
    }
}

/// Working memory, overwritten when dropped: its last blocks tell the key.
struct Memory(Vec<argon2::Block>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// What one attempt to open something may still cost, over all slots and all files.
#[derive(Debug)]
pub struct Work {
    left: u64,
}

impl Work {
    /// KiB x passes of one attempt: 4 GiB-passes, some eight seconds.
    pub const MAX_KIB_PASSES: u64 = 2 * Cost::KIB_PASSES_MAX;

    /// The work of one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self { left: Self::MAX_KIB_PASSES }
    }

    #[cfg(test)]
    pub(crate) fn of(left: u64) -> Self {
        Self { left }
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn take(&mut self, slot: u8, asked: Cost) -> Result<()> {
        let left = self.left.checked_sub(asked.kib_passes());
        self.left = left.ok_or(Error::TooMuchWork { slot, asked, left: self.left })?;
        Ok(())
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_stretched_as_the_reference_program_does_it() {
        // The second line of testdata/vectors/argon2id.json.
        let expected = "c5e716e388fa4fd274c1b8a083af5de122c08d5ee3adaf6977aac6c45761725e";
        let salt = b"0123456789abcdef0123456789ABCDEF";
        let key = Cost::DEFAULT.stretch(b"correct horse battery staple", salt).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
