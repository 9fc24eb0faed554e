//! Folders of NTFS by their records: which path a name has, and whether it matches.

use std::collections::HashMap;

use super::reason::NtfsReason;
use super::record::{Attribute, FILE_NAME, Record, Value, number_of};
use crate::bytes::{array, le64};
use crate::files::{Pattern, any_matches, fold};
use crate::stop::Stop;

/// Record of the root directory.
const ROOT: u64 = 5;
/// `$Extend`, the folder of the filesystem's later files.
const EXTEND: u64 = 11;
/// Folders in folders. Windows opens no longer paths than 32,767 characters.
const DEPTH_MAX: usize = 512;
/// Folders whose names are kept in memory.
const FOLDERS_MAX: usize = 1 << 22;

/// A name a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// The folder it is in, with its sequence number.
    folder: u64,
    text: String,
    /// The short form beside another name.
    pub(super) is_short: bool,
}

impl Name {
    /// The name in an attribute, if it is one.
    pub(super) fn of(attribute: &Attribute<'_>) -> Option<Self> {
        const SHORT: u8 = 2;
        const HEAD: usize = 66;
        let Value::Resident(value) = attribute.value else { return None };
        let head = value.get(..HEAD).filter(|_| attribute.kind == FILE_NAME)?;
        let units = value.get(HEAD..HEAD + 2 * usize::from(head[64]))?.as_chunks().0;
        let units: Vec<u16> = units.iter().map(|&unit| u16::from_le_bytes(unit)).collect();
        Some(Self {
            folder: le64(&array::<8>(head, 0), 0),
            text: String::from_utf16_lossy(&units),
            is_short: head[65] == SHORT,
        })
    }
}

#[derive(Debug)]
struct Folder {
    sequence: u16,
    name: Option<Name>,
    folded: String,
    /// What is known about it: whether everything in it matches.
    inside: Option<bool>,
}

/// All folders, and what the user wants of them.
pub(super) struct Folders {
    folders: HashMap<u64, Folder>,
    patterns: Vec<Pattern>,
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the name of one of the filesystem's own files.
    System,
    /// It does not match, or leads nowhere.
    Other,
    Matches {
        path: String,
        in_root: bool,
    },
}

impl Folders {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        let patterns = patterns.iter().map(Pattern::without_case).collect();
        Self { folders: HashMap::new(), patterns }
    }

    /// Takes note of a record that is, or continues, that of a folder.
    pub(super) fn add(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        if record.base != 0 {
            return self.name_of(record);
        }
        if record.is_folder() {
            if self.folders.len() == FOLDERS_MAX {
                let what = "is one folder too many to remember";
                return Err(NtfsReason::Record { record: record.number, what }.into());
            }
            let folder = self.folders.entry(record.number).or_insert(Folder {
                sequence: 0,
                name: None,
                folded: String::new(),
                inside: None,
            });
            folder.sequence = record.sequence;
            self.name_of(record)?;
        }
        Ok(())
    }

    /// A folder has one name, and perhaps a short form of it.
    fn name_of(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        // What continues a record has a larger number as a rule; what has not leaves its folder
        // without a name, and all in it is kept.
        let Some(folder) = self.folders.get_mut(&record.file()) else { return Ok(()) };
        for attribute in record.attributes() {
            if let Some(name) = Name::of(&attribute?).filter(|name| !name.is_short) {
                folder.folded = name.text.chars().map(fold).collect();
                folder.name = Some(name);
            }
        }
        Ok(())
    }

    /// The folders from the one a name is in up to the root, that one left out. `None` when they
    /// lead nowhere, or in circles.
    fn ancestors(&self, name: &Name) -> Option<Vec<u64>> {
        let mut chain = Vec::new();
        let mut at = name.folder;
        while number_of(at) != ROOT {
            let folder = self.folders.get(&number_of(at))?;
            if u64::from(folder.sequence) != at >> 48 || chain.len() == DEPTH_MAX {
                return None;
            }
            chain.push(number_of(at));
            at = folder.name.as_ref()?.folder;
        }
        Some(chain)
    }

    /// What a file's name says about it.
    pub(super) fn place(&mut self, name: &Name) -> Place {
        let Some(chain) = self.ancestors(name) else { return Place::Other };
        if chain.last() == Some(&EXTEND) {
            return Place::System;
        }
        let mut path: Vec<&str> = Vec::new();
        let mut found = Vec::new();
        let mut inside = false;
        for number in chain.iter().rev() {
            let Some(folder) = self.folders.get(number) else { return Place::Other };
            path.push(&folder.folded);
            inside = match folder.inside {
                Some(known) => known,
                None => inside || any_matches(&self.patterns, &path, true),
            };
            found.push((*number, inside));
        }
        let folded: String = name.text.chars().map(fold).collect();
        path.push(&folded);
        let matches = inside || any_matches(&self.patterns, &path, false);
        for (number, inside) in found {
            if let Some(folder) = self.folders.get_mut(&number) {
                folder.inside = Some(inside);
            }
        }
        if !matches {
            return Place::Other;
        }
        let names = chain.iter().rev().filter_map(|number| self.folders.get(number));
        let names = names.filter_map(|folder| folder.name.as_ref()).map(|name| name.text.as_str());
        let path = names.chain([name.text.as_str()]).collect::<Vec<_>>().join("/");
        Place::Matches { path, in_root: chain.is_empty() }
    }
}
