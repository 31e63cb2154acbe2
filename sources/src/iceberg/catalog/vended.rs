//! What a REST catalog says of a table, and the keys of the store that may come with it (Iceberg's REST OpenAPI, `LoadTableResult`).

use std::collections::BTreeMap;
use std::fmt;

use nexus_flight_catalog::{Error, Result};
use object_store::aws::AwsCredential;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::lake::life;
use crate::stores::Given;

// Properties by the names of Iceberg's S3FileIO.
const KEY_ID: &str = "s3.access-key-id";
const SECRET: &str = "s3.secret-access-key";
const TOKEN: &str = "s3.session-token";
const ENDS: &str = "s3.session-token-expires-at-ms";
const ENDPOINT: &str = "s3.endpoint";
const REGION: &str = "s3.region";
const CLIENT_REGION: &str = "client.region";
const HEEDED: [&str; 7] = [KEY_ID, SECRET, TOKEN, ENDS, ENDPOINT, REGION, CLIENT_REGION];

/// Those of these properties that are given, of which some are secret. There may be any number of others, of any size.
struct Properties(BTreeMap<&'static str, String>);

impl Properties {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Reading)
    }
}

/// Reads them one after the other.
struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Properties;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Properties, A::Error> {
        let mut heeded = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            match HEEDED.iter().find(|heeded| **heeded == name) {
                Some(name) => heeded.extend(text(&map.next_value::<Box<RawValue>>()?).map(|text| (*name, text))),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Properties(heeded))
    }
}

/// A text, or a number as one.
fn text(value: &RawValue) -> Option<String> {
    let number = || value.get().parse::<u64>().ok().map(|number| number.to_string());
    serde_json::from_str(value.get()).ok().or_else(number)
}

/// A table as the catalog has it now. Nothing else of the metadata in the answer is heeded: it is read from the file.
#[derive(Deserialize)]
pub(super) struct Loaded {
    #[serde(rename = "metadata-location")]
    location: Option<String>,
    config: Option<Properties>,
    #[serde(rename = "storage-credentials")]
    credentials: Option<Vec<Credential>>,
}

#[derive(Deserialize)]
struct Credential {
    prefix: String,
    config: Properties,
}

/// Keys that a catalog gives, and where it says that they open something.
pub(super) struct Vended {
    pub(super) keys: Given<AwsCredential>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
}

impl Loaded {
    /// The address of the file of metadata. Errors: `Unsupported` for a table that has none.
    pub(super) fn location(&self) -> Result<&str> {
        self.location.as_deref().ok_or_else(|| {
            Error::unsupported("the catalog server names no file of metadata for this table")
                .with_hint("tables that exist in the answers of a server alone are not read")
        })
    }

    /// The keys for this table, if there are any: those for the longest beginning of its address, or else those for all of it.
    /// Errors: `Data` for a part of a key.
    pub(super) fn vended(&self) -> Result<Option<Vended>> {
        let address = one_scheme(self.location.as_deref().unwrap_or_default());
        let credentials = self.credentials.iter().flatten();
        let fitting = credentials.filter(|credential| address.starts_with(&one_scheme(&credential.prefix)));
        let longest = fitting.max_by_key(|credential| credential.prefix.len()).map(|credential| &credential.config);
        // Where to connect may stand beside the keys or with the table.
        let both = [longest, self.config.as_ref()];
        let Some(keys) = both.into_iter().flatten().find(|properties| properties.get(KEY_ID).is_some()) else { return Ok(None) };
        let text = |name: &str| keys.get(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let (Some(key_id), Some(secret_key)) = (text(KEY_ID), text(SECRET)) else {
            return Err(Error::data("the catalog server gives a part of a key for the store"));
        };
        let anywhere = |name: &str| both.into_iter().flatten().find_map(|properties| properties.get(name));
        let region = anywhere(REGION).or_else(|| anywhere(CLIENT_REGION));
        let ends = keys.get(ENDS).and_then(|ends| ends.parse().ok());
        Ok(Some(Vended {
            keys: Given { value: AwsCredential { key_id, secret_key, token: text(TOKEN) }, life: ends.map(life) },
            endpoint: anywhere(ENDPOINT).map(str::to_owned),
            region: region.map(str::to_owned),
        }))
    }
}

/// An address of S3 in the one of its schemes that all tools know.
fn one_scheme(address: &str) -> String {
    let rest = ["s3a://", "s3n://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    rest.map_or_else(|| address.to_owned(), |rest| format!("s3://{rest}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn vended(answer: Value) -> Result<Option<Vended>> {
        serde_json::from_value::<Loaded>(answer).unwrap().vended()
    }

    fn keys(id: &str) -> Value {
        json!({
            "s3.access-key-id": id,
            "s3.secret-access-key": "s",
            "s3.session-token": "t",
            "s3.session-token-expires-at-ms": "1"
        })
    }

    #[test]
    fn the_longest_beginning_has_the_keys() {
        let credential = |prefix: &str, id: &str| json!({ "prefix": prefix, "config": keys(id) });
        let credentials = json!([
            credential("s3://b/t", "near"),
            credential("s3://b", "far"),
            credential("s3://b/t/other", "other"),
            { "prefix": "gs://b/t/m.json", "config": { "gcs.oauth2.token": "g" } }
        ]);
        let config = json!({ "s3.access-key-id": "all", "s3.endpoint": "https://h", "client.region": "r", "other": null });
        let answer = json!({
            "metadata-location": "s3a://b/t/m.json",
            "metadata": { "any": [1] },
            "config": config,
            "storage-credentials": credentials
        });
        let found = vended(answer).unwrap().unwrap();
        assert_eq!((found.keys.value.key_id.as_str(), found.keys.value.token.as_deref()), ("near", Some("t")));
        assert_eq!(found.keys.life, Some(Duration::ZERO));
        assert_eq!((found.endpoint.as_deref(), found.region.as_deref()), (Some("https://h"), Some("r")));
    }

    #[test]
    fn keys_for_all_of_a_table_stand_beside_it() {
        let answer = |config: Value| json!({ "metadata-location": "s3://b/t/m.json", "config": config });
        assert_eq!(vended(answer(keys("all"))).unwrap().unwrap().keys.value.key_id, "all");
        assert!(vended(answer(json!({ "s3.endpoint": "https://h" }))).unwrap().is_none());
        assert!(vended(answer(Value::Null)).unwrap().is_none());
        assert!(vended(answer(json!({ "s3.access-key-id": "all" }))).is_err());
    }

    #[test]
    fn nothing_but_keys_and_places_is_kept() {
        let answer = r#"{"metadata-location":"s3://b/m.json","metadata":[{}],"config":{"header":[{"":0}],"s3.access-key-id":"a",
            "s3.endpoint":{"any":1},"s3.secret-access-key":"s","s3.session-token-expires-at-ms":1,"s3.region":"r"}}"#;
        let loaded: Loaded = serde_json::from_str(answer).unwrap();
        let kept: Vec<&str> = loaded.config.iter().flat_map(|config| config.0.keys().copied()).collect();
        assert_eq!(kept, [KEY_ID, REGION, SECRET, ENDS]);
        assert_eq!(loaded.vended().unwrap().unwrap().keys.life, Some(Duration::ZERO));
    }

    #[test]
    fn a_table_without_a_file_is_refused() {
        let loaded: Loaded = serde_json::from_value(json!({ "metadata-location": null, "metadata": {} })).unwrap();
        insta::assert_snapshot!(loaded.location().unwrap_err(), @"the catalog server names no file of metadata for this table; tables that exist in the answers of a server alone are not read");
    }
}
