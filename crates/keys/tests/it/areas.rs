//! Ways in: made, opened, added, changed, removed.

use aiv_keys::{
    ChainKey, Cost, Credential, Error, KeyArea, KeyFile, NewSlot, PaperKey, Passphrase,
    RecipientSecret, RecoveryCode, SlotKind, Way, Work,
};

use crate::{add, area_for, chain_key, cheap, passphrase, random};

fn one_of_each() -> [Credential; 4] {
    [
        passphrase("correct horse"),
        Credential::KeyFile(KeyFile::new(&[5; 100]).unwrap()),
        Credential::RecoveryCode(RecoveryCode::new([6; 20])),
        Credential::Recipient(RecipientSecret::new([7; 32])),
    ]
}

fn other_of_each() -> [Credential; 4] {
    [
        passphrase("correct house"),
        Credential::KeyFile(KeyFile::new(&[5; 101]).unwrap()),
        Credential::RecoveryCode(RecoveryCode::new([7; 20])),
        Credential::Recipient(RecipientSecret::new([8; 32])),
    ]
}

/// The slot that it opens; 0 with another key in it.
fn opens(area: &KeyArea, credential: &Credential) -> Result<u8, Error> {
    let opened = area.open(credential, &mut Work::new())?;
    let through = opened.through.filter(|(_, of)| of == area && opened.key == chain_key());
    Ok(through.map_or(0, |(slot, _)| slot))
}

#[test]
fn each_kind_of_slot_is_opened_by_what_it_was_made_for_and_by_nothing_else() {
    for mine in &one_of_each() {
        let area = KeyArea::parse(&area_for(mine).to_bytes()).unwrap();
        assert_eq!(opens(&area, mine), Ok(1));
        for other in one_of_each().iter().chain(&other_of_each()) {
            if other.kind() == mine.kind() {
                continue;
            }
            let wrong = Error::WrongKey { kind: other.kind().unwrap(), slots: 0 };
            assert_eq!(opens(&area, other), Err(wrong));
        }
        let other = other_of_each().into_iter().find(|o| o.kind() == mine.kind()).unwrap();
        let wrong = Error::WrongKey { kind: other.kind().unwrap(), slots: 1 };
        assert_eq!(opens(&area, &other), Err(wrong));
    }
}

#[test]
fn a_paper_key_opens_what_has_its_key_through_no_slot_and_makes_none() {
    let area = area_for(&passphrase("one"));
    let paper = |key| Credential::PaperKey(PaperKey::new(key));
    let opened = area.open(&paper(chain_key()), &mut Work::new()).unwrap();
    assert!(opened.key == chain_key() && opened.through.is_none());
    let other = area.open(&paper(ChainKey::new([9; 32])), &mut Work::new());
    assert_eq!(other.unwrap_err(), Error::OtherChain);
    let (mut public, mine) = (None, paper(chain_key()));
    assert!(matches!(Way::of(&mine, cheap(), &mut public), Err(Error::Unusable(_))));
}

#[test]
fn all_ways_lead_to_one_key_and_each_has_its_number() {
    let [first, rest @ ..] = one_of_each();
    let mut area = area_for(&first);
    for (seed, credential) in (1..).zip(&rest) {
        let (more, number) = add(&area, credential, seed).unwrap();
        assert_eq!((number, more.generation()), (seed + 1, u64::from(seed) + 1));
        area = KeyArea::parse(&more.to_bytes()).unwrap();
        assert_eq!(area, more);
    }
    for (number, credential) in (1..).zip(&one_of_each()) {
        assert_eq!(opens(&area, credential), Ok(number));
    }
    let kinds: Vec<SlotKind> = area.slots().map(|(_, slot)| slot.kind()).collect();
    use SlotKind::{KeyFile, Passphrase, Recipient, RecoveryCode};
    assert_eq!(kinds, [Passphrase, KeyFile, RecoveryCode, Recipient]);
    let (_, slot) = area.slots().last().unwrap();
    assert_eq!(slot.recipient(), Some(RecipientSecret::new([7; 32]).public()));
    assert_eq!((slot.label(), slot.created_unix_ms(), slot.cost()), ("one more", 7, None));
}

#[test]
fn a_changed_passphrase_opens_and_the_old_one_does_not() {
    let area = area_for(&passphrase("old"));
    let new = Passphrase::new("new").unwrap();
    let way = Way::Passphrase(&new, cheap());
    let slot = NewSlot { way, label: "", created_unix_ms: 8, random: &random(1) };
    let changed = area.change(&chain_key(), 1, &slot).unwrap();
    assert_eq!(opens(&changed, &passphrase("new")), Ok(1));
    let wrong = Error::WrongKey { kind: SlotKind::Passphrase, slots: 1 };
    assert_eq!(opens(&changed, &passphrase("old")), Err(wrong));
    assert_eq!(area.change(&chain_key(), 2, &slot), Err(Error::NoSlot(2)));
    assert_eq!(area.change(&chain_key(), 0, &slot), Err(Error::NoSlot(0)));
}

#[test]
fn the_last_way_in_is_never_removed() {
    let area = area_for(&passphrase("one"));
    assert_eq!(area.remove(&chain_key(), 1), Err(Error::LastSlot(1)));
    let (two, number) = add(&area, &passphrase("two"), 1).unwrap();
    let left = two.remove(&chain_key(), 1).unwrap();
    assert_eq!(opens(&left, &passphrase("two")), Ok(number));
    assert_eq!(left.remove(&chain_key(), number), Err(Error::LastSlot(number)));
    assert_eq!(left.remove(&chain_key(), 1), Err(Error::NoSlot(1)));
    assert_eq!(left.remove(&chain_key(), 255), Err(Error::NoSlot(255)));
    // The number that became free is the next to be given.
    assert_eq!(add(&left, &passphrase("three"), 2).unwrap().1, 1);
}

#[test]
fn thirty_one_slots_fit_and_no_more() {
    let file = |n: u8| Credential::KeyFile(KeyFile::new(&[n; 40]).unwrap());
    let mut area = area_for(&file(1));
    for n in 2..=31 {
        area = add(&area, &file(n), n).unwrap().0;
    }
    assert_eq!(opens(&KeyArea::parse(&area.to_bytes()).unwrap(), &file(31)), Ok(31));
    assert!(matches!(add(&area, &file(32), 32), Err(Error::Full(_))));
}

#[test]
fn whoever_does_not_have_the_chain_key_changes_nothing() {
    let stranger = ChainKey::new([1; 32]);
    let (area, _) = add(&area_for(&passphrase("one")), &passphrase("two"), 1).unwrap();
    let pass = Passphrase::new("mine").unwrap();
    let way = Way::Passphrase(&pass, cheap());
    let new = NewSlot { way, label: "", created_unix_ms: 0, random: &random(9) };
    assert_eq!(area.add(&stranger, &new), Err(Error::Forged));
    assert_eq!(area.change(&stranger, 1, &new), Err(Error::Forged));
    assert_eq!(area.remove(&stranger, 1), Err(Error::Forged));
    assert_eq!(area.prove(&stranger), Err(Error::Forged));
    area.prove(&chain_key()).unwrap();
}

#[test]
fn a_slot_wrapped_under_another_key_does_not_fit_into_this_area() {
    // One passphrase, two chains: the slot of one in the area of the other.
    let mine = area_for(&passphrase("same")).to_bytes();
    let pass = Passphrase::new("same").unwrap();
    let way = Way::Passphrase(&pass, cheap());
    let new = NewSlot { way, label: "the first", created_unix_ms: 7, random: &random(0) };
    let mut theirs = KeyArea::new(&ChainKey::new([1; 32]), &new).unwrap().to_bytes();
    theirs[16..48].copy_from_slice(&mine[16..48]);
    crate::hostile::mend(&mut theirs);
    let planted = KeyArea::parse(&theirs).unwrap();
    let wrong = Error::WrongKey { kind: SlotKind::Passphrase, slots: 1 };
    assert_eq!(opens(&planted, &passphrase("same")), Err(wrong));
}

#[test]
fn of_two_copies_the_newer_sound_one_counts_and_each_alone_suffices() {
    let old = area_for(&passphrase("old"));
    let (new, _) = add(&old, &passphrase("new"), 1).unwrap();
    let (old_bytes, new_bytes) = (old.to_bytes(), new.to_bytes());
    let torn = [&new_bytes[..700], &old_bytes[700..]].concat();
    let generations = |copies: [&[u8]; 2]| -> Vec<u64> {
        KeyArea::sound(copies).unwrap().iter().map(KeyArea::generation).collect()
    };
    assert_eq!(generations([&old_bytes, &new_bytes]), [2, 1]);
    assert_eq!(generations([&new_bytes, &old_bytes]), [2, 1]);
    assert_eq!(generations([&new_bytes, &new_bytes]), [2]);
    assert_eq!(generations([&torn, &new_bytes]), [2]);
    assert_eq!(generations([&old_bytes, &torn]), [1]);
    assert!(matches!(KeyArea::sound([&torn, &torn]), Err(Error::Damaged(_))));
    assert!(matches!(KeyArea::sound([&[], &[]]), Err(Error::Damaged(_))));
}

#[test]
fn a_forged_newer_copy_does_not_hide_the_true_one() {
    let area = area_for(&passphrase("mine"));
    // Removed by somebody without the key: the slot stays, the label is another one.
    let mut forged = area.to_bytes();
    forged[8] = 200;
    crate::hostile::mend(&mut forged);
    let copies = KeyArea::sound([&area.to_bytes(), &forged]).unwrap();
    assert_eq!(copies[0].generation(), 200);
    assert_eq!(opens(&copies[0], &passphrase("mine")), Err(Error::Forged));
    let opened = KeyArea::open_any(&copies, &passphrase("mine"), &mut Work::new()).unwrap();
    assert_eq!(opened.through.unwrap().1, area);
}

#[test]
fn labels_are_texts_of_at_most_64_bytes() {
    let pass = Passphrase::new("x").unwrap();
    let make = |label: &str| {
        let way = Way::Passphrase(&pass, cheap());
        KeyArea::new(&chain_key(), &NewSlot { way, label, created_unix_ms: 0, random: &[0; 64] })
    };
    assert!(make(&"\u{fc}".repeat(32)).is_ok());
    for wrong in ["x".repeat(65).as_str(), "a\nb", "a\u{1b}[2J", "nul\0", "nul\0nul"] {
        assert!(matches!(make(wrong), Err(Error::Unusable(_))), "{wrong:?}");
    }
}

/// The test vectors of `docs/format.md`.
#[test]
fn the_vectors_of_the_format_document_hold() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let document = std::fs::read_to_string(document).unwrap();
    let key = ChainKey::new(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let bytes = std::array::from_fn(|i| u8::try_from(i + 32).unwrap());
    let pass = Passphrase::new("Z\u{fc}rich").unwrap();
    let file = KeyFile::new(&[0x5A; 32]).unwrap();
    let code = RecoveryCode::new(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    let secret = RecipientSecret::new([0x77; 32]);
    let public = secret.public();
    let mut found = format!("commitment {}\n", hex(&key.commitment()));
    found += &format!("code {}\n", *code.text());
    found += &format!("paper {}\n", *PaperKey::new(key.clone()).text());
    found += &format!("public {}\n", public.text());
    found += &format!("secret {}\n", secret.file_text().lines().last().unwrap());
    for (name, way) in [
        ("passphrase", Way::Passphrase(&pass, Cost::new(64, 2, 2).unwrap())),
        ("key file", Way::KeyFile(&file)),
        ("code", Way::RecoveryCode(&code)),
        ("recipient", Way::Recipient(&public)),
    ] {
        let new = NewSlot { way, label: "label", created_unix_ms: 1, random: &bytes };
        let area = KeyArea::new(&key, &new).unwrap().to_bytes();
        found += &format!("{name} wrapped {}\n", hex(&area[1024 + 192..1024 + 240]));
        found += &format!("{name} mac {}\n", hex(&area[64..96]));
        found += &format!("{name} hash {}\n", hex(&area[992..1024]));
    }
    let missing: Vec<&str> =
        found.lines().filter(|line| !document.contains(line.rsplit(' ').next().unwrap())).collect();
    assert!(missing.is_empty(), "not in the document: {missing:#?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_retired_key_stays_retired_and_opens_as_before() {
    let area = area_for(&passphrase("one"));
    let retired = KeyArea::parse(&area.retire(&chain_key()).unwrap().to_bytes()).unwrap();
    assert!(retired.is_retired() && !area.is_retired());
    assert_eq!((retired.generation(), opens(&retired, &passphrase("one"))), (2, Ok(1)));
    let (more, _) = add(&retired, &passphrase("two"), 1).unwrap();
    assert!(more.is_retired());
    assert_eq!(area.retire(&ChainKey::new([1; 32])), Err(Error::Forged));
}

/// `docs/format.md`, section 15.3, and what people are told who have the wrong thing of it.
#[test]
fn slots_are_called_what_the_document_calls_them() {
    use SlotKind::{KeyFile, Passphrase, Recipient, RecoveryCode};
    let document = include_str!("../../../../docs/format.md");
    for (code, kind) in [(1, Passphrase), (2, KeyFile), (3, RecoveryCode), (4, Recipient)] {
        assert!(document.contains(&format!("| {code} {kind} |")), "{kind}");
    }
    let wrong = Error::WrongKey { kind: Recipient, slots: 1 };
    assert!(wrong.to_string().starts_with("the recipient's secret key does not"), "{wrong}");
}
