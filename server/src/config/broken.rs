//! Broken configurations, and what is said of each: file, line, key, reason and fix, and never a secret.

use std::path::Path;

use insta::assert_snapshot;

use super::Config;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObG7yN+Kcj3hI0";

/// What is said of a configuration that is broken.
fn broken(text: &str) -> String {
    let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    let said = Config::parse(&text.replace("HASH", HASH), Path::new("nexus.toml"), &env).unwrap_err().to_string();
    assert!(!said.contains("hunter2"), "a secret is shown: {said}");
    said
}

#[test]
fn not_toml() {
    assert_snapshot!(broken("[flight\nlisten = 1"), @"");
}

#[test]
fn a_key_twice() {
    assert_snapshot!(broken("[flight]\nlisten = '127.0.0.1:1'\nlisten = '127.0.0.1:2'"), @"");
}

#[test]
fn a_string_that_does_not_end() {
    assert_snapshot!(broken("[log]\nlevel = \"info\n"), @"");
}

#[test]
fn a_table_that_is_unknown() {
    assert_snapshot!(broken("[fligth]\nlisten = '127.0.0.1:1'"), @"");
}

#[test]
fn a_top_level_key_that_is_unknown() {
    assert_snapshot!(broken("listen = '127.0.0.1:1'"), @"");
}

#[test]
fn a_key_that_is_nearly_known() {
    assert_snapshot!(broken("[flight]\n\nlisen = '127.0.0.1:1'"), @"");
}

#[test]
fn a_key_that_is_like_nothing() {
    assert_snapshot!(broken("[cache]\nwibble = 1"), @"");
}

#[test]
fn a_table_in_place_of_a_value() {
    assert_snapshot!(broken("[flight.listen]\nport = 1"), @"");
}

#[test]
fn a_value_in_place_of_a_table() {
    assert_snapshot!(broken("flight = '127.0.0.1:1'"), @"");
}

#[test]
fn an_address_without_a_port() {
    assert_snapshot!(broken("[flight]\nlisten = '127.0.0.1'"), @"");
}

#[test]
fn an_address_with_a_host_name() {
    assert_snapshot!(broken("[http]\nlisten = 'localhost:8080'"), @"");
}

#[test]
fn an_address_that_is_a_number() {
    assert_snapshot!(broken("[http]\nlisten = 8080"), @"");
}

#[test]
fn one_address_twice() {
    assert_snapshot!(broken("[http]\nlisten = '127.0.0.1:31337'"), @"");
}

#[test]
fn open_to_all_without_auth() {
    assert_snapshot!(broken("[flight]\nlisten = '0.0.0.0:31337'"), @"");
}

#[test]
fn http_open_to_all_without_auth() {
    assert_snapshot!(broken("[http]\nlisten = '[::]:8080'"), @"");
}

#[test]
fn a_mode_that_is_nearly_known() {
    assert_snapshot!(broken("# auth\n[auth]\nmode = 'baisc'"), @"");
}

#[test]
fn a_mode_that_is_like_nothing() {
    assert_snapshot!(broken("[auth]\nmode = 'kerberos'"), @"");
}

#[test]
fn a_mode_of_the_wrong_type() {
    assert_snapshot!(broken("[auth]\nmode = true"), @"");
}

#[test]
fn basic_without_users() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'"), @"");
}

#[test]
fn users_without_basic() {
    assert_snapshot!(broken("[auth.users.ann]\npassword_hash = 'HASH'"), @"");
}

#[test]
fn a_user_without_a_hash() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]"), @"");
}

#[test]
fn a_password_in_place_of_its_hash() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = 'hunter2'"), @"");
}

#[test]
fn a_hash_of_another_kind() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = '$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b+dWRWJTmaaJObG7yN+Kcj3hI0'"), @"");
}

#[test]
fn a_password_of_the_wrong_type() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword_hash = ['hunter2']"), @"");
}

#[test]
fn a_user_with_a_colon() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.'a:b']\npassword_hash = 'HASH'"), @"");
}

#[test]
fn a_password_under_an_unknown_key() {
    assert_snapshot!(broken("[auth]\nmode = 'basic'\n[auth.users.ann]\npassword = 'hunter2'"), @"");
}

#[test]
fn a_ticket_key_too_short() {
    assert_snapshot!(broken("[tickets]\nkeys = [\n  'c2hvcnQ=',\n]"), @"");
}

#[test]
fn ticket_keys_that_are_no_list() {
    assert_snapshot!(broken("[tickets]\nkeys = 'c2hvcnQ='"), @"");
}

#[test]
fn a_duration_without_a_unit() {
    assert_snapshot!(broken("[tickets]\nttl = '5'"), @"");
}

#[test]
fn a_duration_that_is_a_number() {
    assert_snapshot!(broken("[tickets]\nttl = 5"), @"");
}

#[test]
fn a_session_that_ends_at_once() {
    assert_snapshot!(broken("[tickets]\nsession_ttl = '10ms'"), @"");
}

#[test]
fn a_size_of_an_unknown_unit() {
    assert_snapshot!(broken("[limits]\nmemory = '1Gig'"), @"");
}

#[test]
fn a_size_below_nothing() {
    assert_snapshot!(broken("[limits]\nmemory = -1"), @"");
}

#[test]
fn too_little_memory() {
    assert_snapshot!(broken("[limits]\nmemory = '1MiB'"), @"");
}

#[test]
fn a_count_below_nothing() {
    assert_snapshot!(broken("[limits]\nconcurrency = -1"), @"");
}

#[test]
fn a_count_that_is_a_fraction() {
    assert_snapshot!(broken("[limits]\nqueue = 1.5"), @"");
}

#[test]
fn a_count_that_is_text() {
    assert_snapshot!(broken("[limits]\ntokens = '100'"), @"");
}

#[test]
fn no_statement_at_once() {
    assert_snapshot!(broken("[limits]\nconcurrency = 0"), @"");
}

#[test]
fn an_entry_above_the_cache() {
    assert_snapshot!(broken("[cache]\nsize = '8MiB'\nentry = '9MiB'"), @"");
}

#[test]
fn a_small_cache_under_the_default_entry() {
    assert_snapshot!(broken("[cache]\nsize = '8MiB'"), @"");
}

#[test]
fn a_level_that_is_nearly_known() {
    assert_snapshot!(broken("[log]\nlevel = 'inof'"), @"");
}

#[test]
fn a_directive_that_is_none() {
    assert_snapshot!(broken("[log]\nlevel = 'info,h2=loud'"), @"");
}

#[test]
fn a_catalog_without_a_kind() {
    assert_snapshot!(broken("[catalogs.lake]\nurl = 'data'"), @"");
}

#[test]
fn a_catalog_that_is_no_table() {
    assert_snapshot!(broken("[catalogs]\nlake = 'data'"), @"");
}

#[test]
fn a_catalog_with_a_reserved_name() {
    assert_snapshot!(broken("[catalogs.system]\nkind = 'files'"), @"");
}

#[test]
fn a_catalog_without_a_name() {
    assert_snapshot!(broken("[catalogs.'']\nkind = 'files'"), @"");
}

#[test]
fn a_catalog_with_a_wrong_ttl() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nttl = 'soon'"), @"");
}

#[test]
fn a_bare_date() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nsince = 2026-01-01"), @"");
}

#[test]
fn a_default_catalog_that_is_missing() {
    assert_snapshot!(broken("[defaults]\ncatalog = 'lke'\n[catalogs.lake]\nkind = 'files'"), @"");
}

#[test]
fn an_environment_variable_that_is_not_set() {
    assert_snapshot!(broken("[catalogs.lake]\nkind = 'files'\nsecret_key = '${env:NOT_SET}'"), @"");
}

#[test]
fn a_file_that_is_missing() {
    assert_snapshot!(broken("[tickets]\nkeys = ['${file:missing.key}']"), @"");
}

#[test]
fn a_reference_of_an_unknown_kind() {
    assert_snapshot!(broken("[log]\nlevel = '${vault:level}'"), @"");
}

#[test]
fn a_reference_that_does_not_end() {
    assert_snapshot!(broken("[log]\nlevel = 'a${env:LEVEL'"), @"");
}

#[test]
fn a_reference_to_a_wrong_value() {
    assert_snapshot!(broken("[limits]\nmemory = '${env:SECRET}'"), @"");
}

#[test]
fn a_reference_to_a_wrong_mode() {
    assert_snapshot!(broken("[auth]\nmode = '${env:SECRET}'"), @"");
}

#[test]
fn a_reference_to_a_wrong_level() {
    assert_snapshot!(broken("[log]\nlevel = '${env:SECRET}'"), @"");
}

#[test]
fn a_reference_to_a_wrong_catalog() {
    assert_snapshot!(broken("[defaults]\ncatalog = '${env:SECRET}'"), @"");
}
