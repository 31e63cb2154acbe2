//! The catalog of AWS Glue, asked by JSON over HTTP with the keys of the bucket.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Kind, Place, Result, TableEntry, information_schema};
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::{ClientOptions, HeaderValue};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::{Catalog, Current, Found, Outcome, successor};
use crate::iceberg::append::{Change, put};
use crate::lake::{Lake, Name};
use crate::stores::{Direct, Location, credentials};

/// How long it may take until there is a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of one answer.
const LARGEST: usize = 64 * 1024 * 1024;
/// The most pages of one listing.
const MOST_PAGES: usize = 1_000;
/// The most bytes of the names and descriptions of one listing.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
/// The most entries of a page, of which there may be no more.
const PAGE: u32 = 100;
/// How much is shown of what Glue says.
const LONGEST_SAID: usize = 500;
/// What of a table can be written (`TableInput`), and stays as it is but for parameters. The rest Glue says of itself.
const WRITTEN: &[&str] = &[
    "Name",
    "Description",
    "Owner",
    "LastAccessTime",
    "LastAnalyzedTime",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "ViewOriginalText",
    "ViewExpandedText",
    "TableType",
    "Parameters",
    "TargetTable",
];

/// The Iceberg tables that Glue knows in one account and region.
pub(in crate::iceberg) struct Glue {
    lake: Arc<Lake>,
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    address: Url,
}

impl fmt::Debug for Glue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What gives the keys may print them.
        write!(f, "Glue({})", self.address)
    }
}

impl Glue {
    /// Of the region and by the keys of a bucket, at the address of AWS if `uri` is not given; nothing is asked. The files of tables
    /// are read by `lake`. Errors: `Invalid` at the keys `location`, `region` and `uri`.
    pub(in crate::iceberg) fn open(catalog: &str, uri: Option<&str>, location: &Location, lake: Arc<Lake>) -> Result<Self> {
        let place = |key: &str| Place::Key(format!("catalogs.{catalog}.{key}"));
        let Location::Bucket { bucket, access, .. } = location else {
            return Err(Error::invalid("the tables of Glue are in a bucket")
                .with_hint("write the location as s3://bucket/prefix")
                .at(place("location")));
        };
        let (credentials, region) = credentials(bucket, access).map_err(|cause| {
            Error::invalid(format!("the keys of the bucket \"{bucket}\" cannot be set up: {cause}")).at(place("location"))
        })?;
        let region = region.filter(|region| region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        let region = region.filter(|region| !region.is_empty()).ok_or_else(|| {
            Error::invalid("Glue has to be asked in a region").with_hint("add region = \"…\"").at(place("region"))
        })?;
        let address = uri.map_or_else(|| address(&region), str::to_owned);
        let wrong = |why: &str, hint: &str| Err(Error::invalid(why).with_hint(hint).at(place("uri")));
        let address = match Url::parse(&address) {
            Ok(address) if address.has_host() && address.query().is_none() && address.fragment().is_none() => address,
            _ => return wrong("this is no address of Glue", "leave it out for that of AWS, or write https://host"),
        };
        if !address.username().is_empty() || address.password().is_some() {
            return wrong("keys are not given in the address", "move them to access_key_id and secret_access_key");
        }
        match address.scheme() {
            "https" => {}
            "http" if access.allow_http => {}
            "http" => return wrong("the address is http and not https", "set allow_http = true if that is meant"),
            _ => return wrong("the address does not start with https://", "leave it out for that of AWS"),
        }
        let allow_http = access.allow_http;
        let direct = Direct { allow_http, connected_within: CONNECTED_WITHIN, answered_within: ANSWERED_WITHIN };
        let client = direct.connect(&ClientOptions::new());
        let client = client.map_err(|cause| Error::internal("no HTTP client could be made").caused_by(cause))?;
        Ok(Self { lake, client, credentials, region, address })
    }

    fn place(&self) -> Place {
        Place::File { path: self.address.to_string(), line: None }
    }

    /// What Glue answers; none where it does not have what is asked for. Errors: `Unauthenticated`, `Denied`, `Unavailable`; `Data`
    /// for what is no answer.
    async fn ask<T: DeserializeOwned>(&self, action: &'static str, asked: &(impl Serialize + Sync)) -> Result<Option<T>> {
        self.answer(action, asked).await.map_err(|error| error.at(self.place()))
    }

    async fn answer<T: DeserializeOwned>(&self, action: &'static str, asked: &(impl Serialize + Sync)) -> Result<Option<T>> {
        let credential = self.credentials.get_credential().await.map_err(|cause| {
            let error = Error::unauthenticated("no access key could be had").caused_by(cause);
            error.with_hint("give access_key_id and secret_access_key, or see what the environment and the machine give")
        })?;
        let request = request(&self.address, &self.region, &credential, action, asked)?;
        let unreachable = |cause: object_store::client::HttpError| {
            Error::unavailable(format!("Glue cannot be reached: {cause}")).with_hint("check region and uri").caused_by(cause)
        };
        let response = self.client.execute(request).await.map_err(unreachable)?;
        let status = response.status();
        let mut chunks = response.into_body().bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(unreachable)?;
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Error::data("Glue answers with more than 64 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return failure(status.as_u16(), &bytes, &credential).map_or(Ok(None), Err);
        }
        // The parser's own words may repeat what it read.
        serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
            let (line, column) = (cause.line(), cause.column());
            Error::data(format!("the answer is not one of Glue, at {line}:{column}")).with_hint("check uri")
        })
    }

    /// The databases, or the Iceberg tables of one. Errors: `NotFound` for one that is not there.
    async fn entries(&self, schema: Option<&str>) -> Result<Vec<Listed>> {
        let action = if schema.is_some() { "AWSGlue.GetTables" } else { "AWSGlue.GetDatabases" };
        let (mut entries, mut next, mut bytes) = (Vec::new(), None::<String>, 0_usize);
        for _ in 0..MOST_PAGES {
            let asked = Asked { database_name: schema, name: None, max_results: Some(PAGE), next_token: next.as_deref() };
            let Some(page) = self.ask::<Page>(action, &asked).await? else {
                return Err(Error::not_found(format!("schema \"{}\" does not exist", schema.unwrap_or_default())));
            };
            let wanted = page.entries.into_iter().filter(|entry| schema.is_none_or(|schema| entry.is_listed(schema)));
            entries.extend(wanted.map(|Entry { name, description, .. }| {
                bytes = bytes.saturating_add(name.len() + description.as_ref().map_or(0, String::len));
                Listed { name, description }
            }));
            if bytes > LARGEST_LIST {
                break;
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(entries);
            }
        }
        Err(Error::exhausted(format!("Glue lists more than {MOST_PAGES} pages or {} MiB of names", LARGEST_LIST >> 20))
            .with_hint("name the table in the statement, without listing")
            .with_retryable(false)
            .at(self.place()))
    }
}

#[async_trait]
impl Catalog for Glue {
    async fn ping(&self) -> Result<()> {
        let asked = Asked { max_results: Some(1), ..Asked::default() };
        self.ask::<Page>("AWSGlue.GetDatabases", &asked).await.map(|_| ())
    }

    async fn schemas(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.entries(None).await?.into_iter().map(|entry| entry.name).collect();
        names.retain(|name| name != information_schema::NAME);
        names.sort();
        Ok(names)
    }

    async fn tables(&self, schema: &str) -> Result<Vec<TableEntry>> {
        let mut entries = self.entries(Some(schema)).await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let listed = entries.into_iter();
        Ok(listed.map(|entry| TableEntry { comment: entry.description, ..TableEntry::table(entry.name) }).collect())
    }

    async fn find(&self, schema: &str, table: &str) -> Result<Option<Found>> {
        if schema.is_empty() || table.is_empty() {
            return Ok(None);
        }
        let asked = Asked { database_name: Some(schema), name: Some(table), ..Asked::default() };
        let found = self.ask::<Answer>("AWSGlue.GetTable", &asked).await?.map(|answer| answer.table);
        // It heeds no case; access rules are about names as they are listed.
        let Some(found) = found.filter(|found| found.is_in(schema) && found.name == table) else { return Ok(None) };
        let state = found.metadata().map_err(|error| error.at(self.place()))?;
        let path = self.lake.inside(&state)?;
        Ok(Some(Found { lake: Arc::clone(&self.lake), current: Current { path, state } }))
    }

    async fn commit(&self, schema: &str, table: &str, found: &Found, change: &Change) -> Result<Outcome> {
        let before = found.current.state.as_str();
        let after = successor(change.folder(), before);
        let mut made = put(&found.lake, &after, Bytes::from(change.metadata(before)?)).await?;
        let asked = Asked { database_name: Some(schema), name: Some(table), ..Asked::default() };
        let Some(whole) = self.ask::<Whole>("AWSGlue.GetTable", &asked).await? else { return Ok(Outcome::Conflict) };
        let update = whole.update(schema, before, &after).map_err(|error| error.at(self.place()))?;
        let Some(update) = update else { return Ok(Outcome::Conflict) };
        match self.ask::<IgnoredAny>("AWSGlue.UpdateTable", &update).await {
            Ok(Some(_)) => {
                made.keep();
                Ok(Outcome::Done)
            }
            Ok(None) => Ok(Outcome::Conflict),
            Err(error) if error.kind() == Kind::Precondition => Ok(Outcome::Conflict),
            // The call may have broken off before the answer came.
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Data) => {
                made.keep();
                Ok(Outcome::Unknown(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Where AWS has Glue in a region.
fn address(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://glue.{region}.{domain}/")
}

/// What is asked for.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    database_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_results: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<&'a str>,
}

/// A part of a listing.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(alias = "DatabaseList", alias = "TableList")]
    entries: Vec<Entry>,
    #[serde(rename = "NextToken")]
    next_token: Option<String>,
}

/// What is told of a database or a table in a list.
#[derive(Debug)]
struct Listed {
    name: String,
    description: Option<String>,
}

/// A table by its name.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "Table")]
    table: Entry,
}

/// A table with all that Glue says of it.
#[derive(Debug, Deserialize)]
struct Whole {
    #[serde(rename = "Table")]
    table: Map<String, Value>,
}

/// What makes of a table another, if Glue still has the version that was read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Update<'a> {
    database_name: &'a str,
    table_input: Map<String, Value>,
    version_id: String,
    /// Glue keeps no copy of the version before, of which it takes only so many: the file of metadata names those before it.
    skip_archive: bool,
}

impl Whole {
    /// Another file of metadata in place of this; none where it is not the one any more. Errors: `Unsupported` where nothing tells
    /// one version from another.
    fn update<'a>(self, schema: &'a str, before: &str, after: &str) -> Result<Option<Update<'a>>> {
        let Self { mut table } = self;
        let version = table.get("VersionId").and_then(Value::as_str).map(str::to_owned);
        table.retain(|key, value| WRITTEN.contains(&key.as_str()) && !value.is_null());
        let Some(Value::Object(parameters)) = table.get_mut("Parameters") else { return Ok(None) };
        if parameters.get("metadata_location").and_then(Value::as_str) != Some(before) {
            return Ok(None);
        }
        parameters.insert("metadata_location".to_owned(), after.into());
        parameters.insert("previous_metadata_location".to_owned(), before.into());
        let version_id = version.ok_or_else(|| {
            Error::unsupported("this table takes no rows here: Glue does not say which version of it this is")
                .with_hint("without that a change could be made over that of another; ask the Glue of AWS")
        })?;
        Ok(Some(Update { database_name: schema, table_input: table, version_id, skip_archive: true }))
    }
}

/// A database, or a table in one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: String,
    database_name: Option<String>,
    description: Option<String>,
    parameters: Option<HashMap<String, String>>,
}

impl Entry {
    fn is_in(&self, schema: &str) -> bool {
        self.database_name.as_deref() == Some(schema)
    }

    /// Whether it is a table of a schema that can be named.
    fn is_listed(&self, schema: &str) -> bool {
        self.is_in(schema) && self.is_iceberg() && Name::parse(&self.name).about().is_none()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.as_ref()?.get(name).map(String::as_str)
    }

    fn is_iceberg(&self) -> bool {
        self.parameter("table_type").is_some_and(|kind| kind.eq_ignore_ascii_case("iceberg"))
    }

    /// Where its file of metadata is. Errors: `Unsupported` for a table of another kind, `Data` where it does not say.
    fn metadata(&self) -> Result<String> {
        if !self.is_iceberg() {
            return Err(Error::unsupported(format!("\"{}\" is no Iceberg table: its table_type is not ICEBERG", self.name))
                .with_hint("only Iceberg tables of Glue are read"));
        }
        self.parameter("metadata_location").map(str::to_owned).ok_or_else(|| {
            Error::data(format!("the table \"{}\" has no parameter metadata_location", self.name))
                .with_hint("register it again with its newest file of metadata")
        })
    }
}

/// A signed request.
fn request(
    address: &Url,
    region: &str,
    credential: &AwsCredential,
    action: &'static str,
    asked: &impl Serialize,
) -> Result<HttpRequest> {
    // What signs takes it for granted that keys and tokens are of letters.
    let keys = [Some(&credential.key_id), credential.token.as_ref()];
    if keys.into_iter().flatten().any(|key| HeaderValue::from_str(key).is_err()) {
        return Err(Error::unauthenticated("the access key is none").with_hint("check access_key_id and session_token"));
    }
    let body = serde_json::to_string(asked).map_err(|cause| Error::internal("the request has no JSON").caused_by(cause))?;
    let mut request = HttpRequest::new(HttpRequestBody::from(body));
    *request.method_mut() = "POST".parse().map_err(|_| Error::internal("there is no POST"))?;
    *request.uri_mut() = address.as_str().parse().map_err(|_| Error::invalid("this address cannot be asked"))?;
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/x-amz-json-1.1"));
    request.headers_mut().insert("x-amz-target", HeaderValue::from_static(action));
    AwsAuthorizer::new(credential, "glue", region).authorize(&mut request, None);
    Ok(request)
}

/// What an answer says that is no success.
#[derive(Debug, Default, Deserialize)]
struct Failure {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

/// Why Glue does not answer who asks with these keys; none where it does not have what is asked for.
fn failure(status: u16, body: &[u8], keys: &AwsCredential) -> Option<Error> {
    let Failure { kind, message } = serde_json::from_slice(body).unwrap_or_default();
    let secrets = [Some(&keys.key_id), Some(&keys.secret_key), keys.token.as_ref()];
    let repeats = |text: &str| secrets.into_iter().flatten().any(|secret| text.contains(secret.as_str()));
    let kind = if repeats(&kind) { String::new() } else { kind };
    let message = if repeats(&message) { "what it says repeats the keys".to_owned() } else { message };
    // Some servers write the name of their interface before it.
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let said = shortened(message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned(), LONGEST_SAID);
    let keys = "check access_key_id, secret_access_key and session_token";
    Some(match kind {
        "EntityNotFoundException" => return None,
        "AccessDeniedException" => {
            let error = Error::denied(format!("Glue does not allow this: {said}"));
            error.with_hint("allow glue:GetDatabases, GetTables and GetTable, and UpdateTable for writing")
        }
        "ConcurrentModificationException" | "VersionMismatchException" => {
            Error::precondition("others have changed the table in Glue").with_hint("send the statement again")
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException" => Error::unauthenticated("Glue refuses the credentials").with_hint(keys),
        "ThrottlingException" => Error::exhausted("Glue is asked too often").with_hint("try again later"),
        "InvalidInputException" => Error::invalid(format!("Glue does not take this name: {said}")),
        _ if status >= 500 || status == 429 => {
            Error::unavailable(format!("Glue fails with status {status}: {said}")).with_hint("try again later")
        }
        "" => Error::data(format!("what answers with status {status} is not Glue")).with_hint("check uri"),
        _ => Error::data(format!("Glue refuses with {kind}: {said}")),
    })
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::stores::{Access, Store};

    fn credential(token: Option<&str>) -> AwsCredential {
        AwsCredential { key_id: "id".to_owned(), secret_key: "hidden".to_owned(), token: token.map(str::to_owned) }
    }

    #[test]
    fn a_request_is_signed() {
        let asked = Asked { database_name: Some("shop"), name: Some("订单"), ..Asked::default() };
        let address = Url::parse("http://127.0.0.1:5000").unwrap();
        let made = request(&address, "eu-central-1", &credential(Some("token")), "AWSGlue.GetTable", &asked).unwrap();
        let header = |name: &str| made.headers()[name].to_str().unwrap();
        let body = std::str::from_utf8(made.body().as_bytes().unwrap()).unwrap();
        insta::assert_snapshot!(
            format!("{} {} {} {} {body}", made.method(), made.uri(), header("content-type"), header("x-amz-target")),
            @r#"POST http://127.0.0.1:5000/ application/x-amz-json-1.1 AWSGlue.GetTable {"DatabaseName":"shop","Name":"订单"}"#
        );
        let authorization = header("authorization");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=id/"), "{authorization}");
        let scope = "/eu-central-1/glue/aws4_request, \
            SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-target, ";
        assert!(authorization.contains(scope), "{authorization}");
        assert!(!format!("{made:?}").contains("hidden"));
        let made = request(&address, "eu-central-1", &credential(Some("to\nken")), "AWSGlue.GetTable", &asked);
        insta::assert_snapshot!(made.unwrap_err(), @"the access key is none; check access_key_id and session_token");
    }

    #[tokio::test]
    async fn nobody_is_asked_but_who_is_configured() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 307 No\r\nlocation: {address}/b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let key = || Some("id".to_owned());
        let (endpoint, session_token, region) = (None, None, Some("r".to_owned()));
        let secret_access_key = key().map(Into::into);
        let access = Access { endpoint, region, access_key_id: key(), secret_access_key, session_token, allow_http: true };
        let location = Location::Bucket { bucket: "b".to_owned(), prefix: Path::default(), access };
        let lake = Lake::new(Arc::new(Store::open("lake", &location).unwrap()), &location);
        let glue = Glue::open("lake", Some(&address), &location, Arc::new(lake)).unwrap();
        insta::assert_snapshot!(glue.ping().await.unwrap_err().message(), @"what answers with status 307 is not Glue");
    }

    #[test]
    fn a_page_asks_for_the_next() {
        let asked = Asked { database_name: Some("shop"), max_results: Some(PAGE), next_token: Some("7"), name: None };
        insta::assert_snapshot!(serde_json::to_string(&asked).unwrap(), @r#"{"DatabaseName":"shop","MaxResults":100,"NextToken":"7"}"#);
        let page: Page = serde_json::from_str(r#"{"DatabaseList": [{"Name": "shop"}], "NextToken": "8"}"#).unwrap();
        assert_eq!((page.entries[0].name.as_str(), page.next_token.as_deref()), ("shop", Some("8")));
        assert!(serde_json::from_str::<Page>("{}").is_err());
    }

    #[test]
    fn a_table_is_what_its_parameters_say() {
        let answer = r#"{"Table": {"Name": "orders", "DatabaseName": "shop", "CreateTime": 1.5E9, "Parameters":
            {"table_type": "iceberg", "metadata_location": "s3://b/m.json"}}}"#;
        let orders = serde_json::from_str::<Answer>(answer).unwrap().table;
        assert!(orders.is_in("shop") && !orders.is_in("SHOP"));
        assert_eq!(orders.metadata().unwrap(), "s3://b/m.json");
        let plain: Entry = serde_json::from_str(r#"{"Name": "plain", "Parameters": null}"#).unwrap();
        insta::assert_snapshot!(plain.metadata().unwrap_err(), @r#""plain" is no Iceberg table: its table_type is not ICEBERG; only Iceberg tables of Glue are read"#);
    }

    #[test]
    fn a_table_stays_but_for_where_its_metadata_is() {
        let read = |version: &str| {
            let answer = format!(
                r#"{{"Table": {{"Name": "t", "DatabaseName": "shop", "Owner": null, "Retention": 7, "CreatedBy": "me", {version}
                "StorageDescriptor": {{"Location": "s3://b/t", "New": [1]}}, "TableType": "EXTERNAL_TABLE",
                "Parameters": {{"metadata_location": "s3://b/1", "table_type": "ICEBERG", "x": "y"}}}}}}"#
            );
            serde_json::from_str::<Whole>(&answer).unwrap()
        };
        let version = r#""VersionId": "3","#;
        let update = read(version).update("shop", "s3://b/1", "s3://b/2").unwrap().unwrap();
        insta::assert_snapshot!(
            serde_json::to_string(&update).unwrap(),
            @r#"{"DatabaseName":"shop","TableInput":{"Name":"t","Parameters":{"metadata_location":"s3://b/2","previous_metadata_location":"s3://b/1","table_type":"ICEBERG","x":"y"},"Retention":7,"StorageDescriptor":{"Location":"s3://b/t","New":[1]},"TableType":"EXTERNAL_TABLE"},"VersionId":"3","SkipArchive":true}"#
        );
        assert!(read(version).update("shop", "s3://b/0", "s3://b/2").unwrap().is_none());
        let error = read("").update("shop", "s3://b/1", "s3://b/2").unwrap_err();
        insta::assert_snapshot!(error.message(), @"this table takes no rows here: Glue does not say which version of it this is");
    }

    #[test]
    fn failures_are_told_apart() {
        let keys = AwsCredential { key_id: "AKIAEXAMPLE".to_owned(), ..credential(Some("token")) };
        let failed = |status, kind: &str| {
            let body = format!(r#"{{"__type": "com.amazonaws.glue#{kind}", "Message": "why not."}}"#);
            failure(status, body.as_bytes(), &keys).map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(failed(400, "EntityNotFoundException"), "");
        insta::assert_snapshot!(failed(400, "AccessDeniedException"), @"Glue does not allow this: why not; allow glue:GetDatabases, GetTables and GetTable, and UpdateTable for writing");
        insta::assert_snapshot!(failed(400, "ConcurrentModificationException"), @"others have changed the table in Glue; send the statement again");
        insta::assert_snapshot!(failed(400, "ExpiredTokenException"), @"Glue refuses the credentials; check access_key_id, secret_access_key and session_token");
        insta::assert_snapshot!(failed(503, "Strange"), @"Glue fails with status 503: why not; try again later");
        let echo = br#"{"__type": "AccessDeniedException", "message": "AKIAEXAMPLE may not"}"#;
        insta::assert_snapshot!(failure(400, echo, &keys).unwrap(), @"Glue does not allow this: what it says repeats the keys; allow glue:GetDatabases, GetTables and GetTable, and UpdateTable for writing");
        insta::assert_snapshot!(failure(404, b"<html>", &keys).unwrap(), @"what answers with status 404 is not Glue; check uri");
    }

    #[test]
    fn each_part_of_aws_has_its_own() {
        assert_eq!(address("eu-central-1"), "https://glue.eu-central-1.amazonaws.com/");
        assert_eq!(address("cn-north-1"), "https://glue.cn-north-1.amazonaws.com.cn/");
    }
}
