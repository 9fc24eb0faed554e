//! How long both faces take for large folders and disks, what they read, and how much memory they
//! have: with bounds that a slow machine keeps, and figures for whoever wants to know.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::made::{Made, run};
use crate::points;
use crate::seen::{bytes_read, cpu_ms, memory_kib};
use crate::terminal::Terminal;
use crate::web::browser::{Browser, ENTER};
use crate::web::disk::Disk;
use crate::web::served::Served;

/// What anything may take here: a debug build, on a machine that others keep busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Milliseconds of a processor that the program may have had by then.
const CPU_MAX: u64 = 5000;
/// KiB of memory.
const MEMORY_MAX: u64 = 128 << 10;
/// Bytes that are read for the first listing of a disk.
const READ_MAX: u64 = 4 << 20;
/// Notes when the list was painted, counted from when the browser was told to go there.
const PAINTED: &str = "
    const watch = new MutationObserver(() => {
      if (!document.querySelector('#list .body .row:not(.waits)')) return;
      watch.disconnect();
      requestAnimationFrame(() => setTimeout(() => { window.painted = performance.now(); }));
    });
    watch.observe(document, { subtree: true, childList: true });";

/// Says how long something took, and checks it.
fn took(what: &str, time: Duration) {
    println!("{what}: {} ms", time.as_millis());
    assert!(time < PATIENCE, "{what}: {time:?}");
}

fn kept(what: &str, process: u32) {
    let (kib, ms) = (memory_kib(process), cpu_ms(process));
    println!("{what}: {kib} KiB of memory at most, {ms} ms of a processor");
    assert!(kib < MEMORY_MAX, "{what}: {kib} KiB of memory");
    assert!(ms < CPU_MAX, "{what}: {ms} ms of a processor");
}

#[test]
fn the_first_screen_of_a_folder_with_1000_points_is_there_at_once_in_both_faces() {
    let made = Made::new();
    points::many(&made.images(), 20, 50);
    let images = made.arg("images");
    for catalogue in ["without a catalogue", "with a catalogue"] {
        let began = Instant::now();
        let mut terminal = Terminal::start(&made.path("tree"), &[&images]);
        terminal.sees("restorable");
        took(&format!("terminal, sets, {catalogue}"), began.elapsed());
        assert!(terminal.screen().contains("  1000  restorable"), "{}", terminal.screen());
        let began = Instant::now();
        terminal.press("\r");
        terminal.sees("1000 of 1000");
        took("terminal, points", began.elapsed());
        kept("terminal, 1000 points", terminal.id());
        drop(terminal);

        let began = Instant::now();
        let served = Served::start(&made.images());
        let visitor = served.visit();
        visitor.scene();
        took(&format!("web, program to scene, {catalogue}"), began.elapsed());
        visitor.does(json!([{"key": "Enter"}]));
        kept("web, 1000 points", served.id());
        drop(served);
        // Made by a set that is verified.
        if catalogue == "without a catalogue" {
            let mut terminal = Terminal::start(&made.path("tree"), &[&images]);
            terminal.sees("restorable");
            terminal.press("\rv");
            terminal.sees(": sound");
        }
    }
    let browser = Browser::start();
    browser.inside("Page.addScriptToEvaluateOnNewDocument", json!({"source": PAINTED}));
    for round in 1..=3 {
        let served = Served::start(&made.images());
        browser.go(&served.address);
        browser.shows("Sets in");
        browser.until("window.painted");
        let painted = browser.run("return window.painted").as_f64().unwrap();
        took(&format!("web, painted, round {round}"), Duration::from_secs_f64(painted / 1000.0));
        // The points, by a key.
        browser.run(
            "addEventListener('keydown', () => { window.began = performance.now(); }, true);
             new MutationObserver((_, watch) => {
               if (!document.getElementById('heading').textContent.startsWith('Recovery')) return;
               if (!document.querySelector('#list .body .row:not(.waits)')) return;
               watch.disconnect();
               requestAnimationFrame(() => setTimeout(() => { window.points = performance.now(); }));
             }).observe(document.body, { subtree: true, childList: true });",
        );
        browser.press(ENTER);
        browser.shows("Recovery points of");
        browser.until("window.points");
        let took_ms = browser.run("return window.points - window.began").as_f64().unwrap();
        took("web, points painted", Duration::from_secs_f64(took_ms / 1000.0));
        let (rows, bars) = ("#list .body .row", "#picture .bar");
        let count = |what: &str| {
            browser.run(&format!("return document.querySelectorAll('{what}').length")).as_u64()
        };
        assert!(count(rows) < Some(100) && count(bars) == Some(1000), "{:?}", count(bars));
    }
}

#[test]
fn a_folder_of_100_000_files_takes_little_memory_on_a_terminal() {
    const MANY: u32 = 99_999;
    let disk = Disk::filled_by_kernel(128, |tree| {
        for at in 0..MANY {
            fs::write(tree.join(format!("file-{at:06}.txt")), "").unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(folder.path(), &[disk.raw().to_str().unwrap()]);
    terminal.sees("ext");
    let began = Instant::now();
    terminal.press("\r");
    terminal.sees("1 of 100000");
    println!("terminal, listed: {} ms", began.elapsed().as_millis());
    let began = Instant::now();
    terminal.press("G");
    terminal.sees("file-099998.txt");
    took("terminal, its end", began.elapsed());
    terminal.press("/99998\r");
    terminal.sees("1 of 1\n");
    kept("terminal, 100000 files", terminal.id());
}

/// A disk of a tebibyte with a filesystem on all of it, and a point of it.
fn tebibyte(made: &Made) -> [PathBuf; 2] {
    let disk = made.path("large.raw");
    File::create(&disk).unwrap().set_len(1 << 40).unwrap();
    let (tree, raw) = (made.arg("tree"), disk.to_str().unwrap());
    run("mkfs.ext4", &["-q", "-O", "^has_journal", "-T", "largefile4", "-d", &tree, raw]);
    let point = made.back_up_disk(&disk, None);
    [point, disk]
}

#[test]
fn the_first_listing_of_a_tebibyte_reads_little_and_is_there_at_once_in_both_faces() {
    let made = Made::new();
    for what in tebibyte(&made) {
        let name = what.file_name().unwrap().to_str().unwrap();
        let read = |face: &str, process| {
            let bytes = bytes_read(process);
            println!("{face}, {name}: {} KiB read", bytes >> 10);
            assert!(bytes <= READ_MAX, "{face}, {name}: {bytes} bytes read");
            kept(face, process);
        };
        let began = Instant::now();
        let mut terminal = Terminal::start(&made.path("tree"), &[what.to_str().unwrap()]);
        terminal.sees("ext4");
        terminal.press("\r");
        terminal.sees("etc/");
        took("terminal, first listing", began.elapsed());
        read("terminal", terminal.id());
        let began = Instant::now();
        let served = Served::start(&what);
        let visitor = served.visit();
        let listed = visitor.does(json!([{"key": "Enter"}]));
        took("web, first listing", began.elapsed());
        assert_eq!(listed["kind"], "folder");
        visitor.row_of("etc/");
        read("web", served.id());
    }
}
