//! Files out of recovery points: what comes back is what the kernel shows, nothing is written
//! where it should not be, and what cannot be read does not cost the rest.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Child;

use serde_json::Value;

use crate::files_inside::ext4;
use crate::support::{MIB, Mount, Scratch, aiv, aiv_json, noise, run, start, wait};

/// Everything the kernel says of a tree: types, modes, owners, sizes, times, links, attributes.
pub(crate) fn said_of(root: &Path) -> (String, String) {
    let root = root.to_str().unwrap();
    let listing = "cd \"$1\" && find . -mindepth 1 \\( -type d -printf '%P %y %m %U %G %T@\\n' -o \
                   -printf '%P %y %m %U %G %s %T@ %n %l\\n' \\) | sort";
    let attributes = "cd \"$1\" && find . -print0 | sort -z | xargs -0 getfattr -h -d -m -";
    (run("sh", &["-c", listing, "sh", root]), run("sh", &["-c", attributes, "sh", root]))
}

/// SHA-256 of every file of a tree.
pub(crate) fn sums_of(root: &Path) -> String {
    let sums = "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum";
    run("sh", &["-c", sums, "sh", root.to_str().unwrap()])
}

pub(crate) fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("deep/er/and/deeper")).unwrap();
    fs::write(at("deep/er/and/deeper/file"), noise(100_000, 1)).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("text"), "hello\n").unwrap();
    fs::write(at("größe"), noise(5000, 2)).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 28).unwrap();
    sparse.write_all_at(&noise(70_000, 3), 100 << 20).unwrap();
    fs::hard_link(at("text"), at("deep/also text")).unwrap();
    symlink("../text", at("deep/link")).unwrap();
    symlink("/deep/er", at("absolute")).unwrap();
    symlink("nowhere", at("broken")).unwrap();
    run("mkfifo", &[at("pipe")]);
    run("mknod", &[at("null").to_str().unwrap(), "c", "1", "3"]);
    run("setfattr", &["-n", "user.note", "-v", "kept", at("text").to_str().unwrap()]);
    run("chmod", &["4751", at("empty").to_str().unwrap()]);
    run("chown", &["12:34", at("größe").to_str().unwrap()]);
    run("touch", &["-d", "1965-03-04 05:06:07.125", at("deep/er").to_str().unwrap()]);
    run("touch", &["-d", "2065-03-04 05:06:07.000000001", at("text").to_str().unwrap()]);
    run("chmod", &["0500", at("deep").to_str().unwrap()]);
}

/// A disk whose first partition is an XFS filesystem with such files, backed up.
fn backed_up(scratch: &Scratch) -> String {
    let volume = scratch.arg("volume");
    run("truncate", &["-s", "300M", &volume]);
    run("mkfs.xfs", &["-q", "-L", "files", &volume]);
    {
        let mounted = Mount::new(&volume, "loop");
        fill(mounted.path());
    }
    let disk = scratch.arg("disk.raw");
    let script = "truncate -s 310M \"$2\" && echo 'start=2048,size=614400,type=83' | \
                  sfdisk -q \"$2\" && dd if=\"$1\" of=\"$2\" bs=1M seek=1 conv=notrunc status=none";
    run("sh", &["-c", script, "sh", &volume, &disk]);
    scratch.back_up(&disk);
    format!("{}@latest", scratch.arg("images"))
}

fn names(json: &Value) -> Vec<&str> {
    json["entries"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect()
}

#[test]
fn files_come_back_as_the_kernel_shows_them_into_folders_and_archives() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch);
    let mounted = Mount::new(&scratch.arg("volume"), "loop,ro");
    let theirs = said_of(mounted.path());
    let same = |folder: &Path| {
        assert_eq!(said_of(folder), theirs);
        assert_eq!(sums_of(folder), sums_of(mounted.path()));
    };
    let out = scratch.arg("out");
    let json = aiv_json(&["extract", &image, "/p1", "--to", &out, "--verify"]).ended(0).json();
    assert_eq!((&json["verified"], &json["not_kept"]), (&true.into(), &Value::Array(vec![])));
    same(&scratch.path("out/p1"));
    let blocks = std::os::unix::fs::MetadataExt::blocks(
        &fs::metadata(scratch.path("out/p1/sparse")).unwrap(),
    );
    assert!(blocks * 512 < MIB, "holes stay holes");

    // By its label, into an archive that GNU tar unpacks. What was private is not shown to others.
    let tar = scratch.arg("p1.tar");
    aiv(&["extract", &image, "/files", "--tar", &tar]).ended(0);
    assert_eq!(fs::metadata(&tar).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = scratch.arg("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run("tar", &["-x", "-p", "--xattrs", "--xattrs-include=*", "-f", &tar, "-C", &unpacked]);
    same(&scratch.path("unpacked/p1"));

    let zip = scratch.arg("deep.zip");
    let run_zip = aiv(&["extract", &image, "/p1/deep", "/p1/größe", "--zip", &zip]).ended(0);
    assert!(run_zip.stdout.contains("not kept of"), "{}", run_zip.stdout);
    run("python3", &["-m", "zipfile", "-t", &zip]);
    let unzipped = scratch.arg("unzipped");
    run("python3", &["-m", "zipfile", "-e", &zip, &unzipped]);
    for name in ["deep/er/and/deeper/file", "größe"] {
        let unzipped = fs::read(scratch.path("unzipped").join(name)).unwrap();
        assert!(unzipped == fs::read(mounted.path().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_listing_a_file_and_a_search_say_what_is_there() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch);
    let json = aiv_json(&["ls", &image]).ended(0).json();
    let p1 = &json["entries"][0];
    assert_eq!((&p1["name"], &p1["filesystem"]), (&"p1".into(), &"xfs".into()));
    let json = aiv_json(&["ls", &image, "/p1/deep"]).ended(0).json();
    assert_eq!(names(&json), ["also text", "er", "link"]);
    assert_eq!(
        (&json["entries"][2]["target"], &json["entries"][0]["links"]),
        (&"../text".into(), &2.into())
    );
    assert_eq!(json["entries"][1]["mtime"], "1965-03-04T05:06:07.125Z");
    // Links are followed within the volume, absolute ones from its root.
    assert_eq!(aiv(&["cat", &image, "/p1/deep/link"]).ended(0).stdout, "hello\n");
    let json = aiv_json(&["ls", &image, "/p1/absolute/and"]).ended(0).json();
    assert_eq!(names(&json), ["deeper"]);
    assert_eq!(aiv_json(&["cat", &image, "/p1/text"]).ended(0).json()["text"], "hello\n");
    let json = aiv_json(&[
        "find",
        &image,
        "--match",
        "FIL*",
        "--ignore-case",
        "--type",
        "file",
        "--larger",
        "50K",
    ]);
    assert_eq!(names(&json.ended(0).json()), ["file"]);
    let json = aiv_json(&["find", &image, "/p1", "--newer", "2065-03-04", "--older", "2065-03-05"])
        .ended(0)
        .json();
    assert_eq!(names(&json), ["also text", "text"]);
    let sums = aiv(&["find", &image, "/p1/deep", "--sha256"]).ended(0).stdout;
    aiv(&["extract", &image, "/p1/deep", "--to", &scratch.arg("out")]).ended(0);
    let sums = scratch.write("sums", sums.as_bytes());
    let check = "cd \"$1\" && sha256sum --check --strict \"$2\"";
    let checked = run("sh", &["-c", check, "sh", &scratch.arg("out"), &sums]);
    assert_eq!(checked.lines().count(), 2, "{checked}");
    // What is not there, or has no files, is said with a next step.
    aiv_json(&["ls", &image, "/p1/deep/nothing"]).failed(1, "no_such_file");
    aiv_json(&["ls", &image, "/p9"]).failed(1, "no_such_volume");
    aiv_json(&["cat", &image, "/p1/broken"]).failed(1, "no_such_file");
    aiv_json(&["cat", &image, "/p1/deep"]).failed(1, "wrong_type");
    aiv_json(&["cat", &image, "/p1/../x"]).failed(2, "usage");
    // A disk that is no image yet.
    let json = aiv_json(&["ls", &scratch.arg("disk.raw"), "/p1/deep"]).ended(0).json();
    assert_eq!(names(&json), ["also text", "er", "link"]);
}

#[test]
fn an_interrupted_job_is_gone_on_with_and_nothing_is_overwritten_unasked() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch);
    let out = scratch.arg("out");
    let extract = |existing: &str| {
        aiv_json(&["extract", &image, "/p1", "--to", &out, "--existing", existing])
    };
    extract("refuse").ended(0);
    extract("refuse").failed(5, "exists");
    fs::remove_file(scratch.path("out/p1/größe")).unwrap();
    let json = extract("skip").ended(0).json();
    assert_eq!((&json["files"], json["skipped"].as_u64().unwrap() > 3), (&1.into(), true));
    // Another file of that name stays, and is reported.
    fs::remove_file(scratch.path("out/p1/text")).unwrap();
    fs::write(scratch.path("out/p1/text"), "mine").unwrap();
    let json = extract("skip").ended(3).json();
    assert_eq!(json["not_recovered_count"], 1);
    assert_eq!(fs::read(scratch.path("out/p1/text")).unwrap(), b"mine");
    extract("replace").ended(0);
    assert_eq!(fs::read(scratch.path("out/p1/text")).unwrap(), b"hello\n");
    let mounted = Mount::new(&scratch.arg("volume"), "loop,ro");
    assert_eq!(said_of(&scratch.path("out/p1")), said_of(mounted.path()));
}

#[test]
fn a_link_where_a_folder_should_be_leads_nothing_out_of_the_target() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch);
    let outside = scratch.path("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(scratch.path("out/p1/deep")).unwrap();
    symlink(&outside, scratch.path("out/p1/deep/er")).unwrap();
    for existing in ["skip", "replace"] {
        let out = scratch.arg("out");
        let json = aiv_json(&["extract", &image, "/p1", "--to", &out, "--existing", existing]);
        assert!(json.ended(3).json()["not_recovered_count"].as_u64().unwrap() > 0);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{existing}");
    }
}

#[test]
fn damage_costs_the_bytes_it_hit_and_the_file_says_so() {
    let scratch = Scratch::new();
    let image = backed_up(&scratch);
    let mounted = Mount::new(&scratch.arg("volume"), "loop,ro");
    let good = fs::read(mounted.path().join("deep/er/and/deeper/file")).unwrap();
    // Noise does not compress: its bytes stand in the image as they are.
    let path = fs::read_dir(scratch.path("images")).unwrap();
    let path = path.map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "aiv"));
    let path = path.unwrap();
    let bytes = fs::read(&path).unwrap();
    let middle = &good[50_000..50_016];
    let at = bytes.windows(16).position(|found| found == middle).unwrap();
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"!", at as u64).unwrap();
    let out = scratch.arg("out");
    let json = aiv_json(&["extract", &image, "/p1/deep", "/p1/text", "--to", &out]).ended(4).json();
    assert_eq!(json["damaged_count"], 1, "{json}");
    let damaged = &json["damaged"][0];
    assert_eq!(damaged["path"], "deep/er/and/deeper/file.damaged");
    let found = fs::read(scratch.path("out/deep/er/and/deeper/file.damaged")).unwrap();
    assert_eq!(found.len(), good.len());
    let lost = damaged["ranges"].as_array().unwrap();
    let is_lost = |at: u64| {
        lost.iter().any(|r| {
            let start = r["start"].as_u64().unwrap();
            (start..start + r["size"].as_u64().unwrap()).contains(&at)
        })
    };
    for (at, (found, good)) in found.iter().zip(&good).enumerate() {
        assert!(found == good || (is_lost(at as u64) && *found == 0), "byte {at}");
    }
    assert!(is_lost(50_000) && damaged["bytes_lost"].as_u64().unwrap() <= 64 << 10);
    assert_eq!(fs::read(scratch.path("out/text")).unwrap(), b"hello\n");
    aiv_json(&["cat", &image, "/p1/deep/er/and/deeper/file"]).failed(4, "damaged");
    // Whoever meets the damage on the way ends as those do, after all the rest.
    for paths in [&["/p1/deep/er"][..], &["/"]] {
        let json = aiv_json(&[&["find", &image, "--sha256"], paths].concat()).ended(4).json();
        let troubles = json["troubles"].as_array().unwrap();
        assert_eq!(troubles.len(), 1, "{json}");
        assert!(troubles[0]["path"].as_str().unwrap().ends_with("deeper/file"), "{json}");
    }
    aiv(&["find", &image, "/p1/deep"]).ended(0);
    let volume = scratch.arg("volume");
    drop(mounted);
    {
        let mounted = Mount::new(&volume, "loop");
        run("touch", &["-c", mounted.path().join("deep/er/and/deeper/file").to_str().unwrap()]);
    }
    run(
        "dd",
        &[
            &format!("if={volume}"),
            &format!("of={}", scratch.arg("disk.raw")),
            "bs=1M",
            "seek=1",
            "conv=notrunc",
        ],
    );
    let diff = aiv_json(&["diff", &image, &scratch.arg("disk.raw"), "/p1"]).ended(4).json();
    assert!(diff["warnings"][0].as_str().unwrap().contains("deeper/file"), "{diff}");
}

/// Hundredths of a second that a program has been at work.
fn worked(child: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    // Behind its name, which may be anything, two of those words.
    let words = stat.rsplit(')').next().unwrap().split_whitespace();
    words.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_listing_that_ends_early_is_one_object_and_a_reader_that_has_enough_is_no_error() {
    let scratch = Scratch::new();
    let volume = scratch.arg("volume");
    run("truncate", &["-s", "64M", &volume]);
    run("mkfs.ext4", &["-q", &volume]);
    {
        let mounted = Mount::new(&volume, "loop");
        fs::write(mounted.path().join("a"), "a").unwrap();
        // Nobody waits for the sum of so many zeros.
        fs::File::create(mounted.path().join("b")).unwrap().set_len(2 << 40).unwrap();
        for n in 0..2000 {
            fs::write(mounted.path().join(format!("c{n}")), "").unwrap();
        }
    }
    let mut child = start(&["find", &volume, "--sha256"]);
    // Long after it has come to the second file.
    while worked(&child) < 200 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    run("kill", &["-INT", &child.id().to_string()]);
    let stopped = wait(child);
    stopped.failed(130, "canceled");
    assert_eq!(names(&stopped.json()), ["a"]);
    // Nothing at all is a list, too.
    let json = aiv_json(&["find", &volume, "--match", "nothing"]).ended(0).json();
    assert_eq!((names(&json).len(), &json["troubles"]), (0, &Value::Array(vec![])));
    let aiv = env!("CARGO_BIN_EXE_aiv");
    for json in ["--json", "--quiet"] {
        let script = "\"$1\" \"$3\" ls -R \"$2\" | head -c 100 >/dev/null; echo ${PIPESTATUS[0]}";
        assert_eq!(run("bash", &["-c", script, "bash", aiv, &volume, json]), "0");
    }
}

#[test]
fn what_reading_a_volume_left_out_is_told_by_every_command_that_reads_it() {
    let scratch = Scratch::new();
    let volume =
        ext4(&scratch, "volume", 32, |root| fs::write(root.join("file"), "bytes").unwrap());
    let old = scratch.write("old.raw", &volume);
    let mut damaged = volume;
    // The checksum of the first group's descriptor, behind the superblock: blocks have a KiB.
    damaged[2048 + 30] ^= 0xff;
    let disk = scratch.write("disk.raw", &damaged);
    let told = |json: &Value| json["notes"].to_string().contains("descriptor");
    let (folder, tar, zip) = (scratch.arg("out"), scratch.arg("out.tar"), scratch.arg("out.zip"));
    for to in [["--to", &folder], ["--tar", &tar], ["--zip", &zip]] {
        let run = aiv_json(&[&["extract", &disk, "/p0/file"][..], &to].concat()).ended(0);
        assert!(told(&run.json()), "{}", run.stdout);
    }
    assert_eq!(fs::read(scratch.path("out/file")).unwrap(), b"bytes");
    let again = scratch.arg("again");
    let said = aiv(&["extract", &disk, "/p0/file", "/p0/lost+found", "--to", &again]);
    assert_eq!(said.stdout.matches("note: ").count(), 1, "{}", said.stdout);
    for command in [&["ls", &disk, "-R"][..], &["find", &disk, "--sha256"]] {
        assert!(told(&aiv_json(command).ended(0).json()), "{command:?}");
    }
    // Sums are what `sha256sum` reads; what else there is to say stands beside them.
    let sums = aiv(&["find", &disk, "--sha256", "--match", "file"]).ended(0);
    assert_eq!(sums.stdout.lines().count(), 1, "{}", sums.stdout);
    assert!(
        sums.stderr.contains("note: ") && sums.stderr.contains("descriptor"),
        "{}",
        sums.stderr
    );
    for (pair, words) in [([&old, &disk], false), ([&disk, &old], true)] {
        let run = aiv_json(&["diff", pair[0], pair[1]]).ended(0);
        let note = run.json()["volumes"][0]["notes"].to_string();
        assert!(note.contains("descriptor"), "{note}");
        assert_eq!(note.contains("in the older point"), words, "{note}");
        assert!(aiv(&["diff", pair[0], pair[1]]).ended(0).stdout.contains("note: "));
    }
}
