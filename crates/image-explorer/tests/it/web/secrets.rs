//! Passphrases that are typed into the page, and whom they are told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::made::{HELLO, Made};

use super::accessible::looked_at;
use super::browser::{Browser, ENTER, ESCAPE};
use super::looks::look;
use super::served::Served;

/// What is behind a port that belonged to an explorer: it takes all it is sent, and answers as
/// `answer` says, or never.
struct Stranger {
    got: Arc<Mutex<Vec<u8>>>,
}

impl Stranger {
    /// As soon as the port is free.
    fn at(address: SocketAddr, answer: Option<String>) -> Self {
        let began = Instant::now();
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
            }
        };
        let got = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, answer) = (Arc::clone(&all), answer.clone());
                std::thread::spawn(move || take(stream, &all, answer.as_deref()));
            }
        });
        Self { got }
    }

    fn got(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().unwrap()).into_owned()
    }
}

fn take(mut stream: TcpStream, all: &Mutex<Vec<u8>>, answer: Option<&str>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        all.lock().unwrap().extend_from_slice(&bytes[..count]);
        if let Some(answer) = answer {
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

#[test]
fn an_encrypted_volume_is_opened_in_the_page_and_its_passphrase_stays_nowhere() {
    const RIGHT: &str = "correct horse";
    let made = Made::new();
    let served = Served::start(&made.encrypted(RIGHT));
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Disk");
    browser.find("#status", "Enter asks for its passphrase");
    assert_eq!(
        browser.run("return document.querySelector('a[download]')"),
        serde_json::Value::Null
    );
    look(&browser, "encrypted");
    browser.press(ENTER);
    browser.find("dialog h2", "Encrypted volume");
    browser.until("document.activeElement.id === 'secret'");
    look(&browser, "volume");
    looked_at(&browser, "volume", true);
    browser.press(&format!("battery{ENTER}"));
    browser.until(
        "document.querySelector('#secret-said.bad') && document.activeElement.id === 'secret'",
    );
    browser.find("#secret-said", "does not open /p0");
    look(&browser, "volume-wrong");
    browser.press(&format!("{RIGHT}{ENTER}"));
    browser.shows("Folder p0");
    browser.click(".row .open", "etc/");
    browser.shows("Folder etc");
    browser.click(".row .open", "hello.txt");
    browser.find("#list .row", HELLO.trim());
    browser.press(ESCAPE);
    let everywhere = "return document.documentElement.outerHTML + location.href + JSON.stringify([
        {...localStorage}, {...sessionStorage}, history.state,
        performance.getEntries().map((entry) => entry.name)])";
    let all = browser.run(everywhere).as_str().unwrap().to_owned();
    assert!(all.len() > 1000 && !all.contains(RIGHT) && !all.contains("battery"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_whose_explorer_is_gone_believes_nobody_who_has_its_port() {
    let made = Made::new();
    made.back_up(None);
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    let scene = r#"{"version":1,"seen":99,"kind":"sets","trail":["stolen"],"columns":[],"main":0,
        "len":0,"empty":"","selected":null,"notes":[],"tabs":[],"status":[],"said":"",
        "working":null,"keys":[],"over":null,"picture":false,"ended":false,"download":null,
        "asks":{"tried":false,"wrong":null,"volume":false,"why":null}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                aiv-explorer-run: 00000000000000000000000000000000\r\ncontent-length: ";
    let address = served.socket();
    drop(served);
    let stranger = Stranger::at(address, Some(format!("{head}{}\r\n\r\n{scene}", scene.len())));
    browser.find("[role=alert]", "another program answers");
    assert!(!browser.seen().contains("stolen"));
    assert!(stranger.got().contains("/scene?seen="), "it was asked");
    // Neither keys nor the back button disturb what is said.
    browser.press(&format!("q{ENTER}{ESCAPE}"));
    browser.find("[role=alert]", "another program answers");
}

#[test]
fn no_passphrase_is_sent_to_whoever_has_the_port_afterwards_and_says_nothing() {
    let made = Made::new();
    made.back_up(Some("correct horse"));
    let served = Served::start(&made.images());
    let browser = Browser::start();
    browser.go(&served.address);
    browser.shows("Sets in");
    browser.press("u");
    browser.until("document.activeElement.id === 'secret'");
    let address = served.socket();
    drop(served);
    let stranger = Stranger::at(address, None);
    browser.press(&format!("correct horse{ENTER}"));
    let began = Instant::now();
    while !stranger.got().contains("GET ") {
        assert!(began.elapsed() < Duration::from_secs(20), "the page asks who is there");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    let got = stranger.got();
    assert!(!got.contains("POST") && !got.contains("horse"), "{got}");
}
