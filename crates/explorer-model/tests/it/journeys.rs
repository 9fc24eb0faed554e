//! What people do, key by key.

use aiv_browse::Path;
use aiv_explorer_model::{
    Amount, Answer, Command, Event, Files, Key, Lock, Problem, ProvenNow, Start, State, Work,
};

use crate::samples;

/// Somebody at the explorer, and what was asked of the outside last.
struct Somebody {
    state: State,
    asked: Vec<Command>,
}

impl Somebody {
    fn at(start: Start) -> Self {
        let (state, asked) = State::new(start, 80, 24);
        Self { state, asked }
    }

    /// In a folder that was looked into.
    fn in_a_folder() -> Self {
        let mut somebody = Self::at(Start::Folder("/mnt/backup".into()));
        somebody.answer(Answer::Sets(samples::sets(), Vec::new()));
        somebody
    }

    /// At the disk of a point.
    fn at_a_disk() -> Self {
        let mut somebody = Self::in_a_folder();
        // The newest is sealed.
        somebody.keys(&[Key::Enter, Key::Up, Key::Enter]);
        somebody.answer(Answer::Disk(samples::disk()));
        somebody
    }

    /// In a folder of that disk.
    fn at_files() -> Self {
        let mut somebody = Self::at_a_disk();
        somebody.keys(&[Key::Down, Key::Enter]);
        somebody.answer(Answer::Files(samples::files()));
        somebody
    }

    fn keys(&mut self, keys: &[Key]) {
        for key in keys {
            self.asked = self.state.update(Event::Key(*key));
        }
    }

    fn types(&mut self, text: &str) {
        text.chars().for_each(|c| self.keys(&[Key::Char(c)]));
    }

    fn ticket(&self) -> u64 {
        let ticket = self.asked.iter().find_map(|command| match command {
            Command::Start { ticket, .. } => Some(*ticket),
            _ => None,
        });
        ticket.expect("something was asked for")
    }

    fn work(&self) -> Work {
        match self.asked.as_slice() {
            [Command::Start { work, .. }] => work.clone(),
            other => panic!("one thing to do: {other:?}"),
        }
    }

    fn answer(&mut self, answer: Answer) {
        let ticket = self.ticket();
        self.asked = self.state.update(Event::Answer { ticket, answer: Ok(answer) });
    }

    fn fail(&mut self, problem: Problem) {
        let ticket = self.ticket();
        self.asked = self.state.update(Event::Answer { ticket, answer: Err(problem) });
    }

    /// All that is seen.
    fn sees(&self) -> String {
        let page = self.state.page();
        let panel = page.panel.iter().flat_map(|panel| &panel.lines);
        let lines = [&page.title].into_iter().chain(&page.lines).chain(panel);
        let lines = lines.chain([&page.status, &page.keys]);
        lines.map(|line| line.text() + "\n").collect()
    }

    fn selected(&self) -> String {
        let page = self.state.page();
        page.lines.iter().find(|line| line.selected).map(|line| line.text()).unwrap_or_default()
    }
}

fn problem(lock: Lock) -> Problem {
    let (line, hint) = ("it is broken".to_owned(), "take another one".to_owned());
    Problem { line, hint, lock, canceled: false }
}

fn path(text: &str) -> Path {
    Path::parse(text.as_bytes()).expect("a path")
}

#[test]
fn from_a_folder_of_sets_down_to_a_file_and_back() {
    let mut somebody = Somebody::in_a_folder();
    assert!(somebody.sees().contains("sda"));
    somebody.keys(&[Key::Enter]);
    assert!(somebody.asked.is_empty(), "the points are known");
    assert!(somebody.selected().contains("locked"), "the newest is selected");
    somebody.keys(&[Key::Home, Key::Enter]);
    assert_eq!(somebody.work(), Work::Open { what: "/mnt/backup/sda-000.aiv".into() });
    somebody.answer(Answer::Disk(samples::disk()));
    somebody.keys(&[Key::Down, Key::Enter]);
    assert_eq!(somebody.work(), Work::List { path: path("/p2") });
    somebody.answer(Answer::Files(samples::files()));
    somebody.keys(&[Key::Enter]);
    assert_eq!(somebody.work(), Work::List { path: path("/p2/etc") });
    somebody.answer(Answer::Files(samples::files()));
    somebody.keys(&[Key::Down, Key::Down, Key::Down, Key::Enter]);
    assert_eq!(somebody.work(), Work::Read { path: path("/p2/etc/hello.txt"), facts: false });
    somebody.answer(Answer::Preview(samples::preview()));
    assert!(somebody.sees().contains("The first line"));
    for depth in (1..6).rev() {
        somebody.keys(&[Key::Escape]);
        assert_eq!((somebody.state.depth(), somebody.asked.len()), (depth, 0));
    }
    somebody.keys(&[Key::Escape]);
    assert!(somebody.sees().contains("q leaves"));
    somebody.keys(&[Key::Char('q')]);
    assert_eq!(somebody.asked, [Command::Stop, Command::Quit]);
    assert!(somebody.state.is_ended());
}

#[test]
fn a_file_is_looked_at_as_text_as_bytes_and_as_what_is_known_of_it() {
    let mut somebody = Somebody::at_files();
    somebody.keys(&[Key::End, Key::Up, Key::Up, Key::Char('i')]);
    assert_eq!(somebody.work(), Work::Read { path: path("/p2/hello.txt"), facts: true });
    somebody.answer(Answer::Preview(samples::preview()));
    assert!(somebody.sees().contains("modified"), "{}", somebody.sees());
    somebody.keys(&[Key::Tab]);
    assert!(somebody.sees().contains("The first line"));
    somebody.keys(&[Key::Tab]);
    assert!(somebody.sees().contains("54 68 65 20"), "{}", somebody.sees());
}

#[test]
fn a_sealed_point_asks_for_its_passphrase_once_and_is_then_opened() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Enter]);
    let open = somebody.work();
    somebody.fail(problem(Lock::Image));
    assert_eq!(somebody.work(), Work::Unlock { what: "/mnt/backup".into() });
    somebody.answer(Answer::Unlocked);
    assert_eq!(somebody.work(), open);
    somebody.answer(Answer::Disk(samples::disk()));
    somebody.keys(&[Key::Escape]);
    assert!(matches!(somebody.work(), Work::Scan { .. }), "what was sealed is known now");
    somebody.answer(Answer::Sets(samples::sets(), Vec::new()));
    assert!(somebody.selected().contains("locked"), "{}", somebody.selected());

    // A key that opens something else: told, and not asked for again and again.
    somebody.keys(&[Key::Enter]);
    somebody.fail(problem(Lock::Image));
    somebody.answer(Answer::Unlocked);
    somebody.fail(problem(Lock::Image));
    assert!(somebody.asked.is_empty());
    assert!(somebody.sees().contains("next: take another one"));
}

/// Whether somebody is asked for the passphrase of a volume, and whether once more.
fn asked_again(work: &Work) -> Option<bool> {
    match work {
        Work::UnlockVolume { asks, .. } => asks.as_ref().map(|asks| asks.again),
        _ => None,
    }
}

#[test]
fn an_encrypted_volume_is_tried_with_what_is_known_then_asked_for_three_times_and_gone_on_with() {
    let mut somebody = Somebody::at_a_disk();
    somebody.keys(&[Key::Down, Key::Enter]);
    let list = somebody.work();
    somebody.fail(problem(Lock::Volume));
    assert_eq!(somebody.work(), Work::UnlockVolume { path: path("/p2"), asks: None });
    for again in [false, true, true] {
        somebody.fail(problem(Lock::WrongKey));
        assert_eq!(asked_again(&somebody.work()), Some(again));
    }
    somebody.fail(problem(Lock::WrongKey));
    assert!(somebody.asked.is_empty() && somebody.sees().contains("next: take another one"));
    // Once more, and it opens.
    somebody.keys(&[Key::Escape, Key::Enter]);
    assert_eq!(somebody.work(), list);
    somebody.fail(problem(Lock::Volume));
    somebody.fail(problem(Lock::Volume));
    assert_eq!(asked_again(&somebody.work()), Some(false));
    somebody.answer(Answer::Disk(samples::disk()));
    assert_eq!(somebody.work(), list);
    somebody.answer(Answer::Files(samples::files()));
    assert!(somebody.selected().contains("etc/"));
    assert_eq!(somebody.state.depth(), 4);
}

#[test]
fn volumes_inside_of_an_encrypted_one_are_listed_where_it_was() {
    let mut somebody = Somebody::at_a_disk();
    somebody.keys(&[Key::Down, Key::Enter]);
    somebody.fail(problem(Lock::Volume));
    let mut disk = samples::disk();
    let mut inner = disk.volumes[1].clone();
    (inner.name, inner.path) = ("p2/vg/data".into(), path("/p2/vg/data"));
    disk.volumes.insert(2, inner);
    somebody.answer(Answer::Disk(disk));
    assert!(somebody.asked.is_empty() && somebody.state.is_at_rest());
    assert!(somebody.sees().contains("unlocked"), "{}", somebody.sees());
    assert!(somebody.selected().contains("p2"));
    somebody.keys(&[Key::Down, Key::Enter]);
    assert_eq!(somebody.work(), Work::List { path: path("/p2/vg/data") });
}

#[test]
fn what_is_encrypted_says_so_and_a_volume_that_stays_closed_is_a_problem_not_a_loop() {
    let mut somebody = Somebody::at(Start::Disk("disk.raw".into()));
    let mut disk = samples::disk();
    disk.volumes[0].closed = "encrypted: Enter asks for its passphrase".into();
    somebody.answer(Answer::Disk(disk.clone()));
    assert!(somebody.sees().contains("encrypted: Enter asks"), "{}", somebody.sees());
    somebody.keys(&[Key::Enter]);
    somebody.fail(problem(Lock::Volume));
    somebody.answer(Answer::Disk(disk));
    somebody.fail(problem(Lock::Volume));
    assert!(somebody.asked.is_empty() && somebody.sees().contains("it is broken"));
}

#[test]
fn keys_wait_while_something_goes_on_and_mean_what_they_mean_then() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Home, Key::Enter]);
    let ticket = somebody.ticket();
    somebody.keys(&[Key::Down]);
    assert!(somebody.sees().contains("1 key waits"), "{}", somebody.sees());
    somebody.keys(&[Key::Enter, Key::Char('j')]);
    assert!(somebody.sees().contains("3 keys wait"));
    let answer = |answer| Event::Answer { ticket, answer };
    somebody.asked = somebody.state.update(answer(Ok(Answer::Disk(samples::disk()))));
    assert_eq!(somebody.work(), Work::List { path: path("/p2") });
    somebody.answer(Answer::Files(samples::files()));
    assert!(somebody.selected().contains("home/"), "{}", somebody.selected());
    // A line that begins there is typed, whatever is in it.
    somebody.keys(&[Key::Enter]);
    let ticket = somebody.ticket();
    somebody.types("/q");
    somebody.asked = somebody
        .state
        .update(Event::Answer { ticket, answer: Ok(Answer::Files(samples::files())) });
    assert!(!somebody.state.is_ended());
    somebody.keys(&[Key::Enter]);
    let search = Work::Search { below: path("/p2/home"), pattern: "q".into() };
    assert_eq!(somebody.work(), search);
}

#[test]
fn keys_that_wait_are_bounded_and_forgotten_when_it_stops_or_goes_wrong() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Home, Key::Enter]);
    let ticket = somebody.ticket();
    somebody.keys(&[Key::Down; 50]);
    assert!(somebody.sees().contains("32 keys wait, no more are taken"), "{}", somebody.sees());
    let failed = Event::Answer { ticket, answer: Err(problem(Lock::None)) };
    somebody.state.update(failed);
    assert!(somebody.sees().contains("it is broken"), "no key put it away");
    somebody.keys(&[Key::Escape, Key::Enter, Key::Char('v'), Key::Escape]);
    assert!(somebody.state.is_at_rest() && somebody.sees().contains("stopped"));
    // Whoever asks for a passphrase is not answered by what was pressed before.
    somebody.keys(&[Key::End, Key::Enter]);
    let ticket = somebody.ticket();
    somebody.keys(&[Key::Enter]);
    let locked = Event::Answer { ticket, answer: Err(problem(Lock::Image)) };
    somebody.asked = somebody.state.update(locked);
    somebody.answer(Answer::Unlocked);
    assert!(matches!(somebody.work(), Work::Open { .. }));
    somebody.answer(Answer::Disk(samples::disk()));
    assert!(somebody.asked.is_empty() && somebody.state.is_at_rest());
}

#[test]
fn whoever_stops_what_has_ended_stays_where_they_are() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Char('v')]);
    let depth = somebody.state.depth();
    assert_eq!(somebody.state.update(Event::Stop), [Command::Stop]);
    assert!(somebody.state.is_at_rest() && somebody.sees().contains("stopped"));
    assert!(somebody.state.update(Event::Stop).is_empty());
    assert!(somebody.state.depth() == depth && somebody.sees().contains("stopped"));
}

#[test]
fn what_nobody_looks_at_any_more_stops_but_not_a_verification() {
    let mut somebody = Somebody::in_a_folder();
    assert!(somebody.state.update(Event::Abandoned).is_empty(), "nothing goes on");
    somebody.keys(&[Key::Char('v')]);
    assert!(somebody.state.update(Event::Abandoned).is_empty() && somebody.state.is_busy());
    somebody.keys(&[Key::Escape, Key::Enter, Key::Home, Key::Enter]);
    assert_eq!(somebody.state.update(Event::Abandoned), [Command::Stop]);
    assert!(somebody.state.is_at_rest() && somebody.sees().contains("no page was open"));
}

#[test]
fn a_problem_is_shown_with_its_next_step_and_any_key_puts_it_away() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Enter]);
    somebody.fail(problem(Lock::None));
    let seen = somebody.sees();
    assert!(seen.contains("it is broken") && seen.contains("next: take another one"), "{seen}");
    somebody.keys(&[Key::Escape]);
    assert!(!somebody.sees().contains("it is broken"));
    assert_eq!(somebody.state.depth(), 2);
}

#[test]
fn what_goes_on_shows_how_far_it_is_and_escape_stops_it() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Char('v')]);
    let what = "/mnt/backup".into();
    assert_eq!(somebody.work(), Work::Verify { what, set: Some("aa".into()) });
    let ticket = somebody.ticket();
    let amount = Amount::Bytes { step: "checking the image", done: 1 << 20, total: 4 << 20 };
    somebody.state.update(Event::Progress { ticket, amount });
    assert!(somebody.sees().contains("verifying: checking the image, 25%"));
    somebody.keys(&[Key::Escape]);
    assert_eq!(somebody.asked, [Command::Stop]);
    assert!(somebody.sees().contains("stopped"));
    // Its answer comes too late.
    let report = Answer::Report { text: "sound".into(), bad: false, proven: Vec::new() };
    somebody.state.update(Event::Answer { ticket, answer: Ok(report) });
    assert_eq!(somebody.state.depth(), 1);
}

#[test]
fn a_verified_point_says_when_it_was_even_after_another_look_at_the_folder() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Up, Key::Up, Key::Char('v')]);
    assert_eq!(somebody.work(), Work::Verify { what: "/mnt/backup/sda-007.aiv".into(), set: None });
    assert!(somebody.selected().contains("never"));
    let file = "sda-007.aiv".to_owned();
    let proven = vec![ProvenNow { file, sound: true, time_unix_ms: 1_800_000_000_000 }];
    somebody.answer(Answer::Report { text: "sda-007.aiv: sound\n".into(), bad: false, proven });
    assert!(somebody.sees().contains("sda-007.aiv: sound"));
    somebody.keys(&[Key::Escape]);
    assert!(somebody.selected().contains("2027-01-15"), "{}", somebody.selected());
    somebody.keys(&[Key::Char('r')]);
    somebody.answer(Answer::Sets(samples::sets(), Vec::new()));
    assert!(somebody.selected().contains("2027-01-15"), "{}", somebody.selected());
}

#[test]
fn where_damage_was_found_the_folder_is_looked_into_again() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Home, Key::Char('v')]);
    let file = "sda-000.aiv".to_owned();
    let proven = vec![ProvenNow { file, sound: false, time_unix_ms: 1_800_000_000_000 }];
    somebody.answer(Answer::Report { text: "sda-000.aiv: DAMAGED\n".into(), bad: true, proven });
    somebody.keys(&[Key::Escape]);
    assert!(matches!(somebody.work(), Work::Scan { .. }), "others may be read through it");
    somebody.answer(Answer::Sets(samples::sets(), Vec::new()));
    assert!(somebody.selected().contains("DAMAGED"), "{}", somebody.selected());
}

#[test]
fn files_are_extracted_to_where_somebody_says() {
    let mut somebody = Somebody::at_files();
    somebody.keys(&[Key::Char('e')]);
    assert!(somebody.sees().contains("restored"));
    (0..8).for_each(|_| somebody.keys(&[Key::Backspace]));
    somebody.types("/q?");
    somebody.keys(&[Key::Enter]);
    assert_eq!(somebody.work(), Work::Extract { path: path("/p2/etc"), to: "/q?".into() });
    let text = "/q?: 3 files".into();
    somebody.answer(Answer::Report { text, bad: false, proven: Vec::new() });
    assert!(somebody.sees().contains("/q?: 3 files"));
}

#[test]
fn what_a_search_finds_leads_on() {
    let mut somebody = Somebody::at_files();
    somebody.keys(&[Key::Char('/')]);
    somebody.types("*.conf");
    somebody.keys(&[Key::Enter]);
    let search = Work::Search { below: path("/p2"), pattern: "*.conf".into() };
    assert_eq!(somebody.work(), search);
    let mut found = samples::files();
    found.rows[0].below.insert(0, b"deep".to_vec());
    found.more = 7;
    somebody.answer(Answer::Files(found));
    assert!(somebody.sees().contains("deep/etc/"), "{}", somebody.sees());
    assert!(somebody.sees().contains("and 7 more, not listed"));
    somebody.keys(&[Key::Enter]);
    assert_eq!(somebody.work(), Work::List { path: path("/p2/deep/etc") });
    // Nothing typed, nothing done.
    somebody.keys(&[Key::Escape, Key::Escape, Key::Char('/'), Key::Enter]);
    assert!(somebody.asked.is_empty() && somebody.state.is_at_rest());
}

#[test]
fn a_point_is_compared_with_the_one_before_or_the_one_that_is_marked() {
    let mut somebody = Somebody::in_a_folder();
    somebody.keys(&[Key::Enter, Key::Home, Key::Char('c')]);
    assert!(somebody.asked.is_empty());
    assert!(somebody.sees().contains("mark another point"));
    somebody.keys(&[Key::Down, Key::Char('c')]);
    let compare = |old: &str, new: &str| Work::Compare {
        old: format!("/mnt/backup/{old}").into(),
        new: format!("/mnt/backup/{new}").into(),
    };
    assert_eq!(somebody.work(), compare("sda-000.aiv", "sda-001.aii"));
    somebody.answer(Answer::Differences(samples::differences()));
    assert!(somebody.sees().contains("sda-000.aiv -> sda-001.aii"), "{}", somebody.sees());
    somebody.keys(&[Key::Escape, Key::End, Key::Char('m'), Key::Home, Key::Char('c')]);
    assert_eq!(somebody.work(), compare("sda-000.aiv", "sda-009.aii"), "the older one first");
}

#[test]
fn only_points_have_a_picture_of_their_blocks() {
    let mut somebody = Somebody::at_a_disk();
    somebody.keys(&[Key::Char('b')]);
    assert_eq!(somebody.work(), Work::Map);
    somebody.answer(Answer::Map(samples::map()));
    let seen = somebody.sees();
    assert!(seen.contains("# used") && seen.contains("! unreadable 64.00 KiB"), "{seen}");
    let mut raw = Somebody::at(Start::Disk("disk.raw".into()));
    raw.answer(Answer::Disk(aiv_explorer_model::DiskFacts { is_point: false, ..samples::disk() }));
    raw.keys(&[Key::Char('b')]);
    assert!(raw.asked.is_empty());
    assert!(raw.sees().contains("only recovery points"));
}

#[test]
fn folders_below_give_up_their_files_where_there_are_too_many_and_get_them_back() {
    let mut many = samples::files();
    let folder = many.rows[0].clone();
    many.rows = vec![folder; aiv_explorer_model::FILES_MAX];
    let mut somebody = Somebody::at_a_disk();
    for _ in 0..3 {
        somebody.keys(&[Key::Enter]);
        somebody.answer(Answer::Files(Files { rows: many.rows.clone(), ..Files::default() }));
    }
    somebody.keys(&[Key::Escape]);
    assert!(somebody.asked.is_empty(), "still held");
    somebody.keys(&[Key::Escape]);
    assert_eq!(somebody.work(), Work::List { path: path("/p1") });
    somebody.answer(Answer::Files(samples::files()));
    assert!(somebody.selected().contains("etc/"));
}

#[test]
fn every_screen_has_help_that_scrolls_where_it_does_not_fit() {
    let mut somebody = Somebody::at_files();
    somebody.state.update(Event::Resize { width: 40, height: 10 });
    somebody.keys(&[Key::Char('?')]);
    assert!(somebody.sees().contains("nothing is mounted") && !somebody.sees().contains("Ctrl-C"));
    somebody.keys(&[Key::End]);
    assert!(somebody.sees().contains("Ctrl-C"), "{}", somebody.sees());
    somebody.keys(&[Key::Char('q')]);
    assert!(somebody.state.is_ended());
}

#[test]
fn a_disk_that_cannot_be_opened_can_be_tried_again() {
    let mut somebody = Somebody::at(Start::Disk("/dev/sdx".into()));
    somebody.fail(problem(Lock::None));
    somebody.keys(&[Key::Enter]);
    assert!(somebody.sees().contains("nothing is open"));
    somebody.keys(&[Key::Char('r')]);
    assert_eq!(somebody.work(), Work::Open { what: "/dev/sdx".into() });
}

#[test]
fn what_is_selected_stays_selected_and_in_sight_whatever_becomes_of_size_and_list() {
    let mut somebody = Somebody::at_files();
    somebody.keys(&[Key::End]);
    assert!(somebody.selected().contains("größe"));
    for height in [5, 60, 5, 4, 6] {
        somebody.state.update(Event::Resize { width: 40, height });
        // On four lines there is no room but for the head of the list.
        assert_eq!(somebody.selected().contains("größe"), height > 4, "{height}");
    }
    somebody.keys(&[Key::Char('r')]);
    let mut fewer = samples::files();
    fewer.rows.truncate(2);
    somebody.answer(Answer::Files(fewer));
    assert!(somebody.selected().contains("home/"), "the last there is");
    somebody.keys(&[Key::Char('r')]);
    somebody.answer(Answer::Files(Files::default()));
    assert!(somebody.sees().contains("nothing is in this folder"));
    somebody.keys(&[Key::Enter, Key::Char('e'), Key::Char('i'), Key::Down]);
    assert!(somebody.asked.is_empty() && somebody.state.is_at_rest());
}
