//! `aiv-explorer --web`, and a visitor who has its address.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::seen::memory_kib;

use super::http::{self, Answer};

/// The program, until this is dropped.
pub(crate) struct Served {
    child: Child,
    /// What it printed.
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(what: &Path) -> Self {
        Self::within(Path::new("/"), what.to_str().unwrap())
    }

    /// In a folder, which is then no part of what is shown.
    pub(crate) fn within(folder: &Path, what: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiv-explorer"));
        command
            .current_dir(folder)
            .arg("--web")
            .arg(what)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(|line| line.unwrap().trim().to_owned());
        let address = lines.find(|line| line.starts_with("http://"));
        Self { child, address: address.expect("it prints an address") }
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        self.address.split('/').nth(2).unwrap().parse().unwrap()
    }

    /// The path that all others begin with, with a slash at both ends.
    pub(crate) fn root(&self) -> String {
        format!("/{}/", self.address.split('/').nth(3).unwrap())
    }

    /// Uses the address, and returns the cookie.
    pub(crate) fn visit(&self) -> Visitor {
        let path = self.address.split_once(&self.host()).unwrap().1;
        let answer = http::ask(self.socket(), "GET", path, &[("Host", &self.host())], b"");
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        Visitor { socket: self.socket(), host: self.host(), root: self.root(), cookie }
    }

    pub(crate) fn host(&self) -> String {
        self.socket().to_string()
    }

    /// Waits until it ends by itself.
    pub(crate) fn ends(&mut self) -> i32 {
        self.child.wait().unwrap().code().expect("it ended by itself")
    }

    /// The most memory it has had.
    pub(crate) fn memory_kib(&self) -> u64 {
        memory_kib(self.id())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever has the cookie, without a browser.
pub(crate) struct Visitor {
    pub(crate) socket: SocketAddr,
    pub(crate) host: String,
    pub(crate) root: String,
    pub(crate) cookie: String,
}

impl Visitor {
    pub(crate) fn get(&self, name: &str, more: &[(&str, &str)]) -> Answer {
        let headers = [&[("Host", self.host.as_str()), ("Cookie", &self.cookie)], more].concat();
        http::ask(self.socket, "GET", &format!("{}{name}", self.root), &headers, b"")
    }

    pub(crate) fn post(&self, name: &str, body: &[u8]) -> Answer {
        let origin = format!("http://{}", self.host);
        let headers = [
            ("Host", self.host.as_str()),
            ("Cookie", &self.cookie),
            ("Origin", &origin),
            ("Content-Type", "application/json"),
        ];
        http::ask(self.socket, "POST", &format!("{}{name}", self.root), &headers, body)
    }

    /// What is shown once nothing is going on.
    pub(crate) fn scene(&self) -> Value {
        let mut seen = 0;
        loop {
            let answer = self.get(&format!("scene?seen={seen}"), &[]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let scene: Value = serde_json::from_slice(&answer.body).unwrap();
            if scene["working"].is_null() || !scene["asks"].is_null() {
                return scene;
            }
            seen = scene["seen"].as_u64().unwrap();
        }
    }

    /// What is shown once somebody is asked for a passphrase, and none is being tried.
    pub(crate) fn asked(&self) -> Value {
        loop {
            let scene = self.scene();
            if scene["asks"]["tried"] == false || scene["asks"].is_null() {
                return scene;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Does something, and returns what is shown once that is done.
    pub(crate) fn does(&self, events: Value) -> Value {
        let version = self.scene()["version"].clone();
        let body = json!({"version": version, "events": events}).to_string();
        let answer = self.post("events", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let now: Value = serde_json::from_slice(&answer.body).unwrap();
        match now["working"].is_null() {
            true => now,
            false => self.scene(),
        }
    }

    pub(crate) fn rows(&self, first: usize, count: usize) -> Vec<Value> {
        let version = self.scene()["version"].clone();
        let answer = self.get(&format!("rows?version={version}&first={first}&count={count}"), &[]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The row whose cells contain this text.
    pub(crate) fn row_of(&self, text: &str) -> (usize, Value) {
        let rows = self.rows(0, 200);
        let is_it = |row: &Value| {
            row[0].as_array().unwrap().iter().any(|c| c.as_str().unwrap().contains(text))
        };
        let at = rows.iter().position(is_it).unwrap_or_else(|| panic!("no {text:?} in {rows:?}"));
        (at, rows[at].clone())
    }

    /// Opens the row whose cells contain this text.
    pub(crate) fn open(&self, text: &str) -> Value {
        let (at, _) = self.row_of(text);
        self.does(json!([{"select": at}, {"key": "Enter"}]))
    }
}
