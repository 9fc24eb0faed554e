//! The terminal, taken and given back.

use std::io::{self, Stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_explorer_model::Page;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use crate::draw::draw;

/// The whole of the terminal. It is as before when this is dropped, and when any thread panics.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// What the system says where there is none.
    pub fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panicked| {
                give_back();
                before(panicked);
            }));
        });
        enter().inspect_err(|_| give_back())?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        Ok(Self { terminal: terminal.inspect_err(|_| give_back())? })
    }

    /// Draws a page, while the terminal is ours.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, page: &Page) -> io::Result<()> {
        match TAKEN.load(Ordering::SeqCst) {
            true => self.terminal.draw(|frame| draw(frame, page)).map(drop),
            // Another thread panicked, and what it said stays to be read.
            false => Ok(()),
        }
    }

    /// Columns and lines.
    ///
    /// # Errors
    /// What the system says.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    /// Gives the terminal back while something else asks on it.
    ///
    /// # Errors
    /// When it cannot be taken again.
    pub fn without<T>(&mut self, ask: impl FnOnce() -> T) -> io::Result<T> {
        give_back();
        let answer = ask();
        enter()?;
        // Nothing is left of what was drawn. (`Terminal::clear` waits for the terminal to tell
        // where its cursor is, which not all do.)
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(answer)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the terminal is ours. Given back twice, some put their cursor where it was before, and
/// what a panic says is written over.
static TAKEN: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))
}

/// As it was, as far as it goes: nothing is left to be done about it where this fails.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}
