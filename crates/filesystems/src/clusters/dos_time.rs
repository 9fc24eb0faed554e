use crate::reader::Timestamp;

/// The local time of a date (day, month from bit 5, years since 1980 from bit 9), a time (units of
/// two seconds, minutes from bit 5, hours from bit 11), and hundredths of a second, 199 at most.
/// `None` for what is no date, zero among it.
pub(crate) fn dos_time(date: u16, time: u16, hundredths: u8) -> Option<Timestamp> {
    let (year, month, day) = (1980 + i64::from(date >> 9), date >> 5 & 0xf, date & 0x1f);
    let (hour, minute, second) = (time >> 11, time >> 5 & 0x3f, (time & 0x1f) * 2);
    let is_leap = year % 4 == 0 && year != 2100;
    let days_in = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > days_in || hour > 23 || minute > 59 || second > 58 {
        return None;
    }
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE.get(usize::from(month) - 1)?;
    let after_february = i64::from(is_leap && month > 2);
    // 1980 was a leap year, and 2100 will be none.
    let leap_days = (year - 1977) / 4 - i64::from(year > 2100);
    let days = 3652 + (year - 1980) * 365 + leap_days + before + after_february;
    let days = days + i64::from(day) - 1;
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let hundredths = if hundredths < 200 { hundredths } else { 0 };
    Some(Timestamp {
        seconds: days * 86_400 + seconds + i64::from(hundredths / 100),
        nanoseconds: u32::from(hundredths % 100) * 10_000_000,
        is_local: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(year: u16, month: u16, day: u16, time: [u16; 3]) -> Option<i64> {
        let date = (year - 1980) << 9 | month << 5 | day;
        let time = time[0] << 11 | time[1] << 5 | (time[2] / 2);
        dos_time(date, time, 0).map(|time| time.seconds)
    }

    #[test]
    fn dates_from_the_first_to_the_last() {
        // By `date -u +%s`.
        assert_eq!(seconds(1980, 1, 1, [0, 0, 0]), Some(315_532_800));
        assert_eq!(seconds(1980, 2, 29, [23, 59, 58]), Some(320_716_798));
        assert_eq!(seconds(1980, 3, 1, [0, 0, 0]), Some(320_716_800));
        assert_eq!(seconds(2000, 2, 29, [12, 0, 0]), Some(951_825_600));
        assert_eq!(seconds(2023, 12, 31, [23, 59, 58]), Some(1_704_067_198));
        assert_eq!(seconds(2024, 1, 1, [0, 0, 0]), Some(1_704_067_200));
        assert_eq!(seconds(2100, 3, 1, [0, 0, 0]), Some(4_107_542_400));
        assert_eq!(seconds(2101, 1, 1, [0, 0, 0]), Some(4_133_980_800));
        assert_eq!(seconds(2107, 12, 31, [23, 59, 58]), Some(4_354_819_198));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for (date, time) in [(0, 0), (0x21, 0xffff), (1 << 5, 0), (13 << 5 | 1, 0), (0x21, 60 << 5)]
        {
            assert_eq!(dos_time(date, time, 0), None, "{date:#x} {time:#x}");
        }
        assert_eq!(seconds(2100, 2, 29, [0, 0, 0]), None);
        assert_eq!(seconds(2021, 4, 31, [0, 0, 0]), None);
    }

    #[test]
    fn hundredths_reach_into_the_second_second() {
        let at = |hundredths| dos_time(0x21, 0, hundredths).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(at(199), Some((315_532_801, 990_000_000)));
        assert_eq!(at(200), Some((315_532_800, 0)));
    }
}
