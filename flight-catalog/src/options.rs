//! What a connector can be told: its options as it declares them, and the values of one catalog, checked against those.

use std::fmt::{self, Debug};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{list, suggestion};
use crate::quantity::Size;
use crate::{Error, Place, Result, Spec};

/// An option of a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    /// The key in the configuration.
    pub name: &'static str,
    /// What values it takes.
    pub value: OptType,
    /// Whether what it belongs to is nothing without it.
    pub required: bool,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// What it does, for people; ends without a stop.
    pub help: &'static str,
}

/// The type of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptType {
    /// Text.
    String,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// true or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A number of bytes, with or without a unit.
    Size,
    /// A list of texts.
    Strings,
    /// A list of tables with these keys.
    Records(&'static [Opt]),
    /// A table whose keys are names that the user gives and whose values are tables with these keys.
    Tables(&'static [Opt]),
}

impl OptType {
    /// What is wanted, for people.
    pub fn describe(self) -> String {
        match self {
            OptType::String => "a string".to_owned(),
            OptType::OneOf(values) => format!("one of {}", list(values)),
            OptType::Boolean => "true or false".to_owned(),
            OptType::Integer => "a whole number".to_owned(),
            OptType::Size => "a size such as \"256MiB\"".to_owned(),
            OptType::Strings => "an array of strings".to_owned(),
            OptType::Records(_) => "an array of tables".to_owned(),
            OptType::Tables(_) => "a table of tables".to_owned(),
        }
    }
}

/// The options of one catalog as they were configured, with references to secrets already replaced.
///
/// Its `Debug` shows the keys only, since a value may be a secret.
#[derive(Clone, Default)]
pub struct Options {
    /// The catalog's name, for messages.
    pub catalog: String,
    /// Where relative paths start: the folder of the configuration file.
    pub base: PathBuf,
    /// The values by key.
    pub values: Map<String, Value>,
}

impl Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("catalog", &self.catalog).field("keys", &self.values.keys().collect::<Vec<_>>()).finish()
    }
}

impl Options {
    /// The options as the connector's own type, after keys and types of values were checked against what it declares.
    /// Errors: `Invalid` with the key as its place, and without the value, which may be a secret in the wrong place.
    pub fn parse<T: DeserializeOwned>(&self, spec: &Spec) -> Result<T> {
        let catalog = format!("catalogs.{}", self.catalog);
        table(&self.values, spec.options, &catalog, &format!("for a catalog of kind \"{}\"", spec.kind))?;
        // What is declared and what the type wants are the same, or this is a defect.
        T::deserialize(Value::Object(self.values.clone()))
            .map_err(|_| Error::internal("the options are not as the connector declares them").at(Place::Key(catalog)))
    }

    /// The place of a key of this catalog, for an error.
    pub fn key(&self, key: &str) -> Place {
        Place::Key(format!("catalogs.{}.{key}", self.catalog))
    }
}

fn table(values: &Map<String, Value>, options: &[Opt], key: &str, of: &str) -> Result<()> {
    for name in values.keys() {
        if !options.iter().any(|option| option.name == name) {
            let known: Vec<&str> = options.iter().map(|option| option.name).collect();
            let keys = || match known.as_slice() {
                [] => "this kind takes no options".to_owned(),
                known => format!("the keys are {}", list(known)),
            };
            return Err(Error::invalid(format!("unknown key \"{name}\" {of}"))
                .with_hint(suggestion(name, &known, keys))
                .at(Place::Key(format!("{key}.{name}"))));
        }
    }
    for option in options {
        match values.get(option.name) {
            Some(value) => check(value, option, &format!("{key}.{}", option.name))?,
            None if option.required => {
                return Err(Error::invalid(format!("the key \"{}\" is missing: {}", option.name, option.help))
                    .with_hint(format!("add {} = … under [{key}]", option.name))
                    .at(Place::Key(key.to_owned())));
            }
            None => {}
        }
    }
    Ok(())
}

fn check(value: &Value, option: &Opt, key: &str) -> Result<()> {
    let wrong = |value: &Value| {
        let message = format!("{} is needed here, not {}", option.value.describe(), found(value));
        Err(Error::invalid(message).with_hint(format!("it is {}", option.help)).at(Place::Key(key.to_owned())))
    };
    match (option.value, value) {
        (OptType::String, Value::String(_)) | (OptType::Boolean, Value::Bool(_)) => Ok(()),
        (OptType::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(()),
        (OptType::Size, _) if Size::deserialize(value).is_ok() => Ok(()),
        (OptType::OneOf(known), Value::String(text)) => {
            if known.contains(&text.as_str()) {
                return Ok(());
            }
            Err(Error::invalid(format!("unknown value \"{text}\""))
                .with_hint(suggestion(text, known, || format!("the values are {}", list(known))))
                .at(Place::Key(key.to_owned())))
        }
        (OptType::Strings, Value::Array(items)) => match items.iter().find(|item| !item.is_string()) {
            Some(other) => wrong(other),
            None => Ok(()),
        },
        (OptType::Records(options), Value::Array(items)) => items.iter().try_for_each(|item| match item {
            Value::Object(values) => table(values, options, key, "here"),
            other => wrong(other),
        }),
        (OptType::Tables(options), Value::Object(items)) => items.iter().try_for_each(|(name, item)| match item {
            Value::Object(values) => table(values, options, &format!("{key}.{name}"), "of a table"),
            other => wrong(other),
        }),
        (_, other) => wrong(other),
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}
