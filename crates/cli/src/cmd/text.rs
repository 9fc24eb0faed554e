//! `dump`, `format-spec`, `completions`, `man`: texts to read.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use aiv_image_format::SPECIFICATION;
use aiv_report::{Failure, Outcome, json};
use clap::CommandFactory;
use serde_json::json;

use super::open;
use crate::args::Args;
use aiv_terminal::Session;

pub(crate) fn dump(image: &Path, session: &Session) -> Result<Outcome, Failure> {
    let (path, image) = open(image, session)?;
    if session.json {
        let mut text = String::new();
        aiv_image_format::dump(&image, &mut text)?;
        let lines: Vec<&str> = text.lines().collect();
        return Ok(Outcome::answer(
            json!({"image": json::path(&path), "lines": lines}),
            String::new(),
        ));
    }
    let mut stream = Stream { out: BufWriter::new(io::stdout().lock()), failed: None };
    let dumped = aiv_image_format::dump(&image, &mut stream);
    match stream.failed.map_or_else(|| stream.out.flush(), Err) {
        // A reader that has seen enough is no error.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
        written => {
            written.map_err(Failure::io("cannot write to standard output"))?;
            dumped?;
        }
    }
    Ok(Outcome::answer(json!({}), String::new()))
}

/// Text that goes straight to standard output; keeps the error that `fmt` cannot carry.
struct Stream<W> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> fmt::Write for Stream<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.failed = Some(error);
            fmt::Error
        })
    }
}

pub(crate) fn format_spec() -> Outcome {
    Outcome::answer(json!({"specification": SPECIFICATION}), SPECIFICATION.to_owned())
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "aiv", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Outcome::answer(json!({"shell": shell.to_string(), "script": script}), script)
}

pub(crate) fn man(folder: Option<&Path>) -> Result<Outcome, Failure> {
    if let Some(folder) = folder {
        let failed = Failure::io(format!("cannot write manual pages to {}", folder.display()));
        clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
        let text = format!("the manual pages are in {}\n", folder.display());
        return Ok(Outcome::report(json!({"folder": json::path(folder)}), text));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page).into_owned();
    Ok(Outcome::answer(json!({"page": page}), page))
}
