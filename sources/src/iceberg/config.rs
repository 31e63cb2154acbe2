//! The options of a catalog of Iceberg tables: where their files are, and who knows the tables.

use std::ffi::OsStr;
use std::path::{Path as FilePath, PathBuf};

use nexus_flight_catalog::{Error, Opt, OptType, Options, Result};
use object_store::path::Path;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::SPEC;
use crate::lake::{Has, address, check_kind, checked_token};
use crate::postgres::Config as Database;
use crate::stores::{BUCKET, BucketOptions, Location, WrittenLocation, located, schema, text};

/// The kinds of catalogs.
const KINDS: &[&str] = &["folder", "rest", "hive", "sql", "glue"];

/// What a user can say.
pub(super) const OPTIONS: &[Opt; 18] = &located(
    [
        Opt {
            value: OptType::OneOf(KINDS),
            ..text("catalog", "who knows which tables there are; folder, which is the location itself, if not given")
        },
        text("uri", "the address of the catalog server, such as https://catalog.example.com/iceberg"),
        text("warehouse", "the name of the warehouse, where a REST catalog has more than one"),
        Opt { secret: true, ..text("credential", "who asks a REST catalog, as id:secret, for which tokens are fetched") },
        Opt { secret: true, ..text("token", "a token for a REST catalog, which is sent as it is") },
        text("scope", "what the tokens of a REST catalog are for; catalog if not given"),
        text("oauth2_server_uri", "where tokens are fetched; v1/oauth/tokens of the catalog if not given"),
        Opt { secret: true, ..text("password", "the password of the user in the uri of a SQL catalog") },
        Opt {
            value: OptType::OneOf(&["off", "verify"]),
            ..text("tls", "whether a SQL catalog is spoken to by TLS; verify if not given, and off on this machine")
        },
        text("ca", "a PEM file with the authorities that a SQL catalog is trusted by; those of the machine if not given"),
        text("schema", "the name of the schema of tables that are directly in the location; main if not given"),
    ],
    BucketOptions {
        access_key_id: Opt {
            help: "the id of the access key; without it, it comes from the REST catalog, the environment or the machine",
            ..BUCKET.access_key_id
        },
        allow_http: Opt { help: "whether endpoint, uri and oauth2_server_uri may be http", ..BUCKET.allow_http },
        ..BUCKET
    },
);

/// The options that some kinds have.
const HAVE: &[Has] = &[
    Has::some("schema", &["folder"]),
    // That of AWS is Glue's own.
    Has { option: "uri", kinds: &["rest", "hive", "sql", "glue"], needed: &["rest", "hive", "sql"] },
    Has::some("warehouse", &["rest"]),
    Has::some("credential", &["rest"]),
    Has::some("token", &["rest"]),
    Has::some("scope", &["rest"]),
    Has::some("oauth2_server_uri", &["rest"]),
    Has::some("password", &["sql"]),
    Has::some("tls", &["sql"]),
    Has::some("ca", &["sql"]),
];

/// The options, checked.
pub(super) struct Config {
    pub(super) location: Location,
    pub(super) tables: Tables,
}

/// Who knows the tables.
pub(super) enum Tables {
    /// The location itself; tables directly in it are in this schema. With the name of a file of metadata it is one table, in the
    /// state that this file tells.
    Folder { schema: String, file: Option<String> },
    /// A server of Iceberg's REST interface.
    Rest(Rest),
    /// Metastores of Hive, with commas between them.
    Hive { uri: String },
    /// The tables of a JDBC catalog in a database.
    Sql(Box<Database>),
    /// AWS Glue, or another server of its interface.
    Glue { uri: Option<String> },
}

/// How a REST catalog is reached.
#[derive(Clone)]
pub(super) struct Rest {
    /// Without a slash at its end.
    pub(super) uri: String,
    pub(super) warehouse: Option<String>,
    pub(super) asks: Asks,
}

/// In whose name a REST catalog is asked.
#[derive(Clone)]
pub(super) enum Asks {
    Nobody,
    Token(SecretString),
    Client { id: String, secret: SecretString, scope: String, server: Url },
}

#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    location: WrittenLocation,
    catalog: Option<String>,
    uri: Option<String>,
    warehouse: Option<String>,
    credential: Option<SecretString>,
    token: Option<SecretString>,
    scope: Option<String>,
    oauth2_server_uri: Option<String>,
    password: Option<SecretString>,
    tls: Option<String>,
    ca: Option<PathBuf>,
    schema: Option<String>,
}

impl Config {
    /// Errors: `Invalid` with the key at fault.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let written: Written = options.parse(&SPEC)?;
        let kind = written.catalog.as_deref().unwrap_or("folder").to_owned();
        check_kind(&kind, options, HAVE)?;
        let allow_http = written.location.allow_http;
        let mut location = written.location.check(options)?;
        let tables = match kind.as_str() {
            "folder" => {
                let file = take_file(&mut location, options)?;
                Tables::Folder { schema: schema(written.schema, "tables", options)?, file }
            }
            "rest" => {
                let uri = address(&written.uri.unwrap_or_default(), "uri", allow_http, options)?;
                let uri = uri.as_str().trim_end_matches('/').to_owned();
                let tokens = written.oauth2_server_uri.unwrap_or_else(|| format!("{uri}/v1/oauth/tokens"));
                let server = address(&tokens, "oauth2_server_uri", allow_http, options)?;
                let asks = asks(written.credential, written.token, written.scope, server, options)?;
                Tables::Rest(Rest { uri, warehouse: written.warehouse, asks })
            }
            "hive" => Tables::Hive { uri: written.uri.unwrap_or_default() },
            "sql" => {
                let uri = written.uri.unwrap_or_default();
                let (tls, ca) = (written.tls.as_deref(), written.ca.as_deref());
                Tables::Sql(Box::new(Database::new(options, ("uri", &uri), written.password, tls, ca)?))
            }
            // There are no others, as the options say.
            _ => {
                let uri = written.uri.map(|uri| address(&uri, "uri", allow_http, options)).transpose()?;
                Tables::Glue { uri: uri.map(String::from) }
            }
        };
        Ok(Self { location, tables })
    }
}

/// Makes a location that is a file of metadata the folder of its table; gives the name of that file, none for another location.
/// Errors: `Invalid` where it does not lie in the `metadata/` of a folder.
fn take_file(location: &mut Location, options: &Options) -> Result<Option<String>> {
    let is_metadata = |name: &&str| name.ends_with(".metadata.json") || name.ends_with(".metadata.json.gz");
    let elsewhere = || {
        Error::invalid("this file of metadata is in no folder called metadata, which tells where the files of its table are")
            .with_hint("write folder-of-the-table/metadata/…, or name the folder of the table")
            .at(options.key("location"))
    };
    match location {
        Location::Folder(path) => {
            let Some(name) = path.file_name().and_then(OsStr::to_str).filter(is_metadata).map(str::to_owned) else {
                return Ok(None);
            };
            let metadata = path.parent().filter(|folder| folder.file_name() == Some(OsStr::new("metadata")));
            *path = metadata.and_then(FilePath::parent).ok_or_else(elsewhere)?.to_owned();
            Ok(Some(name))
        }
        Location::Bucket { prefix, .. } => {
            let Some(name) = prefix.filename().filter(is_metadata).map(str::to_owned) else { return Ok(None) };
            let table = match prefix.parts().collect::<Vec<_>>().as_slice() {
                [table @ .., metadata, _] if metadata.as_ref() == "metadata" => table.iter().cloned().collect::<Path>(),
                _ => return Err(elsewhere()),
            };
            *prefix = table;
            Ok(Some(name))
        }
    }
}

fn asks(
    credential: Option<SecretString>,
    token: Option<SecretString>,
    scope: Option<String>,
    server: Url,
    options: &Options,
) -> Result<Asks> {
    let wrong = |message: &str, hint: &str, key: &str| Err(Error::invalid(message).with_hint(hint).at(options.key(key)));
    let Some(credential) = credential else {
        for key in ["scope", "oauth2_server_uri"] {
            if options.values.contains_key(key) {
                let message = "this is about tokens that are fetched, and nothing says by whom";
                return wrong(message, "add credential, or remove it", key);
            }
        }
        return token.map_or(Ok(Asks::Nobody), |token| checked_token(token, options).map(Asks::Token));
    };
    if token.is_some() {
        return wrong("a token is given beside the credential that tokens are fetched for", "give one of the two", "token");
    }
    match credential.expose_secret().split_once(':') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
            let scope = scope.unwrap_or_else(|| "catalog".to_owned());
            Ok(Asks::Client { id: id.to_owned(), secret: secret.into(), scope, server })
        }
        _ => wrong("this is no id with a secret", "write credential = \"id:secret\"", "credential"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[(&str, &str)]) -> Result<Config> {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        Config::parse(&Options { catalog: "lake".into(), base: "/base".into(), values })
    }

    fn rest(more: &[(&str, &str)]) -> Result<Config> {
        let first = [("location", "s3://b"), ("catalog", "rest"), ("uri", "https://h/iceberg/")];
        parse(&first.iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn refusal(parsed: Result<Config>) -> String {
        parsed.err().expect("a refusal").to_string()
    }

    #[test]
    fn a_rest_catalog_is_asked_in_somebodys_name() {
        let asks = |more: &[(&str, &str)]| {
            let Tables::Rest(rest) = rest(more).unwrap().tables else { panic!("another kind") };
            assert_eq!(rest.uri, "https://h/iceberg");
            rest.asks
        };
        assert!(matches!(asks(&[]), Asks::Nobody));
        assert!(matches!(asks(&[("token", "t")]), Asks::Token(token) if token.expose_secret() == "t"));
        let Asks::Client { id, secret, scope, server } = asks(&[("credential", "me:a:b")]) else { panic!("no client") };
        assert_eq!((id.as_str(), secret.expose_secret(), scope.as_str()), ("me", "a:b", "catalog"));
        assert_eq!(server.as_str(), "https://h/iceberg/v1/oauth/tokens");
        let elsewhere = [("credential", "me:a"), ("oauth2_server_uri", "https://id/token"), ("scope", "all")];
        let Asks::Client { scope, server, .. } = asks(&elsewhere) else { panic!("no client") };
        assert_eq!((scope.as_str(), server.as_str()), ("all", "https://id/token"));
    }

    #[test]
    fn a_file_of_metadata_is_a_table_in_the_folder_above() {
        let of = |location: &str| {
            let config = parse(&[("location", location)]).unwrap();
            let Tables::Folder { file, .. } = config.tables else { panic!("another kind") };
            let folder = match config.location {
                Location::Folder(folder) => folder.display().to_string(),
                Location::Bucket { bucket, prefix, .. } => format!("{bucket}:{prefix}"),
            };
            (folder, file)
        };
        let named = |folder: &str, file: &str| (folder.to_owned(), Some(file.to_owned()));
        assert_eq!(of("shop/t/metadata/v3.metadata.json"), named("/base/shop/t", "v3.metadata.json"));
        assert_eq!(of("/t/metadata/v3.gz.metadata.json"), named("/t", "v3.gz.metadata.json"));
        assert_eq!(of("s3://b/shop/t/metadata/v3.metadata.json.gz"), named("b:shop/t", "v3.metadata.json.gz"));
        assert_eq!(of("s3://b/metadata/v3.metadata.json"), named("b:", "v3.metadata.json"));
        assert_eq!(of("s3://b/shop/metadata"), ("b:shop/metadata".to_owned(), None));
        for elsewhere in ["v3.metadata.json", "s3://b/v3.metadata.json", "s3://b/t/v3.metadata.json"] {
            let refusal = refusal(parse(&[("location", elsewhere)]));
            assert!(refusal.starts_with("catalogs.lake.location: this file of metadata is in no folder"), "{refusal}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let folder = |key: &str| refusal(parse(&[("location", "data"), (key, "hunter2")]));
        insta::assert_snapshot!(folder("token"), @r#"catalogs.lake.token: "token" has no meaning where the catalog is "folder"; remove it, or set catalog = "rest""#);
        insta::assert_snapshot!(folder("uri"), @r#"catalogs.lake.uri: "uri" has no meaning where the catalog is "folder"; remove it, or set catalog = "rest" or "hive" or "sql" or "glue""#);
        insta::assert_snapshot!(folder("catalog"), @r#"catalogs.lake.catalog: unknown value "hunter2"; the values are "folder", "rest", "hive", "sql", "glue""#);
        let schema = refusal(parse(&[("location", "data"), ("schema", "information_schema")]));
        insta::assert_snapshot!(schema, @"catalogs.lake.schema: no schema of tables can have this name; choose another, or leave schema out");
        let missing = refusal(parse(&[("location", "data"), ("catalog", "rest")]));
        insta::assert_snapshot!(missing, @r#"catalogs.lake.uri: a catalog of the kind "rest" needs "uri"; add uri = …"#);
        let uri = |uri: &str| refusal(parse(&[("location", "data"), ("catalog", "rest"), ("uri", uri)]));
        insta::assert_snapshot!(uri("catalog.example.com"), @"catalogs.lake.uri: this is no address of a server; write it as https://host/path");
        insta::assert_snapshot!(uri("thrift://h"), @"catalogs.lake.uri: this is no address of a server; write it as https://host/path");
        insta::assert_snapshot!(uri("http://h"), @"catalogs.lake.uri: the address is http and not https; set allow_http = true if that is meant");
        insta::assert_snapshot!(uri("https://me:hunter2@h"), @"catalogs.lake.uri: a user in the address is not heeded; leave it out; other keys say who asks");
        insta::assert_snapshot!(uri("https://h?warehouse=w"), @"catalogs.lake.uri: the address has parameters behind the path; leave them out");
        insta::assert_snapshot!(refusal(rest(&[("schema", "s")])), @r#"catalogs.lake.schema: "schema" has no meaning where the catalog is "rest"; remove it, or set catalog = "folder""#);
        insta::assert_snapshot!(refusal(rest(&[("credential", "hunter2")])), @r#"catalogs.lake.credential: this is no id with a secret; write credential = "id:secret""#);
        insta::assert_snapshot!(refusal(rest(&[("credential", "a:b"), ("token", "t")])), @"catalogs.lake.token: a token is given beside the credential that tokens are fetched for; give one of the two");
        insta::assert_snapshot!(refusal(rest(&[("token", "hunter2\n")])), @"catalogs.lake.token: this is no token: it has characters that tokens do not have; look for a space or line end");
        insta::assert_snapshot!(refusal(rest(&[("scope", "s")])), @"catalogs.lake.scope: this is about tokens that are fetched, and nothing says by whom; add credential, or remove it");
        insta::assert_snapshot!(refusal(rest(&[("credential", "a:b"), ("oauth2_server_uri", "http://id")])), @"catalogs.lake.oauth2_server_uri: the address is http and not https; set allow_http = true if that is meant");
    }
}
