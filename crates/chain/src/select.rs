//! Words that name a recovery point: `latest`, `latest~2`, an id or its beginning, each
//! optionally after the name of a set.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::folder::{Folder, Point, Set};

/// What a user wrote after the `@` of `DIR@...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    set: Option<String>,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    /// This many points before the newest.
    Latest(usize),
    /// Hexadecimal digits an id begins with.
    Prefix(String),
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (set, which) = match text.rsplit_once(':') {
            Some((set, which)) => (Some(set.to_owned()), which),
            None => (None, text),
        };
        let unknown = || Error::NoSuchPoint { wanted: text.to_owned() };
        let which = match which.strip_prefix("latest") {
            Some("") => Which::Latest(0),
            Some(back) => {
                let back = back.strip_prefix('~').and_then(|n| n.parse().ok());
                Which::Latest(back.ok_or_else(unknown)?)
            }
            None if !which.is_empty() && which.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Which::Prefix(which.to_ascii_lowercase())
            }
            None => return Err(unknown()),
        };
        Ok(Self { text: text.to_owned(), set, which })
    }
}

impl Selector {
    /// The one point of `folder` that is meant.
    ///
    /// # Errors
    /// [`Error::NoSuchPoint`] when none matches, [`Error::Ambiguous`] when several do,
    /// [`Error::AgeUnknown`] when points of the set are locked and none was named by its id.
    pub fn find<'f>(&self, folder: &'f Folder) -> Result<(&'f Set, &'f Point)> {
        let sets = self.sets(folder);
        let none = || Error::NoSuchPoint { wanted: self.text.clone() };
        match &self.which {
            Which::Latest(back) => {
                let [set] = sets.as_slice() else {
                    if sets.is_empty() {
                        return Err(none());
                    }
                    let word = match back {
                        0 => "latest".to_owned(),
                        back => format!("latest~{back}"),
                    };
                    let words = |s: &&Set| format!("{}:{word}", set_word(folder, s));
                    let candidates = sets.iter().map(words).collect();
                    return Err(Error::Ambiguous { wanted: self.text.clone(), candidates });
                };
                // Any of them may be the newest: an older point is not what was asked for.
                if set.points.iter().any(|point| point.locked) {
                    return Err(Error::AgeUnknown { set: set.id });
                }
                let at = set.points.len().checked_sub(back + 1).ok_or_else(none)?;
                Ok((set, &set.points[at]))
            }
            Which::Prefix(prefix) => {
                let all = sets.iter().flat_map(|s| s.points.iter().map(move |p| (*s, p)));
                let found: Vec<_> =
                    all.filter(|(_, p)| p.id.to_string().starts_with(prefix.as_str())).collect();
                match found.as_slice() {
                    [] => Err(none()),
                    [one] => Ok(*one),
                    many => {
                        let candidates = many.iter().map(|(_, p)| p.id.to_string()).collect();
                        Err(Error::Ambiguous { wanted: self.text.clone(), candidates })
                    }
                }
            }
        }
    }

    /// The sets that are meant: by name, and only where no name fits by the beginning of the
    /// id, so that a short name is never taken for somebody else's id.
    fn sets<'f>(&self, folder: &'f Folder) -> Vec<&'f Set> {
        let Some(wanted) = &self.set else { return folder.sets.iter().collect() };
        let named: Vec<&Set> = folder.sets.iter().filter(|s| s.name == *wanted).collect();
        if !named.is_empty() || wanted.is_empty() {
            return named;
        }
        folder.sets.iter().filter(|s| s.id.to_string().starts_with(wanted.as_str())).collect()
    }
}

/// The one set of `folder` that is called `word`, or whose id begins with it.
///
/// # Errors
/// [`Error::NoSuchPoint`] when there is none, [`Error::Ambiguous`] when there are several.
pub fn find_set<'f>(folder: &'f Folder, word: &str) -> Result<&'f Set> {
    let selector =
        Selector { text: word.to_owned(), set: Some(word.to_owned()), which: Which::Latest(0) };
    match selector.sets(folder).as_slice() {
        [] => Err(Error::NoSuchPoint { wanted: word.to_owned() }),
        [one] => Ok(*one),
        several => {
            let candidates = several.iter().map(|set| set.id.to_string()).collect();
            Err(Error::Ambiguous { wanted: word.to_owned(), candidates })
        }
    }
}

/// What to call a set so that no other is meant: its name, or its id where several share one.
fn set_word(folder: &Folder, set: &Set) -> String {
    let alone = folder.sets.iter().filter(|s| s.name == set.name).count() == 1;
    if alone { set.name.clone() } else { set.id.to_string() }
}
