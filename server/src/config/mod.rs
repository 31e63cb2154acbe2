//! The configuration: one TOML file, read once at the start; a mistake in it names file, line, key, reason and fix. What its references
//! give is read again.

#[cfg(test)]
mod broken;
mod check;
mod jwt;
mod load;
mod policy;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexus_flight_catalog::{Error, Options, Place, Result};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use jwt::{Jwt, KeysOf};
pub use nexus_flight_catalog::quantity::Size;
pub use policy::policies;
pub use schema::json_schema;
pub use settings::Setting;
pub use tokens::{TokenText, Tokens};
pub use values::{Listen, Period, TicketKey};

use crate::reload::Seen;

/// The configuration of the gateway.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "nexus-gateway configuration")]
pub struct Config {
    /// The Flight SQL endpoint.
    pub flight: Flight,
    /// The HTTP endpoint: statements, health, metrics.
    pub http: Http,
    /// The certificate of both ports; without one they are plain.
    pub tls: Option<Tls>,
    /// Who may come in.
    pub auth: Auth,
    /// Who may do what; without it all who come in may do everything.
    pub policy: Option<PolicyFile>,
    /// The record of all statements; without it there is none but the log.
    pub audit: Option<Audit>,
    /// The sealed values that clients carry between calls.
    pub tickets: Tickets,
    /// Bounds that hold for everybody.
    pub limits: Limits,
    /// The cache of results.
    pub cache: Cache,
    /// What is written to standard error.
    pub log: Log,
    /// Where spans go.
    pub traces: Traces,
    /// Where a session starts.
    pub defaults: Defaults,
    /// When engines are asked how they are, and when no more.
    pub engines: Engines,
    /// The sources, each under the name of its catalog.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub catalogs: BTreeMap<String, Catalog>,
    /// The folder of the file, where relative paths start.
    #[serde(skip)]
    pub base: PathBuf,
    #[serde(skip)]
    places: load::Places,
}

/// `[flight]`: the Flight SQL endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Flight {
    /// The address of the gRPC server.
    pub listen: Listen,
    /// Where clients shall fetch answers, such as `grpc+tls://gateway.example.com:443`. Without it, where they asked.
    pub location: Option<String>,
}

impl Default for Flight {
    fn default() -> Self {
        Self { listen: Listen(([127, 0, 0, 1], 31337).into()), location: None }
    }
}

/// `[http]`: the HTTP endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address of the HTTP server.
    pub listen: Listen,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: Listen(([127, 0, 0, 1], 8080).into()) }
    }
}

/// `[tls]`: the certificate of both ports. The files are read again when they change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate with those that it was issued by, in PEM; relative paths start at the folder of this file.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Who issues the certificates of clients, in PEM; with it clients may show one, and `auth.certificates` says whose it is.
    pub clients: Option<PathBuf>,
}

/// `[auth]`: who may come in.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// How clients say who they are.
    pub mode: AuthMode,
    /// The users of mode "basic", by name.
    pub users: BTreeMap<String, User>,
    /// A file of API tokens, which is read again when it changes; a relative path starts at the folder of this file.
    pub tokens: Option<PathBuf>,
    /// The issuer whose JSON Web Tokens are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// The users of client certificates, by the subject of the certificate as RFC 4514 writes it: `CN=etl,O=Example`.
    pub certificates: BTreeMap<String, String>,
}

/// How clients say who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Everybody is "anonymous"; only on loopback addresses.
    #[default]
    None,
    /// With a name and a password from `auth.users`, an API token, a JSON Web Token, or a client certificate.
    Basic,
}

/// `[auth.users.NAME]`: one user.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The argon2id hash of the password: "$argon2id$v=19$m=…".
    #[serde(serialize_with = "masked")]
    #[schemars(with = "String")]
    pub password_hash: SecretString,
}

/// `[policy]`: who may do what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The file with the rules, which is read again when it changes; a relative path starts at the folder of this file.
    pub file: PathBuf,
}

/// `[audit]`: the record of all statements.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The folder that it is written in, by one gateway alone; a relative path starts at the folder of this file.
    pub folder: PathBuf,
    /// 32 bytes in base64, without which nobody can make records that pass for those of the gateway.
    pub key: Option<TicketKey>,
    /// The size at which another file is begun.
    #[serde(default = "rotate")]
    #[schemars(schema_with = "values::size_schema")]
    pub rotate: Size,
    /// The files that are kept.
    #[serde(default = "keep")]
    pub keep: u32,
    /// Whether the values in statements are left out, here, in the log and in `system.queries`.
    #[serde(default)]
    pub redact: bool,
}

fn rotate() -> Size {
    Size(64 << 20)
}

fn keep() -> u32 {
    100
}

/// `[tickets]`: the sealed values that clients carry between calls.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tickets {
    /// 32 bytes each, in base64, or several of them in the lines of a text. The first seals, all open. Without any, each process makes
    /// its own, so that tickets and sessions end with it and no other replica takes them.
    #[serde(deserialize_with = "values::keys")]
    pub keys: Vec<TicketKey>,
    /// How long a ticket is good for.
    pub ttl: Period,
    /// How long a session and its token are good for.
    pub session_ttl: Period,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { keys: Vec::new(), ttl: Period(Duration::from_secs(300)), session_ttl: Period(Duration::from_secs(86_400)) }
    }
}

/// `[limits]`: bounds that hold for everybody.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for the operators of all statements together.
    #[schemars(schema_with = "values::size_schema")]
    pub memory: Size,
    /// Memory for the statements of one user. Three quarters of `memory` where it is not set, and all where nobody is asked who they are.
    #[schemars(schema_with = "values::size_schema")]
    pub memory_per_user: Option<Size>,
    /// Connections at once to each port; the next one waits.
    pub connections: u32,
    /// How long a connection is used for new calls; what runs on it then goes on to its end.
    pub connection_age: Period,
    /// Statements that run at once.
    pub concurrency: u32,
    /// Statements of one user that run at once. Three quarters of `concurrency` where it is not set, and all where nobody is asked
    /// who they are.
    pub concurrency_per_user: Option<u32>,
    /// Statements that wait for their turn; the next one is refused.
    pub queue: u32,
    /// The longest wait for a turn.
    pub queue_wait: Period,
    /// How long one statement may take, to the last of its rows.
    pub time: Period,
    /// How long a client may take none of the rows of a statement before it is ended.
    pub stall: Period,
    /// How long running statements may go on when the gateway is told to stop.
    pub grace: Period,
    /// Tokens in one statement.
    pub tokens: u32,
    /// Depth of nesting in one statement.
    pub nesting: u32,
    /// How long a transaction may be left alone before it is rolled back.
    pub transaction_idle: Period,
    /// Memory for the temporary tables of one session; at most 32 sessions have some at once, of one user 24.
    #[schemars(schema_with = "values::size_schema")]
    pub temporary: Size,
    /// Length of one statement.
    #[schemars(schema_with = "values::size_schema")]
    pub statement: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: Size(1 << 30),
            memory_per_user: None,
            connections: 1_000,
            connection_age: Period(Duration::from_secs(24 * 3_600)),
            concurrency: 16,
            concurrency_per_user: None,
            queue: 64,
            queue_wait: Period(Duration::from_secs(30)),
            time: Period(Duration::from_secs(12 * 3_600)),
            stall: Period(Duration::from_secs(900)),
            grace: Period(Duration::from_secs(10)),
            tokens: 100_000,
            nesting: 400,
            transaction_idle: Period(Duration::from_secs(300)),
            temporary: Size(64 << 20),
            statement: Size(1 << 20),
        }
    }
}

/// `[cache]`: the cache of results.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Memory for all results, a quarter of it for what Flight sends of them; 0 turns the cache off.
    #[schemars(schema_with = "values::size_schema")]
    pub size: Size,
    /// The largest result that is kept, three quarters of `size` at most; `size` where the default would be more.
    #[schemars(schema_with = "values::size_schema")]
    pub entry: Size,
    /// For how long the version of a table is taken as it was looked up, for a result that is kept; 0 = it is looked up for each statement.
    pub check: Period,
}

impl Default for Cache {
    fn default() -> Self {
        Self { size: Size(256 << 20), entry: Size(32 << 20), check: Period(Duration::from_secs(1)) }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// "error", "warn", "info", "debug", "trace", "off", or directives such as "info,h2=warn".
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[traces]`: spans for a collector of OpenTelemetry.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// The address of the collector's OTLP service over gRPC. Without it there are no spans.
    pub endpoint: Option<String>,
    /// How many of the statements that belong to no trace of their client have one, from 0 to 1.
    pub ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, ratio: 1.0 }
    }
}

/// `[defaults]`: where a session starts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The catalog of names that say none. Without it the only catalog, where there is just one.
    pub catalog: Option<String>,
    /// The schema of names that say none.
    pub schema: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { catalog: None, schema: "main".to_owned() }
    }
}

/// `[engines]`: when the engines behind catalogs are asked how they are, and when nothing more is asked of one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engines {
    /// How often one is asked how it is while statements come; 0 = only where statements fail, and when it is tried again.
    pub probe: Period,
    /// How often it may fail to answer, one time after the other, until nothing more is asked of it.
    pub failures: u32,
    /// When it is tried again then.
    pub retry: Period,
}

impl Default for Engines {
    fn default() -> Self {
        Self { probe: Period(Duration::from_secs(15)), failures: 3, retry: Period(Duration::from_secs(30)) }
    }
}

/// `[catalogs.NAME]`: a source. Every key but `kind`, `ttl`, `stale` and `writable` is an option of its kind.
#[derive(Clone)]
pub struct Catalog {
    /// Which connector.
    pub kind: String,
    /// How old a cached result may be where the source cannot say whether its tables changed; 0 = nothing is cached.
    pub ttl: Period,
    /// For how long a cached result may be given out of date, while it is made anew.
    pub stale: Period,
    /// Whether statements may write to it.
    pub writable: bool,
    options: serde_json::Map<String, serde_json::Value>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.options.keys().collect();
        f.debug_struct("Catalog")
            .field("kind", &self.kind)
            .field("ttl", &self.ttl)
            .field("stale", &self.stale)
            .field("writable", &self.writable)
            .field("options", &keys)
            .finish()
    }
}

impl Catalog {
    /// Whether another one is of the same kind and has the same options.
    pub fn opens_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.options == other.options
    }
}

/// By hand, since serde's `flatten` would lose where the keys stand.
impl<'de> Deserialize<'de> for Catalog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Catalog;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Catalog, A::Error> {
                let (mut kind, mut ttl, mut stale, mut writable) = (None, Period::default(), Period::default(), false);
                let mut options = serde_json::Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "kind" => kind = Some(map.next_value()?),
                        "ttl" => ttl = map.next_value()?,
                        "stale" => stale = map.next_value()?,
                        "writable" => writable = map.next_value()?,
                        _ => {
                            let value = map.next_value()?;
                            options.insert(key, value);
                        }
                    }
                }
                let kind = kind.ok_or_else(|| de::Error::missing_field("kind"))?;
                Ok(Catalog { kind, ttl, stale, writable, options })
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

impl Config {
    /// Reads a file. Errors: `Invalid` with the file and line as its place and the key first in its message.
    pub fn load(path: &Path) -> Result<Config> {
        let text = load::read(path).map_err(|cause| {
            Error::invalid(format!("the configuration cannot be read: {}", load::reason(&cause)))
                .with_hint("give its path with --config")
                .at(Place::File { path: path.display().to_string(), line: None })
        })?;
        Config::parse(&text, path, &|name| std::env::var(name).ok())
    }

    /// The same text, read anew with what its references give now. Errors: as of [`Config::load`].
    pub fn again(&self) -> Result<Config> {
        Config::parse(&self.places.text, &self.places.file, &|name| std::env::var(name).ok())
    }

    /// Whether any value came out of a file, so that it may change.
    pub fn has_files(&self) -> bool {
        self.places.has_files()
    }

    /// What all references gave.
    pub fn referenced(&self) -> Seen {
        self.places.seen()
    }

    /// The keys whose references give something else than they did when the same text was read before.
    pub fn changed<'a>(&'a self, before: &'a Config) -> impl Iterator<Item = &'a str> {
        self.places.changed(&before.places)
    }

    /// Reads a text that stands in a file at `path`, with the environment that `env` looks up.
    pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let base = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let (config, places) = load::parse::<Config>(text, path, &base, env)?;
        let mut config = Config { base, places, ..config };
        if !config.places.has("cache.entry") {
            // Who makes the cache smaller need not know about the other key.
            config.cache.entry = config.cache.entry.min(config.cache.size);
        }
        check::check(&config)?;
        Ok(config)
    }

    /// The statements of one user that run at once.
    pub fn share(&self) -> usize {
        self.limits
            .concurrency_per_user
            .map_or_else(|| self.usual_share(self.limits.concurrency as usize), |share| share as usize)
    }

    /// The bytes that the statements of one user take at once.
    pub fn memory_share(&self) -> usize {
        self.limits.memory_per_user.map_or_else(|| self.usual_share(self.limits.memory.bytes()), |share| share.bytes())
    }

    /// So much of something that others find some of it left. Where nobody is asked who they are there are no others.
    fn usual_share(&self, all: usize) -> usize {
        match self.auth.mode {
            AuthMode::None => all,
            AuthMode::Basic => all - all / 4,
        }
    }

    /// The options of a catalog, as its connector takes them.
    pub fn options(&self, name: &str, catalog: &Catalog) -> Options {
        Options { catalog: name.to_owned(), base: self.base.clone(), values: catalog.options.clone() }
    }

    /// Where a key stands: `catalogs.lake.path`.
    pub fn place(&self, key: &str) -> Place {
        self.places.of(key)
    }

    /// An error whose place is a key, with the file and line of that key instead, and without what came out of references.
    /// Other errors stay as they are.
    pub fn locate(&self, error: Error) -> Error {
        let Some(Place::Key(key)) = error.place() else { return error };
        let message = format!("{key}: {}{}", error.message(), self.places.origin(key));
        let message = self.places.without_references(&message);
        let located = Error::new(error.kind(), message).at(self.place(key)).with_retryable(error.retryable());
        match error.hint() {
            Some(hint) => located.with_hint(self.places.without_references(hint)),
            None => located,
        }
    }
}

fn masked<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}
