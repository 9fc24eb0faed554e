//! What people do in a browser, with a mouse and with keys.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::made::{HELLO, Made, run};

use super::browser::{BACKSPACE, Browser, DOWN, END, ENTER, ESCAPE, HOME};
use super::disk::Disk;
use super::looks::look;
use super::served::Served;

/// Files that are, with `lost+found`, as many as are held.
const MANY: u32 = 99_999;
/// How long a key or a movement may take to be seen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn with_clicks_somebody_gets_from_the_sets_to_a_file_and_downloads_it() {
    let made = Made::new();
    made.back_up(None);
    made.change();
    made.back_up(None);
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    browser.click(".row .open", "disk");
    browser.shows("Recovery points of disk");
    // The newest is selected; a click beside the name of another selects that.
    browser.click(".row .cell", "full");
    browser.until("document.querySelector('.row.selected').innerText.includes('full')");
    browser.click("#tools button", "Open");
    browser.shows("Disk");
    browser.find("#picture svg", "p1 ext4");
    browser.click(".row .open", "p1");
    browser.shows("Folder p1");
    // It was made after the point that is open.
    assert!(!browser.seen().contains("new"), "{}", browser.seen());
    browser.click(".row .open", "etc/");
    browser.shows("Folder etc");
    browser.click(".row .open", "hello.txt");
    browser.shows("File hello.txt");
    browser.find("#list .row", HELLO.trim());
    browser.click("[role=tab]", "Hex");
    browser.find("#list .row", "68 65 6c 6c 6f");
    browser.click("[role=tab]", "Facts");
    browser.find("#list .row", "modified");
    browser.click("#tools button", "Download");
    assert_eq!(browser.downloaded("hello.txt"), HELLO.as_bytes());
    // The back button of the browser, and the names above the page.
    browser.run("history.back()");
    browser.shows("Folder etc");
    browser.click("a[download]", "");
    browser.downloaded("deep.zip");
    browser.click("#trail button", "disk");
    browser.shows("Recovery points of disk");
    browser.click("#trail button", "images");
    browser.shows("Sets in");
    browser.click("#quit", "End");
    browser.click("dialog button", "End it");
    browser.find("[role=alert]", "has ended");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn whoever_clicks_twice_opens_one_thing() {
    let disk = Disk::new(8, "files", |tree| fs::create_dir_all(tree.join("a/b/c/d")).unwrap());
    let served = Served::start(&disk.raw());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Disk");
    browser.click_twice(".row .cell", "ext");
    browser.shows("Folder p0");
    // Where the name was, another one is now.
    browser.click_twice(".row .open", "a/");
    browser.shows("Folder a");
    std::thread::sleep(Duration::from_millis(400));
    browser.shows("Folder a");
    // A download that fails leaves the page where it is.
    browser.run(
        "const link = document.createElement('a');
         [link.download, link.href] = ['', 'get?disk=9&path=x'];
         link.click()",
    );
    std::thread::sleep(Duration::from_millis(200));
    browser.shows("Folder a");
}

#[test]
fn with_keys_somebody_searches_compares_verifies_and_reads_the_help() {
    let made = Made::new();
    made.back_up(None);
    made.change();
    made.back_up(None);
    let mut served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    browser.press("v");
    browser.shows("Report: verified");
    browser.find("#list .row", ".aii: sound");
    browser.press(ESCAPE);
    browser.shows("Sets in");
    browser.press(ENTER);
    browser.shows("Recovery points of");
    browser.press("c");
    browser.shows("What is different");
    browser.find(".row .main", "new");
    browser.press(BACKSPACE);
    browser.shows("Recovery points of");
    browser.press("?");
    browser.find("dialog dd", "mark the point");
    browser.press(ESCAPE);
    browser.until("!document.getElementById('dialog').open");
    browser.press(HOME);
    browser.press(ENTER);
    browser.shows("Disk");
    browser.press("b");
    browser.shows("Blocks of the point");
    browser.find("#picture .key", "used");
    browser.press(ESCAPE);
    browser.shows("Disk");
    browser.press(ENTER);
    browser.shows("Folder p1");
    browser.press("/");
    browser.until("document.activeElement.id === 'line'");
    browser.press(&format!("*.conf{ENTER}"));
    browser.shows("Files found: *.conf");
    browser.find(".row .open", "etc/deep/other.conf");
    browser.press(ENTER);
    browser.shows("File other.conf");
    browser.find("#list .row", "a = b");
    // Where it is again after the page was loaded anew: one explorer has one state.
    browser.run("location.reload()");
    browser.shows("File other.conf");
    browser.press("q");
    browser.find("dialog h2", "End the explorer");
    browser.press(ESCAPE);
    browser.until("!document.getElementById('dialog').open");
    browser.press("q");
    browser.click("dialog button", "End it");
    assert_eq!(served.ends(), 0);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn what_takes_a_while_shows_how_far_it_is_and_can_be_stopped() {
    let made = Made::new();
    let disk = made.path("large.raw");
    let noise = "openssl enc -aes-128-ctr -pass pass:x -nosalt -in /dev/zero 2>/dev/null | \
                 head -c 150M > \"$1\"";
    run("sh", &["-c", noise, "sh", disk.to_str().unwrap()]);
    made.back_up_disk(&disk, None);
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    browser.click(".row .cell", "large");
    browser.find(".row.selected", "large");
    // As soon as it is there, it is pressed.
    browser.run(
        "const stop = document.getElementById('stop');
         window.seen = [];
         new MutationObserver(() => {
           const amount = document.getElementById('amount');
           if (document.getElementById('working').hidden) return;
           window.seen.push([document.getElementById('doing').textContent, amount.position]);
           if (amount.position > 0) stop.click();
         }).observe(document.querySelector('footer'), {subtree: true, childList: true, attributes: true});",
    );
    browser.press("v");
    browser.until("document.getElementById('working').hidden");
    browser.find("#status", "stopped");
    assert!(browser.run("return window.seen.length").as_u64() > Some(0));
    let seen = browser.run("return window.seen.find(([, far]) => far > 0)[0]");
    assert!(seen.as_str().unwrap().contains("verifying"), "{seen}");
    browser.shows("Sets in");
    assert!(!browser.seen().contains("Report"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_passphrase_is_typed_into_the_page_and_stays_nowhere_in_it() {
    const RIGHT: &str = "correct horse";
    let made = Made::new();
    made.back_up(Some(RIGHT));
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    browser.find(".row .cell", "1 locked");
    browser.press(ENTER);
    browser.shows("Recovery points of");
    browser.press(ENTER);
    browser.until("document.activeElement.id === 'secret'");
    browser.press(&format!("battery{ENTER}"));
    browser.find("#secret-said", "passphrase");
    browser.until(
        "document.querySelector('#secret-said.bad') && document.activeElement.id === 'secret'",
    );
    assert_eq!(browser.run("return document.getElementById('secret').value"), "");
    look(&browser, "passphrase");
    browser.press(&format!("{RIGHT}{ENTER}"));
    browser.shows("Disk");
    browser.press(ENTER);
    browser.shows("Folder p1");
    let everywhere = "return document.documentElement.outerHTML + location.href + JSON.stringify([
        {...localStorage}, {...sessionStorage}, history.state,
        performance.getEntries().map((entry) => entry.name)])";
    let all = browser.run(everywhere).as_str().unwrap().to_owned();
    assert!(all.len() > 1000 && !all.contains(RIGHT) && !all.contains("battery"));
}

#[test]
fn a_folder_of_many_files_is_scrolled_at_once_and_takes_little_memory() {
    let disk = Disk::filled_by_kernel(128, |tree| {
        for at in 0..MANY {
            fs::write(tree.join(format!("file-{at:06}.txt")), "").unwrap();
        }
    });
    let served = Served::start(&disk.raw());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Disk");
    browser.press(ENTER);
    browser.shows("Folder p0");
    let quick = |keys: &str, wanted: &str| {
        let began = Instant::now();
        browser.press(keys);
        browser.find(".row .main", wanted);
        let took = began.elapsed();
        let keys = u32::try_from(keys.chars().count()).unwrap();
        assert!(took < PATIENCE * keys, "{wanted}: {took:?}");
        let rows = browser.run("return document.querySelectorAll('#list .body .row').length");
        assert!(rows.as_u64() < Some(100), "{rows} rows are in the page");
        let selected = browser.run(
            "const list = document.getElementById('list');
             const row = document.getElementById(list.getAttribute('aria-activedescendant'));
             return [list.getAttribute('aria-rowcount'), row?.getAttribute('aria-rowindex')]",
        );
        // The head is a row, and so is lost+found, which comes first.
        assert_eq!(selected[0], json!((MANY + 2).to_string()));
        selected[1].as_str().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(quick(END, "file-099998.txt"), MANY + 2);
    assert_eq!(quick(HOME, "file-000000.txt"), 2);
    assert_eq!(quick(&DOWN.repeat(30), "file-000029.txt"), 32);
    // With the mouse, to the middle.
    let began = Instant::now();
    browser.run(
        "const list = document.getElementById('list'); list.scrollTop = list.scrollHeight / 2",
    );
    browser.find(".row .main", "file-05000");
    assert!(began.elapsed() < PATIENCE);
    // Of that, what the page itself takes, and how long it waited for rows.
    let drawn = browser.run(
        "const list = document.getElementById('list');
         const took = [];
         for (let at = 0; at < 20; at += 1) {
           const began = performance.now();
           list.scrollTop = (list.scrollHeight / 20) * at;
           list.dispatchEvent(new Event('scroll'));
           took.push(performance.now() - began);
         }
         return took.sort((a, b) => a - b)[10]",
    );
    assert!(drawn.as_f64() < Some(50.0), "{drawn} ms to draw");
    let asked = browser.run(
        "const asked = performance.getEntriesByType('resource').filter(({ name }) => name.includes('/rows?'));
         return asked.map(({ duration }) => duration).sort((a, b) => a - b)[Math.floor(asked.length / 2)]",
    );
    assert!(asked.as_f64() < Some(250.0), "{asked} ms for rows");
    browser.press("/");
    browser.until("document.activeElement.id === 'line'");
    browser.press(&format!("99998{ENTER}"));
    browser.shows("Files found: 99998");
    browser.find(".row .open", "file-099998.txt");
    let kib = served.memory_kib();
    assert!(kib < 128 << 10, "{kib} KiB at most");
    println!("{kib} KiB of memory at most");
    assert_eq!(browser.complaints(), [""; 0]);
}
