use std::fmt;
use std::io;
use std::path::Path;

use aiv_volume_io::ReadAt;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of the disk as they are.
    Raw,
    /// QEMU's format, versions 2 and 3.
    Qcow2,
    /// Virtual PC's, also of Hyper-V, Azure and Xen.
    Vhd,
    /// Hyper-V's since 2012.
    Vhdx,
    /// VMware's.
    Vmdk,
}

impl Format {
    /// The word for each of them.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("raw", Self::Raw),
        ("qcow2", Self::Qcow2),
        ("vhd", Self::Vhd),
        ("vhdx", Self::Vhdx),
        ("vmdk", Self::Vmdk),
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, format)| *format == self).map_or("", |(word, _)| word)
    }

    /// What the content looks like. Anybody who can write the bytes decides what the answer is.
    ///
    /// # Errors
    /// Whatever the medium reports.
    pub fn of_content(file: &dyn ReadAt) -> io::Result<Self> {
        let mut head = [0; 32];
        let count = usize::try_from(file.len()).unwrap_or(usize::MAX).min(head.len());
        file.read_exact_at(&mut head[..count], 0)?;
        Ok(match head {
            [b'Q', b'F', b'I', 0xFB, ..] => Self::Qcow2,
            [b'v', b'h', b'd', b'x', b'f', b'i', b'l', b'e', ..] => Self::Vhdx,
            [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Self::Vmdk,
            _ if is_descriptor(&head) => Self::Vmdk,
            _ if head.starts_with(VHD_COOKIE) || ends_with_footer(file)? => Self::Vhd,
            _ => Self::Raw,
        })
    }

    /// What the name says: virtual disks by their extension, `None` for names that say nothing
    /// and for the flat pieces of a VMDK, which are raw bytes whatever they are called.
    #[must_use]
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "qcow2" | "qcow" | "qc2" => Some(Self::Qcow2),
            "vhd" | "avhd" | "vpc" => Some(Self::Vhd),
            "vhdx" | "avhdx" => Some(Self::Vhdx),
            "vmdk" => (!is_flat_piece(path)).then_some(Self::Vmdk),
            _ => None,
        }
    }

    /// What a file is, when content and name agree; else what the content looks like.
    pub(crate) fn agreed(path: &Path, file: &dyn ReadAt) -> io::Result<Result<Self, Self>> {
        let found = Self::of_content(file)?;
        let vouched = Self::of_name(path).unwrap_or(Self::Raw);
        Ok(if found == vouched { Ok(found) } else { Err(found) })
    }
}

/// `disk-flat.vmdk`, `disk-f001.vmdk`.
fn is_flat_piece(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let numbered = |suffix: &str| {
        suffix.strip_prefix('f').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    stem.rsplit_once('-').is_some_and(|(_, suffix)| suffix == "flat" || numbered(suffix))
}

pub(crate) const VHD_COOKIE: &[u8] = b"conectix";

/// A VHD has its footer in the last sector; very old ones are a byte shorter.
fn ends_with_footer(file: &dyn ReadAt) -> io::Result<bool> {
    let mut cookie = [0; 8];
    for from_end in [512, 511] {
        if let Some(at) = file.len().checked_sub(from_end) {
            file.read_exact_at(&mut cookie, at)?;
            if cookie == VHD_COOKIE {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A VMDK whose descriptor is a file of its own begins with this comment, in any case.
pub(crate) fn is_descriptor(head: &[u8]) -> bool {
    let Some(rest) = head.strip_prefix(b"#") else { return false };
    let rest = rest.trim_ascii_start();
    let word = b"disk descriptorfile";
    rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
