//! What a client wants of answers that are kept, in the words of HTTP's `cache-control` (RFC 9111).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nexus_flight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

/// The longest tag, in bytes: it is carried, and kept.
const LONGEST_TAG: usize = 128;

/// What a statement does with answers that are kept. By itself: it takes one that is not out of date, and keeps its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheControl {
    /// It takes none, and keeps its own.
    pub no_cache: bool,
    /// It takes none and keeps none.
    pub no_store: bool,
    /// It takes one, or fails.
    pub only_if_cached: bool,
    /// How old one may be, in seconds.
    pub max_age: Option<u32>,
    /// For how long one may be out of date, in seconds. What was known to be up to date within `cache.check` is not (RFC 9111,
    /// section 5.2.1.2: beyond the freshness lifetime), so that 0 takes it.
    pub max_stale: Option<u32>,
}

impl CacheControl {
    /// What a header says; other directives in it are not for this cache. Errors: `Invalid` for one that misses its seconds.
    pub fn of_header(text: &str) -> Result<Self> {
        let mut control = Self::default();
        for directive in text.split(',') {
            control.add(directive)?;
        }
        Ok(control)
    }

    /// Whether an answer may be so old.
    pub fn admits(&self, age: Duration) -> bool {
        self.max_age.is_none_or(|most| age <= Duration::from_secs(most.into()))
    }

    /// Takes a directive; whether it is one.
    fn add(&mut self, directive: &str) -> Result<bool> {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name, Some(value.trim().trim_matches('"'))),
            None => (directive, None),
        };
        let name = name.trim().to_ascii_lowercase();
        match (name.as_str(), value) {
            ("use", None) => {}
            ("no-cache" | "refresh", None) => self.no_cache = true,
            ("no-store" | "bypass", None) => self.no_store = true,
            ("only-if-cached", None) => self.only_if_cached = true,
            // However long.
            ("max-stale", None) => self.max_stale = Some(u32::MAX),
            ("max-stale", Some(value)) => self.max_stale = Some(seconds(&name, value)?),
            ("max-age", value) => self.max_age = Some(seconds(&name, value.unwrap_or_default())?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for CacheControl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut control = Self::default();
        for directive in text.split(',') {
            if !control.add(directive)? {
                return Err(Error::invalid(format!("\"{}\" is no cache control", directive.trim()))
                    .with_hint("there are no-cache, no-store, only-if-cached, max-age=60 and max-stale=60, with commas between them, and use for none of them"));
            }
        }
        Ok(control)
    }
}

impl fmt::Display for CacheControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [("no-cache", self.no_cache), ("no-store", self.no_store), ("only-if-cached", self.only_if_cached)];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        let seconds = [("max-age", self.max_age), ("max-stale", self.max_stale)];
        let seconds = seconds.into_iter().filter_map(|(name, seconds)| Some(format!("{name}={}", seconds?)));
        let words: Vec<String> = flags.chain(seconds).collect();
        f.write_str(&if words.is_empty() { "use".to_owned() } else { words.join(", ") })
    }
}

fn seconds(name: &str, value: &str) -> Result<u32> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse::<u32>().ok().filter(|_| is_number);
    seconds.ok_or_else(|| {
        Error::invalid(format!("\"{value}\" is no number of seconds for {name}")).with_hint(format!("write it like {name}=60"))
    })
}

/// A name for answers, by which they can be given up together. Errors: `Invalid`.
pub fn tag(text: &str) -> Result<String> {
    if text.is_empty() || text.len() > LONGEST_TAG || text.contains(char::is_control) {
        return Err(Error::invalid(format!("a tag of answers is a line of text of 1 to {LONGEST_TAG} bytes")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_as_they_are_shown() {
        for text in ["use", "no-cache", "no-store", "only-if-cached, max-age=60, max-stale=5", "max-stale=4294967295"] {
            assert_eq!(text.parse::<CacheControl>().unwrap().to_string(), text);
        }
        for (other, text) in [
            ("refresh", "no-cache"),
            ("bypass", "no-store"),
            ("max-stale", "max-stale=4294967295"),
            ("Max-Age=\"7\",NO-CACHE", "no-cache, max-age=7"),
            ("use, max-age = 0", "max-age=0"),
        ] {
            assert_eq!(other.parse::<CacheControl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_header_may_say_more() {
        let control = CacheControl::of_header("no-transform, max-age=60,, private=\"x\", no-cache=\"y\"").unwrap();
        assert_eq!(control.to_string(), "max-age=60");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |text: &str| text.parse::<CacheControl>().unwrap_err().to_string();
        insta::assert_snapshot!(refused("no-cache, maybe"), @r#""maybe" is no cache control; there are no-cache, no-store, only-if-cached, max-age=60 and max-stale=60, with commas between them, and use for none of them"#);
        insta::assert_snapshot!(refused("max-age=-1"), @r#""-1" is no number of seconds for max-age; write it like max-age=60"#);
        for wrong in ["", "no-cache=1", "max-age", "max-age=", "max-age=+1", "max-age=1s", "max-stale=4294967296"] {
            refused(wrong);
        }
        assert!(CacheControl::of_header("max-age=soon").is_err());
        for wrong in ["", "a\nb", &"x".repeat(129)] {
            tag(wrong).unwrap_err();
        }
    }
}
