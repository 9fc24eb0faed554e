use serde_json::Value;

use crate::words::clean;
use crate::{Exit, Failure, Remarks};

/// What a command has to say when it did what it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// For scripts; an object.
    pub json: Value,
    /// The same for people.
    pub text: String,
    /// Whether the text only reports what was done, which a quiet frontend leaves out.
    pub is_report: bool,
    /// What the user should look at. May contain text from a disk.
    pub warnings: Vec<String>,
    /// How it ended.
    pub exit: Exit,
}

impl Outcome {
    /// An answer to a question.
    #[must_use]
    pub fn answer(json: Value, text: String) -> Self {
        Self { json, text, is_report: false, warnings: Vec::new(), exit: Exit::Done }
    }

    /// An account of what was done.
    #[must_use]
    pub fn report(json: Value, text: String) -> Self {
        Self { is_report: true, ..Self::answer(json, text) }
    }

    /// The same with remarks: notes below the text, warnings for the end.
    #[must_use]
    pub fn with(mut self, remarks: Remarks) -> Self {
        self.add(remarks);
        self
    }

    /// Adds remarks as [`with`](Self::with) does.
    pub fn add(&mut self, remarks: Remarks) {
        for note in &remarks.notes {
            self.text += &format!("note: {}\n", clean(note));
        }
        if !remarks.warnings.is_empty() {
            self.exit = self.exit.max(Exit::Warnings);
        }
        self.warnings.extend(remarks.warnings);
    }

    /// This, or the failure that ended it early and does not hide what was done before.
    ///
    /// # Errors
    /// The failure.
    pub fn ended(self, early: Result<(), Failure>) -> Result<Self, Failure> {
        match early {
            Ok(()) => Ok(self),
            Err(failure) => Err(failure.after(self)),
        }
    }

    /// The object for scripts, with all warnings in it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = self.json.clone();
        json["warnings"] = Value::from(self.warnings.clone());
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;
    use serde_json::json;

    #[test]
    fn a_failure_in_the_middle_does_not_hide_what_was_done_before() {
        let mut done = Outcome::report(json!({"removed": ["a.aii"]}), "removed a.aii\n".to_owned());
        done.add(Remarks { notes: Vec::new(), warnings: vec!["b.aii stays".to_owned()] });
        assert_eq!(done.clone().ended(Ok(())), Ok(done.clone()));
        let verdict = Verdict { code: "io", exit: Exit::Failed, hint: "try again" };
        let failure = done.clone().ended(Err(Failure::new(verdict, "cannot read c.aii")));
        let json = failure.as_ref().unwrap_err().to_json();
        assert_eq!(failure, Err(Failure::new(verdict, "cannot read c.aii").after(done)));
        assert_eq!(
            (&json["removed"][0], &json["warnings"][0]),
            (&"a.aii".into(), &"b.aii stays".into())
        );
        assert_eq!(json["error"]["code"], "io");
    }
}
