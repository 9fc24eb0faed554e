//! Key slots that are gone: the key itself, from paper, opens what has none, and makes them anew.

use std::io;
use std::sync::Arc;

use aiv_chain::{Error, make_slots};
use aiv_image_format::{ChainKey, Depth, Image};
use aiv_keys::{Credential, KeyArea, PaperKey, Work};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, ReadAt, Storage};

use crate::slots::{area, chain, change, crashes_in, folder, key, opens, passphrase};
use crate::wrappers::pass_on;

#[test]
fn where_no_slots_are_left_the_key_itself_opens_and_makes_them_anew() {
    let storage = folder(2);
    for name in ["1.aiv", "2.aiv"] {
        let mut bytes = storage.contents(name).unwrap().to_vec();
        let second = bytes.len() - 69_632 - 4096;
        bytes[4096 + 1500] ^= 1;
        bytes[second + 1500] ^= 1;
        storage.insert(name, bytes);
    }
    let found = chain(&storage);
    assert!(found.areas().is_empty());
    let refused = found.open(&passphrase("old"), &mut Work::new());
    assert!(matches!(refused, Err(aiv_keys::Error::Damaged(_))), "{refused:?}");
    let paper = |key| Credential::PaperKey(PaperKey::new(key));
    let opened = found.open(&paper(key()), &mut Work::new()).unwrap();
    assert!(opened.key == key() && opened.through.is_none());
    let other = found.open(&paper(ChainKey::new([1; 32])), &mut Work::new());
    assert_eq!(other.unwrap_err(), aiv_keys::Error::OtherChain);
    // There is nothing to be changed, and all to be made.
    assert!(matches!(change(&storage, "new"), Err(Error::Key(aiv_keys::Error::NoSlots))));
    let make = |newest: aiv_keys::Result<&KeyArea>| {
        assert_eq!(newest, Err(aiv_keys::Error::NoSlots));
        Ok(area("new"))
    };
    let report = make_slots(&storage, &key(), &make, Job::silent()).unwrap();
    assert!(report.anew && report.changed == ["1.aiv", "2.aiv"], "{report:?}");
    assert_eq!(opens(&storage, "old", "new"), [Some(true); 2]);
    assert!(!change(&storage, "newer").unwrap().anew);
}

/// A storage in which a stretch of a file cannot be read.
struct BadSector(MemStorage, std::ops::Range<u64>);

impl Storage for BadSector {
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        struct Bad(Arc<dyn ReadAt>, std::ops::Range<u64>);
        impl ReadAt for Bad {
            fn len(&self) -> u64 {
                self.0.len()
            }
            fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
                let end = offset + out.len() as u64;
                if offset < self.1.end && self.1.start < end {
                    return Err(io::Error::from_raw_os_error(5));
                }
                self.0.read_exact_at(out, offset)
            }
        }
        Ok(Arc::new(Bad(self.0.open(name)?, self.1.clone())))
    }

    pass_on!(0: create, publish, remove, list, sync_dir, lease);
}

#[test]
fn a_bad_sector_in_one_copy_leaves_the_other_one() {
    let storage = BadSector(folder(1), 8192..8704);
    let found = chain(&storage);
    assert!(found.files[0].damage.is_none() && found.areas().len() == 1);
    assert_eq!(found.open(&passphrase("old"), &mut Work::new()).unwrap().key, key());
    let keys = aiv_image_format::Keys::of(key());
    let image = Image::open_with(storage.open("1.aiv").unwrap(), &keys).unwrap();
    assert!(image.seal(1).unwrap().unwrap().slots.is_some());
    let damage = image.verify(Depth::Quick, Job::silent()).unwrap().damage;
    assert!(damage.len() == 1 && damage[0].to_string().contains("cannot be read"), "{damage:?}");
}

/// Writes slots to these copies that are sound, newer than any and of this chain by what they say, and
/// were made by somebody without the key.
fn forge(storage: &MemStorage, name: &str, copies: &[usize]) {
    let mut forged = area("old").to_bytes();
    forged[8] = 200;
    let mut hasher = blake3::Hasher::new_keyed(b"aivory draft: key-slot area     ");
    hasher.update(&forged[..992]).update(&forged[1024..]);
    forged[992..1024].copy_from_slice(hasher.finalize().as_bytes());
    let mut bytes = storage.contents(name).unwrap().to_vec();
    let places = [4096, bytes.len() - 69_632 - 4096];
    for copy in copies {
        bytes[places[*copy]..][..forged.len()].copy_from_slice(&forged);
    }
    storage.insert(name, bytes);
}

#[test]
fn slots_of_somebody_without_the_key_are_no_slots() {
    let storage = folder(1);
    forge(&storage, "1.aiv", &[0, 1]);
    let found = chain(&storage);
    assert!(found.files[0].damage.is_none() && found.areas().len() == 1);
    let make = |newest: aiv_keys::Result<&KeyArea>| {
        assert_eq!(newest, Err(aiv_keys::Error::Forged));
        Ok(area("new"))
    };
    make_slots(&storage, &key(), &make, Job::silent()).unwrap();
    assert_eq!(opens(&storage, "old", "new"), [Some(true)]);
}

#[test]
fn a_crash_while_a_forged_copy_is_replaced_leaves_the_true_one() {
    for copy in [0, 1] {
        let storage = folder(2);
        for name in ["1.aiv", "2.aiv"] {
            forge(&storage, name, &[copy]);
        }
        assert_eq!(opens(&storage, "old", "new"), [Some(false); 2]);
        let states = crashes_in(&storage, |crash| crash).unwrap();
        assert!(states > 100, "{states}");
    }
}
