//! From a stored image to a raw file: sparse, of the promised length, with the promised hash.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::manifest::ImageFact;
use crate::process;

/// The only programs a manifest may call.
const UNPACKERS: [&str; 7] = ["bzip2", "gzip", "tar", "unzip", "xxd", "xz", "zstd"];
/// Zeros of this many bytes in a row, aligned, become a hole.
const HOLE: usize = 64 << 10;

/// Why there is no raw file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This row is no image to be checked by itself.
    NotForUs(String),
    /// The image should be there and is not as promised.
    Failed(String),
}

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

/// The raw file of an image: the stored file itself where it needs no unpacking, else a new
/// file in `work`.
pub(super) fn unpack(folder: &Path, fact: &ImageFact, work: &Path) -> Result<PathBuf, Refusal> {
    let [stored] = &fact.stored[..] else {
        return Err(Refusal::NotForUs("a set of images; each has a row of its own".into()));
    };
    let stored = folder.join(stored);
    if fact.decompress.is_empty() {
        let source = File::open(&stored).map_err(|e| format!("{}: {e}", stored.display()))?;
        receive(source, fact, None)?;
        return Ok(stored);
    }
    let words = command_line(&fact.decompress)?;
    let raw = work.join("raw");
    let out = File::create_new(&raw).map_err(|e| format!("{}: {e}", raw.display()))?;
    let (program, arguments) = words.split_first().ok_or_else(|| "no unpacker".to_owned())?;
    let mut unpacker = process::command(program);
    // The folder may be named relative to where the developer stands.
    let stored = std::path::absolute(&stored).map_err(|e| format!("{}: {e}", stored.display()))?;
    for argument in arguments {
        if argument == "F" {
            unpacker.arg(&stored)
        } else {
            unpacker.arg(argument)
        };
    }
    let mut child = unpacker
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start {program}: {e}"))?;
    let received = match child.stdout.take() {
        Some(pipe) => receive(pipe, fact, Some(&out)),
        None => Err(format!("{program} has no output")),
    };
    let status = child.wait().map_err(|e| format!("cannot wait for {program}: {e}"))?;
    received?;
    // `unzip` complains about each pattern that matches nothing: a hash says more.
    if !status.success() && fact.unpacked_sha256.is_none() {
        return Err(Refusal::Failed(format!("{program} failed ({status})")));
    }
    Ok(raw)
}

/// Splits `xz -dc F > OUT` into program and arguments, without any shell.
fn command_line(line: &str) -> Result<Vec<String>, Refusal> {
    let command = line.strip_suffix("> OUT").unwrap_or(line).trim();
    let command = command.strip_suffix("2>/dev/null").unwrap_or(command);
    // Every second part stands between quotes.
    let mut words = Vec::new();
    for (index, part) in command.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let is_known = words.first().is_some_and(|program| UNPACKERS.contains(&program.as_str()));
    if !is_known || !words.iter().any(|word| word == "F") {
        return Err(Refusal::NotForUs(format!("do not know how to unpack with `{line}`")));
    }
    Ok(words)
}

/// Reads the bytes of an image, compares length and hash, and writes them with holes to `out`.
fn receive(mut source: impl Read, fact: &ImageFact, out: Option<&File>) -> Result<(), String> {
    let mut hash = fact.unpacked_sha256.as_ref().map(|_| start_hash()).transpose()?;
    let mut len = 0;
    let mut buffer = vec![0; HOLE];
    let zeros = vec![0; HOLE];
    loop {
        let count = fill(&mut source, &mut buffer).map_err(|e| format!("cannot unpack: {e}"))?;
        if count == 0 {
            break;
        }
        let bytes = &buffer[..count];
        if fact.unpacked_size.is_some_and(|size| len + count as u64 > size) {
            return Err("unpacks to more bytes than the manifest says".into());
        }
        if let Some(pipe) = hash.as_mut().and_then(|hash| hash.stdin.as_mut()) {
            pipe.write_all(bytes).map_err(|e| format!("cannot hash: {e}"))?;
        }
        if let Some(out) = out.filter(|_| *bytes != zeros[..count]) {
            out.write_all_at(bytes, len).map_err(|e| format!("cannot write the image: {e}"))?;
        }
        len += count as u64;
    }
    if let Some(out) = out {
        out.set_len(len).map_err(|e| format!("cannot write the image: {e}"))?;
    }
    if let Some(size) = fact.unpacked_size.filter(|size| *size != len) {
        return Err(format!("unpacks to {len} bytes, the manifest says {size}"));
    }
    if let (Some(hash), Some(expected)) = (hash, &fact.unpacked_sha256) {
        let found = finish_hash(hash)?;
        if found != *expected {
            return Err(format!("unpacks to SHA-256 {found}, the manifest says {expected}"));
        }
    }
    Ok(())
}

/// Fills the buffer from a source that returns less at its own pace; short only at the end.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// OpenSSL uses the processor's SHA instructions, which `sha256sum` of Debian 12 does not.
pub(super) fn start_hash() -> Result<Child, String> {
    process::command("openssl")
        .args(["dgst", "-sha256", "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start openssl: {e}"))
}

pub(super) fn finish_hash(hash: Child) -> Result<String, String> {
    let output = hash.wait_with_output().map_err(|e| format!("cannot hash: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::images::manifest::Trust;

    fn fact(stored: &str, decompress: &str, size: u64, sha256: Option<String>) -> ImageFact {
        ImageFact {
            id: "test".into(),
            stored: stored.split(';').map(str::to_owned).collect(),
            decompress: decompress.into(),
            unpacked_size: Some(size),
            unpacked_sha256: sha256,
            kind: "test".into(),
            trust: Trust::Other,
            expected: serde_json::Value::Null,
            listings: Vec::new(),
        }
    }

    /// A folder with `image.gz`: 1 MiB of zeros and a few bytes.
    fn stored() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes.extend(b"end");
        std::fs::write(folder.path().join("image"), &bytes).unwrap();
        process::run(process::command("gzip").arg("-k").arg(folder.path().join("image"))).unwrap();
        (folder, bytes)
    }

    fn sha256(path: &Path) -> String {
        let output = process::command("sha256sum").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()[..64].to_owned()
    }

    #[test]
    fn an_image_is_unpacked_with_its_holes_and_checked() {
        let (folder, bytes) = stored();
        let sum = sha256(&folder.path().join("image"));
        let fact = fact("image.gz", "gzip -dc F > OUT", bytes.len() as u64, Some(sum));
        let work = tempfile::tempdir().unwrap();
        let raw = unpack(folder.path(), &fact, work.path()).unwrap();
        assert_eq!(std::fs::read(&raw).unwrap(), bytes);
        assert!(std::fs::metadata(&raw).unwrap().blocks() * 512 <= HOLE as u64);
    }

    #[test]
    fn other_bytes_or_another_length_than_promised_are_refused() {
        let (folder, bytes) = stored();
        let size = bytes.len() as u64;
        let refusal = |size, sum: Option<&str>| {
            let fact = fact("image.gz", "gzip -dc F > OUT", size, sum.map(str::to_owned));
            let work = tempfile::tempdir().unwrap();
            match unpack(folder.path(), &fact, work.path()) {
                Err(Refusal::Failed(what)) => what,
                other => panic!("{other:?}"),
            }
        };
        assert!(refusal(size, Some(&"0".repeat(64))).starts_with("unpacks to SHA-256 "));
        assert_eq!(refusal(size - 1, None), "unpacks to more bytes than the manifest says");
        assert!(refusal(size + 1, None).ends_with("the manifest says 1048580"));
    }

    #[test]
    fn quotes_and_redirections_are_understood_and_other_programs_refused() {
        let words = command_line("unzip -p F \"*.dd\" \"a b\" 2>/dev/null > OUT").unwrap();
        assert_eq!(words, ["unzip", "-p", "F", "*.dd", "a b"]);
        for line in ["sh -c F > OUT", "gzip -dc each", ""] {
            assert!(matches!(command_line(line), Err(Refusal::NotForUs(_))), "{line}");
        }
    }

    #[test]
    fn a_set_is_left_to_the_rows_of_its_members() {
        let fact = fact("a;b", "gzip -dc each", 0, None);
        let refusal = unpack(Path::new("."), &fact, Path::new(".")).unwrap_err();
        assert!(matches!(refusal, Refusal::NotForUs(_)));
    }
}
