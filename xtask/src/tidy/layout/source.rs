//! Reads the `record!` calls of a Rust source as text.

use super::super::Finding;
use super::super::tree::File;
use super::{Field, Record};

/// The records of a file, in order. What cannot be read becomes a finding.
pub(super) fn records(file: &File, findings: &mut Vec<Finding>) -> Vec<Record> {
    let mut records = Vec::new();
    let mut state = State::Outside;
    for (number, line) in file.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut refuse = |what: &str| findings.push(Finding::at(&file.path, number, what));
        state = match state {
            State::Outside if line.starts_with("record! {") => State::InMacro,
            State::Outside => State::Outside,
            State::InMacro if line == "}" => State::Outside,
            State::InMacro if line.is_empty() || line.starts_with("#[") => State::InMacro,
            State::InMacro => match head(line) {
                Some((name, size)) => State::InStruct(Record {
                    name,
                    size,
                    path: file.path.clone(),
                    line: number,
                    fields: Vec::new(),
                }),
                None => {
                    refuse("a record reads `struct NAME[SIZE] {`");
                    State::InMacro
                }
            },
            State::InStruct(record) if line == "}" => {
                records.push(record);
                State::InMacro
            }
            State::InStruct(mut record) => {
                match field(line, number) {
                    Some(field) => record.fields.push(field),
                    None if line.is_empty() || line.starts_with("#[") => {}
                    None => {
                        refuse("a field reads `OFFSET => NAME: TYPE,` with integers or [u8; N]");
                    }
                }
                State::InStruct(record)
            }
        };
    }
    if !matches!(state, State::Outside) {
        findings.push(Finding::in_file(&file.path, "a record! call does not end"));
    }
    records
}

enum State {
    Outside,
    InMacro,
    InStruct(Record),
}

/// Reads `pub(crate) struct NAME[SIZE] {`. The sources may call `RawTrailer` what the disk
/// says, to keep `Trailer` for what was checked; the document knows only `Trailer`.
fn head(line: &str) -> Option<(String, u64)> {
    let (_, rest) = line.split_once("struct ")?;
    let (name, size) = rest.strip_suffix('{')?.trim().strip_suffix(']')?.split_once('[')?;
    let name = name.trim();
    Some((name.strip_prefix("Raw").unwrap_or(name).to_owned(), integer(size)?))
}

/// Reads `OFFSET => NAME: TYPE,`.
fn field(line: &str, number: usize) -> Option<Field> {
    let (offset, rest) = line.split_once("=>")?;
    let (name, kind) = rest.trim().strip_suffix(',')?.split_once(':')?;
    let size = size_of_type(kind.trim())?;
    Some(Field { name: name.trim().to_owned(), offset: integer(offset)?, size, line: number })
}

fn size_of_type(kind: &str) -> Option<u64> {
    match kind {
        "u8" => Some(1),
        "u16" => Some(2),
        "u32" => Some(4),
        "u64" => Some(8),
        array => integer(array.strip_prefix("[u8;")?.strip_suffix(']')?),
    }
}

fn integer(text: &str) -> Option<u64> {
    text.trim().replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Record>, Vec<String>) {
        let file = File { path: "a.rs".into(), text: Some(text.into()) };
        let mut findings = Vec::new();
        let records = records(&file, &mut findings);
        (records, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_type_has_its_size_and_code_around_the_call_is_left_alone() {
        let (records, findings) = read(
            "macro_rules! record { ($x:tt) => {}; }\n/// Like record! { this }.\nrecord! {\n    \
             /// Doc.\n    #[allow(x)]\n    pub struct RawA[4_096] {\n        0 => a: u8,\n\n        \
             /// Unit: bytes.\n        2 => b: u16,\n        4 => c: u32,\n        8 => d: u64,\n        \
             16 => e: [u8; 1_024],\n    }\n}\nfn f() { match x { 0 => y, } }\n",
        );
        assert_eq!(findings, [""; 0]);
        let sizes: Vec<_> = records[0].fields.iter().map(|f| (f.offset, f.size)).collect();
        assert_eq!(sizes, [(0, 1), (2, 2), (4, 4), (8, 8), (16, 1024)]);
        assert_eq!((records[0].name.as_str(), records[0].size, records[0].line), ("A", 4096, 6));
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn lines_that_cannot_be_read_are_found() {
        for (line, at) in [
            ("struct A[SIZE] {\n}", 2),
            ("struct A[4] {\n0x0 => a: u32,\n}", 3),
            ("struct A[4] {\n0 => a: i32,\n}", 3),
            ("struct A[4] {\n0 => a: [u8; LEN],\n}", 3),
            ("struct A[4] {\na: u32,\n}", 3),
        ] {
            let (_, findings) = read(&format!("record! {{\n{line}\n}}\n"));
            assert!(!findings.is_empty(), "{line}");
            assert!(findings[0].starts_with(&format!("a.rs:{at}: ")), "{findings:?}");
        }
    }

    #[test]
    fn a_call_that_does_not_end_is_found() {
        let (_, findings) = read("record! {\n    struct A[4] {\n        0 => a: u32,\n");
        assert_eq!(findings, ["a.rs: a record! call does not end"]);
    }
}
