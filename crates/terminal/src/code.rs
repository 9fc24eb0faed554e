//! Recovery codes on their way to paper.

use std::path::{Path, PathBuf};

use aiv_jobs::NewKey;
use aiv_keys::RecoveryCode;
use aiv_report::{Exit, Failure, Outcome, Verdict, keys};
use zeroize::Zeroizing;

use crate::secrets::write_secret;
use crate::session::{Session, now_unix_ms};

/// A recovery code that is shown, or lies in a file, once what it opens is there.
#[must_use]
pub(crate) struct Sheet {
    text: Zeroizing<String>,
    file: Option<PathBuf>,
}

/// Makes a recovery code for the images in `what`. A file that was named has it from now on: a
/// code that nobody could note would be worth nothing.
///
/// # Errors
/// When the file exists already or cannot be written; when JSON is wanted and no file was named,
/// since secrets never stand in it.
pub(crate) fn new_code(
    session: &Session,
    what: &Path,
    file: Option<&Path>,
) -> Result<(RecoveryCode, Sheet), Failure> {
    let code = NewKey::recovery_code(session)?;
    let text = Zeroizing::new(keys::recovery_sheet(&code, what, now_unix_ms()));
    match file {
        Some(file) => write_secret(file, &text)?,
        None if session.json => {
            let hint = "name a new file for it";
            let verdict = Verdict { code: "no_secret", exit: Exit::Usage, hint };
            return Err(Failure::new(verdict, "a recovery code never stands in JSON"));
        }
        None => {}
    }
    Ok((code, Sheet { text, file: file.map(Path::to_path_buf) }))
}

impl Sheet {
    /// The code opens nothing: it is gone.
    pub(crate) fn give_up(self) {
        if let Some(file) = self.file {
            // Where it stays, it stays a code that opens nothing.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Shows the code, unless a file has it, when what it opens is there; else it is gone.
    ///
    /// # Errors
    /// That of `done`.
    pub(crate) fn after(self, done: Result<Outcome, Failure>) -> Result<Outcome, Failure> {
        match (done, self.file) {
            (Ok(mut outcome), Some(file)) => {
                let file = aiv_report::words::clean(&file.display().to_string());
                outcome.text += &format!("the recovery code is in {file}\n");
                Ok(outcome)
            }
            (Ok(mut outcome), None) => {
                // What is shown can be kept as it is, and read back.
                let notes = outcome.text.lines().map(|line| format!("# {line}\n"));
                outcome.text = notes.collect::<String>() + &self.text;
                // Quiet or not: this is the one time it is shown.
                outcome.is_report = false;
                Ok(outcome)
            }
            (Err(failure), Some(file)) => {
                // It opens nothing; where it stays, it stays a code that opens nothing.
                let _ = std::fs::remove_file(file);
                Err(failure)
            }
            (Err(failure), None) => Err(failure),
        }
    }
}
