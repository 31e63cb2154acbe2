//! The options of a catalog of files, checked as far as that is possible without touching the files.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Cast, Expr};
use datafusion::prelude::{SessionConfig, SessionContext};
use nexus_flight_catalog::error::list as listed;
use nexus_flight_catalog::{Error, ForeignKey, Keys, Options, Place, Result};
use serde::Deserialize;

use super::SPEC;
use super::format::Format;
use crate::stores::{Location, WrittenLocation, schema};

/// Where the files are and how they are read.
pub(super) struct Config {
    pub(super) catalog: String,
    pub(super) location: Location,
    /// The schema that holds the tables.
    pub(super) schema: String,
    pub(super) tables: BTreeMap<String, Declared>,
}

/// A table as the configuration declares it.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    /// A file, a folder or a pattern, relative to the location; if not given, what is found under the table's name.
    pub(super) path: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) columns: Option<Fields>,
    pub(super) partitions: Vec<Field>,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) keys: Keys,
    pub(super) comment: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(flatten)]
    location: WrittenLocation,
    schema: Option<String>,
    #[serde(default)]
    tables: BTreeMap<String, WrittenTable>,
}

#[derive(Deserialize)]
struct WrittenTable {
    path: Option<String>,
    format: Option<Format>,
    columns: Option<Vec<WrittenColumn>>,
    #[serde(default)]
    partitions: Vec<WrittenColumn>,
    header: Option<bool>,
    delimiter: Option<String>,
    #[serde(default)]
    primary_key: Vec<String>,
    #[serde(default)]
    foreign_keys: Vec<WrittenForeignKey>,
    comment: Option<String>,
}

#[derive(Deserialize)]
struct WrittenColumn {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
}

#[derive(Deserialize)]
struct WrittenForeignKey {
    columns: Vec<String>,
    table: String,
    referenced: Vec<String>,
}

impl Config {
    /// Errors: `Invalid` with the key at fault.
    pub(super) fn parse(options: &Options) -> Result<Self> {
        let mut written: Written = options.parse(&SPEC)?;
        let schema = schema(written.schema.take(), "files", options)?;
        let mut tables = BTreeMap::new();
        for (name, table) in std::mem::take(&mut written.tables) {
            let place = |key: &str| options.key(&format!("tables.{name}{key}"));
            tables.insert(name.clone(), declared(&name, table, &schema, &place)?);
        }
        let location = written.location.check(options)?;
        Ok(Self { catalog: options.catalog.clone(), location, schema, tables })
    }
}

fn declared(name: &str, table: WrittenTable, schema: &str, place: &dyn Fn(&str) -> Place) -> Result<Declared> {
    let path = table.path;
    let written = path.as_deref().unwrap_or(name);
    let leaves = written.starts_with('/') || written.split('/').any(|part| part == "..") || written.contains(['\0', '\\']);
    if leaves || written.trim_matches('/').is_empty() {
        return Err(Error::invalid(format!("\"{written}\" does not stay within the location"))
            .with_hint("write a path relative to the location, without \"..\"")
            .at(place(".path")));
    }
    let delimiter = match table.delimiter.as_deref().unwrap_or(",").as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
        b"\\t" => b'\t',
        _ => {
            return Err(Error::invalid("a delimiter is one ASCII character, and no quote or line end")
                .with_hint("such as \",\", \";\", \"|\" or \"\\t\"")
                .at(place(".delimiter")));
        }
    };
    let fields = |columns: Vec<WrittenColumn>, key: &str| {
        let field = |column: WrittenColumn| {
            let data_type = sql_type(&column.sql_type).map_err(|error| error.at(place(&format!("{key}.{}", column.name))))?;
            Ok(Field::new(column.name, data_type, true))
        };
        columns.into_iter().map(field).collect::<Result<Vec<Field>>>()
    };
    let columns = table.columns.map(|columns| fields(columns, ".columns")).transpose()?.map(Fields::from);
    let partitions = fields(table.partitions, ".partitions")?;
    let known: Vec<&str> = columns.iter().flatten().map(|field| field.name().as_str()).chain(names(&partitions)).collect();
    if let Some(twice) = known.iter().enumerate().find_map(|(at, name)| known.iter().take(at).find(|before| *before == name)) {
        return Err(Error::invalid(format!("the column \"{twice}\" is declared twice"))
            .with_hint("give each column a name of its own")
            .at(place(".columns")));
    }
    let own = |key: &str, of: &[String]| match of.iter().find(|name| columns.is_some() && !known.contains(&name.as_str())) {
        Some(name) => Err(Error::invalid(format!("the column \"{name}\" is not declared"))
            .with_hint(format!("the columns are {}", listed(&known)))
            .at(place(key))),
        None => Ok(()),
    };
    own(".primary_key", &table.primary_key)?;
    for key in &table.foreign_keys {
        own(".foreign_keys", &key.columns)?;
        if key.columns.is_empty() || key.columns.len() != key.referenced.len() {
            let message = format!("{} columns here stand for {} there", key.columns.len(), key.referenced.len());
            return Err(Error::invalid(message).with_hint("name as many in columns as in referenced").at(place(".foreign_keys")));
        }
    }
    let foreign = table.foreign_keys.into_iter().map(|key| ForeignKey {
        columns: key.columns,
        schema: schema.to_owned(),
        table: key.table,
        referenced: key.referenced,
    });
    Ok(Declared {
        path,
        format: table.format,
        columns,
        partitions,
        header: table.header.unwrap_or(true),
        delimiter,
        keys: Keys { primary: table.primary_key, foreign: foreign.collect() },
        comment: table.comment,
    })
}

fn names(fields: &[Field]) -> impl Iterator<Item = &str> {
    fields.iter().map(|field| field.name().as_str())
}

/// The longest name of a type, in bytes: what nests in it is parsed by recursion.
const LONGEST_TYPE: usize = 4 << 10;

/// The type that `CAST(… AS sql)` makes.
fn sql_type(sql: &str) -> Result<DataType> {
    if sql.len() > LONGEST_TYPE {
        return Err(Error::invalid(format!("the name of a type has {} bytes, the limit is {LONGEST_TYPE}", sql.len())));
    }
    let config = SessionConfig::new().set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let parsed = SessionContext::new_with_config(config).parse_sql_expr(&format!("CAST(NULL AS {sql})"), &DFSchema::empty());
    match parsed {
        Ok(Expr::Cast(Cast { expr, data_type })) if matches!(*expr, Expr::Literal(..)) => Ok(data_type),
        _ => Err(Error::invalid(format!("\"{sql}\" is no type"))
            .with_hint("write it as in CAST, such as BIGINT, DECIMAL(15,2), VARCHAR, DATE or TIMESTAMP(6)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: serde_json::Value) -> Result<Config> {
        let values = values.as_object().unwrap().clone();
        Config::parse(&Options { catalog: "lake".into(), base: "/base".into(), values })
    }

    fn refusal(values: serde_json::Value) -> String {
        parse(values).err().expect("a refusal").to_string()
    }

    #[test]
    fn types_are_those_of_cast() {
        for (sql, wanted) in [
            ("BIGINT", DataType::Int64),
            ("VARCHAR", DataType::Utf8),
            ("text", DataType::Utf8),
            ("DECIMAL(15,2)", DataType::Decimal128(15, 2)),
            ("DATE", DataType::Date32),
            ("TIMESTAMP(6)", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)),
        ] {
            assert_eq!(sql_type(sql).unwrap(), wanted, "{sql}");
        }
        for sql in ["", "BIGNT)", "INT) + (1", "INT), (1", "1"] {
            assert!(sql_type(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let table = |table: serde_json::Value| serde_json::json!({ "location": "data", "tables": { "t": table } });
        insta::assert_snapshot!(refusal(serde_json::json!({})), @r#"catalogs.lake: the key "location" is missing: a folder, relative to the configuration file, or s3://bucket/prefix; add location = … under [catalogs.lake]"#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "gs://b" })), @"catalogs.lake.location: a location cannot start with gs://; write a local folder, or s3://bucket/prefix");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "s3://" })), @"catalogs.lake.location: the location names no bucket; write s3://bucket/prefix");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "s3://b", "access_key_id": "k" })), @r#"catalogs.lake.access_key_id: "access_key_id" is given without "secret_access_key"; give both, or neither"#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "s3://b", "endpoint": "http://h" })), @"catalogs.lake.endpoint: the endpoint is http and not https; set allow_http = true if that is meant");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "data", "region": "r" })), @r#"catalogs.lake.region: "region" has no meaning for the local folder "data"; remove it, or write the location as s3://bucket/prefix"#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "path": "../up" }))), @r#"catalogs.lake.tables.t.path: "../up" does not stay within the location; write a path relative to the location, without "..""#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "path": "/etc" }))), @r#"catalogs.lake.tables.t.path: "/etc" does not stay within the location; write a path relative to the location, without "..""#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "delimiter": "ab" }))), @r#"catalogs.lake.tables.t.delimiter: a delimiter is one ASCII character, and no quote or line end; such as ",", ";", "|" or "\t""#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "format": "xls" }))), @r#"catalogs.lake.tables.t.format: unknown value "xls"; the values are "parquet", "csv", "json", "arrow""#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "s3:/sales" })), @r#"catalogs.lake.location: "s3:/" begins neither a folder nor an address; write a local folder, or s3://bucket/prefix"#);
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "data", "schema": "information_schema" })), @"catalogs.lake.schema: no schema of files can have this name; choose another, or leave schema out");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": 5 })), @"catalogs.lake.location: a string is needed here, not an integer; it is a folder, relative to the configuration file, or s3://bucket/prefix");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "s3://b", "allow_http": "hunter2" })), @"catalogs.lake.allow_http: true or false is needed here, not a string; it is whether the endpoint may be http");
        insta::assert_snapshot!(refusal(serde_json::json!({ "location": "data", "tables": ["a"] })), @"catalogs.lake.tables: a table of tables is needed here, not an array; it is what to declare of tables, by their names; the others are found");
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "colums": [] }))), @r#"catalogs.lake.tables.t.colums: unknown key "colums" of a table; did you mean "columns"?"#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "header": "yes" }))), @"catalogs.lake.tables.t.header: true or false is needed here, not a string; it is whether the first line of a CSV file names the columns; true if not given");
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "primary_key": [1] }))), @"catalogs.lake.tables.t.primary_key: an array of strings is needed here, not an integer; it is the columns that tell rows apart; nothing checks that they do");
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "columns": [{ "name": "a", "typ": "INT" }] }))), @r#"catalogs.lake.tables.t.columns.typ: unknown key "typ" here; did you mean "type"?"#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "columns": [{ "name": "a" }] }))), @r#"catalogs.lake.tables.t.columns: the key "type" is missing: its type, written as in CAST, such as DECIMAL(15,2); add type = … under [catalogs.lake.tables.t.columns]"#);
        let ab = serde_json::json!([{ "name": "a", "type": "INT" }, { "name": "b", "type": "INT" }]);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "columns": ab, "primary_key": ["zz"] }))), @r#"catalogs.lake.tables.t.primary_key: the column "zz" is not declared; the columns are "a", "b""#);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "columns": ab, "partitions": [{ "name": "a", "type": "INT" }] }))), @r#"catalogs.lake.tables.t.columns: the column "a" is declared twice; give each column a name of its own"#);
        let keys = serde_json::json!([{ "columns": ["a", "b"], "table": "u", "referenced": ["x"] }]);
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "foreign_keys": keys }))), @"catalogs.lake.tables.t.foreign_keys: 2 columns here stand for 1 there; name as many in columns as in referenced");
        insta::assert_snapshot!(refusal(table(serde_json::json!({ "columns": [{ "name": "a", "type": "BIGNT)" }] }))), @r#"catalogs.lake.tables.t.columns.a: "BIGNT)" is no type; write it as in CAST, such as BIGINT, DECIMAL(15,2), VARCHAR, DATE or TIMESTAMP(6)"#);
    }
}
