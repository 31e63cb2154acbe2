//! The options of a catalog of Delta tables: where their files are, and who knows the tables.

use nexus_flight_catalog::{Error, Opt, OptType, Options, Result};
use secrecy::SecretString;
use serde::Deserialize;

use super::SPEC;
use crate::lake::{Has, address, check_kind, checked_token};
use crate::stores::{BUCKET, BucketOptions, Location, WrittenLocation, located, schema, text};

/// The kinds of catalogs.
const KINDS: &[&str] = &["folder", "unity"];

/// What a user can say.
pub(super) const OPTIONS: &[Opt; 12] = &located(
    [
        Opt {
            value: OptType::OneOf(KINDS),
            ..text("catalog", "who knows which tables there are; folder, which is the location itself, if not given")
        },
        text("uri", "the address of the server of Unity Catalog, such as https://catalog.example.com"),
        text("warehouse", "the name of the catalog that is meant in Unity Catalog"),
        Opt { secret: true, ..text("token", "a token for Unity Catalog, which is sent as it is") },
        text("schema", "the name of the schema of tables that are directly in the location; main if not given"),
    ],
    BucketOptions {
        access_key_id: Opt {
            help: "the id of the access key; without it, it comes from Unity Catalog, the environment or the machine",
            ..BUCKET.access_key_id
        },
        allow_http: Opt { help: "whether endpoint and uri may be http", ..BUCKET.allow_http },
        ..BUCKET
    },
);

/// The options that one kind has.
const HAVE: &[Has] = &[
    Has::some("schema", &["folder"]),
    Has::all("uri", &["unity"]),
    Has::all("warehouse", &["unity"]),
    Has::some("token", &["unity"]),
];

/// The options, checked.
pub(super) struct Config {
    pub(super) location: Location,
    pub(super) tables: Tables,
}

/// Who knows the tables.
pub(super) enum Tables {
    /// The location itself; tables directly in it are in this schema.
    Folder { schema: String },
    /// A server of Unity Catalog.
    Unity(Unity),
}

/// How Unity Catalog is reached.
#[derive(Clone)]
pub(super) struct Unity {
    /// Without a slash at its end.
    pub(super) uri: String,
    /// The catalog there.
    pub(super) warehouse: String,
    pub(super) token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    location: WrittenLocation,
    catalog: Option<String>,
    uri: Option<String>,
    warehouse: Option<String>,
    token: Option<SecretString>,
    schema: Option<String>,
}

impl Config {
    /// Errors: `Invalid` with the key at fault.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let written: Written = options.parse(&SPEC)?;
        let kind = written.catalog.as_deref().unwrap_or("folder");
        check_kind(kind, options, HAVE)?;
        let tables = match kind {
            "unity" => {
                let uri = address(&written.uri.unwrap_or_default(), "uri", written.location.allow_http, options)?;
                let uri = uri.as_str().trim_end_matches('/').to_owned();
                let token = written.token.map(|token| checked_token(token, options)).transpose()?;
                let warehouse = written.warehouse.unwrap_or_default();
                if warehouse.is_empty() || warehouse.contains(['.', '/']) {
                    return Err(Error::invalid("no catalog of Unity Catalog can have this name")
                        .with_hint("write the name of the catalog alone, without a schema")
                        .at(options.key("warehouse")));
                }
                Tables::Unity(Unity { uri, warehouse, token })
            }
            // There are no others, as the options say.
            _ => Tables::Folder { schema: schema(written.schema, "tables", options)? },
        };
        Ok(Self { location: written.location.check(options)?, tables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[(&str, &str)]) -> Result<Config> {
        let first = [("location", "s3://b")];
        let values = first.iter().chain(values).map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        Config::parse(&Options { catalog: "lake".into(), base: "/base".into(), values })
    }

    fn unity(more: &[(&str, &str)]) -> String {
        refusal(&[("catalog", "unity")].iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn refusal(values: &[(&str, &str)]) -> String {
        parse(values).err().expect("a refusal").to_string()
    }

    #[test]
    fn unity_catalog_has_an_address_and_a_catalog() {
        let values = [("catalog", "unity"), ("uri", "https://h/"), ("warehouse", "w"), ("token", "t")];
        let Tables::Unity(unity) = parse(&values).unwrap().tables else { panic!("another kind") };
        assert_eq!((unity.uri.as_str(), unity.warehouse.as_str(), unity.token.is_some()), ("https://h", "w", true));
        let Tables::Folder { schema } = parse(&[]).unwrap().tables else { panic!("another kind") };
        assert_eq!(schema, "main");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        insta::assert_snapshot!(refusal(&[("token", "hunter2")]), @r#"catalogs.lake.token: "token" has no meaning where the catalog is "folder"; remove it, or set catalog = "unity""#);
        insta::assert_snapshot!(refusal(&[("catalog", "hive")]), @r#"catalogs.lake.catalog: unknown value "hive"; the values are "folder", "unity""#);
        insta::assert_snapshot!(refusal(&[("schema", "information_schema")]), @"catalogs.lake.schema: no schema of tables can have this name; choose another, or leave schema out");
        insta::assert_snapshot!(unity(&[("uri", "https://h")]), @r#"catalogs.lake.warehouse: a catalog of the kind "unity" needs "warehouse"; add warehouse = …"#);
        insta::assert_snapshot!(unity(&[("warehouse", "w")]), @r#"catalogs.lake.uri: a catalog of the kind "unity" needs "uri"; add uri = …"#);
        insta::assert_snapshot!(unity(&[("schema", "s")]), @r#"catalogs.lake.schema: "schema" has no meaning where the catalog is "unity"; remove it, or set catalog = "folder""#);
        insta::assert_snapshot!(unity(&[("uri", "http://h"), ("warehouse", "w")]), @"catalogs.lake.uri: the address is http and not https; set allow_http = true if that is meant");
        insta::assert_snapshot!(unity(&[("uri", "https://h"), ("warehouse", "w.s")]), @"catalogs.lake.warehouse: no catalog of Unity Catalog can have this name; write the name of the catalog alone, without a schema");
        insta::assert_snapshot!(unity(&[("uri", "https://h"), ("warehouse", "w"), ("token", "hunter 2")]), @"catalogs.lake.token: this is no token: it has characters that tokens do not have; look for a space or line end");
    }
}
