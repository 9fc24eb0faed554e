//! A player who presses anything, and an outside that answers anything: used by the test, and by
//! the campaign in `examples`.

use aiv_browse::Path;
use aiv_explorer_model::{
    Amount, Answer, Command, Event, Files, Key, Lock, PREVIEW_BYTES_MAX, Problem, ProvenNow,
    SetRow, Start, State, Work,
};
use aiv_testkit::Random;

use crate::samples;

/// Events in a sequence.
const EVENTS: usize = 48;
/// Keys that take the way out of anything: overlays, what is going on, screens.
const ESCAPES_PER_SCREEN: usize = 3;

fn key(random: &mut Random) -> Key {
    const KEYS: [Key; 14] = [
        Key::Up,
        Key::Down,
        Key::Left,
        Key::Right,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Enter,
        Key::Enter,
        Key::Escape,
        Key::Backspace,
        Key::Tab,
        Key::Enter,
    ];
    const CHARS: [char; 24] = [
        'v', 'u', 'r', 'i', 'm', 'c', 'b', 'e', '/', '?', ' ', 'j', 'k', 'g', 'G', 'x', '\u{0}',
        '\u{1b}', '東', '\u{301}', '\u{202e}', 'm', 'c', 'e',
    ];
    match random.below(3) {
        0 => Key::Char(CHARS[random.below(CHARS.len())]),
        _ => KEYS[random.below(KEYS.len())],
    }
}

fn number(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(),
        _ => random.next() % 100,
    }
}

fn size(random: &mut Random) -> u16 {
    const SIZES: [u16; 10] = [0, 1, 2, 3, 4, 5, 10, 24, 80, 300];
    SIZES[random.below(SIZES.len())]
}

fn sets(random: &mut Random) -> Vec<SetRow> {
    let mut sets = samples::sets();
    sets.truncate(random.below(3));
    for set in &mut sets {
        set.points.truncate(random.below(8));
        for point in &mut set.points {
            if random.below(4) == 0 {
                point.time_unix_ms = number(random);
                point.size_stored = number(random);
            }
        }
    }
    sets
}

fn files(random: &mut Random) -> Files {
    let mut files = samples::files();
    files.rows.truncate(random.below(8));
    files.more = number(random);
    files.notes = vec!["\u{1b}note".to_owned(); random.below(3)];
    files
}

/// Any answer, whatever was asked.
fn answer(random: &mut Random) -> Answer {
    match random.below(9) {
        0 => Answer::Sets(sets(random), vec!["a note".to_owned(); random.below(3)]),
        1 => {
            let mut disk = samples::disk();
            disk.volumes.truncate(random.below(4));
            disk.is_point = random.below(2) == 0;
            if let Some(volume) = disk.volumes.first_mut().filter(|_| random.below(2) == 0) {
                volume.closed = "encrypted\u{1b}".to_owned();
            }
            if random.below(4) == 0 {
                disk.len = number(random);
                disk.volumes.iter_mut().for_each(|volume| volume.start = Some(number(random)));
            }
            Answer::Disk(disk)
        }
        2 => Answer::Files(files(random)),
        3 => {
            let mut preview = samples::preview();
            let mut bytes = vec![0; random.below(300).min(PREVIEW_BYTES_MAX)];
            random.fill(&mut bytes);
            preview.bytes = bytes;
            preview.len = number(random);
            preview.path = Path::default();
            Answer::Preview(preview)
        }
        4 => Answer::Map(samples::map()),
        5 => Answer::Differences(samples::differences()),
        6 => {
            let file = "sda-001.aii".to_owned();
            let proven = vec![ProvenNow { file, sound: false, time_unix_ms: number(random) }];
            Answer::Report { text: "one\ntwo\u{1b}\n".repeat(random.below(9)), bad: true, proven }
        }
        _ => Answer::Unlocked,
    }
}

/// The answer to a question.
fn fitting(work: &Work, random: &mut Random) -> Answer {
    loop {
        let answer = answer(random);
        let fits = matches!(
            (work, &answer),
            (Work::Scan { .. }, Answer::Sets(..))
                | (Work::Open { .. } | Work::UnlockVolume { .. }, Answer::Disk(_))
                | (Work::List { .. } | Work::Search { .. }, Answer::Files(_))
                | (Work::Read { .. }, Answer::Preview(_))
                | (Work::Map, Answer::Map(_))
                | (Work::Compare { .. }, Answer::Differences(_))
                | (Work::Unlock { .. }, Answer::Unlocked)
                | (
                    Work::Verify { .. } | Work::Extract { .. } | Work::Describe { .. },
                    Answer::Report { .. }
                )
        );
        if fits {
            return answer;
        }
    }
}

fn problem(random: &mut Random) -> Problem {
    const LOCKS: [Lock; 4] = [Lock::None, Lock::Image, Lock::Volume, Lock::WrongKey];
    Problem {
        line: "it\u{1b} did not work ".repeat(random.below(60)),
        hint: "do something else".to_owned(),
        lock: LOCKS[random.below(LOCKS.len())],
        canceled: random.below(4) == 0,
    }
}

/// Plays one sequence, and leaves what it came to in every way there is.
pub(crate) fn play(seed: u64) -> usize {
    let mut random = Random::new(&[seed]);
    let what = "/mnt/backup".into();
    let start = if random.below(4) == 0 { Start::Disk(what) } else { Start::Folder(what) };
    let (mut state, commands) = match random.below(3) {
        0 => State::for_downloads(start),
        _ => State::new(start, size(&mut random), size(&mut random)),
    };
    let mut asked = asked_by(commands);
    let mut deepest = 0;
    for _ in 0..EVENTS {
        let event = match random.below(10) {
            0 => Event::Resize { width: size(&mut random), height: size(&mut random) },
            1..5 if !asked.is_empty() => {
                let (ticket, work) = asked.swap_remove(random.below(asked.len()));
                let answer = match random.below(8) {
                    0 => Err(problem(&mut random)),
                    1 => Ok(answer(&mut random)),
                    _ => Ok(fitting(&work, &mut random)),
                };
                Event::Answer { ticket, answer }
            }
            5 if random.below(4) == 0 => {
                Event::Answer { ticket: random.next() % 20, answer: Ok(answer(&mut random)) }
            }
            6 if random.below(2) == 0 => {
                let (done, total) = (number(&mut random), number(&mut random));
                let amount = Amount::Bytes { step: "working", done, total };
                Event::Progress { ticket: random.next() % 20, amount }
            }
            7 if random.below(2) == 0 => chosen(&mut random),
            8 if random.below(8) == 0 => Event::Abandoned,
            8 if random.below(4) == 0 => Event::Stop,
            _ => Event::Key(key(&mut random)),
        };
        asked.extend(asked_by(state.update(event)));
        check_page(&state);
        check_scene(&state, &mut random);
        deepest = deepest.max(state.depth());
    }
    leave(state.clone(), Key::Stop, 2);
    leave_by_escape(state);
    deepest
}

fn asked_by(commands: Vec<Command>) -> Vec<(u64, Work)> {
    let work = |command| match command {
        Command::Start { ticket, work } => Some((ticket, work)),
        Command::Stop | Command::Download { .. } | Command::Quit => None,
    };
    commands.into_iter().filter_map(work).collect()
}

/// What is done with a mouse, of things that are there or not.
fn chosen(random: &mut Random) -> Event {
    let at = usize::try_from(number(random)).unwrap_or(usize::MAX);
    match random.below(4) {
        0 => Event::Select(at),
        1 => Event::Tab(at % 5),
        2 => Event::BackTo(at % 9),
        _ => Event::Typed("*\u{1b}\u{202e}\n.txt".repeat(random.below(3))),
    }
}

/// What another face shows is all there, and holds nothing that acts on anything.
fn check_scene(state: &State, random: &mut Random) {
    let scene = state.scene();
    assert_eq!(scene.trail.len(), state.depth());
    assert!(scene.selected.is_none_or(|at| at == 0 || at < scene.len), "{scene:?}");
    let first = random.below(scene.len + 2);
    let rows = state.rows(first, 5);
    let there = scene.len.saturating_sub(first).min(5);
    assert_eq!(rows.len(), if scene.kind == "map" { 0 } else { there });
    let cells = rows.iter().flat_map(|row| {
        assert_eq!(row.cells.len(), scene.columns.len().max(1));
        &row.cells
    });
    let status = scene.status.spans.iter().map(|span| &span.text);
    for text in cells.chain(&scene.trail).chain(&scene.notes).chain(status).chain([&scene.said]) {
        let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(steers), "{text:?}");
    }
}

/// What is drawn fits, and holds nothing that acts on a terminal.
fn check_page(state: &State) {
    let page = state.page();
    let (_, height) = state.size();
    assert_eq!(page.lines.len(), height.saturating_sub(3));
    assert!(page.lines.iter().filter(|line| line.selected).count() <= 1);
    let panel = page.panel.iter().flat_map(|panel| &panel.lines);
    let all = page.lines.iter().chain([&page.title, &page.status, &page.keys]).chain(panel);
    for line in all {
        let text = line.text();
        let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(steers), "{text:?}");
    }
}

/// One key, as often as `times`, leaves the explorer.
fn leave(mut state: State, key: Key, times: usize) {
    for _ in 0..times {
        if state.is_ended() {
            return;
        }
        state.update(Event::Key(key));
    }
    assert!(state.is_ended(), "{state:?}");
}

/// Escape leads back to the first screen, though nobody answers any more; q ends it there.
fn leave_by_escape(mut state: State) {
    for _ in 0..state.depth() * ESCAPES_PER_SCREEN + ESCAPES_PER_SCREEN {
        state.update(Event::Key(Key::Escape));
    }
    assert!(state.is_ended() || (state.depth() == 1 && state.is_at_rest()), "{state:?}");
    leave(state, Key::Char('q'), 1);
}
