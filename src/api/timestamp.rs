//! `metadata.creationTimestamp`: RFC 3339 → Unix seconds.
//!
//! Only its order matters, so fractions of a second are cut off. Never: asks the clock.

use super::fields::{Findings, Section};

/// When an object was made. `what`: of which kind it is, for the sentence about a time that is none.
pub(super) fn created(metadata: &Section<'_>, what: &str, findings: &mut Findings<'_>) -> Option<i64> {
    let text = metadata.text("creationTimestamp", findings)?;
    let created = seconds(text);
    if created.is_none() {
        let message = format!(
            "`{text}` is no time such as 2026-08-21T10:00:00Z, so the {what} counts as younger than all others"
        );
        findings.doubt("metadata.creationTimestamp", text, "TimeSyntax", message);
    }
    created
}

/// Seconds since 1970 of a text such as `2026-08-21T10:00:00Z` or `2026-08-21T12:00:00.5+02:00`.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| digits(part, 1));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut parts = time.splitn(3, ':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let offset = digits(hours, 2)? * 3600 + digits(minutes, 2)? * 60;
            if zone.starts_with('-') { -offset } else { offset }
        }
    };
    let right =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    right.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

fn digits(text: &str, least: usize) -> Option<i64> {
    let right = (least..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if right { text.parse().ok() } else { None }
}

/// Days since 1970 of a date of the Gregorian calendar. The year is taken to begin in March, so that the leap day is its
/// last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-08-21T10:00:00Z", 1_787_306_400),
            ("2026-08-21T12:00:00.999+02:00", 1_787_306_400),
            ("1969-12-31T23:59:59z", -1),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-08-21",
            "2026-13-01T00:00:00Z",
            "2026-08-21T10:00Z",
            "2026-08-21T10:00:00",
            "2026-08-21T10:00:00+0200",
            "99999-01-01T00:00:00Z",
            "2026-08-21T10:00:00é",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
