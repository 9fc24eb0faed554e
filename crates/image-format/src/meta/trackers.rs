//! The section of change trackers: which of them watched the source when the point was read.

use super::tlv::{Items, Writer};
use crate::error::Fault;
use crate::ids::Digest;
use crate::limits::{TRACKERS_MAX, WITNESSES_MAX};

type Checked<T> = std::result::Result<T, Fault>;

/// What a later backup needs to know before it may believe a change tracker of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trackers {
    /// Names the bytes that mattered when the point was read; decides only whether a program that
    /// works them out again got the same.
    pub used: Digest,
    /// Trackers that were recording before the first byte was read.
    pub seen: Vec<SeenTracker>,
    /// The tracker this image relied on; `None` when all that matters was read.
    pub relied_on: Option<ReliedOn>,
}

/// A change tracker as it was just before the point was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenTracker {
    /// What it is: `qcow2 bitmap`, `nbd bitmap`.
    pub kind: String,
    /// Its name among those of its kind.
    pub name: String,
    /// Bytes of the disk that one mark stands for.
    pub granularity: u64,
    /// Names what the tracker does not watch and the source depends on; zeros for nothing.
    pub beneath: Digest,
    /// Bytes that were marked.
    pub marked: u64,
    /// First bytes of some runs that were marked, ascending: they have to stay marked.
    pub witnesses: Vec<u64>,
    /// A change at this byte was not marked: the tracker is not to be believed on top of this
    /// point.
    pub lied_at: Option<u64>,
}

/// How much of a point rests on the word of a tracker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReliedOn {
    /// The name of the tracker.
    pub name: String,
    /// Bytes that were not read because it did not mark them.
    pub bytes_skipped: u64,
    /// Bytes that it did not mark and that were read and compared all the same.
    pub bytes_audited: u64,
}

mod tag {
    pub(super) const USED: u16 = 1;
    pub(super) const SEEN: u16 = 2;
    pub(super) const RELIED_ON: u16 = 3;
    pub(super) const ALL: &[u16] = &[USED, SEEN, RELIED_ON];

    pub(super) const KIND: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const GRANULARITY: u16 = 3;
    pub(super) const BENEATH: u16 = 4;
    pub(super) const MARKED: u16 = 5;
    pub(super) const WITNESS: u16 = 6;
    pub(super) const LIED_AT: u16 = 7;
    pub(super) const ALL_OF_SEEN: &[u16] =
        &[KIND, NAME, GRANULARITY, BENEATH, MARKED, WITNESS, LIED_AT];

    pub(super) const RELIED_NAME: u16 = 1;
    pub(super) const SKIPPED: u16 = 2;
    pub(super) const AUDITED: u16 = 3;
    pub(super) const ALL_OF_RELIED: &[u16] = &[RELIED_NAME, SKIPPED, AUDITED];
}

impl Trackers {
    /// The section, empty when there was no tracker.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        if *self == Self::default() {
            return out.finish();
        }
        out.bytes(tag::USED, &self.used.0);
        for seen in &self.seen {
            out.group(tag::SEEN, |out| {
                out.text(tag::KIND, &seen.kind)
                    .text(tag::NAME, &seen.name)
                    .number(tag::GRANULARITY, seen.granularity)
                    .bytes(tag::BENEATH, &seen.beneath.0)
                    .number(tag::MARKED, seen.marked);
                for witness in &seen.witnesses {
                    out.number(tag::WITNESS, *witness);
                }
                if let Some(at) = seen.lied_at {
                    out.number(tag::LIED_AT, at);
                }
            });
        }
        if let Some(relied) = &self.relied_on {
            out.group(tag::RELIED_ON, |out| {
                out.text(tag::RELIED_NAME, &relied.name)
                    .number(tag::SKIPPED, relied.bytes_skipped)
                    .number(tag::AUDITED, relied.bytes_audited);
            });
        }
        out.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Checked<Self> {
        let items = Items::parse(bytes, tag::ALL)?;
        items.at_most("tracker count", tag::SEEN, TRACKERS_MAX, "at most 64")?;
        let seen = items.groups(tag::SEEN, tag::ALL_OF_SEEN).map(|seen| read_seen(&seen?));
        let relied_on = items.group(tag::RELIED_ON, tag::ALL_OF_RELIED)?.map(|relied| {
            Ok::<_, Fault>(ReliedOn {
                name: relied.text(tag::RELIED_NAME)?,
                bytes_skipped: relied.number(tag::SKIPPED)?,
                bytes_audited: relied.number(tag::AUDITED)?,
            })
        });
        Ok(Self {
            used: Digest(items.bytes(tag::USED)?),
            seen: seen.collect::<Checked<_>>()?,
            relied_on: relied_on.transpose()?,
        })
    }
}

fn read_seen(items: &Items<'_>) -> Checked<SeenTracker> {
    items.at_most("witness count", tag::WITNESS, WITNESSES_MAX, "at most 64")?;
    let number = |value: &[u8]| {
        <[u8; 8]>::try_from(value).map(u64::from_le_bytes).map_err(|_| Fault::CutOff)
    };
    let witnesses = items.all(tag::WITNESS).map(number).collect::<Checked<Vec<u64>>>()?;
    if let Some(pair) = witnesses.windows(2).find(|pair| pair[0] >= pair[1]) {
        let (found, allowed) = (pair[1], "ascending");
        return Err(Fault::Value { field: "witness", found, allowed });
    }
    let lied = items.all(tag::LIED_AT).next().is_some();
    Ok(SeenTracker {
        kind: items.text(tag::KIND)?,
        name: items.text(tag::NAME)?,
        granularity: items.number(tag::GRANULARITY)?,
        beneath: Digest(items.bytes(tag::BENEATH)?),
        marked: items.number(tag::MARKED)?,
        witnesses,
        lied_at: lied.then(|| items.number(tag::LIED_AT)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(witnesses: Vec<u64>) -> SeenTracker {
        SeenTracker {
            kind: "qcow2 bitmap".to_owned(),
            name: "monday".to_owned(),
            granularity: 65536,
            beneath: Digest([3; 32]),
            marked: 1 << 20,
            witnesses,
            lied_at: Some(4096),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let name = "sunday".to_owned();
        let relied_on = Some(ReliedOn { name, bytes_skipped: 7, bytes_audited: 9 });
        let sound = SeenTracker { lied_at: None, ..seen(Vec::new()) };
        let used = Digest([1; 32]);
        let trackers = Trackers { used, seen: vec![seen(vec![0, 65536]), sound], relied_on };
        assert_eq!(Trackers::from_bytes(&trackers.to_bytes()), Ok(trackers));
        assert_eq!(Trackers::default().to_bytes(), [0; 0]);
    }

    #[test]
    fn lists_that_are_too_long_or_out_of_order_are_refused() {
        let many = Trackers { seen: vec![seen(Vec::new()); 65], ..Trackers::default() };
        let crowd = (0..65).collect();
        for bad in [seen(vec![5, 5]), seen(vec![7, 5]), seen(crowd)] {
            let bad = Trackers { seen: vec![bad], ..Trackers::default() };
            assert!(matches!(Trackers::from_bytes(&bad.to_bytes()), Err(Fault::Value { .. })));
        }
        assert!(matches!(Trackers::from_bytes(&many.to_bytes()), Err(Fault::Value { .. })));
    }
}
