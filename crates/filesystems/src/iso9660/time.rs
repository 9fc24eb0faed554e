use crate::Timestamp;

/// A time in seven bytes: years since 1900, month, day, hour, minute, second, and the offset from
/// UTC in quarters of an hour.
pub(super) fn recorded(bytes: &[u8]) -> Option<Timestamp> {
    let &[year, month, day, hour, minute, second, offset, ..] = bytes else { return None };
    at(1900 + i64::from(year), [month, day, hour, minute, second], offset, 0)
}

/// A time in digits, with hundredths of a second.
pub(super) fn in_digits(bytes: &[u8]) -> Option<Timestamp> {
    let digits = bytes.get(..16)?;
    let number = |from: usize, to: usize| {
        digits[from..to].iter().try_fold(0u16, |number, &digit| {
            digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'))
        })
    };
    let two = |from: usize| number(from, from + 2).and_then(|number| u8::try_from(number).ok());
    let parts = [two(4)?, two(6)?, two(8)?, two(10)?, two(12)?];
    at(number(0, 4)?.into(), parts, *bytes.get(16)?, two(14)?)
}

fn at(year: i64, parts: [u8; 5], offset: u8, hundredths: u8) -> Option<Timestamp> {
    let [month, day, hour, minute, second] = parts;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 || year == 0 {
        return None;
    }
    // Years that begin in March have their odd day at the end.
    let (year, month) = match month {
        1 | 2 => (year - 1, i64::from(month) + 9),
        _ => (year, i64::from(month) - 3),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + i64::from(day) - 719_469;
    // `genisoimage` writes offsets of a day, which are none.
    let quarters = i64::from(offset) - if offset > 127 { 256 } else { 0 };
    let quarters = if (-48..=52).contains(&quarters) { quarters } else { 0 };
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let nanoseconds = u32::from(hundredths) * 10_000_000;
    Some(Timestamp::utc(days * 86_400 + seconds - quarters * 900, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_seven_bytes_are_utc() {
        let seconds = |bytes: [u8; 7]| recorded(&bytes).map(|time| time.seconds);
        // By `date -u +%s`.
        assert_eq!(seconds([70, 1, 1, 0, 0, 0, 0]), Some(0));
        assert_eq!(seconds([0, 1, 1, 0, 0, 0, 0]), Some(-2_208_988_800));
        assert_eq!(seconds([100, 2, 29, 12, 0, 0, 0]), Some(951_825_600));
        assert_eq!(seconds([124, 3, 1, 1, 2, 3, 4]), Some(1_709_254_923 - 3600));
        assert_eq!(seconds([124, 3, 1, 1, 2, 3, 252]), Some(1_709_254_923 + 3600));
        assert_eq!(seconds([124, 3, 1, 1, 2, 3, 160]), Some(1_709_254_923));
        assert_eq!(seconds([255, 12, 31, 23, 59, 59, 0]), Some(5_869_583_999));
        assert_eq!(seconds([0; 7]), None);
        assert_eq!(seconds([100, 1, 32, 0, 0, 0, 0]), None);
    }

    #[test]
    fn times_in_digits_have_hundredths() {
        let time = in_digits(b"2021030405060823\x04");
        assert_eq!(time, Some(Timestamp::utc(1_614_834_368 - 3600, 230_000_000)));
        assert_eq!(in_digits(b"0000000000000000\0"), None);
        assert_eq!(in_digits(b"2021x30405060823\0"), None);
        assert_eq!(in_digits(b"2021"), None);
    }
}
