//! Takes the terminal and panics: `tests/it/terminal.rs` looks at what is left of it.

use std::process::ExitCode;

use aiv_explorer_model::{Start, State};
use aiv_image_explorer::Screen;

fn main() -> ExitCode {
    let mut screen = Screen::take().expect("a terminal");
    let (state, _) = State::new(Start::Folder("/".into()), 80, 24);
    screen.draw(&state.page()).expect("a terminal");
    if std::env::args().any(|word| word == "other") {
        let other = std::thread::spawn(|| panic!("panicked on purpose"));
        other.join().expect_err("it panicked");
        return ExitCode::FAILURE;
    }
    panic!("panicked on purpose");
}
