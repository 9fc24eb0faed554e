//! Opens what is locked: asks for what opens it, as often as people mistype it.

use std::path::Path;

use aiv_chain::{KeyedChain, locate_chains};
use aiv_image_format::Error as ImageError;
use aiv_keys::{Credential, Error, Keys, Opened, Work};
use aiv_report::{Failure, LOCKED};

use crate::secrets::SecretFiles;
use crate::session::Session;

/// How often somebody may mistype a passphrase.
const TRIES: u32 = 3;

/// Chains that were opened, and what opened them.
#[derive(Debug)]
pub struct Unlocked {
    /// What the user has.
    pub credential: Credential,
    /// Each chain it opens.
    pub opened: Vec<Opened>,
}

impl Unlocked {
    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let mut keys = Keys::none();
        self.opened.iter().for_each(|opened| keys.add(opened.key.clone()));
        keys
    }
}

impl Session {
    /// Opens every chain that the content of `files`, or else what the user types, opens: at
    /// least one. Somebody who is asked may try three times.
    ///
    /// # Errors
    /// When nobody can be asked, or nothing opens any of them; nothing was changed.
    pub fn unlock(&self, chains: &[KeyedChain], files: &SecretFiles) -> Result<Unlocked, Failure> {
        if let Some(credential) = files.read()? {
            return Ok(try_all(chains, credential)?);
        }
        let mut tries = 1;
        loop {
            let credential = Credential::Passphrase(self.ask_passphrase("Passphrase: ")?);
            match try_all(chains, credential) {
                Err(Error::WrongKey { slots: 1.., .. }) if tries < TRIES => {
                    self.say("That is not it. Once more.");
                    tries += 1;
                }
                tried => return Ok(tried?),
            }
        }
    }

    /// As [`Session::unlock`], for a backup: what a file holds may also be for a new chain, and
    /// open none. Whether it may is settled where the chain of the source is known.
    pub(crate) fn unlock_or_new(
        &self,
        chains: &[KeyedChain],
        files: &SecretFiles,
    ) -> Result<Unlocked, Failure> {
        let Some(credential) = files.read()? else { return self.unlock(chains, files) };
        match try_all(chains, credential.clone()) {
            Err(Error::WrongKey { .. }) => Ok(Unlocked { credential, opened: Vec::new() }),
            tried => Ok(tried?),
        }
    }

    /// The keys of what `what` names (an image, a folder, a point in one) where a file with a
    /// secret is given; none where not.
    ///
    /// # Errors
    /// As [`Session::unlock`].
    pub fn keys(&self, what: &Path, files: &SecretFiles) -> Result<Keys, Failure> {
        if files.is_empty() {
            return Ok(Keys::none());
        }
        self.unlock_at(&[what], files)
    }

    /// Does what may need a key: without one first, unless a file with a secret is given; where
    /// something is locked, the user is asked, and it is done again. So `work` writes nothing
    /// before it has opened everything.
    ///
    /// # Errors
    /// Those of `work` and [`Session::unlock`].
    pub fn with_keys<T>(
        &self,
        what: &[&Path],
        files: &SecretFiles,
        work: impl Fn(&Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let keys = if files.is_empty() { Keys::none() } else { self.unlock_at(what, files)? };
        match work(&keys) {
            Err(failure) if failure.verdict.code == LOCKED && files.is_empty() && !self.json => {
                work(&self.unlock_at(what, files)?)
            }
            done => done,
        }
    }

    fn unlock_at(&self, what: &[&Path], files: &SecretFiles) -> Result<Keys, Failure> {
        let mut chains: Vec<KeyedChain> = Vec::new();
        for what in what {
            let found = locate_chains(what, self.job())?.1.chains;
            chains.extend(found);
        }
        if chains.is_empty() {
            return Err(ImageError::NotKeyed.into());
        }
        let keys = self.unlock(&chains, files)?.keys();
        // Whoever gives a key for an image expects one that has it. A folder may hold others, too.
        let is_folder = what.iter().any(|what| what.is_dir());
        Ok(if is_folder { keys } else { keys.required() })
    }
}

/// The work of one attempt is bounded over all chains.
fn try_all(chains: &[KeyedChain], credential: Credential) -> Result<Unlocked, Error> {
    let mut work = Work::new();
    let mut failed = None;
    let mut opened = Vec::new();
    for chain in chains {
        match chain.open(&credential, &mut work) {
            Ok(one) => opened.push(one),
            Err(error) => failed = worse(failed, error),
        }
    }
    if opened.is_empty() {
        let kind = credential.kind();
        return Err(failed.unwrap_or(Error::WrongKey { kind, slots: 0 }));
    }
    Ok(Unlocked { credential, opened })
}

/// The error that says most: one of the files, then one about slots that were tried.
fn worse(before: Option<Error>, now: Error) -> Option<Error> {
    match before {
        None | Some(Error::WrongKey { slots: 0, .. }) => Some(now),
        Some(Error::WrongKey { .. }) if !matches!(now, Error::WrongKey { .. }) => Some(now),
        before => before,
    }
}
