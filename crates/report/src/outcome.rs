use std::path::Path;

use aiv_restore_engine::{RestorePlan, RestoreReport};
use serde_json::{Value, json};

use crate::words::clean;
use crate::{Exit, Failure, Remarks, json, text};

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

    /// Nothing to say.
    #[must_use]
    pub fn nothing() -> Self {
        Self::answer(json!({}), String::new())
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

    /// Several as one, up to the first failure, which does not hide what was done before. A
    /// single one stays as it is. For scripts they are a list called `name`.
    ///
    /// # Errors
    /// The failure.
    pub fn all(
        name: &str,
        outcomes: impl IntoIterator<Item = Result<Self, Failure>>,
    ) -> Result<Self, Failure> {
        let mut done = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(outcome) => done.push(outcome),
                Err(failure) if done.is_empty() => return Err(failure),
                Err(failure) => return Err(failure.after(Self::joined(name, done))),
            }
        }
        Ok(Self::joined(name, done))
    }

    fn joined(name: &str, mut outcomes: Vec<Self>) -> Self {
        if outcomes.len() == 1 {
            return outcomes.remove(0);
        }
        let list: Vec<Value> = outcomes.iter().map(Self::to_json).collect();
        let mut all = Self::report(json!({ name: list }), String::new());
        for outcome in outcomes {
            all.text += &outcome.text;
            all.is_report &= outcome.is_report;
            all.warnings.extend(outcome.warnings);
            all.exit = all.exit.max(outcome.exit);
        }
        all
    }

    /// What a restore of the file `image` to `target` is going to do.
    #[must_use]
    pub fn of_restore_plan(plan: &RestorePlan, image: &Path, target: &Path) -> Self {
        let remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
        Self::answer(json::restore_plan(plan), text::restore_plan(plan))
            .between(image, target)
            .with(remarks)
    }

    /// What a restore of the file `image` to `target` did.
    #[must_use]
    pub fn of_restore(report: &RestoreReport, image: &Path, target: &Path) -> Self {
        let remarks = Remarks::on_restore(&report.notes, &report.unreadable);
        Self::report(json::restore(report), text::restore(report))
            .between(image, target)
            .with(remarks)
    }

    fn between(mut self, image: &Path, target: &Path) -> Self {
        let title = clean(&format!("{} -> {}", image.display(), target.display()));
        self.text = format!("{title}\n{}", self.text);
        (self.json["image"], self.json["target"]) = (json::path(image), json::path(target));
        self
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

    #[test]
    fn one_outcome_is_itself_and_several_are_a_list() {
        let one = Outcome::answer(json!({"a": 1}), "one\n".to_owned());
        assert_eq!(Outcome::all("restores", [Ok(one.clone())]), Ok(one.clone()));
        let remarks = Remarks { notes: Vec::new(), warnings: vec!["look".to_owned()] };
        let other = Outcome::answer(json!({"b": 2}), "two\n".to_owned()).with(remarks);
        let all = Outcome::all("restores", [Ok(one.clone()), Ok(other)]).unwrap();
        assert_eq!((all.text.as_str(), all.exit), ("one\ntwo\n", Exit::Warnings));
        assert!(!all.is_report);
        let json = all.to_json();
        assert_eq!((&json["restores"][0]["a"], &json["restores"][1]["b"]), (&1.into(), &2.into()));
        assert_eq!(json["warnings"][0], "look");
        // What comes after a failure is not asked for.
        let verdict = Verdict { code: "io", exit: Exit::Failed, hint: "try again" };
        let failure = Failure::new(verdict, "cannot write");
        let mut asked = 0;
        let outcomes = [Ok(one.clone()), Err(failure.clone()), Ok(one.clone())];
        let outcomes = outcomes.into_iter().inspect(|_| asked += 1);
        assert_eq!(Outcome::all("restores", outcomes), Err(failure.clone().after(one)));
        assert_eq!(asked, 2);
        assert_eq!(Outcome::all("restores", [Err(failure.clone())]), Err(failure));
    }

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
