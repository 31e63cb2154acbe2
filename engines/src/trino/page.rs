//! What a page of an answer says (`QueryResults`; "Trino client REST API" and "Client protocol" in Trino's documentation).

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use datafusion::execution::memory_pool::MemoryReservation;
use nexus_flight_catalog::{Error, Result};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use url::Url;

use super::client::Named;
use super::config::Config;
use super::error::Failure;
use super::segments::{self, Segment};
use crate::told::is_here;

/// The most columns of an answer, and the most segments of a page.
const MOST: usize = 10_000;
/// The letters of the longest id of a statement.
const LONGEST_ID: usize = 128;
/// The letters of the longest state of a statement.
const LONGEST_STATE: usize = 32;
/// The most bytes of a page without rows.
const LARGEST_WITHOUT_ROWS: usize = 16 << 20;

/// A page.
pub(super) struct Page {
    /// Trino's id of the statement: letters, digits, `_` and `-`.
    pub(super) id: String,
    /// Where the next page is; none on the last one. It is at the configured server.
    pub(super) next: Option<Url>,
    /// The columns, as soon as they are known.
    pub(super) columns: Option<Vec<Named>>,
    pub(super) data: Data,
    /// Why the statement failed, if it has.
    pub(super) failure: Option<Failure>,
    /// What its bytes take.
    pub(super) room: MemoryReservation,
}

/// The rows of a page.
pub(super) enum Data {
    None,
    /// The text of a list of rows, a part of the page.
    Rows(Bytes),
    /// Where they are.
    Segments(Vec<Segment>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    id: String,
    next_uri: Option<String>,
    columns: Option<Few<Named>>,
    // Not parsed here, but by who knows the types of the columns.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    stats: Option<Stats>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Stats {
    state: Option<String>,
}

impl Page {
    /// Reads a page; `room` is what its bytes take. Errors: `Data` where it is not as the protocol has it, leads to another server,
    /// or is the last one of a statement that has not ended.
    pub(super) fn parse(body: &Bytes, room: MemoryReservation, config: &Config) -> Result<Self> {
        let Said { id, next_uri, columns, data, stats, error } = serde_json::from_slice(body).map_err(|cause| unlike(&cause))?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=LONGEST_ID).contains(&id.len()) || !id.bytes().all(is_letter) {
            return Err(Error::data("trino gives a statement an id that is none").with_hint("check url"));
        }
        let next = next_uri.map(|next| own(&next, &config.url)).transpose()?;
        let data = match data.map(RawValue::get) {
            None | Some("[]") => Data::None,
            Some(rows) if rows.starts_with('[') => Data::Rows(body.slice_ref(rows.as_bytes())),
            Some(spooled) => Data::Segments(segments::parse(spooled, body, config)?),
        };
        if data.is_none() && body.len() > LARGEST_WITHOUT_ROWS {
            let most = LARGEST_WITHOUT_ROWS >> 20;
            return Err(Error::data(format!("trino gives a page without rows of more than {most} MiB")).with_hint("check url"));
        }
        // Rows that were cut off somewhere must not be taken for all.
        let state = stats.and_then(|stats| stats.state).unwrap_or_default();
        if next.is_none() && error.is_none() && state != "FINISHED" {
            let state = if is_state(&state) { state.as_str() } else { "not over" };
            let message = format!("trino ends a statement that it says is {state}");
            return Err(
                Error::data(message).with_hint("send the statement again; see whether a proxy changes what trino answers")
            );
        }
        Ok(Self { id, next, columns: columns.map(|Few(columns)| columns), data, failure: error, room })
    }
}

fn is_state(state: &str) -> bool {
    (1..=LONGEST_STATE).contains(&state.len()) && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

impl Data {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Data::None)
    }
}

/// What is said of JSON that is not as it should be. The parser's own words may repeat what it read.
pub(super) fn unlike(cause: &serde_json::Error) -> Error {
    let (line, column) = (cause.line(), cause.column());
    Error::data(format!("the answer of trino is not as its protocol has it, at {line}:{column}")).with_hint("check url")
}

/// An address that Trino gives of itself. Errors: `Data` for one of another server, which must not be told our login.
pub(super) fn own(text: &str, trino: &Url) -> Result<Url> {
    match Url::parse(text) {
        Ok(url) if url.origin() == trino.origin() && names_nobody(&url) => Ok(url),
        _ => Err(Error::data("trino gives an address of itself that is not at the configured url").with_hint(
            "set url as trino sees it; where a proxy stands before it, set http-server.process-forwarded = true there",
        )),
    }
}

/// An address of a segment, which may be at a store elsewhere. Errors: `Data` for one that everybody on the way could read. What is
/// at this machine is asked only for a Trino at this machine: one elsewhere has no store here, and must not have us knock at what
/// else there is.
pub(super) fn elsewhere(text: &str, config: &Config) -> Result<Url> {
    let Some(url) = Url::parse(text).ok().filter(|url| url.has_host() && names_nobody(url)) else {
        return Err(Error::data("trino gives an address of a segment that is none"));
    };
    let is_private = match url.scheme() {
        "https" => true,
        "http" => config.allow_http || url.origin() == config.url.origin() || (is_here(&url) && is_here(&config.url)),
        _ => false,
    };
    match is_private {
        true => Ok(url),
        false => Err(Error::data("trino gives an address of a segment that is not https")
            .with_hint("have the store speak https, set allow_http = true if that is meant, or spooling = false")),
    }
}

/// What stands in an address for a login would be sent as one.
fn names_nobody(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// A list of no more than [`MOST`]: what a few letters become may take much more than they do.
pub(super) struct Few<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Counted(PhantomData))
    }
}

struct Counted<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Counted<T> {
    type Value = Few<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of no more than {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Few<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(part) = parts.next_element()? {
            if all.len() >= MOST {
                return Err(de::Error::invalid_length(MOST + 1, &self));
            }
            all.push(part);
        }
        Ok(Few(all))
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;
    use crate::trino::client::tests::{config, room};

    const URL: &str = "https://trino:8443";

    fn parsed(json: &str) -> Result<Page> {
        Page::parse(&Bytes::copy_from_slice(json.as_bytes()), room(), &config(URL))
    }

    #[test]
    fn a_page_with_rows() {
        let page = parsed(
            r#"{"id":"20250101_000000_00000_abcde","infoUri":"http://x/","nextUri":"https://trino:8443/v1/statement/executing/a/b/2",
                "columns":[{"name":"a b","type":"decimal(12,2)","typeSignature":{"rawType":"decimal","arguments":[{"kind":"LONG","value":12}]}}],
                "data": [[1,"]"], [null,"é"]],"stats":{"state":"RUNNING"},"warnings":[]}"#,
        )
        .unwrap();
        assert_eq!(page.id, "20250101_000000_00000_abcde");
        assert_eq!(page.next.unwrap().path(), "/v1/statement/executing/a/b/2");
        let columns = page.columns.unwrap();
        assert_eq!((columns[0].name.as_str(), columns[0].type_name.as_str()), ("a b", "decimal(12,2)"));
        let Data::Rows(json) = page.data else { panic!("no rows") };
        assert_eq!(json, r#"[[1,"]"], [null,"é"]]"#.as_bytes());
        assert!(page.failure.is_none());
    }

    #[test]
    fn a_page_without_rows() {
        for more in ["", r#","data":null"#, r#","data":[]"#] {
            let page = parsed(&format!(r#"{{"id":"a","stats":{{"state":"FINISHED"}}{more}}}"#)).unwrap();
            assert!(page.data.is_none() && page.next.is_none() && page.columns.is_none(), "{more}");
        }
        let page = parsed(r#"{"id":"a","error":{"message":"no","errorName":"SYNTAX_ERROR"}}"#).unwrap();
        assert!(page.failure.is_some());
    }

    #[test]
    fn the_last_page_is_of_a_statement_that_has_ended() {
        let said =
            |stats: &str| parsed(&format!(r#"{{"id":"a","data":[[1]]{stats}}}"#)).err().map(|error| error.message().to_owned());
        assert_eq!(said(r#","stats":{"state":"FINISHED"}"#), None);
        assert_eq!(said(r#","nextUri":"https://trino:8443/","stats":{"state":"RUNNING"}"#), None);
        let running = said(r#","stats":{"state":"RUNNING"}"#);
        assert_eq!(running.as_deref(), Some("trino ends a statement that it says is RUNNING"));
        for other in ["", r#","stats":{}"#, r#","stats":{"state":"<b>"}"#] {
            assert_eq!(said(other).as_deref(), Some("trino ends a statement that it says is not over"), "{other}");
        }
    }

    #[test]
    fn a_page_without_rows_is_small() {
        let sized = |data: &str| {
            let much = " ".repeat(LARGEST_WITHOUT_ROWS);
            parsed(&format!(r#"{{"id":"a","stats":{{"state":"FINISHED"}},"data":{data}{much}}}"#)).err().map(|error| error.kind())
        };
        assert_eq!(sized("[[1]]"), None);
        assert_eq!(sized("[]"), Some(Kind::Data));
    }

    #[test]
    fn what_is_no_page_is_not_repeated() {
        for json in [
            "",
            "<html>hunter2",
            r#"{"id":"hunter2 <b>"}"#,
            r#"{"id":7}"#,
            r#"{"id":"a","data":"hunter2"}"#,
            r#"{"id":"a","data":1}"#,
        ] {
            let error = parsed(json).err().unwrap();
            assert_eq!(error.kind(), Kind::Data, "{json}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn lists_have_an_end() {
        let columns = |count: usize| {
            let columns = vec![r#"{"name":"a","type":"bigint"}"#; count].join(",");
            parsed(&format!(r#"{{"id":"a","columns":[{columns}],"stats":{{"state":"FINISHED"}}}}"#))
        };
        assert_eq!(columns(MOST).unwrap().columns.unwrap().len(), MOST);
        assert_eq!(columns(MOST + 1).err().unwrap().kind(), Kind::Data);
    }

    #[test]
    fn a_next_page_is_at_the_same_server() {
        let trino = Url::parse(URL).unwrap();
        assert!(own("https://trino:8443/v1/x?y", &trino).is_ok());
        for other in [
            "http://trino:8443/v1/x",
            "https://trino/v1/x",
            "https://evil:8443/",
            "https://me:pw@trino:8443/",
            "/v1/x",
            "data:,x",
        ] {
            assert_eq!(own(other, &trino).unwrap_err().kind(), Kind::Data, "{other}");
        }
    }

    #[test]
    fn a_segment_is_where_nobody_listens() {
        let mut config = config("http://trino:8080");
        for safe in ["https://bucket.example/k?sig=1", "http://trino:8080/v1/spooled/x"] {
            assert!(elsewhere(safe, &config).is_ok(), "{safe}");
        }
        let here = ["http://localhost:9000/k", "http://127.0.0.2/k", "http://[::1]/k"];
        for address in here {
            assert!(elsewhere(address, &config).is_err(), "{address}");
        }
        for open in [
            "http://bucket.example/k",
            "http://localhost.evil/k",
            "http://trino:8081/k",
            "file:///etc/passwd",
            "https://me:pw@bucket.example/k",
        ] {
            assert!(elsewhere(open, &config).is_err(), "{open}");
        }
        config.url = Url::parse("http://127.0.0.1:8080").unwrap();
        for address in here {
            assert!(elsewhere(address, &config).is_ok(), "{address}");
        }
        assert!(elsewhere("http://bucket.example/k", &config).is_err());
        config.allow_http = true;
        assert!(elsewhere("http://bucket.example/k", &config).is_ok());
        assert!(elsewhere("ftp://bucket.example/k", &config).is_err());
    }
}
