//! What is measured besides full images of one disk, and what comes of it.

use std::fmt;

use serde_json::Value;

/// A question with tables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Study {
    /// Later images of the disk, against peers.
    Increments,
    /// One of the disk when a fifth of it has changed, against peers.
    Fifth,
    /// Single pages written all over a file, against peers.
    Scattered,
    /// Differences to differences: what each step saves, and what it costs to read.
    Depth,
    /// Hundreds of increments: opening them, and reading through them.
    Chain,
    /// Ten thousand points in one folder: listing them, and opening one.
    Points,
    /// Images that become one, against copying as many bytes.
    Merge,
    /// Volumes of each filesystem, against partclone.
    Volumes,
    /// Images with keys or parity, against plain ones.
    Protection,
    /// Single pages from anywhere, against peers.
    Random,
    /// An earlier state over a later one.
    Rewind,
    /// Files out of an image, against `cp -a`.
    Files,
    /// Sources of many sizes with much or little on them.
    Scale,
}

impl Study {
    pub(super) const ALL: [Self; 13] = [
        Self::Increments,
        Self::Fifth,
        Self::Scattered,
        Self::Depth,
        Self::Chain,
        Self::Points,
        Self::Merge,
        Self::Volumes,
        Self::Protection,
        Self::Random,
        Self::Rewind,
        Self::Files,
        Self::Scale,
    ];
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Increments => "increments",
            Self::Fifth => "fifth",
            Self::Scattered => "scattered",
            Self::Depth => "depth",
            Self::Chain => "chain",
            Self::Points => "points",
            Self::Merge => "merge",
            Self::Volumes => "volumes",
            Self::Protection => "protection",
            Self::Random => "random",
            Self::Rewind => "rewind",
            Self::Files => "files",
            Self::Scale => "scale",
        })
    }
}

/// What a study found out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Tables for people.
    pub(super) text: String,
    pub(super) json: Value,
    /// What went wrong with Aivory.
    pub(super) problems: Vec<String>,
}
