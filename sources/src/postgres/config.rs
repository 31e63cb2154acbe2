//! The options of a catalog of a PostgreSQL database, checked as far as that is possible without a connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexus_flight_catalog::{Error, Options, Result};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::SPEC;
use super::version::Versioned;

/// How many connections may be open at once if that is not given.
const POOL: u64 = 10;
/// How many seconds it may take until there is a connection if that is not given.
const CONNECT_TIMEOUT: u64 = 10;
/// How many seconds the server may be silent if that is not given.
const READ_TIMEOUT: u64 = 300;

/// Where the database is, how it is entered, and for how long to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(super) catalog: String,
    /// The option that says where the database is.
    pub(super) key: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) password: Option<SecretString>,
    /// The schemas that are shown; all but those of the system if not given.
    pub(super) schemas: Option<Vec<String>>,
    /// How many connections may be open at once.
    pub(super) pool: usize,
    pub(super) tls: Tls,
    /// How long it may take until there is a connection.
    pub(super) connect_timeout: Duration,
    /// How long the server may be silent while it is asked something.
    pub(super) read_timeout: Duration,
    /// What tells the versions of tables, by schema and name.
    pub(super) versioned: BTreeMap<(String, String), Versioned>,
}

#[derive(Debug, Clone)]
pub(super) enum Tls {
    Off,
    /// Encrypted, with a certificate for the host that these authorities vouch for; those of the machine if not given.
    Verify {
        ca: Option<PathBuf>,
    },
}

#[derive(Deserialize)]
struct Written {
    url: String,
    password: Option<SecretString>,
    schemas: Option<Vec<String>>,
    pool: Option<i64>,
    tls: Option<String>,
    ca: Option<PathBuf>,
    connect_timeout: Option<i64>,
    read_timeout: Option<i64>,
    #[serde(default)]
    tables: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
struct Table {
    version_sql: String,
}

impl Config {
    /// Errors: `Invalid` with the key at fault.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let Written { url, password, schemas, pool, tls, ca, connect_timeout, read_timeout, tables } = options.parse(&SPEC)?;
        let config = Self::new(options, ("url", url.as_str()), password, tls.as_deref(), ca.as_deref())?;
        let within = |key: &str, value: Option<i64>, default: u64, most: u64| match value.map_or(Ok(default), u64::try_from) {
            Ok(value) if (1..=most).contains(&value) => Ok(value),
            _ => Err(Error::invalid(format!("{key} is not from 1 to {most}"))
                .with_hint(format!("leave it out for {default}"))
                .at(options.key(key))),
        };
        if schemas.as_ref().is_some_and(Vec::is_empty) {
            let hint = "name some, or leave it out for all of them";
            return Err(Error::invalid("no schema is named").with_hint(hint).at(options.key("schemas")));
        }
        let versioned = tables.into_iter().map(|(name, table)| versioned(options, schemas.as_deref(), &name, table));
        Ok(Self {
            versioned: versioned.collect::<Result<_>>()?,
            pool: within("pool", pool, POOL, 1_000)? as usize,
            connect_timeout: Duration::from_secs(within("connect_timeout", connect_timeout, CONNECT_TIMEOUT, 3_600)?),
            read_timeout: Duration::from_secs(within("read_timeout", read_timeout, READ_TIMEOUT, 86_400)?),
            schemas,
            ..config
        })
    }

    /// The database at an address, which comes with the name of its option, entered with this password; with the bounds by default.
    /// `tls` is "off" or "verify"; if not given it is off on this machine and demanded elsewhere. `ca` may be relative to the
    /// configuration file. Errors: `Invalid` with the key at fault: that of the address, or `ca`.
    pub(crate) fn new(
        options: &Options,
        (key, address): (&'static str, &str),
        password: Option<SecretString>,
        tls: Option<&str>,
        ca: Option<&Path>,
    ) -> Result<Self> {
        // The text is not repeated in messages: a password may be somewhere in it.
        let wrong = |message: &str, hint: &str| Err(Error::invalid(message).with_hint(hint).at(options.key(key)));
        const FORM: &str = "write it as postgres://user@host:5432/database";
        let Ok(parsed) = Url::parse(address) else { return wrong("this is no address", FORM) };
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return wrong("the address does not start with postgres://", FORM);
        }
        if parsed.password().is_some() {
            return wrong("a password in the address is shown where the address is", "move it to password = \"${env:NAME}\"");
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return wrong(
                "the address has parameters behind the database",
                "leave them out; tls, schemas and others are keys here",
            );
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        let Some(host) = parsed.host_str().filter(|host| !host.is_empty()) else {
            return wrong("the address names no host", FORM);
        };
        let Some(user) = decoded(parsed.username()).filter(|user| !user.is_empty()) else {
            return wrong("the address names no user", FORM);
        };
        let database = decoded(parsed.path().trim_start_matches('/'));
        let Some(database) = database.filter(|name| !name.is_empty() && !name.contains('/')) else {
            return wrong("the address names no database", FORM);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match tls {
            Some("off") => Tls::Off,
            None if ca.is_none() && is_here(&host) => Tls::Off,
            _ => Tls::Verify { ca: ca.map(|ca| options.base.join(ca)) },
        };
        if ca.is_some() && matches!(tls, Tls::Off) {
            return Err(Error::invalid("\"ca\" has no meaning where tls is off")
                .with_hint("remove it, or set tls = \"verify\"")
                .at(options.key("ca")));
        }
        Ok(Self {
            catalog: options.catalog.clone(),
            key,
            port: parsed.port().unwrap_or(5432),
            pool: POOL as usize,
            connect_timeout: Duration::from_secs(CONNECT_TIMEOUT),
            read_timeout: Duration::from_secs(READ_TIMEOUT),
            schemas: None,
            versioned: BTreeMap::new(),
            host,
            user,
            database,
            password,
            tls,
        })
    }

    /// The same with another time for which the server may be silent.
    pub(crate) fn with_read_timeout(self, read_timeout: Duration) -> Self {
        Self { read_timeout, ..self }
    }

    /// Where the server is, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What is declared of a table, by its schema and name, which the first dot parts. Errors: `Invalid` for a name that no table shown here has.
fn versioned(options: &Options, shown: Option<&[String]>, name: &str, table: Table) -> Result<((String, String), Versioned)> {
    let key = format!("tables.{name}");
    let wrong = |message: String, hint: &str| Err(Error::invalid(message).with_hint(hint).at(options.key(&key)));
    let Some((schema, table_name)) = name.split_once('.').filter(|(schema, table)| !schema.is_empty() && !table.is_empty())
    else {
        return wrong(format!("\"{name}\" names no schema and table"), "write it like [catalogs.NAME.tables.\"public.orders\"]");
    };
    if shown.is_some_and(|shown| !shown.iter().any(|shown| shown == schema)) {
        let hint = "add it to schemas, or remove the table";
        return wrong(format!("the schema \"{schema}\" is not one of those that are shown"), hint);
    }
    let key = format!("{key}.version_sql");
    if table.version_sql.trim().is_empty() {
        return Err(Error::invalid("there is no statement in it").with_hint("write a SELECT of one value").at(options.key(&key)));
    }
    Ok(((schema.to_owned(), table_name.to_owned()), Versioned { place: options.key(&key), sql: table.version_sql }))
}

/// Whether a host is this machine, so that what is sent stays in it.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: serde_json::Value) -> Result<Config> {
        let values = values.as_object().unwrap().clone();
        Config::parse(&Options { catalog: "shop".into(), base: "/base".into(), values })
    }

    fn refusal(values: serde_json::Value) -> String {
        parse(values).expect_err("a refusal").to_string()
    }

    #[test]
    fn an_address_is_all_that_is_needed() {
        let config = parse(serde_json::json!({ "url": "postgres://me%40here@db.example/sh%20op" })).unwrap();
        assert_eq!((config.user.as_str(), config.host.as_str(), config.port), ("me@here", "db.example", 5432));
        assert_eq!((config.database.as_str(), config.pool), ("sh op", 10));
        assert!(matches!(config.tls, Tls::Verify { ca: None }));
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            let config = parse(serde_json::json!({ "url": format!("postgresql://me@{here}:1/db") })).unwrap();
            assert!(matches!(config.tls, Tls::Off), "{here}");
        }
    }

    #[test]
    fn the_first_dot_parts_a_schema_from_its_table() {
        let tables = serde_json::json!({ "public.a.b": { "version_sql": "SELECT 1" } });
        let config = parse(serde_json::json!({ "url": "postgres://me@h/d", "tables": tables })).unwrap();
        let versioned = &config.versioned[&("public".to_owned(), "a.b".to_owned())];
        assert_eq!(versioned.place.to_string(), "catalogs.shop.tables.public.a.b.version_sql");
        assert_eq!(versioned.sql, "SELECT 1");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let url = |url: &str| serde_json::json!({ "url": url });
        insta::assert_snapshot!(refusal(serde_json::json!({})), @r#"catalogs.shop: the key "url" is missing: where the database is: postgres://user@host:5432/database, without the password; add url = … under [catalogs.shop]"#);
        insta::assert_snapshot!(refusal(url("db.example")), @"catalogs.shop.url: this is no address; write it as postgres://user@host:5432/database");
        insta::assert_snapshot!(refusal(url("mysql://me@h/d")), @"catalogs.shop.url: the address does not start with postgres://; write it as postgres://user@host:5432/database");
        insta::assert_snapshot!(refusal(url("postgres://me:hunter2@h/d")), @r#"catalogs.shop.url: a password in the address is shown where the address is; move it to password = "${env:NAME}""#);
        insta::assert_snapshot!(refusal(url("postgres://me@h/d?sslmode=off")), @"catalogs.shop.url: the address has parameters behind the database; leave them out; tls, schemas and others are keys here");
        insta::assert_snapshot!(refusal(url("postgres://h/d")), @"catalogs.shop.url: the address names no user; write it as postgres://user@host:5432/database");
        insta::assert_snapshot!(refusal(url("postgres://me@h")), @"catalogs.shop.url: the address names no database; write it as postgres://user@host:5432/database");
        insta::assert_snapshot!(refusal(serde_json::json!({ "url": "postgres://me@h/d", "pool": 0 })), @"catalogs.shop.pool: pool is not from 1 to 1000; leave it out for 10");
        insta::assert_snapshot!(refusal(serde_json::json!({ "url": "postgres://me@h/d", "tls": "on" })), @r#"catalogs.shop.tls: unknown value "on"; the values are "off", "verify""#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "url": "postgres://me@h/d", "tls": "off", "ca": "x" })), @r#"catalogs.shop.ca: "ca" has no meaning where tls is off; remove it, or set tls = "verify""#);
        let tables = |name: &str, table: serde_json::Value| {
            refusal(serde_json::json!({ "url": "postgres://me@h/d", "schemas": ["a"], "tables": { name: table } }))
        };
        let version = |sql: &str| serde_json::json!({ "version_sql": sql });
        insta::assert_snapshot!(tables("t", version("SELECT 1")), @r#"catalogs.shop.tables.t: "t" names no schema and table; write it like [catalogs.NAME.tables."public.orders"]"#);
        insta::assert_snapshot!(tables("b.t", version("SELECT 1")), @r#"catalogs.shop.tables.b.t: the schema "b" is not one of those that are shown; add it to schemas, or remove the table"#);
        insta::assert_snapshot!(tables("a.t", version(" ")), @"catalogs.shop.tables.a.t.version_sql: there is no statement in it; write a SELECT of one value");
        insta::assert_snapshot!(tables("a.t", serde_json::json!({ "versionsql": "SELECT 1" })), @r#"catalogs.shop.tables.a.t.versionsql: unknown key "versionsql" of a table; did you mean "version_sql"?"#);
        insta::assert_snapshot!(tables("a.t", serde_json::json!({})), @r#"catalogs.shop.tables.a.t: the key "version_sql" is missing: a SELECT of one value that is another one after each commit which changes the rows, and never an earlier one again; add version_sql = … under [catalogs.shop.tables.a.t]"#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "url": "postgres://me@h/d", "schemas": [] })), @"catalogs.shop.schemas: no schema is named; name some, or leave it out for all of them");
    }
}
