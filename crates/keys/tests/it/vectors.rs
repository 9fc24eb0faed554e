//! Other people's test vectors; their sources and licences stand in `testdata/vectors`.

use aiv_keys::gcm;
use serde_json::Value;
use x25519_dalek::{PublicKey, StaticSecret};

fn load(name: &str) -> Value {
    let path = format!("{}/../../testdata/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    assert!(vectors["source"].is_string() && vectors["licence"].is_string());
    vectors
}

fn tests(vectors: &Value) -> &Vec<Value> {
    vectors["tests"].as_array().unwrap()
}

fn hex(test: &Value, name: &str) -> Vec<u8> {
    let text = test[name].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn bytes<const N: usize>(test: &Value, name: &str) -> [u8; N] {
    hex(test, name).try_into().unwrap()
}

fn number(test: &Value, name: &str) -> u32 {
    test[name].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn aes_gcm_agrees_with_wycheproof_and_refuses_what_it_refuses() {
    let vectors = load("aes_gcm.json");
    let (mut valid, mut invalid) = (0, 0);
    for test in tests(&vectors) {
        let (key, iv, aad) = (bytes(test, "key"), bytes(test, "iv"), hex(test, "aad"));
        let (msg, ct, tag) = (hex(test, "msg"), hex(test, "ct"), bytes(test, "tag"));
        let mut text = ct.clone();
        let is_proven = gcm::decrypt(&key, &iv, &aad, &mut text, &tag);
        if test["result"] == "valid" {
            valid += 1;
            assert!(is_proven && text == msg, "{test}");
            assert_eq!(gcm::encrypt(&key, &iv, &aad, &mut text), tag, "{test}");
            assert_eq!(text, ct, "{test}");
        } else {
            invalid += 1;
            assert!(!is_proven, "{test}");
            assert_eq!(text, ct, "nothing is decrypted without proof: {test}");
        }
    }
    assert_eq!((valid, invalid), (39, 27));
}

#[test]
fn x25519_agrees_with_rfc_7748_and_wycheproof_and_knows_points_that_hide_nothing() {
    let vectors = load("x25519.json");
    let (mut known, mut empty) = (0, 0);
    for test in tests(&vectors) {
        let secret = StaticSecret::from(bytes::<32>(test, "private"));
        let shared = secret.diffie_hellman(&PublicKey::from(bytes::<32>(test, "public")));
        assert_eq!(shared.to_bytes(), bytes(test, "shared"), "{test}");
        let flags = test["flags"].as_array().unwrap();
        let is_empty = flags.iter().any(|flag| flag == "ZeroSharedSecret");
        assert_eq!(shared.was_contributory(), !is_empty, "{test}");
        known += u32::from(test["comment"].as_str().unwrap().starts_with("RFC 7748"));
        empty += u32::from(is_empty);
    }
    assert!(known >= 2 && empty == 31, "{known} {empty}");
}

#[test]
fn argon2id_agrees_with_rfc_9106_and_the_reference_program() {
    let vectors = load("argon2id.json");
    for test in tests(&vectors) {
        let (password, salt) = (hex(test, "password"), hex(test, "salt"));
        let (secret, ad) = (hex(test, "secret"), hex(test, "ad"));
        let mut params = argon2::ParamsBuilder::new();
        params.m_cost(number(test, "m")).t_cost(number(test, "t")).p_cost(number(test, "p"));
        params.data(argon2::AssociatedData::new(&ad).unwrap()).output_len(32);
        let version = argon2::Version::V0x13;
        let argon = argon2::Argon2::new_with_secret(
            &secret,
            argon2::Algorithm::Argon2id,
            version,
            params.build().unwrap(),
        );
        let mut tag = [0; 32];
        argon.unwrap().hash_password_into(&password, &salt, &mut tag).unwrap();
        assert_eq!(tag, bytes(test, "tag"), "{test}");
    }
}

#[test]
fn keyed_blake3_agrees_with_its_authors() {
    let vectors = load("blake3.json");
    let key: [u8; 32] = vectors["key"].as_str().unwrap().as_bytes().try_into().unwrap();
    for test in tests(&vectors) {
        let len = usize::try_from(number(test, "input_len")).unwrap();
        let input: Vec<u8> = (0..=250).cycle().take(len).collect();
        let hash = blake3::keyed_hash(&key, &input);
        assert_eq!(hash.as_bytes(), &bytes::<32>(test, "keyed_hash"), "{test}");
    }
    assert!(tests(&vectors).len() >= 35);
}
