//! The facts about each image: `manifest.tsv`, TAB separated, without quoting. Columns are
//! found by the names in the first line; those not named here are not read.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One stored image and what independent tools said about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ImageFact {
    /// Unique name of the image.
    pub(super) id: String,
    /// Files below the folder of the manifest; several for a set.
    pub(super) stored: Vec<String>,
    /// Shell-like line with `F` for the stored file and `OUT` for the result; empty for an
    /// image that is stored as it is.
    pub(super) decompress: String,
    /// Bytes after unpacking, where known.
    pub(super) unpacked_size: Option<u64>,
    /// Lower-case hexadecimal, where known.
    pub(super) unpacked_sha256: Option<String>,
    /// What it holds, for the reader.
    pub(super) kind: String,
    pub(super) trust: Trust,
    /// Facts found by independent tools; `Null` where there are none.
    pub(super) expected: Value,
    /// Files with what independent tools listed of its filesystems.
    pub(super) listings: Vec<PathBuf>,
}

/// How much the content of an image can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Sound: what the tools said must be what we say.
    Valid,
    /// Anything less. Must not harm us, whatever it holds.
    Other,
}

/// Reads the manifest of a folder.
pub(super) fn load(folder: &Path) -> Result<Vec<ImageFact>, String> {
    let path = folder.join("manifest.tsv");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let mut facts = parse(&text).map_err(|what| format!("{}: {what}", path.display()))?;
    for listing in facts.iter_mut().flat_map(|fact| &mut fact.listings) {
        *listing = folder.join("listings").join(&*listing);
    }
    Ok(facts)
}

fn parse(text: &str) -> Result<Vec<ImageFact>, String> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let mut facts: Vec<ImageFact> = Vec::new();
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let row = Row { columns: &columns, cells: line.split('\t').collect() };
        let fact = row.fact().map_err(|what| format!("line {}: {what}", index + 2))?;
        if facts.iter().any(|earlier| earlier.id == fact.id) {
            return Err(format!("line {}: {} is listed twice", index + 2, fact.id));
        }
        facts.push(fact);
    }
    Ok(facts)
}

struct Row<'a> {
    columns: &'a [&'a str],
    cells: Vec<&'a str>,
}

impl Row<'_> {
    /// A cell by the name of its column; `-` means empty, and so does a line that ends early.
    fn cell(&self, column: &str) -> Result<&str, String> {
        let at = self.columns.iter().position(|name| *name == column);
        let at = at.ok_or_else(|| format!("there is no column {column}"))?;
        Ok(self.cells.get(at).copied().filter(|cell| *cell != "-").unwrap_or_default())
    }

    fn fact(&self) -> Result<ImageFact, String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let size = some(self.cell("unpacked_size")?);
        let expected = match self.cell("expected")? {
            "" => Value::Null,
            json => serde_json::from_str(json).map_err(|e| format!("column expected: {e}"))?,
        };
        Ok(ImageFact {
            id: some(self.cell("id")?).ok_or("column id is empty")?,
            stored: self.cell("stored")?.split(';').map(str::to_owned).collect(),
            decompress: self.cell("decompress")?.to_owned(),
            unpacked_size: size
                .map(|text| text.parse().map_err(|e| format!("column unpacked_size: {e}")))
                .transpose()?,
            unpacked_sha256: some(self.cell("unpacked_sha256")?),
            kind: self.cell("kind")?.to_owned(),
            trust: if self.cell("trust")? == "valid" { Trust::Valid } else { Trust::Other },
            expected,
            // Not every collection has listings.
            listings: match self.cell("listing_file").unwrap_or_default() {
                "" => Vec::new(),
                names => names.split(';').map(PathBuf::from).collect(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "note\texpected\tid\tstored\tdecompress\tunpacked_size\tunpacked_sha256\tkind\ttrust\n";

    #[test]
    fn columns_are_found_by_name() {
        let text = format!(
            "{HEADER}x\t{{\"blkid\":{{\"TYPE\":\"ext4\"}}}}\ta\td/a.gz\tgzip -dc F > OUT\t42\tff\text4\tvalid\n\
             y\t\tb\tb1;b2\t-\t\t-\text2\tcorrupt\n"
        );
        let facts = parse(&text).unwrap();
        assert_eq!(facts[0].unpacked_size, Some(42));
        assert_eq!(facts[0].expected["blkid"]["TYPE"], "ext4");
        assert_eq!(facts[0].trust, Trust::Valid);
        assert_eq!(facts[1].stored, ["b1", "b2"]);
        assert_eq!(facts[1].trust, Trust::Other);
        assert_eq!((&facts[1].unpacked_sha256, &facts[1].expected), (&None, &Value::Null));
        assert_eq!(facts[1].decompress, "");
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for (line, what) in [
            ("x\t\ta\ta\t-\tmany\t\tk\tvalid\n", "line 2: column unpacked_size: "),
            ("x\t{\ta\ta\t-\t1\t\tk\tvalid\n", "line 2: column expected: "),
            ("x\t\t\ta\t-\t1\t\tk\tvalid\n", "line 2: column id is empty"),
            ("\t\ta\ta\t-\t1\t\t\t\n\t\ta\tb\t-\t1\t\t\t\n", "line 3: a is listed twice"),
        ] {
            let failure = parse(&format!("{HEADER}{line}")).unwrap_err();
            assert!(failure.starts_with(what), "{failure}");
        }
        assert_eq!(
            parse("id\tkind\na\text2\n"),
            Err("line 2: there is no column unpacked_size".into())
        );
    }
}
