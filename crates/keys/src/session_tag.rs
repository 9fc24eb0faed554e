//! The name of a session that encrypts: the one thing that must never come again.

use crate::KEY_SIZE;

/// What the tag of a session is made of. The key of its frames follows from the chain key and
/// the tag, and their nonces count from zero: two sessions of one chain with one tag would
/// encrypt two texts alike. So the tag does not rely on random bytes alone: a virtual machine
/// that is put back to an earlier state gives those of then again.
#[derive(Debug, Clone, Copy)]
pub struct SessionTagInputs<'a> {
    /// From the system's generator.
    pub random: &'a [u8; 32],
    /// The time, in the finest units the clock has.
    pub time_ns: u128,
    /// The image being written, which has a new id of its own.
    pub image_uuid: &'a [u8; 16],
    /// The state it builds on; zero without a parent.
    pub parent_root: &'a [u8; 32],
    /// This process on this machine since it started: number of the process, id of the boot,
    /// and whatever else differs.
    pub process: &'a [u8],
}

const PURPOSE: &[u8; KEY_SIZE] = b"aivory draft: session tag       ";

impl SessionTagInputs<'_> {
    /// The tag: another one as soon as any of the inputs is.
    #[must_use]
    pub fn tag(&self) -> [u8; 12] {
        let mut hasher = blake3::Hasher::new_keyed(PURPOSE);
        hasher.update(self.random).update(&self.time_ns.to_le_bytes());
        hasher.update(self.image_uuid).update(self.parent_root).update(self.process);
        let mut tag = [0; 12];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_generator_that_repeats_itself_does_not_repeat_a_tag() {
        let inputs = SessionTagInputs {
            random: &[7; 32],
            time_ns: 1_700_000_000_000_000_000,
            image_uuid: &[1; 16],
            parent_root: &[2; 32],
            process: b"4711 boot",
        };
        let others = [
            SessionTagInputs { time_ns: inputs.time_ns + 1, ..inputs },
            SessionTagInputs { image_uuid: &[3; 16], ..inputs },
            SessionTagInputs { parent_root: &[4; 32], ..inputs },
            SessionTagInputs { process: b"4712 boot", ..inputs },
            SessionTagInputs { process: b"4711 later boot", ..inputs },
            SessionTagInputs { random: &[8; 32], ..inputs },
        ];
        let mut tags: HashSet<_> = others.iter().map(SessionTagInputs::tag).collect();
        tags.insert(inputs.tag());
        assert_eq!(tags.len(), others.len() + 1);
        assert_eq!(inputs.tag(), inputs.tag());
    }
}
