//! One or several restores, all of which are planned, and refused, before the first write of any.

use std::path::{Path, PathBuf};

use aiv_chain::{Keys, View, locate_view_keyed};
use aiv_volume_io::{FileDisk, Job, ReadAt, device};
use serde_json::{Map, Value};

use crate::error::{Error, Refusal, Result};
use crate::options::RestoreOptions;
use crate::plan::RestorePlan;
use crate::report::RestoreReport;
use crate::run::{Around, Failed};
use crate::shrink::{Shrunk, ToShrink};
use crate::target::TargetFacts;
use crate::tools::Tools;

/// Bytes of a plan file: far more than a page per disk of the largest machine.
const FILE_MAX: u64 = 1 << 20;

/// Restores in one plan file.
const ENTRIES_MAX: usize = 1_000;

/// One restore: what goes where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The image: a file, or a point in a folder.
    pub image: PathBuf,
    /// The target: a path, `serial:NUMBER` or `wwn:NAME`.
    pub to: PathBuf,
    /// How.
    pub options: RestoreOptions,
    /// Where an undo log of the target is written first, a file that does not exist yet.
    pub undo: Option<PathBuf>,
}

/// A restore that was planned and can be carried out.
pub struct Prepared {
    /// The point.
    pub view: View,
    /// The file of the point.
    pub image: PathBuf,
    /// The target, by its path.
    pub to: PathBuf,
    /// The plan.
    pub plan: RestorePlan,
    /// The partition that was made smaller, if one had to.
    pub shrunk: Option<Shrunk>,
    /// Where an undo log is to be written.
    pub undo: Option<PathBuf>,
}

impl Entry {
    /// The restore of `image` to `to`.
    #[must_use]
    pub fn new(image: &Path, to: &Path, options: RestoreOptions, undo: Option<PathBuf>) -> Self {
        Self { image: image.to_path_buf(), to: to.to_path_buf(), options, undo }
    }

    /// Reads a plan file: a JSON object whose `restores` are objects with `image` and `to`, and,
    /// where they differ from `options`, `partition`, `delta`, `unused`, `table`, `grow`,
    /// `identity` and `undo` in the words of the command line.
    ///
    /// # Errors
    /// [`Error::PlanFile`] with what is wrong; [`Error::Target`] when it cannot be read.
    pub fn read_all(path: &Path, options: &RestoreOptions) -> Result<Vec<Self>> {
        let wrong = |what: String| Error::PlanFile { path: path.to_path_buf(), what };
        let file = FileDisk::open_source(path).map_err(Error::Target)?;
        if file.len() > FILE_MAX {
            return Err(wrong(format!("it has {} bytes, at most {FILE_MAX} are read", file.len())));
        }
        let mut bytes = vec![0; crate::zeros::in_memory(file.len())];
        let failed = aiv_volume_io::Error::path("read", path);
        file.read_exact_at(&mut bytes, 0).map_err(|e| Error::Target(failed(e)))?;
        entries(&bytes, options).map_err(wrong)
    }
}

fn entries(bytes: &[u8], options: &RestoreOptions) -> std::result::Result<Vec<Entry>, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|e| format!("no JSON: {e}"))?;
    let object = file.as_object().ok_or("it holds no JSON object")?;
    if let Some(key) = object.keys().find(|key| *key != "restores") {
        return Err(format!("unknown key {key:?}"));
    }
    let list = object.get("restores").and_then(Value::as_array);
    let list = list.filter(|list| (1..=ENTRIES_MAX).contains(&list.len()));
    let list = list.ok_or(format!("`restores` is no list of 1 to {ENTRIES_MAX} objects"))?;
    let numbered = |(number, value): (usize, &Value)| {
        let object = value.as_object().ok_or(format!("restore {number} is no object"))?;
        entry(object, options).map_err(|what| format!("restore {number}: {what}"))
    };
    (1..).zip(list).map(numbered).collect()
}

fn entry(
    object: &Map<String, Value>,
    options: &RestoreOptions,
) -> std::result::Result<Entry, String> {
    let (mut image, mut to, mut undo, mut options) = (None, None, None, *options);
    for (key, value) in object {
        let wrong = |what: &str| format!("`{key}` is {what}");
        let text = || value.as_str().ok_or(wrong("no text"));
        match key.as_str() {
            "image" => image = Some(PathBuf::from(text()?)),
            "to" => to = Some(PathBuf::from(text()?)),
            "undo" => undo = Some(PathBuf::from(text()?)),
            "partition" => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                options.partition = Some(number.ok_or(wrong("no number of a partition"))?);
            }
            "delta" => options.delta = value.as_bool().ok_or(wrong("neither true nor false"))?,
            "unused" => options.unused = text()?.parse().map_err(wrong)?,
            "table" => options.table = text()?.parse().map_err(wrong)?,
            "grow" => options.grow = text()?.parse().map_err(wrong)?,
            "identity" => options.identity = text()?.parse().map_err(wrong)?,
            _ => return Err(format!("unknown key {key:?}")),
        }
    }
    match (image, to) {
        (Some(image), Some(to)) => Ok(Entry { image, to, options, undo }),
        (None, _) => Err("`image` is missing".to_owned()),
        _ => Err("`to` is missing".to_owned()),
    }
}

impl Prepared {
    /// Plans all restores. `root` is where `/sys` and `/proc` are found; `shrink` a folder where
    /// filesystems may be made smaller, and what does that; `keys` open what is sealed.
    ///
    /// # Errors
    /// [`Error::Refused`] when any of them must not be done, or two have one target, or the
    /// target of one holds the image of another: nothing was written to any target then.
    /// Whatever [`RestorePlan::new`] and [`ToShrink::settle`] fail with.
    pub fn all(
        root: &Path,
        entries: Vec<Entry>,
        shrink: Option<(&Path, &dyn Tools)>,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for (number, entry) in (0u64..).zip(entries) {
            let Entry { image, to, mut options, undo } = entry;
            // Two disks never get one new identity.
            options.seed = *blake3::keyed_hash(&options.seed, &number.to_le_bytes()).as_bytes();
            let to = device::named(root, &to).map_err(Error::Target)?;
            let (image, view) = locate_view_keyed(&image, keys, job)?;
            let facts = TargetFacts::gather(root, &to, &image)?;
            for other in &all {
                if is_same(root, &to, &other.to)? {
                    return Err(Refusal::SameTarget { target: facts.label }.into());
                }
            }
            if let Some(path) = &undo
                && (path.exists() || all.iter().any(|other| other.undo.as_ref() == Some(path)))
            {
                let source = std::io::ErrorKind::AlreadyExists.into();
                return Err(Error::Undo { path: path.clone(), source });
            }
            let shrunk = match shrink {
                Some((dir, tools)) => ToShrink::settle(&view, &facts, &options, dir, tools, job)?,
                None => None,
            };
            let mut plan = RestorePlan::with(&view, &facts, options, shrunk.as_ref(), job)?;
            all.iter().try_for_each(|other| plan.compare_identity(&other.plan))?;
            all.push(Self { view, image, to, plan, shrunk, undo });
        }
        for target in all.iter().filter(|one| one.plan.target().exists) {
            for other in &all {
                let holds = device::holds_path(root, &target.to, &other.image);
                let is_it = device::same_file(&target.to, &other.image).unwrap_or(false);
                if is_it || holds.map_err(Error::Target)? {
                    let target = target.plan.target().label.clone();
                    return Err(Refusal::HoldsImage { target }.into());
                }
            }
        }
        Ok(all)
    }
}

impl Prepared {
    /// Carries it out, with the time in milliseconds since 1970 UTC for the undo log.
    ///
    /// # Errors
    /// As [`RestorePlan::apply_at`].
    pub fn apply(
        self,
        now_unix_ms: u64,
        tools: &dyn Tools,
        job: Job<'_>,
    ) -> std::result::Result<RestoreReport, Failed> {
        let undo = self.undo.as_deref().map(|path| (path, now_unix_ms));
        let around = Around { undo, shrunk: self.shrunk.as_ref(), tools: Some(tools) };
        self.plan.apply_at(&self.view, &self.to, around, job)
    }
}

/// Whether writing to one target writes to the other.
fn is_same(root: &Path, a: &Path, b: &Path) -> Result<bool> {
    if a == b || device::same_file(a, b).unwrap_or(false) {
        return Ok(true);
    }
    let at = |path: &Path| match path.exists() {
        true => device::at(root, path).map_err(Error::Target),
        false => Ok(None),
    };
    let (Some(a), Some(b)) = (at(a)?, at(b)?) else {
        // Two spellings of a file that does not exist yet.
        return Ok(std::path::absolute(a).ok() == std::path::absolute(b).ok());
    };
    Ok(a.parent.as_ref() == Some(&b.name) || b.parent.as_ref() == Some(&a.name))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{Grow, Identity, TableMode, Unused};

    fn read(text: &str) -> std::result::Result<Vec<Entry>, String> {
        entries(text.as_bytes(), &RestoreOptions::new(NonZeroUsize::MIN))
    }

    #[test]
    fn a_plan_file_lists_restores_in_the_words_of_the_command_line() {
        let text = r#"{"restores": [
            {"image": "/b@latest", "to": "serial:X", "grow": "last", "identity": "new"},
            {"image": "b.aiv", "to": "/dev/sdc2", "partition": 2, "delta": true,
             "unused": "zero", "table": "keep", "undo": "log"}]}"#;
        let base = RestoreOptions::new(NonZeroUsize::MIN);
        let first = RestoreOptions { grow: Grow::Last, identity: Identity::NewDisk, ..base };
        let second = RestoreOptions {
            partition: Some(2),
            delta: true,
            unused: Unused::Zero,
            table: TableMode::Keep,
            ..base
        };
        let entry = |image: &str, to: &str, options, undo: Option<&str>| Entry {
            image: image.into(),
            to: to.into(),
            options,
            undo: undo.map(PathBuf::from),
        };
        let wanted = [
            entry("/b@latest", "serial:X", first, None),
            entry("b.aiv", "/dev/sdc2", second, Some("log")),
        ];
        assert_eq!(read(text).unwrap(), wanted);
    }

    #[test]
    fn what_is_wrong_in_a_plan_file_is_named() {
        for (text, what) in [
            ("", "no JSON"),
            ("[]", "no JSON object"),
            ("{}", "`restores` is no list"),
            (r#"{"restores": []}"#, "`restores` is no list"),
            (r#"{"restores": [7]}"#, "restore 1 is no object"),
            (r#"{"restores": [], "more": 1}"#, "unknown key \"more\""),
            (r#"{"restores": [{"to": "b"}]}"#, "restore 1: `image` is missing"),
            (r#"{"restores": [{"image": "a"}]}"#, "restore 1: `to` is missing"),
            (r#"{"restores": [{"image": 1, "to": "b"}]}"#, "restore 1: `image` is no text"),
            (r#"{"restores": [{"image": "a", "to": "b", "yes": 1}]}"#, "unknown key \"yes\""),
            (r#"{"restores": [{"partition": -1}]}"#, "`partition` is no number of a partition"),
            (r#"{"restores": [{"delta": "yes"}]}"#, "`delta` is neither true nor false"),
            (r#"{"restores": [{"grow": "all"}]}"#, "`grow` is not one of none, last"),
            (r#"{"restores": [{"table": "x"}]}"#, "`table` is not one of fit, gpt, keep"),
            (r#"{"restores": [{"unused": "x"}]}"#, "`unused` is not one of leave, zero, discard"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
