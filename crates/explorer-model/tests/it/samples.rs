//! Answers as the outside gives them.

use aiv_browse::{FileType, Path};
use aiv_chain::{Digest, ImageKind, Protection};
use aiv_explorer_model::{
    BlockKind, BlockMap, DifferenceRow, Differences, DiskFacts, FileRow, Files, PointRow, Preview,
    Proof, SetRow, Truth, VolumeRow, file_facts,
};
use aiv_testkit::files::Node;

const DAY_MS: u64 = 86_400_000;

/// A point on a day.
pub(crate) fn point(day: u64, kind: ImageKind) -> PointRow {
    PointRow {
        file: format!("sda-{day:03}.{}", if kind == ImageKind::Full { "aiv" } else { "aii" }),
        id: format!("{day:08x}"),
        kind,
        time_unix_ms: 1_790_000_000_000 + day * DAY_MS,
        size: 8 << 30,
        size_stored: if kind == ImageKind::Full { 3 << 30 } else { 90 << 20 },
        truth: Truth::Restorable,
        protection: Protection::None,
        verified: None,
        comment: String::new(),
    }
}

/// A set with a point of every sort.
pub(crate) fn sets() -> Vec<SetRow> {
    let mut points: Vec<PointRow> = [0, 1, 2, 7, 8, 9]
        .map(|day| point(day, if day % 7 == 0 { ImageKind::Full } else { ImageKind::Incremental }))
        .to_vec();
    points[0].verified = Some(Proof { time_unix_ms: 1_790_500_000_000, sound: true });
    points[1].verified = Some(Proof { time_unix_ms: 1_790_500_000_000, sound: false });
    points[1].truth = Truth::Flawed("damage was found in sda-001.aii".into());
    points[2].truth = Truth::Lost("point 00000001 that it builds on is missing".into());
    points[4].truth = Truth::Flawed("read by its second copy: index".into());
    points[5].truth = Truth::Locked;
    points[5].protection = Protection::Sealed(Digest::default());
    points[5].comment = "before the upgrade".into();
    let set = |id: &str, name: &str, host: &str, points| SetRow {
        id: id.into(),
        name: name.into(),
        host: host.into(),
        points,
    };
    let other = vec![point(3, ImageKind::Full)];
    vec![
        set("aa", "sda", "server", points),
        set("bb", "\u{1b}[2Jnvme0n1", "desk\u{202e}top", other),
    ]
}

pub(crate) fn disk() -> DiskFacts {
    let volume = |name: &str, start: u64, len: u64, holds, label: &str| VolumeRow {
        name: name.into(),
        start: Some(start),
        len,
        holds,
        label: label.into(),
        closed: String::new(),
        path: Path::default().join(name.as_bytes()),
    };
    DiskFacts {
        len: 8 << 30,
        table: "gpt",
        is_point: true,
        volumes: vec![
            volume("p1", 1 << 20, 512 << 20, "fat32", "EFI"),
            volume("p2", 513 << 20, 6 << 30, "ext4", "root"),
            volume("p3", 7 << 30, 512 << 20, "swap", ""),
        ],
    }
}

fn row(name: &[u8], node: Node) -> FileRow {
    let target = (node.metadata.file_type == FileType::Link).then(|| node.bytes.clone());
    FileRow { below: vec![name.to_vec()], metadata: node.metadata, target }
}

pub(crate) fn files() -> Files {
    Files {
        rows: vec![
            row(b"etc", Node::of(FileType::Folder)),
            row(b"home", Node::of(FileType::Folder)),
            row(b"bin", Node::link(b"usr/bin")),
            row(b"hello.txt", Node::file(b"hello\n")),
            row(b"\x1b[31mred\xff\n\xe2\x80\xaegpj.exe", Node::file(&[0; 5000])),
            row("größe 東京".as_bytes(), Node::file(b"")),
        ],
        more: 0,
        notes: Vec::new(),
    }
}

pub(crate) fn preview() -> Preview {
    let text = "The first line\n\tthe second, with a tab and \u{1b}[2J\nthe third\n";
    let node = Node::file(text.as_bytes());
    Preview {
        path: Path::parse(b"/p2/hello.txt").expect("a path"),
        bytes: text.into(),
        len: text.len() as u64,
        facts: file_facts(&node.metadata),
        trouble: String::new(),
    }
}

pub(crate) fn map() -> BlockMap {
    let mut map = BlockMap::new(131_072, 65536);
    map.add(0, 131_072 / 8, BlockKind::Used);
    map.add(131_072 / 8, 131_072 / 8, BlockKind::Zero);
    map.add(131_072 / 4, 131_072 / 4, BlockKind::Free);
    map.add(131_072 / 2, 131_072 / 4, BlockKind::Changed);
    map.add(131_072 / 4 * 3, 131_072 / 4, BlockKind::Used);
    map.add(100_000, 3000, BlockKind::Delta);
    map.add(120_000, 1, BlockKind::Unreadable);
    map
}

pub(crate) fn differences() -> Differences {
    let row =
        |sign, text: &str, len, changed| DifferenceRow { sign, text: text.into(), len, changed };
    Differences {
        rows: vec![
            row('+', "/p2/new", 5000, 8192),
            row('~', "/p2/etc/passwd (content, mtime)", 2000, 65536),
            row('>', "/p2/b (was /p2/a)", 10, 0),
            row('-', "/p2/old", 1 << 20, 0),
        ],
        more: 3,
        notes: vec![
            "1.00 MiB in blocks that changed".into(),
            "p2: 7 different, 900 the same".into(),
        ],
    }
}
