//! The options of a catalog of a Trino cluster, checked as far as that is possible without a connection.

use std::path::PathBuf;
use std::time::Duration;

use nexus_flight_catalog::{Error, Options, Place, Result};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::SPEC;
use crate::told::is_here;

/// How many seconds it may take until there is a connection if that is not given.
const CONNECT_TIMEOUT: u64 = 10;
/// How many seconds the coordinator may be silent if that is not given.
const READ_TIMEOUT: u64 = 60;

/// Where the coordinator is, how it is entered, and how it is asked.
#[derive(Debug)]
pub(super) struct Config {
    /// The coordinator: scheme, host and port.
    pub(super) url: Url,
    pub(super) user: String,
    pub(super) login: Login,
    /// PEM: the authorities to trust instead of those of the machine.
    pub(super) ca: Option<PathBuf>,
    /// PEM: the certificate of the gateway and its key.
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    /// The name of the catalog there.
    pub(super) catalog: String,
    /// The schemas that are shown; all if not given.
    pub(super) schemas: Option<Vec<String>>,
    /// Session properties by name.
    pub(super) session: Vec<(String, String)>,
    pub(super) client_tags: Vec<String>,
    /// Whether rows are asked for in compressed segments.
    pub(super) spooling: bool,
    /// Whether the login, and rows, may go over plain HTTP to another machine.
    pub(super) allow_http: bool,
    /// How long it may take until there is a connection.
    pub(super) connect_timeout: Duration,
    /// How long the coordinator may be silent while it is asked something.
    pub(super) read_timeout: Duration,
    /// The key of the address.
    pub(super) place: Place,
}

/// What proves who the gateway is, beside a certificate.
#[derive(Debug)]
pub(super) enum Login {
    None,
    /// Of the user, sent with each request.
    Password(SecretString),
    /// A JSON Web Token or another bearer token.
    Token(SecretString),
}

#[derive(Deserialize)]
struct Written {
    url: String,
    user: String,
    password: Option<SecretString>,
    token: Option<SecretString>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    catalog: String,
    schemas: Option<Vec<String>>,
    #[serde(default)]
    session: Vec<String>,
    #[serde(default)]
    client_tags: Vec<String>,
    spooling: Option<bool>,
    #[serde(default)]
    allow_http: bool,
    connect_timeout: Option<i64>,
    read_timeout: Option<i64>,
}

impl Config {
    /// Paths may be relative to the configuration file. Errors: `Invalid` with the key at fault.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let written: Written = options.parse(&SPEC)?;
        let wrong = |key: &str, message: &str, hint: &str| Error::invalid(message).with_hint(hint).at(options.key(key));
        let within = |key: &str, value: Option<i64>, default: u64, most: u64| match value.map_or(Ok(default), u64::try_from) {
            Ok(value) if (1..=most).contains(&value) => Ok(Duration::from_secs(value)),
            _ => Err(Error::invalid(format!("{key} is not from 1 to {most}"))
                .with_hint(format!("leave it out for {default}"))
                .at(options.key(key))),
        };
        let connect_timeout = within("connect_timeout", written.connect_timeout, CONNECT_TIMEOUT, 3_600)?;
        let read_timeout = within("read_timeout", written.read_timeout, READ_TIMEOUT, 86_400)?;
        let url = address(options, &written.url)?;
        for (key, value) in [("user", &written.user), ("catalog", &written.catalog)] {
            if !is_sendable(value) {
                return Err(wrong(
                    key,
                    "there is nothing in it, or what no header of HTTP can carry",
                    "write it in letters of ASCII",
                ));
            }
        }
        if let Some(tag) = written.client_tags.iter().find(|tag| !is_sendable(tag) || tag.contains(',')) {
            let message = format!("\"{}\" is no tag", tag.escape_debug());
            return Err(wrong(
                "client_tags",
                &message,
                "write each one as a text of its own, in letters of ASCII and without a comma",
            ));
        }
        let session = written.session.iter().map(|property| {
            let named = property.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let Some((name, value)) = named.filter(|(name, _)| is_property(name)) else {
                // The text is not repeated: what is not in its form may be anything.
                return Err(wrong("session", "one of these names no session property", "write it as \"query_max_run_time=10m\""));
            };
            Ok((name.to_owned(), value.to_owned()))
        });
        let session = session.collect::<Result<Vec<_>>>()?;
        if written.schemas.as_ref().is_some_and(Vec::is_empty) {
            return Err(wrong("schemas", "no schema is named", "name some, or leave it out for all of them"));
        }
        let login = match (written.password, written.token) {
            (Some(_), Some(_)) => {
                return Err(wrong("token", "there is a password and a token", "keep one: the cluster is entered by one of them"));
            }
            (Some(_), None) if written.user.contains(':') => {
                // Basic authentication ends the user there (RFC 7617).
                return Err(wrong("user", "a user with a colon cannot log in with a password", "use a token or a certificate"));
            }
            (Some(password), None) => Login::Password(password),
            (None, Some(token)) => Login::Token(token),
            (None, None) => Login::None,
        };
        let is_plain = url.scheme() == "http";
        if is_plain && !matches!(login, Login::None) && !written.allow_http && !is_here(&url) {
            let message = "the login would go to another machine in plain text";
            return Err(wrong("url", message, "write https://, or allow_http = true where the network between them is trusted"));
        }
        let certificate = match (written.certificate, written.key) {
            (Some(certificate), Some(key)) => Some((options.base.join(certificate), options.base.join(key))),
            (None, None) => None,
            (Some(_), None) => {
                return Err(wrong("certificate", "the key of the certificate is missing", "add key = … with its file"));
            }
            (None, Some(_)) => {
                return Err(wrong("key", "the certificate of the key is missing", "add certificate = … with its file"));
            }
        };
        let of_tls = [("ca", written.ca.is_some()), ("certificate", certificate.is_some())];
        if let Some((key, _)) = of_tls.into_iter().find(|(_, given)| is_plain && *given) {
            return Err(wrong(key, &format!("\"{key}\" has no meaning over plain http"), "remove it, or write https:// in url"));
        }
        Ok(Self {
            url,
            user: written.user,
            login,
            ca: written.ca.map(|ca| options.base.join(ca)),
            certificate,
            catalog: written.catalog,
            schemas: written.schemas,
            session,
            client_tags: written.client_tags,
            spooling: written.spooling.unwrap_or(true),
            allow_http: written.allow_http,
            connect_timeout,
            read_timeout,
            place: options.key("url"),
        })
    }
}

/// The address of a coordinator, which is a host and no more. Errors: `Invalid` with the key `url`.
fn address(options: &Options, text: &str) -> Result<Url> {
    // The text is not repeated in messages: a password may be somewhere in it.
    let wrong = |message: &str, hint: &str| Err(Error::invalid(message).with_hint(hint).at(options.key("url")));
    const FORM: &str = "write it as https://trino.example.com:8443";
    let Ok(url) = Url::parse(text) else { return wrong("this is no address", FORM) };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("the address starts with neither https:// nor http://", FORM);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(
            "a user in the address is shown where the address is",
            "move it to user = \"…\" and password = \"${env:NAME}\"",
        );
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return wrong("the address has something behind the host", "leave it out; the catalog and others are keys here");
    }
    Ok(url)
}

/// Whether a text can be a header of HTTP, and says something.
fn is_sendable(text: &str) -> bool {
    !text.trim().is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Whether this can be the name of a session property: `query_max_run_time`, or `hive.timestamp_precision` of a catalog.
fn is_property(name: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte));
    name.split('.').all(is_word)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A configuration of a test: an address and a catalog, with what is given besides.
    pub(in super::super) fn configured(more: Value) -> Result<Config> {
        let mut values = json!({ "url": "https://trino.example", "user": "me", "catalog": "lake" });
        values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let values = values.as_object().unwrap().clone();
        Config::parse(&Options { catalog: "shop".into(), base: "/base".into(), values })
    }

    fn refusal(more: Value) -> String {
        configured(more).expect_err("a refusal").to_string()
    }

    #[test]
    fn an_address_a_user_and_a_catalog_are_all_that_is_needed() {
        let config = configured(json!({})).unwrap();
        assert_eq!((config.url.as_str(), config.catalog.as_str()), ("https://trino.example/", "lake"));
        assert!(matches!(config.login, Login::None) && config.spooling && !config.allow_http);
        assert_eq!((config.connect_timeout.as_secs(), config.read_timeout.as_secs()), (10, 60));
        assert_eq!(config.place.to_string(), "catalogs.shop.url");
    }

    #[test]
    fn what_is_given_is_taken() {
        let config = configured(json!({
            "ca": "ca.pem", "certificate": "/c.pem", "key": "k.pem", "client_tags": ["a b"],
            "session": ["lake.x_y = a=b", "query_max_run_time=10m"], "spooling": false,
        }));
        let config = config.unwrap();
        assert_eq!(config.ca, Some("/base/ca.pem".into()));
        assert_eq!(config.certificate, Some(("/c.pem".into(), "/base/k.pem".into())));
        let session = [("lake.x_y", "a=b"), ("query_max_run_time", "10m")];
        assert_eq!(config.session, session.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!config.spooling && config.client_tags == ["a b"]);
    }

    #[test]
    fn a_login_goes_in_plain_text_to_this_machine_only() {
        let plain = |url: &str| json!({ "url": url, "password": "hunter2" });
        for here in ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080", "https://trino.example"] {
            assert!(configured(plain(here)).is_ok(), "{here}");
        }
        insta::assert_snapshot!(refusal(plain("http://trino.example")), @"catalogs.shop.url: the login would go to another machine in plain text; write https://, or allow_http = true where the network between them is trusted");
        let mut allowed = plain("http://trino.example");
        allowed.as_object_mut().unwrap().insert("allow_http".into(), true.into());
        assert!(configured(allowed).is_ok());
        assert!(configured(json!({ "url": "http://trino.example" })).is_ok(), "there is no login");
    }

    #[test]
    fn secrets_are_not_shown() {
        for key in ["password", "token"] {
            let shown = format!("{:?}", configured(json!({ key: "hunter2" })).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let within = refusal(json!({ "url": "https://me:hunter2@trino.example" }));
        assert!(!within.contains("hunter2"), "{within}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let url = |url: &str| refusal(json!({ "url": url }));
        insta::assert_snapshot!(url("trino.example"), @"catalogs.shop.url: this is no address; write it as https://trino.example.com:8443");
        insta::assert_snapshot!(url("jdbc://trino.example"), @"catalogs.shop.url: the address starts with neither https:// nor http://; write it as https://trino.example.com:8443");
        insta::assert_snapshot!(url("https://me@trino.example"), @r#"catalogs.shop.url: a user in the address is shown where the address is; move it to user = "…" and password = "${env:NAME}""#);
        insta::assert_snapshot!(url("https://trino.example/lake"), @"catalogs.shop.url: the address has something behind the host; leave it out; the catalog and others are keys here");
        insta::assert_snapshot!(url("https://trino.example?a=b"), @"catalogs.shop.url: the address has something behind the host; leave it out; the catalog and others are keys here");
        insta::assert_snapshot!(refusal(json!({ "user": "a\nb" })), @"catalogs.shop.user: there is nothing in it, or what no header of HTTP can carry; write it in letters of ASCII");
        insta::assert_snapshot!(refusal(json!({ "catalog": " " })), @"catalogs.shop.catalog: there is nothing in it, or what no header of HTTP can carry; write it in letters of ASCII");
        insta::assert_snapshot!(refusal(json!({ "password": "hunter2", "token": "hunter3" })), @"catalogs.shop.token: there is a password and a token; keep one: the cluster is entered by one of them");
        insta::assert_snapshot!(refusal(json!({ "user": "a:b", "password": "hunter2" })), @"catalogs.shop.user: a user with a colon cannot log in with a password; use a token or a certificate");
        assert!(configured(json!({ "user": "a:b", "token": "hunter2" })).is_ok());
        insta::assert_snapshot!(refusal(json!({ "certificate": "c.pem" })), @"catalogs.shop.certificate: the key of the certificate is missing; add key = … with its file");
        insta::assert_snapshot!(refusal(json!({ "key": "k.pem" })), @"catalogs.shop.key: the certificate of the key is missing; add certificate = … with its file");
        insta::assert_snapshot!(refusal(json!({ "url": "http://h", "ca": "ca.pem" })), @r#"catalogs.shop.ca: "ca" has no meaning over plain http; remove it, or write https:// in url"#);
        insta::assert_snapshot!(refusal(json!({ "session": ["hunter2"] })), @r#"catalogs.shop.session: one of these names no session property; write it as "query_max_run_time=10m""#);
        insta::assert_snapshot!(refusal(json!({ "client_tags": ["a,b"] })), @r#"catalogs.shop.client_tags: "a,b" is no tag; write each one as a text of its own, in letters of ASCII and without a comma"#);
        insta::assert_snapshot!(refusal(json!({ "schemas": [] })), @"catalogs.shop.schemas: no schema is named; name some, or leave it out for all of them");
        insta::assert_snapshot!(refusal(json!({ "read_timeout": 0 })), @"catalogs.shop.read_timeout: read_timeout is not from 1 to 86400; leave it out for 60");
        insta::assert_snapshot!(refusal(json!({ "connect_timeout": 3601 })), @"catalogs.shop.connect_timeout: connect_timeout is not from 1 to 3600; leave it out for 10");
        insta::assert_snapshot!(refusal(json!({ "catalogue": "x" })), @r#"catalogs.shop.catalogue: unknown key "catalogue" for a catalog of kind "trino"; did you mean "catalog"?"#);
    }
}
