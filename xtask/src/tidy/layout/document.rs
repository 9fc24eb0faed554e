//! Reads the tables of a format document.

use super::super::Finding;
use super::super::tree::File;
use super::{Field, Record};

const MARKER: &str = "<!-- layout:";
const HEADER: [&str; 4] = ["offset", "size", "name", "meaning"];

/// The tables behind a marker, in order. What cannot be read becomes a finding.
pub(super) fn tables(file: &File, findings: &mut Vec<Finding>) -> Vec<Record> {
    let lines: Vec<(usize, &str)> = file.lines().collect();
    let mut tables = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        let Some(marker) = line.trim().strip_prefix(MARKER) else { continue };
        match table(file, *number, marker, &lines[index + 1..], findings) {
            Ok(table) => tables.push(table),
            Err(what) => findings.push(Finding::at(&file.path, *number, what)),
        }
    }
    tables
}

fn table(
    file: &File,
    line: usize,
    marker: &str,
    rest: &[(usize, &str)],
    findings: &mut Vec<Finding>,
) -> Result<Record, String> {
    let words: Vec<&str> = marker.trim_end_matches("-->").split_whitespace().collect();
    let (name, size) = match words[..] {
        [name, size] => (name, size.parse().ok()),
        _ => ("", None),
    };
    let size = size.ok_or("a layout marker reads `<!-- layout: NAME SIZE -->`")?;
    let mut rows = rest
        .iter()
        .skip_while(|(_, text)| text.trim().is_empty())
        .take_while(|(_, text)| text.trim().starts_with('|'))
        .map(|(number, text)| (*number, cells(text)));
    if rows.next().is_none_or(|(_, header)| header != HEADER) {
        return Err(format!("{name}: a table `| {} |` must follow", HEADER.join(" | ")));
    }
    if !rows.next().is_some_and(|(_, rule)| rule.iter().all(|cell| is_rule(cell))) {
        return Err(format!("{name}: the line below the table's header must be a rule"));
    }
    let mut fields = Vec::new();
    for (number, cells) in rows {
        match row(&cells, number) {
            Some(field) => fields.push(field),
            None => {
                let what = format!("{name}: a row reads `| OFFSET | SIZE | NAME | meaning |`");
                findings.push(Finding::at(&file.path, number, what));
            }
        }
    }
    Ok(Record { name: name.into(), size, path: file.path.clone(), line, fields })
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim();
    let inner = line.strip_prefix('|').unwrap_or(line);
    inner.strip_suffix('|').unwrap_or(inner).split('|').map(str::trim).collect()
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| c == '-' || c == ':')
}

/// The meaning may hold `|`, the first three cells may not.
fn row(cells: &[&str], line: usize) -> Option<Field> {
    let [offset, size, name, _meaning, ..] = cells else { return None };
    let name = name.trim_matches('`');
    let field =
        Field { name: name.into(), offset: offset.parse().ok()?, size: size.parse().ok()?, line };
    (!name.is_empty()).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Record>, Vec<String>) {
        let file = File { path: "doc".into(), text: Some(text.into()) };
        let mut findings = Vec::new();
        let tables = tables(&file, &mut findings);
        (tables, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rows_end_with_the_table_and_other_tables_are_left_alone() {
        let (tables, findings) = read(
            "| offset | size | name | meaning |\n|-|-|-|-|\n| x | y | z | not marked |\n\n\
             <!-- layout: A 4 -->\n| offset | size | name | meaning |\n|--:|--:|---|---|\n\
             | 0 | 4 | `n` | a `\\|` b |\n\n| 9 | 9 | later | text |\n",
        );
        assert_eq!(findings, [""; 0]);
        let field = Field { name: "n".into(), offset: 0, size: 4, line: 8 };
        let path = "doc".to_owned();
        assert_eq!(
            tables,
            [Record { name: "A".into(), size: 4, path, line: 5, fields: vec![field] }]
        );
    }

    #[test]
    fn markers_headers_and_rows_that_cannot_be_read_are_found() {
        let header = "| offset | size | name | meaning |\n";
        for (text, line) in [
            ("<!-- layout: A -->\n".to_owned(), 1),
            ("<!-- layout: A 0x10 -->\n".to_owned(), 1),
            ("<!-- layout: A 4 -->\nText.\n".to_owned(), 1),
            ("<!-- layout: A 4 -->\n| size | offset | name | meaning |\n|-|-|-|-|\n".to_owned(), 1),
            (format!("<!-- layout: A 4 -->\n{header}| 0 | 4 | n | m |\n"), 1),
            (format!("<!-- layout: A 4 -->\n{header}|-|-|-|-|\n| 0x0 | 4 | n | m |\n"), 4),
            (format!("<!-- layout: A 4 -->\n{header}|-|-|-|-|\n| 0 | 4 | n |\n"), 4),
        ] {
            let (_, findings) = read(&text);
            assert_eq!(findings.len(), 1, "{text}");
            assert!(findings[0].starts_with(&format!("doc:{line}: ")), "{findings:?}");
        }
    }
}
