//! Sectors, decrypted: AES in XTS or CBC, with the ways of dm-crypt to number them.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};

use super::hash::Hash;
use super::{shown, unsupported};
use crate::{Error, Result};

/// Blocks that are decrypted together: the hardware works on several at once.
const TOGETHER: usize = 32;

/// A cipher as headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    is_xts: bool,
    number: Number,
}

/// What is made of the number of a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Its lower 32 bits.
    Plain,
    Plain64,
    /// Encrypted with the digest of the key.
    Essiv(Hash),
}

impl Spec {
    /// Of `aes` and `xts-plain64`.
    pub(super) fn named(cipher: &str, mode: &str) -> Result<Self> {
        let unknown =
            || unsupported(format!("the cipher {}-{} is not known", shown(cipher), shown(mode)));
        let (chaining, number) = mode.split_once('-').ok_or_else(unknown)?;
        let is_xts = match (cipher, chaining) {
            ("aes", "xts") => true,
            ("aes", "cbc") => false,
            _ => return Err(unknown()),
        };
        let number = match number {
            "plain" => Number::Plain,
            "plain64" => Number::Plain64,
            "essiv:sha256" if !is_xts => Number::Essiv(Hash::Sha256),
            _ => return Err(unknown()),
        };
        Ok(Self { is_xts, number })
    }

    /// Whether its keys can have so many bytes.
    pub(super) fn check(&self, key_len: usize) -> Result<()> {
        let keys = if self.is_xts { 2 } else { 1 };
        match [16, 32].contains(&(key_len / keys)) && key_len.is_multiple_of(keys) {
            true => Ok(()),
            false => Err(unsupported(format!("keys of {key_len} bytes are not known"))),
        }
    }
}

enum Aes {
    With128(Box<Aes128>),
    With256(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Result<Self> {
        let wrong = |_| Error::damaged("a key has a length that is none", None);
        Ok(match key.len() {
            16 => Self::With128(Box::new(Aes128::new_from_slice(key).map_err(wrong)?)),
            _ => Self::With256(Box::new(Aes256::new_from_slice(key).map_err(wrong)?)),
        })
    }

    fn decrypt(&self, blocks: &mut [Block]) {
        match self {
            Self::With128(aes) => aes.decrypt_blocks(blocks),
            Self::With256(aes) => aes.decrypt_blocks(blocks),
        }
    }

    fn encrypt(&self, block: &mut Block) {
        match self {
            Self::With128(aes) => aes.encrypt_block(block),
            Self::With256(aes) => aes.encrypt_block(block),
        }
    }
}

/// A cipher with its key, which is overwritten when it is dropped.
pub(super) struct Cipher {
    aes: Aes,
    number: Number,
    /// Of XTS, and of ESSIV: what encrypts the number of a sector.
    second: Option<Aes>,
    is_xts: bool,
}

impl Cipher {
    pub(super) fn new(spec: &Spec, key: &[u8]) -> Result<Self> {
        spec.check(key.len())?;
        let Spec { is_xts, number } = *spec;
        let (first, second) = match number {
            _ if is_xts => {
                let (first, second) = key.split_at(key.len() / 2);
                (first, Some(Aes::new(second)?))
            }
            Number::Essiv(hash) => (key, Some(Aes::new(&hash.digest(&[key]))?)),
            _ => (key, None),
        };
        Ok(Self { aes: Aes::new(first)?, number, second, is_xts })
    }

    /// Decrypts a sector of whole blocks, in its place.
    pub(super) fn decrypt(&self, number: u64, sector: &mut [u8]) {
        let mut first = Block::default();
        let number = match self.number {
            Number::Plain => number & 0xffff_ffff,
            _ => number,
        };
        first[..8].copy_from_slice(&number.to_le_bytes());
        if let Some(second) = &self.second {
            second.encrypt(&mut first);
        }
        let (blocks, _) = Array::slice_as_chunks_mut(sector);
        match self.is_xts {
            true => self.xts(first, blocks),
            false => self.cbc(first, blocks),
        }
    }

    fn xts(&self, first: Block, blocks: &mut [Block]) {
        let mut next = u128::from_le_bytes(first.0);
        for blocks in blocks.chunks_mut(TOGETHER) {
            let mut tweaks = [0; TOGETHER];
            for (tweak, block) in tweaks.iter_mut().zip(&mut *blocks) {
                *tweak = next;
                xor(block, &next.to_le_bytes());
                // Times x in the field of 2^128 elements.
                next = (next << 1) ^ ((next >> 127) * 0x87);
            }
            self.aes.decrypt(blocks);
            for (tweak, block) in tweaks.iter().zip(blocks) {
                xor(block, &tweak.to_le_bytes());
            }
        }
    }

    fn cbc(&self, first: Block, blocks: &mut [Block]) {
        let mut before = first;
        for blocks in blocks.chunks_mut(TOGETHER) {
            let mut stored = [Block::default(); TOGETHER];
            stored.iter_mut().zip(&*blocks).for_each(|(stored, block)| *stored = *block);
            self.aes.decrypt(blocks);
            for (stored, block) in stored.iter().zip(blocks) {
                xor(block, &before.0);
                before = *stored;
            }
        }
    }
}

fn xor(block: &mut Block, with: &[u8; 16]) {
    block.iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}
