//! From the text of the configuration file to typed values: references replaced, every trouble with its line and key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nexus_flight_catalog::error::{list, suggestion};
use nexus_flight_catalog::{Error, Place, Result};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::reload::{self, Seen};

/// The most that is read of the configuration, and of a file that it refers to: more is a mistake.
const LARGEST_FILE: u64 = 1 << 20;

/// A text with its references replaced, and the files among those.
type Replaced = (String, Vec<PathBuf>);

/// The file as it was read, where its keys stand in it, and which of them took their value from elsewhere.
#[derive(Clone, Default)]
pub(super) struct Places {
    /// The file's path.
    pub(super) file: PathBuf,
    /// What it said.
    pub(super) text: String,
    lines: BTreeMap<String, u64>,
    /// The line of each item of an array.
    items: BTreeMap<String, Vec<u64>>,
    /// What those keys took from there; several in an array.
    referenced: BTreeMap<String, Vec<String>>,
    /// The files that a key took it from.
    files: BTreeMap<String, Vec<PathBuf>>,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values that came out of references are secrets.
        f.debug_struct("Places").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Places {
    /// The line of a key, or of the nearest table around it that is in the file.
    pub(super) fn of(&self, key: &str) -> Place {
        let mut at = key;
        let line = loop {
            match (self.lines.get(at), at.rsplit_once('.')) {
                (Some(line), _) => break Some(*line),
                (None, Some((outer, _))) => at = outer,
                (None, None) => break None,
            }
        };
        Place::File { path: self.file.display().to_string(), line }
    }

    /// The lines of the items of an array.
    pub(super) fn items(&self, key: &str) -> impl Iterator<Item = Place> {
        let lines = self.items.get(key).into_iter().flatten();
        lines.map(move |line| Place::File { path: self.file.display().to_string(), line: Some(*line) })
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// Whether any key took its value from a file.
    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// What all references gave: another where one of them gives another value.
    pub(super) fn seen(&self) -> Seen {
        reload::seen(&self.referenced.values().flatten().map(String::as_bytes).collect::<Vec<_>>())
    }

    /// The keys whose references give something else than they did for the same text.
    pub(super) fn changed<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let differs = move |(key, values): &(&String, &Vec<String>)| before.referenced.get(*key) != Some(*values);
        self.referenced.iter().filter(differs).map(|(key, _)| key.as_str())
    }

    /// Where a key took its value from, to stand behind a message; nothing where it stands in this file.
    pub(super) fn origin(&self, key: &str) -> String {
        let files = self.files.get(key).into_iter().flatten().map(|file| file.display().to_string()).collect::<Vec<_>>();
        if files.is_empty() { String::new() } else { format!(" (from {})", files.join(", ")) }
    }

    /// Whether the value of a key, or a part of it, came out of a reference, and so must not be shown.
    pub(super) fn referenced(&self, key: &str) -> bool {
        self.referenced.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// A value between quotes for a message, unless it came out of a reference.
    pub(super) fn quote(&self, key: &str, value: &str) -> String {
        if self.referenced(key) { "the value of its reference".to_owned() } else { format!("\"{value}\"") }
    }

    /// A text of others with `***` for every value that came out of a reference. One of a letter or two would be found in
    /// every text, and hides nothing.
    pub(super) fn without_references(&self, text: &str) -> String {
        let hidden = self.referenced.values().flatten().filter(|value| value.len() > 2);
        hidden.fold(text.to_owned(), |text, value| text.replace(value.as_str(), "***"))
    }

    /// What is wrong with a key.
    pub(super) fn error(&self, key: &str, message: impl AsRef<str>) -> Error {
        let message = message.as_ref();
        let message = if key.is_empty() { message.to_owned() } else { format!("{key}: {message}{}", self.origin(key)) };
        Error::invalid(message).at(self.of(key))
    }
}

/// Reads a small text file. Errors: the reason as `std` gives it.
pub(super) fn read(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder"));
    }
    let mut text = String::new();
    if file.take(LARGEST_FILE + 1).read_to_string(&mut text)? as u64 > LARGEST_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The values of a configuration text, and where its keys stand.
///
/// `path` is the name in messages, `base` the folder that `${file:…}` starts at, `env` looks environment variables up.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(T, Places)> {
    let places = Places { file: path.to_owned(), text: text.to_owned(), ..Places::default() };
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { base, env, starts, places, spans: Vec::new() };
    let mut table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| reader.line(span.start));
        Error::invalid(format!("not valid TOML: {}", error.message())).at(Place::File { path: path.display().to_string(), line })
    })?;
    reader.table("", table.get_mut())?;
    match T::deserialize(Deserializer::from(table)) {
        Ok(value) => Ok((value, reader.places)),
        Err(error) => Err(reader.explain(&error)),
    }
}

/// One pass over the parsed text that replaces references and notes where everything stands.
struct Reader<'a> {
    base: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    starts: Vec<usize>,
    places: Places,
    spans: Vec<(Range<usize>, String)>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> u64 {
        self.starts.partition_point(|start| *start <= offset) as u64
    }

    fn table(&mut self, outer: &str, table: &mut DeTable<'_>) -> Result<()> {
        for (key, value) in table.iter_mut() {
            let path = if outer.is_empty() { key.get_ref().to_string() } else { format!("{outer}.{}", key.get_ref()) };
            self.places.lines.insert(path.clone(), self.line(key.span().start));
            self.spans.push((key.span(), path.clone()));
            self.value(&path, value)?;
        }
        Ok(())
    }

    fn value(&mut self, path: &str, value: &mut Spanned<DeValue<'_>>) -> Result<()> {
        self.spans.push((value.span(), path.to_owned()));
        match value.get_mut() {
            DeValue::Table(inner) => self.table(path, inner),
            DeValue::Array(items) => items.iter_mut().try_for_each(|item| {
                let line = self.line(item.span().start);
                self.places.items.entry(path.to_owned()).or_default().push(line);
                self.value(path, item)
            }),
            DeValue::String(text) => {
                let replaced = self
                    .replace(text)
                    .map_err(|(what, hint)| Error::invalid(format!("{path}: {what}")).with_hint(hint).at(self.places.of(path)))?;
                if let Some((replaced, mut files)) = replaced {
                    self.places.referenced.entry(path.to_owned()).or_default().push(replaced.clone());
                    if !files.is_empty() {
                        self.places.files.entry(path.to_owned()).or_default().append(&mut files);
                    }
                    *text = replaced.into();
                }
                Ok(())
            }
            // No key takes a date, and a connector that does takes it as text.
            DeValue::Datetime(_) => {
                Err(self.places.error(path, "a bare date is no value here").with_hint("put it between quotes"))
            }
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => Ok(()),
        }
    }

    /// The text with its references replaced, once: what they give is taken as it is; and the files among them. `None` where
    /// there are none. The error is a message and a hint, which show nothing of the text, since it may be a secret itself.
    fn replace(&self, text: &str) -> Result<Option<Replaced>, (String, String)> {
        let mut rest = text;
        let (mut replaced, mut files) = (String::new(), Vec::new());
        while let Some((before, after)) = rest.split_once("${") {
            let forms = || "a reference is ${env:NAME} or ${file:PATH}".to_owned();
            let (reference, after) = after.split_once('}').ok_or_else(|| ("\"${\" without its \"}\"".to_owned(), forms()))?;
            replaced.push_str(before);
            replaced.push_str(&match reference.split_once(':') {
                Some(("env", name)) => (self.env)(name).ok_or_else(|| {
                    (format!("the environment variable {name} is not set"), "set it where the gateway starts".to_owned())
                })?,
                Some(("file", path)) => {
                    let path = self.base.join(path);
                    let value = file(&path)?;
                    files.push(path);
                    value
                }
                _ => return Err(("an unknown kind of reference".to_owned(), forms())),
            });
            rest = after;
        }
        if rest.len() == text.len() {
            return Ok(None);
        }
        replaced.push_str(rest);
        Ok(Some((replaced, files)))
    }

    /// The error of a value that does not fit, in our words.
    fn explain(&self, error: &toml::de::Error) -> Error {
        let span = error.span().unwrap_or_default();
        let key = self.spans.iter().find(|(known, _)| *known == span).map_or("", |(_, path)| path.as_str());
        let (message, hint) = reword(error.message());
        // Some of these messages quote the value.
        let message = if self.places.referenced(key) { "the value of its reference is not valid".to_owned() } else { message };
        let error = self.places.error(key, message);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// The text of a file without the line ends that editors add. Errors: a message and a hint.
fn file(path: &Path) -> Result<String, (String, String)> {
    let text = read(path).map_err(|cause| {
        let message = format!("the file {} cannot be read: {}", path.display(), reason(&cause));
        (message, "the path starts at the folder of the configuration file".to_owned())
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        // As it is for a moment where it is written anew.
        "" => Err((format!("the file {} is empty", path.display()), "write the value into it".to_owned())),
        value => Ok(value.to_owned()),
    }
}

/// The reason alone, without the number that `std` adds to it.
pub(super) fn reason(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// serde's messages as a message and a hint. None of them is given on with a value that has the wrong type in it: a password
/// in the wrong place would be shown. Our own types write `message; hint`.
fn reword(message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let suggestion = |what: &str| suggestion(first, &known, || format!("the {what} are {}", list(&known)));
    if message.starts_with("unknown field") {
        return ("unknown key".to_owned(), Some(suggestion("keys here")));
    }
    if message.starts_with("unknown variant") {
        return (format!("unknown value \"{first}\""), Some(suggestion("values")));
    }
    if message.starts_with("missing field") {
        return (format!("the key \"{first}\" is missing"), Some(format!("add {first} = …")));
    }
    if message.starts_with("wanted ") {
        return ("a string is needed here".to_owned(), None);
    }
    if message.starts_with("invalid value") || message.contains("overflowed") {
        return ("the number is out of range".to_owned(), Some("write a whole number that is not negative".to_owned()));
    }
    if let Some((found, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        let expected = match expected {
            "usize" | "u64" | "u32" => "a whole number",
            "a sequence" => "an array",
            other if other.starts_with("struct ") || other == "a map" => "a table",
            other => other,
        };
        let found = match found.split([' ', ',']).next().unwrap_or_default() {
            "sequence" => "an array",
            "map" => "a table",
            "integer" => "an integer",
            "floating" => "a fraction",
            "boolean" => "true or false",
            _ => "a string",
        };
        return (format!("{expected} is needed here, not {found}"), None);
    }
    match message.split_once("; ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (message.to_owned(), None),
    }
}
