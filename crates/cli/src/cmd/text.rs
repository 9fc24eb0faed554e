//! `dump`, `format-spec`, `completions`, `man`: texts to read.

use std::path::Path;

use aiv_chain::locate_image_keyed;
use aiv_image_format::SPECIFICATION;
use aiv_report::{Failure, Outcome, json};
use clap::CommandFactory;
use serde_json::json;

use aiv_terminal::{SecretFiles, Session, print_stream};
use aiv_words::Args;

pub(crate) fn dump(
    image: &Path,
    unlock: &SecretFiles,
    session: &Session,
) -> Result<Outcome, Failure> {
    let keys = session.keys(image, unlock)?;
    let (path, image) = locate_image_keyed(image, &keys, session.job())?;
    if session.json {
        let mut text = String::new();
        aiv_image_format::dump(&image, &mut text)?;
        let lines: Vec<&str> = text.lines().collect();
        return Ok(Outcome::answer(
            json!({"image": json::path(&path), "lines": lines}),
            String::new(),
        ));
    }
    print_stream(|out| aiv_image_format::dump(&image, out))??;
    Ok(Outcome::answer(json!({}), String::new()))
}

pub(crate) fn format_spec() -> Outcome {
    Outcome::answer(json!({"specification": SPECIFICATION}), SPECIFICATION.to_owned())
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), "aiv", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Outcome::answer(json!({"shell": shell.to_string(), "script": script}), script)
}

/// The command without what only this program calls: completions would offer it.
fn shown() -> clap::Command {
    let all = Args::command();
    let commands = all.get_subcommands().filter(|command| !command.is_hide_set());
    let shown = clap::Command::new("aiv").version(env!("CARGO_PKG_VERSION"));
    let shown = shown.disable_help_subcommand(true).args(all.get_arguments());
    shown.subcommands(commands)
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
