//! Where secrets come from: a terminal that does not show them, or files. Never the command line
//! or the environment, which others can read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aiv_keys::{Credential, KeyFile, Passphrase, RecoveryCode};
use aiv_report::{Exit, Failure, Verdict};
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::session::Session;
use crate::tty;

/// Which secret is meant, and where it is. At most one of these is given.
#[derive(Debug, Clone, Default)]
pub struct SecretFiles {
    /// A file whose first line is the passphrase; `-` is standard input.
    pub password: Option<PathBuf>,
    /// A file whose content is the key, or that holds the secret key of a recipient.
    pub key: Option<PathBuf>,
    /// A file with the recovery code in it.
    pub recovery_code: Option<PathBuf>,
}

impl SecretFiles {
    /// Whether the user has to be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.key.is_none() && self.recovery_code.is_none()
    }

    /// What the file holds; `None` when no file was named.
    ///
    /// # Errors
    /// When it cannot be read, or holds nothing of that kind.
    pub fn read(&self) -> Result<Option<Credential>, Failure> {
        keep_to_ourselves();
        if let Some(path) = &self.password {
            let line = if path == Path::new("-") {
                tty::read_line(&mut io::stdin().lock())
            } else {
                File::open(path).and_then(|mut file| tty::read_line(&mut file))
            };
            let line = line.map_err(cannot_read(path))?;
            return Ok(Some(Credential::Passphrase(Passphrase::new(&line)?)));
        }
        if let Some(path) = &self.key {
            let content = read_small(path)?;
            return Ok(Some(Credential::from_key_file(&content)?));
        }
        let Some(path) = &self.recovery_code else { return Ok(None) };
        let content = read_small(path)?;
        let text = String::from_utf8_lossy(&content);
        Ok(Some(Credential::RecoveryCode(RecoveryCode::parse(&text)?)))
    }
}

impl Session {
    /// Asks for a passphrase that exists.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub fn ask_passphrase(&self, prompt: &str) -> Result<Passphrase, Failure> {
        let line = self.ask_secret(prompt)?;
        Ok(Passphrase::new(&line)?)
    }

    /// Asks for a new passphrase, twice.
    ///
    /// # Errors
    /// When nobody can be asked, or the two differ.
    pub fn ask_new_passphrase(&self) -> Result<Passphrase, Failure> {
        let first = self.ask_passphrase("New passphrase: ")?;
        let second = self.ask_passphrase("The same once more: ")?;
        if first == second {
            return Ok(first);
        }
        let hint = "run it again; nothing was changed";
        let verdict = Verdict { code: "not_confirmed", exit: Exit::Refused, hint };
        Err(Failure::new(verdict, "the two passphrases are not the same"))
    }

    fn ask_secret(&self, prompt: &str) -> Result<Zeroizing<String>, Failure> {
        keep_to_ourselves();
        let nobody = || {
            let hint = "name a file with --password-file, --key-file or --recovery-code-file";
            let verdict = Verdict { code: "no_secret", exit: Exit::Locked, hint };
            Failure::new(verdict, "a passphrase is needed, and nobody can be asked for it")
        };
        if self.json {
            return Err(nobody());
        }
        self.asking(|| tty::ask(prompt)).map_err(|_| nobody())
    }
}

/// Reads a file that is no larger than a key file may be.
fn read_small(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let limit = KeyFile::SIZE_MAX + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(limit + 1));
    File::open(path)
        .and_then(|file| file.take(limit as u64).read_to_end(&mut content))
        .map_err(cannot_read(path))?;
    Ok(content)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    Failure::io(format!("cannot read a secret from {}", path.display()))
}

/// Writes no memory of this process to a disk from now on: a core dump would hold the keys, and
/// debuggers of other users may not look.
fn keep_to_ourselves() {
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(0);
    limit.maximum = Some(0);
    // Where a system does not know one of them, the other is left.
    let _ = setrlimit(Resource::Core, limit);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_keys::{RecipientSecret, SlotKind};

    fn kind_of(files: &SecretFiles) -> Result<Option<SlotKind>, Failure> {
        files.read().map(|found| found.map(|credential| credential.kind()))
    }

    #[test]
    fn secrets_are_read_from_files_and_core_dumps_are_off_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let code = RecoveryCode::new([7; 20]).text();
        let secret = RecipientSecret::new([8; 32]).file_text();
        for (content, files, kind) in [
            (
                "correct horse\nanything",
                SecretFiles { password: Some(path.clone()), ..SecretFiles::default() },
                SlotKind::Passphrase,
            ),
            (
                "any content of a file, if it is long enough",
                SecretFiles { key: Some(path.clone()), ..SecretFiles::default() },
                SlotKind::KeyFile,
            ),
            (
                secret.as_str(),
                SecretFiles { key: Some(path.clone()), ..SecretFiles::default() },
                SlotKind::Recipient,
            ),
            (
                code.as_str(),
                SecretFiles { recovery_code: Some(path.clone()), ..SecretFiles::default() },
                SlotKind::RecoveryCode,
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(kind_of(&files), Ok(Some(kind)));
        }
        assert_eq!(kind_of(&SecretFiles::default()), Ok(None));
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }

    #[test]
    fn a_file_that_is_missing_too_small_or_too_large_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let files = SecretFiles { key: Some(path.clone()), ..SecretFiles::default() };
        assert!(kind_of(&files).unwrap_err().message.contains("secret"));
        for len in [0, 31, 65_537, 1 << 20] {
            std::fs::write(&path, vec![7; len]).unwrap();
            assert!(kind_of(&files).unwrap_err().message.contains("key file"), "{len}");
        }
    }
}
