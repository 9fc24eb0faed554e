//! What pages and the explorer say to each other, as JSON.

use aiv_browse::Path;
use aiv_explorer_model::{
    BLOCK_KINDS, BlockMap, Event, Help, Key, Line, Overlay, Picture, Row, Scene, Tone,
};
use aiv_report::words::size;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

/// Events in one message.
const EVENTS_MAX: usize = 64;
/// Bytes of a line that is typed.
const TYPED_MAX: usize = 4096;

/// What somebody did, and what they saw when they did it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) version: u64,
    pub(crate) events: Vec<Event>,
}

impl Message {
    /// Reads one; `None` for anything else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let events = value.get("events")?.as_array()?;
        if events.len() > EVENTS_MAX {
            return None;
        }
        let events = events.iter().map(event).collect::<Option<_>>()?;
        Some(Self { version: value.get("version")?.as_u64()?, events })
    }
}

fn event(value: &Value) -> Option<Event> {
    let (name, value) = value.as_object().filter(|object| object.len() == 1)?.iter().next()?;
    let number = || usize::try_from(value.as_u64()?).ok();
    Some(match name.as_str() {
        "key" => Event::Key(key(value.as_str()?)?),
        "select" => Event::Select(number()?),
        "tab" => Event::Tab(number()?),
        "back" => Event::BackTo(number()?),
        "stop" if value.as_bool()? => Event::Stop,
        "typed" => {
            let line = value.as_str().filter(|line| line.len() <= TYPED_MAX)?;
            Event::Typed(line.to_owned())
        }
        _ => return None,
    })
}

/// A key by its name in browsers.
fn key(name: &str) -> Option<Key> {
    let mut chars = name.chars();
    Some(match (name, chars.next(), chars.next()) {
        (_, Some(c), None) => Key::Char(c),
        ("Enter", ..) => Key::Enter,
        ("Escape", ..) => Key::Escape,
        ("Backspace", ..) => Key::Backspace,
        ("Tab", ..) => Key::Tab,
        _ => return None,
    })
}

/// What is shown.
pub(crate) fn scene(scene: &Scene) -> Value {
    let columns = scene.columns.iter();
    let columns = columns.map(|c| json!([c.head, c.width, c.right, c.from]));
    let tabs = scene.tabs.iter().map(|(name, shown)| json!([name, shown]));
    json!({
        "version": scene.version,
        "kind": scene.kind,
        "trail": scene.trail,
        "columns": columns.collect::<Vec<_>>(),
        "main": scene.main,
        "len": scene.len,
        "empty": scene.empty,
        "selected": scene.selected,
        "notes": scene.notes,
        "tabs": tabs.collect::<Vec<_>>(),
        "status": line(&scene.status),
        "said": scene.said,
        "working": scene.working.as_ref().map(|working| json!({
            "text": working.text,
            "amount": working.amount,
        })),
        "keys": helps(&scene.keys),
        "over": scene.over.as_ref().map(overlay),
        "picture": scene.has_picture,
    })
}

fn line(line: &Line) -> Value {
    line.spans.iter().map(|span| json!([span.text, tone(span.tone)])).collect()
}

fn helps(keys: &[Help]) -> Value {
    keys.iter().map(|help| json!([help.key, help.short, help.long])).collect()
}

fn overlay(over: &Overlay) -> Value {
    match over {
        Overlay::Help { about, keys } => json!({"help": {"about": about, "keys": helps(keys)}}),
        Overlay::Problem { line, hint } => json!({"problem": {"line": line, "hint": hint}}),
        Overlay::Prompt { title, explained, text } => {
            json!({"prompt": {"title": title, "explained": explained, "text": text}})
        }
    }
}

/// Rows, with what each can be downloaded from on the disk of this number.
pub(crate) fn rows(rows: &[Row], disk: Option<u64>) -> Value {
    let row = |row: &Row| {
        let download = row.path.as_ref().zip(disk).map(|(path, disk)| address(path, disk));
        json!([row.cells, tone(row.tone), row.opens, download])
    };
    rows.iter().map(row).collect()
}

/// Where a file or folder of a disk is downloaded from.
pub(crate) fn address(path: &Path, disk: u64) -> String {
    let path = path.to_bytes();
    format!("get?disk={disk}&path={}", percent_encode(&path, NON_ALPHANUMERIC))
}

const fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Dim => "dim",
        Tone::Strong => "strong",
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
    }
}

/// A picture; that of blocks in at most `cells` cells.
pub(crate) fn picture(picture: &Picture<'_>, cells: usize) -> Value {
    match picture {
        Picture::Time(points) => {
            let point = |point: &aiv_explorer_model::PointMark| {
                let stored = point.size_stored;
                json!([point.time_unix_ms, point.time, stored, size(stored), point.sign])
            };
            json!({"time": points.iter().map(point).collect::<Vec<_>>()})
        }
        Picture::Disk(len, parts) => {
            let part = |part: &aiv_explorer_model::Part| {
                let text = size(part.len);
                json!([part.row, part.name, part.holds, part.start, part.len, text])
            };
            let parts: Vec<_> = parts.iter().map(part).collect();
            json!({"disk": {"len": len, "size": size(*len), "parts": parts}})
        }
        Picture::Blocks(map) => json!({"blocks": blocks(map, cells)}),
    }
}

/// Runs of cells of one kind, and how much there is of each.
fn blocks(map: &BlockMap, cells: usize) -> Value {
    let cells = map.cells(cells);
    let runs = cells.chunk_by(|a, b| a == b).map(|run| {
        let kind = run.first().copied().flatten().map_or("unknown", |kind| kind.name());
        json!([kind, run.len()])
    });
    let there = BLOCK_KINDS.into_iter().rev().filter(|&kind| map.bytes(kind) > 0);
    let legend = there.map(|kind| json!([kind.name(), size(map.bytes(kind))]));
    json!({
        "cells": cells.len(),
        "size": size(map.offset(1, 1)),
        "runs": runs.collect::<Vec<_>>(),
        "legend": legend.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_do_is_read() {
        let text = br#"{"version": 3, "events": [{"select": 7}, {"key": "Enter"}, {"key": "v"},
                        {"back": 1}, {"tab": 2}, {"stop": true}, {"typed": "*.txt"}]}"#;
        let message = Message::read(text).unwrap();
        assert_eq!(message.version, 3);
        assert!(matches!(
            &message.events[..],
            [
                Event::Select(7),
                Event::Key(Key::Enter),
                Event::Key(Key::Char('v')),
                Event::BackTo(1),
                Event::Tab(2),
                Event::Stop,
                Event::Typed(line),
            ] if line == "*.txt"
        ));
    }

    #[test]
    fn anything_else_is_not() {
        let many =
            format!(r#"{{"version": 1, "events": [{}]}}"#, vec![r#"{"tab":1}"#; 65].join(","));
        let long = format!(r#"{{"version": 1, "events": [{{"typed": "{}"}}]}}"#, "x".repeat(4097));
        for text in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"version": 1}"#,
            r#"{"version": -1, "events": []}"#,
            r#"{"version": 1, "events": [1]}"#,
            r#"{"version": 1, "events": [{}]}"#,
            r#"{"version": 1, "events": [{"key": "Enter", "tab": 1}]}"#,
            r#"{"version": 1, "events": [{"key": "F1"}]}"#,
            r#"{"version": 1, "events": [{"select": -1}]}"#,
            r#"{"version": 1, "events": [{"answer": 1}]}"#,
            &many,
            &long,
        ] {
            assert!(Message::read(text.as_bytes()).is_none(), "{text:.60}");
        }
        let deep = "[".repeat(100_000);
        assert!(Message::read(deep.as_bytes()).is_none());
    }

    #[test]
    fn an_address_is_one_whatever_a_name_is() {
        let path = Path::default().join(b"p1").join(b"a&b=c#d?e%2f\xff\r\n");
        let address = address(&path, 4);
        assert_eq!(address, "get?disk=4&path=%2Fp1%2Fa%26b%3Dc%23d%3Fe%252f%FF%0D%0A");
    }
}
