//! Who is answered and who is not, and what answers are like: asked without a browser, which would
//! not say all of this.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::made::{HELLO, Made, run};

use super::disk::Disk;
use super::http::{self, Answer};
use super::served::{Served, Visitor};

/// Downloads at a time.
const DOWNLOADS: usize = 4;

fn disk() -> Disk {
    Disk::new(24, "files", |tree| {
        fs::create_dir_all(tree.join("etc/deep")).unwrap();
        fs::write(tree.join("etc/hello.txt"), HELLO).unwrap();
        fs::write(tree.join("etc/deep/empty"), "").unwrap();
        fs::write(tree.join("page.html"), "<script>alert(1)</script>").unwrap();
        File::create(tree.join("long")).unwrap().set_len(900 << 20).unwrap();
    })
}

/// Somebody at the files of a disk.
fn at_files(served: &Served) -> Visitor {
    let visitor = served.visit();
    visitor.does(json!([{"key": "Enter"}]));
    visitor
}

fn address(visitor: &Visitor, name: &str) -> String {
    visitor.row_of(name).1[3].as_str().expect("it can be downloaded").to_owned()
}

fn is_strict(answer: &Answer, what: &str) {
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{what}"));
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{what}: {name}");
    }
    assert!(answer.header("content-type").is_some(), "{what}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{what}");
}

#[test]
fn the_address_works_once_and_nobody_else_is_shown_anything() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let (to, host, root) = (served.socket(), served.host(), served.root());
    assert!(to.ip().is_loopback());
    let visitor = served.visit();
    let path = served.address.split_once(&host).unwrap().1;
    let again = http::ask(to, "GET", path, &[("Host", &host)], b"");
    assert_eq!((again.status, again.header("set-cookie")), (403, None));
    let page = visitor.get("", &[]);
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<title>Aivory explorer</title>"));
    let names = [
        "",
        "explorer.js",
        "scene?seen=0",
        "rows?version=1&first=0&count=9",
        "get?disk=1&path=%2Fp0",
    ];
    for name in names {
        let at = format!("{root}{name}");
        let plain = http::ask(to, "GET", &at, &[("Host", &host)], b"");
        assert_eq!(plain.status, 403, "{name}");
        let with = |more: &[(&str, &str)]| {
            let headers = [&[("Cookie", visitor.cookie.as_str())], more].concat();
            http::ask(to, "GET", &at, &headers, b"").status
        };
        assert_eq!(with(&[("Host", "rebound.example")]), 421, "{name}");
        assert_eq!(with(&[]), 421, "{name}");
        assert_eq!(with(&[("Host", &host), ("Sec-Fetch-Site", "cross-site")]), 403, "{name}");
        assert_eq!(with(&[("Host", &host), ("Sec-Fetch-Site", "same-site")]), 403, "{name}");
    }
    for path in ["/", "/scene", "/favicon.ico", "/robots.txt", "/../etc/passwd", "//"] {
        let headers = [("Host", host.as_str()), ("Cookie", &visitor.cookie)];
        assert_eq!(http::ask(to, "GET", path, &headers, b"").status, 404, "{path}");
    }
    // What another page could have a browser send.
    let form =
        [("Host", host.as_str()), ("Cookie", &visitor.cookie), ("Content-Type", "text/plain")];
    let version = visitor.scene()["version"].clone();
    let body = json!({"version": version, "events": [{"key": "q"}]}).to_string();
    let events = format!("{root}events");
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let origin: Vec<(&str, &str)> =
            origin.map(|origin| ("Origin", origin)).into_iter().collect();
        let headers = [&form[..], &origin].concat();
        let answer = http::ask(to, "POST", &events, &headers, body.as_bytes());
        assert_eq!(answer.status, 403, "{origin:?}");
        is_strict(&answer, "a refusal");
    }
    assert_eq!(visitor.scene()["ended"], false);
}

#[test]
fn every_answer_says_what_may_be_done_with_it() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = at_files(&served);
    let page = visitor.get("", &[]).text();
    let parts = page
        .split('"')
        .filter(|word| word.ends_with(".js") || word.ends_with(".css") || word.ends_with(".svg"));
    let parts: Vec<&str> = parts.collect();
    assert_eq!(parts.len(), 4, "{parts:?}");
    let modules = ["dialogs.js", "dom.js", "list.js", "pictures.js", "talk.js"];
    for part in parts.into_iter().chain(modules) {
        let answer = visitor.get(part, &[]);
        assert_eq!(answer.status, 200, "{part}");
        is_strict(&answer, part);
    }
    let html = address(&visitor, "page.html");
    let others = [
        "",
        "nothing",
        "scene?seen=0",
        "rows?version=0&first=0&count=1",
        "rows",
        "get",
        "get?disk=9&path=%2Fp0",
        "enter",
    ];
    for part in others.into_iter().chain([html.as_str()]) {
        is_strict(&visitor.get(part, &[]), part);
    }
    let contents = visitor.get(&html, &[]);
    assert_eq!(contents.text(), "<script>alert(1)</script>");
    assert_eq!(contents.header("content-type"), Some("application/octet-stream"));
    assert!(contents.header("content-security-policy").unwrap().contains("; sandbox;"));
    assert_eq!(contents.header("content-disposition"), Some("attachment; filename=\"page.html\""));
    for (body, status) in [(&b"{}"[..], 400), (b"", 400), (&[b'['; 60_000], 413)] {
        let answer = visitor.post("events", body);
        assert_eq!(answer.status, status);
        is_strict(&answer, "a body that is none");
    }
    assert_eq!(visitor.post("passphrase", b"\"nobody asked\"").status, 409);
}

#[test]
fn files_and_parts_of_files_come_as_they_are_and_folders_as_archives() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = at_files(&served);
    let folder = visitor.get(&address(&visitor, "etc/"), &[]);
    assert_eq!(folder.status, 200);
    assert!(folder.is_whole);
    assert_eq!(folder.header("content-type"), Some("application/zip"));
    assert_eq!(folder.header("content-disposition"), Some("attachment; filename=\"etc.zip\""));
    let there = tempfile::tempdir().unwrap();
    let arg = |name: &str| there.path().join(name).to_str().unwrap().to_owned();
    fs::write(arg("etc.zip"), folder.body).unwrap();
    run("unzip", &["-q", "-d", &arg("out"), &arg("etc.zip")]);
    let tree = disk.raw().with_file_name("tree").join("etc");
    run("diff", &["-r", tree.to_str().unwrap(), &arg("out/etc")]);
    visitor.open("etc/");
    let hello = address(&visitor, "hello.txt");
    let all = visitor.get(&hello, &[]);
    assert_eq!((all.status, all.text().as_str(), all.is_whole), (200, HELLO, true));
    assert_eq!(all.header("accept-ranges"), Some("bytes"));
    let part = |range: &str| visitor.get(&hello, &[("Range", range)]);
    let middle = part("bytes=6-9");
    assert_eq!((middle.status, middle.text().as_str()), (206, "from"));
    let range = format!("bytes 6-9/{}", HELLO.len());
    assert_eq!(middle.header("content-range"), Some(range.as_str()));
    assert_eq!(
        (part("bytes=-6").text().as_str(), part("bytes=15-").text().as_str()),
        ("image\n", "image\n")
    );
    let none = part("bytes=999-");
    let range = format!("bytes */{}", HELLO.len());
    assert_eq!((none.status, none.header("content-range")), (416, Some(range.as_str())));
    assert_eq!(part("bytes=0-1,3-4").text(), HELLO);
    // A disk that is no point may change: a part of what it was does not fit to what it is.
    let resumed = visitor.get(&hello, &[("Range", "bytes=6-9"), ("If-Range", "\"21\"")]);
    assert_eq!((resumed.status, resumed.text().as_str()), (200, HELLO));
    let head = http::ask(
        visitor.socket,
        "HEAD",
        &format!("{}{hello}", visitor.root),
        &[("Host", &visitor.host), ("Cookie", &visitor.cookie)],
        b"",
    );
    assert_eq!(head.header("content-length"), Some(HELLO.len().to_string().as_str()));
    for (path, status) in [
        ("get?disk=1&path=%2Fp0%2F..%2Fetc", 400),
        ("get?disk=1&path=%2Fp0%2Fetc%00", 400),
        ("get?disk=1", 400),
        ("get?disk=1&path=%2Fp0%2Fnothing", 404),
        ("get?disk=1&path=%2F", 404),
        ("get?disk=2&path=%2Fp0%2Fetc", 404),
        ("get?path=%2Fp0%2Fetc", 404),
    ] {
        assert_eq!(visitor.get(path, &[]).status, status, "{path}");
    }
}

#[test]
fn a_download_that_is_given_up_stops_and_makes_room_for_others() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = at_files(&served);
    let long = address(&visitor, "long");
    let begin = || {
        let (root, host, cookie) = (&visitor.root, &visitor.host, &visitor.cookie);
        let request =
            format!("GET {root}{long} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
        let mut stream = http::send(visitor.socket, request.as_bytes());
        let mut first = [0; 512];
        stream.read_exact(&mut first).unwrap();
        assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&first));
        stream
    };
    let streams: Vec<TcpStream> = (0..DOWNLOADS).map(|_| begin()).collect();
    let fifth = visitor.get(&long, &[("Range", "bytes=0-9")]);
    assert_eq!(fifth.status, 503, "{}", fifth.text());
    drop(streams);
    let began = Instant::now();
    while visitor.get(&long, &[("Range", "bytes=0-9")]).status != 206 {
        assert!(began.elapsed() < Duration::from_secs(20), "what was given up goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that is taken to its end is all there.
    let tail = visitor.get(&long, &[("Range", "bytes=-1000000")]);
    assert_eq!((tail.body.len(), tail.is_whole), (1_000_000, true));
    // All of it as an archive: 900 MiB of zeros become less than 1.
    visitor.does(json!([{"key": "Escape"}]));
    let all = visitor.get(&address(&visitor, "p0"), &[]);
    assert!(all.is_whole && all.status == 200 && all.body.len() > 100_000);
    let kib = served.memory_kib();
    assert!(kib < 64 << 10, "{kib} KiB at most");
}

#[test]
fn many_connections_and_long_or_slow_requests_keep_nobody_out_for_good() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = served.visit();
    let (to, host) = (served.socket(), served.host());
    let names: Vec<String> = (0..60).map(|at| format!("x-{at}")).collect();
    let many = names.iter().map(|name| (name.as_str(), "y")).chain([("Host", host.as_str())]);
    assert_eq!(http::ask(to, "GET", "/", &many.collect::<Vec<_>>(), b"").status, 431);
    let long = "x".repeat(100_000);
    assert_eq!(http::ask(to, "GET", "/", &[("Host", &host), ("x", &long)], b"").status, 431);
    for nonsense in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\r\n\r\n"]
    {
        assert_eq!(http::read(http::send(to, nonsense), false).status, 400);
    }
    let idle: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(to).unwrap()).collect();
    let slow: Vec<TcpStream> = (0..3).map(|_| http::send(to, b"GET / HTTP/1.1\r\nHo")).collect();
    // They are let go when they have done nothing for a while.
    assert_eq!(visitor.get("", &[]).status, 200);
    drop((idle, slow));
}

#[test]
fn whoever_is_refused_gets_one_answer_and_the_connection_ends() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = served.visit();
    let (to, host, root) = (served.socket(), served.host(), served.root());
    let ask = |path: &str, cookie: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
        let answer = http::read(http::send(to, head.as_bytes()), false);
        (answer.status, answer.header("connection").map(str::to_owned))
    };
    // Else whoever reads no answers could keep all connections for as long as downloads may take.
    let close = || Some("close".to_owned());
    assert_eq!(ask("/", ""), (404, close()));
    assert_eq!(ask(&root, "aiv-explorer=0"), (403, close()));
    assert_eq!(ask(&root, &visitor.cookie), (200, None));
}

/// All files of a folder: names, times and contents.
fn all_of(folder: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| {
            let time = file.metadata().unwrap().modified().unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, (time, fs::read(file.path()).unwrap_or_default()))
        })
        .collect()
}

#[test]
fn nothing_is_written_where_the_images_are() {
    let made = Made::new();
    made.back_up(None);
    made.change();
    made.back_up(None);
    let before = all_of(&made.images());
    let served = Served::start(&made.images());
    let visitor = served.visit();
    let verified = visitor.does(json!([{"key": "v"}]));
    assert_eq!(verified["kind"], "report");
    visitor.does(json!([{"key": "Escape"}, {"key": "Enter"}, {"key": "c"}]));
    visitor.does(json!([{"key": "Escape"}, {"key": "Enter"}]));
    visitor.does(json!([{"key": "b"}]));
    visitor.does(json!([{"key": "Escape"}, {"key": "Enter"}]));
    assert_eq!(visitor.does(json!([{"key": "e"}]))["over"], json!(null));
    let etc = visitor.get(&address(&visitor, "etc/"), &[]);
    assert!(etc.is_whole && etc.status == 200);
    // Of a point, a part of what it was is a part of what it is.
    visitor.open("etc/");
    let hello = address(&visitor, "hello.txt");
    let tag = visitor.get(&hello, &[]).header("etag").unwrap().to_owned();
    let part = visitor.get(&hello, &[("Range", "bytes=6-9"), ("If-Range", &tag)]);
    assert_eq!((part.status, part.text().as_str()), (206, "from"));
    assert_eq!(all_of(&made.images()), before);
}

#[test]
fn a_passphrase_opens_what_is_sealed_and_is_told_to_nobody() {
    const RIGHT: &str = "correct horse";
    let made = Made::new();
    made.back_up(Some(RIGHT));
    let served = Served::start(&made.images());
    let visitor = served.visit();
    assert!(visitor.rows(0, 1)[0][0].to_string().contains("locked"));
    assert_eq!(visitor.post("passphrase", b"\"too early\"").status, 409);
    let asked = visitor.does(json!([{"key": "u"}]));
    assert_eq!(asked["asks"]["tried"], false);
    for wrong in ["\"\"", "3", "[]", "\"unfinished"] {
        assert_eq!(visitor.post("passphrase", wrong.as_bytes()).status, 400, "{wrong}");
    }
    assert_eq!(visitor.post("passphrase", b"\"battery staple\"").status, 200);
    let asked = visitor.scene();
    let said = asked["asks"]["wrong"].as_str().unwrap_or_else(|| panic!("{asked}"));
    assert!(!said.contains("battery"), "{said}");
    let typed = json!(RIGHT).to_string();
    assert_eq!(visitor.post("passphrase", typed.as_bytes()).status, 200);
    let opened = visitor.scene();
    assert_eq!((&opened["asks"], &opened["over"]), (&json!(null), &json!(null)));
    assert!(visitor.rows(0, 1)[0][0].to_string().contains("restorable"));
    // Whoever stops it is asked no more.
    visitor.does(json!([{"key": "u"}]));
    assert_eq!(visitor.does(json!([{"key": "Escape"}]))["asks"], json!(null));
    assert_eq!(visitor.post("passphrase", typed.as_bytes()).status, 409);
}

#[test]
fn wrong_passphrases_are_tried_ever_more_slowly_and_what_is_encrypted_opens_by_the_right_one() {
    let made = Made::new();
    let served = Served::start(&made.encrypted("correct horse"));
    let visitor = served.visit();
    let asked = visitor.does(json!([{"key": "Enter"}]));
    assert_eq!((&asked["asks"]["volume"], &asked["asks"]["tried"]), (&json!(true), &json!(false)));
    let why = asked["asks"]["why"].as_str().unwrap();
    assert!(why.contains("p0") && why.contains("encrypted"), "{why}");
    for wrong in ["one", "two"] {
        assert_eq!(visitor.post("passphrase", json!(wrong).to_string().as_bytes()).status, 200);
        let asked = visitor.asked();
        assert!(asked["asks"]["wrong"].as_str().unwrap().contains("does not open /p0"), "{asked}");
    }
    assert_eq!(visitor.post("passphrase", b"\"three\"").status, 200);
    let problem = visitor.asked();
    assert!(problem["over"]["problem"]["line"].as_str().unwrap().contains("does not open"));
    visitor.does(json!([{"key": "Escape"}]));
    visitor.does(json!([{"key": "Enter"}]));
    let right = json!("correct horse").to_string();
    let began = Instant::now();
    while let answer = visitor.post("passphrase", right.as_bytes())
        && answer.status != 200
    {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!(answer.text().contains("wait"), "{}", answer.text());
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(visitor.asked()["kind"], "folder");
    visitor.open("etc/");
    assert_eq!(visitor.get(&address(&visitor, "hello.txt"), &[]).text(), HELLO);
}

#[test]
fn what_nobody_looks_at_any_more_stops() {
    let made = Made::new();
    made.back_up(Some("correct horse"));
    let served = Served::start(&made.images());
    let visitor = served.visit();
    let version = visitor.scene()["version"].clone();
    let body = json!({"version": version, "events": [{"key": "u"}]}).to_string();
    let scene = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).unwrap();
    assert_eq!(scene(&visitor.post("events", body.as_bytes()))["asks"]["tried"], false);
    std::thread::sleep(Duration::from_secs(10));
    let now = scene(&visitor.get("scene?seen=0", &[]));
    assert_eq!(now["asks"], json!(null));
    assert!(now["said"].as_str().unwrap().contains("no page was open"), "{now}");
}

#[test]
fn every_answer_to_whoever_has_the_cookie_says_which_explorer_it_is_and_no_other_does() {
    let disk = disk();
    let (one, other) = (Served::start(&disk.raw()), Served::start(&disk.raw()));
    const RUN: &str = "aiv-explorer-run";
    let run_of = |served: &Served| {
        let host = served.host();
        let door = format!("{}enter?token=0", served.root());
        let refused = [
            http::ask(served.socket(), "GET", &door, &[("Host", &host)], b""),
            http::ask(served.socket(), "GET", &served.root(), &[("Host", &host)], b""),
            http::ask(served.socket(), "GET", "/", &[("Host", &host)], b""),
        ];
        assert!(refused.iter().all(|answer| answer.status >= 400 && answer.header(RUN).is_none()));
        let visitor = served.visit();
        let page = visitor.get("", &[]);
        let run = page.header(RUN).unwrap().to_owned();
        assert!(run.len() == 32 && page.text().contains(&format!("content=\"{run}\"")));
        for name in ["scene?seen=0", "rows", "icon.svg", "nothing", "get"] {
            assert_eq!(visitor.get(name, &[]).header(RUN), Some(run.as_str()), "{name}");
        }
        assert_eq!(visitor.post("events", b"{}").header(RUN), Some(run.as_str()));
        // It is none of what the page sends.
        assert!(!visitor.cookie.contains(&run) && !served.address.contains(&run));
        run
    };
    assert_ne!(run_of(&one), run_of(&other));
}

#[test]
fn what_was_done_for_a_screen_that_is_gone_is_not_done_to_another() {
    let disk = disk();
    let served = Served::start(&disk.raw());
    let visitor = served.visit();
    let old = visitor.scene()["version"].clone();
    let folder = visitor.does(json!([{"key": "Enter"}]));
    assert_eq!(folder["kind"], "folder");
    let late = json!({"version": old, "events": [{"key": "Escape"}]}).to_string();
    assert_eq!(visitor.post("events", late.as_bytes()).status, 200);
    assert_eq!(visitor.scene()["kind"], "folder");
    assert_eq!(visitor.get(&format!("rows?version={old}&first=0&count=1"), &[]).status, 204);
    let far = format!("rows?version={}&first={}&count=9", folder["version"], u64::MAX);
    assert_eq!(visitor.get(&far, &[]).text().trim(), "[]");
}

#[test]
fn it_ends_when_somebody_leaves_and_when_it_is_told_to() {
    let disk = disk();
    let mut served = Served::start(&disk.raw());
    let left = served.visit().does(json!([{"key": "q"}]));
    assert_eq!(left["ended"], true);
    assert_eq!(served.ends(), 0);
    let mut stopped = Served::start(&disk.raw());
    let visitor = at_files(&stopped);
    let long = address(&visitor, "long");
    let (root, host, cookie) = (&visitor.root, &visitor.host, &visitor.cookie);
    let request = format!("GET {root}{long} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
    let download = http::send(visitor.socket, request.as_bytes());
    run("kill", &["-INT", &stopped.id().to_string()]);
    let began = Instant::now();
    assert_eq!(stopped.ends(), 130);
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(download);
}
