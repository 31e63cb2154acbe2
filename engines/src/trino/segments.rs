//! Segments: rows that lie in a store until they are fetched, or stand in a page as one text ("Client protocol" in Trino's
//! documentation, the spooling protocol).
//!
//! Each is fetched and unpacked in a task of its own, so that several are under way while rows are read. What was fetched is
//! acknowledged, by which Trino knows that the store may forget it; what is not, it forgets after a time.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::FutureExt;
use futures::future::BoxFuture;
use nexus_flight_catalog::{Error, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::client::{Client, Rows};
use super::config::Config;
use super::page::{Few, elsewhere, own, unlike};

/// The most bytes of a segment as it is sent.
pub(super) const LARGEST: usize = 128 << 20;
/// The most bytes of the rows of a segment.
const LARGEST_UNPACKED: usize = 64 << 20;
/// The most bytes of the headers of a segment, and the most headers.
const LARGEST_HEADERS: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// How many bytes are unpacked at first; later, as many as there are.
const STEP: usize = 256 << 10;
/// The furthest that compressed data may refer back, as a power of two. Trino's own compressor stays within 8 MiB.
const WINDOW: u32 = 23;

/// A part of the rows.
pub(super) enum Segment {
    /// Rows in base64, a part of the page.
    Inline {
        text: Bytes,
        is_packed: bool,
    },
    Spooled(Box<Spooled>),
}

/// Rows in a store. Who has its address can read them, so it is not shown.
pub(super) struct Spooled {
    pub(super) uri: Url,
    /// Where it is told that they were fetched: at the configured server.
    ack: Option<Url>,
    /// What has to be sent along with both.
    pub(super) headers: HeaderMap,
    is_packed: bool,
}

#[derive(Deserialize)]
struct Encoded<'a> {
    encoding: &'a str,
    #[serde(borrow)]
    segments: Few<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    r#type: &'a str,
    data: Option<&'a str>,
    uri: Option<String>,
    ack_uri: Option<String>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// It is there if the segment is compressed: a small one is not.
    uncompressed_size: Option<IgnoredAny>,
}

/// Reads what a page says of segments; `json` is a part of `body`, the page. Errors: `Data` for what is not as the protocol has
/// it, or in an encoding that was not asked for, or leads to where nothing is sent.
pub(super) fn parse(json: &str, body: &Bytes, config: &Config) -> Result<Vec<Segment>> {
    let Encoded { encoding, segments: Few(parts) } = serde_json::from_str(json).map_err(|cause| unlike(&cause))?;
    if !matches!(encoding, "json" | "json+zstd") {
        return Err(Error::data("trino sends rows in an encoding that was not asked for"));
    }
    let segment = |part: Part<'_>| {
        let is_packed = part.metadata.is_some_and(|metadata| metadata.uncompressed_size.is_some());
        match (part.r#type, part.data, part.uri) {
            ("inline", Some(text), _) => Ok(Segment::Inline { text: body.slice_ref(text.as_bytes()), is_packed }),
            ("spooled", _, Some(uri)) => {
                let uri = elsewhere(&uri, config)?;
                let ack = part.ack_uri.map(|ack| own(&ack, &config.url)).transpose()?;
                let headers = part.headers.map(passed_on).transpose()?.unwrap_or_default();
                Ok(Segment::Spooled(Box::new(Spooled { uri, ack, headers, is_packed })))
            }
            _ => Err(Error::data("trino sends a segment that is neither inline nor spooled")),
        }
    };
    parts.into_iter().map(segment).collect()
}

/// The headers that are sent along with a segment. Those that begin with `x-` and no others: all that stores want are so, and
/// none of those that say who asks, what is accepted, or how a connection is used.
fn passed_on(json: &RawValue) -> Result<HeaderMap> {
    let wrong = || Error::data("trino gives headers of a segment that cannot be sent");
    if json.get().len() > LARGEST_HEADERS {
        return Err(wrong());
    }
    let given: BTreeMap<String, Vec<String>> = serde_json::from_str(json.get()).map_err(|cause| unlike(&cause))?;
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        if !name.as_str().starts_with("x-") || name == "x-trino-user" {
            continue;
        }
        for value in values {
            if headers.len() >= MOST_HEADERS {
                return Err(wrong());
            }
            let mut value = HeaderValue::from_str(&value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.try_append(name.clone(), value).map_err(|_| wrong())?;
        }
    }
    Ok(headers)
}

/// Begins to fetch and unpack a segment, and gives its rows when they are there. Dropped, it is left. `page` is what the page takes
/// that it is of, and names the pool that what it holds is taken of.
pub(super) fn begin(client: &Client, segment: Segment, page: &Arc<MemoryReservation>) -> BoxFuture<'static, Result<Rows>> {
    let room = page.new_empty();
    let task = match segment {
        Segment::Inline { text, is_packed } => {
            let page = Arc::clone(page);
            tokio::task::spawn_blocking(move || {
                let (bytes, room) = decoded(&text, room)?;
                // The text is a part of the page, which is there for as long as it is.
                drop((text, page));
                unpacked(bytes, room, is_packed)
            })
        }
        Segment::Spooled(spooled) => tokio::spawn(fetched(client.clone(), *spooled, room)),
    };
    let task = AbortOnDropHandle::new(task);
    async move { task.await.map_err(|cause| Error::broken_off().caused_by(cause))? }.boxed()
}

async fn fetched(client: Client, spooled: Spooled, room: MemoryReservation) -> Result<Rows> {
    let (bytes, room) = client.segment(&spooled, &room).await?;
    let Spooled { ack, headers, is_packed, .. } = spooled;
    let unpacking = tokio::task::spawn_blocking(move || unpacked(bytes, room, is_packed));
    let rows = unpacking.await.map_err(|cause| Error::broken_off().caused_by(cause))??;
    if let Some(ack) = ack {
        client.acknowledge(ack, headers);
    }
    Ok(rows)
}

/// The bytes that a text in base64 is, with what they take.
fn decoded(text: &[u8], room: MemoryReservation) -> Result<(Bytes, MemoryReservation)> {
    let most = base64::decoded_len_estimate(text.len());
    room.try_grow(most)?;
    let mut bytes = Vec::with_capacity(most);
    let decoded = STANDARD.decode_vec(text, &mut bytes);
    decoded.map_err(|_| Error::data("trino sends a segment that is no base64"))?;
    Ok((Bytes::from(bytes), room))
}

/// The rows that bytes are. What was packed is given up with its room when all of it is unpacked. It may take long.
fn unpacked(bytes: Bytes, room: MemoryReservation, is_packed: bool) -> Result<Rows> {
    if is_packed {
        let (json, room) = unzstd(&bytes, LARGEST_UNPACKED, room.new_empty())?;
        return Ok(Rows { json, room });
    }
    match bytes.len() <= LARGEST_UNPACKED {
        true => Ok(Rows { json: bytes, room }),
        false => Err(too_large(LARGEST_UNPACKED)),
    }
}

fn too_large(most: usize) -> Error {
    Error::data(format!("trino sends a segment of more than {} MiB", most >> 20))
        .with_hint("have trino make smaller ones, by protocol.spooling.max-segment-size")
}

/// What compressed bytes become, and what that takes of `room`, which is asked before each step. Errors: `Data` for what is no
/// zstd, or becomes more than `most` bytes; `Exhausted` where there is no room.
fn unzstd(bytes: &[u8], most: usize, room: MemoryReservation) -> Result<(Bytes, MemoryReservation)> {
    let wrong = |cause: io::Error| Error::data("trino sends a segment that is no zstd").caused_by(cause);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(wrong)?;
    decoder.window_log_max(WINDOW).map_err(wrong)?;
    let mut all = Vec::new();
    loop {
        // One more than there may be, to see whether there is.
        let step = all.len().max(STEP).min(most + 1 - all.len());
        room.try_grow(step)?;
        all.reserve_exact(step);
        let read = decoder.by_ref().take(step as u64).read_to_end(&mut all).map_err(wrong)?;
        if all.len() > most {
            return Err(too_large(most));
        }
        if read < step {
            return Ok((Bytes::from(all), room));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
    use nexus_flight_catalog::Kind;

    use super::*;
    use crate::trino::client::tests::{config, room};

    fn parsed(json: &str) -> Result<Vec<Segment>> {
        let body = Bytes::copy_from_slice(json.as_bytes());
        parse(std::str::from_utf8(&body).unwrap(), &body, &config("https://trino:8443"))
    }

    #[test]
    fn segments_as_trino_writes_them() {
        let segments = parsed(
            r#"{"encoding":"json+zstd","metadata":{},"segments":[
                {"type":"inline","data":"W1sxXV0=","metadata":{"rowOffset":0,"rowsCount":1,"segmentSize":5}},
                {"type":"spooled","uri":"https://bucket.example/k?X-Amz-Signature=s","ackUri":"https://trino:8443/v1/spooled/ack/i",
                 "headers":{"x-amz-server-side-encryption-customer-key":["k"],"Host":["evil"],"Authorization":["a"],"X-Trino-User":["root"]},
                 "metadata":{"rowOffset":1,"rowsCount":9,"segmentSize":7,"uncompressedSize":70}}]}"#,
        )
        .unwrap();
        let [Segment::Inline { text, is_packed: false }, Segment::Spooled(spooled)] = segments.as_slice() else {
            panic!("others")
        };
        assert_eq!(decoded(text, room()).unwrap().0, "[[1]]");
        assert!(spooled.is_packed);
        assert_eq!(spooled.ack.as_ref().unwrap().path(), "/v1/spooled/ack/i");
        let names: Vec<&str> = spooled.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-amz-server-side-encryption-customer-key"]);
        assert!(!format!("{:?}", spooled.headers).contains("\"k\""));
    }

    #[test]
    fn segments_that_are_refused() {
        let one = |part: &str| parsed(&format!(r#"{{"encoding":"json","segments":[{part}]}}"#)).err().map(|error| error.kind());
        assert_eq!(one(r#"{"type":"inline","data":"","metadata":null}"#), None);
        for part in [
            r#"{"type":"inline"}"#,
            r#"{"type":"other","data":""}"#,
            r#"{"type":"spooled","uri":"http://bucket.example/k"}"#,
            r#"{"type":"spooled","uri":"https://b.example/k","ackUri":"https://b.example/ack"}"#,
            r#"{"type":"spooled","uri":"https://b.example/k","headers":{"x-a":["a\nb"]}}"#,
            r#"{"type":"spooled","uri":"https://b.example/k","headers":{"x a":["a"]}}"#,
        ] {
            assert_eq!(one(part), Some(Kind::Data), "{part}");
        }
        let many = format!(
            r#"{{"type":"spooled","uri":"https://b.example/k","headers":{{"x-a":["{}"]}}}}"#,
            "a".repeat(LARGEST_HEADERS)
        );
        assert_eq!(one(&many), Some(Kind::Data));
        let values = |count: usize| {
            let values = vec![r#""a""#; count].join(",");
            one(&format!(r#"{{"type":"spooled","uri":"https://b.example/k","headers":{{"x-a":[{values}]}}}}"#))
        };
        assert_eq!((values(MOST_HEADERS), values(MOST_HEADERS + 1)), (None, Some(Kind::Data)));
        assert_eq!(parsed(r#"{"encoding":"json+lz4","segments":[]}"#).err().unwrap().kind(), Kind::Data);
    }

    #[test]
    fn what_is_unpacked_is_whole_and_paid_for() {
        let rows = "[1,2,3],".repeat(200_000);
        let packed = zstd::encode_all(rows.as_bytes(), 3).unwrap();
        let (json, taken) = unzstd(&packed, rows.len(), room()).unwrap();
        assert_eq!(json, rows.as_bytes());
        assert!(taken.size() >= json.len());
        assert_eq!(unzstd(&packed[..packed.len() - 9], rows.len(), room()).unwrap_err().kind(), Kind::Data);
        assert_eq!(unzstd(b"[[1]]", rows.len(), room()).unwrap_err().kind(), Kind::Data);
        assert_eq!(unzstd(b"", 1, room()).unwrap_err().kind(), Kind::Data);
    }

    #[tokio::test]
    async fn an_inline_segment_is_read_with_its_page_paid_for() {
        let client = Client::new(Arc::new(config("https://trino:8443"))).unwrap();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let begun = |text: &'static str, is_packed| {
            let page = MemoryConsumer::new("rows").register(&pool);
            page.try_grow(text.len()).unwrap();
            begin(&client, Segment::Inline { text: Bytes::from_static(text.as_bytes()), is_packed }, &Arc::new(page))
        };
        let rows = begun("W1sxXV0=", false).await.unwrap();
        assert_eq!(rows.json, "[[1]]");
        assert!(rows.room.size() >= rows.json.len());
        assert_eq!(pool.reserved(), rows.room.size());
        drop(rows);
        assert_eq!(begun("%", false).await.unwrap_err().kind(), Kind::Data);
        assert_eq!(begun("W1sxXV0=", true).await.unwrap_err().kind(), Kind::Data);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn what_refers_back_too_far_is_refused() {
        let packed = |window| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(window).unwrap();
            encoder.write_all(b"[[1]]").unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(unzstd(&packed(WINDOW), 5, room()).unwrap().0, "[[1]]");
        assert_eq!(unzstd(&packed(WINDOW + 1), 5, room()).unwrap_err().kind(), Kind::Data);
    }

    #[test]
    fn what_becomes_too_much_is_left() {
        let plain = Bytes::from(vec![b' '; LARGEST_UNPACKED + 1]);
        assert!(unpacked(plain.slice(1..), room(), false).is_ok());
        assert_eq!(unpacked(plain, room(), false).unwrap_err().message(), "trino sends a segment of more than 64 MiB");
        let packed = zstd::encode_all(vec![b' '; 8 << 20].as_slice(), 3).unwrap();
        let error = unzstd(&packed, 4 << 20, room()).unwrap_err();
        assert_eq!(error.message(), "trino sends a segment of more than 4 MiB");
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let little = MemoryConsumer::new("rows").register(&pool);
        assert_eq!(unzstd(&packed, 64 << 20, little).unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(pool.reserved(), 0);
        let little = MemoryConsumer::new("rows").register(&pool);
        assert_eq!(decoded(&vec![b'A'; 2 << 20], little).unwrap_err().kind(), Kind::Exhausted);
        assert_eq!(decoded(b"%", room()).unwrap_err().kind(), Kind::Data);
    }
}
