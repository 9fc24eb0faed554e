//! Pages as they are drawn, in three sizes, compared with stored text files: a line that is
//! selected has a `>` before it. `AIV_BLESS=1` writes them again.

use std::fs;
use std::path::Path;

use aiv_explorer_model::{Amount, Answer, Command, Event, Key, Lock, Page, Problem, Start, State};
use aiv_image_explorer::draw;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use crate::samples;

const SIZES: [(u16, u16); 3] = [(80, 24), (40, 10), (200, 60)];

/// A page as lines of text.
fn drawn(page: &Page, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, page)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| {
        let cells = (0..width).map(|x| &buffer[(x, y)]);
        let text: String = cells.map(|cell| cell.symbol()).collect();
        let selected = buffer[(0, y)].modifier.contains(Modifier::REVERSED);
        format!("{} {}", if selected && y > 0 { '>' } else { '|' }, text).trim_end().to_owned()
    };
    (0..height).map(|y| row(y) + "\n").collect()
}

/// One step on the way to a screen.
enum Do {
    Press(Key),
    Answer(Answer),
    Fail(Problem),
    Progress(Amount),
}

fn presses(text: &str) -> impl Iterator<Item = Do> + '_ {
    text.chars().map(|c| {
        Do::Press(match c {
            '\n' => Key::Enter,
            'v' => Key::Down,
            '^' => Key::Home,
            c => Key::Char(c),
        })
    })
}

fn sets() -> Do {
    Do::Answer(Answer::Sets(samples::sets(), vec!["other.txt: not an Aivory image".into()]))
}

/// Steps from the start to the disk of the first point.
fn to_disk() -> Vec<Do> {
    let mut steps = vec![sets()];
    steps.extend(presses("\n^\n"));
    steps.push(Do::Answer(Answer::Disk(samples::disk())));
    steps
}

fn to_files() -> Vec<Do> {
    let mut steps = to_disk();
    steps.extend(presses("v\n"));
    steps.push(Do::Answer(Answer::Files(samples::files())));
    steps
}

fn then(mut steps: Vec<Do>, more: impl IntoIterator<Item = Do>) -> Vec<Do> {
    steps.extend(more);
    steps
}

fn screens() -> Vec<(&'static str, Vec<Do>)> {
    let answer = Do::Answer;
    let preview = || answer(Answer::Preview(samples::preview()));
    let to_file = || then(to_files(), presses("vvv\n").chain([preview()]));
    let points = || then(vec![sets()], presses("\nr").chain([sets()]));
    let problem = Problem {
        line: "cannot open /mnt/backup/sda-009.aii: the disk is on fire".into(),
        hint: "use another copy of it".into(),
        lock: Lock::None,
        canceled: false,
    };
    let amount = Amount::Bytes { step: "checking the image", done: 3 << 20, total: 12 << 20 };
    vec![
        ("sets", vec![sets()]),
        ("points", points()),
        ("points-help", then(points(), presses("?"))),
        ("disk", to_disk()),
        ("files", then(to_files(), presses("vvvv"))),
        ("preview-text", to_file()),
        ("preview-hex", then(to_file(), [Do::Press(Key::Tab)])),
        ("preview-facts", then(to_file(), [Do::Press(Key::Tab), Do::Press(Key::Tab)])),
        ("map", then(to_disk(), presses("b").chain([answer(Answer::Map(samples::map()))]))),
        (
            "differences",
            then(
                vec![sets()],
                presses("\n^mv")
                    .chain(presses("c"))
                    .chain([answer(Answer::Differences(samples::differences()))]),
            ),
        ),
        ("search", then(to_files(), presses("/*.conf"))),
        ("extract", then(to_files(), presses("e"))),
        ("verifying", then(vec![sets()], [Do::Press(Key::Char('v')), Do::Progress(amount)])),
        ("problem", then(vec![sets()], presses("\n\n").chain([Do::Fail(problem)]))),
    ]
}

fn play(steps: Vec<Do>, width: u16, height: u16) -> State {
    let folder = Start::Folder("/mnt/backup".into());
    let (mut state, mut asked) = State::new(folder, width, height);
    for step in steps {
        let ticket = asked.iter().find_map(|command| match command {
            Command::Start { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let ticket = ticket.unwrap_or_default();
        let event = match step {
            Do::Press(key) => Event::Key(key),
            Do::Answer(answer) => Event::Answer { ticket, answer: Ok(answer) },
            Do::Fail(problem) => Event::Answer { ticket, answer: Err(problem) },
            Do::Progress(amount) => Event::Progress { ticket, amount },
        };
        let next = state.update(event);
        if !next.is_empty() {
            asked = next;
        }
    }
    state
}

#[test]
fn every_screen_is_drawn_as_it_is_stored_in_three_sizes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut wrong = Vec::new();
    for (width, height) in SIZES {
        for (name, steps) in screens() {
            let state = play(steps, width, height);
            let fresh = drawn(&state.page(), width, height);
            let file = format!("{name}-{width}x{height}.txt");
            let path = folder.join(&file);
            if std::env::var_os("AIV_BLESS").is_some() {
                fs::write(&path, &fresh).unwrap();
            }
            let stored = fs::read_to_string(&path).unwrap_or_default();
            if stored != fresh {
                wrong.push(format!("{file}:\n{fresh}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not as stored:\n{}", wrong.join("\n"));
}

#[test]
fn the_picture_in_the_readme_is_what_is_drawn() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, steps) = screens().into_iter().find(|(name, _)| *name == "points").unwrap();
    let (width, height) = (80, 14);
    let page = drawn(&play(steps, width, height).page(), width, height);
    let picture: String =
        page.lines().map(|line| line.get(2..).unwrap_or("").to_owned() + "\n").collect();
    assert!(readme.contains(&picture), "not in the README:\n{picture}");
}

#[test]
fn every_size_down_to_nothing_is_drawn_without_a_panic() {
    for (width, height) in [(1, 1), (1, 60), (200, 1), (2, 2), (3, 3), (12, 4), (19, 5), (300, 7)] {
        for (_, steps) in screens() {
            drawn(&play(steps, width, height).page(), width, height);
        }
    }
}

#[test]
fn a_page_made_for_another_size_is_drawn_as_far_as_it_fits() {
    for (_, steps) in screens() {
        let page = play(steps, 200, 60).page();
        drawn(&page, 30, 6);
        drawn(&page, 1, 1);
    }
}
