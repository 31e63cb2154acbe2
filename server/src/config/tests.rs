//! A whole configuration, its references, its settings and its schema.

use std::path::Path;

use nexus_flight_catalog::{Capabilities, Error, Opt, OptType, Place, Proof, Spec};
use secrecy::ExposeSecret;

use super::{AuthMode, Config, LogFormat, Size, json_schema};

const WHOLE: &str = r#"
[flight]
listen = "0.0.0.0:31337"
[http]
listen = "[::]:8080"
[auth]
mode = "basic"
[auth.users.ann]
password_hash = "${env:ANN}"
[tickets]
keys = ["${env:KEY}"]
ttl = "10m"
[limits]
memory = "2GiB"
statement = 65536
[cache]
size = 0
[log]
format = "json"
level = "info,h2=warn"
[defaults]
catalog = "lake"
schema = "sales"
[catalogs.lake]
kind = "files"
ttl = "5s"
path = "data/${env:PART}/x"
secret_key = "hunter2"
[catalogs.lake.tables.orders]
path = "orders/*.csv"
header = true
[catalogs.odd]
kind = "unheard-of"
password = "hunter2"
"#;

static FILES: Spec = Spec {
    kind: "files",
    summary: "Files in a folder",
    options: &[
        Opt { name: "path", value: OptType::String, required: true, secret: false, help: "The folder" },
        Opt { name: "secret_key", value: OptType::String, required: false, secret: true, help: "The key" },
        Opt { name: "tables", value: OptType::Tables(&[]), required: false, secret: false, help: "Tables" },
    ],
    capabilities: Capabilities::NONE,
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::internal("not opened here")),
};

fn env(name: &str) -> Option<String> {
    match name {
        "ANN" => Some("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObG7yN+Kcj3hI0".into()),
        "KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()),
        // What a reference gives is not looked at again.
        "PART" => Some("${env:ANN}".into()),
        _ => None,
    }
}

fn whole() -> Config {
    Config::parse(WHOLE, Path::new("etc/nexus.toml"), &env).unwrap()
}

#[test]
fn a_whole_configuration_is_read() {
    let config = whole();
    assert_eq!(config.base, Path::new("etc"));
    assert_eq!(config.flight.listen.to_string(), "0.0.0.0:31337");
    assert_eq!(config.auth.mode, AuthMode::Basic);
    assert_eq!(config.auth.users["ann"].password_hash.expose_secret(), env("ANN").unwrap());
    assert_eq!(config.tickets.keys[0].expose(), &std::array::from_fn(|byte| u8::try_from(byte).unwrap()));
    assert_eq!(config.tickets.ttl.0.as_secs(), 600);
    assert_eq!((config.limits.memory, config.limits.statement), (Size(2 << 30), Size(65536)));
    assert_eq!((config.limits.concurrency, config.cache.size), (16, Size(0)));
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "info,h2=warn"));
    let lake = &config.catalogs["lake"];
    assert_eq!((lake.kind.as_str(), lake.ttl.0.as_secs()), ("files", 5));
    let options = config.options("lake", lake);
    assert_eq!((options.catalog.as_str(), options.base.as_path()), ("lake", Path::new("etc")));
    assert_eq!(options.values["path"], "data/${env:ANN}/x");
    assert_eq!(options.values["tables"]["orders"]["header"], true);
    assert!(!options.values.contains_key("kind") && !options.values.contains_key("ttl"));
}

#[test]
fn an_empty_configuration_is_the_default() {
    let config = Config::parse("", Path::new("nexus.toml"), &env).unwrap();
    assert_eq!(config.flight.listen.to_string(), "127.0.0.1:31337");
    assert_eq!((config.auth.mode, config.base.as_path()), (AuthMode::None, Path::new(".")));
    assert!(config.resolved_settings(&[]).iter().all(|setting| setting.default));
    let small = Config::parse("cache.size = '8MiB'", Path::new("nexus.toml"), &env).unwrap();
    assert_eq!(small.cache.entry, Size(8 << 20));
}

#[test]
fn a_file_is_read_and_its_references_start_at_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("level"), "debug\r\n").unwrap();
    let path = folder.path().join("nexus.toml");
    std::fs::write(&path, "[log]\nlevel = \"${file:level}\"").unwrap();
    assert_eq!(Config::load(&path).unwrap().log.level, "debug");
    std::fs::write(&path, "[log]\nlevel = \"${file:.}\"").unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    assert!(said.contains("nexus.toml:2: log.level: the file") && said.contains("it is a folder"), "{said}");
    std::fs::write(folder.path().join("level"), vec![b'a'; (1 << 20) + 1]).unwrap();
    std::fs::write(&path, "[log]\nlevel = \"${file:level}\"").unwrap();
    let said = Config::load(&path).unwrap_err().to_string();
    assert!(said.contains("it is larger than 1 MiB"), "{said}");
}

#[test]
fn what_references_give_is_read_again_for_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let key =
        |byte: u8| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [[byte; 31].as_slice(), &[0]].concat());
    write("level", "debug");
    write("keys", &format!("{}\n", key(1)));
    write("nexus.toml", "[log]\nlevel = \"${file:level}\"\n[tickets]\nkeys = [\"${file:keys}\"]");
    let config = Config::load(&folder.path().join("nexus.toml")).unwrap();
    let again = config.again().unwrap();
    assert!(config.has_files() && again.referenced() == config.referenced() && again.changed(&config).next().is_none());

    // What the file itself says counts from the next start on.
    write("nexus.toml", "nonsense");
    write("keys", &format!("{}\r\n{}\r\n", key(2), key(1)));
    let again = config.again().unwrap();
    assert_ne!(again.referenced(), config.referenced());
    assert_eq!(again.changed(&config).collect::<Vec<_>>(), ["tickets.keys"]);
    assert_eq!(again.tickets.keys.iter().map(|key| key.expose()[0]).collect::<Vec<_>>(), [2, 1]);

    let said = |name: &str, text: &str| {
        write(name, text);
        config.again().unwrap_err().to_string().replace(&folder.path().display().to_string(), "")
    };
    insta::assert_snapshot!(said("keys", "hunter2"), @"/nexus.toml:4: tickets.keys: the value of its reference is not valid (from /keys); make one with: openssl rand -base64 32");
    insta::assert_snapshot!(said("keys", &format!("{}\n{}", key(1), key(1))), @"/nexus.toml:4: tickets.keys: this key is there twice (number 2) (from /keys); make another with: openssl rand -base64 32");
    insta::assert_snapshot!(said("level", "\n"), @"/nexus.toml:2: log.level: the file /level is empty; write the value into it");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(&folder.path().join("none.toml")).unwrap_err();
    assert_eq!(missing.message(), "the configuration cannot be read: no such file or directory");
    let path = folder.path().join("nexus.toml");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    let binary = Config::load(&path).unwrap_err();
    assert_eq!(binary.message(), "the configuration cannot be read: stream did not contain valid UTF-8");
}

#[test]
fn nothing_shows_a_secret() {
    let config = whole();
    let shown = format!("{config:?} {:?}", config.resolved_settings(&[&FILES]));
    for secret in ["hunter2", "argon2id", "AAEC"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn settings_are_flat_and_say_what_is_set() {
    let settings = whole().resolved_settings(&[&FILES]);
    let shown: Vec<String> = settings
        .iter()
        .filter(|setting| !setting.default || setting.key.starts_with("limits.q"))
        .map(|setting| format!("{}={}{}", setting.key, setting.value, if setting.default { " (default)" } else { "" }))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    auth.mode=basic
    auth.users.ann.password_hash=***
    cache.size=0
    catalogs.lake.kind=files
    catalogs.lake.path=***
    catalogs.lake.secret_key=***
    catalogs.lake.tables.orders.header=true
    catalogs.lake.tables.orders.path=orders/*.csv
    catalogs.lake.ttl=5s
    catalogs.odd.kind=unheard-of
    catalogs.odd.password=***
    defaults.catalog=lake
    defaults.schema=sales
    flight.listen=0.0.0.0:31337
    http.listen=[::]:8080
    limits.memory=2GiB
    limits.queue=64 (default)
    limits.queue_wait=30s (default)
    limits.statement=64KiB
    log.format=json
    log.level=info,h2=warn
    tickets.keys=***
    tickets.ttl=10m
    ");
}

#[test]
fn the_error_of_a_connector_gets_its_line() {
    let error = Error::invalid("unknown key").with_hint("did you mean \"path\"?").at(Place::Key("catalogs.odd.password".into()));
    insta::assert_snapshot!(whole().locate(error), @r#"etc/nexus.toml:34: catalogs.odd.password: unknown key; did you mean "path"?"#);
    let elsewhere = Error::invalid("no such folder").at(Place::Key("catalogs.odd.missing".into()));
    insta::assert_snapshot!(whole().locate(elsewhere), @"etc/nexus.toml:32: catalogs.odd.missing: no such folder");
    assert_eq!(whole().locate(Error::invalid("as it is")).to_string(), "as it is");
}

#[test]
fn the_schema_describes_every_key() {
    let schema = json_schema(&[&FILES]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let files = &schema["properties"]["catalogs"]["additionalProperties"]["oneOf"][0];
    assert_eq!(files["properties"]["kind"]["const"], "files");
    assert_eq!(files["required"], serde_json::json!(["kind", "path"]));
    assert_eq!(files["properties"]["secret_key"]["writeOnly"], true);
    for (section, key) in
        [("flight", "listen"), ("limits", "queue_wait"), ("tickets", "keys"), ("log", "format"), ("cache", "entry")]
    {
        let section = &schema["properties"][section];
        let name = section["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let described = &schema["$defs"][name]["properties"][key];
        assert!(described["description"].is_string(), "{section} {key}: {described}");
        assert!(!described["default"].is_null(), "{section} {key}: {described}");
    }
}
