//! LUKS volumes that cryptsetup and QEMU encrypted: opened by their passphrases and key files, and
//! the reasons of those that are not.

use std::fs;
use std::sync::Arc;

use aiv_filesystems::{Error, LuksContents, LuksKey, LuksKeys, open_luks};
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, changes};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::ext_tools::MIB;
use crate::fat_mutants::Mutant;
use crate::tools::{Volume, noise, run};

/// A KDF that costs nothing.
const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
/// Bytes in a volume.
const FILLED: usize = 3 << 20;

fn keys(secrets: &[&[u8]]) -> LuksKeys {
    let mut keys = LuksKeys::none();
    for secret in secrets {
        keys.add(LuksKey::new(Zeroizing::new(secret.to_vec())).unwrap());
    }
    keys
}

fn try_open(volume: &Volume, secrets: &[&[u8]]) -> Result<LuksContents, Error> {
    open_luks(Arc::new(volume.open()), &keys(secrets), Job::silent())
}

/// The front of what it encrypts.
fn front(contents: &LuksContents) -> Vec<u8> {
    let mut out = vec![0; FILLED];
    contents.bytes.read_exact_at(&mut out, 0).unwrap();
    out
}

fn why(volume: &Volume, secret: &[u8]) -> String {
    try_open(volume, &[secret]).unwrap_err().to_string()
}

/// A file beside the volume with a secret.
fn secret_file(volume: &Volume, name: &str, secret: &[u8]) -> String {
    let path = volume.dir.path().join(name);
    fs::write(&path, secret).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Noise, encrypted where it lies for the key `first`.
fn luks2(options: &str) -> Volume {
    let volume = Volume::new(12 * MIB);
    volume.patch(0, &noise(7, FILLED));
    let key = secret_file(&volume, "key", b"first");
    let words = format!(
        "reencrypt --encrypt --type luks2 --reduce-device-size 4M --luks2-keyslots-size 1M -q \
         --key-file {key} {options}"
    );
    run("cryptsetup", &volume.with_path(&words));
    volume
}

/// Adds a key slot for `secret`.
fn add(volume: &Volume, secret: &[u8], options: &str) {
    let old = secret_file(volume, "key", b"first");
    let new = secret_file(volume, "new", secret);
    let words = format!("luksAddKey -q {options} --key-file {old} {} {new}", volume.path());
    run("cryptsetup", &words.split_whitespace().collect::<Vec<_>>());
}

/// The same as version 1.
fn luks1() -> Volume {
    let volume = luks2(&format!("{CHEAP} --hash sha512"));
    run("cryptsetup", &volume.with_path("convert -q --type luks1"));
    volume
}

#[test]
fn what_cryptsetup_encrypted_is_read_whatever_cipher_sector_and_derivation_it_chose() {
    for options in [
        CHEAP.to_owned(),
        format!("{CHEAP} --hash sha1 --key-size 256"),
        format!("{CHEAP} --hash sha384 --sector-size 4096"),
        format!("{CHEAP} --sector-size 1024 --cipher aes-xts-plain"),
        format!("{CHEAP} --sector-size 2048 --cipher aes-cbc-plain64 --key-size 128"),
        format!("{CHEAP} --sector-size 512 --cipher aes-cbc-essiv:sha256 --key-size 256"),
        format!("{CHEAP} --sector-size 512 --cipher aes-cbc-plain --key-size 128"),
        "--pbkdf argon2id --pbkdf-memory 512 --pbkdf-force-iterations 4 --pbkdf-parallel 3".into(),
        "--pbkdf argon2i --pbkdf-memory 64 --pbkdf-force-iterations 5 --pbkdf-parallel 1".into(),
    ] {
        let volume = luks2(&options);
        let contents = try_open(&volume, &[b"first"]).unwrap();
        assert!(front(&contents) == noise(7, FILLED), "{options}");
        assert_eq!(contents.extent, Extent::new(2 * MIB, 10 * MIB), "{options}");
        assert_eq!(contents.bytes.len(), 10 * MIB);
    }
}

#[test]
fn version_1_is_read_as_cryptsetup_and_qemu_write_it() {
    let volume = luks1();
    add(&volume, b"second", "--pbkdf-force-iterations 1000");
    for secret in [&b"first"[..], b"second"] {
        assert!(front(&try_open(&volume, &[secret]).unwrap()) == noise(7, FILLED));
    }
    assert!(matches!(try_open(&volume, &[b"third"]), Err(Error::WrongKey { slots: 2 })));

    let plain = Volume::new(4 * MIB);
    plain.patch(0, &noise(7, FILLED));
    let key = secret_file(&plain, "key", b"first");
    let how = "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256";
    let volume = Volume::new(0);
    let words = format!(
        "convert -f raw -O luks --object secret,id=s,file={key} -o key-secret=s,iter-time=10,{how} {}",
        plain.path()
    );
    run("qemu-img", &volume.with_path(&words));
    let contents = try_open(&volume, &[b"first"]).unwrap();
    assert!(front(&contents) == noise(7, FILLED));
    assert_eq!(contents.bytes.len(), 4 * MIB);
}

#[test]
fn any_range_is_read_whatever_its_ends() {
    let volume = luks2(&format!("{CHEAP} --sector-size 4096"));
    let contents = try_open(&volume, &[b"first"]).unwrap();
    let all = noise(7, FILLED);
    for (at, len) in
        [(0, 0), (1, 1), (4095, 2), (4096, 4096), (100, 3996), (100, 9000), (8191, 8194), (5, 4091)]
    {
        let mut out = vec![0; len];
        contents.bytes.read_exact_at(&mut out, at as u64).unwrap();
        assert!(out == all[at..at + len], "{at} {len}");
    }
    let end = contents.bytes.len();
    for (at, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
        assert!(contents.bytes.read_exact_at(&mut vec![0; len], at).is_err(), "{at} {len}");
    }
    // Zeros of the disk are no zeros of what it encrypts.
    assert!(contents.bytes.holes(Extent::new(0, end)).unwrap().is_empty());
}

#[test]
fn every_slot_opens_by_its_own_secret_and_no_other_does() {
    let volume = luks2(CHEAP);
    let binary: Vec<u8> = (0..=255).cycle().take(5000).collect();
    add(&volume, &binary, CHEAP);
    add(&volume, b"prefer\xc3\xa9", CHEAP);
    run("cryptsetup", &volume.with_path("config --key-slot 2 --priority prefer"));
    run("cryptsetup", &volume.with_path("config --key-slot 0 --priority ignore"));
    for secret in [b"first".as_slice(), &binary, "prefer\u{e9}".as_bytes()] {
        assert!(front(&try_open(&volume, &[secret]).unwrap()) == noise(7, FILLED));
        // Among others, in any order.
        assert!(try_open(&volume, &[b"no", secret, b"neither"]).is_ok());
    }
    for secret in [&b"First"[..], b"first ", b"first\n", b"firs", &binary[1..], b"prefere\xcc\x81"]
    {
        let error = try_open(&volume, &[secret]).unwrap_err();
        assert!(matches!(error, Error::WrongKey { slots: 3 }), "{error}");
        assert!(error.to_string().contains("none of its 3 key slots"), "{error}");
    }
    assert!(LuksKey::new(Zeroizing::new(Vec::new())).is_none());
    assert!(LuksKey::new(Zeroizing::new(vec![1; (8 << 20) + 1])).is_none());
    let shown = format!("{:?}", keys(&[b"first"]));
    assert!(!shown.contains("first") && !shown.contains("102"), "{shown}");
}

/// Bytes of a header of version 2, and where its second copy begins.
const COPY: usize = 16 << 10;

/// Changes the JSON of the copies at `at`, and writes their checksums.
fn edit(volume: &Volume, at: &[u64], from: &str, to: &str) -> Volume {
    let changed = volume.duplicate();
    for at in at {
        let mut copy = vec![0; COPY];
        volume.open().read_exact_at(&mut copy, *at).unwrap();
        let text = String::from_utf8(copy[4096..].to_vec()).unwrap();
        let text = text.trim_end_matches('\0');
        assert!(text.contains(from), "{text}");
        let text = text.replace(from, to);
        copy[4096..].fill(0);
        copy[4096..4096 + text.len()].copy_from_slice(text.as_bytes());
        mend(&mut copy);
        changed.patch(*at, &copy);
    }
    changed
}

fn mend(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let sum = Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&sum);
}

const BOTH: &[u64] = &[0, COPY as u64];

#[test]
fn the_newer_copy_of_the_header_that_is_whole_counts() {
    let volume = luks2(CHEAP);
    let opens = |volume: &Volume| try_open(volume, &[b"first"]).is_ok();
    // The first is damaged anywhere behind its magic, or holds no metadata.
    for at in [6, 8, 15, 100, 256, 448, 4096, 5000] {
        let changed = volume.duplicate();
        let mut byte = [0];
        volume.open().read_exact_at(&mut byte, at).unwrap();
        changed.patch(at, &[!byte[0]]);
        assert!(opens(&changed), "{at}");
        // And the second one, too.
        volume.open().read_exact_at(&mut byte, COPY as u64 + at).unwrap();
        changed.patch(COPY as u64 + at, &[!byte[0]]);
        assert!(!opens(&changed), "{at}");
    }
    let none = edit(&volume, &[0], "{", "[");
    assert!(opens(&none));
    assert!(why(&edit(&none, &BOTH[1..], "{", "["), b"first").contains("holds no metadata"));
    // The second is newer, and says something else.
    let newer = edit(&volume, &BOTH[1..], "\"aes-xts-plain64\"", "\"serpent-xts-plain64\"");
    assert!(opens(&newer));
    let mut copy = vec![0; COPY];
    newer.open().read_exact_at(&mut copy, COPY as u64).unwrap();
    copy[16..24].copy_from_slice(&1000_u64.to_be_bytes());
    mend(&mut copy);
    newer.patch(COPY as u64, &copy);
    assert!(why(&newer, b"first").contains("serpent-xts-plain64"));
    // A copy says where it is.
    let mut copy = vec![0; COPY];
    volume.open().read_exact_at(&mut copy, COPY as u64).unwrap();
    copy[256..264].copy_from_slice(&(COPY as u64 * 2).to_be_bytes());
    mend(&mut copy);
    let elsewhere = volume.duplicate();
    elsewhere.patch(COPY as u64, &copy);
    elsewhere.patch(4096, &[0]);
    assert!(!opens(&elsewhere));
}

#[test]
fn a_digest_too_short_to_tell_a_key_opens_nothing() {
    let volume = luks2(CHEAP);
    for digest in ["", "AA==", "AAAAAAAAAAAAAAAAAAAAAAAAAA=="] {
        let to = format!("\"digest\":\"{digest}\",\"was\":\"");
        let changed = edit(&volume, BOTH, "\"digest\":\"", &to);
        let why = why(&changed, b"wrong");
        assert!(why.contains("a digest of the volume key of"), "{digest:?}: {why}");
    }
}

#[test]
fn what_is_not_opened_says_why() {
    let volume = luks2(CHEAP);
    for (from, to, reason) in [
        (
            "\"sector_size\":512",
            "\"sector_size\":512,\"integrity\":{\"type\":\"hmac\"}",
            "dm-integrity",
        ),
        ("\"sector_size\":512", "\"sector_size\":8192", "sectors of 8192 bytes"),
        ("\"offset\":\"2097152\"", "\"offset\":\"0\"", "data lies elsewhere"),
        ("\"offset\":\"2097152\"", "\"offset\":\"13000000\"", "does not fit"),
        ("\"size\":\"dynamic\"", "\"size\":\"10485761\"", "does not fit"),
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "data of kind linear"),
        ("\"hash\":\"sha256\"", "\"hash\":\"whirlpool\"", "hash whirlpool"),
        ("\"type\":\"luks2\"", "\"type\":\"other\"", "key slot of kind other"),
        ("\"iterations\":1000", "\"iterations\":40000000", "80000000 rounds"),
        ("\"iterations\":1000", "\"iterations\":0", "no rounds"),
        ("\"stripes\":4000", "\"stripes\":4001", "stripes"),
        ("\"stripes\":4000", "\"stripes\":0", "stripes"),
        ("\"key_size\":64", "\"key_size\":100", "keys of 100 bytes"),
        ("\"keyslots\":[", "\"keyslots\":[],\"was\":[", "no key slot"),
        (
            "\"config\":{",
            "\"config\":{\"requirements\":{\"mandatory\":[\"new\\u0007\"]},",
            "needs new,",
        ),
    ] {
        let changed = edit(&volume, BOTH, from, to);
        let why = why(&changed, b"first");
        assert!(why.contains(reason), "{to}: {why}");
    }
    let argon = luks2("--pbkdf argon2id --pbkdf-memory 64 --pbkdf-force-iterations 4");
    for (from, to) in [
        ("\"memory\":64", "\"memory\":1048577"),
        ("\"time\":4", "\"time\":4000000000"),
        ("\"cpus\":", "\"cpus\":0,\"was\":"),
        ("\"cpus\":", "\"cpus\":9,\"was\":"),
    ] {
        let why = why(&edit(&argon, BOTH, from, to), b"first");
        assert!(why.contains("more than is tried"), "{to}: {why}");
    }
    // One that cannot be used does not keep the others from being tried.
    let two = luks2(CHEAP);
    add(&two, b"second", "--pbkdf argon2id --pbkdf-memory 64 --pbkdf-force-iterations 4");
    let two = edit(&two, BOTH, "\"memory\":64", "\"memory\":99999999");
    assert!(try_open(&two, &[b"first"]).is_ok());
    assert!(why(&two, b"second").contains("more than is tried"));
}

#[test]
fn a_volume_being_encrypted_and_a_header_without_its_data_are_told() {
    let volume = Volume::new(12 * MIB);
    let key = secret_file(&volume, "key", b"first");
    let words = format!(
        "reencrypt --encrypt --init-only --type luks2 --reduce-device-size 4M -q {CHEAP} --key-file {key}"
    );
    run("cryptsetup", &volume.with_path(&words));
    assert!(why(&volume, b"first").contains("being encrypted anew"));

    for kind in ["luks1", "luks2"] {
        let data = Volume::new(12 * MIB);
        let header = Volume::new(12 * MIB);
        let words = format!(
            "luksFormat -q --type {kind} {CHEAP} --key-file {key} --header {}",
            header.path()
        );
        run("cryptsetup", &data.with_path(&words));
        assert!(why(&header, b"first").contains("data lies elsewhere"), "{kind}");
    }
    let blank = Volume::new(MIB);
    assert!(matches!(try_open(&blank, &[b"first"]), Err(Error::Damaged { .. })));
    blank.patch(0, b"LUKS\xba\xbe\0\x03");
    assert!(why(&blank, b"first").contains("version 3"));
}

#[test]
fn changed_headers_neither_panic_nor_cost_much() {
    for (volume, is_second) in [(luks1(), false), (luks2(CHEAP), true)] {
        let bytes = Arc::new(fs::read(&volume.path).unwrap());
        let disk = MemDisk::from_bytes(bytes.to_vec());
        let records = if is_second {
            vec![Extent::new(0, 512), Extent::new(4096, 900)]
        } else {
            vec![Extent::new(0, 592)]
        };
        let (mut opened, mut refused) = (0, 0);
        for seed in 0..50 {
            let mut changed = changes(&mut Random::new(&[seed]), &disk, &records);
            cheap(&bytes, &mut changed, is_second);
            let mutant = Arc::new(Mutant { bytes: bytes.clone(), changes: changed });
            match open_luks(mutant, &keys(&[b"first"]), Job::silent()) {
                Ok(contents) => {
                    let len = contents.bytes.len();
                    let mut out = vec![0; 5000.min(usize::try_from(len).unwrap())];
                    contents.bytes.read_exact_at(&mut out, 0).unwrap();
                    let end = len - out.len() as u64;
                    contents.bytes.read_exact_at(&mut out, end).unwrap();
                    opened += 1;
                }
                Err(error) => {
                    assert!(!error.to_string().contains("first"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(opened > 4 && refused > 4, "{opened} {refused}");
    }
}

/// Keeps rounds below what takes seconds, and the checksum right.
fn cheap(bytes: &[u8], changed: &mut Changes, is_second: bool) {
    if is_second {
        let mut copy = bytes[..COPY].to_vec();
        for (at, byte) in &*changed {
            copy[usize::try_from(*at).unwrap()] = *byte;
        }
        mend(&mut copy);
        changed.extend((448..).zip(copy[448..512].iter().copied()));
    } else {
        for at in (0..8).map(|n| 212 + 48 * n).chain([164]) {
            for at in at..at + 2 {
                changed.remove(&at);
            }
        }
    }
}
