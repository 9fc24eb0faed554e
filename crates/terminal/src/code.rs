//! Recovery codes and paper keys on their way to paper.

use std::path::{Path, PathBuf};

use aiv_chain::KeyedChain;
use aiv_jobs::NewKey;
use aiv_keys::{PaperKey, RecoveryCode};
use aiv_report::{Exit, Failure, Outcome, Verdict, keys};
use zeroize::Zeroizing;

use crate::answer::print_for_good;
use crate::secrets::write_secret;
use crate::session::{Session, now_unix_ms};

/// A recovery code that lies in a file, or is shown before anything is opened by it.
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
    let text = keys::recovery_sheet(&code, what, now_unix_ms());
    match file {
        Some(file) => write_secret(file, &text)?,
        None if session.json => return Err(never_in_json("a recovery code")),
        None => {}
    }
    Ok((code, Sheet { text, file: file.map(Path::to_path_buf) }))
}

/// Shows the key of the images in `what`, or writes it into a new file.
///
/// # Errors
/// When the file exists already or cannot be written, or standard output cannot; when JSON is wanted
/// and no file was named.
pub(crate) fn show_paper(
    paper: &PaperKey,
    chain: &KeyedChain,
    what: &Path,
    file: Option<&Path>,
    session: &Session,
) -> Result<Outcome, Failure> {
    let sheet = keys::paper_sheet(paper, chain, what, now_unix_ms());
    match file {
        Some(file) => write_secret(file, &sheet)?,
        None if session.json => return Err(never_in_json("a paper key")),
        None => print_for_good(&sheet)?,
    }
    Ok(keys::paper_key(paper, what, file))
}

fn never_in_json(what: &str) -> Failure {
    let hint = "name a new file for it, with --out";
    let verdict = Verdict { code: "no_secret", exit: Exit::Usage, hint };
    Failure::new(verdict, format!("{what} never stands in JSON"))
}

impl Sheet {
    /// The code opens nothing: it is gone.
    pub(crate) fn give_up(self) {
        if let Some(file) = self.file {
            // Where it stays, it stays a code that opens nothing.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Shows the code, unless a file has it. Nothing may be opened by it before: where it cannot be
    /// shown, it would be a way in that nobody has.
    ///
    /// # Errors
    /// When standard output cannot be written, or nobody reads it.
    pub(crate) fn show(&self) -> Result<(), Failure> {
        match self.file {
            Some(_) => Ok(()),
            None => print_for_good(&self.text),
        }
    }

    /// Says where the code is when what it opens is there, if only in a part of the images; else it
    /// is gone.
    ///
    /// # Errors
    /// That of `done`.
    pub(crate) fn after(self, done: Result<Outcome, Failure>) -> Result<Outcome, Failure> {
        match done {
            Ok(outcome) => Ok(self.told(outcome)),
            Err(mut failure) => {
                match failure.done.take() {
                    Some(outcome) => failure = failure.after(self.told(*outcome)),
                    None if self.file.is_some() => self.give_up(),
                    None => failure.message += "; the recovery code that was shown opens nothing",
                }
                Err(failure)
            }
        }
    }

    fn told(self, mut outcome: Outcome) -> Outcome {
        match self.file {
            Some(file) => {
                let file = aiv_report::words::clean(&file.display().to_string());
                outcome.text += &format!("the recovery code is in {file}\n");
            }
            None => {
                // What is shown can be kept as it is, and read back.
                let notes = outcome.text.lines().map(|line| format!("# {line}\n"));
                outcome.text = notes.collect();
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_opens_some_images_stays_and_one_that_opens_none_goes() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = Verdict { code: "canceled", exit: Exit::Canceled, hint: "" };
        let failed = || Failure::new(verdict, "stopped");
        let changed = || Outcome::report(failed().to_json(), "key 1\n".to_owned());
        for (done, stays) in
            [(Ok(changed()), true), (Err(failed().after(changed())), true), (Err(failed()), false)]
        {
            let session = Session::new(false, true);
            let path = folder.path().join("sheet");
            let (_, sheet) = new_code(&session, folder.path(), Some(&path)).unwrap();
            let ended = sheet.after(done);
            assert_eq!(path.exists(), stays, "{ended:?}");
            let _ = std::fs::remove_file(&path);
            // One on the screen cannot be taken back.
            let (_, sheet) = new_code(&session, folder.path(), None).unwrap();
            let ended = sheet.after(ended.map(|_| changed()));
            let is_worthless =
                ended.is_err_and(|failure| failure.message.contains("opens nothing"));
            assert_eq!(is_worthless, !stays);
        }
    }
}
