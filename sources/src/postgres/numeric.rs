//! `numeric` in PostgreSQL's binary form: digits in base 10,000, as in `numeric_send` and `numeric_recv` of numeric.c.

use bytes::{BufMut, BytesMut};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// A number as it is sent.
struct Sent<'a> {
    /// Two bytes a digit.
    digits: &'a [u8],
    /// The power of the base that the first digit counts.
    weight: i16,
    sign: u16,
    /// How many decimal digits are shown after the point.
    shown: u16,
}

impl<'a> Sent<'a> {
    fn parse(raw: &'a [u8]) -> Option<Self> {
        let (_, digits) = raw.split_at_checked(8)?;
        let word = |at: usize| Some(u16::from_be_bytes([*raw.get(at)?, *raw.get(at + 1)?]));
        (digits.len() == usize::from(word(0)?) * 2).then_some(())?;
        Some(Self { digits, weight: word(2)? as i16, sign: word(4)?, shown: word(6)? })
    }

    /// The digits, each with the power of the base that it counts.
    fn digits(&self) -> impl Iterator<Item = (i32, i128)> + '_ {
        let digits = self.digits.chunks_exact(2).map(|pair| match pair {
            [high, low] => i128::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        });
        digits.enumerate().map(|(at, digit)| (i32::from(self.weight) - at as i32, digit))
    }
}

/// The number times ten to the power of the scale. Errors: what it is instead.
pub(super) fn unscaled(raw: &[u8], scale: i8) -> Result<i128, &'static str> {
    let sent = Sent::parse(raw).ok_or("a number in a form that is not known")?;
    match sent.sign {
        NAN => return Err("NaN"),
        INFINITY | NEGATIVE_INFINITY => return Err("infinity"),
        _ => {}
    }
    let mut sum: i128 = 0;
    for (power, digit) in sent.digits() {
        let exponent = power * 4 + i32::from(scale);
        let part = match u32::try_from(exponent) {
            Ok(up) => 10i128.checked_pow(up).and_then(|factor| digit.checked_mul(factor)),
            Err(_) => {
                let factor = 10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX);
                (digit % factor == 0).then_some(digit / factor)
            }
        };
        let next = part.and_then(|part| sum.checked_add(part));
        sum = next.ok_or("more digits than it is declared with")?;
    }
    Ok(if sent.sign == NEGATIVE { -sum } else { sum })
}

/// The number as PostgreSQL writes it.
pub(super) fn text(raw: &[u8]) -> Result<String, &'static str> {
    let sent = Sent::parse(raw).ok_or("a number in a form that is not known")?;
    match sent.sign {
        NAN => return Ok("NaN".to_owned()),
        INFINITY => return Ok("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Ok("-Infinity".to_owned()),
        _ => {}
    }
    let (mut whole, mut fraction) = (String::new(), String::new());
    let mut expected = sent.digits().next().map_or(0, |(power, _)| power);
    // Zeros between the point and the first digit.
    for _ in expected..-1 {
        fraction += "0000";
    }
    for (power, digit) in sent.digits() {
        let part = if power < 0 { &mut fraction } else { &mut whole };
        *part += &format!("{digit:04}");
        expected = power - 1;
    }
    // Zeros at the end are not sent.
    for _ in 0..=expected {
        whole += "0000";
    }
    let whole = whole.trim_start_matches('0');
    let mut text = if sent.sign == NEGATIVE { "-".to_owned() } else { String::new() };
    text += if whole.is_empty() { "0" } else { whole };
    let shown = usize::from(sent.shown);
    if shown > 0 {
        fraction.extend(std::iter::repeat_n('0', shown.saturating_sub(fraction.len())));
        text.push('.');
        text += fraction.get(..shown).unwrap_or(&fraction);
    }
    Ok(text)
}

/// Writes a number that is given times ten to the power of the scale, without its length.
pub(super) fn put_unscaled(out: &mut BytesMut, unscaled: i128, scale: u8) {
    let digits = unscaled.unsigned_abs().to_string();
    put_digits(out, unscaled < 0, &digits, usize::from(scale));
}

/// Writes a number that is text, without its length. Errors: it is none.
pub(super) fn put_text(out: &mut BytesMut, text: &str) -> Result<(), &'static str> {
    let trimmed = text.trim();
    let special = match trimmed.to_ascii_lowercase().as_str() {
        "nan" => Some(NAN),
        "infinity" | "inf" => Some(INFINITY),
        "-infinity" | "-inf" => Some(NEGATIVE_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        [0, 0, sign, 0].iter().for_each(|word| out.put_u16(*word));
        return Ok(());
    }
    let (negative, number) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    // The most that numeric_recv takes.
    if !is_number || whole.len() > 131_072 || fraction.len() > 16_383 {
        return Err("text that is no number of digits");
    }
    put_digits(out, negative, &digits, fraction.len());
    Ok(())
}

/// Decimal digits, of which so many are after the point.
fn put_digits(out: &mut BytesMut, negative: bool, digits: &str, scale: usize) {
    let whole = digits.len().saturating_sub(scale);
    // Both sides of the point are made of whole groups of four.
    let before = "0".repeat((4 - whole % 4) % 4);
    let between = "0".repeat(scale.saturating_sub(digits.len()));
    let after = "0".repeat((4 - scale % 4) % 4);
    let padded = match whole {
        0 => format!("{between}{digits}{after}"),
        _ => format!("{before}{digits}{after}"),
    };
    let mut groups: Vec<u16> = padded.as_bytes().chunks(4).map(group).collect();
    let mut weight = whole.div_ceil(4) as i32 - 1;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= zeros as i32;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let sign = if negative && !groups.is_empty() { NEGATIVE } else { 0 };
    let weight = if groups.is_empty() { 0 } else { weight as i16 };
    out.put_u16(groups.len() as u16);
    out.put_i16(weight);
    out.put_u16(sign);
    out.put_u16(scale as u16);
    groups.into_iter().for_each(|group| out.put_u16(group));
}

fn group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_what_they_write() {
        for number in [
            "0",
            "0.00",
            "1",
            "-1",
            "12345678",
            "10000",
            "100000000",
            "0.5",
            "-0.0001",
            "0.00001",
            "0.000000001234",
            "99999999999999999999999999999999999999",
            "-1234567890123456789.0123456789",
            "120000.0300",
            "NaN",
            "Infinity",
            "-Infinity",
            "123456789012345678901234567890123456789012345678901234567890.5",
        ] {
            let mut out = BytesMut::new();
            put_text(&mut out, number).unwrap();
            assert_eq!(text(&out).unwrap(), number);
        }
        for wrong in ["", "-", ".", "1e5", "0x1", "1 2", "--1"] {
            assert!(put_text(&mut BytesMut::new(), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn decimals_read_what_they_write() {
        for (number, scale) in
            [(0i128, 0u8), (1, 38), (-5, 2), (10i128.pow(38) - 1, 38), (-(10i128.pow(38) - 1), 0), (123_456, 3)]
        {
            let mut out = BytesMut::new();
            put_unscaled(&mut out, number, scale);
            assert_eq!(unscaled(&out, scale as i8), Ok(number), "{number} {scale}");
        }
        let mut out = BytesMut::new();
        put_text(&mut out, "1.234").unwrap();
        assert!(unscaled(&out, 2).is_err());
        assert_eq!(unscaled(&out, 5), Ok(123_400));
    }
}
