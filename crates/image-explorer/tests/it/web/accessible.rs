//! Whoever does not see the page, has no mouse, or needs contrast: asked of what the browser tells
//! programs that read pages aloud, and of the colours it computes.

use serde_json::{Value, json};

use crate::made::Made;

use super::browser::{Browser, DOWN, ENTER, ESCAPE, TAB};
use super::served::Served;

/// What people can use must have a name in the tree that screen readers are given.
const CONTROLS: [&str; 8] =
    ["button", "link", "textbox", "tab", "grid", "row", "progressbar", "dialog"];

/// All that is told of the page: roles and names of what is not left out.
fn told(browser: &Browser) -> Vec<(String, String, Value)> {
    browser.inside("Accessibility.enable", json!({}));
    let tree = browser.inside("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
    let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
    nodes
        .map(|node| (text(&node["role"]), text(&node["name"]), node["properties"].clone()))
        .collect()
}

/// Everything that can be used has a name, and the page is in parts that have theirs.
fn is_told(browser: &Browser, screen: &str, is_dialog: bool) {
    let told = told(browser);
    for (role, name, _) in &told {
        assert!(
            !CONTROLS.contains(&role.as_str()) || !name.trim().is_empty(),
            "{screen}: a {role} without a name: {:?}",
            browser.run("return document.body.outerHTML")
        );
    }
    let has = |wanted: &str| told.iter().any(|(role, ..)| role == wanted);
    if is_dialog {
        // What lies under it is not there meanwhile.
        assert!(has("dialog") && !has("grid") && !has("main"), "{screen}: {told:?}");
        return;
    }
    for landmark in ["main", "banner", "contentinfo", "navigation", "toolbar", "status"] {
        assert!(has(landmark), "{screen}: no {landmark} in {told:?}");
    }
    let headings =
        "return [...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName).join()";
    assert_eq!(browser.run(headings), "H1,H2", "{screen}");
    assert_eq!(browser.run("return document.documentElement.lang"), "en");
    assert!(!browser.run("return document.title").as_str().unwrap().is_empty());
    let twice = "const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
                 return ids.filter((id, at) => ids.indexOf(id) !== at)";
    assert_eq!(browser.run(twice), json!([]), "{screen}");
    let points = "return ['labelledby', 'describedby', 'controls', 'activedescendant']
        .map((name) => `aria-${name}`)
        .flatMap((name) => [...document.querySelectorAll(`[${name}]`)].map((e) => e.getAttribute(name)))
        .filter((id) => id && !document.getElementById(id) && id !== 'dialog-title')";
    assert_eq!(browser.run(points), json!([]), "{screen}");
}

/// The contrast of every text with what is behind it, by the formula of WCAG 2.
const CONTRAST: &str = include_str!("contrast.js");

fn has_contrast(browser: &Browser, screen: &str) {
    for scheme in ["light", "dark"] {
        browser.size(1100, 760, scheme);
        // Colours that change slowly have changed.
        browser.until("document.getAnimations().length === 0");
        let found = browser.run(CONTRAST);
        assert!(found[0].as_u64() > Some(3), "{screen}: {found}");
        assert_eq!(found[1], json!([]), "{screen} in {scheme}");
    }
    browser.size(1100, 760, "light");
}

pub(crate) fn looked_at(browser: &Browser, screen: &str, is_dialog: bool) {
    is_told(browser, screen, is_dialog);
    has_contrast(browser, screen);
}

#[test]
fn everything_has_a_name_a_place_and_contrast_on_every_screen() {
    let made = Made::new();
    made.back_up(None);
    made.change();
    made.back_up(None);
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    looked_at(&browser, "sets", false);
    browser.press(ENTER);
    browser.shows("Recovery points of");
    looked_at(&browser, "points", false);
    let picture = told(&browser).into_iter().find(|(role, ..)| role == "image").unwrap();
    assert!(
        picture.1.contains("2 points") && picture.1.contains("1 full, 1 incremental"),
        "{}",
        picture.1
    );
    browser.press("?");
    browser.find("dialog h2", "Help");
    looked_at(&browser, "help", true);
    browser.press(ESCAPE);
    browser.until("!document.getElementById('dialog').open");
    browser.press("c");
    browser.shows("What is different");
    looked_at(&browser, "differences", false);
    browser.press(ESCAPE);
    browser.shows("Recovery points of");
    browser.press("i");
    browser.shows("Report");
    looked_at(&browser, "report", false);
    browser.press(ESCAPE);
    browser.shows("Recovery points of");
    browser.press(ENTER);
    browser.shows("Disk");
    looked_at(&browser, "disk", false);
    browser.press("b");
    browser.shows("Blocks of the point");
    looked_at(&browser, "blocks", false);
    browser.press(ESCAPE);
    browser.shows("Disk");
    browser.press(ENTER);
    browser.shows("Folder p1");
    looked_at(&browser, "folder", false);
    browser.press("/");
    browser.until("document.activeElement.id === 'line'");
    looked_at(&browser, "search", true);
    browser.press(&format!("hello{ENTER}"));
    browser.shows("Files found");
    looked_at(&browser, "found", false);
    browser.press(ENTER);
    browser.shows("File hello.txt");
    looked_at(&browser, "file", false);
    browser.press("q");
    browser.find("dialog h2", "End");
    looked_at(&browser, "leaving", true);
}

#[test]
fn focus_goes_everywhere_in_order_is_seen_and_is_where_one_goes_on() {
    let made = Made::new();
    made.back_up(None);
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    let focused = || {
        let script = "const e = document.activeElement;
            const isSeen = e.matches(':focus-visible') && getComputedStyle(e).outlineStyle !== 'none';
            return [e.id || e.dataset.key || e.textContent, isSeen]";
        browser.run(script)
    };
    // A new screen is where the keyboard is.
    assert_eq!(focused()[0], "list");
    browser.run("document.querySelector('.skip').focus()");
    let mut seen = Vec::new();
    for _ in 0..12 {
        let now = focused();
        let name = now[0].as_str().unwrap().to_owned();
        assert_eq!(now[1], true, "{name} is not seen to have the focus");
        seen.push(name);
        if seen.last().map(String::as_str) == Some("list") {
            break;
        }
        browser.press(TAB);
    }
    // Back cannot be used on the first screen.
    assert_eq!(seen, ["Skip to the content", "help", "quit", "Enter", "v", "u", "r", "list"]);
    // The list is one stop, in which arrows move; what is selected is told.
    browser.press(ENTER);
    browser.shows("Recovery points of");
    assert_eq!(focused()[0], "list");
    browser.press(DOWN);
    let row = browser.run(
        "const list = document.getElementById('list');
         const row = document.getElementById(list.getAttribute('aria-activedescendant'));
         return row.getAttribute('aria-selected')",
    );
    assert_eq!(row, "true");
    // A dialog keeps the focus, and gives it back.
    browser.press("?");
    browser.until("document.querySelector('dialog').contains(document.activeElement)");
    for _ in 0..4 {
        browser.press(TAB);
        let away =
            browser.run("return document.querySelector('main').contains(document.activeElement)");
        assert_eq!(away, false);
    }
    browser.press(ESCAPE);
    browser.until("document.activeElement.id === 'list'");
    // What is going on and what came of it is said.
    browser.press("m");
    browser.until("document.getElementById('live').textContent.includes('is marked')");
    // Whoever wants no motion gets none.
    let still = json!({"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]});
    browser.inside("Emulation.setEmulatedMedia", still);
    let moving = "const moves = (style) => style.transitionDuration !== '0s' || style.animationName !== 'none';
        return [...document.querySelectorAll('*')].filter((e) => moves(getComputedStyle(e))).length";
    assert_eq!(browser.run(moving), 0);
}
