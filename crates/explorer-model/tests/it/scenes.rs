//! What a face shows that has rows and clicks instead of lines and arrows.

use aiv_explorer_model::{
    Answer, Command, Event, Key, Lock, Overlay, Picture, Problem, Scene, Start, State, Work,
};

use crate::samples;

struct Page {
    state: State,
    asked: Vec<Command>,
}

impl Page {
    fn of_a_folder() -> Self {
        let (state, asked) = State::for_downloads(Start::Folder("/mnt/backup".into()));
        let mut page = Self { state, asked };
        page.answer(Answer::Sets(samples::sets(), vec!["a \u{1b}note".into()]));
        page
    }

    fn at_files() -> Self {
        let mut page = Self::of_a_folder();
        page.open(0);
        page.open(0);
        page.answer(Answer::Disk(samples::disk()));
        page.open(1);
        page.answer(Answer::Files(samples::files()));
        page
    }

    fn answer(&mut self, answer: Answer) {
        let Some(Command::Start { ticket, .. }) = self.asked.first() else {
            panic!("{:?}", self.asked)
        };
        let ticket = *ticket;
        self.does(Event::Answer { ticket, answer: Ok(answer) });
    }

    fn does(&mut self, event: Event) {
        self.asked = self.state.update(event);
    }

    fn open(&mut self, at: usize) {
        self.does(Event::Select(at));
        self.does(Event::Key(Key::Enter));
    }

    fn scene(&self) -> Scene {
        self.state.scene()
    }

    fn keys(&self) -> String {
        self.scene().keys.iter().map(|help| help.key).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn each_screen_has_a_name_a_trail_rows_and_keys() {
    let mut page = Page::of_a_folder();
    let scene = page.scene();
    assert_eq!((scene.kind, scene.trail), ("sets", vec!["/mnt/backup".to_owned()]));
    assert_eq!(scene.notes, ["a \u{fffd}note"]);
    assert_eq!((scene.len, page.state.rows(0, 99).len()), (2, 2));
    page.open(0);
    assert_eq!((page.scene().kind, page.scene().selected), ("points", Some(5)));
    assert_eq!(page.keys(), "? Esc q Enter i v m c u r");
    page.open(0);
    page.answer(Answer::Disk(samples::disk()));
    assert_eq!((page.scene().kind, page.scene().main), ("disk", 0));
    assert_eq!(page.keys(), "? Esc q Enter b d / r");
    page.open(1);
    page.answer(Answer::Files(samples::files()));
    let scene = page.scene();
    assert_eq!((scene.kind, scene.trail.len()), ("folder", 4));
    assert_eq!(scene.columns.get(scene.main).unwrap().head, "NAME");
    let first = page.state.rows(0, 1).remove(0);
    assert!(first.opens && first.path.is_some());
}

#[test]
fn rows_are_those_that_were_asked_for_and_no_more() {
    let page = Page::at_files();
    let (all, len) = (page.state.rows(0, usize::MAX), page.scene().len);
    assert_eq!(all.len(), len);
    assert_eq!(page.state.rows(1, 2), all[1..3]);
    assert_eq!(page.state.rows(len, 5), []);
    assert_eq!(page.state.rows(usize::MAX, usize::MAX), []);
}

#[test]
fn what_is_shown_has_another_number_when_it_is_something_else() {
    let mut page = Page::of_a_folder();
    let first = page.state.version();
    page.does(Event::Select(1));
    assert_eq!((page.state.version(), page.scene().selected), (first, Some(1)));
    page.does(Event::Select(99));
    assert_eq!(page.scene().selected, Some(1));
    page.open(0);
    assert!(page.state.version() > first);
}

#[test]
fn somebody_goes_back_to_any_screen_they_came_by() {
    let mut page = Page::at_files();
    page.does(Event::BackTo(9));
    assert_eq!(page.state.depth(), 4);
    page.does(Event::BackTo(2));
    assert_eq!((page.scene().kind, page.state.depth()), ("points", 2));
    page.does(Event::BackTo(0));
    assert_eq!(page.state.depth(), 1);
}

#[test]
fn a_line_that_was_typed_is_a_search_where_one_is_asked_for_and_nothing_elsewhere() {
    let mut page = Page::at_files();
    page.does(Event::Typed("*.conf".into()));
    assert_eq!((&page.asked[..], page.scene().over), (&[][..], None));
    page.does(Event::Key(Key::Char('/')));
    assert!(matches!(page.scene().over, Some(Overlay::Prompt { title: "find files", .. })));
    page.does(Event::Typed("*.c\u{1b}onf".into()));
    let [Command::Start { work: Work::Search { pattern, .. }, .. }] = &page.asked[..] else {
        panic!("{:?}", page.asked)
    };
    assert_eq!(pattern, "*.conf");
}

#[test]
fn files_are_downloaded_and_nothing_is_extracted() {
    let mut page = Page::at_files();
    page.does(Event::Key(Key::Char('e')));
    assert_eq!((&page.asked[..], page.scene().over), (&[][..], None));
    page.does(Event::Key(Key::Char('d')));
    let row = page.state.rows(0, 1).remove(0);
    assert_eq!(page.asked, [Command::Download { path: row.path.unwrap() }]);
    let rows = page.state.rows(0, 99);
    let link = rows.iter().position(|row| row.path.is_none()).expect("a link");
    page.does(Event::Select(link));
    page.does(Event::Key(Key::Char('d')));
    assert_eq!((&page.asked[..], page.scene().said.is_empty()), (&[][..], false));
}

#[test]
fn the_views_of_a_file_are_chosen_by_their_names() {
    let mut page = Page::at_files();
    page.does(Event::Key(Key::Char('i')));
    page.answer(Answer::Preview(samples::preview()));
    let shown = |page: &Page| page.scene().tabs.into_iter().find(|tab| tab.1).unwrap().0;
    assert_eq!((page.scene().kind, shown(&page)), ("preview", "facts"));
    page.does(Event::Tab(1));
    assert_eq!(shown(&page), "hex");
    page.does(Event::Tab(3));
    assert_eq!(shown(&page), "hex");
    page.does(Event::Key(Key::Char('t')));
    assert_eq!((shown(&page), page.scene().selected), ("facts", None));
}

#[test]
fn points_disks_and_blocks_are_pictures_too() {
    let mut page = Page::of_a_folder();
    assert!(page.state.picture().is_none());
    page.open(0);
    let Some(Picture::Time(marks)) = page.state.picture() else { panic!() };
    let signs: String = marks.iter().map(|mark| mark.sign).collect();
    assert_eq!(signs, "F!xF!?");
    page.open(0);
    page.answer(Answer::Disk(samples::disk()));
    let Some(Picture::Disk(len, parts)) = page.state.picture() else { panic!() };
    assert!(parts.iter().all(|part| part.start < len) && !parts.is_empty());
    page.does(Event::Key(Key::Char('b')));
    page.answer(Answer::Map(samples::map()));
    assert!(matches!(page.state.picture(), Some(Picture::Blocks(_))));
    assert_eq!(page.scene().selected, None);
}

#[test]
fn a_passphrase_is_asked_for_and_what_goes_wrong_is_told() {
    let mut page = Page::of_a_folder();
    page.does(Event::Key(Key::Char('u')));
    let working = page.scene().working.unwrap();
    assert!(working.asks && working.amount.is_none());
    let Some(Command::Start { ticket, .. }) = page.asked.first() else { panic!() };
    let problem = Problem {
        line: "it was \u{202e}wrong".into(),
        hint: "again".into(),
        lock: Lock::None,
        canceled: false,
    };
    let ticket = *ticket;
    page.does(Event::Answer { ticket, answer: Err(problem) });
    let line = "it was \u{fffd}wrong".to_owned();
    assert_eq!(page.scene().over, Some(Overlay::Problem { line, hint: "again".into() }));
    page.does(Event::Key(Key::Char('?')));
    page.does(Event::Key(Key::Char('?')));
    let Some(Overlay::Help { about, keys }) = page.scene().over else { panic!() };
    assert!(!about.is_empty() && keys.iter().all(|help| help.key != "Ctrl-C"));
}
