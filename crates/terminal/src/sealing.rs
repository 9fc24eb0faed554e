//! What a backup is sealed with, from words to secrets.

use std::path::{Path, PathBuf};

use aiv_backup_engine::Mode;
use aiv_chain::{KeyedChains, locate_chains, unfinished_chains};
use aiv_jobs::{NewKey, SealJob};
use aiv_keys::Credential;
use aiv_report::Failure;

use crate::code::{Sheet, new_code};
use crate::folders::open_folder;
use crate::secrets::{SecretFiles, recipient_in};
use crate::session::Session;

/// How the images of a backup are protected.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SealArgs {
    /// Encrypt and authenticate: nobody reads or forges the images without the passphrase or key
    #[arg(long, group = "protection")]
    pub seal: bool,
    /// Authenticate only: everybody can read the images, and nobody can forge them
    #[arg(long, group = "protection")]
    pub authenticate: bool,
    /// Round sizes up, by at most 12 %, so that they tell less about contents
    #[arg(long, requires = "protection")]
    pub pad_sizes: bool,
    /// Seal to the holder of this public key, full images only: this machine cannot read them
    #[arg(long, value_name = "KEY|FILE", groups = ["protection", "secret"])]
    #[arg(conflicts_with_all = ["incremental", "differential"])]
    pub recipient: Option<PathBuf>,
    /// Write a recovery code into this new file, for a source that gets its first key
    #[arg(long, value_name = "FILE", requires = "protection")]
    pub recovery_code_out: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a help text would replace those of its parts")]
    pub unlock: SecretFiles,
}

/// What is sealed how, and the recovery code on its way.
pub struct Sealing {
    /// For the backup.
    pub job: SealJob,
    /// Whether no image may build on another one: nobody here can read them.
    pub full_only: bool,
    sheet: Option<Sheet>,
}

impl SealArgs {
    /// What the words ask for; `None` when nothing is to have a key. Secrets are read, or asked
    /// for, here and now.
    ///
    /// # Errors
    /// When a secret cannot be had, or does not open what is there.
    pub fn sealing(&self, session: &Session, to: &Path) -> Result<Option<Sealing>, Failure> {
        let wanted = self.seal || self.authenticate || self.recipient.is_some();
        if !wanted && self.unlock.is_empty() {
            return Ok(None);
        }
        let (new, opened) = match &self.recipient {
            Some(recipient) => (NewKey::Recipient(recipient_in(recipient)?), Vec::new()),
            None => self.secret(session, to)?,
        };
        let begun = match &new {
            NewKey::Credential(credential) if to.is_dir() => {
                let left = unfinished_chains(&open_folder(to)?, session.job())?;
                SealJob::begun(credential, &left)
            }
            _ => Vec::new(),
        };
        let (code, sheet) = match &self.recovery_code_out {
            None => (None, None),
            Some(file) => {
                let (code, sheet) = new_code(session, to, Some(file))?;
                (Some(code), Some(sheet))
            }
        };
        let is_sealed = self.seal || self.recipient.is_some();
        let mode = match (self.authenticate, is_sealed) {
            (true, _) => Some(Mode::Authenticated),
            (false, true) => Some(Mode::Sealed),
            (false, false) => None,
        };
        let (padding, recovery_code) = (self.pad_sizes, code);
        let job = SealJob { mode, padding, opened, begun, new, recovery_code };
        Ok(Some(Sealing { job, full_only: self.recipient.is_some(), sheet }))
    }

    fn secret(
        &self,
        session: &Session,
        to: &Path,
    ) -> Result<(NewKey, Vec<(aiv_keys::ChainKey, bool)>), Failure> {
        let found =
            if to.is_dir() { locate_chains(to, session.job())?.1 } else { KeyedChains::default() };
        if found.chains.is_empty() {
            let credential = match self.unlock.read_new()? {
                Some(credential) => credential,
                None => Credential::Passphrase(session.ask_new_passphrase(
                    "name a file with --password-file or --key-file, or a key with --recipient",
                )?),
            };
            return Ok((NewKey::Credential(credential), Vec::new()));
        }
        let unlocked = session.unlock_or_new(&found.chains, &self.unlock)?;
        let opened = SealJob::chains(&unlocked.opened, &found.chains);
        Ok((NewKey::Credential(unlocked.credential), opened))
    }
}

impl Sealing {
    /// Settles the recovery code: the file stays where a new key has it. `begun` is whether an
    /// image is the first with its key, where there are images.
    pub fn settle(self, session: &Session, begun: Option<bool>) {
        match self.sheet {
            Some(sheet) if begun.is_none() => sheet.give_up(),
            Some(sheet) if begun == Some(false) => {
                sheet.give_up();
                session.say(
                    "note: the source has a key already, so there is no recovery code in that file; \
                     `aiv key recovery-code` adds one",
                );
            }
            None if begun == Some(true) && !self.full_only => session.say(
                "note: whoever loses the passphrase or key loses the images; \
                 `aiv key recovery-code` makes a second way in, for paper",
            ),
            _ => {}
        }
    }
}
