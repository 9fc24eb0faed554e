//! The command `aiv-explorer`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aiv_chain::{KeyedChain, Keys, locate_chains};
use aiv_explorer_model::{Answer, Asks, Command, Event, Problem, Start, State, Work};
use aiv_explorer_web::{Ended, Setup, Web};
use aiv_explorer_work::{Outside, Worker};
use aiv_image_explorer::{Screen, end_with_the_terminal, key_of};
use aiv_report::{Exit, Failure, Verdict};
use aiv_terminal::{LuksFiles, SecretFiles, Session, is_root, print, random};
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use crossterm::event;

/// Look into folders of images, recovery points and disks, on a terminal or in a browser
///
/// Shows sets, points on a timeline, partitions, folders and files, without mounting anything and
/// without root; previews and finds files, gets them out, compares and verifies points. Sources
/// are only read. `?` explains the keys of every screen.
///
/// With --web it prints an address for a browser on this machine, which works once and in that
/// browser only. Files are downloaded there, folders as zip archives; nothing is written here.
/// From another machine, let ssh forward the port: ssh -L 4000:127.0.0.1:4000 HOST, and --port 4000.
#[derive(Parser)]
#[command(
    name = "aiv-explorer",
    version,
    after_help = "\
Examples:
  aiv-explorer /mnt/backup
  aiv-explorer /mnt/backup@latest
  aiv-explorer disk.qcow2
  aiv-explorer --web /mnt/backup
  aiv-explorer --man | man -l -
  aiv-explorer --completions bash > /etc/bash_completion.d/aiv-explorer"
)]
struct Args {
    /// A folder of images, an image, a raw or virtual disk, or a block device
    #[arg(value_name = "DIR|IMAGE|DISK", default_value = ".")]
    what: PathBuf,
    /// Show it in a browser on this machine, read-only
    #[arg(long)]
    web: bool,
    /// The port to listen on, of 127.0.0.1 only; any that is free unless it is given
    #[arg(
        long,
        value_name = "PORT",
        requires = "web",
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,
    /// Print a completion script for a shell
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
    /// Print the manual page
    #[arg(long, exclusive = true)]
    man: bool,
    #[command(flatten)]
    secrets: Secrets,
}

#[derive(clap::Args)]
struct Secrets {
    #[command(flatten)]
    unlock: SecretFiles,
    #[command(flatten)]
    luks: LuksFiles,
}

/// How long nothing is looked at while no key is pressed.
const TICK: Duration = Duration::from_millis(30);

/// Events between two pages: of keys that are held down, not each is drawn.
const NEWS_MAX: usize = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    let session = Arc::new(Session::new(false, true));
    let exit = begin(args, &session).unwrap_or_else(|failure| session.complain(&failure));
    ExitCode::from(exit.status())
}

fn begin(args: Args, session: &Arc<Session>) -> Result<Exit, Failure> {
    let Args { what, secrets, web, port, completions, man } = args;
    let mut text = Vec::new();
    if man {
        clap_mangen::Man::new(Args::command()).render(&mut text)?;
    } else if let Some(shell) = completions {
        clap_complete::generate(shell, &mut Args::command(), "aiv-explorer", &mut text);
    } else if web {
        return serve(what, &secrets, port, session);
    } else {
        return run(what, &secrets, session);
    }
    print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

/// Shows it in a browser, until the user leaves there or stops it here.
fn serve(
    what: PathBuf,
    secrets: &Secrets,
    port: u16,
    session: &Arc<Session>,
) -> Result<Exit, Failure> {
    let opener = Arc::clone(session);
    let web = Web::new(Setup {
        keys: session.keys(&what, &secrets.unlock)?,
        luks: secrets.luks.read()?,
        start: start_of(what),
        world: Arc::clone(session) as _,
        unlock: Arc::new(move |what, credential| {
            let chains = chains_of(&opener, what)?;
            let unlocked = opener.unlock_with(&chains, credential)?;
            Ok(unlocked.opened.into_iter().map(|opened| opened.key).collect())
        }),
        secret: random()?,
        port,
    });
    let web = web.map_err(Failure::io(format!("cannot listen on port {port} of 127.0.0.1")))?;
    print(&format!(
        "Open this address in a browser on this machine. It works once, in that browser only.\n\n  \
         {}\n\nCtrl-C ends the explorer, and so does q in the browser.\n",
        web.address()
    ))?;
    match web.serve(&|| session.job().check().is_err()) {
        Ended::Left => Ok(Exit::Done),
        Ended::Stopped => Ok(Exit::Canceled),
        Ended::Lost => Err(gone()),
    }
}

fn start_of(what: PathBuf) -> Start {
    if what.is_dir() { Start::Folder(what) } else { Start::Disk(what) }
}

fn run(what: PathBuf, secrets: &Secrets, session: &Arc<Session>) -> Result<Exit, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let hint = "start it on a terminal; `aiv list` and `aiv ls` write to files and pipes";
        let verdict = Verdict { code: "no_terminal", exit: Exit::Usage, hint };
        return Err(Failure::new(verdict, "the explorer needs a terminal"));
    }
    end_with_the_terminal();
    let mut keys = session.keys(&what, &secrets.unlock)?;
    let outside = Outside::new(Arc::clone(session) as _, is_root()).with_luks(secrets.luks.read()?);
    let lost = || Failure::io("cannot draw on the terminal");
    // Dropped last: what takes a while to stop is waited for when the terminal is given back.
    let mut worker = Worker::with(outside);
    let mut screen = Screen::take().map_err(lost())?;
    let (width, height) = screen.size().map_err(lost())?;
    let (mut state, mut commands) = State::new(start_of(what), width, height);
    let mut changed = true;
    loop {
        // What is done may ask for more.
        while !commands.is_empty() {
            let mut news = Vec::new();
            changed = true;
            for command in commands.drain(..) {
                match command {
                    Command::Start { ticket, work: Work::Unlock { what } } => {
                        let asked = screen.without(|| ask(session, &what, &mut keys));
                        let answer = asked.map_err(lost())?.map(|()| Answer::Unlocked);
                        let answer = answer.map_err(|failure| Problem::of(&failure));
                        news.push(Event::Answer { ticket, answer });
                    }
                    Command::Start { ticket, work } => {
                        let asks = match &work {
                            Work::UnlockVolume { asks, .. } => asks.as_ref(),
                            _ => None,
                        };
                        let ask = |asks: &Asks| screen.without(|| session.ask_luks_key(&asks.line));
                        match asks.map(ask).transpose().map_err(lost())?.transpose() {
                            Ok(key) => worker.begin_with(ticket, work, keys.clone(), key),
                            Err(failure) => {
                                let answer = Err(Problem::of(&failure));
                                news.push(Event::Answer { ticket, answer });
                            }
                        }
                    }
                    Command::Stop => worker.stop(),
                    // Where there is a terminal, files are extracted.
                    Command::Download { .. } => {}
                    Command::Quit => return Ok(Exit::Done),
                }
            }
            commands.extend(news.into_iter().flat_map(|event| state.update(event)));
        }
        if std::mem::take(&mut changed) {
            screen.draw(&state.page()).map_err(lost())?;
        }
        let mut news = worker.news().ok_or_else(gone)?;
        let mut patience = TICK;
        while news.len() < NEWS_MAX && event::poll(patience).map_err(lost())? {
            match event::read().map_err(lost())? {
                event::Event::Key(key) => news.extend(key_of(key).map(Event::Key)),
                event::Event::Resize(width, height) => news.push(Event::Resize { width, height }),
                _ => {}
            }
            patience = Duration::ZERO;
        }
        changed |= !news.is_empty();
        commands.extend(news.into_iter().flat_map(|event| state.update(event)));
        // A signal of another program; keys are none here.
        if session.job().check().is_err() {
            return Ok(Exit::Canceled);
        }
    }
}

/// Asks for what opens the images in `what`, and adds it to the keys.
fn ask(session: &Session, what: &Path, keys: &mut Keys) -> Result<(), Failure> {
    let chains = chains_of(session, what)?;
    let unlocked = session.unlock(&chains, &SecretFiles::default())?;
    unlocked.opened.iter().for_each(|opened| keys.add(opened.key.clone()));
    Ok(())
}

/// What is to be unlocked in `what`: at least one.
fn chains_of(session: &Session, what: &Path) -> Result<Vec<KeyedChain>, Failure> {
    let chains = locate_chains(what, session.job())?.1.chains;
    if chains.is_empty() {
        let hint = "there is nothing to unlock";
        let verdict = Verdict { code: "not_sealed", exit: Exit::Failed, hint };
        return Err(Failure::new(verdict, "no image here has a key"));
    }
    Ok(chains)
}

fn gone() -> Failure {
    let hint = "this is a bug; what was being written has not got its name";
    let verdict = Verdict { code: "failed", exit: Exit::Failed, hint };
    Failure::new(verdict, "the explorer lost its worker")
}
