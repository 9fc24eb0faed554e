//! Rows of a job as text.

/// One line of a table; a figure that does not exist is shown as a dash.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) wall_s: Option<f64>,
    /// Times the wall time of Aivory.
    pub(super) ratio: Option<f64>,
    /// Times the limit of the job.
    pub(super) x_limit: Option<f64>,
    pub(super) cpu_s: Option<f64>,
    pub(super) peak_rss: Option<u64>,
    pub(super) stored_bytes: Option<u64>,
    pub(super) remark: String,
}

const MIB: f64 = 1_048_576.0;
/// From here on whole MiB are exact enough.
const SMALL_MAX: u64 = 400 << 20;

const HEAD: [&str; 8] =
    ["tool", "wall s", "x aiv", "x limit", "CPU s", "RSS MiB", "size MiB", "remark"];

/// Renders a table, its numbers aligned to the right.
pub(super) fn render(title: &str, rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default()
    });
    let mut text = format!("{title}\n");
    for cells in lines {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            line += &match column {
                0 => format!("  {cell:<width$}"),
                7 => format!("  {cell}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

impl Row {
    fn cells(&self) -> [String; 8] {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
        };
        let mib = |bytes: Option<u64>| {
            bytes.map_or_else(|| "-".into(), |bytes| (bytes >> 20).to_string())
        };
        // Increments are small, and a hundredth of a MiB matters when nothing changed.
        let stored = match self.stored_bytes {
            Some(bytes) if bytes < SMALL_MAX => number(Some(bytes as f64 / MIB), 2),
            bytes => mib(bytes),
        };
        [
            self.name.clone(),
            number(self.wall_s, 2),
            number(self.ratio, 2),
            number(self.x_limit, 2),
            number(self.cpu_s, 2),
            mib(self.peak_rss),
            stored,
            self.remark.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_gaps_are_dashes() {
        let rows = [
            Row {
                name: "aiv".into(),
                wall_s: Some(1.234),
                ratio: Some(1.0),
                x_limit: Some(10.5),
                cpu_s: Some(2.0),
                peak_rss: Some(100 << 20),
                stored_bytes: Some(1443 << 20),
                remark: "checked".into(),
            },
            Row { name: "longer name".into(), ..Row::default() },
        ];
        let expected = "\
full
  tool         wall s  x aiv  x limit  CPU s  RSS MiB  size MiB  remark
  aiv            1.23   1.00    10.50   2.00      100      1443  checked
  longer name       -      -        -      -        -         -
";
        assert_eq!(render("full", &rows), expected);
    }
}
