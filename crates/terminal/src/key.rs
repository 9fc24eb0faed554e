//! The command `key`: who can open sealed images. It is about secrets alone, so its words stand
//! beside those for the files they come from.

use std::path::PathBuf;

use aiv_chain::{KeyedChain, KeyedChains, locate_chains};
use aiv_jobs::{KeyChange, NewKey, change_keys};
use aiv_keys::{Credential, Opened, PaperKey, RecipientSecret};
use aiv_report::{Failure, Outcome, keys};
use aiv_volume_io::DirStorage;

use crate::code::{new_code, show_paper};
use crate::secrets::{NewSecretFiles, SecretFiles, write_secret};
use crate::session::{Session, random};

/// The verbs of `aiv key`.
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// List what opens the images of a folder, or of the chain of an image
    #[command(after_help = "Examples:\n  aiv key list /mnt/backup\n  aiv key list disk.aiv --json")]
    List {
        /// An image, or a folder
        #[arg(value_name = "IMAGE|DIR")]
        what: PathBuf,
    },
    /// Add a passphrase, a key file or a recipient; what opened the images before still does
    #[command(after_help = "\
Examples:
  aiv key add /mnt/backup --label 'the other admin'
  aiv key add /mnt/backup --new-key-file /media/usb/key --password-file pass")]
    Add {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        new: NewSecretFiles,
    },
    /// Replace the passphrase or key that the images were opened with
    ///
    /// Copies of the images elsewhere are not changed: the old one opens them still.
    #[command(after_help = "\
Examples:
  aiv key change /mnt/backup
  aiv key change /mnt/backup --recovery-code-file sheet.txt --new-password-file pass")]
    Change {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        new: NewSecretFiles,
    },
    /// Remove a slot by its number; the last one stays
    #[command(after_help = "\
Examples:
  aiv key remove disk.aiv --slot 2
  aiv key remove /mnt/backup --slot 3 --key-file /media/usb/key")]
    Remove {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
        /// Its number, as `aiv key list` shows it
        #[arg(long, value_name = "N")]
        slot: u8,
    },
    /// Add a recovery code, and show it once: for paper
    #[command(after_help = "\
Examples:
  aiv key recovery-code /mnt/backup | lp
  aiv key recovery-code /mnt/backup --out /media/usb/sheet.txt")]
    RecoveryCode {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
        /// Write it into this new file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// What to call the new slot
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        label: String,
    },
    /// Show the key of the chain itself, for paper: it needs no key slot
    ///
    /// It opens what is left of any image of the chain, be it one segment from the middle of a split
    /// image. Nothing takes it back: whoever has it can read and change all images of this key, those
    /// to come too, until `aiv key rotate`. It is given with --recovery-code-file.
    #[command(after_help = "\
Examples:
  aiv key paper-key /mnt/backup | lp
  aiv key paper-key /mnt/backup --out /media/usb/sheet.txt
  aiv salvage disk.aiv.p002 --list --recovery-code-file sheet.txt")]
    PaperKey {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
        /// Write it into this new file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Retire the key of the chain: the next backup is full, and gets a key of its own
    ///
    /// Images that exist stay as they are: whoever knows their key, or had a copy of them and its
    /// passphrase, can read them still.
    #[command(after_help = "\
Examples:
  aiv key rotate /mnt/backup
  aiv key rotate /mnt/backup --password-file pass")]
    Rotate {
        #[command(flatten)]
        #[expect(missing_docs, reason = "a help text would replace those of its parts")]
        chain: ChainArgs,
    },
    /// Make a key pair for machines that write backups they cannot read
    #[command(after_help = "\
Examples:
  aiv key new-recipient --to recipient.key
  aiv key new-recipient --to /media/usb/recipient.key --json")]
    NewRecipient {
        /// New file for the secret key
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

/// Which images, and what opens them.
#[derive(Debug, clap::Args)]
pub struct ChainArgs {
    /// An image, for the images of its chain in the same folder, or a folder
    #[arg(value_name = "IMAGE|DIR")]
    pub what: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a help text would replace those of its parts")]
    pub unlock: SecretFiles,
}

impl KeyCommand {
    /// Does it.
    ///
    /// # Errors
    /// What kept it from being done; nothing was changed then, unless the failure says so.
    pub fn run(self, session: &Session) -> Result<Outcome, Failure> {
        match self {
            Self::List { what } => {
                let (_, found) = locate_chains(&what, session.job())?;
                Ok(keys::key_list(&what, &found))
            }
            Self::Add { chain, new } => {
                let label = new.label.clone();
                change(&chain, "one slot more", &label, session, |s| {
                    Ok(KeyChange::Add(new.read(s)?))
                })
            }
            Self::Change { chain, new } => {
                let label = new.label.clone();
                let replace = |s: &Session| Ok(KeyChange::Replace(new.read(s)?));
                change(&chain, "another key in the slot", &label, session, replace)
            }
            Self::Remove { chain, slot } => {
                change(&chain, "one slot less", "", session, |_| Ok(KeyChange::Remove(slot)))
            }
            Self::Rotate { chain } => {
                change(&chain, "retired", "", session, |_| Ok(KeyChange::Retire))
            }
            Self::RecoveryCode { chain, out, label } => {
                let (code, sheet) = new_code(session, &chain.what, out.as_deref())?;
                let new = NewKey::Credential(Credential::RecoveryCode(code));
                let mut is_shown = out.is_some();
                let add = |_: &Session| {
                    sheet.show()?;
                    is_shown = true;
                    Ok(KeyChange::Add(new))
                };
                let done = change(&chain, "one recovery code more", &label, session, add);
                if is_shown { sheet.after(done) } else { done }
            }
            Self::PaperKey { chain, out } => {
                let ((_, found), opened) = open(&chain, session)?;
                let [one] = &opened[..] else { return Err(keys::paper_of_many(&chain.what)) };
                let paper = PaperKey::new(one.key.clone());
                let is_its = |it: &&KeyedChain| it.commitment.0 == paper.key().commitment();
                let Some(its) = found.chains.iter().find(is_its) else {
                    return Err(keys::no_chain(&chain.what, &found));
                };
                if found.chains.len() > 1 {
                    let others = found.chains.len() - 1;
                    session
                        .say(&format!("note: {others} other keys there have sheets of their own"));
                }
                show_paper(&paper, its, &chain.what, out.as_deref(), session)
            }
            Self::NewRecipient { to } => {
                let secret = RecipientSecret::new(random()?);
                write_secret(&to, &secret.file_text())?;
                Ok(keys::new_recipient(&to, &secret.public()))
            }
        }
    }
}

fn change(
    chain: &ChainArgs,
    done: &str,
    label: &str,
    session: &Session,
    ask: impl FnOnce(&Session) -> Result<KeyChange, Failure>,
) -> Result<Outcome, Failure> {
    let ((storage, found), opened) = open(chain, session)?;
    let change = ask(session)?;
    let changes = change_keys(&storage, &opened, &change, label, session, session.job())?;
    keys::key_change(&chain.what, done, changes, &found)
}

/// The images, and those of their chains that what the user has opens.
fn open(chain: &ChainArgs, session: &Session) -> Result<(Located, Vec<Opened>), Failure> {
    let located = locate_chains(&chain.what, session.job())?;
    if located.1.chains.is_empty() {
        return Err(keys::no_chain(&chain.what, &located.1));
    }
    let opened = session.unlock(&located.1.chains, &chain.unlock)?.opened;
    Ok((located, opened))
}

type Located = (DirStorage, KeyedChains);
