//! The terminal, taken and given back.

use std::io::{self, Stdout};
use std::panic;
use std::sync::Once;

use aiv_explorer_model::Page;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
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

    /// Draws a page.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, page: &Page) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, page)).map(drop)
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
        self.terminal.clear()?;
        Ok(answer)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)
}

/// As it was, as far as it goes: nothing is left to be done about it where this fails.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
