//! The values that are more than text and numbers: durations, addresses and keys; sizes are the catalogs' too.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nexus_flight_catalog::quantity::{quantity, write_quantity};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretBox};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The units of a duration in milliseconds, largest first.
const PERIODS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A length of time, exact to the millisecond: `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        quantity(text, PERIODS.iter())
            .map(|milliseconds| Period(Duration::from_millis(milliseconds)))
            .ok_or_else(|| format!("\"{text}\" is not a duration; write it like \"250ms\", \"30s\", \"5m\", \"1h\" or \"7d\""))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 { f.write_str("0s") } else { write_quantity(f, milliseconds, &PERIODS) }
    }
}

/// An address to listen at: an IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Listen).map_err(|_| {
            format!("\"{text}\" is not an address to listen at; write an IP address and a port, such as \"127.0.0.1:31337\" or \"[::]:31337\"")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key that seals tickets.
pub struct TicketKey(SecretBox<[u8; 32]>);

impl TicketKey {
    /// The key itself.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

impl Clone for TicketKey {
    fn clone(&self) -> Self {
        Self(SecretBox::new(Box::new(*self.expose())))
    }
}

impl FromStr for TicketKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        key.map(|key| Self(SecretBox::new(Box::new(key))))
            .ok_or_else(|| "a key is 32 bytes in base64; make one with: openssl rand -base64 32".to_owned())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The keys of texts, of which each has one in every line: a file of several is replaced as a whole.
pub(super) fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TicketKey>, D::Error> {
    struct Lines(Vec<TicketKey>);

    impl FromStr for Lines {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            text.split('\n').map(|line| TicketKey::from_str(line.trim())).collect::<Result<_, _>>().map(Self)
        }
    }

    impl<'de> Deserialize<'de> for Lines {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Text("a key in base64", std::marker::PhantomData))
        }
    }

    let texts = Vec::<Lines>::deserialize(deserializer)?;
    Ok(texts.into_iter().flat_map(|Lines(keys)| keys).collect())
}

/// Reads a value from the text it is written as.
struct Text<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        // A bare number is refused in the words of each.
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! as_text {
    ($($type:ident: $expecting:literal, $schema:expr;)*) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text($expecting, std::marker::PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )* };
}

// A string may also be a reference, `${env:NAME}`, so the patterns leave room for one.
pub(super) const SIZE: &str = r"^([0-9]+ *([kKMGT]B|[KMGT]iB|B)?|.*\$\{.*)$";

pub(super) fn size_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "minimum": 0, "pattern": SIZE })
}

as_text! {
    Period: "a duration such as \"30s\"", json_schema!({ "type": "string", "pattern": "^([0-9]+ *(ms|s|m|h|d)|.*\\$\\{.*)$" });
    Listen: "an address such as \"127.0.0.1:31337\"", json_schema!({ "type": "string" });
    TicketKey: "a key in base64", json_schema!({ "type": "string" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_what_they_write() {
        for (text, milliseconds) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.0.as_millis(), milliseconds, "{text}");
            assert_eq!(period.to_string(), text);
        }
        for text in ["", "10", "1w", "-1s", "99999999999999999999s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_ticket_key_shows_nothing() {
        let key: TicketKey = STANDARD.encode([7; 32]).parse().unwrap();
        assert_eq!(key.expose(), &[7; 32]);
        assert_eq!(format!("{key:?} {key}"), "*** ***");
    }
}
