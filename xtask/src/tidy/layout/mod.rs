//! The byte tables of the format document are the bytes the code reads and writes.
//!
//! In the document a record is a table behind a marker:
//! ```text
//! <!-- layout: Superblock 4096 -->
//!
//! | offset | size | name | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | ... |
//! ```
//! In the sources it is a macro call whose lines can be read without knowing Rust:
//! ```text
//! record! {
//!     pub(crate) struct Superblock[4096] {
//!         0 => magic: [u8; 8],
//!     }
//! }
//! ```
//! The document accounts for every byte; the sources may leave out what is `reserved`.

mod document;
mod source;

use super::Finding;
use super::tree::{File, Tree};

/// A document, and the folder with the sources that implement it.
const PAIRS: [(&str, &str); 1] = [("docs/format.md", "crates/image-format/src/layout/")];

/// More folders with records of the (one) document.
const MORE: [&str; 1] = ["crates/keys/src/layout/"];

/// One record, from either side.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: String,
    /// Bytes.
    size: u64,
    path: String,
    line: usize,
    fields: Vec<Field>,
}

#[derive(Debug, PartialEq, Eq)]
struct Field {
    name: String,
    /// Bytes from the start of the record.
    offset: u64,
    /// Bytes.
    size: u64,
    line: usize,
}

impl Field {
    fn is_reserved(&self) -> bool {
        self.name == "reserved"
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    PAIRS.iter().flat_map(|(document, folder)| check_pair(tree, document, folder)).collect()
}

fn check_pair(tree: &Tree, document: &str, folder: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tables = Vec::new();
    let mut records = Vec::new();
    if let Some(file) = tree.file(document) {
        tables = document::tables(file, &mut findings);
    }
    let folders = || std::iter::once(folder).chain(MORE);
    let is_ours = |file: &&File| folders().any(|folder| file.path.starts_with(folder));
    for file in tree.rust_files().filter(is_ours) {
        records.extend(source::records(file, &mut findings));
    }
    for table in &tables {
        findings.extend(check_order(table));
        findings.extend(check_gaps(table));
    }
    records.iter().for_each(|record| findings.extend(check_order(record)));
    findings.extend(check_twins(&tables));
    findings.extend(check_twins(&records));
    for table in &tables {
        match records.iter().find(|record| record.name == table.name) {
            Some(record) => findings.extend(compare(table, record)),
            None => {
                let what = format!("no record! call in {folder} declares it");
                findings.push(table.refuse(&what));
            }
        }
    }
    for record in &records {
        if !tables.iter().any(|table| table.name == record.name) {
            findings.push(record.refuse(&format!("{document} has no table for it")));
        }
    }
    findings
}

impl Record {
    fn refuse(&self, what: &str) -> Finding {
        Finding::at(&self.path, self.line, format!("{}: {what}", self.name))
    }

    fn refuse_field(&self, field: &Field, what: &str) -> Finding {
        let what = format!("{}.{}: {what}", self.name, field.name);
        Finding::at(&self.path, field.line, what)
    }

    fn named_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_reserved())
    }
}

fn check_twins(records: &[Record]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, record) in records.iter().enumerate() {
        if records[..index].iter().any(|earlier| earlier.name == record.name) {
            findings.push(record.refuse("is declared twice"));
        }
    }
    findings
}

/// Fields ascend, do not overlap, and stay inside the record.
fn check_order(record: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut free_from = 0;
    for field in &record.fields {
        if field.offset < free_from {
            let what = format!("offset {} lies before {free_from}", field.offset);
            findings.push(record.refuse_field(field, &what));
        }
        if field.end() > record.size {
            let what = format!("ends at {}, past the record's {}", field.end(), record.size);
            findings.push(record.refuse_field(field, &what));
        }
        free_from = field.end().max(free_from);
    }
    findings
}

/// A table accounts for every byte.
fn check_gaps(table: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut next = 0;
    let ends = table.fields.iter().map(|field| (field.offset, field.end()));
    for (offset, end) in ends.chain([(table.size, table.size)]) {
        if next < offset {
            let what = format!("bytes {next}..{offset} are in no row; add one named reserved");
            findings.push(table.refuse(&what));
        }
        next = end.max(next);
    }
    findings
}

/// Both sides name the same fields at the same places.
fn compare(table: &Record, record: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    let here = format!("{}:{}", table.path, table.line);
    if record.size != table.size {
        let what = format!("{} bytes here, {} in {here}", record.size, table.size);
        findings.push(record.refuse(&what));
    }
    for field in record.named_fields() {
        match table.named_fields().find(|row| row.name == field.name) {
            None => findings.push(record.refuse_field(field, &format!("is not in {here}"))),
            Some(row) if (row.offset, row.size) != (field.offset, field.size) => {
                let what = format!(
                    "{} bytes at {} here, {} at {} in {}:{}",
                    field.size, field.offset, row.size, row.offset, table.path, row.line
                );
                findings.push(record.refuse_field(field, &what));
            }
            Some(_) => {}
        }
    }
    for row in table.named_fields() {
        if !record.named_fields().any(|field| field.name == row.name) {
            let what = format!("is not in {}:{}", record.path, record.line);
            findings.push(table.refuse_field(row, &what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
<!-- layout: Trailer 32 -->

| offset | size | name | meaning |
|---|---|---|---|
| 0 | 8 | `magic` | says what this is |
| 8 | 4 | count | how many |
| 12 | 4 | reserved | zero |
| 16 | 16 | id | of the image |
";

    const RECORD: &str = "\
record! {
    /// The end of a file.
    pub(crate) struct Trailer[32] {
        0 => magic: [u8; 8],
        8 => count: u32, // at least one
        16 => id: [u8; 16],
    }
}
";

    /// The findings for a document and a source, as the terminal shows them.
    fn check_texts(document: &str, source: &str) -> Vec<String> {
        let source_path = format!("{}trailer.rs", PAIRS[0].1);
        let tree = Tree::of(&[(PAIRS[0].0, document), (&source_path, source)]);
        check(&tree)
            .iter()
            .map(|finding| finding.to_string().replace(PAIRS[0].1, "").replace(PAIRS[0].0, "doc"))
            .collect()
    }

    #[test]
    fn equal_layouts_pass() {
        assert_eq!(check_texts(TABLE, RECORD), [""; 0]);
    }

    #[test]
    fn a_field_that_moved_or_grew_on_one_side_is_found() {
        let found = check_texts(TABLE, &RECORD.replace("8 => count: u32", "10 => count: u16"));
        assert_eq!(found, ["trailer.rs:5: Trailer.count: 2 bytes at 10 here, 4 at 8 in doc:6"]);
    }

    #[test]
    fn a_field_of_one_side_only_is_found() {
        let renamed = check_texts(TABLE, &RECORD.replace("count", "total"));
        assert_eq!(
            renamed,
            [
                "trailer.rs:5: Trailer.total: is not in doc:1",
                "doc:6: Trailer.count: is not in trailer.rs:3"
            ]
        );
        let named = check_texts(&TABLE.replace("reserved", "flags"), RECORD);
        assert_eq!(named, ["doc:7: Trailer.flags: is not in trailer.rs:3"]);
    }

    #[test]
    fn a_record_of_one_side_only_is_found() {
        assert_eq!(check_texts("", RECORD), ["trailer.rs:3: Trailer: doc has no table for it"]);
        let only_table = check_texts(TABLE, "");
        assert_eq!(only_table.len(), 1);
        assert!(only_table[0].starts_with("doc:1: Trailer: "), "{only_table:?}");
    }

    #[test]
    fn different_sizes_are_found() {
        let found = check_texts(TABLE, &RECORD.replace("[32]", "[64]"));
        assert_eq!(found, ["trailer.rs:3: Trailer: 64 bytes here, 32 in doc:1"]);
    }

    #[test]
    fn bytes_in_no_row_are_found_inside_and_at_the_end() {
        let gap = TABLE.replace("| 12 | 4 | reserved | zero |\n", "");
        assert_eq!(
            check_texts(&gap, RECORD),
            ["doc:1: Trailer: bytes 12..16 are in no row; add one named reserved"]
        );
        let short = check_texts(&TABLE.replace("Trailer 32", "Trailer 40"), "");
        assert!(short[0].contains("bytes 32..40 are in no row"), "{short:?}");
    }

    #[test]
    fn overlaps_and_fields_past_the_end_are_found() {
        let overlap = check_texts(&TABLE.replace("| 12 | 4 |", "| 10 | 6 |"), RECORD);
        assert_eq!(overlap, ["doc:7: Trailer.reserved: offset 10 lies before 12"]);
        let past = check_texts(TABLE, &RECORD.replace("16 => id", "20 => id"));
        assert!(past[0].contains("ends at 36, past the record's 32"), "{past:?}");
    }

    #[test]
    fn a_record_declared_twice_is_found() {
        let found = check_texts(TABLE, &format!("{RECORD}{RECORD}"));
        assert_eq!(found, ["trailer.rs:11: Trailer: is declared twice"]);
    }
}
