//! Broken configurations, and what is said of each: file, line, key, reason and fix, and never a secret.

use std::path::Path;

use insta::assert_snapshot;

use super::Config;
use crate::kinds;

#[test]
fn engines_that_would_be_asked_nothing_or_too_much() {
    assert_snapshot!(broken("[engines]\nfailures = 0"), @"nexus.toml:2: engines.failures: no engine would be asked anything; write 1 or more");
    assert_snapshot!(broken("[engines]\nprobe = '2d'"), @"nexus.toml:2: engines.probe: an engine cannot be asked each 2d; write 1s to 1d, or 0s for never");
    assert_snapshot!(broken("[engines]\nretry = '0s'"), @"nexus.toml:2: engines.retry: an engine cannot be asked each 0s; write 1s to 1d");
}

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObG7yN+Kcj3hI0";

/// What is said of a configuration that is broken.
fn broken(text: &str) -> String {
    let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    let said = match Config::parse(&text.replace("HASH", HASH), Path::new("nexus.toml"), &env) {
        Err(error) => error.to_string(),
        // What connectors say of their options.
        Ok(config) => {
            let mut opened = config.catalogs.iter().map(|(name, catalog)| {
                kinds::open(&catalog.kind, &config.options(name, catalog)).err().map(|error| config.locate(error))
            });
            opened.find_map(|error| error).expect("nothing is broken").to_string()
        }
    };
    assert!(!said.contains("hunter2"), "a secret is shown: {said}");
    said
}

#[test]
fn not_toml() {
    assert_snapshot!(broken("[flight\nlisten = 1"), @"nexus.toml:1: not valid TOML: unclosed table, expected `]`");
}

#[test]
fn a_key_twice() {
    assert_snapshot!(broken("[flight]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'"), @"nexus.toml:3: not valid TOML: duplicate key");
}

#[test]
fn a_string_that_does_not_end() {
    assert_snapshot!(broken("[log]\nlevel = \"info\n"), @r#"nexus.toml:2: not valid TOML: invalid basic string, expected `"`"#);
}

#[test]
fn a_table_that_is_unknown() {
    assert_snapshot!(broken("[fligth]\nlisten = '127.0.0.1:1'"), @r#"nexus.toml:1: fligth: unknown key; did you mean "flight"?"#);
}

#[test]
fn a_top_level_key_that_is_unknown() {
    assert_snapshot!(broken("listen = '127.0.0.1:1'"), @r#"nexus.toml:1: listen: unknown key; the keys here are "flight", "http", "tls", "auth", "policy", "audit", "tickets", "limits", "cache", "log" and 4 more"#);
}

#[test]
fn a_key_that_is_nearly_known() {
    assert_snapshot!(broken("[flight]\n\nlisen = '127.0.0.1:1'"), @r#"nexus.toml:3: flight.lisen: unknown key; did you mean "listen"?"#);
}

#[test]
fn a_key_that_is_like_nothing() {
    assert_snapshot!(broken("[cache]\nwibble = 1"), @r#"nexus.toml:2: cache.wibble: unknown key; the keys here are "size", "entry", "check""#);
}

#[test]
fn a_table_in_place_of_a_value() {
    assert_snapshot!(broken("[flight.listen]\nport = 1"), @r#"nexus.toml:1: flight.listen: an address such as "127.0.0.1:31337" is needed here, not a table"#);
}

#[test]
fn a_value_in_place_of_a_table() {
    assert_snapshot!(broken("flight = '127.0.0.1:1'"), @"nexus.toml:1: flight: a table is needed here, not a string");
}

#[test]
fn an_address_without_a_port() {
    assert_snapshot!(broken("[flight]\nlocation = 'gateway.example.com:443'"), @r#"nexus.toml:2: flight.location: "gateway.example.com:443" is no location of a Flight server; write it like grpc+tls://gateway.example.com:443, or leave it out"#);
    assert_snapshot!(broken("[traces]\nratio = 2.0"), @"nexus.toml:2: traces.ratio: a part of all is a number from 0 to 1; 1 traces every statement");
    assert_snapshot!(broken("[flight]\nlisten = '127.0.0.1'"), @r#"nexus.toml:2: flight.listen: "127.0.0.1" is not an address to listen at; write an IP address and a port, such as "127.0.0.1:31337" or "[::]:31337""#);
}

#[test]
fn an_address_with_a_host_name() {
    assert_snapshot!(broken("[http]\nlisten = 'localhost:8080'"), @r#"nexus.toml:2: http.listen: "localhost:8080" is not an address to listen at; write an IP address and a port, such as "127.0.0.1:31337" or "[::]:31337""#);
}

#[test]
fn an_address_that_is_a_number() {
    assert_snapshot!(broken("[http]\nlisten = 8080"), @r#"nexus.toml:2: http.listen: "8080" is not an address to listen at; write an IP address and a port, such as "127.0.0.1:31337" or "[::]:31337""#);
}

#[test]
fn one_address_twice() {
    assert_snapshot!(broken("[http]\nlisten = '127.0.0.1:31337'"), @r#"nexus.toml:2: http.listen: flight and http cannot both listen at "127.0.0.1:31337"; give each its own port"#);
}

#[test]
fn open_to_all_without_auth() {
    assert_snapshot!(broken("[flight]\nlisten = '0.0.0.0:31337'"), @r#"nexus.toml:2: flight.listen: "0.0.0.0:31337" is open to others while auth.mode is "none"; listen at 127.0.0.1, or set auth.mode = "basic" and add [auth.users.NAME]"#);
}

#[test]
fn tokens_while_nobody_is_asked() {
    assert_snapshot!(broken("[auth]\ntokens = 't.toml'"), @r#"nexus.toml:2: auth.tokens: nobody is asked who they are while auth.mode is "none"; set auth.mode = "basic", or remove it"#);
}

#[test]
fn certificates_that_nobody_has() {
    assert_snapshot!(broken("[tls]\ncertificate = 'a'\nkey = 'b'\nclients = 'c'"), @"nexus.toml:4: tls.clients: certificates are asked for that nobody has; say whose they are under [auth.certificates], or remove this");
}

#[test]
fn certificates_that_nobody_looks_at() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.certificates]\n'CN=a' = 'a'"), @"nexus.toml:3: auth.certificates: no certificate of a client is looked at; name the file of those who issue them as tls.clients");
}

#[test]
fn http_open_to_all_without_auth() {
    assert_snapshot!(broken("[http]\nlisten = '[::]:8080'"), @r#"nexus.toml:2: http.listen: "[::]:8080" is open to others while auth.mode is "none"; listen at 127.0.0.1, or set auth.mode = "basic" and add [auth.users.NAME]"#);
}

#[test]
fn a_mode_that_is_nearly_known() {
    assert_snapshot!(broken("# auth\n[auth]\nmode = 'baisc'"), @r#"nexus.toml:3: auth.mode: unknown value "baisc"; did you mean "basic"?"#);
}

#[test]
fn a_mode_that_is_like_nothing() {
    assert_snapshot!(broken("[auth]\nmode = 'kerberos'"), @r#"nexus.toml:2: auth.mode: unknown value "kerberos"; the values are "none", "basic""#);
}

#[test]
fn a_mode_of_the_wrong_type() {
    assert_snapshot!(broken("[auth]\nmode = true"), @"nexus.toml:2: auth.mode: a string is needed here");
}

#[test]
fn basic_without_users() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'"), @r#"nexus.toml:2: auth.mode: "basic" lets nobody in without users; add [auth.users.NAME]"#);
}

#[test]
fn users_without_basic() {
    assert_snapshot!(broken("[auth.users.ann]\npassword_hash = 'HASH'"), @r#"nexus.toml:1: auth.users: nobody is asked for a password while auth.mode is "none"; set auth.mode = "basic", or remove the users"#);
}

#[test]
fn a_user_without_a_hash() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]"), @r#"nexus.toml:3: auth.users.ann: the key "password_hash" is missing; add password_hash = …"#);
}

#[test]
fn a_password_in_place_of_its_hash() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = 'hunter2'"), @"nexus.toml:4: auth.users.ann.password_hash: this is not an argon2id hash; make one with nexus hash-password; never write the password itself");
}

#[test]
fn a_hash_of_another_kind() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = '$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObG7yN+Kcj3hI0'"), @"nexus.toml:4: auth.users.ann.password_hash: this is not an argon2id hash; make one with nexus hash-password; never write the password itself");
}

#[test]
fn a_password_of_the_wrong_type() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = ['hunter2']"), @"nexus.toml:4: auth.users.ann.password_hash: a string is needed here, not an array");
}

#[test]
fn a_user_with_a_colon() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.'a:b']\npassword_hash = 'HASH'"), @r#"nexus.toml:3: auth.users: "a:b" cannot be the name of a user; clients send name:password, so a name is not empty and has no ":""#);
}

#[test]
fn a_password_under_an_unknown_key() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword = 'hunter2'"), @r#"nexus.toml:4: auth.users.ann.password: unknown key; did you mean "password_hash"?"#);
}

#[test]
fn a_ticket_key_too_short() {
    assert_snapshot!(broken("[tickets]\nkeys = [\n  'c2hvcnQ=',\n]"), @"nexus.toml:2: tickets.keys: a key is 32 bytes in base64; make one with: openssl rand -base64 32");
}

#[test]
fn ticket_keys_that_are_no_list() {
    assert_snapshot!(broken("[tickets]\nkeys = 'c2hvcnQ='"), @"nexus.toml:2: tickets.keys: an array is needed here, not a string");
}

#[test]
fn a_duration_without_a_unit() {
    assert_snapshot!(broken("[tickets]\nttl = '5'"), @r#"nexus.toml:2: tickets.ttl: "5" is not a duration; write it like "250ms", "30s", "5m", "1h" or "7d""#);
}

#[test]
fn a_stall_that_ends_whoever_pauses() {
    assert_snapshot!(broken("[limits]\nstall = '0s'"), @"nexus.toml:2: limits.stall: 0s is over before a client comes back; give it a second at least");
}

#[test]
fn a_connection_that_is_old_when_it_is_made() {
    assert_snapshot!(broken("[limits]\nconnection_age = '0s'"), @"nexus.toml:2: limits.connection_age: 0s is over before a client comes back; give it a second at least");
}

#[test]
fn a_duration_that_is_a_number() {
    assert_snapshot!(broken("[tickets]\nttl = 5"), @r#"nexus.toml:2: tickets.ttl: "5" is not a duration; write it like "250ms", "30s", "5m", "1h" or "7d""#);
}

#[test]
fn a_session_that_ends_at_once() {
    assert_snapshot!(broken("[tickets]\nsession_ttl = '10ms'"), @"nexus.toml:2: tickets.session_ttl: 10ms is over before a client comes back; give it a second at least");
}

#[test]
fn a_size_of_an_unknown_unit() {
    assert_snapshot!(broken("[limits]\nmemory = '1Gig'"), @r#"nexus.toml:2: limits.memory: "1Gig" is not a size; write it like "256MiB", "1GB" or 1048576"#);
}

#[test]
fn a_size_below_nothing() {
    assert_snapshot!(broken("[limits]\nmemory = -1"), @r#"nexus.toml:2: limits.memory: "-1" is not a size; write it like "256MiB", "1GB" or 1048576"#);
}

#[test]
fn too_little_memory() {
    assert_snapshot!(broken("[limits]\nmemory = '1MiB'"), @"nexus.toml:2: limits.memory: 1MiB is too little for any statement; write 16MiB or more");
}

#[test]
fn a_count_below_nothing() {
    assert_snapshot!(broken("[limits]\nconcurrency = -1"), @"nexus.toml:2: limits.concurrency: the number is out of range; write a whole number that is not negative");
}

#[test]
fn a_count_that_is_a_fraction() {
    assert_snapshot!(broken("[limits]\nqueue = 1.5"), @"nexus.toml:2: limits.queue: a whole number is needed here, not a fraction");
}

#[test]
fn a_count_that_is_text() {
    assert_snapshot!(broken("[limits]\ntokens = '100'"), @"nexus.toml:2: limits.tokens: a whole number is needed here, not a string");
}

#[test]
fn no_statement_at_once() {
    assert_snapshot!(broken("[limits]\nconcurrency = 0"), @"nexus.toml:2: limits.concurrency: 0 lets no statement through; write 1 or more");
}

#[test]
fn an_entry_above_the_cache() {
    assert_snapshot!(broken("[cache]\ncheck = '4000d'"), @"nexus.toml:2: cache.check: 4000d is too long; write 3650d or less");
    assert_snapshot!(broken("[cache]\nsize = '8MiB'\nentry = '9MiB'"), @"nexus.toml:3: cache.entry: one result of 9MiB does not fit into a cache of 8MiB; keep cache.entry at or below cache.size; cache.size = 0 turns the cache off");
}

#[test]
fn a_level_that_is_nearly_known() {
    assert_snapshot!(broken("[log]\nlevel = 'inof'"), @r#"nexus.toml:2: log.level: "inof" is not a level; did you mean "info"?"#);
}

#[test]
fn a_directive_that_is_none() {
    assert_snapshot!(broken("[log]\nlevel = 'info,h2=loud'"), @r#"nexus.toml:2: log.level: "info,h2=loud" cannot be understood; directives look like "info,h2=warn""#);
}

#[test]
fn a_catalog_without_a_kind() {
    assert_snapshot!(broken("[catalogs.lake]\nurl = 'data'"), @r#"nexus.toml:1: catalogs.lake: the key "kind" is missing; add kind = …"#);
}

#[test]
fn a_catalog_that_is_no_table() {
    assert_snapshot!(broken("[catalogs]\nlake = 'data'"), @"nexus.toml:2: catalogs.lake: a table is needed here, not a string");
}

#[test]
fn a_catalog_with_a_reserved_name() {
    assert_snapshot!(broken("[catalogs.system]\nkind = 'files'"), @"nexus.toml:1: catalogs.system: the gateway serves this name itself; choose another name for the catalog");
}

#[test]
fn a_catalog_without_a_name() {
    assert_snapshot!(broken("[catalogs.'']\nkind = 'files'"), @r#"nexus.toml:1: catalogs: "" cannot be the name of a catalog; write [catalogs.NAME]"#);
}

#[test]
fn a_catalog_with_a_wrong_ttl() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nttl = 'soon'"), @r#"nexus.toml:3: catalogs.lake.ttl: "soon" is not a duration; write it like "250ms", "30s", "5m", "1h" or "7d""#);
}

#[test]
fn a_bare_date() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nsince = 2026-01-01"), @"nexus.toml:3: catalogs.lake.since: a bare date is no value here; put it between quotes");
}

#[test]
fn a_default_catalog_that_is_missing() {
    assert_snapshot!(broken("[defaults]\ncatalog = 'lke'\n[catalogs.lake]\nkind = 'files'"), @r#"nexus.toml:2: defaults.catalog: "lke" is not a catalog here; did you mean "lake"?"#);
}

#[test]
fn an_environment_variable_that_is_not_set() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nsecret_key = '${env:NOT_SET}'"), @"nexus.toml:3: catalogs.lake.secret_key: the environment variable NOT_SET is not set; set it where the gateway starts");
}

#[test]
fn a_file_that_is_missing() {
    assert_snapshot!(broken("[tickets]\nkeys = ['${file:missing.key}']"), @"nexus.toml:2: tickets.keys: the file ./missing.key cannot be read: no such file or directory; the path starts at the folder of the configuration file");
}

#[test]
fn a_reference_of_an_unknown_kind() {
    assert_snapshot!(broken("[log]\nlevel = '${vault:level}'"), @"nexus.toml:2: log.level: an unknown kind of reference; a reference is ${env:NAME} or ${file:PATH}");
}

#[test]
fn a_reference_that_does_not_end() {
    assert_snapshot!(broken("[log]\nlevel = 'a${env:LEVEL'"), @r#"nexus.toml:2: log.level: "${" without its "}"; a reference is ${env:NAME} or ${file:PATH}"#);
}

#[test]
fn a_reference_to_a_wrong_value() {
    assert_snapshot!(broken("[limits]\nmemory = '${env:SECRET}'"), @r#"nexus.toml:2: limits.memory: the value of its reference is not valid; write it like "256MiB", "1GB" or 1048576"#);
}

#[test]
fn a_reference_to_a_wrong_mode() {
    assert_snapshot!(broken("[auth]\nmode = '${env:SECRET}'"), @r#"nexus.toml:2: auth.mode: the value of its reference is not valid; the values are "none", "basic""#);
}

#[test]
fn a_reference_to_a_wrong_level() {
    assert_snapshot!(broken("[log]\nlevel = '${env:SECRET}'"), @r#"nexus.toml:2: log.level: the value of its reference is not a level; the levels are "off", "error", "warn", "info", "debug", "trace"; directives look like "info,h2=warn""#);
}

#[test]
fn a_reference_to_a_wrong_catalog() {
    assert_snapshot!(broken("[defaults]\ncatalog = '${env:SECRET}'"), @"nexus.toml:2: defaults.catalog: the value of its reference is not a catalog here; add [catalogs.NAME]");
}

#[test]
fn an_option_of_the_wrong_type() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\nschema = 5"), @"nexus.toml:4: catalogs.lake.schema: a string is needed here, not an integer; it is the name of the schema that holds the tables; main if not given");
}

#[test]
fn an_option_that_is_unknown() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocatoin = 'data'"), @r#"nexus.toml:3: catalogs.lake.locatoin: unknown key "locatoin" for a catalog of kind "files"; did you mean "location"?"#);
}

#[test]
fn an_option_that_is_missing() {
    assert_snapshot!(broken("\n[catalogs.lake]\nkind = 'files'"), @r#"nexus.toml:2: catalogs.lake: the key "location" is missing: a folder, relative to the configuration file, or s3://bucket/prefix; add location = … under [catalogs.lake]"#);
}

#[test]
fn a_kind_out_of_a_reference() {
    // Hudi is one where it is built in.
    let said = broken("[catalogs.lake]\nkind = '${env:SECRET}'").replace("\"hudi\", ", "");
    assert_snapshot!(said, @r#"nexus.toml:2: catalogs.lake.kind: there is no kind of source "***"; the kinds are "delta", "files", "iceberg", "memory", "postgres", "trino""#);
}

#[test]
fn a_switch_out_of_a_reference() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\nallow_http = '${env:SECRET}'"), @"nexus.toml:4: catalogs.lake.allow_http: true or false is needed here, not a string; it is whether the endpoint may be http");
}

#[test]
fn a_format_out_of_a_reference() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\n[catalogs.lake.tables.t]\nformat = '${env:SECRET}'"), @r#"nexus.toml:5: catalogs.lake.tables.t.format: unknown value "***"; the values are "parquet", "csv", "json", "arrow""#);
}

#[test]
fn a_type_out_of_a_reference() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\n[catalogs.lake.tables.t]\ncolumns = [{ name = 'a', type = '${env:SECRET}' }]"), @r#"nexus.toml:5: catalogs.lake.tables.t.columns.a: "***" is no type; write it as in CAST, such as BIGINT, DECIMAL(15,2), VARCHAR, DATE or TIMESTAMP(6)"#);
}

#[test]
fn a_path_out_of_a_reference() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\n[catalogs.lake.tables.t]\npath = '../${env:SECRET}'"), @r#"nexus.toml:5: catalogs.lake.tables.t.path: "***" does not stay within the location; write a path relative to the location, without "..""#);
}

#[test]
fn a_secret_that_is_a_number() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 's3://b'\nsecret_access_key = 20200202"), @"nexus.toml:4: catalogs.lake.secret_access_key: a string is needed here, not an integer; it is the secret of the access key");
}

#[test]
fn a_declared_table_with_an_unknown_key() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nlocation = 'data'\n\n[catalogs.lake.tables.t]\ncolums = []"), @r#"nexus.toml:6: catalogs.lake.tables.t.colums: unknown key "colums" of a table; did you mean "columns"?"#);
}

#[test]
fn keys_that_protect_nothing() {
    assert_snapshot!(broken("[tickets]\nkeys = ['QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=']"), @"nexus.toml:2: tickets.keys: anybody can guess this key (number 1); make another with: openssl rand -base64 32");
    let key = "'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY='";
    assert_snapshot!(broken(&format!("[tickets]\nkeys = [{key}, {key}]")), @"nexus.toml:2: tickets.keys: this key is there twice (number 2); make another with: openssl rand -base64 32");
}

#[test]
fn a_schema_without_a_name() {
    assert_snapshot!(broken("[defaults]\nschema = ''"), @r#"nexus.toml:2: defaults.schema: a schema has a name; write "main", or leave the key out"#);
}

#[test]
fn a_delimiter_that_ends_lines() {
    assert_snapshot!(broken("[catalogs.a]\nkind = 'files'\nlocation = '.'\ntables.t = { path = 'a.csv', delimiter = \"\\n\" }"), @r#"nexus.toml:4: catalogs.a.tables.t.delimiter: a delimiter is one ASCII character, and no quote or line end; such as ",", ";", "|" or "\t""#);
}

/// What is said of a catalog of Trino, whose lines from the fifth on are given.
fn trino(url: &str, more: &str) -> String {
    broken(&format!("[catalogs.w]\nkind = 'trino'\nurl = '{url}'\nuser = 'me'\n{more}"))
}

#[test]
fn a_cluster_without_the_name_of_a_catalog() {
    assert_snapshot!(trino("https://trino.example", ""), @r#"nexus.toml:1: catalogs.w: the key "catalog" is missing: the name of the catalog in the cluster; add catalog = … under [catalogs.w]"#);
}

#[test]
fn a_password_in_the_address_of_a_cluster() {
    assert_snapshot!(trino("https://me:hunter2@trino.example", "catalog = 'lake'"), @r#"nexus.toml:3: catalogs.w.url: a user in the address is shown where the address is; move it to user = "…" and password = "${env:NAME}""#);
}

#[test]
fn a_cluster_that_is_entered_in_two_ways() {
    assert_snapshot!(trino("https://trino.example", "catalog = 'lake'\npassword = '${env:SECRET}'\ntoken = 'hunter2'"), @"nexus.toml:7: catalogs.w.token: there is a password and a token; keep one: the cluster is entered by one of them");
}

#[test]
fn a_password_over_plain_http() {
    let password = "catalog = 'lake'\npassword = '${env:SECRET}'";
    assert_snapshot!(trino("http://trino.example", password), @"nexus.toml:3: catalogs.w.url: the login would go to another machine in plain text; write https://, or allow_http = true where the network between them is trusted");
}

#[test]
fn a_key_without_its_certificate() {
    assert_snapshot!(trino("https://trino.example", "catalog = 'lake'\nkey = 'me.key'"), @"nexus.toml:6: catalogs.w.key: the certificate of the key is missing; add certificate = … with its file");
}
