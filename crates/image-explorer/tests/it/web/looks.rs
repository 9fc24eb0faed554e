//! Every screen as it looks: light, dark, and on a phone. `AIV_SHOTS=DIR` keeps the pictures.

use std::path::PathBuf;

use aiv_testkit::Random;

use crate::made::Made;

use super::browser::{BACKSPACE, Browser, DOWN, ENTER, ESCAPE};
use super::served::Served;

const LOOKS: [(&str, u32, u32, &str); 4] = [
    ("light", 1100, 760, "light"),
    ("dark", 1100, 760, "dark"),
    ("phone", 360, 640, "light"),
    ("phone-dark", 360, 640, "dark"),
];

/// Looks at a screen in every way, and at whether it fits.
pub(crate) fn look(browser: &Browser, name: &str) {
    for (look, width, height, scheme) in LOOKS {
        browser.size(width, height, scheme);
        browser.until("!document.querySelector('#list .waits')");
        let wide = browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert_eq!(wide, 0, "{name} is wider than a {look}");
        let picture = browser.picture();
        assert!(picture.len() > 5_000, "{name} in {look} shows something");
        if let Some(folder) = std::env::var_os("AIV_SHOTS") {
            std::fs::write(PathBuf::from(folder).join(format!("{name}-{look}.png")), picture)
                .unwrap();
        }
    }
    browser.size(1100, 760, "light");
}

#[test]
fn every_screen_fits_a_phone_and_a_desk_in_light_and_dark() {
    let made = Made::new();
    let mut noise = vec![0; 1 << 20];
    Random::new(&[7]).fill(&mut noise);
    // Days on which much happened, or little.
    for (day, kib) in [60, 300, 20, 900, 45, 130, 500, 15].into_iter().enumerate() {
        made.back_up(None);
        made.add(&format!("day-{day}"), &noise[day * 1000..][..kib << 10]);
    }
    made.back_up(None);
    let served = Served::within(made.images().parent().unwrap(), "images");
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    look(&browser, "sets");
    browser.press(ENTER);
    browser.shows("Recovery points of");
    look(&browser, "points");
    browser.press("?");
    browser.find("dialog h2", "Help");
    look(&browser, "help");
    browser.press(ESCAPE);
    browser.until("!document.getElementById('dialog').open");
    browser.press("i");
    browser.shows("Report: image");
    look(&browser, "report");
    browser.press(BACKSPACE);
    browser.shows("Recovery points of");
    browser.press("v");
    browser.shows("Report: verified");
    look(&browser, "verified");
    browser.press(ESCAPE);
    browser.shows("Recovery points of");
    browser.press("c");
    browser.shows("What is different");
    look(&browser, "differences");
    browser.press(ESCAPE);
    browser.shows("Recovery points of");
    browser.press(ENTER);
    browser.shows("Disk");
    look(&browser, "disk");
    browser.press("b");
    browser.shows("Blocks of the point");
    look(&browser, "map");
    browser.press(ESCAPE);
    browser.shows("Disk");
    browser.press(ENTER);
    browser.shows("Folder p1");
    look(&browser, "folder");
    browser.press("/");
    browser.find("dialog label", "names");
    look(&browser, "prompt");
    browser.press(&format!("[{ENTER}"));
    browser.find("dialog h2", "That did not work");
    look(&browser, "problem");
    browser.press(ESCAPE);
    browser.until("!document.getElementById('dialog').open");
    browser.press("/");
    browser.until("document.activeElement.id === 'line'");
    browser.press(&format!("hello{ENTER}"));
    browser.shows("Files found");
    look(&browser, "found");
    browser.press(ENTER);
    browser.shows("File hello.txt");
    look(&browser, "text");
    browser.press("t");
    browser.find("[role=tab][aria-selected=true]", "Hex");
    browser.shows("File hello.txt");
    look(&browser, "hex");
    browser.press("t");
    browser.find("[role=tab][aria-selected=true]", "Facts");
    browser.shows("File hello.txt");
    look(&browser, "facts");
    browser.press(&format!("{ESCAPE}{ESCAPE}"));
    browser.shows("Folder p1");
    browser.press("q");
    browser.find("dialog h2", "End the explorer");
    look(&browser, "leaving");
    browser.press(&format!("{ESCAPE}{DOWN}"));
    assert_eq!(browser.complaints(), [""; 0]);
}
