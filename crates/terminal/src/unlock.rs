//! Opens what is locked: asks for what opens it, as often as people mistype it.

use aiv_chain::{KeyedChain, KeyedChains};
use aiv_keys::{Credential, Error, Keys, Opened, Work};
use aiv_report::Failure;

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
    /// The keys, for readers that then refuse images without one.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let mut keys = Keys::none();
        self.opened.iter().for_each(|opened| keys.add(opened.key.clone()));
        keys.required()
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

    /// The keys of a folder, where the user wants to or has to give them.
    ///
    /// # Errors
    /// As [`Session::unlock`].
    pub fn keys_of(&self, found: &KeyedChains, files: &SecretFiles) -> Result<Keys, Failure> {
        Ok(self.unlock(&found.chains, files)?.keys())
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
