//! Slot areas of an attacker: refused by name or harmless, in bounded time and memory.

use aiv_keys::{
    Credential, Error, KeyArea, KeyFile, Purpose, RecipientKey, RecipientSecret, RecoveryCode, Work,
};
use proptest::prelude::*;

use crate::{add, area_for, chain_key, passphrase};

const HASH_AT: usize = 992;
const FIRST_SLOT: usize = 1024;

/// Makes the hash of an area right again, as anybody can.
pub(crate) fn mend(area: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_keyed(b"aivory draft: key-slot area     ");
    hasher.update(&area[..HASH_AT]).update(&area[FIRST_SLOT..]);
    area[HASH_AT..FIRST_SLOT].copy_from_slice(hasher.finalize().as_bytes());
}

fn credentials() -> [Credential; 4] {
    [
        passphrase("one"),
        Credential::KeyFile(KeyFile::new(&[5; 100]).unwrap()),
        Credential::RecoveryCode(RecoveryCode::new([6; 20])),
        Credential::Recipient(RecipientSecret::new([7; 32])),
    ]
}

fn sound() -> Vec<u8> {
    let [first, rest @ ..] = credentials();
    let mut area = area_for(&first);
    for (seed, credential) in (1..).zip(&rest) {
        area = add(&area, credential, seed).unwrap().0;
    }
    area.to_bytes()
}

/// The refusal of an area in which this was put at that place, its hash mended.
fn refused(at: usize, bytes: &[u8]) -> String {
    let mut area = sound();
    area[at..at + bytes.len()].copy_from_slice(bytes);
    mend(&mut area);
    match KeyArea::parse(&area) {
        Err(error @ Error::Damaged(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_of_a_copy_is_found_without_a_key() {
    let mut area = sound();
    // A slot holds 1 KiB, much of it reserved: bytes in steps that meet every field.
    for at in (0..area.len()).filter(|at| at % 7 == 0 || at % 1024 < 260) {
        for bit in [0, 3, 7] {
            area[at] ^= 1 << bit;
            assert!(KeyArea::parse(&area).is_err(), "bit {bit} of byte {at}");
            area[at] ^= 1 << bit;
        }
    }
    KeyArea::parse(&area).unwrap();
}

#[test]
fn four_tebibytes_of_memory_are_refused_by_name_before_any_is_taken() {
    let text = refused(FIRST_SLOT + 4, &u32::MAX.to_le_bytes());
    assert_eq!(
        text,
        "the key-slot area is damaged: slot 1: 4294967295 KiB x 1 passes x 1 lanes of Argon2id are \
         not allowed: lanes 1 to 8, memory from 8 KiB per lane to 1048576 KiB, memory x passes at \
         most 2097152 KiB"
    );
    for (memory, passes, lanes) in [
        (8_u32, u32::MAX, 1_u32),
        (1024 * 1024, 3, 1),
        (1024 * 1024 + 1, 1, 1),
        (8, 0, 1),
        (0, 1, 1),
        (7, 1, 1),
        (8, 1, 0),
        (15, 1, 2),
        (1024, 1, 9),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let cost = [memory, passes, lanes].map(u32::to_le_bytes).concat();
        assert!(refused(FIRST_SLOT + 4, &cost).contains("are not allowed"));
    }
}

#[test]
fn each_rule_of_the_area_has_its_refusal() {
    for (at, bytes, what) in [
        (0, &b"AIVKEYS2"[..], "magic number"),
        (8, &[0; 8], "generation 0"),
        (8, &[255; 8], "generation 18446744073709551615"),
        (48, &[5], "4 slots, and its header says 5"),
        (48, &[255; 4], "4 slots, and its header says 4294967295"),
        (52, &[2], "flags 0x2"),
        (55, &[1], "flags 0x1000000"),
        (56, &[1], "reserved bytes of its header"),
        (991, &[1], "reserved bytes of its header"),
        (FIRST_SLOT, &[5], "slot 1 has type 5"),
        (FIRST_SLOT, &[0], "slot 1 has type 0"),
        (FIRST_SLOT + 1, &[1], "reserved bytes of slot 1"),
        (FIRST_SLOT + 24, &[1], "reserved bytes of slot 1"),
        (FIRST_SLOT + 1023, &[1], "reserved bytes of slot 1"),
        (FIRST_SLOT + 32, &[0xFF], "label of slot 1"),
        (FIRST_SLOT + 32, &[0x1B], "label of slot 1"),
        (FIRST_SLOT + 32, &[0], "label of slot 1"),
        (FIRST_SLOT + 128, &[1], "slot 1 has fields"),
        (FIRST_SLOT + 160, &[1], "slot 1 has fields"),
        (2 * FIRST_SLOT + 4, &[1], "slot 2 has fields"),
        (31 * FIRST_SLOT + 700, &[1], "slot 31 has type 0"),
    ] {
        let text = refused(at, bytes);
        assert!(text.contains(what), "{at}: {text}");
    }
    let mut empty = sound();
    empty[FIRST_SLOT..].fill(0);
    empty[48..52].fill(0);
    mend(&mut empty);
    assert!(KeyArea::parse(&empty).unwrap_err().to_string().contains("no slot"));
    for len in [0, 1, 1023, 1024, KeyArea::SIZE - 1, KeyArea::SIZE + 1] {
        let text = KeyArea::parse(&vec![0; len]).unwrap_err().to_string();
        assert!(text.contains(&format!("{len} bytes long")), "{text}");
    }
}

#[test]
fn changed_slots_open_nothing_or_are_called_forged() {
    let whole = sound();
    for (slot, credential) in credentials().iter().enumerate() {
        let start = FIRST_SLOT * (slot + 1);
        // Label, time, salt, keys, wrapped key: all are proven by the tag of the slot.
        for at in [16, 33, 96, 127, 192, 223, 224, 239] {
            let mut area = whole.clone();
            area[start + at] ^= 1;
            mend(&mut area);
            let opened = KeyArea::parse(&area).unwrap().open(credential, &mut Work::new());
            assert!(matches!(opened, Err(Error::WrongKey { slots: 1, .. })), "{at}: {opened:?}");
        }
        // The mac proves the slots of everybody else.
        let other = FIRST_SLOT * ((slot + 1) % 4 + 1);
        let mut area = whole.clone();
        area[other + 200] ^= 1;
        mend(&mut area);
        let opened = KeyArea::parse(&area).unwrap().open(credential, &mut Work::new());
        assert!(matches!(opened, Err(Error::Forged)), "{opened:?}");
        // And itself.
        let mut area = whole.clone();
        area[64] ^= 1;
        mend(&mut area);
        let opened = KeyArea::parse(&area).unwrap().open(credential, &mut Work::new());
        assert!(matches!(opened, Err(Error::Forged)), "{opened:?}");
    }
}

#[test]
fn a_public_key_that_hides_nothing_opens_nothing() {
    let secret = RecipientSecret::new([7; 32]);
    let mut area = sound();
    let slot = FIRST_SLOT * 4;
    area[slot + 128..slot + 160].fill(0);
    mend(&mut area);
    let opened =
        KeyArea::parse(&area).unwrap().open(&Credential::Recipient(secret), &mut Work::new());
    assert!(matches!(opened, Err(Error::WrongKey { slots: 1, .. })), "{opened:?}");
}

#[test]
fn passphrases_get_no_room_for_more_work_than_one_attempt_may_take() {
    // Made to ask for two thirds of an attempt's work each, by the owner of the key.
    let (area, _) = add(&area_for(&passphrase("one")), &passphrase("two"), 1).unwrap();
    let mut area = area.to_bytes();
    for slot in 1..=2 {
        let at = slot * FIRST_SLOT + 4;
        area[at..at + 12].copy_from_slice(&[1 << 20, 2, 1].map(u32::to_le_bytes).concat());
    }
    let mac = chain_key()
        .derive(Purpose::SlotAreaMac, &[&area[..64], &area[96..HASH_AT], &area[FIRST_SLOT..]]);
    area[64..96].copy_from_slice(mac.expose());
    mend(&mut area);
    let area = KeyArea::parse(&area).unwrap();
    area.prove(&chain_key()).unwrap();
    assert!(matches!(add(&area, &passphrase("three"), 2), Err(Error::Full(_))));
    // What is no passphrase costs no work, and less of it is always allowed.
    add(&area, &credentials()[1], 2).unwrap();
    area.remove(&chain_key(), 1).unwrap();
}

/// Tries everything on it that costs nothing.
fn try_all(bytes: &[u8]) {
    let Ok(area) = KeyArea::parse(bytes) else { return };
    assert_eq!(area.to_bytes(), bytes, "one encoding for one content");
    assert!(area.slots().count() >= 1);
    for credential in &credentials()[1..] {
        let _ = area.open(credential, &mut Work::new());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..40_000)) {
        try_all(&bytes);
    }

    #[test]
    fn arbitrary_changes_with_a_right_hash_do_no_harm(
        changes in prop::collection::vec((0..KeyArea::SIZE, any::<u8>()), 1..6),
        near in prop::collection::vec((0..5_usize, 0..256_usize, any::<u8>()), 0..6),
    ) {
        let mut area = sound();
        let near = near.into_iter().map(|(slot, at, byte)| (slot * 1024 + at, byte));
        for (at, byte) in changes.into_iter().chain(near) {
            area[at] = byte;
        }
        mend(&mut area);
        try_all(&area);
    }

    #[test]
    fn arbitrary_texts_are_no_keys(text in "\\PC{0,80}", tail in "[0-9a-zA-Z-]{0,70}") {
        let _ = RecoveryCode::parse(&text);
        let _ = RecoveryCode::parse(&tail);
        let _ = Credential::from_paper(&text);
        let _ = Credential::from_paper(&tail);
        for prefix in ["aiv-public-", "aiv-secret-"] {
            let key = format!("{prefix}{tail}");
            prop_assert!(RecipientKey::parse(&key).is_err());
            prop_assert!(RecipientSecret::parse(&key).is_err());
        }
        let _ = Credential::from_key_file(text.as_bytes());
    }
}

#[test]
fn what_is_wrong_is_said_once_by_an_error_and_what_it_comes_from() {
    let error = KeyArea::parse(&[0; 7]).unwrap_err();
    assert_eq!(error.to_string(), "the key-slot area is damaged: 7 bytes long, a copy has 32768");
    assert!(std::error::Error::source(&error).is_none());
}
