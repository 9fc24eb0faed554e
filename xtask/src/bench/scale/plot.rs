//! Lines over logarithmic axes, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
// Room around the lines, for what is written there.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Told apart in print, on dark and on light ground, and by most people who see fewer colours.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#56b4e9", "#e69f00", "#7a9e00"];

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    /// Across and up, ascending, all of them above zero.
    pub(super) points: Vec<(f64, f64)>,
}

/// A picture of lines.
pub(super) struct Plot {
    pub(super) title: String,
    /// What is across.
    pub(super) across: String,
    pub(super) lines: Vec<Line>,
}

/// Whole powers of ten around values, of at least one decade.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(1e-3).log10().floor();
        let high = values.fold(1e-3, f64::max).log10().ceil();
        // Powers of ten of figures: a handful.
        #[expect(clippy::cast_possible_truncation, reason = "between -3 and some 20")]
        let (low, high) = (low as i32, high as i32);
        Self { low, high: high.max(low + 1) }
    }

    /// Where a value lies, from 0 to 1.
    fn share(self, value: f64) -> f64 {
        (value.max(1e-3).log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }
}

impl Plot {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let across = Axis::around(points().map(|point| point.0));
        let up = Axis::around(points().map(|point| point.1));
        let x = |value| LEFT + across.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n",
            title = escaped(&self.title),
        );
        let line = |svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64| {
            let _ = writeln!(
                svg,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#d0d0d0\"/>"
            );
        };
        for power in across.low..=across.high {
            let at = x(10f64.powi(power));
            line(&mut svg, at, TOP, at, HEIGHT - BOTTOM);
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                10f64.powi(power)
            );
        }
        for power in up.low..=up.high {
            let at = y(10f64.powi(power));
            line(&mut svg, LEFT, at, WIDTH - RIGHT, at);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                10f64.powi(power)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escaped(&self.across)
        );
        for (number, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let path: Vec<String> =
                line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            // Every second trio is dashed, so that no line is told by its colour alone.
            let dash = if number / 3 % 2 == 1 { " stroke-dasharray=\"5 3\"" } else { "" };
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                path.join(" ")
            );
            let at = TOP + 14.0 + 20.0 * number as f64;
            let (from, to) = (WIDTH - RIGHT + 8.0, WIDTH - RIGHT + 28.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{from}\" y1=\"{at}\" x2=\"{to}\" y2=\"{at}\" stroke=\"{colour}\" \
                 stroke-width=\"2\"{dash}/>\n\
                 <text x=\"{}\" y=\"{}\" font-size=\"11\">{}</text>",
                to + 4.0,
                at + 4.0,
                escaped(&line.name)
            );
        }
        svg + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_covers_all_values_and_at_least_one_decade() {
        let axis = |values: &[f64]| Axis::around(values.iter().copied());
        assert_eq!(axis(&[0.5, 70.0]), Axis { low: -1, high: 2 });
        assert_eq!(axis(&[1.0, 1.0]), Axis { low: 0, high: 1 });
        assert_eq!(axis(&[1.0, 100.0]).share(10.0), 0.5);
        assert_eq!(axis(&[0.0, 1.0]).low, -3, "nothing is drawn as a thousandth");
    }

    #[test]
    fn every_line_is_drawn_within_the_picture_and_named() {
        let line =
            |name: &str, up| Line { name: name.into(), points: vec![(1.0, up), (64.0, up * 50.0)] };
        let plot = Plot {
            title: "a < b".into(),
            across: "TiB".into(),
            lines: vec![line("first", 0.02), line("second & third", 300.0)],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("<title>a &lt; b</title>") && svg.contains("second &amp; third"));
        let drawn = svg.lines().filter_map(|line| line.strip_prefix("<polyline points=\""));
        for pair in drawn.flat_map(|line| line.split('"').next().unwrap().split(' ')) {
            let (x, y) = pair.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!(
                (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                "{pair}"
            );
        }
    }
}
