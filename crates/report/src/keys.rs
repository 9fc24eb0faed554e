//! Keys: who can open the images of a chain, and what became of a change.

use std::fmt::Write as _;
use std::path::Path;

use aiv_chain::{KeyedChain, KeyedChains, SlotReport};
use aiv_jobs::KeyChanges;
use aiv_keys::{KeyArea, PaperKey, RecipientKey, RecoveryCode, Slot, SlotKind};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::json::path;
use crate::words::{clean, short, time};
use crate::{Exit, Failure, Outcome, Remarks, Verdict};

/// What `aiv key list` has to say.
#[must_use]
pub fn key_list(what: &Path, found: &KeyedChains) -> Outcome {
    let chains: Vec<Value> = found.chains.iter().map(chain_json).collect();
    let unsure: Vec<Value> =
        found.unsure.iter().map(|(file, why)| json!({"file": file, "why": why})).collect();
    let json = json!({"path": path(what), "chains": chains, "unsure": unsure});
    let mut text = String::new();
    if found.chains.is_empty() {
        let _ = writeln!(text, "no image with a key in {}", clean(&what.display().to_string()));
    }
    for chain in &found.chains {
        chain_text(&mut text, chain);
    }
    Outcome::answer(json, text).with(on_chains(found))
}

fn chain_json(chain: &KeyedChain) -> Value {
    let areas = chain.areas();
    let newest = areas.first();
    let behind: Vec<&str> = behind(chain).collect();
    json!({
        "key": chain.commitment.to_string(),
        "images": chain.files.iter().map(|file| file.file.clone()).collect::<Vec<_>>(),
        "sealed": chain.files.iter().all(|file| file.sealed),
        "generation": newest.map(KeyArea::generation),
        "retired": newest.is_some_and(KeyArea::is_retired),
        "slots": newest.map_or_else(Vec::new, slots_json),
        "behind": behind,
    })
}

fn slots_json(area: &KeyArea) -> Vec<Value> {
    let slot = |(number, slot): (u8, &Slot)| {
        json!({
            "slot": number,
            "kind": slot.kind().to_string(),
            "label": slot.label(),
            "created": time(slot.created_unix_ms()),
            "argon2id": slot.cost().map(|cost| json!({
                "memory_kib": cost.memory_kib(), "passes": cost.passes(), "lanes": cost.lanes(),
            })),
            "recipient": slot.recipient().map(|recipient| recipient.text()),
        })
    };
    area.slots().map(slot).collect()
}

fn chain_text(text: &mut String, chain: &KeyedChain) {
    let areas = chain.areas();
    let how = if chain.files.iter().all(|file| file.sealed) { "sealed" } else { "authenticated" };
    let count = match chain.files.len() {
        1 => "1 image".to_owned(),
        count => format!("{count} images"),
    };
    let key = short(chain.commitment);
    let Some(newest) = areas.first() else {
        let _ = writeln!(text, "key {key}: {count}, {how}, no sound key slots");
        return;
    };
    let retired = if newest.is_retired() { ", retired" } else { "" };
    let _ = writeln!(text, "key {key}: {count}, {how}{retired}");
    slots_text(text, newest);
}

fn slots_text(text: &mut String, area: &KeyArea) {
    for (number, slot) in area.slots() {
        let kind = match slot.recipient() {
            Some(recipient) => recipient.text(),
            None => slot.kind().to_string(),
        };
        let label = clean(slot.label());
        let created = time(slot.created_unix_ms());
        let line = format!("  slot {number:>2}  {created}  {kind}  {label}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Images whose slots are not the newest of their chain.
fn behind(chain: &KeyedChain) -> impl Iterator<Item = &str> {
    let newest = chain.areas().into_iter().next();
    chain
        .files
        .iter()
        .filter(move |file| file.areas.first() != newest.as_ref())
        .map(|file| file.file.as_str())
}

fn on_chains(found: &KeyedChains) -> Remarks {
    let mut warnings = Vec::new();
    for chain in &found.chains {
        for file in &chain.files {
            if let Some(damage) = &file.damage {
                warnings.push(format!("{}: {damage}", file.file));
            }
        }
        let behind: Vec<&str> = behind(chain).collect();
        if !behind.is_empty() {
            warnings.push(format!(
                "a change of key {} did not reach {}; the next one does",
                short(chain.commitment),
                behind.join(", ")
            ));
        }
    }
    let unsure = found.unsure.iter().map(|(file, why)| format!("{file}: {why}"));
    warnings.extend(unsure);
    Remarks { notes: Vec::new(), warnings }
}

/// What became of a change: `done` says what it was, in a sentence without its end.
///
/// # Errors
/// What ended it early, with what was changed all the same.
pub fn key_change(
    what: &Path,
    done: &str,
    changes: KeyChanges,
    found: &KeyedChains,
) -> Result<Outcome, Failure> {
    let KeyChanges { done: reports, failed, untouched } = changes;
    if failed.is_none()
        && let Some((file, why)) = nothing_changed(&reports)
    {
        let hint = "make the files of the images writable, or copy them to where they are";
        let verdict = Verdict { code: "not_changed", exit: Exit::Failed, hint };
        return Err(Failure::new(verdict, format!("no image was changed: {file}: {why}")));
    }
    let chain = |report: &SlotReport| {
        let unchanged = report.unchanged.iter();
        json!({
            "key": aiv_chain::Digest(*report.area.commitment()).to_string(),
            "generation": report.area.generation(),
            "retired": report.area.is_retired(),
            "anew": report.anew,
            "changed": report.changed,
            "unchanged": unchanged.map(|(file, why)| json!({"file": file, "why": why})).collect::<Vec<_>>(),
            "slots": slots_json(&report.area),
        })
    };
    let chains: Vec<Value> = reports.iter().map(chain).collect();
    let not_reached: Vec<String> = untouched.iter().map(ToString::to_string).collect();
    let json =
        json!({"path": path(what), "done": done, "chains": chains, "not_reached": not_reached});
    let mut text = String::new();
    let mut remarks = Remarks::default();
    for key in untouched {
        remarks.warnings.push(format!(
            "the images of key {} were not changed: what opened them before opens them still",
            short(key)
        ));
    }
    for report in &reports {
        let key = short(aiv_chain::Digest(*report.area.commitment()));
        let count = report.changed.len();
        let images = if count == 1 { "image" } else { "images" };
        let done = if report.anew { "key slots made anew" } else { done };
        let end = if report.anew { "; nothing that opened them before does" } else { "" };
        let _ = writeln!(text, "key {key}: {done}, in {count} {images}{end}");
        slots_text(&mut text, &report.area);
        for (file, why) in &report.unchanged {
            remarks.warnings.push(format!(
                "{file} was not changed, what opened it before opens it still: {why}"
            ));
        }
    }
    for (file, why) in &found.unsure {
        remarks.warnings.push(format!(
            "{file} was not looked into ({why}): if it is an image of the chain, what opened it \
             before opens it still"
        ));
    }
    if reports.iter().any(|report| report.area.is_retired()) {
        remarks.notes.push(
            "the next backup of the source is full, and what is given with it opens the new key, \
             and nothing else does: give another passphrase where this one is known to others, and \
             make a new recovery code"
                .to_owned(),
        );
    }
    remarks.notes.push(
        "copies of these images elsewhere were not changed: what opened them before opens them \
         still; and a paper key opens all images of its key, whatever is changed"
            .to_owned(),
    );
    Outcome::report(json, text)
        .with(remarks)
        .ended(failed.map_or(Ok(()), |error| Err(error.into())))
}

/// Why the first image was not changed, where none was.
fn nothing_changed(reports: &[SlotReport]) -> Option<&(String, String)> {
    if reports.iter().any(|report| !report.changed.is_empty()) {
        return None;
    }
    reports.iter().find_map(|report| report.unchanged.first())
}

/// A change of keys where nothing has one.
#[must_use]
pub fn no_chain(what: &Path, found: &KeyedChains) -> Failure {
    let hint =
        "`aiv key list` shows which images have a key, and which files could not be looked into";
    let verdict = Verdict { code: "no_key", exit: Exit::Failed, hint };
    let unsure = match found.unsure.len() {
        0 => String::new(),
        1 => ", and 1 file could not be looked into".to_owned(),
        count => format!(", and {count} files could not be looked into"),
    };
    let what = what.display();
    Failure::new(verdict, format!("no image with a key in {what}{unsure}"))
}

/// What `aiv key new-recipient` made.
#[must_use]
pub fn new_recipient(file: &Path, public: &RecipientKey) -> Outcome {
    let json = json!({"file": path(file), "public_key": public.text()});
    let file = clean(&file.display().to_string());
    let text = format!(
        "the secret key is in {file}: keep it off the machines that back up\n\
         the public key, for `aiv backup --recipient`:\n{}\n",
        public.text()
    );
    Outcome::answer(json, text)
}

/// A file that may have a key and cannot be looked into, where no other has one.
#[must_use]
pub fn not_looked_into(file: &str, why: &str) -> Failure {
    let hint = "`aiv key list` names all such files; `aiv salvage` gets out what is left of one";
    let verdict = Verdict { code: "no_key", exit: Exit::Damage, hint };
    Failure::new(verdict, format!("no image with a key can be opened here: {file}: {why}"))
}

/// A recovery code for paper, and for a file: notes begin with `#`.
#[must_use]
pub fn recovery_sheet(code: &RecoveryCode, what: &Path, now_unix_ms: u64) -> Zeroizing<String> {
    let made = format!("Aivory recovery code, made {} for the images in", time(now_unix_ms));
    let notes = [
        &*made,
        &*clean(&what.display().to_string()),
        "",
        "Whoever has this code can open them. Keep it on paper, apart from the images.",
        "It has eight groups of five; the digits 0 and 1 never are the letters O and I.",
        "To use it: type it into a file, and name that with --recovery-code-file.",
        "",
    ];
    sheet(&notes, &code.text(), 4)
}

/// The paper key of a chain, for paper, and for a file: notes begin with `#`.
#[must_use]
pub fn paper_sheet(
    paper: &PaperKey,
    chain: &KeyedChain,
    what: &Path,
    now_unix_ms: u64,
) -> Zeroizing<String> {
    let newest = chain.newest(paper.key());
    let is_for_recipients =
        |area: &KeyArea| area.slots().all(|(_, slot)| slot.kind() == SlotKind::Recipient);
    let key = short(chain.commitment);
    let made = time(now_unix_ms);
    let made = format!("Aivory paper key, made {made} for the images of key {key} in");
    let notes = [
        &*made,
        &*clean(&what.display().to_string()),
        "",
        if chain.files.iter().any(|file| file.sealed) {
            "Whoever has it can read all images of that key, and change them unnoticed."
        } else {
            "Whoever has it can change all images of that key unnoticed; all can read them."
        },
        match newest {
            Some(area) if area.is_retired() => "The key is retired: no new image gets it.",
            Some(area) if is_for_recipients(&area) => {
                "An image for recipients alone has a key of its own: it opens no other one."
            }
            _ => "So it is with those that will be made, until `aiv key rotate`.",
        },
        "Nothing takes it back: keep it on paper, apart from the images. It opens what is",
        "left of any of them, when their key slots are lost as well.",
        "It has thirteen groups of five; the digits 0 and 1 never are the letters O and I.",
        "To use it: type it into a file, and name that with --recovery-code-file.",
        "",
    ];
    sheet(&notes, &paper.text(), 5)
}

/// Notes, and a code below them with so many groups in a line. The room for all of it is taken at
/// once, so that no part of the code is left behind where a text has grown.
fn sheet(notes: &[&str], code: &str, in_line: usize) -> Zeroizing<String> {
    let room: usize = notes.iter().map(|note| note.len() + 3).sum();
    let mut sheet = Zeroizing::new(String::with_capacity(room + code.len() + 1));
    for note in notes {
        sheet.push_str(if note.is_empty() { "#" } else { "# " });
        sheet.push_str(note);
        sheet.push('\n');
    }
    for (number, group) in code.split('-').enumerate() {
        if number > 0 {
            sheet.push(if number % in_line == 0 { '\n' } else { '-' });
        }
        sheet.push_str(group);
    }
    sheet.push('\n');
    sheet
}

/// What `aiv key paper-key` has to say beside the key, which is in `file` or was shown.
#[must_use]
pub fn paper_key(paper: &PaperKey, what: &Path, file: Option<&Path>) -> Outcome {
    let key = aiv_chain::Digest(paper.key().commitment());
    let json = json!({"path": path(what), "key": key.to_string(), "file": file.map(path)});
    let text = file.map(|file| {
        let file = clean(&file.display().to_string());
        format!("the paper key of key {} is in {file}\n", short(key))
    });
    Outcome::answer(json, text.unwrap_or_default())
}

/// One paper key was asked for, and what was given opens several chains.
#[must_use]
pub fn paper_of_many(what: &Path) -> Failure {
    let hint =
        "name an image of the one that is meant; `aiv key list` shows which images have which key";
    let verdict = Verdict { code: "many_keys", exit: Exit::Refused, hint };
    Failure::new(verdict, format!("the images in {} have several keys", what.display()))
}

/// A note on a chain that the paper key opened and nothing else would.
#[must_use]
pub fn without_slots(chain: &KeyedChain) -> String {
    format!(
        "note: nothing but the paper key opens the images of key {}: their key slots are lost; \
         `aiv key add` makes them anew",
        short(chain.commitment)
    )
}

/// A backup was given a paper key.
#[must_use]
pub fn paper_in_backup() -> Failure {
    let hint = "give a passphrase or a key file; for images that exist one is added with the paper key: \
                `aiv key add DIR --recovery-code-file FILE`";
    let verdict = Verdict { code: "unusable_key", exit: Exit::Refused, hint };
    Failure::new(verdict, "a paper key opens images that exist: a backup takes none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_sheet_can_be_read_back_as_it_is() {
        let code = RecoveryCode::new([0x5A; 20]);
        let sheet = recovery_sheet(&code, Path::new("/mnt/backup\n1234"), 0);
        assert_eq!(RecoveryCode::parse(&sheet), Ok(code));
        assert!(sheet.lines().all(|line| line.len() <= 80), "it fits on paper");
    }

    #[test]
    fn a_sheet_with_a_paper_key_can_be_read_back_as_it_is_and_says_what_it_is_worth() {
        let paper = PaperKey::new(aiv_keys::ChainKey::new([0x5A; 32]));
        let commitment = aiv_chain::Digest(paper.key().commitment());
        let chain = KeyedChain { commitment, files: Vec::new() };
        let sheet = paper_sheet(&paper, &chain, Path::new("/mnt/backup"), 0);
        assert_eq!(PaperKey::parse(&sheet), Ok(paper.clone()));
        let long: Vec<&str> = sheet.lines().filter(|line| line.len() > 84).collect();
        assert_eq!(long, [""; 0], "it fits on paper");
        assert!(sheet.contains(&format!("key {} in", short(commitment))), "{}", *sheet);
        assert!(sheet.contains("unnoticed; all can read them"), "{}", *sheet);
        let shown = paper_key(&paper, Path::new("/mnt/backup"), Some(Path::new("/sheet")));
        let secret = paper.text();
        let (text, json) = (shown.text, shown.json.to_string());
        assert!(text.contains("/sheet") && !text.contains(&secret[..5]), "{text}");
        assert!(json.contains("/sheet") && !json.contains(&secret[..5]), "{json}");
    }
}
