//! Chromium without a window, driven over the WebDriver protocol.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const DOWN: &str = "\u{e015}";
pub(crate) const HOME: &str = "\u{e011}";
pub(crate) const END: &str = "\u{e010}";
pub(crate) const BACKSPACE: &str = "\u{e003}";

/// A browser with a profile of its own. It ends when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    socket: SocketAddr,
    session: String,
    folder: tempfile::TempDir,
}

/// Something on a page.
#[derive(Debug, Clone)]
pub(crate) struct Element(String);

impl Browser {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Whatever a browser writes beside its profile.
        command.env("HOME", folder.path()).env("TMPDIR", folder.path());
        let mut driver = command.spawn().expect("chromedriver of the package chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("successfully on port ")
                .map(|(_, port)| port.trim_end_matches('.').parse().unwrap())
        });
        let socket = SocketAddr::from(([127, 0, 0, 1], port.expect("it names its port")));
        let profile = folder.path().join("profile");
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let prefs = json!({"download.default_directory": folder.path().join("downloads")});
        let options = json!({"binary": "/usr/bin/chromium", "args": args, "prefs": prefs});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Self { driver, socket, session: String::new(), folder };
        let made = browser.command("POST", "", &wanted);
        browser.session = format!("/{}", made["sessionId"].as_str().expect("a session"));
        browser.size(1100, 760, "light");
        browser
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.tried(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn tried(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let path = format!("/session{}{path}", self.session);
        let host = self.socket.to_string();
        let headers = [("Host", host.as_str()), ("Content-Type", "application/json")];
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let answer = http::ask(self.socket, method, &path, &headers, body.as_bytes());
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        if answer.status == 200 { Ok(value["value"].clone()) } else { Err(value) }
    }

    pub(crate) fn go(&self, address: &str) {
        self.command("POST", "/url", &json!({"url": address}));
    }

    /// What the body of a function returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Asks the browser itself, not the page.
    pub(crate) fn inside(&self, command: &str, params: Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// The size of the page, and whether it is light or dark.
    pub(crate) fn size(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.inside("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.inside("Emulation.setEmulatedMedia", scheme);
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&self, condition: &str) {
        let began = Instant::now();
        while self.run(&format!("return Boolean({condition})")) != true {
            assert!(began.elapsed() < PATIENCE, "never: {condition}\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// All text of the page.
    pub(crate) fn seen(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the heading is this, and what is listed is there.
    pub(crate) fn shows(&self, heading: &str) {
        let heading = json!(heading);
        self.until(&format!(
            "document.getElementById('heading')?.textContent.startsWith({heading}) && \
             document.getElementById('working').hidden && \
             (document.querySelector('#list .body .row, #list .nothing, #picture svg')) && \
             !document.querySelector('#list .waits')"
        ));
    }

    /// Waits for what a selector finds whose text contains this.
    pub(crate) fn find(&self, selector: &str, text: &str) -> Element {
        let script = format!(
            "return [...document.querySelectorAll({})].find(e => (e.innerText || e.textContent).includes({})) ?? null",
            json!(selector),
            json!(text)
        );
        let began = Instant::now();
        loop {
            let found = self.run(&script);
            if let Some(id) = found[ELEMENT].as_str() {
                return Element(id.to_owned());
            }
            assert!(began.elapsed() < PATIENCE, "no {selector} with {text:?}:\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// A click where the thing is, with the mouse. What is drawn anew meanwhile is found again.
    pub(crate) fn click(&self, selector: &str, text: &str) {
        let began = Instant::now();
        loop {
            let Element(id) = self.find(selector, text);
            match self.tried("POST", &format!("/element/{id}/click"), &json!({})) {
                Ok(_) => return,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{selector} {text}: {error}"),
            }
        }
    }

    /// Two clicks, as fast as somebody clicks who means to open something.
    pub(crate) fn click_twice(&self, selector: &str, text: &str) {
        let button = |what: &str| json!({"type": what, "button": 0});
        let wait = json!({"type": "pause", "duration": 120});
        let click = [button("pointerDown"), button("pointerUp")];
        let began = Instant::now();
        loop {
            let Element(id) = self.find(selector, text);
            let to = json!({"type": "pointerMove", "duration": 0, "origin": {ELEMENT: id},
                            "x": 0, "y": 0});
            let steps = [&[to][..], &click, std::slice::from_ref(&wait), &click].concat();
            let mouse = json!({"type": "pointer", "id": "mouse", "actions": steps});
            // The list may be drawn anew before the mouse is there: then nothing was clicked.
            match self.tried("POST", "/actions", &json!({"actions": [mouse]})) {
                Ok(_) => return,
                Err(error) => assert!(
                    error["value"]["error"] == "stale element reference"
                        && began.elapsed() < PATIENCE,
                    "{selector} {text}: {error}"
                ),
            }
        }
    }

    /// Keys on the keyboard, one after the other.
    pub(crate) fn press(&self, keys: &str) {
        let steps = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()}))
        });
        let steps: Vec<Value> = steps.collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": steps});
        self.command("POST", "/actions", &json!({"actions": [keyboard]}));
    }

    /// A PNG of what is seen.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let picture = self.command("GET", "/screenshot", &Value::Null);
        STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }

    /// What the browser complained of: scripts that failed, or were refused.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let all = log.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        all.collect()
    }

    /// The content of a file that was downloaded.
    pub(crate) fn downloaded(&self, name: &str) -> Vec<u8> {
        let path = self.folder.path().join("downloads").join(name);
        let began = Instant::now();
        loop {
            // It has its name before its bytes.
            if let Some(bytes) = std::fs::read(&path).ok().filter(|bytes| !bytes.is_empty()) {
                return bytes;
            }
            let there: Vec<_> = std::fs::read_dir(path.parent().unwrap())
                .map(|all| all.map(|one| one.unwrap().file_name()).collect())
                .unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "{name} was not downloaded: {there:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser first, which its driver would leave behind.
        if !self.session.is_empty() {
            let _ = self.tried("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
