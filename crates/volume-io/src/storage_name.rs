use std::io;

/// Folders a file name may have in front of it. Our own layouts use one or two; the limit
/// bounds the descent into a folder somebody else filled.
pub const FOLDER_DEPTH_MAX: usize = 8;

/// Bytes in a file name, folders included: what Linux takes in one path (`PATH_MAX` less its
/// end), with room for the folder in front.
const NAME_BYTES_MAX: usize = 2048;

/// Files that carry leases; invisible to [`Storage::list`](crate::Storage::list).
pub(crate) const LEASE_PREFIX: &str = ".aiv-lease-";

/// The one file of a folder that describes the others instead of being one of them. Files of
/// this name, and of this name with `.part` behind it while they are being written, are created,
/// opened, published and removed as any other, and invisible to
/// [`Storage::list`](crate::Storage::list).
pub const CATALOGUE_NAME: &str = ".aiv-catalogue";

/// [`CATALOGUE_NAME`] while it is being written.
const CATALOGUE_PART: &str = ".aiv-catalogue.part";

/// Names FUSE and NFS give, followed by hexadecimal digits, to a file that was removed while
/// somebody had it open. It is gone when they close it, so it is as good as removed.
const REMOVED_PREFIXES: [&str; 2] = [".fuse_hidden", ".nfs"];

/// Bytes in the name of a lease: a file name of 255 bytes less the prefix, rounded down.
const LEASE_BYTES_MAX: usize = 200;

/// Checks a name for use with [`Storage`](crate::Storage): relative, at most
/// [`FOLDER_DEPTH_MAX`] folders deep, and unable to leave the folder. Every implementation
/// calls this first, so that all refuse the same names.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] naming the rule that was broken.
pub fn check_name(name: &str) -> io::Result<()> {
    let refuse = |rule: &str| {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file name {name:?} {rule}")))
    };
    if name.len() > NAME_BYTES_MAX {
        let message = format!("file name has {} bytes, at most {NAME_BYTES_MAX}", name.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    if name.contains('\0') {
        return refuse("contains a NUL byte");
    }
    if name.split('/').count() > FOLDER_DEPTH_MAX + 1 {
        return refuse("lies too many folders deep");
    }
    for part in name.split('/') {
        match part {
            "" => return refuse("has an empty component"),
            "." | ".." => return refuse("has a component that is not a name"),
            _ if part.starts_with(LEASE_PREFIX) => return refuse("is reserved for leases"),
            _ => {}
        }
    }
    Ok(())
}

/// Ends the name of every file that is not finished; final names do not have it.
pub const PART_EXTENSION: &str = ".part";

/// Checks a name for [`Storage::reopen`](crate::Storage::reopen): as [`check_name`], and that it
/// is one of an unfinished file. Every implementation calls this first.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`].
pub fn check_reopened(name: &str) -> io::Result<()> {
    check_name(name)?;
    if name.ends_with(PART_EXTENSION) {
        return Ok(());
    }
    let message = format!("{name:?} is no unfinished file and is never written again");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Whether [`Storage::list`](crate::Storage::list) shows a file of this name: neither the file
/// itself nor a folder in front of it is a lease, a catalogue or the remains of a removed file.
/// Every implementation asks this, so that all show the same files.
#[must_use]
pub fn is_listed(name: &str) -> bool {
    name.split('/').all(is_listed_entry)
}

fn is_listed_entry(entry: &str) -> bool {
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit());
    let removed = |prefix: &&str| entry.strip_prefix(*prefix).is_some_and(digits);
    !entry.starts_with(LEASE_PREFIX)
        && !matches!(entry, CATALOGUE_NAME | CATALOGUE_PART)
        && !REMOVED_PREFIXES.iter().any(removed)
}

/// Checks the name of a lease: 1 to 200 ASCII letters, digits and dashes.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`].
pub fn check_lease_name(name: &str) -> io::Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if (1..=LEASE_BYTES_MAX).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    let message = "a lease name is 1 to 200 letters, digits and dashes";
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        let deep = format!("{}x", "d/".repeat(FOLDER_DEPTH_MAX + 1));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "a/../b",
            "./a",
            "a\0b",
            ".aiv-lease-x",
            "a/.aiv-lease-x",
            &deep,
            &long,
        ] {
            let error = check_name(bad).expect_err(bad);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn ordinary_names_pass() {
        let deep = format!("{}x", "d/".repeat(FOLDER_DEPTH_MAX));
        for good in ["a", "host@disk_b00001-x7k2.aiv", "a/b", "...", "a b", "ä", "a\\b", &deep] {
            check_name(good).expect(good);
        }
    }

    #[test]
    fn what_the_filesystem_keeps_for_itself_is_not_listed() {
        for hidden in [".aiv-lease-set", ".fuse_hidden0000000600000001", ".nfs0000000a1b2c3d"] {
            assert!(!is_listed(hidden), "{hidden}");
        }
        for listed in ["a.aiv", ".nfs", ".nfs-image", ".fuse_hidden.aiv", ".hidden", "a/b.aiv"] {
            assert!(is_listed(listed), "{listed}");
        }
    }

    #[test]
    fn a_catalogue_is_a_file_like_any_other_but_not_listed_wherever_it_lies() {
        for name in [CATALOGUE_NAME, CATALOGUE_PART, "sub/.aiv-catalogue"] {
            check_name(name).expect(name);
            assert!(!is_listed(name), "{name}");
        }
        assert_eq!(CATALOGUE_PART, format!("{CATALOGUE_NAME}.part"));
        for other in [".aiv-catalogue.old", "x.aiv-catalogue", ".aiv-catalogue2"] {
            assert!(is_listed(other), "{other}");
        }
    }

    #[test]
    fn a_lease_name_is_a_plain_key() {
        check_lease_name("set-0a1B").unwrap();
        for bad in ["", "a/b", "..", "a.b", "ä", &"x".repeat(201)] {
            check_lease_name(bad).expect_err(bad);
        }
    }
}
