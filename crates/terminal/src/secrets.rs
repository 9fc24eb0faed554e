//! Where secrets come from: a terminal that does not show them, or files. Never the command line
//! or the environment, which others can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aiv_jobs::NewKey;
use aiv_keys::{Credential, KeyFile, Passphrase, RecipientKey};
use aiv_report::{Exit, Failure, Verdict, keys, words};
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::session::Session;
use crate::tty;

/// Where the secret is that opens sealed images. Without any of these the user is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SecretFiles {
    /// File whose first line is the passphrase; - for standard input
    #[arg(long, value_name = "FILE", group = "secret")]
    pub password_file: Option<PathBuf>,
    /// Key file, or the file with the secret key of a recipient
    #[arg(long, value_name = "FILE", group = "secret")]
    pub key_file: Option<PathBuf>,
    /// File with the recovery code, or with the paper key
    #[arg(long, value_name = "FILE", group = "secret")]
    pub recovery_code_file: Option<PathBuf>,
}

/// Where a new secret is. Without any of these the user is asked for a passphrase, twice.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NewSecretFiles {
    /// File whose first line is the new passphrase; - for standard input
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_password_file: Option<PathBuf>,
    /// New key file: any file of 32 bytes to 64 KiB that nobody else has
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_key_file: Option<PathBuf>,
    /// Public key of a recipient, or the file it is in
    #[arg(long, value_name = "KEY|FILE", group = "new")]
    pub new_recipient: Option<PathBuf>,
    /// What to call the new slot
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub label: String,
}

impl NewSecretFiles {
    /// What the file holds, or what the user types.
    ///
    /// # Errors
    /// When it cannot be read, holds nothing of that kind, or nobody can be asked.
    pub fn read(self, session: &Session) -> Result<NewKey, Failure> {
        if let Some(recipient) = &self.new_recipient {
            return Ok(NewKey::Recipient(recipient_in(recipient)?));
        }
        let Self { new_password_file: password_file, new_key_file: key_file, .. } = self;
        let files = SecretFiles { password_file, key_file, recovery_code_file: None };
        Ok(NewKey::Credential(match files.read_new()? {
            Some(credential) => credential,
            None => Credential::Passphrase(session.ask_new_passphrase(
                "name a file with --new-password-file or --new-key-file, or a key with \
                 --new-recipient",
            )?),
        }))
    }
}

/// A public key, given as such or as the file it is in.
///
/// # Errors
/// When it is neither.
pub fn recipient_in(word: &Path) -> Result<RecipientKey, Failure> {
    if let Some(text) = word.to_str().filter(|text| RecipientKey::is_text(text)) {
        return Ok(RecipientKey::parse(text)?);
    }
    let content = read_small(word)?;
    RecipientKey::parse(&String::from_utf8_lossy(&content)).map_err(in_file(word))
}

/// Writes a secret into a new file that only its owner can read.
///
/// # Errors
/// When the file exists already, or cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    keep_to_ourselves();
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    created
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(Failure::io(format!("cannot write a secret to {}", path.display())))
}

impl SecretFiles {
    /// Whether the user has to be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.password_file.is_none() && self.key_file.is_none() && self.recovery_code_file.is_none()
    }

    /// What the file holds; `None` when no file was named.
    ///
    /// # Errors
    /// When it cannot be read, or holds nothing of that kind.
    pub fn read(&self) -> Result<Option<Credential>, Failure> {
        Ok(self.read_noting()?.map(|given| given.credential))
    }

    /// What the file holds, to become a way in.
    ///
    /// # Errors
    /// As [`SecretFiles::read`], and for what opens images that exist and must open no others.
    pub(crate) fn read_new(&self) -> Result<Option<Credential>, Failure> {
        self.read_noting()?.map(Given::for_new).transpose()
    }

    pub(crate) fn read_noting(&self) -> Result<Option<Given>, Failure> {
        keep_to_ourselves();
        let given = |credential, text: &str, path| {
            let not_new = is_sheet(text).then(|| not_a_sheet(path));
            Ok(Some(Given { credential, not_new }))
        };
        if let Some(path) = &self.password_file {
            let line = read_first_line(path)?;
            let passphrase = Passphrase::new(&line).map_err(in_file(path))?;
            return given(Credential::Passphrase(passphrase), &line, path);
        }
        if let Some(path) = &self.key_file {
            let content = read_small(path)?;
            let found = Credential::from_key_file(&content).map_err(in_file(path))?;
            let text = match found {
                Credential::KeyFile(_) => std::str::from_utf8(&content).unwrap_or_default(),
                _ => "",
            };
            return given(found, text, path);
        }
        let Some(path) = &self.recovery_code_file else { return Ok(None) };
        let content = read_small(path)?;
        let text = Zeroizing::new(String::from_utf8_lossy(&content).into_owned());
        let credential = Credential::from_paper(&text).map_err(in_file(path))?;
        let not_new = credential.kind().is_none().then(keys::paper_in_backup);
        Ok(Some(Given { credential, not_new }))
    }
}

/// What somebody gave.
pub(crate) struct Given {
    pub credential: Credential,
    /// Why it can open nothing that is made from now on. What it opened before it opens still.
    pub not_new: Option<Failure>,
}

impl Given {
    pub(crate) fn for_new(self) -> Result<Credential, Failure> {
        self.not_new.map_or(Ok(self.credential), Err)
    }
}

impl Session {
    /// Asks for a passphrase that exists.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub fn ask_passphrase(&self) -> Result<Passphrase, Failure> {
        let hint = "name a file with --password-file, --key-file or --recovery-code-file";
        Ok(Passphrase::new(&self.ask_secret("Passphrase: ", hint)?)?)
    }

    /// Asks for a new passphrase, twice. `hint` says what to do where nobody can be asked.
    ///
    /// # Errors
    /// When nobody can be asked, or the two differ.
    pub fn ask_new_passphrase(&self, hint: &'static str) -> Result<Passphrase, Failure> {
        let first = Passphrase::new(&self.ask_secret("New passphrase: ", hint)?)?;
        let second = Passphrase::new(&self.ask_secret("The same once more: ", hint)?)?;
        if first == second {
            return Ok(first);
        }
        let hint = "run it again; nothing was changed";
        let verdict = Verdict { code: "not_confirmed", exit: Exit::Refused, hint };
        Err(Failure::new(verdict, "the two passphrases are not the same"))
    }

    pub(crate) fn ask_secret(
        &self,
        prompt: &str,
        hint: &'static str,
    ) -> Result<Zeroizing<String>, Failure> {
        keep_to_ourselves();
        let nobody = || {
            let verdict = Verdict { code: "no_secret", exit: Exit::Locked, hint };
            Failure::new(verdict, "a passphrase is needed, and nobody can be asked for it")
        };
        if self.json {
            return Err(nobody());
        }
        self.asking(|| tty::ask(prompt)).map_err(|_| nobody())
    }
}

/// The first line of a file; `-` is standard input.
pub(crate) fn read_first_line(path: &Path) -> Result<Zeroizing<String>, Failure> {
    keep_to_ourselves();
    let line = if path == Path::new("-") {
        tty::read_line(&mut io::stdin().lock())
    } else {
        File::open(path).and_then(|mut file| tty::read_line(&mut file))
    };
    line.map_err(cannot_read(path))
}

/// Reads a file that is no larger than a key file may be.
fn read_small(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let limit = KeyFile::SIZE_MAX + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(limit + 1));
    let read = File::open(path).and_then(|file| file.take(limit as u64).read_to_end(&mut content));
    if read.is_err() && words::is_secret_key(&path.to_string_lossy()) {
        let hint = "others may have seen it: make another one (`aiv key new-recipient`, `aiv key \
                    recovery-code`; in place of a paper key `aiv key rotate`), keep it in a file, and \
                    name that";
        let verdict = Verdict { code: "secret_in_words", exit: Exit::Usage, hint };
        return Err(Failure::new(verdict, "a secret must not stand on the command line"));
    }
    read.map_err(cannot_read(path))?;
    Ok(content)
}

/// A sheet with a recovery code or a paper key is no passphrase to choose, whose first line everybody
/// could guess, and no key file.
fn is_sheet(text: &str) -> bool {
    text.starts_with("# Aivory ") || Credential::from_paper(text).is_ok()
}

fn not_a_sheet(path: &Path) -> Failure {
    let hint = "name it with --recovery-code-file; a new way in has to be something else";
    let verdict = Verdict { code: "unusable_key", exit: Exit::Refused, hint };
    Failure::new(verdict, format!("{} holds a recovery code or a paper key", path.display()))
}

/// What is wrong with the content of a file.
fn in_file(path: &Path) -> impl FnOnce(aiv_keys::Error) -> Failure {
    move |error| Failure::of(&error).about(path.display())
}

pub(crate) fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    Failure::io(format!("cannot read a secret from {}", path.display()))
}

/// Writes no memory of this process to a disk from now on: a core dump would hold the keys, and
/// debuggers of other users may not look.
pub(crate) fn keep_to_ourselves() {
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
    use aiv_keys::{ChainKey, PaperKey, RecipientSecret, RecoveryCode, SlotKind};

    /// What opens slots of which kind; a paper key opens none.
    fn kind_of(files: &SecretFiles) -> Result<Option<Option<SlotKind>>, Failure> {
        files.read().map(|found| found.map(|credential| credential.kind()))
    }

    #[test]
    fn secrets_are_read_from_files_and_core_dumps_are_off_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let code = RecoveryCode::new([7; 20]).text();
        let secret = RecipientSecret::new([8; 32]).file_text();
        let paper = PaperKey::new(ChainKey::new([9; 32])).text();
        for (content, files, kind) in [
            (
                "correct horse\nanything",
                SecretFiles { password_file: Some(path.clone()), ..SecretFiles::default() },
                Some(SlotKind::Passphrase),
            ),
            (
                "any content of a file, if it is long enough",
                SecretFiles { key_file: Some(path.clone()), ..SecretFiles::default() },
                Some(SlotKind::KeyFile),
            ),
            (
                secret.as_str(),
                SecretFiles { key_file: Some(path.clone()), ..SecretFiles::default() },
                Some(SlotKind::Recipient),
            ),
            (
                code.as_str(),
                SecretFiles { recovery_code_file: Some(path.clone()), ..SecretFiles::default() },
                Some(SlotKind::RecoveryCode),
            ),
            (
                paper.as_str(),
                SecretFiles { recovery_code_file: Some(path.clone()), ..SecretFiles::default() },
                None,
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
        let files = SecretFiles { key_file: Some(path.clone()), ..SecretFiles::default() };
        assert!(kind_of(&files).unwrap_err().message.contains("secret"));
        for len in [0, 31, 65_537, 1 << 20] {
            std::fs::write(&path, vec![7; len]).unwrap();
            assert!(kind_of(&files).unwrap_err().message.contains("key file"), "{len}");
        }
    }

    #[test]
    fn a_secret_key_on_the_command_line_is_refused_and_not_repeated() {
        let secret = RecipientSecret::new([8; 32]).file_text();
        let key = secret.lines().find(|line| line.starts_with("aiv-secret-")).unwrap();
        let paper = PaperKey::new(ChainKey::new([9; 32])).text();
        let code = RecoveryCode::new([7; 20]).text();
        for word in [paper.to_string(), format!("./{}", *code), code.replace('-', "")] {
            let (path, shown) =
                (PathBuf::from(&word), word.trim_start_matches("./")[..11].to_owned());
            for files in [
                SecretFiles { recovery_code_file: Some(path.clone()), ..SecretFiles::default() },
                SecretFiles { key_file: Some(path), ..SecretFiles::default() },
            ] {
                let failure = kind_of(&files).unwrap_err();
                assert_eq!(failure.verdict.code, "secret_in_words");
                let said = failure.line() + &failure.to_json().to_string();
                assert!(!said.contains(&shown), "{said}");
            }
            let failure = write_secret(Path::new("/proc").join(&word).as_path(), "x").unwrap_err();
            let said = failure.line() + &failure.to_json().to_string();
            assert!(said.contains("...") && !said.contains(&shown), "{said}");
        }
        for word in [key.to_owned(), key.to_uppercase(), format!("./{key}")] {
            let word = PathBuf::from(word);
            let files = SecretFiles { key_file: Some(word.clone()), ..SecretFiles::default() };
            for failure in [kind_of(&files).unwrap_err(), recipient_in(&word).unwrap_err()] {
                assert_eq!(failure.verdict.code, "secret_in_words");
            }
            let files = SecretFiles { password_file: Some(word), ..SecretFiles::default() };
            let failure = kind_of(&files).unwrap_err();
            for shown in [failure.line(), failure.to_json().to_string()] {
                assert!(!shown.to_ascii_lowercase().contains(&key[11..20]), "{shown}");
            }
        }
    }

    #[test]
    fn a_sheet_becomes_neither_a_passphrase_nor_a_key_file_and_opens_what_it_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet");
        let code = RecoveryCode::new([7; 20]).text();
        for content in [format!("# Aivory paper key, made today\n{}\n", *code), code.to_string()] {
            std::fs::write(&path, content).unwrap();
            for files in [
                SecretFiles { password_file: Some(path.clone()), ..SecretFiles::default() },
                SecretFiles { key_file: Some(path.clone()), ..SecretFiles::default() },
            ] {
                let failure = files.read_new().err().unwrap();
                assert_eq!(failure.verdict.code, "unusable_key");
                assert!(kind_of(&files).unwrap().is_some());
                assert!(failure.verdict.hint.contains("--recovery-code-file"));
            }
        }
    }
}
