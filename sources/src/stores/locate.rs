//! Errors of a reader with the file they come from.

use std::error::Error as StdError;

use datafusion::error::DataFusionError;
use nexus_flight_catalog::{Error, Kind, Place};
use object_store::path::Path;

use super::store::Store;

/// Puts the file into an error.
pub(crate) trait Locate {
    /// The error in our words, with the file as its place, and the line where the message names one.
    fn locate(&self, error: DataFusionError, path: &Path) -> Error;
}

impl Locate for Store {
    fn locate(&self, error: DataFusionError, path: &Path) -> Error {
        if let Some(cause) = cause::<object_store::Error>(&error) {
            return self.error(cause, path);
        }
        if let Some(ours) = cause::<Error>(&error) {
            return match ours.place() {
                // Whoever looks at text knows its lines and not the file.
                Some(Place::File { path: unknown, line }) if unknown.is_empty() => {
                    let error = Error::new(ours.kind(), ours.message()).with_hint(ours.hint().unwrap_or_default());
                    error.at(Place::File { path: self.show(path), line: *line })
                }
                _ => ours.copied().at(self.place(path)),
            };
        }
        let error = Error::from(error);
        // Whatever else a reader says of a file is about what the file holds.
        let (Kind::Invalid | Kind::Internal | Kind::Unavailable | Kind::Data) = error.kind() else {
            return error.at(self.place(path));
        };
        let (message, line) = without_line(error.message());
        let hint = if line.is_some() { "correct the line, or remove the file" } else { "write the file again, or remove it" };
        Error::data(message).with_hint(hint).at(Place::File { path: self.show(path), line })
    }
}

/// Takes the line out of what the CSV reader says, and the row, which may hold what is not for everybody's eyes.
fn without_line(message: &str) -> (String, Option<u64>) {
    // Where the number of fields is wrong the reader counts lines from one, where a value is wrong from zero.
    for (mark, end, offset) in [(" for line ", ",", 0), (" at line ", ".", 1)] {
        let Some((before, after)) = message.split_once(mark) else { continue };
        let (number, rest) = after.split_once(end).unwrap_or((after, ""));
        if let Ok(number) = number.parse::<u64>() {
            let rest = if mark == " for line " { rest } else { "" };
            let comma = if rest.is_empty() { "" } else { "," };
            return (format!("{before}{comma}{rest}"), Some(number + offset));
        }
    }
    (message.to_owned(), None)
}

/// The first error of a type in a chain of causes.
pub(crate) fn cause<T: StdError + 'static>(error: &DataFusionError) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::without_line;

    #[test]
    fn readers_name_lines() {
        let fields = without_line("incorrect number of fields for line 5, expected 2 got more than 2");
        assert_eq!(fields, ("incorrect number of fields, expected 2 got more than 2".to_owned(), Some(5)));
        let value = without_line("error while parsing value 'x' as type 'Int64' for column 1 at line 12. Row data: '[x,secret]'");
        assert_eq!(value, ("error while parsing value 'x' as type 'Int64' for column 1".to_owned(), Some(13)));
        assert_eq!(without_line("there is no line here"), ("there is no line here".to_owned(), None));
    }
}
