//! The names of the parts of partitions: the file of a manifest may have others than the spec in its header, and what their reader
//! does not find by name, it takes for NULL; and it takes no letters beyond ASCII. So both get names of their own, made from field ids.

use nexus_flight_catalog::Result;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::avro::File;
use super::manifests::cut;
use super::table::{refused, unreadable};

/// Gives the fields of the spec in the header of a manifest, and their values, names by which each finds the other. Fields that
/// were dropped, whose values are NULL, are given a name that nothing has, and columns that there are.
/// Errors: `Unsupported` where it is not certain which value is which field's.
pub(super) fn named_as_written(file: &mut File) -> Result<()> {
    let mut fields: Vec<Map<String, Value>> = json(file, "partition-spec")?;
    if fields.is_empty() {
        return Ok(());
    }
    let (columns, mut entry): (Value, Value) = (json(file, "schema")?, json(file, "avro.schema")?);
    let partition = type_of(&mut entry, "data_file").and_then(|file| type_of(file, "partition"));
    let mut none = Vec::new();
    let written = partition.and_then(|partition| partition.get_mut("fields")?.as_array_mut()).unwrap_or(&mut none);
    // Their reader takes each column once at most, and types with a length have names of their own that it has once too.
    let mut columns = all(&columns).iter().filter(|column| column.get("type").and_then(Value::as_str).is_some_and(is_plain));
    for field in &mut fields {
        let id = field.get("field-id").and_then(Value::as_i64);
        if field.get("transform").and_then(Value::as_str) == Some("void") {
            let column = columns.next().and_then(|column| column.get("id"));
            if let (Some(id), Some(column)) = (id, column) {
                field.insert("name".to_owned(), format!("void {id}").into());
                field.insert("source-id".to_owned(), column.clone());
            }
            continue;
        }
        let name = field.get("name").cloned();
        let mut own = written.iter_mut().filter(|written| match written.get("field-id").and_then(Value::as_i64) {
            Some(written) => Some(written) == id,
            None => written.get("name") == name.as_ref(),
        });
        let (Some(own), None) = (own.next().and_then(Value::as_object_mut), own.next()) else {
            let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
            return Err(refused(format!("manifests that do not tell which of their values are those of \"{name}\"")));
        };
        let both = format!("field_{}", id.unwrap_or_default());
        own.insert("name".to_owned(), both.clone().into());
        field.insert("name".to_owned(), both.into());
    }
    // What was dropped keeps its place among the values, and has a name that is taken there too.
    for written in written.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(id) = written.get("field-id").and_then(Value::as_i64) {
            written.insert("name".to_owned(), format!("field_{id}").into());
        }
    }
    let fields = serde_json::to_vec(&fields).map_err(|cause| unreadable(&cause))?;
    file.header.insert("partition-spec".to_owned(), fields);
    file.header.insert("avro.schema".to_owned(), serde_json::to_vec(&entry).map_err(|cause| unreadable(&cause))?);
    Ok(())
}

fn json<T: DeserializeOwned>(file: &File, key: &str) -> Result<T> {
    serde_json::from_slice(file.header.get(key).ok_or_else(cut)?).map_err(|cause| unreadable(&cause))
}

fn type_of<'a>(record: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let mut fields = record.get_mut("fields")?.as_array_mut()?.iter_mut();
    fields.find(|field| field.get("name").and_then(Value::as_str) == Some(name))?.get_mut("type")
}

fn all(record: &Value) -> &[Value] {
    record.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_plain(name: &str) -> bool {
    !name.contains(['(', '['])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::avro::tests::of_header;
    use super::*;

    fn named(spec: Value, written: Value) -> Result<Value> {
        let columns = json!({ "type": "struct", "fields": [
            { "id": 1, "name": "order-date", "required": true, "type": "date" },
            { "id": 2, "name": "price", "required": true, "type": "decimal(9,2)" },
            { "id": 3, "name": "id", "required": true, "type": "long" },
        ] });
        let partition = json!({ "name": "partition", "type": { "type": "record", "name": "r102", "fields": written } });
        let entry = json!({ "name": "data_file", "type": { "type": "record", "name": "r2", "fields": [partition] } });
        let schema = json!({ "type": "record", "name": "manifest_entry", "fields": [entry] });
        let mut file = of_header(&[("schema", columns), ("partition-spec", spec), ("avro.schema", schema)]);
        named_as_written(&mut file)?;
        json(&file, "partition-spec")
    }

    fn field(name: &str, transform: &str, source: i32, id: i32) -> Value {
        json!({ "name": name, "transform": transform, "source-id": source, "field-id": id })
    }

    #[test]
    fn fields_are_named_as_in_the_file() {
        let spec = json!([field("order-date", "identity", 1, 1000), field("id_bucket", "bucket[4]", 3, 1001)]);
        let written = json!([
            { "name": "id_bucket", "type": ["null", "int"], "field-id": 1001 },
            { "name": "order_x2Ddate", "type": ["null", "int"], "field-id": 1000 },
        ]);
        let wanted = json!([field("field_1000", "identity", 1, 1000), field("field_1001", "bucket[4]", 3, 1001)]);
        assert_eq!(named(spec, written).unwrap(), wanted);
        // Without ids names have to do.
        let same = json!([field("id", "identity", 3, 1000)]);
        let wanted = json!([field("field_1000", "identity", 3, 1000)]);
        assert_eq!(named(same, json!([{ "name": "id", "type": ["null", "long"] }])).unwrap(), wanted);
    }

    #[test]
    fn fields_that_are_not_found_are_refused() {
        let spec = json!([field("order-date", "identity", 1, 1000)]);
        let twice = json!([{ "name": "a", "field-id": 1000 }, { "name": "b", "field-id": 1000 }]);
        for written in [json!([]), json!([{ "name": "order-date", "field-id": 1001 }]), json!([{ "name": "x" }]), twice] {
            let message = named(spec.clone(), written).unwrap_err().message().to_owned();
            assert_eq!(message, "manifests that do not tell which of their values are those of \"order-date\" are not read here");
        }
        assert_eq!(named(json!([]), json!([])).unwrap(), json!([]));
    }

    #[test]
    fn dropped_fields_do_not_need_their_columns() {
        let spec = json!([field("gone", "void", 9, 1000), field("gone_day", "void", 9, 1001)]);
        let wanted = json!([field("void 1000", "void", 1, 1000), field("void 1001", "void", 3, 1001)]);
        assert_eq!(named(spec, json!([{ "name": "gone", "field-id": 1000 }])).unwrap(), wanted);
    }
}
