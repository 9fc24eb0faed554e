//! Opens what is locked: asks for what opens it, as often as people mistype it.

use std::path::Path;

use aiv_chain::{KeyedChain, locate_chains};
use aiv_image_format::Error as ImageError;
use aiv_keys::{Credential, Error, Keys, Opened, SlotKind, Work};
use aiv_report::{Failure, LOCKED, SEALED, keys, words};

use crate::secrets::{SecretFiles, keep_to_ourselves};
use crate::session::Session;

/// How often somebody may mistype a passphrase.
pub(crate) const TRIES: u32 = 3;

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
        self.unlock_given(chains, files.read()?)
    }

    fn unlock_given(
        &self,
        chains: &[KeyedChain],
        given: Option<Credential>,
    ) -> Result<Unlocked, Failure> {
        if let Some(credential) = given {
            return self.try_all(chains, credential)?.map_err(in_file);
        }
        let mut tries = 1;
        loop {
            let credential = Credential::Passphrase(self.ask_passphrase()?);
            match self.try_all(chains, credential)? {
                Err(Error::WrongKey { slots: 1.., .. }) if tries < TRIES => {
                    self.say("That is not it. Once more.");
                    tries += 1;
                }
                tried => return Ok(tried?),
            }
        }
    }

    /// As [`Session::unlock`], with what the user gave elsewhere than on the terminal.
    ///
    /// # Errors
    /// When it opens none of them; nothing was changed.
    pub fn unlock_with(
        &self,
        chains: &[KeyedChain],
        credential: Credential,
    ) -> Result<Unlocked, Failure> {
        keep_to_ourselves();
        Ok(self.try_all(chains, credential)??)
    }

    /// As [`Session::unlock`], for a backup: what a file holds may also be for a new chain, and
    /// open none. Whether it may is settled where the chain of the source is known.
    pub(crate) fn unlock_or_new(
        &self,
        chains: &[KeyedChain],
        files: &SecretFiles,
    ) -> Result<Unlocked, Failure> {
        let Some(given) = files.read_noting()? else { return self.unlock_given(chains, None) };
        if let (Credential::PaperKey(_), Some(why)) = (&given.credential, &given.not_new) {
            return Err(why.clone());
        }
        match self.try_all(chains, given.credential.clone())? {
            Err(Error::WrongKey { .. }) => {
                Ok(Unlocked { credential: given.for_new()?, opened: Vec::new() })
            }
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
        self.with_keys_of(files, || self.unlock_at(what, files), work)
    }

    /// As [`Session::with_keys`], for what is salvaged: `chains` finds the ways to the keys of
    /// damaged files.
    ///
    /// # Errors
    /// Those of `work`, `chains` and [`Session::unlock`].
    pub fn with_salvage_keys<T>(
        &self,
        files: &SecretFiles,
        chains: impl Fn() -> Result<Vec<KeyedChain>, Failure>,
        work: impl Fn(&Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // Whoever gives a key for files expects that they have it.
        let unlock = || match files.read()? {
            // Whether it is the right one is told by what is left of them: they need not have slots.
            Some(Credential::PaperKey(paper)) => Ok(Keys::of(paper.key().clone()).required()),
            given => match chains()? {
                chains if chains.is_empty() => Err(ImageError::NotKeyed.into()),
                chains => Ok(self.unlock_given(&chains, given)?.keys().required()),
            },
        };
        self.with_keys_of(files, unlock, work)
    }

    fn with_keys_of<T>(
        &self,
        files: &SecretFiles,
        unlock: impl Fn() -> Result<Keys, Failure>,
        work: impl Fn(&Keys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let keys = if files.is_empty() { Keys::none() } else { unlock()? };
        match work(&keys) {
            Err(failure) if is_locked(&failure) && files.is_empty() && !self.json => {
                work(&unlock()?)
            }
            done => done,
        }
    }

    fn unlock_at(&self, what: &[&Path], files: &SecretFiles) -> Result<Keys, Failure> {
        let mut chains: Vec<KeyedChain> = Vec::new();
        let mut failed = None;
        for what in what {
            match locate_chains(what, self.job()) {
                Ok((_, found)) => {
                    // Of a folder: a file says for itself what is wrong with it.
                    let unsure = found.unsure.first().filter(|_| what.is_dir());
                    if let Some((file, why)) = unsure.filter(|_| found.chains.is_empty()) {
                        failed = failed.or(Some(keys::not_looked_into(file, why)));
                    }
                    chains.extend(found.chains);
                }
                // One of several may be a disk that is no image: whoever opens it says more.
                Err(error) => failed = failed.or(Some(error.into())),
            }
        }
        if chains.is_empty() {
            return Err(failed.unwrap_or_else(|| ImageError::NotKeyed.into()));
        }
        let keys = self.unlock(&chains, files)?.keys();
        // Whoever gives a key for an image expects one that has it. A folder may hold others, too.
        let is_folder = what.iter().any(|what| what.is_dir());
        Ok(if is_folder { keys } else { keys.required() })
    }

    /// Tries every chain. Each has its own bound of work, so that none is left out because others
    /// were tried before it; between two of them the user can stop it. What a chain asked too much
    /// for, or is wrong with it, is said where another one opens.
    fn try_all(
        &self,
        chains: &[KeyedChain],
        credential: Credential,
    ) -> Result<Result<Unlocked, Error>, Failure> {
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for chain in chains {
            self.job().check()?;
            match chain.open(&credential, &mut Work::new()) {
                Ok(one) => {
                    if one.through.is_none() && chain.areas().is_empty() {
                        self.say(&keys::without_slots(chain));
                    }
                    opened.push(one);
                }
                Err(error) => failed.push((chain.commitment, error)),
            }
        }
        if opened.is_empty() {
            let none = match credential.kind() {
                Some(kind) => Error::WrongKey { kind, slots: 0 },
                None => Error::OtherChain,
            };
            let failed = failed.into_iter().fold(None, |worst, (_, error)| worse(worst, error));
            return Ok(Err(failed.unwrap_or(none)));
        }
        for (key, error) in failed {
            if !matches!(error, Error::WrongKey { .. } | Error::OtherChain) {
                self.say(&format!("warning: key {} was not opened: {error}", words::short(key)));
            }
        }
        Ok(Ok(Unlocked { credential, opened }))
    }
}

/// Whether a key would help.
fn is_locked(failure: &Failure) -> bool {
    [LOCKED, SEALED].contains(&failure.verdict.code)
}

/// The failure of what a file holds: other hints than where somebody types.
fn in_file(error: Error) -> Failure {
    let is_passphrase = matches!(error, Error::WrongKey { kind: SlotKind::Passphrase, .. });
    let mut failure = Failure::of(&error);
    if is_passphrase {
        failure.verdict.hint = "nothing was changed; the passphrase is the first line of the file, \
                                with every space in it; or use another way in: a key file or the \
                                recovery code";
    }
    failure
}

/// The error that says most: one of the files, then one about slots that were tried.
fn worse(before: Option<Error>, now: Error) -> Option<Error> {
    match before {
        None | Some(Error::WrongKey { slots: 0, .. }) => Some(now),
        Some(Error::WrongKey { .. }) if !matches!(now, Error::WrongKey { .. }) => Some(now),
        before => before,
    }
}

#[cfg(test)]
mod tests {
    use aiv_chain::keyed_chains;
    use aiv_jobs::{BackupJob, Hooks, NewKey, OpenOptions, SealJob};
    use aiv_keys::Passphrase;
    use aiv_volume_io::DirStorage;

    use super::*;

    #[test]
    fn a_passphrase_opens_more_chains_than_the_work_for_one_would_do_for() {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::new(false, true);
        let credential = Credential::Passphrase(Passphrase::new("correct horse").unwrap());
        let seal = SealJob {
            mode: None,
            padding: false,
            opened: Vec::new(),
            begun: Vec::new(),
            new: NewKey::Credential(credential.clone()),
            recovery_code: None,
        };
        let job = BackupJob {
            name: None,
            source_id: None,
            open: OpenOptions::default(),
            marks: Vec::new(),
            options: aiv_backup_engine::BackupOptions::default(),
            rate_limit: None,
            still: None,
            hooks: Hooks::default(),
            seal: Some(seal),
        };
        let (disk, images) = (folder.path().join("disk"), folder.path().join("images"));
        std::fs::write(&disk, [7; 8192]).unwrap();
        job.run(&[disk], &images, &session, session.job()).unwrap();
        let storage = DirStorage::open(&images).unwrap();
        let one = keyed_chains(&storage, session.job()).unwrap().chains.remove(0);
        let cost = one.areas()[0].slots().find_map(|(_, slot)| slot.cost()).unwrap();
        let enough = usize::try_from(Work::MAX_KIB_PASSES / cost.kib_passes()).unwrap() + 1;
        let many = vec![one; enough];
        let unlocked = session.try_all(&many, credential).unwrap().unwrap();
        assert_eq!(unlocked.opened.len(), enough);
        let wrong = Credential::Passphrase(Passphrase::new("battery").unwrap());
        let refused = session.unlock_with(&many[..1], wrong.clone()).unwrap_err();
        assert_eq!(refused.verdict.code, "wrong_key");
        let error = session.try_all(&many[..1], wrong).unwrap().unwrap_err();
        assert!(in_file(error).verdict.hint.contains("first line"));
    }
}
