//! The text that describes a VMDK.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use aiv_volume_io::ReadAt;

use super::{SECTOR, corrupt, unsupported};
use crate::{Error, Result};

/// Longest text believed. VMware reserves 10 KiB; a disk of 62 TiB in pieces of 2 GiB needs more.
const LEN_MAX: u64 = 2 << 20;
/// Extents of one disk: each is a file that is kept open.
const EXTENTS_MAX: usize = 1024;
/// No parent, in the field for the content id of one.
const NO_PARENT: u32 = u32::MAX;

pub(super) struct Descriptor {
    pub(super) cid: u32,
    /// Content id and name.
    pub(super) parent: Option<(u32, String)>,
    pub(super) extents: Vec<Extent>,
}

pub(super) struct Extent {
    /// Bytes.
    pub(super) len: u64,
    pub(super) kind: ExtentKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExtentKind {
    Zero,
    Flat { name: PathBuf, offset: u64 },
    Sparse { name: PathBuf },
}

/// Reads the text in `len` bytes at `offset`, up to its first zero.
pub(super) fn read(file: &dyn ReadAt, offset: u64, len: u64) -> Result<Descriptor> {
    if len > LEN_MAX || offset.checked_add(len).is_none_or(|end| end > file.len()) {
        let what = format!("{len} bytes at {offset}, allowed are {LEN_MAX} inside the file");
        return Err(corrupt("descriptor", offset, what));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut bytes, offset).map_err(Error::io("read the descriptor", offset))?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    parse(&bytes[..end], offset)
}

fn parse(text: &[u8], offset: u64) -> Result<Descriptor> {
    let wrong = |what: String| corrupt("descriptor", offset, what);
    let (mut cid, mut parent_cid, mut hint, mut kind) = (None, None, None, String::new());
    let mut extents = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(extent) = extent(line).map_err(wrong)? {
            if extents.len() >= EXTENTS_MAX {
                let what = format!("it has more than {EXTENTS_MAX} extents");
                return Err(unsupported(what));
            }
            extents.push(extent);
            continue;
        }
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
        let value = &line[equals + 1..];
        let value = String::from_utf8_lossy(value.trim_ascii()).trim_matches('"').to_owned();
        let number = || {
            u32::from_str_radix(&value, 16)
                .map_err(|_| wrong(format!("'{value}' is no content id")))
        };
        match line[..equals].trim_ascii().to_ascii_lowercase().as_slice() {
            b"cid" => cid = Some(number()?),
            b"parentcid" => parent_cid = Some(number()?),
            b"parentfilenamehint" => hint = Some(value),
            b"createtype" => kind = value,
            _ => {}
        }
    }
    let cid = cid.ok_or_else(|| wrong("there is no CID".into()))?;
    let parent = match (parent_cid.filter(|cid| *cid != NO_PARENT), hint) {
        (None, _) => None,
        (Some(cid), Some(hint)) if !hint.is_empty() => Some((cid, hint)),
        (Some(_), _) => return Err(wrong("it has a parent without a name".into())),
    };
    if extents.is_empty() {
        return Err(wrong(format!("it has no extents (createType '{kind}')")));
    }
    Ok(Descriptor { cid, parent, extents })
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`; `None` for a line that is no extent.
fn extent(line: &[u8]) -> std::result::Result<Option<Extent>, String> {
    let said = || format!("extent '{}'", String::from_utf8_lossy(line));
    let mut quoted = line.splitn(3, |byte| *byte == b'"');
    let before = String::from_utf8_lossy(quoted.next().unwrap_or_default()).into_owned();
    let mut words = before.split_whitespace();
    let access = words.next().unwrap_or_default();
    if !["RW", "RDONLY", "NOACCESS"].contains(&access) {
        return Ok(None);
    }
    let len = words.next().and_then(|word| word.parse::<u64>().ok());
    let len = len.and_then(|sectors| sectors.checked_mul(SECTOR)).filter(|len| *len > 0);
    let len = len.ok_or_else(said)?;
    let kind = words.next().unwrap_or_default();
    if access == "NOACCESS" {
        return Err(format!("{}: nobody may read it", said()));
    }
    let name = quoted.next().map(|name| PathBuf::from(OsStr::from_bytes(name)));
    let name = name.filter(|name| !name.as_os_str().is_empty());
    let rest = String::from_utf8_lossy(quoted.next().unwrap_or_default()).into_owned();
    let offset = match rest.split_whitespace().next() {
        None => Some(0),
        Some(word) => word.parse::<u64>().ok().and_then(|at| at.checked_mul(SECTOR)),
    };
    let kind = match (kind, name) {
        ("ZERO", _) => ExtentKind::Zero,
        ("FLAT" | "VMFS", Some(name)) => {
            ExtentKind::Flat { name, offset: offset.ok_or_else(said)? }
        }
        ("SPARSE", Some(name)) => ExtentKind::Sparse { name },
        (other, _) => return Err(format!("{}: kind '{other}' is not read", said())),
    };
    Ok(Some(Extent { len, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> std::result::Result<Option<(u64, ExtentKind)>, String> {
        extent(line.as_bytes()).map(|found| found.map(|extent| (extent.len, extent.kind)))
    }

    #[test]
    fn extents_are_understood_and_others_named() {
        let flat = |name: &str, offset| ExtentKind::Flat { name: name.into(), offset };
        assert_eq!(one("RW 4 FLAT \"a b.vmdk\" 2"), Ok(Some((2048, flat("a b.vmdk", 1024)))));
        assert_eq!(one("RDONLY 4 VMFS \"x\""), Ok(Some((2048, flat("x", 0)))));
        let sparse = ExtentKind::Sparse { name: "s".into() };
        assert_eq!(one("RW 1 SPARSE \"s\""), Ok(Some((512, sparse))));
        assert_eq!(one("RW 1 ZERO"), Ok(Some((512, ExtentKind::Zero))));
        assert_eq!(one("ddb.adapterType = \"ide\""), Ok(None));
        for wrong in [
            "RW 0 ZERO",
            "RW x FLAT \"a\" 0",
            "RW 99999999999999999999 ZERO",
            "RW 40000000000000000 ZERO",
            "RW 1 FLAT \"a\" -1",
            "RW 1 FLAT \"\" 0",
            "RW 1 FLAT",
            "RW 1 SESPARSE \"a\"",
            "NOACCESS 1 FLAT \"a\" 0",
        ] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_descriptor_needs_an_id_extents_and_a_name_for_its_parent() {
        let parse = |text: &str| super::parse(text.as_bytes(), 0).map_err(|e| e.to_string());
        let good =
            parse("CID=fffffffe\nparentCID=0000ab12\nparentFileNameHint=\"b.vmdk\"\nRW 1 ZERO");
        let good = good.unwrap();
        assert_eq!((good.cid, good.parent), (0xFFFF_FFFE, Some((0xAB12, "b.vmdk".into()))));
        assert!(parse("cid = 1\r\nparentCID=ffffffff\r\nRW 1 ZERO\r\n").unwrap().parent.is_none());
        for (text, says) in [
            ("RW 1 ZERO", "there is no CID"),
            ("CID=xyz\nRW 1 ZERO", "'xyz' is no content id"),
            ("CID=1\nparentCID=2\nRW 1 ZERO", "a parent without a name"),
            ("CID=1\ncreateType=\"vmfsRaw\"", "no extents (createType 'vmfsRaw')"),
        ] {
            let said = parse(text).err().unwrap();
            assert!(said.contains(says), "{said}");
        }
        let many = format!("CID=1\n{}", "RW 1 ZERO\n".repeat(1025));
        assert!(parse(&many).err().unwrap().contains("more than 1024 extents"));
    }
}
