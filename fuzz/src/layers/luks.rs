//! LUKS volumes: headers with their checksums mended, which ask for no more work than is cheap. What
//! is derived from a passphrase is what `aiv-keys` and its own tests are about.

use std::process::Command;
use std::sync::Arc;

use aiv_filesystems::{Error, LuksKey, LuksKeys, open_luks};
use aiv_volume_io::{Extent, FileDisk, Job, ReadAt};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::read_ends;
use crate::SparseDisk;
use crate::seeds::{kept, run};

const SECRET: &[u8] = b"first";
/// Bytes of each copy of a header of version 2, as the seeds have them; and of larger ones that are
/// mended.
const COPY: usize = 16 << 10;
const COPY_MAX: usize = 128 << 10;
/// The JSON of a copy begins here; its checksum is in front.
const RECORD: usize = 4096;
const SUM: std::ops::Range<usize> = 448..512;
/// Bytes of a header and of its one key slot, whatever its cipher.
const READ: u64 = 600 << 10;
/// What a slot may ask for: rounds, KiB, and passes.
const COSTS: [(&str, u32); 3] = [("iterations", 1000), ("memory", 64), ("time", 4)];

/// A volume in a [`SparseDisk`].
pub(super) fn volume(container: &[u8]) -> bool {
    let mut disk = SparseDisk::from_bytes(container);
    let mut head = [0; 8];
    match disk.read_exact_at(&mut head, 0) {
        Ok(()) if head[6..] == [0, 1] => cheap_version1(&mut disk),
        _ => [0, COPY].into_iter().for_each(|at| mend(&mut disk, at)),
    }
    let mut keys = LuksKeys::none();
    keys.add(LuksKey::new(Zeroizing::new(SECRET.to_vec())).expect("not empty"));
    let len = disk.len();
    match open_luks(Arc::new(disk), &keys, Job::silent()) {
        Ok(contents) => {
            assert!(contents.extent.end() <= len && contents.extent.len == contents.bytes.len());
            assert!(read_ends(&*contents.bytes), "it lies on the volume");
            true
        }
        // Its header was understood.
        Err(Error::WrongKey { .. } | Error::Unsupported { .. }) => true,
        Err(_) => false,
    }
}

fn cheap_version1(disk: &mut SparseDisk) {
    let [(_, rounds), ..] = COSTS;
    for at in (0..8).map(|slot| 212 + 48 * slot).chain([164]) {
        let mut word = [0; 4];
        if disk.read_exact_at(&mut word, at).is_ok() && u32::from_be_bytes(word) > rounds {
            disk.patch(at, rounds.to_be_bytes().to_vec());
        }
    }
}

/// Makes the costs in a copy of the header cheap, and its checksum right.
fn mend(disk: &mut SparseDisk, at: usize) {
    let place = at as u64;
    let mut size = [0; 8];
    if disk.read_exact_at(&mut size, place + 8).is_err() {
        return;
    }
    let size = usize::try_from(u64::from_be_bytes(size)).unwrap_or(0);
    if !(COPY..=COPY_MAX).contains(&size) {
        return;
    }
    let mut copy = vec![0; size];
    if disk.read_exact_at(&mut copy, place).is_err() {
        return;
    }
    for (name, most) in COSTS {
        cheap(&mut copy[RECORD..], &format!("\"{name}\":"), most);
    }
    copy[SUM].fill(0);
    let sum = Sha256::digest(&copy);
    copy[SUM][..sum.len()].copy_from_slice(&sum);
    disk.patch(place, copy);
}

/// Numbers of this name that are larger become the largest that is cheap.
fn cheap(json: &mut [u8], name: &str, most: u32) {
    let mut at = 0;
    while let Some(found) = json[at..].windows(name.len()).position(|seen| seen == name.as_bytes())
    {
        at += found + name.len();
        at += json[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let digits = json[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = &mut json[at..at + digits];
        let value = number.iter().fold(0_u64, |value, digit| {
            value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        });
        if value > most.into() {
            let text = format!("{most:<digits$}");
            number.copy_from_slice(text.as_bytes());
        }
        at += digits;
    }
}

/// A volume of either version, and one whose slot asks for Argon2; each with bytes in it.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let rounds = "--pbkdf-force-iterations 1000";
    let small = "--luks2-metadata-size 16k --luks2-keyslots-size 256k";
    [
        format!("--type luks1 --hash sha256 {rounds}"),
        format!("--type luks2 {small} --pbkdf pbkdf2 {rounds} --sector-size 512"),
        format!(
            "--type luks2 {small} --pbkdf argon2id --pbkdf-memory 64 --pbkdf-force-iterations 4 \
             --pbkdf-parallel 1"
        ),
    ]
    .iter()
    .map(|options| made(options))
    .collect()
}

fn made(options: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [volume, key] = ["volume", "key"].map(|name| folder.path().join(name));
    std::fs::write(&key, SECRET).expect("room");
    let file = std::fs::File::create(&volume).expect("room");
    file.set_len(4 << 20).expect("room");
    let mut command = Command::new("cryptsetup");
    command.args(["luksFormat", "-q", "--key-size", "256", "--key-file"]).arg(&key);
    run(command.args(options.split_whitespace()).arg(&volume));
    let disk = FileDisk::open_source(&volume).expect("just made");
    kept(&disk, &[Extent::new(0, READ)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_opened_and_what_asks_for_much_becomes_cheap() {
        for seed in seeds() {
            let mut disk = SparseDisk::from_bytes(&seed);
            let mut keys = LuksKeys::none();
            keys.add(LuksKey::new(Zeroizing::new(SECRET.to_vec())).unwrap());
            let len = disk.len();
            mend(&mut disk, COPY);
            let contents = open_luks(Arc::new(disk), &keys, Job::silent()).unwrap();
            assert_eq!(contents.extent.end(), len);
            assert!(volume(&seed));
        }
        let mut json = *b"{\"iterations\":99999,\"time\": 7,\"memory\":64,\"iterations\":12";
        for (name, most) in COSTS {
            cheap(&mut json, &format!("\"{name}\":"), most);
        }
        assert_eq!(&json, b"{\"iterations\":1000 ,\"time\": 4,\"memory\":64,\"iterations\":12");
    }
}
