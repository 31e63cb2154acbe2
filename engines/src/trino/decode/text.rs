//! Values that Trino writes as text → numbers.

use std::ops::{Add, Mul};

use arrow::array::timezone::Tz;
use arrow::datatypes::{IntervalMonthDayNano, is_validate_decimal_precision};
use chrono::{DateTime, Offset, TimeZone};

/// Why a value is not read: what it is.
pub(super) type Refused = &'static str;

pub(super) const UNKNOWN: Refused = "a value in a form that is not known";
pub(super) const BEYOND: Refused = "a value out of the range of its type";
pub(super) const NANOSECONDS: Refused = "a time out of the range of nanoseconds, the years 1678 to 2261";
const DIGITS: Refused = "more digits than its type has";

const SECONDS: i64 = 86_400;

/// 1970-01-01, in days from 0001-01-01.
const EPOCH: i64 = 719_162;

/// `1.20`, times the power of ten that the scale says.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Refused> {
    let (negative, number) = signed(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let zeros = usize::from(scale.unsigned_abs()).checked_sub(fraction.len()).ok_or(DIGITS)?;
    if whole.is_empty() {
        return Err(UNKNOWN);
    }
    let whole = whole.trim_start_matches('0');
    let all = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', zeros));
    // As many digits as fit into the smaller integer for sure, which is faster, and into the larger one.
    let value = match whole.len() + fraction.len() + zeros {
        0..=18 => i128::from(sum::<u64>(all)?),
        19..=38 => sum::<i128>(all)?,
        _ => return Err(BEYOND),
    };
    let value = if negative { -value } else { value };
    if is_validate_decimal_precision(value, precision) { Ok(value) } else { Err(BEYOND) }
}

/// `2020-01-31`, in days since 1970. Years have four digits or, with a sign, more.
pub(super) fn date(text: &str) -> Result<i32, Refused> {
    let (_, days) = day(text)?;
    i32::try_from(days).map_err(|_| BEYOND)
}

/// `12:34:56.789`, in parts of a second of so many digits.
pub(super) fn time(text: &str, digits: u32) -> Result<i64, Refused> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let (Some(hours), Some(minutes), Some(seconds), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(UNKNOWN);
    };
    let seconds = number(hours, 23)? * 3_600 + number(minutes, 59)? * 60 + number(seconds, 59)?;
    let missing = u32::try_from(fraction.len()).ok().and_then(|length| digits.checked_sub(length)).ok_or(DIGITS)?;
    Ok(seconds * 10_i64.pow(digits) + sum::<i64>(fraction.bytes())? * 10_i64.pow(missing))
}

/// `2020-01-31 12:34:56.789`, in parts of a second of so many digits since 1970.
pub(super) fn timestamp(text: &str, digits: u32) -> Result<i64, Refused> {
    let (date, clock) = text.split_once(' ').ok_or(UNKNOWN)?;
    let (_, days) = day(date)?;
    ticks(days, time(clock, digits)?, digits)
}

/// `2020-01-31 12:34:56.789 Europe/Paris`, as the instant.
pub(super) fn instant(text: &str, digits: u32) -> Result<i64, Refused> {
    let (local, zone) = text.rsplit_once(' ').ok_or(UNKNOWN)?;
    let (date, clock) = local.split_once(' ').ok_or(UNKNOWN)?;
    let (year, days) = day(date)?;
    let time = time(clock, digits)?;
    let second = 10_i64.pow(digits);
    let ahead = if zone == "UTC" { 0 } else { offset(zone, year, days * SECONDS + time / second)? };
    ticks(days, time - ahead * second, digits)
}

/// `-1-11`: a year and eleven months back, in months.
pub(super) fn year_month(text: &str) -> Result<i32, Refused> {
    let (negative, text) = signed(text);
    let (years, months) = text.split_once('-').ok_or(UNKNOWN)?;
    let months = number(years, i64::from(i32::MAX))? * 12 + number(months, 11)?;
    i32::try_from(if negative { -months } else { months }).map_err(|_| BEYOND)
}

/// `2 03:04:05.321`: days, and a time of one.
pub(super) fn day_time(text: &str) -> Result<IntervalMonthDayNano, Refused> {
    let (negative, text) = signed(text);
    let (days, clock) = text.split_once(' ').ok_or(UNKNOWN)?;
    let (days, time) = (i32::try_from(number(days, i64::MAX)?).map_err(|_| BEYOND)?, time(clock, 9)?);
    Ok(if negative { IntervalMonthDayNano::new(0, -days, -time) } else { IntervalMonthDayNano::new(0, days, time) })
}

/// Whether there is a minus, and what is behind it.
fn signed(text: &str) -> (bool, &str) {
    text.strip_prefix('-').map_or((false, text), |rest| (true, rest))
}

/// The number of these digits, which has to hold as many.
fn sum<N: From<u8> + Add<Output = N> + Mul<Output = N>>(digits: impl Iterator<Item = u8>) -> Result<N, Refused> {
    let mut value = N::from(0_u8);
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(UNKNOWN);
        }
        value = value * N::from(10_u8) + N::from(digit - b'0');
    }
    Ok(value)
}

/// A whole number without a sign, up to the greatest one that is meant.
fn number(text: &str, most: i64) -> Result<i64, Refused> {
    if !matches!(text.len(), 1..=18) {
        return Err(UNKNOWN);
    }
    sum::<i64>(text.bytes()).and_then(|value| if value <= most { Ok(value) } else { Err(BEYOND) })
}

/// The year of a date, and its days since 1970. The calendar is the Gregorian one at all times, and there is a year 0: as in Java.
fn day(text: &str) -> Result<(i64, i64), Refused> {
    let (negative, text) = signed(text);
    let mut parts = text.strip_prefix('+').unwrap_or(text).split('-');
    let (Some(year), Some(month), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(UNKNOWN);
    };
    // More years than days fit in 32 bits.
    let year = number(year, 9_999_999)? * if negative { -1 } else { 1 };
    let month = number(month, 12)?;
    let february = if leap(year) { 29 } else { 28 };
    let mut before = 0;
    for (length, this) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().zip(1..) {
        if this == month {
            let day = number(day, length)?;
            return if day > 0 { Ok((year, first(year) + before + day - 1)) } else { Err(BEYOND) };
        }
        before += length;
    }
    Err(BEYOND)
}

/// The first day of a year, in days since 1970.
fn first(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - EPOCH
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Parts of a second since 1970. Far days may be out of range by themselves where what is left of them is not.
fn ticks(days: i64, time: i64, digits: u32) -> Result<i64, Refused> {
    let all = i128::from(days) * i128::from(SECONDS * 10_i64.pow(digits)) + i128::from(time);
    i64::try_from(all).map_err(|_| if digits == 9 { NANOSECONDS } else { BEYOND })
}

/// By how many seconds the clocks of a zone are ahead at a local time in seconds since 1970. Where clocks are set back there are
/// two such times: Trino does not tell which it means, and the first is taken, as its own clients do.
fn offset(zone: &str, year: i64, local: i64) -> Result<i64, Refused> {
    let zone: Tz = zone.parse().map_err(|_| "a time zone that is not known")?;
    // The tables of chrono-tz end with 2099. Rules that are in force by then go on, so a year with the same calendar tells.
    let later = if year < 2100 {
        0
    } else {
        let same = |near: &i64| leap(*near) == leap(year) && (first(year) - first(*near)) % 7 == 0;
        (2072..2100).rev().find(same).map_or(0, |near| first(year) - first(near))
    };
    let local = DateTime::from_timestamp(local - later * SECONDS, 0).ok_or(BEYOND)?.naive_utc();
    let offset = zone.offset_from_local_datetime(&local).earliest().ok_or("a local time that its time zone leaves out")?;
    Ok(i64::from(offset.fix().local_minus_utc()))
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, precision, scale, wanted) in [
            ("1.20", 3, 2, Ok(120)),
            ("-0.05", 3, 2, Ok(-5)),
            ("0.00", 2, 2, Ok(0)),
            ("7", 3, 2, Ok(700)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10_i128.pow(38) - 1)),
            ("-0.99999999999999999999999999999999999999", 38, 38, Ok(1 - 10_i128.pow(38))),
            ("9223372036854775807.5", 20, 1, Ok(92_233_720_368_547_758_075)),
            ("10.00", 3, 2, Err(BEYOND)),
            ("100000000000000000000000000000000000000", 38, 0, Err(BEYOND)),
            ("1.234", 5, 2, Err(DIGITS)),
            ("", 3, 2, Err(UNKNOWN)),
            ("-", 3, 2, Err(UNKNOWN)),
            (".5", 3, 2, Err(UNKNOWN)),
            ("1e3", 5, 2, Err(UNKNOWN)),
            ("+1", 5, 2, Err(UNKNOWN)),
            ("--1", 5, 2, Err(UNKNOWN)),
            ("1.-2", 5, 2, Err(UNKNOWN)),
        ] {
            assert_eq!(decimal(text, precision, scale), wanted, "{text}");
        }
    }

    #[test]
    fn dates_go_far() {
        for (text, wanted) in [
            ("1970-01-01", Ok(0)),
            ("2020-02-29", Ok(18_321)),
            ("0001-01-01", Ok(-719_162)),
            ("0000-12-31", Ok(-719_163)),
            ("-0001-12-31", Ok(-719_163 - 366)),
            ("+10000-01-01", Ok(2_932_897)),
            // The first and the last that Trino has: LocalDate.ofEpochDay of the least and the greatest int.
            ("-5877641-06-23", Ok(i32::MIN)),
            ("+5881580-07-11", Ok(i32::MAX)),
            ("+5881580-07-12", Err(BEYOND)),
            ("2021-02-29", Err(BEYOND)),
            ("1900-02-29", Err(BEYOND)),
            ("2020-13-01", Err(BEYOND)),
            ("2020-00-01", Err(BEYOND)),
            ("2020-01-00", Err(BEYOND)),
            ("2020-01", Err(UNKNOWN)),
            ("2020-01-01 ", Err(UNKNOWN)),
            ("2020-1x-01", Err(UNKNOWN)),
            ("99999999999999999999-01-01", Err(UNKNOWN)),
        ] {
            assert_eq!(date(text), wanted, "{text}");
        }
    }

    #[test]
    fn times_keep_their_digits() {
        assert_eq!(time("00:00:00", 6), Ok(0));
        assert_eq!(time("23:59:59.999", 6), Ok(86_399_999_000));
        assert_eq!(time("01:02:03.123456789", 9), Ok(3_723_123_456_789));
        assert_eq!(time("01:02:03.1234", 3), Err(DIGITS));
        assert_eq!(time("24:00:00", 6), Err(BEYOND));
        assert_eq!(time("12:60:00", 6), Err(BEYOND));
        assert_eq!(time("12:00", 6), Err(UNKNOWN));
        assert_eq!(time("12:00:00:00", 6), Err(UNKNOWN));
        assert_eq!(time("12:00:-1", 6), Err(UNKNOWN));
    }

    #[test]
    fn timestamps_are_counted_from_1970() {
        assert_eq!(timestamp("2020-01-31 12:34:56.789", 3), Ok(1_580_474_096_789));
        assert_eq!(timestamp("1969-12-31 23:59:59.999999", 6), Ok(-1));
        assert_eq!(timestamp("+10000-01-01 00:00:00", 3), Ok(253_402_300_800_000));
        // The first and the last nanosecond.
        assert_eq!(timestamp("1677-09-21 00:12:43.145224192", 9), Ok(i64::MIN));
        assert_eq!(timestamp("2262-04-11 23:47:16.854775807", 9), Ok(i64::MAX));
        assert_eq!(timestamp("1677-09-21 00:12:43.145224191", 9), Err(NANOSECONDS));
        assert_eq!(timestamp("2262-04-11 23:47:16.854775808", 9), Err(NANOSECONDS));
        assert_eq!(timestamp("2020-01-31", 3), Err(UNKNOWN));
    }

    #[test]
    fn zones_are_taken_off() {
        let at = |text: &str| instant(text, 3);
        let noon = 1_580_472_000_000;
        assert_eq!(at("2020-01-31 12:00:00.000 UTC"), Ok(noon));
        assert_eq!(at("2020-01-31 14:00:00.000 +02:00"), Ok(noon));
        assert_eq!(at("2020-01-30 22:30:00.000 -13:30"), Ok(noon));
        assert_eq!(at("2020-01-31 07:00:00.000 America/New_York"), Ok(noon));
        assert_eq!(at("2020-07-31 08:00:00.000 America/New_York"), timestamp("2020-07-31 12:00:00", 3));
        // An hour that is there twice, and one that is not.
        assert_eq!(at("2020-10-25 02:30:00.000 Europe/Paris"), timestamp("2020-10-25 00:30:00", 3));
        assert_eq!(at("2020-03-29 02:30:00.000 Europe/Paris"), Err("a local time that its time zone leaves out"));
        // Beyond the tables, in winter and in summer.
        assert_eq!(at("9999-12-31 23:59:59.000 Europe/Berlin"), timestamp("9999-12-31 22:59:59", 3));
        for year in 2090..2130 {
            let summer = format!("{year}-07-01 12:00:00.000");
            assert_eq!(at(&format!("{summer} Europe/Berlin")), timestamp(&summer, 3).map(|at| at - 7_200_000), "{year}");
        }
        assert_eq!(at("2020-01-31 12:00:00.000 Middle/Earth"), Err("a time zone that is not known"));
        assert_eq!(at("2020-01-31 12:00:00.000"), Err(UNKNOWN));
        // It is the instant that has to be in range.
        assert_eq!(instant("2262-04-12 01:47:16.854775807 +02:00", 9), Ok(i64::MAX));
    }

    #[test]
    fn intervals_have_one_sign() {
        assert_eq!(year_month("3-2"), Ok(38));
        assert_eq!(year_month("-1-11"), Ok(-23));
        assert_eq!(year_month("-178956970-8"), Ok(i32::MIN));
        assert_eq!(year_month("178956970-8"), Err(BEYOND));
        assert_eq!(year_month("1-12"), Err(BEYOND));
        assert_eq!(year_month("14"), Err(UNKNOWN));
        assert_eq!(day_time("2 03:04:05.321"), Ok(IntervalMonthDayNano::new(0, 2, 11_045_321_000_000)));
        assert_eq!(day_time("-0 00:00:01.000"), Ok(IntervalMonthDayNano::new(0, 0, -1_000_000_000)));
        assert_eq!(day_time("-106751991167 07:12:55.808"), Err(BEYOND));
        assert_eq!(day_time("03:04:05.321"), Err(UNKNOWN));
    }

    proptest! {
        #[test]
        fn dates_are_those_of_the_calendar(days in -90_000_000_i32..90_000_000) {
            let written = NaiveDate::from_epoch_days(days).unwrap();
            prop_assert_eq!(date(&written.to_string()), Ok(days));
            prop_assert_eq!(first(i64::from(written.year())) + i64::from(written.ordinal0()), i64::from(days));
        }

        #[test]
        fn decimals_come_back(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_i8..=38) {
            let by = 10_i128.pow(u32::from(scale.unsigned_abs()));
            let sign = if value < 0 { "-" } else { "" };
            let (whole, rest) = (value.abs() / by, value.abs() % by);
            let width = usize::from(scale.unsigned_abs());
            let written = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:0width$}") };
            prop_assert_eq!(decimal(&written, 38, scale), Ok(value));
        }

        #[test]
        fn any_text_is_refused_in_peace(text in "[-+0-9:. a-zA-Z/é]{0,40}", digits in 0_u32..=9) {
            let _ = (decimal(&text, 38, 4), date(&text), time(&text, digits), timestamp(&text, digits));
            let _ = (instant(&text, digits), year_month(&text), day_time(&text));
        }
    }
}
