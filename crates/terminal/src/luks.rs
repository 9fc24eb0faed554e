//! Secrets of encrypted volumes inside of a disk, which are not those of images.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use aiv_browse::{LuksKey, LuksKeys};
use aiv_report::{Exit, Failure, VOLUME_LOCKED, VOLUME_WRONG_KEY, Verdict};
use zeroize::Zeroizing;

use crate::secrets::{cannot_read, keep_to_ourselves, read_first_line};
use crate::session::Session;
use crate::unlock::TRIES;

/// Where the secrets of LUKS volumes inside of a disk are. Without any of these the user is asked
/// when one is needed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LuksFiles {
    /// File whose first line is the passphrase of a LUKS volume inside; - for standard input;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    pub luks_password_file: Vec<PathBuf>,
    /// Key file of a LUKS volume inside; repeatable
    #[arg(long, value_name = "FILE")]
    pub luks_key_file: Vec<PathBuf>,
}

impl LuksFiles {
    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.luks_password_file.is_empty() && self.luks_key_file.is_empty()
    }

    /// What the files hold.
    ///
    /// # Errors
    /// When one cannot be read, is empty or too long.
    pub fn read(&self) -> Result<LuksKeys, Failure> {
        let mut keys = LuksKeys::none();
        for path in &self.luks_password_file {
            let line = read_first_line(path)?;
            keys.add(key(Zeroizing::new(line.as_bytes().to_vec()))?);
        }
        for path in &self.luks_key_file {
            keep_to_ourselves();
            let limit = LuksKey::SIZE_MAX as u64 + 1;
            let read = || {
                let file = File::open(path)?;
                // Room for all of it, so that nothing is left behind where it outgrew a buffer.
                let len = usize::try_from(file.metadata()?.len().min(limit)).unwrap_or(0);
                let mut content = Zeroizing::new(Vec::with_capacity(len + 1));
                file.take(limit).read_to_end(&mut content)?;
                Ok(content)
            };
            keys.add(key(read().map_err(cannot_read(path))?)?);
        }
        Ok(keys)
    }
}

fn key(bytes: Zeroizing<Vec<u8>>) -> Result<LuksKey, Failure> {
    let verdict = Verdict {
        code: "unusable_key",
        exit: Exit::Refused,
        hint: "nothing was read; name the file that cryptsetup opens the volume with",
    };
    let unusable = || Failure::new(verdict, "a key of LUKS has from one byte to 8 MiB");
    LuksKey::new(bytes).ok_or_else(unusable)
}

impl Session {
    /// Does what may need an encrypted volume, with what the files hold. Where none is named and a
    /// volume is locked, the user is asked, three times at most, and it is done again: `work` writes
    /// nothing before it has found its volumes.
    ///
    /// # Errors
    /// Those of `work` and [`LuksFiles::read`].
    pub fn with_luks<T>(
        &self,
        files: &LuksFiles,
        work: impl Fn(&LuksKeys) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut done = work(&files.read()?);
        for _ in 0..TRIES {
            match &done {
                Err(failure) if files.is_empty() && !self.json && is_locked(failure) => {
                    let mut keys = LuksKeys::none();
                    keys.add(self.ask_luks_key(&failure.message)?);
                    done = work(&keys);
                }
                _ => break,
            }
        }
        done
    }

    /// Asks for the passphrase of an encrypted volume, having said why.
    ///
    /// # Errors
    /// When nobody can be asked, or nothing is typed.
    pub fn ask_luks_key(&self, why: &str) -> Result<LuksKey, Failure> {
        self.say(why);
        let hint = "name a file with --luks-password-file or --luks-key-file";
        let line = self.ask_secret("Passphrase of the volume: ", hint)?;
        if line.is_empty() {
            let hint = "nothing was opened; try it again with the passphrase";
            let verdict = Verdict { code: "unusable_key", exit: Exit::Refused, hint };
            return Err(Failure::new(verdict, "nothing was typed"));
        }
        key(Zeroizing::new(line.as_bytes().to_vec()))
    }
}

fn is_locked(failure: &Failure) -> bool {
    [VOLUME_LOCKED, VOLUME_WRONG_KEY].contains(&failure.verdict.code)
}
