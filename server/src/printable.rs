//! Text from elsewhere, made fit for a terminal or a line of a log.

use std::borrow::Cow;

use nexus_flight_catalog::error;

/// The text with its control characters written out, so that it keeps to its line and moves no cursor.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() { printable.extend(letter.escape_default()) } else { printable.push(letter) }
    }
    Cow::Owned(printable)
}

/// How many bytes JSON has for one of a text: control characters, quotes and backslashes are escaped.
pub fn in_json(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        // As \u001f.
        0..=0x1f => 6,
        _ => 1,
    }
}

/// How much of a message is told and kept, in bytes: what it quotes may be as long as a statement.
const LONGEST: usize = 2_000;

/// A message, cut to a length.
pub fn shortened(message: String) -> String {
    error::shortened(message, LONGEST)
}
