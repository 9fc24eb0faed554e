//! Names, contents and labels that would do something, were they taken for more than text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use super::browser::{Browser, ENTER, ESCAPE};
use super::disk::Disk;
use super::served::Served;

/// What scripts would do, were they to run.
const RAN: &str = "window.ran = (window.ran ?? 0) + 1";

/// Names of files, as bytes.
fn names() -> Vec<Vec<u8>> {
    let names: [&[u8]; 16] = [
        b"<img src=x onerror='window.ran=1'>",
        b"<script>window.ran=1<\\script>",
        b"\"><svg onload=window.ran=1>",
        b"javascript:window.ran=1",
        b"a\r\nSet-Cookie: evil=1\r\n\r\n<b>x",
        b"quote\"; filename=\"evil.exe",
        b"..\\..\\evil.exe",
        b"%2e%2e%2fetc%2fpasswd",
        b"%0d%0aX-Evil: 1",
        b"photo\xe2\x80\xaegpj.exe",
        b"\xff\xfe\x80",
        b"{{constructor.constructor('window.ran=1')()}}",
        b"?path=%2fp0&disk=2#x",
        b"\x1b[2Jred",
        b" ",
        b"__proto__",
    ];
    names.map(<[u8]>::to_vec).to_vec()
}

fn disk() -> Disk {
    Disk::new(16, "<i>label</i>", |tree| {
        for name in names() {
            fs::write(tree.join(OsStr::from_bytes(&name)), name).unwrap();
        }
        let page = format!("<html><script>{RAN}</script><img src=x onerror=\"{RAN}\"></html>");
        fs::write(tree.join("page.html"), &page).unwrap();
        fs::write(
            tree.join("picture.svg"),
            format!("<svg xmlns='http://www.w3.org/2000/svg' onload='{RAN}'/>"),
        )
        .unwrap();
        let folder = tree.join("<b onclick=window.ran=1>folder<\\b>");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), "x").unwrap();
        std::os::unix::fs::symlink("<img src=x onerror=window.ran=1>", tree.join("link")).unwrap();
    })
}

/// Neither a script of an image ran, nor was one stopped from running: there was none.
fn nothing_ran(browser: &Browser, at: &str) {
    let ran = browser.run("return window.ran ?? null");
    assert!(ran.is_null(), "{at}: {ran}");
    let foreign = browser.run(
        "const foreign = ['img', 'iframe', 'object', 'embed', 'b', 'i', '[onerror]', '[onload]', '[onclick]',
           'script:not([src=\"explorer.js\"])'];
         return [...document.querySelectorAll(foreign.join())].map((e) => e.outerHTML)",
    );
    assert_eq!(foreign, json!([]), "{at}");
    assert_eq!(browser.complaints(), [""; 0], "{at}");
}

#[test]
fn names_and_contents_are_text_in_every_place_of_the_page() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Disk");
    browser.find(".row", "<i>label</i>");
    nothing_ran(&browser, "the disk");
    browser.press(ENTER);
    browser.shows("Folder p0");
    browser.find(".row", "<img src=x onerror='window.ran=1'>");
    // No name turns the order of what is around it.
    let turned = browser
        .run("return /[\\u202a-\\u202e\\u2066-\\u2069\\u001b]/.test(document.body.innerText)");
    assert_eq!(turned, false);
    nothing_ran(&browser, "the folder");
    for name in ["page.html", "picture.svg", "<img src=x", "<script>", "svg onload"] {
        browser.click(".row .open", name);
        browser.shows("File");
        for tab in ["Text", "Hex", "Facts"] {
            browser.click("[role=tab]", tab);
            browser.find("[role=tab][aria-selected=true]", tab);
            browser.shows("File");
            nothing_ran(&browser, name);
        }
        browser.press(ESCAPE);
        browser.shows("Folder p0");
    }
    browser.click(".row .open", "<b onclick");
    browser.shows("Folder <b onclick=window.ran=1>folder");
    nothing_ran(&browser, "a folder in it");
    browser.press("/");
    browser.until("document.activeElement.id === 'line'");
    browser.press(&format!("<img src=x onerror=window.ran=1>{ENTER}"));
    browser.shows("Files found: <img");
    nothing_ran(&browser, "a search");
    browser.press(&format!("{ESCAPE}{ESCAPE}"));
    browser.shows("Folder p0");
    // What it is asked to download, it does not show.
    let addresses =
        browser.run("return [...document.querySelectorAll('a[download]')].map((a) => a.href)");
    let page =
        addresses.as_array().unwrap().iter().find(|a| a.as_str().unwrap().contains("page%2Ehtml"));
    browser.run(&format!("location.assign({})", page.unwrap()));
    assert!(browser.downloaded("page.html").starts_with(b"<html><script>"));
    browser.shows("Folder p0");
    nothing_ran(&browser, "a download");
}

#[test]
fn no_name_adds_a_header_or_leads_out_of_the_disk() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = served.visit();
    visitor.does(json!([{"key": "Enter"}]));
    let rows = visitor.rows(0, 100);
    let addresses: Vec<&str> = rows.iter().filter_map(|row| row[3].as_str()).collect();
    // Each file, two more, a folder and lost+found; no link.
    assert_eq!((addresses.len(), rows.len()), (names().len() + 4, names().len() + 5));
    let mut contents = Vec::new();
    for address in addresses {
        assert!(
            address.bytes().all(|b| b.is_ascii_alphanumeric() || b"?=&%".contains(&b)),
            "{address}"
        );
        let answer = visitor.get(address, &[]);
        assert_eq!((answer.status, answer.is_whole), (200, true), "{address}");
        for name in ["set-cookie", "x-evil", "location", "refresh"] {
            assert_eq!(answer.header(name), None, "{address}");
        }
        let disposition = answer.header("content-disposition").unwrap();
        assert!(disposition.starts_with("attachment; filename=\""), "{disposition}");
        assert!(!disposition.contains(['/', '\\', '<', '>', '\r', '\n']), "{disposition}");
        assert_eq!(disposition.matches('"').count(), 2, "{disposition}");
        assert!(!answer.header("content-type").unwrap().contains("html"));
        assert!(answer.header("content-security-policy").unwrap().contains("sandbox"));
        contents.push(answer.body);
    }
    // Each address leads to its own file.
    for name in names() {
        assert!(contents.contains(&name), "{:?}", String::from_utf8_lossy(&name));
    }
}
