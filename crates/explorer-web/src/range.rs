//! Parts of a file: RFC 9110, section 14.

use std::ops::Range;

/// What of a file is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    All,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Nothing,
}

/// What the header of a request asks for, of a file of `len` bytes. What is not understood, and
/// several parts at once, is passed over, which is allowed.
pub(crate) fn wanted(header: Option<&str>, len: u64) -> Wanted {
    let spec = header.and_then(|header| header.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return Wanted::All;
    };
    let number = |text: &str| match text.is_empty() {
        true => Some(None),
        false if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            // More than there can be is as good as the most there can be.
            Some(Some(text.parse().unwrap_or(u64::MAX)))
        }
        false => None,
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Wanted::All };
    let part = match (first, last) {
        (None, None) => return Wanted::All,
        (None, Some(count)) => len.saturating_sub(count)..len,
        (Some(first), None) => first..len,
        (Some(first), Some(last)) if last < first => return Wanted::All,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(len),
    };
    if part.is_empty() { Wanted::Nothing } else { Wanted::Part(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, len: u64, expected: Wanted) {
        assert_eq!(wanted(Some(header), len), expected, "{header:?} of {len}");
    }

    #[test]
    fn a_part_is_from_one_byte_to_another_to_the_end_or_so_many_at_the_end() {
        check("bytes=0-0", 10, Wanted::Part(0..1));
        check("bytes=2-5", 10, Wanted::Part(2..6));
        check("bytes=2-", 10, Wanted::Part(2..10));
        check("bytes=-3", 10, Wanted::Part(7..10));
        check("bytes=-30", 10, Wanted::Part(0..10));
        check("bytes=5-99", 10, Wanted::Part(5..10));
        check("bytes=0-99999999999999999999999", 10, Wanted::Part(0..10));
        assert_eq!(wanted(None, 10), Wanted::All);
    }

    #[test]
    fn bytes_that_are_not_there_are_not_given() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            check(header, 10, Wanted::Nothing);
        }
        check("bytes=0-", 0, Wanted::Nothing);
        check("bytes=-5", 0, Wanted::Nothing);
    }

    #[test]
    fn what_is_no_part_is_passed_over() {
        for header in [
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "items=0-1",
            "0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes 1-2",
            "",
        ] {
            check(header, 10, Wanted::All);
        }
        let most = u64::MAX;
        check(&format!("bytes=0-{most}"), most, Wanted::Part(0..most));
    }
}
