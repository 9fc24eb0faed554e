//! Lists of runs ("mapping pairs"): which clusters hold an attribute.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", data runs. A run is a byte with two
//! lengths, then a signed number of clusters and the signed distance to the run before;
//! without a distance it is a hole.

/// Clusters `first..first + len` of an attribute, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) vcn: u64,
    pub(super) len: u64,
    /// `None` is a hole, which reads as zeros.
    pub(super) lcn: Option<u64>,
}

/// Decodes the runs of one attribute record, each proven to lie in the filesystem.
///
/// Ends after the first error. Every step consumes a byte at least.
pub(super) struct Runs<'a> {
    pairs: &'a [u8],
    vcn: u64,
    lcn: u64,
    /// Clusters the attribute record still promises.
    left: u64,
    clusters: u64,
    done: bool,
}

impl<'a> Runs<'a> {
    /// The list `pairs` of `len` clusters from `vcn` on, in a filesystem of `clusters`.
    pub(super) fn new(pairs: &'a [u8], vcn: u64, len: u64, clusters: u64) -> Self {
        Self { pairs, vcn, lcn: 0, left: len, clusters, done: false }
    }

    fn step(&mut self) -> Result<Option<Run>, &'static str> {
        let (&header, rest) = self.pairs.split_first().ok_or("has no end")?;
        if header == 0 {
            return if self.left == 0 { Ok(None) } else { Err("ends before its last cluster") };
        }
        let (len_size, delta_size) = (usize::from(header & 15), usize::from(header >> 4));
        if len_size == 0 || len_size > 8 || delta_size > 8 {
            return Err("has a run with an impossible header");
        }
        let (len, rest) = rest.split_at_checked(len_size).ok_or("has no end")?;
        let (delta, rest) = rest.split_at_checked(delta_size).ok_or("has no end")?;
        let len = u64::try_from(signed(len)).unwrap_or(0);
        if len == 0 {
            return Err("has a run without clusters");
        }
        self.left = self.left.checked_sub(len).ok_or("goes on behind its last cluster")?;
        let lcn = if delta.is_empty() { None } else { Some(self.place(signed(delta), len)?) };
        let run = Run { vcn: self.vcn, len, lcn };
        self.vcn = self.vcn.checked_add(len).ok_or("has too many clusters")?;
        self.pairs = rest;
        Ok(Some(run))
    }

    fn place(&mut self, delta: i64, len: u64) -> Result<u64, &'static str> {
        const OUTSIDE: &str = "leaves the filesystem";
        let lcn = self.lcn.checked_add_signed(delta).ok_or(OUTSIDE)?;
        let end = lcn.checked_add(len).ok_or(OUTSIDE)?;
        if end > self.clusters {
            return Err(OUTSIDE);
        }
        self.lcn = lcn;
        Ok(lcn)
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// One to eight bytes, lowest first, the sign in the last.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|&last| last >= 0x80);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pairs: &[u8], len: u64) -> Result<Vec<Run>, &'static str> {
        Runs::new(pairs, 0, len, 1000).collect()
    }

    #[test]
    fn runs_go_forth_and_back_and_have_holes() {
        let runs = decode(&[0x21, 5, 0xf4, 1, 0x01, 3, 0x11, 2, 0xfe, 0], 10).unwrap();
        let expected = [(0, 5, Some(500)), (5, 3, None), (8, 2, Some(498))];
        assert_eq!(runs, expected.map(|(vcn, len, lcn)| Run { vcn, len, lcn }));
        assert_eq!(decode(&[0], 0), Ok(vec![]));
    }

    #[test]
    fn every_fault_of_a_run_list_has_a_name() {
        for (pairs, len, what) in [
            (&[][..], 0, "has no end"),
            (&[0x11, 1, 1], 1, "has no end"),
            (&[0x11, 1], 1, "has no end"),
            (&[0x21, 1, 1], 1, "has no end"),
            (&[0x11, 1, 1, 0], 2, "ends before its last cluster"),
            (&[0x11, 3, 1, 0], 2, "goes on behind its last cluster"),
            (&[0x10, 1, 0], 1, "has a run with an impossible header"),
            (&[0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], 1, "has a run with an impossible header"),
            (&[0x91, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1, "has a run with an impossible header"),
            (&[0x11, 0, 1, 0], 1, "has a run without clusters"),
            (&[0x11, 0x80, 1, 0], 1, "has a run without clusters"),
            (&[0x11, 1, 0xff, 0], 1, "leaves the filesystem"),
            (&[0x21, 1, 0xe8, 3, 0], 1, "leaves the filesystem"),
            (&[0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0], 1, "leaves the filesystem"),
        ] {
            assert_eq!(decode(pairs, len), Err(what), "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lists_end_and_stay_inside(
            pairs in prop::collection::vec(prop_oneof![Just(0x11), Just(0x01), any::<u8>()], 0..90),
            vcn in any::<u64>(), len in any::<u64>(), clusters in any::<u64>(),
        ) {
            let mut total = 0u64;
            for run in Runs::new(&pairs, vcn, len, clusters).flatten() {
                total = total.checked_add(run.len).unwrap();
                prop_assert!(total <= len);
                if let Some(lcn) = run.lcn {
                    prop_assert!(lcn.checked_add(run.len).unwrap() <= clusters);
                }
            }
        }
    }
}
