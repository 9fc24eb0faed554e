use crate::random::Random;

/// Words of about the length and repetition of English, so that a codec finds what it finds in
/// log files and documents.
const WORDS: [&str; 16] = [
    "the", "disk", "of", "a", "recovery", "point", "and", "block", "is", "written", "in",
    "sequence", "to", "storage", "without", "error",
];

/// Made-up contents, the same for the same value on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Compresses as text does. The number is the seed.
    Text(u64),
    /// Does not compress. The number is the seed.
    Random(u64),
    /// Nothing but zeros.
    Zeros,
    /// The first half text, a quarter zeros, a quarter random. The number is the seed.
    Mixed(u64),
}

impl Content {
    /// The first `len` bytes.
    #[must_use]
    pub fn bytes(self, len: usize) -> Vec<u8> {
        match self {
            Self::Zeros => vec![0; len],
            Self::Random(seed) => {
                let mut bytes = vec![0; len];
                Random::new(&[seed, 1]).fill(&mut bytes);
                bytes
            }
            Self::Text(seed) => text(seed, len),
            Self::Mixed(seed) => {
                let mut bytes = text(seed, len / 2);
                bytes.resize(len / 2 + len / 4, 0);
                let rest = len - bytes.len();
                bytes.extend(Self::Random(seed).bytes(rest));
                bytes
            }
        }
    }
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(&[seed, 2]);
    let mut bytes = Vec::with_capacity(len + 32);
    while bytes.len() < len {
        bytes.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
        match random.below(24) {
            0 => bytes.extend_from_slice(b".\n"),
            1 => bytes.extend_from_slice(format!(" {}, ", random.below(100_000)).as_bytes()),
            _ => bytes.push(b' '),
        }
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_content_begins_with_the_shorter_one_where_it_is_a_stream() {
        for content in [Content::Text(7), Content::Random(7), Content::Zeros] {
            let long = content.bytes(10_000);
            assert_eq!(long.len(), 10_000);
            assert_eq!(long[..1234], content.bytes(1234));
        }
    }

    #[test]
    fn seeds_tell_contents_apart() {
        assert_ne!(Content::Text(1).bytes(4096), Content::Text(2).bytes(4096));
        assert_ne!(Content::Random(1).bytes(4096), Content::Random(2).bytes(4096));
        let mixed = Content::Mixed(3).bytes(4096);
        assert!(mixed[2048..3072].iter().all(|&b| b == 0) && mixed[3072..].iter().any(|&b| b != 0));
    }
}
