//! What a verification with a key finds that one without does not.

use aiv_chain::{Protection, VerifyOptions, verify_folder_keyed};
use aiv_image_format::{ChainKey, Depth, Digest, Keys, Mode, Seal};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use crate::chain_maker::Step;
use crate::sealed::{chain, disk, key, keys};

/// Changes the code of both trailers, and makes their checksums right again: what somebody
/// without the key can make.
fn forge(storage: &MemStorage, file: &str) {
    let mut bytes = storage.contents(file).unwrap().to_vec();
    let last = bytes.len() - 4096;
    let magic = bytes[last..last + 8].to_vec();
    let mut forged = 0;
    for page in bytes.chunks_mut(4096).filter(|page| page.starts_with(&magic)) {
        page[512] ^= 1;
        let hash = blake3::keyed_hash(b"aivory draft: trailer           ", &page[..4060]);
        page[4060..4092].copy_from_slice(hash.as_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.trlr"), &page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
        forged += 1;
    }
    assert_eq!(forged, 2);
    storage.insert(file, bytes);
}

fn verifying(since: Option<u64>) -> VerifyOptions {
    VerifyOptions { depth: Depth::Data, not_verified_since: since, now_unix_ms: 9, set: None }
}

#[test]
fn a_forged_image_in_a_folder_is_damage_for_whoever_has_the_key() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let storage = chain(mode);
        forge(&storage, "4.aiv");
        let verify =
            |keys: &Keys| verify_folder_keyed(&storage, &verifying(None), keys, Job::silent());
        assert!(verify(&Keys::none()).unwrap().images.iter().all(|image| image.is_sound()));
        let found = verify(&keys()).unwrap();
        assert_eq!((found.images.len(), found.strays.len()), (4, 0));
        for image in &found.images {
            assert_eq!(image.is_sound(), image.file != "4.aiv");
            assert_eq!(image.is_forged(), image.file == "4.aiv", "{image:?}");
        }
    }
}

#[test]
fn what_was_proven_without_the_key_is_proven_again_for_whoever_has_it() {
    let storage = chain(Mode::Authenticated);
    // As if it had never been another file: the catalogue goes by names, lengths and stamps.
    forge(&storage, "4.aiv");
    let verify =
        |keys: &Keys| verify_folder_keyed(&storage, &verifying(Some(1)), keys, Job::silent());
    let first = verify(&Keys::none()).unwrap();
    first.record(&storage, Job::silent()).unwrap();
    let again = verify(&Keys::none()).unwrap();
    assert!(again.images.iter().all(|image| image.skipped.is_some()), "{again:?}");
    let found = verify(&keys()).unwrap();
    let forged: Vec<&str> =
        found.images.iter().filter(|i| i.is_forged()).map(|i| i.file.as_str()).collect();
    assert_eq!(forged, ["4.aiv"]);
    assert!(found.images.iter().all(|image| image.skipped.is_none()));
}

#[test]
fn a_verified_image_says_which_key_it_has() {
    let storage = chain(Mode::Sealed);
    let other = ChainKey::new([8; 32]);
    let authenticated = Seal { mode: Mode::Authenticated, ..Seal::new(other.clone(), 1) };
    let steps = [(5, Some(authenticated)), (6, None)];
    for (number, seal) in steps {
        Step { seal, full_number: 7, ..Step::new(number, disk(1)) }.write(
            &storage,
            &format!("{number}.aiv"),
            None,
        );
    }
    let found = verify_folder_keyed(&storage, &verifying(None), &keys(), Job::silent()).unwrap();
    let of: Vec<Protection> = found.images.iter().map(|i| i.protection.unwrap()).collect();
    let sealed = Protection::Sealed(Digest(key().commitment()));
    let authenticated = Protection::Authenticated(Digest(other.commitment()));
    assert_eq!(of, [sealed, sealed, sealed, sealed, authenticated, Protection::None]);
}
