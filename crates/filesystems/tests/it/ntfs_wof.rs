//! Files that Windows compressed with its overlay filter ("compact OS").
//!
//! The chunks of a resource of a WIM file are those of the filter's stream, so wimlib makes them.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{Error, FileFlags, FileType};
use aiv_volume_io::{Job, ReadAt};

use crate::ext_tools::MIB;
use crate::ntfs_reader::{filled, reader};
use crate::ntfs_reader_facts::set_reparse;
use crate::reader_tools::{digest, names, opened};
use crate::tools::{noise, run};

fn point(provider: u32, method: u32) -> Vec<u8> {
    let numbers = [0x8000_0017, 16, 1, provider, 1, method];
    numbers.iter().flat_map(|number: &u32| number.to_le_bytes()).collect()
}

/// Files of every sort: name and bytes.
fn contents() -> Vec<(String, Vec<u8>)> {
    let text: Vec<u8> = (0..60_000_u64).flat_map(|n| format!("{}\n", n * n).into_bytes()).collect();
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut files = Vec::new();
    for len in [5000, 32_767, 32_768, 32_769, 100_000, 300_000] {
        files.push((format!("text {len}"), text[..len].to_vec()));
        files.push((format!("program {len}"), program[100_000..100_000 + len].to_vec()));
        files.push((format!("zeros {len}"), vec![0; len]));
        files
            .push((format!("period {len}"), noise(5, 4099).repeat(len / 4099 + 1)[..len].to_vec()));
        // Chunks that do not compress among those that do.
        let mixed = [noise(len as u64, len), text[..len].to_vec(), noise(3, len / 2)].concat();
        files.push((format!("mixed {len}"), mixed));
    }
    files
}

/// What wimlib makes of files: their bytes, and those in its resource.
fn compressed(dir: &Path, method: &str, chunk: u32) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let wim = dir.join("wim");
    let folder = dir.join("files");
    fs::create_dir(&folder).unwrap();
    let files = contents();
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let (method, chunk) = (format!("--compress={method}"), format!("--chunk-size={chunk}"));
    let (folder, wim) = (folder.to_str().unwrap(), wim.to_str().unwrap());
    run("wimlib-imagex", &["capture", folder, wim, "--no-acls", &method, &chunk]);
    let all = fs::read(wim).unwrap();
    let said = run("wimlib-imagex", &["dir", wim, "1", "--detailed"]);
    let mut found = Vec::new();
    for file in said.split("Full Path") {
        let field = |name: &str| {
            let line = file.lines().find(|line| line.trim_start().starts_with(name))?;
            line.split('=').nth(1)?.split_whitespace().next()?.parse::<usize>().ok()
        };
        let name = file.lines().next().and_then(|line| line.split('"').nth(1)).unwrap_or("");
        let (Some(at), Some(len)) = (field("Offset in WIM"), field("Compressed size")) else {
            continue;
        };
        if let Some((name, bytes)) = files.iter().find(|(known, _)| name == format!("/{known}"))
            && len < bytes.len()
        {
            found.push((name.clone(), bytes.clone(), all[at..at + len].to_vec()));
        }
    }
    found
}

fn check(method: &str, chunk: u32, number: u32) {
    let dir = tempfile::tempdir().unwrap();
    let files = compressed(dir.path(), method, chunk);
    assert!(files.len() > 25, "{} files", files.len());
    let options = "noatime,streams_interface=windows";
    let volume = filled(64 * MIB, "-c 4096", options, |root| {
        for (name, bytes, packed) in &files {
            let path = root.join(name);
            File::create(&path).unwrap().set_len(bytes.len() as u64).unwrap();
            fs::write(root.join(format!("{name}:WofCompressedData")), packed).unwrap();
            set_reparse(&path, &point(2, number));
        }
    });
    let reader = reader(&volume);
    for (name, bytes, packed) in &files {
        let id = reader.lookup(reader.root(), name.as_bytes(), Job::silent()).unwrap().unwrap();
        let metadata = reader.metadata(id).unwrap();
        assert_eq!((metadata.file_type, metadata.len), (FileType::File, bytes.len() as u64));
        assert!(metadata.flags.contains(FileFlags::COMPRESSED));
        let data = reader.open(id).unwrap();
        let mut out = vec![0; bytes.len()];
        data.read_exact_at(&mut out, 0).unwrap();
        assert!(out == *bytes, "{method} {chunk}: {name}");
        // Ranges, and from the end.
        digest(&*data);
        for at in [bytes.len() - 1, bytes.len() / 2, 4095, 0] {
            let mut byte = [0];
            data.read_exact_at(&mut byte, at as u64).unwrap();
            assert_eq!(byte[0], bytes[at]);
        }
        assert_eq!(reader.streams(id).unwrap(), []);
        assert!(packed.len() < bytes.len());
    }
    assert_eq!(names(&*reader, reader.root()).len(), files.len());
}

#[test]
fn xpress_in_chunks_of_each_size() {
    for (chunk, number) in [(4096, 0), (8192, 2), (16_384, 3)] {
        check("XPRESS", chunk, number);
    }
}

#[test]
fn lzx() {
    check("LZX", 32_768, 1);
}

#[test]
fn what_is_damaged_or_not_known_is_said_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let files = compressed(dir.path(), "XPRESS", 4096);
    let (_, bytes, packed) = files.iter().find(|(name, ..)| name == "text 100000").unwrap();
    let options = "noatime,streams_interface=windows";
    let volume = filled(16 * MIB, "-c 4096", options, |root| {
        let make = |name: &str, point: &[u8], packed: &[u8]| {
            File::create(root.join(name)).unwrap().set_len(bytes.len() as u64).unwrap();
            fs::write(root.join(format!("{name}:WofCompressedData")), packed).unwrap();
            set_reparse(&root.join(name), point);
        };
        let mut torn = packed.clone();
        // The table of 24 entries, then the code of the first chunk.
        torn[96..352].fill(0x11);
        make("torn", &point(2, 0), &torn);
        let mut table = packed.clone();
        table[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        make("table", &point(2, 0), &table);
        make("short", &point(2, 0), &packed[..50]);
        make("cut", &point(2, 0), &packed[..packed.len() - 300]);
        make("wim", &point(1, 0), packed);
        make("method", &point(2, 9), packed);
    });
    let reader = opened(Arc::new(volume.open())).unwrap();
    let open = |name: &[u8]| {
        let id = reader.lookup(reader.root(), name, Job::silent()).unwrap().unwrap();
        assert_eq!(reader.metadata(id).unwrap().len, bytes.len() as u64);
        reader.open(id)
    };
    for (name, good, bad) in [
        (&b"torn"[..], 4096..100_000_usize, 0..4096_usize),
        (b"table", 0..40_000, 40_960..45_000),
        (b"cut", 0..90_000, 99_000..100_000),
    ] {
        let data = open(name).unwrap();
        let mut out = vec![0; good.len()];
        data.read_exact_at(&mut out, good.start as u64).unwrap();
        assert!(out == bytes[good]);
        let mut out = vec![0; bad.len()];
        let error = data.read_exact_at(&mut out, bad.start as u64).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    }
    assert!(matches!(open(b"short"), Err(Error::Damaged { .. })));
    for name in [&b"wim"[..], b"method"] {
        assert!(matches!(open(name), Err(Error::Unsupported { .. })));
    }
}
