//! AES-256-GCM over bytes in place: the one cipher of the format.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use crate::KEY_SIZE;

/// Bytes of a nonce.
pub const NONCE_SIZE: usize = 12;
/// Bytes of an authentication tag.
pub const TAG_SIZE: usize = 16;

/// Encrypts `text` in place and returns the tag over it and `aad`. A pair of key and nonce must
/// never be used twice.
///
/// # Panics
/// When `text` is longer than 64 GiB, which nothing in an image is.
#[must_use]
pub fn encrypt(
    key: &[u8; KEY_SIZE],
    nonce: &[u8; NONCE_SIZE],
    aad: &[u8],
    text: &mut [u8],
) -> [u8; TAG_SIZE] {
    let cipher = Aes256Gcm::new(key.into());
    let tag = cipher.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(text));
    tag.expect("shorter than GCM's limit of 64 GiB").into()
}

/// Decrypts `text` in place if the tag proves it and `aad`; says whether it does. Without that
/// proof nothing is decrypted.
#[must_use]
pub fn decrypt(
    key: &[u8; KEY_SIZE],
    nonce: &[u8; NONCE_SIZE],
    aad: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_SIZE],
) -> bool {
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(text), tag.into()).is_ok()
}
