//! A page on a terminal.

use aiv_explorer_model::{Line, Page, Panel, Tone};
use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text;
use ratatui::widgets::{Block, Clear, Paragraph};

/// Draws a page on all of a frame, whatever its size is.
pub fn draw(frame: &mut Frame<'_>, page: &Page) {
    let area = frame.area();
    let last = usize::from(area.height).saturating_sub(1);
    put(frame, area, 0, &page.title, Modifier::REVERSED);
    for (at, line) in page.lines.iter().enumerate() {
        let marked = if line.selected { Modifier::REVERSED } else { Modifier::empty() };
        put(frame, area, at + 1, line, marked);
    }
    if last > 1 {
        put(frame, area, last - 1, &page.status, Modifier::empty());
    }
    if last > 0 {
        put(frame, area, last, &page.keys, Modifier::empty());
    }
    if let Some(panel) = &page.panel {
        put_panel(frame, area, panel);
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

fn put(frame: &mut Frame<'_>, area: Rect, at: usize, line: &Line, marked: Modifier) {
    let Some(row) = u16::try_from(at).ok().filter(|&row| row < area.height) else { return };
    let area = Rect { y: area.y + row, height: 1, ..area };
    let spans = line.spans.iter();
    let spans = spans.map(|span| text::Span::styled(span.text.as_str(), style(span.tone)));
    let line = text::Line::from_iter(spans);
    frame.render_widget(Paragraph::new(line).style(Style::new().add_modifier(marked)), area);
}

/// A box in the middle.
fn put_panel(frame: &mut Frame<'_>, area: Rect, panel: &Panel) {
    let fit = |inside: usize, room: u16| u16::try_from(inside + 2).map_or(room, |n| n.min(room));
    let (width, height) = (fit(panel.width, area.width), fit(panel.height, area.height));
    let (left, top) = ((area.width - width) / 2, (area.height - height) / 2);
    let outside = Rect { x: area.x + left, y: area.y + top, width, height };
    let block = Block::bordered().title(panel.title.as_str()).border_style(style(panel.tone));
    let inside = block.inner(outside);
    frame.render_widget(Clear, outside);
    frame.render_widget(block, outside);
    for (at, line) in panel.lines.iter().enumerate() {
        put(frame, inside, at, line, Modifier::empty());
    }
    let cursor = panel.cursor.and_then(|(x, y)| {
        let (x, y) = (u16::try_from(x).ok()?, u16::try_from(y).ok()?);
        (x < inside.width && y < inside.height).then(|| Position::new(inside.x + x, inside.y + y))
    });
    if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}
