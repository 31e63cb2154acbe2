//! The JSON Schema of the configuration, for editors: the fixed part from the types, catalogs from what connectors declare.

use nexus_flight_catalog::{Opt, OptType, Spec};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::values::SIZE;
use super::{Config, Period};

/// The JSON Schema (draft 2020-12) of the whole configuration, with the catalog kinds that `specs` declare.
pub fn json_schema(specs: &[&Spec]) -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>().to_value();
    if let Some(catalogs) = schema.pointer_mut("/properties/catalogs").and_then(Value::as_object_mut) {
        catalogs.insert(
            "propertyNames".to_owned(),
            json!({ "minLength": 1, "not": { "enum": ["system", "temp", "information_schema"] } }),
        );
        let kinds: Vec<Value> = specs.iter().map(|spec| catalog(spec)).collect();
        catalogs.insert("additionalProperties".to_owned(), json!({ "oneOf": kinds }));
        catalogs.remove("default");
    }
    schema
}

fn catalog(spec: &Spec) -> Value {
    let mut properties = Map::new();
    properties.insert("kind".to_owned(), json!({ "const": spec.kind }));
    let periods = [
        ("ttl", "How old a cached result may be where the source cannot say whether its tables changed"),
        ("stale", "For how long a cached result may be given out of date, while it is made anew"),
    ];
    for (name, help) in periods {
        let mut period = schemars::schema_for!(Period).to_value();
        if let Some(period) = period.as_object_mut() {
            period.retain(|key, _| key != "$schema" && key != "title");
            period.insert("description".to_owned(), json!(help));
            period.insert("default".to_owned(), json!("0s"));
        }
        properties.insert(name.to_owned(), period);
    }
    if spec.capabilities.append {
        let help = "Whether statements may write to it";
        properties.insert("writable".to_owned(), json!({ "type": "boolean", "default": false, "description": help }));
    }
    let mut schema = table(spec.options, properties, vec!["kind"]);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("title".to_owned(), json!(format!("catalog of kind {}", spec.kind)));
        schema.insert("description".to_owned(), json!(spec.summary));
    }
    schema
}

/// A table that takes these options beside others.
fn table(options: &[Opt], mut properties: Map<String, Value>, mut required: Vec<&str>) -> Value {
    properties.extend(options.iter().map(|opt| (opt.name.to_owned(), option(opt))));
    required.extend(options.iter().filter(|opt| opt.required).map(|opt| opt.name));
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn option(opt: &Opt) -> Value {
    let mut schema = match opt.value {
        OptType::String => json!({ "type": "string" }),
        OptType::Boolean => json!({ "type": "boolean" }),
        OptType::Integer => json!({ "type": "integer" }),
        OptType::Size => json!({ "type": ["string", "integer"], "minimum": 0, "pattern": SIZE }),
        OptType::Strings => json!({ "type": "array", "items": { "type": "string" } }),
        OptType::OneOf(values) => json!({ "enum": values }),
        OptType::Records(options) => json!({ "type": "array", "items": table(options, Map::new(), Vec::new()) }),
        OptType::Tables(options) => {
            json!({ "type": "object", "additionalProperties": table(options, Map::new(), Vec::new()) })
        }
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), json!(opt.help));
        if opt.secret {
            schema.insert("writeOnly".to_owned(), json!(true));
        }
    }
    schema
}
