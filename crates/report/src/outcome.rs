use serde_json::Value;

use crate::words::clean;
use crate::{Exit, Remarks};

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
        for note in &remarks.notes {
            self.text += &format!("note: {}\n", clean(note));
        }
        if !remarks.warnings.is_empty() {
            self.exit = self.exit.max(Exit::Warnings);
        }
        self.warnings.extend(remarks.warnings);
        self
    }

    /// The object for scripts, with all warnings in it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = self.json.clone();
        json["warnings"] = Value::from(self.warnings.clone());
        json
    }
}
