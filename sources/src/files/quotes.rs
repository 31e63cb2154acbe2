//! Where the quoted values of a CSV file begin and end: what ends within one has been cut.

use nexus_flight_catalog::{Error, Place, Result};

const MARK: &[u8; 3] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// Before the first byte of a value.
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted value: its end, or the first of two that stand for one.
    Quote,
}

/// Follows the text of a file, piece by piece.
pub(super) struct Quotes {
    at: At,
    delimiter: u8,
    seen: usize,
    line: u64,
    /// The line that the open value begins in.
    opened: u64,
}

impl Quotes {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { at: At::Start, delimiter, seen: 0, line: 1, opened: 1 }
    }

    /// Takes the next piece, and gives how much of it ends with the end of a row.
    pub(super) fn piece(&mut self, piece: &[u8]) -> usize {
        let is_inside = matches!(self.at, At::Quoted | At::Quote);
        if self.seen >= MARK.len() && !is_inside && !piece.contains(&b'"') {
            self.seen += piece.len();
            self.line += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            if let Some(last) = piece.last() {
                self.at = if self.ends(*last) { At::Start } else { At::Plain };
            }
            return piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        }
        let mut rows = 0;
        for (byte, after) in piece.iter().zip(1..) {
            // Readers leave out the mark of UTF-8 at the beginning.
            let is_mark = self.at == At::Start && MARK.get(self.seen) == Some(byte);
            self.seen = self.seen.saturating_add(1);
            self.line += u64::from(*byte == b'\n');
            self.at = match (self.at, *byte) {
                (At::Start, _) if is_mark => At::Start,
                (At::Start, b'"') => {
                    self.opened = self.line;
                    At::Quoted
                }
                (At::Quoted, b'"') => At::Quote,
                (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
                (_, byte) if self.ends(byte) => At::Start,
                _ => At::Plain,
            };
            if *byte == b'\n' && self.at == At::Start {
                rows = after;
            }
        }
        rows
    }

    /// Says whether the text may end here. Errors: `Data`, with the line that the open value begins in.
    pub(super) fn end(&self) -> Result<()> {
        if self.at != At::Quoted {
            return Ok(());
        }
        let place = Place::File { path: String::new(), line: Some(self.opened) };
        Err(Error::data("the file ends within a quoted value, so it was cut, or a quote is missing")
            .with_hint("write the file again, or close the value")
            .at(place))
    }

    fn ends(&self, byte: u8) -> bool {
        byte == self.delimiter || byte == b'\n' || byte == b'\r'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_line(text: &str, size: usize) -> Option<u64> {
        let mut quotes = Quotes::new(b',');
        text.as_bytes().chunks(size).for_each(|piece| {
            quotes.piece(piece);
        });
        match quotes.end().err()?.place() {
            Some(Place::File { line, .. }) => *line,
            _ => None,
        }
    }

    #[test]
    fn an_open_value_is_told_however_the_text_comes() {
        for size in [1, 2, 5, 100] {
            for whole in
                ["", "a,b\n1,\"x\"\n", "a\n\"x\"\"y\"", "a\n\"x\n,\"\n", "a\nx\"y\n", "a\n1\" \"\n", "\u{feff}\"a\"\n\"\"\n"]
            {
                assert_eq!(open_line(whole, size), None, "{whole:?} by {size}");
            }
            for (cut, line) in [("a,b\n1,\"x\n2,y\n", 2), ("a\n\"x\"\"", 2), ("\u{feff}\"a\n", 1), ("a\n\"\n\"\n\"x\r\n", 4)] {
                assert_eq!(open_line(cut, size), Some(line), "{cut:?} by {size}");
            }
        }
    }

    #[test]
    fn rows_end_outside_of_quotes() {
        assert_eq!(Quotes::new(b',').piece(b"a,b\n1,\"x\ny"), 4);
        assert_eq!(Quotes::new(b',').piece(b"a,b\n1,2\n3"), 8);
    }
}
