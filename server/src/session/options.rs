//! What a client can set for its session, beside catalog and schema.

use std::time::Duration;

use arrow::array::timezone::Tz;
use nexus_flight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::config::Period;
use crate::flight::profile::TypeProfile;
use crate::session::cache_control::{CacheControl, tag};

/// The options; what is not set has the default of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The zone of `now()`, and of times whose text names none: a name such as `Asia/Shanghai`, or an offset such as `+08:00`.
    pub time_zone: Option<String>,
    /// The types that the client can read, whatever program it says that it is.
    pub type_profile: Option<TypeProfile>,
    /// What to do with answers that are kept.
    pub cache: Option<CacheControl>,
    /// The name of its answers that are kept, by which they can be given up.
    pub cache_tag: Option<String>,
    /// How long a statement may take, from its arrival to its last row.
    pub timeout: Option<Duration>,
    /// In how many parts answers may come that can, to be fetched side by side.
    pub endpoints: Option<usize>,
    /// The most rows of an answer; one that has more ends with an error.
    pub max_rows: Option<u64>,
}

/// The most parts of an answer.
const ENDPOINTS: usize = 64;

/// The names of the options.
pub const NAMES: [&str; 7] = ["time_zone", "type_profile", "cache", "cache_tag", "timeout", "endpoints", "max_rows"];

impl Options {
    /// The value of an option as text; none where it is not set.
    pub fn get(&self, name: &str) -> Option<String> {
        match name {
            "time_zone" => self.time_zone.clone(),
            "type_profile" => self.type_profile.map(|profile| profile.to_string()),
            "cache" => self.cache.map(|cache| cache.to_string()),
            "cache_tag" => self.cache_tag.clone(),
            "timeout" => self.timeout.map(|timeout| Period(timeout).to_string()),
            "endpoints" => self.endpoints.map(|endpoints| endpoints.to_string()),
            "max_rows" => self.max_rows.map(|rows| rows.to_string()),
            _ => None,
        }
    }

    /// Sets an option by its text, or unsets it. Errors: `NotFound` for another name, `Invalid` for a value that it does not take.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        match name {
            "time_zone" => self.time_zone = value.map(time_zone).transpose()?,
            "type_profile" => self.type_profile = value.map(str::parse).transpose()?,
            "cache" => self.cache = value.map(str::parse).transpose()?,
            "cache_tag" => self.cache_tag = value.map(tag).transpose()?,
            "timeout" => self.timeout = value.map(timeout).transpose()?,
            "endpoints" => self.endpoints = value.map(endpoints).transpose()?,
            "max_rows" => self.max_rows = value.map(max_rows).transpose()?,
            _ => return Err(Error::not_found(format!("there is no session option \"{name}\""))),
        }
        Ok(())
    }
}

fn time_zone(name: &str) -> Result<String> {
    let wrong = || Error::invalid(format!("\"{name}\" is no time zone")).with_hint("write it like Asia/Shanghai or +08:00");
    name.parse::<Tz>().map(|_| name.to_owned()).map_err(|_| wrong())
}

fn timeout(text: &str) -> Result<Duration> {
    let Period(timeout) = text.parse().map_err(|cause: String| Error::invalid(cause))?;
    if timeout.is_zero() {
        return Err(Error::invalid("0 leaves no statement any time").with_hint("unset the option for no limit"));
    }
    Ok(timeout)
}

fn endpoints(text: &str) -> Result<usize> {
    let wrong =
        || Error::invalid(format!("\"{text}\" is no number of endpoints")).with_hint(format!("there are 1 to {ENDPOINTS}"));
    text.parse().ok().filter(|endpoints| (1..=ENDPOINTS).contains(endpoints)).ok_or_else(wrong)
}

fn max_rows(text: &str) -> Result<u64> {
    let wrong = || Error::invalid(format!("\"{text}\" is no number of rows")).with_hint("write 1 or more, or unset the option");
    text.parse::<u64>().ok().filter(|rows| *rows > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    #[test]
    fn options_are_read_as_they_are_shown() {
        let mut options = Options::default();
        for (name, value) in NAMES.into_iter().zip(["Asia/Shanghai", "native", "no-cache", "nightly", "30s", "4", "1000"]) {
            assert_eq!(options.get(name), None);
            options.set(name, Some(value)).unwrap();
            assert_eq!(options.get(name).as_deref(), Some(value));
        }
        for name in NAMES {
            options.set(name, None).unwrap();
        }
        assert_eq!(options, Options::default());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |name: &str, value: &str| Options::default().set(name, Some(value)).unwrap_err().kind();
        assert_eq!(refused("timezone", "UTC"), Kind::NotFound);
        for (name, value) in [
            ("time_zone", "Mars"),
            ("type_profile", "all"),
            ("cache", "no"),
            ("cache_tag", ""),
            ("timeout", "5"),
            ("timeout", "0s"),
            ("endpoints", "0"),
            ("endpoints", "65"),
            ("max_rows", "0"),
            ("max_rows", "-1"),
        ] {
            assert_eq!(refused(name, value), Kind::Invalid, "{name} = {value}");
        }
    }
}
