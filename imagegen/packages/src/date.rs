//! Seconds since 1970 from and to the dates that Release files carry.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Parses `Sat, 21 Nov 2026 09:15:44 UTC` (RFC 2822 in UTC, as Debian writes it).
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[day, month, year, time, zone] = words.as_slice() else {
        return None;
    };
    if !matches!(zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let number = |text: &str, range: std::ops::RangeInclusive<i64>| {
        text.parse().ok().filter(|n| range.contains(n))
    };
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let (day, year) = (number(day, 1..=31)?, number(year, 1970..=9999)?);
    let mut time = time.splitn(3, ':');
    let hour = number(time.next()?, 0..=23)?;
    let minute = number(time.next()?, 0..=59)?;
    let second = number(time.next()?, 0..=60)?;
    u64::try_from(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

/// `2026-11-21 09:15:44 UTC`.
pub fn show(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    // The inverse, `civil_from_days`.
    let shifted = (seconds / 86_400) as i64 + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_dates_are_seconds_since_1970() {
        assert_eq!(parse("Sat, 21 Nov 2026 09:15:44 UTC"), Some(1_795_252_544));
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse("Sat, 21 Nov 2026 09:15:44 CET"), None);
        assert_eq!(parse("Sat, 21 Nov 2026"), None);
        assert_eq!(show(1_795_252_544), "2026-11-21 09:15:44 UTC");
        assert_eq!(show(951_782_400), "2000-02-29 00:00:00 UTC");
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_way_there_and_back() {
        for day in 0..146_097u64 {
            let text = show(day * 86_400 + 3661);
            let (date, _) = text.split_once(' ').expect("a blank");
            let mut parts = date.split('-').map(|p| p.parse::<i64>().expect("a number"));
            let (y, m, d) = (
                parts.next().expect("year"),
                parts.next().expect("month"),
                parts.next().expect("day"),
            );
            assert_eq!(days(y, m, d), day as i64);
        }
    }
}
