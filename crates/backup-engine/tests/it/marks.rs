//! What dm-era and dm-thin say was written, as their own tools print it.

use std::fmt::Write;
use std::fs;

use aiv_backup_engine::{Marks, MarksError, marks};
use aiv_testkit::Random;
use aiv_volume_io::{ChangeTracker, Extent, ExtentSet, Job, MemDisk};
use tempfile::TempDir;

use crate::tools::run;

/// Blocks of 64 KiB, as device mapper is told.
const SECTORS: u64 = 128;
const BLOCK: u64 = SECTORS * 512;

fn read(text: &str, wanted: Option<&str>) -> Result<Vec<Marks>, MarksError> {
    marks(&MemDisk::from_bytes(text.as_bytes().to_vec()), wanted, Job::silent())
}

/// Numbers of the blocks that a tracker marks, of so many.
fn marked(tracker: &Marks, blocks: u64) -> Vec<u64> {
    let runs = tracker.changed(Extent::new(0, blocks * BLOCK)).unwrap();
    assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].start));
    runs.iter().flat_map(|run| run.start / BLOCK..run.end() / BLOCK).collect()
}

/// Metadata of device mapper in a file, made by its tools of a text.
struct Metadata {
    folder: TempDir,
}

impl Metadata {
    fn new(restore: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), text).unwrap();
        fs::File::create(folder.path().join("metadata")).unwrap().set_len(8 << 20).unwrap();
        let metadata = Self { folder };
        run(restore, &["-i", &metadata.path("text"), "-o", &metadata.path("metadata")]);
        metadata
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn ask(&self, tool: &str, words: &[&str]) -> String {
        run(tool, &[words, &[&*self.path("metadata")]].concat())
    }
}

/// A device that was written in ten eras, one of which is not over.
fn eras(seed: u64, blocks: u64) -> Metadata {
    let mut random = Random::new(&[seed]);
    let mut text =
        format!("<superblock uuid=\"\" block_size=\"{SECTORS}\" nr_blocks=\"{blocks}\" ");
    text += "current_era=\"9\">\n";
    for era in [8, 9] {
        writeln!(text, "<writeset era=\"{era}\" nr_bits=\"{blocks}\">").unwrap();
        for block in 0..blocks {
            let is_written = random.below(10) == 0;
            writeln!(text, "<bit block=\"{block}\" value=\"{is_written}\"/>").unwrap();
        }
        text += "</writeset>\n";
    }
    text += "<era_array>\n";
    for block in 0..blocks {
        writeln!(text, "<era block=\"{block}\" era=\"{}\"/>", random.below(8)).unwrap();
    }
    text += "</era_array>\n</superblock>\n";
    Metadata::new("era_restore", &text)
}

/// Blocks by `era_invalidate`.
fn by_era_invalidate(metadata: &Metadata, since: u64) -> Vec<u64> {
    let said = metadata.ask("era_invalidate", &["--written-since", &since.to_string()]);
    let number = |line: &str, key: &str| -> u64 {
        let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("{line}"));
        rest.split('"').nth(1).unwrap().parse().unwrap()
    };
    let mut blocks = Vec::new();
    for line in said.lines() {
        if line.contains("<range") {
            blocks.extend(number(line, "begin")..number(line, "end"));
        } else if line.contains("<block ") {
            blocks.push(number(line, "block="));
        }
    }
    blocks
}

#[test]
fn blocks_of_an_era_and_later_are_those_of_era_invalidate() {
    for seed in 0..4 {
        let blocks = 700 + seed * 123;
        let metadata = eras(seed, blocks);
        let text = metadata.ask("era_dump", &[]);
        for since in 0..9 {
            let found = read(&text, Some(&format!("era:{since}"))).unwrap();
            let [current, asked] = found.as_slice() else { panic!("{} trackers", found.len()) };
            assert_eq!(
                (asked.facts().kind, &*asked.facts().name),
                ("dm-era", &*format!("era:{since}"))
            );
            assert_eq!(asked.facts().granularity, BLOCK);
            assert_eq!(marked(asked, blocks), by_era_invalidate(&metadata, since), "{since}");
            assert_eq!(current.facts().name, "era:9");
            assert_eq!(marked(current, blocks), by_era_invalidate(&metadata, 9));
            // What the device does not have is not known.
            let behind = Extent::new(blocks * BLOCK, 5 * BLOCK);
            assert_eq!(asked.changed(behind).unwrap(), [behind]);
        }
        for other in [None, Some("era:10"), Some("era:x"), Some("monday")] {
            assert_eq!(read(&text, other).unwrap().len(), 1, "{other:?}");
        }
    }
}

/// A volume and a snapshot of it in a pool, with what is mapped where.
fn thin(seed: u64) -> (Metadata, Vec<u64>) {
    let mut random = Random::new(&[seed]);
    let (mut next, mut different) = (0, Vec::new());
    let (mut volume, mut snapshot) = (String::new(), String::new());
    let mut counts = [0, 0];
    let map = |to: &mut String, block: u64, data: u64, time: u64| {
        let place = format!("origin_block=\"{block}\" data_block=\"{data}\" time=\"{time}\"");
        writeln!(to, "<single_mapping {place}/>").unwrap();
    };
    for block in 0..600 {
        let kind = random.below(6);
        if (1..=4).contains(&kind) {
            map(&mut snapshot, block, next, 0);
            counts[0] += 1;
        }
        match kind {
            1..=3 => map(&mut volume, block, next, 0),
            4 | 5 => {
                next += 1;
                map(&mut volume, block, next, 1);
                different.push(block);
            }
            _ => continue,
        }
        counts[1] += 1;
        next += 1;
    }
    let device = |id: u64, mapped: u64, maps: &str| {
        let facts = format!("dev_id=\"{id}\" mapped_blocks=\"{mapped}\" transaction=\"0\"");
        format!("<device {facts} creation_time=\"0\" snap_time=\"1\">\n{maps}</device>\n")
    };
    let text = format!(
        "<superblock uuid=\"\" time=\"1\" transaction=\"1\" data_block_size=\"{SECTORS}\" \
         nr_data_blocks=\"2000\">\n{}{}</superblock>\n",
        device(3, counts[0], &snapshot),
        device(7, counts[1], &volume)
    );
    (Metadata::new("thin_restore", &text), different)
}

#[test]
fn blocks_that_differ_from_a_snapshot_are_marked() {
    for seed in 0..4 {
        let (metadata, different) = thin(seed);
        assert!(different.len() > 50);
        let text = metadata.ask("thin_delta", &["--snap1", "3", "--snap2", "7"]);
        let found = read(&text, Some("thin:3")).unwrap();
        let [delta] = found.as_slice() else { panic!("{} trackers", found.len()) };
        let facts = delta.facts();
        assert_eq!((facts.kind, &*facts.name, facts.granularity), ("dm-thin", "thin:3", BLOCK));
        assert_eq!(marked(delta, 600), different);
        // Against itself a snapshot is as it was.
        let text = metadata.ask("thin_delta", &["--snap1", "3", "--snap2", "3"]);
        assert_eq!(marked(&read(&text, None).unwrap()[0], 600), [0; 0]);
        let text = metadata.ask("thin_delta", &["--verbose", "--snap1", "3", "--snap2", "7"]);
        assert!(matches!(read(&text, None), Err(MarksError::Text { .. })));
    }
}

#[test]
fn a_text_that_breaks_off_or_is_another_tells_nothing() {
    let texts = [
        eras(1, 60).ask("era_dump", &[]),
        thin(1).0.ask("thin_delta", &["--snap1", "3", "--snap2", "7"]),
    ];
    for text in &texts {
        read(text, Some("era:3")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for n in 0..lines.len() {
            let cut = lines[..n].join("\n");
            assert!(matches!(read(&cut, Some("era:3")), Err(MarksError::Text { .. })), "{n}");
            // Without one line, or with it twice: the same, or a block less that is marked.
            let without = [&lines[..n], &lines[n + 1..]].concat().join("\n");
            let twice = [&lines[..=n], &lines[n..]].concat().join("\n");
            assert!(read(&twice, Some("era:3")).is_err(), "{}", lines[n]);
            let is_stretch =
                ["<same", "<diff", "<left", "<right"].iter().any(|w| lines[n].contains(w));
            assert!(is_stretch || read(&without, Some("era:3")).is_err(), "{}", lines[n]);
        }
    }
    // Of two eras of one block it has the older one.
    let logical = eras(1, 60).ask("era_dump", &["--logical"]);
    let error = read(&logical, None).unwrap_err().to_string();
    assert!(error.contains("it is made by `era_dump` without --logical"), "{error}");
    // Two elements in one line: the second would be passed over.
    let pair = "<same begin=\"0\" length=\"8\"/><different begin=\"8\" length=\"8\"/>";
    for between in ["", " "] {
        let joined = format!(
            "<superblock data_block_size=\"8\">\n<diff left=\"3\" right=\"7\">\n{}\n</diff>\n</superblock>",
            pair.replace("><", &format!(">{between}<"))
        );
        assert!(matches!(read(&joined, None), Err(MarksError::Text { line: 3, .. })), "{joined}");
    }
    for text in ["", "hello", "<superblock", "<superblock block_size=\"0\">", "\u{0}\n\u{0}"] {
        assert!(matches!(read(text, None), Err(MarksError::Text { .. })), "{text:?}");
    }
}

#[test]
fn a_text_without_its_current_era_is_of_a_device_that_goes_on() {
    let text = eras(1, 60).ask("era_dump", &[]);
    let begin = text.find("<writeset era=\"9\"").expect("the current era");
    let end = "</writeset>";
    let len = text[begin..].find(end).expect("its end") + end.len();
    // The era before is there, and nothing else tells that what was written last is missing.
    let without = [text[..begin].trim_end(), &text[begin + len..]].concat();
    assert!(without.contains("<writeset era=\"8\""), "{without}");
    let error = read(&without, Some("era:3")).unwrap_err().to_string();
    assert!(error.contains("the current era is missing"), "{error}");
}

#[test]
fn texts_of_an_attacker_do_no_harm() {
    let text = thin(2).0.ask("thin_delta", &["--snap1", "3", "--snap2", "7"]);
    let mut understood = 0;
    for seed in 0..3000 {
        let mut random = Random::new(&[seed]);
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = b"0123456789<>/=\" \nx\xff"[random.below(19)];
        }
        let Ok(found) = marks(&MemDisk::from_bytes(bytes), None, Job::silent()) else { continue };
        understood += 1;
        let all = found[0].changed(Extent::new(0, u64::MAX)).unwrap();
        let set: ExtentSet = all.iter().copied().collect();
        assert_eq!(set.total_len(), all.iter().map(|run| run.len).sum::<u64>());
    }
    assert!((50..3000).contains(&understood), "{understood}");
}
