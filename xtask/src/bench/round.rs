//! One tool once through its steps, and what was learned about it in all rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::disk;
use super::looped::Looped;
use super::measure::{self, Cost};
use super::options::Only;
use super::place::{Place, forget_caches, stored_bytes};
use super::tool::{Job, Scope, Side, Step, Tool, fill};
use super::used::UsedDisk;
use crate::{Outcome, process};

/// A tool and its figures.
pub(super) struct Record {
    pub(super) tool: Tool,
    pub(super) version: String,
    pub(super) costs: BTreeMap<Step, Vec<Cost>>,
    pub(super) stored_bytes: Option<u64>,
    /// What Aivory says the disk contains.
    pub(super) content_root: Option<String>,
    /// Restored bytes were compared with the disk.
    pub(super) is_checked: bool,
    /// Why the tool takes no further part.
    pub(super) problem: Option<String>,
}

impl Record {
    pub(super) fn new(tool: Tool) -> Self {
        let missing = tool.programs.iter().find(|name| process::find_program(name).is_none());
        Self {
            tool,
            version: String::new(),
            costs: BTreeMap::new(),
            stored_bytes: None,
            content_root: None,
            is_checked: false,
            problem: missing.map(|_| NOT_INSTALLED.to_owned()),
        }
    }

    pub(super) fn is_installed(&self) -> bool {
        self.problem.as_deref() != Some(NOT_INSTALLED)
    }

    /// Whether the tool plays a part in what is wanted.
    pub(super) fn is_wanted(tool: &Tool, only: Only) -> bool {
        let can = |job: Job| job.codec == tool.codec && tool.line(job.step).is_some();
        match tool.side {
            Side::Limit => only.wants_jobs(),
            _ => Job::all().any(|job| can(job) && only.wants(job)),
        }
    }
}

const NOT_INSTALLED: &str = "not installed";

/// What all tools share.
pub(super) struct Stage<'a> {
    pub(super) place: &'a Place,
    pub(super) disk: &'a UsedDisk,
    pub(super) only: Only,
    /// Nothing is in memory before a step, and it ends when all of it is on the disk.
    pub(super) is_cold: bool,
    /// Values of the places that do not depend on the tool.
    pub(super) places: Vec<(&'static str, String)>,
    /// Set for every program.
    pub(super) variables: Vec<(&'static str, String)>,
}

impl Stage<'_> {
    /// Asks the tool for its version.
    pub(super) fn ask_version(&self, record: &mut Record) {
        let words = fill(record.tool.version, &self.places);
        let Some((program, arguments)) = words.split_first() else { return };
        let Ok(output) = process::command(program).args(arguments).output() else { return };
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said).into_owned();
        record.version =
            text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim().into();
    }

    /// One round of one tool. A failure ends its part for good.
    pub(super) fn run(&self, record: &mut Record) {
        if record.problem.is_some() {
            return;
        }
        let outcome = self.place.reset_run().and_then(|()| self.run_steps(record));
        if let Err(failure) = outcome.and_then(|()| self.place.reset_run()) {
            record.problem = Some(failure);
        }
    }

    fn run_steps(&self, record: &mut Record) -> Outcome {
        let tool = record.tool;
        let mut places = self.places.clone();
        for (place, name) in
            [("{stored}", "stored"), ("{restored}", "restored"), ("{logs}", "logs")]
        {
            let folder = self.place.run(name);
            std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            places.push((place, folder.to_string_lossy().into_owned()));
        }
        if let Some(line) = tool.prepare {
            measure::run(&fill(line, &places), &self.place.folder, &self.variables)?;
        }
        for step in [Step::Full, Step::Restore, Step::Verify, Step::Quick] {
            let Some(line) = tool.line(step) else { continue };
            let job = Job { step, codec: tool.codec };
            // Without a backup there is nothing to restore, and a backup counts only once it
            // was restored.
            let full = Job { step: Step::Full, codec: tool.codec };
            let proves = step == Step::Restore && self.only.wants(full);
            if step != Step::Full && !proves && !self.only.wants(job) {
                continue;
            }
            let folder = match step {
                Step::Restore => self.place.run("restored"),
                _ => self.place.folder.clone(),
            };
            let restored = self.place.run("restored").join(tool.restored);
            let mut blank = None;
            if step == Step::Restore && line.contains("{blank}") {
                let looped = Looped::blank(&restored, self.disk.root.len)?;
                places.push(("{blank}", looped.device().to_string_lossy().into_owned()));
                blank = Some(looped);
            }
            if self.is_cold {
                forget_caches()?;
            }
            let (mut cost, said) = measure::run(&fill(line, &places), &folder, &self.variables)
                .map_err(|failure| format!("{job}: {failure}"))?;
            if self.is_cold {
                let begun = Instant::now();
                rustix::fs::sync();
                cost.wall_s += begun.elapsed().as_secs_f64();
            }
            drop(blank);
            record.costs.entry(step).or_default().push(cost);
            match step {
                Step::Full => {
                    let stored = self.place.run("stored");
                    record.stored_bytes = Some(stored_bytes(&stored).map_err(|e| e.to_string())?);
                    if tool.side == Side::Aivory {
                        places.push(("{image}", image_in(&stored)?));
                        record.note_content_root(&said)?;
                    }
                }
                Step::Restore => {
                    self.check(tool.scope, &restored).map_err(|e| format!("{job}: {e}"))?;
                    record.is_checked = true;
                }
                Step::Verify | Step::Quick => {}
            }
        }
        Ok(())
    }

    fn check(&self, scope: Scope, restored: &Path) -> Outcome {
        match scope {
            Scope::FilesOfRoot => {
                let mounts = self.place.run("mounted");
                disk::check_files(&self.place.disk(), self.disk.root, restored, &mounts)
            }
            Scope::Disk | Scope::UsedOfDisk | Scope::UsedOfRoot => self.disk.check(restored, scope),
        }
    }
}

impl Record {
    fn note_content_root(&mut self, said: &str) -> Outcome {
        let root = content_root(said).ok_or("the report of the backup has no content root")?;
        match &self.content_root {
            Some(before) if *before != root => {
                Err(format!("content root {root}, in the round before {before}"))
            }
            _ => {
                self.content_root = Some(root);
                Ok(())
            }
        }
    }
}

fn content_root(said: &str) -> Option<String> {
    let report: Value = serde_json::from_str(said).ok()?;
    Some(report["images"][0]["content_root"].as_str()?.to_owned())
}

/// The one image of a folder.
pub(super) fn image_in(folder: &Path) -> Result<String, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let images: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "aiv")).collect();
    match &images[..] {
        [image] => Ok(image.to_string_lossy().into_owned()),
        _ => Err(format!("{} images in {}, expected one", images.len(), folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::PEERS;
    use super::super::tool::AIVORY;
    use super::*;

    #[test]
    fn the_content_root_is_read_from_the_report_and_must_not_change() {
        let mut record = Record::new(AIVORY[0]);
        let report = |root: &str| format!(r#"{{"images":[{{"content_root":"{root}"}}]}}"#);
        assert_eq!(record.note_content_root(&report("ab")), Ok(()));
        assert_eq!(record.note_content_root(&report("ab")), Ok(()));
        assert!(record.note_content_root(&report("cd")).is_err());
        assert!(record.note_content_root("{}").is_err());
    }

    #[test]
    fn one_image_is_found_among_other_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(image_in(folder.path()).is_err());
        std::fs::write(folder.path().join("a.aiv"), "").unwrap();
        std::fs::write(folder.path().join("a.lock"), "").unwrap();
        assert!(image_in(folder.path()).unwrap().ends_with("/a.aiv"));
    }

    #[test]
    fn one_job_needs_its_tools_and_the_copy_that_limits_it() {
        let job = Job::all().find(|job| job.to_string() == "verify-lz4").unwrap();
        let wanted = |tool: &&Tool| Record::is_wanted(tool, Only::Job(job));
        let names: Vec<&str> =
            AIVORY.iter().chain(PEERS).filter(wanted).map(|tool| tool.name).collect();
        assert_eq!(names, ["aiv lz4", "lz4 -1", "borg lz4", "cp --sparse=always"]);
    }

    #[test]
    fn a_tool_without_its_program_says_so() {
        let tool = Tool { programs: &["sh", "no-such-program-here"], ..AIVORY[0] };
        assert!(!Record::new(tool).is_installed());
        assert!(Record::new(AIVORY[0]).is_installed());
    }
}
