//! One program once through its turns, and what was learned about it in all rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::measure::{self, Cost};
use super::super::place::{Place, stored_bytes};
use super::super::tool::{Side, fill};
use super::series::{Series, Turn};
use crate::{Outcome, process};

/// A program and its figures.
pub(super) struct Record {
    pub(super) series: Series,
    pub(super) version: String,
    pub(super) costs: BTreeMap<Turn, Vec<Cost>>,
    /// What each image added to the folder.
    pub(super) grown: BTreeMap<Turn, u64>,
    /// Restored bytes were compared with the second state.
    pub(super) is_checked: bool,
    /// Why the program takes no further part.
    pub(super) problem: Option<String>,
}

impl Record {
    pub(super) fn new(series: Series) -> Self {
        let missing = series.programs.iter().any(|name| process::find_program(name).is_none());
        Self {
            series,
            version: String::new(),
            costs: BTreeMap::new(),
            grown: BTreeMap::new(),
            is_checked: false,
            problem: missing.then(|| "not installed".to_owned()),
        }
    }
}

/// Compares a restored file with the second state.
pub(super) type Check<'a> = dyn Fn(&Path, Side) -> Outcome + 'a;

/// What all programs share.
pub(super) struct Stage<'a> {
    pub(super) place: &'a Place,
    pub(super) first: PathBuf,
    pub(super) second: PathBuf,
    pub(super) check: &'a Check<'a>,
    pub(super) turns: &'a [Turn],
    pub(super) places: Vec<(&'static str, String)>,
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Stage<'_> {
    pub(super) fn ask_version(&self, record: &mut Record) {
        let words = fill(record.series.version, &self.places);
        let Some((program, arguments)) = words.split_first() else { return };
        let Ok(output) = process::command(program).args(arguments).output() else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        record.version = said.lines().next().unwrap_or("").trim().into();
    }

    /// One round of one program. A failure ends its part for good.
    pub(super) fn run(&self, record: &mut Record) {
        if record.problem.is_some() {
            return;
        }
        let outcome = self.place.reset_run().and_then(|()| self.run_turns(record));
        if let Err(failure) = outcome.and_then(|()| self.place.reset_run()) {
            record.problem = Some(failure);
        }
    }

    fn run_turns(&self, record: &mut Record) -> Outcome {
        let series = record.series;
        let mut places = self.places.clone();
        for (place, name) in [("{stored}", "stored"), ("{restored}", "restored")] {
            let folder = self.place.run(name);
            std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            places.push((place, folder.to_string_lossy().into_owned()));
        }
        if let Some(line) = series.prepare {
            measure::run(&fill(line, &places), &self.place.folder, &self.variables)?;
        }
        let mut images = 0_u32;
        for &turn in self.turns {
            let Some(line) = series.line(turn) else { continue };
            let named = |failure: String| format!("{turn}: {failure}");
            let restores = turn == Turn::Restore;
            if restores {
                let mut places = places.clone();
                places.push(("{n}", (images - 1).to_string()));
                let cost = self.restore(record, line, &places).map_err(named)?;
                record.costs.entry(turn).or_default().push(cost);
                continue;
            }
            let state = if turn < Turn::Changed { &self.first } else { &self.second };
            let folder = self.show(state)?;
            let mut places = places.clone();
            places.push(("{source}", state.to_string_lossy().into_owned()));
            places.push(("{n}", images.to_string()));
            images += 1;
            if let Some(line) = series.prepare_again.filter(|_| turn != Turn::Full) {
                measure::run(&fill(line, &places), &folder, &self.variables).map_err(named)?;
            }
            let before = self.stored()?;
            let (cost, _) =
                measure::run(&fill(line, &places), &folder, &self.variables).map_err(named)?;
            record.costs.entry(turn).or_default().push(cost);
            record.grown.insert(turn, self.stored()?.saturating_sub(before));
        }
        if record.series.line(Turn::Differential).is_some()
            && self.turns.contains(&Turn::Differential)
        {
            // The newest point is the differential now.
            self.restore(record, series.restore, &places)
                .map_err(|failure| format!("restore of the differential: {failure}"))?;
        }
        Ok(())
    }

    /// Restores the newest point and compares.
    fn restore(
        &self,
        record: &mut Record,
        line: &str,
        places: &[(&'static str, String)],
    ) -> Result<Cost, String> {
        let folder = self.place.run("restored");
        let (cost, _) = measure::run(&fill(line, places), &folder, &self.variables)?;
        let restored = folder.join("disk.raw");
        (self.check)(&restored, record.series.side)?;
        record.is_checked = true;
        std::fs::remove_file(&restored).map_err(|e| format!("{}: {e}", restored.display()))?;
        Ok(cost)
    }

    /// A folder where `disk.raw` is this state: programs must find it under one name.
    fn show(&self, state: &Path) -> Result<PathBuf, String> {
        let folder = self.place.run("source");
        let shown = folder.join("disk.raw");
        let failed = |e: std::io::Error| format!("{}: {e}", shown.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        if shown.exists() {
            std::fs::remove_file(&shown).map_err(failed)?;
        }
        std::fs::hard_link(state, &shown).map_err(failed)?;
        Ok(folder)
    }

    fn stored(&self) -> Result<u64, String> {
        let folder = self.place.run("stored");
        stored_bytes(&folder).map_err(|e| format!("{}: {e}", folder.display()))
    }
}
