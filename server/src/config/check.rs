//! What the types of the configuration cannot say: values that must fit each other or the world.

use std::time::Duration;

use argon2::password_hash::PasswordHash;
use nexus_flight_catalog::error::{list, suggestion};
use nexus_flight_catalog::{Error, Result};
use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use super::{AuthMode, Config, Period, Size};

/// Names that the gateway serves itself.
const RESERVED: [&str; 3] = ["system", "temp", "information_schema"];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The first thing that does not fit.
pub(super) fn check(config: &Config) -> Result<()> {
    listen(config)?;
    location(config)?;
    traces(config)?;
    auth(config)?;
    audit(config)?;
    tickets(config)?;
    limits(config)?;
    log(config)?;
    engines(config)?;
    catalogs(config)
}

fn listen(config: &Config) -> Result<()> {
    let (flight, http) = (config.flight.listen.0, config.http.listen.0);
    if flight == http && flight.port() != 0 {
        let key = if config.places.has("http.listen") { "http.listen" } else { "flight.listen" };
        let message = format!("flight and http cannot both listen at {}", config.places.quote(key, &flight.to_string()));
        return Err(config.places.error(key, message).with_hint("give each its own port"));
    }
    Ok(())
}

/// The schemes that a location of Flight may have (Flight.proto, Location).
const SCHEMES: [&str; 5] = ["grpc", "grpc+tcp", "grpc+tls", "grpc+unix", "arrow-flight-reuse-connection"];

fn location(config: &Config) -> Result<()> {
    let Some(location) = &config.flight.location else { return Ok(()) };
    let places = &config.places;
    if url::Url::parse(location).is_ok_and(|url| SCHEMES.contains(&url.scheme())) {
        return Ok(());
    }
    let message = format!("{} is no location of a Flight server", places.quote("flight.location", location));
    Err(places.error("flight.location", message).with_hint("write it like grpc+tls://gateway.example.com:443, or leave it out"))
}

fn traces(config: &Config) -> Result<()> {
    if (0.0..=1.0).contains(&config.traces.ratio) {
        return Ok(());
    }
    Err(config.places.error("traces.ratio", "a part of all is a number from 0 to 1").with_hint("1 traces every statement"))
}

fn auth(config: &Config) -> Result<()> {
    let places = &config.places;
    match config.auth.mode {
        AuthMode::None => {
            for (key, listen) in [("flight.listen", config.flight.listen), ("http.listen", config.http.listen)] {
                if !listen.0.ip().is_loopback() {
                    let message =
                        format!("{} is open to others while auth.mode is \"none\"", places.quote(key, &listen.to_string()));
                    return Err(places
                        .error(key, message)
                        .with_hint("listen at 127.0.0.1, or set auth.mode = \"basic\" and add [auth.users.NAME]"));
                }
            }
            if !config.auth.users.is_empty() {
                let message = "nobody is asked for a password while auth.mode is \"none\"";
                return Err(places.error("auth.users", message).with_hint("set auth.mode = \"basic\", or remove the users"));
            }
            let others = [
                ("auth.tokens", config.auth.tokens.is_some()),
                ("auth.jwt.issuer", config.auth.jwt.is_some()),
                ("auth.certificates", !config.auth.certificates.is_empty()),
            ];
            if let Some((key, _)) = others.into_iter().find(|(_, is_there)| *is_there) {
                let message = "nobody is asked who they are while auth.mode is \"none\"";
                return Err(places.error(key, message).with_hint("set auth.mode = \"basic\", or remove it"));
            }
        }
        AuthMode::Basic => {
            let auth = &config.auth;
            if auth.users.is_empty() && auth.tokens.is_none() && auth.jwt.is_none() && auth.certificates.is_empty() {
                return Err(places
                    .error("auth.mode", "\"basic\" lets nobody in without users")
                    .with_hint("add [auth.users.NAME]"));
            }
        }
    }
    if let Some(jwt) = &config.auth.jwt {
        for (key, value) in [("issuer", &jwt.issuer), ("audience", &jwt.audience), ("user", &jwt.user)] {
            if value.is_empty() {
                let key = format!("auth.jwt.{key}");
                return Err(places.error(&key, "without it every token would do").with_hint("say which it is"));
            }
        }
        jwt.keys().map_err(|error| config.locate(error))?;
    }
    let has_clients = config.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if has_clients == config.auth.certificates.is_empty() {
        return Err(match has_clients {
            true => places
                .error("tls.clients", "certificates are asked for that nobody has")
                .with_hint("say whose they are under [auth.certificates], or remove this"),
            false => places
                .error("auth.certificates", "no certificate of a client is looked at")
                .with_hint("name the file of those who issue them as tls.clients"),
        });
    }
    if let Some((subject, _)) = config.auth.certificates.iter().find(|(subject, user)| subject.is_empty() || user.is_empty()) {
        return Err(places
            .error("auth.certificates", format!("{subject:?} is not the user of a certificate"))
            .with_hint("write \"CN=etl,O=Example\" = \"etl\""));
    }
    for (name, user) in &config.auth.users {
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            let message = format!("{name:?} cannot be the name of a user");
            return Err(places
                .error("auth.users", message)
                .with_hint("clients send name:password, so a name is not empty and has no \":\""));
        }
        let hash = PasswordHash::new(user.password_hash.expose_secret());
        let whole = hash.is_ok_and(|hash| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some() && hash.salt.is_some());
        if !whole {
            return Err(places
                .error(&format!("auth.users.{name}.password_hash"), "this is not an argon2id hash")
                .with_hint("make one with nexus hash-password; never write the password itself"));
        }
    }
    Ok(())
}

fn audit(config: &Config) -> Result<()> {
    let Some(audit) = &config.audit else { return Ok(()) };
    let least = Size(4 << 10);
    if audit.rotate < least {
        return Err(config
            .places
            .error("audit.rotate", format!("{} holds no records", audit.rotate))
            .with_hint(format!("write {least} or more")));
    }
    if audit.keep == 0 {
        return Err(config.places.error("audit.keep", "0 keeps no records").with_hint("write 1 or more"));
    }
    Ok(())
}

fn tickets(config: &Config) -> Result<()> {
    let keys = &config.tickets.keys;
    for (index, key) in keys.iter().enumerate() {
        let wrong = if key.expose().iter().all(|byte| Some(byte) == key.expose().first()) {
            "anybody can guess this key"
        } else if keys.iter().take(index).any(|earlier| earlier.expose() == key.expose()) {
            "this key is there twice"
        } else {
            continue;
        };
        return Err(config
            .places
            .error("tickets.keys", format!("{wrong} (number {})", index + 1))
            .with_hint("make another with: openssl rand -base64 32"));
    }
    for (key, period) in [
        ("tickets.ttl", config.tickets.ttl),
        ("tickets.session_ttl", config.tickets.session_ttl),
        ("limits.transaction_idle", config.limits.transaction_idle),
        ("limits.connection_age", config.limits.connection_age),
        ("limits.stall", config.limits.stall),
    ] {
        if period < Period(Duration::from_secs(1)) {
            return Err(config
                .places
                .error(key, format!("{period} is over before a client comes back"))
                .with_hint("give it a second at least"));
        }
        if period > LONGEST {
            return Err(config.places.error(key, format!("{period} is too long")).with_hint(format!("write {LONGEST} or less")));
        }
    }
    Ok(())
}

/// The longest that anything a client holds is good for.
const LONGEST: Period = Period(Duration::from_secs(3_650 * 86_400));
/// The deepest statement that the stack of a thread has room for, with as much to spare.
const DEEPEST: u32 = 1_000;

fn limits(config: &Config) -> Result<()> {
    let (limits, cache) = (&config.limits, &config.cache);
    if limits.time < Period(Duration::from_millis(1)) || limits.time > LONGEST {
        return Err(config
            .places
            .error("limits.time", format!("{} is no time for a statement", limits.time))
            .with_hint("write it like 10m or 12h"));
    }
    if limits.grace > Period(Duration::from_secs(86_400)) {
        return Err(config.places.error("limits.grace", format!("{} is too long", limits.grace)).with_hint("write 1d or less"));
    }
    for (key, value) in
        [("limits.concurrency", limits.concurrency), ("limits.tokens", limits.tokens), ("limits.nesting", limits.nesting)]
    {
        if value == 0 {
            return Err(config.places.error(key, "0 lets no statement through").with_hint("write 1 or more"));
        }
    }
    if limits.memory_per_user.is_some_and(|share| share < Size(1 << 20)) {
        return Err(config
            .places
            .error("limits.memory_per_user", "this is too little for any statement")
            .with_hint("write 1MiB or more"));
    }
    if limits.concurrency_per_user == Some(0) {
        return Err(config
            .places
            .error("limits.concurrency_per_user", "0 lets no statement through")
            .with_hint("write 1 or more"));
    }
    if limits.connections == 0 {
        return Err(config.places.error("limits.connections", "0 lets no client in").with_hint("write 1 or more"));
    }
    if limits.nesting > DEEPEST {
        let message = format!("{} is deeper than a thread has room for", limits.nesting);
        return Err(config.places.error("limits.nesting", message).with_hint(format!("write {DEEPEST} or less")));
    }
    let least = [("limits.memory", limits.memory, Size(16 << 20)), ("limits.statement", limits.statement, Size(1 << 10))];
    for (key, size, least) in least {
        if size < least {
            let message = format!("{size} is too little for any statement");
            return Err(config.places.error(key, message).with_hint(format!("write {least} or more")));
        }
    }
    if cache.check > LONGEST {
        let error = config.places.error("cache.check", format!("{} is too long", cache.check));
        return Err(error.with_hint(format!("write {LONGEST} or less")));
    }
    if cache.size.0 > 0 && cache.entry > cache.size {
        let message = format!("one result of {} does not fit into a cache of {}", cache.entry, cache.size);
        return Err(config
            .places
            .error("cache.entry", message)
            .with_hint("keep cache.entry at or below cache.size; cache.size = 0 turns the cache off"));
    }
    Ok(())
}

fn engines(config: &Config) -> Result<()> {
    let (places, engines) = (&config.places, &config.engines);
    if engines.failures == 0 {
        return Err(places.error("engines.failures", "no engine would be asked anything").with_hint("write 1 or more"));
    }
    let (second, day) = (Period(Duration::from_secs(1)), Period(Duration::from_secs(86_400)));
    for (key, period, may_be_zero) in [("engines.probe", engines.probe, true), ("engines.retry", engines.retry, false)] {
        let is_off = may_be_zero && period == Period::default();
        if !is_off && !(second..=day).contains(&period) {
            let off = if may_be_zero { ", or 0s for never" } else { "" };
            let error = places.error(key, format!("an engine cannot be asked each {period}"));
            return Err(error.with_hint(format!("write {second} to {day}{off}")));
        }
    }
    Ok(())
}

fn log(config: &Config) -> Result<()> {
    let (places, level) = (&config.places, &config.log.level);
    let wrong = |what: String| Err(places.error("log.level", what));
    for word in level.split(',').map(str::trim) {
        // A word alone may be the name of a module, which would silence everything else: a mistyped level is more likely.
        let named = !word.contains(['=', '[', ':']);
        if named && !LEVELS.contains(&word.to_lowercase().as_str()) {
            let levels = || format!("the levels are {}; directives look like \"info,h2=warn\"", list(&LEVELS));
            let hint = suggestion(word, &LEVELS, levels);
            return wrong(format!("{} is not a level", places.quote("log.level", word)))
                .map_err(|error: Error| error.with_hint(hint));
        }
    }
    if EnvFilter::try_new(level).is_err() {
        let hint = "directives look like \"info,h2=warn\"";
        return wrong(format!("{} cannot be understood", places.quote("log.level", level)))
            .map_err(|error: Error| error.with_hint(hint));
    }
    Ok(())
}

fn catalogs(config: &Config) -> Result<()> {
    let places = &config.places;
    for name in config.catalogs.keys() {
        let key = format!("catalogs.{name}");
        if RESERVED.contains(&name.as_str()) {
            return Err(places
                .error(&key, "the gateway serves this name itself")
                .with_hint("choose another name for the catalog"));
        }
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(places
                .error("catalogs", format!("{name:?} cannot be the name of a catalog"))
                .with_hint("write [catalogs.NAME]"));
        }
    }
    if config.defaults.schema.is_empty() {
        return Err(places.error("defaults.schema", "a schema has a name").with_hint("write \"main\", or leave the key out"));
    }
    let Some(name) = &config.defaults.catalog else { return Ok(()) };
    if RESERVED[0] != name && !config.catalogs.contains_key(name) {
        let known: Vec<&str> = config.catalogs.keys().map(String::as_str).collect();
        let error = places.error("defaults.catalog", format!("{} is not a catalog here", places.quote("defaults.catalog", name)));
        let there = || match known.as_slice() {
            [] => "add [catalogs.NAME]".to_owned(),
            known => format!("there are {}", list(known)),
        };
        return Err(error.with_hint(suggestion(name, &known, there)));
    }
    Ok(())
}
