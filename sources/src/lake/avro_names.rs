//! Names in Avro as its library in Java takes them, and so those who write with it: of letters of any script. The crate takes those of
//! ASCII alone unless it is told otherwise, once for the whole process and before it reads any schema.

use std::sync::Once;

use apache_avro::AvroResult;
use apache_avro::error::Details;
use apache_avro::schema::Namespace;
use apache_avro::validator::{
    RecordFieldNameValidator, SchemaNameValidator, SchemaNamespaceValidator, set_record_field_name_validator,
    set_schema_name_validator, set_schema_namespace_validator,
};

static TOLD: Once = Once::new();

/// Tells the crate. Called by whoever opens a catalog whose files are Avro.
pub(crate) fn allow_any_script() {
    TOLD.call_once(|| {
        let set = set_record_field_name_validator(Box::new(AnyScript)).is_ok()
            & set_schema_name_validator(Box::new(AnyScript)).is_ok()
            & set_schema_namespace_validator(Box::new(AnyScript)).is_ok();
        if !set {
            tracing::warn!("names in Avro that are not of ASCII are refused: a schema was read too early");
        }
    });
}

struct AnyScript;

/// What `Schema.validateName` of Avro in Java takes.
fn is_name(text: &str) -> bool {
    let begins = |letter: char| letter.is_alphabetic() || letter == '_';
    text.starts_with(begins) && text.chars().all(|letter| begins(letter) || letter.is_alphanumeric())
}

fn is_namespace(text: &str) -> bool {
    text.is_empty() || text.split('.').all(is_name)
}

impl RecordFieldNameValidator for AnyScript {
    fn validate(&self, name: &str) -> AvroResult<()> {
        if is_name(name) { Ok(()) } else { Err(Details::FieldName(name.to_owned()).into()) }
    }
}

impl SchemaNameValidator for AnyScript {
    fn validate(&self, schema_name: &str) -> AvroResult<(String, Namespace)> {
        let (namespace, name) = match schema_name.rsplit_once('.') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, schema_name),
        };
        if !is_name(name) || !namespace.is_none_or(is_namespace) {
            return Err(Details::InvalidSchemaName(schema_name.to_owned(), "letters, digits and _").into());
        }
        Ok((name.to_owned(), namespace.map(str::to_owned)))
    }
}

impl SchemaNamespaceValidator for AnyScript {
    fn validate(&self, namespace: &str) -> AvroResult<()> {
        if is_namespace(namespace) {
            return Ok(());
        }
        Err(Details::InvalidNamespace(namespace.to_owned(), "letters, digits and _, between stops").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_letters_of_any_script() {
        for name in ["名称", "s", "_a1", "Größe", "게이트웨이"] {
            assert!(RecordFieldNameValidator::validate(&AnyScript, name).is_ok(), "{name}");
        }
        for name in ["", "1a", "a b", "a-b", "a.b", "a\"b"] {
            assert!(RecordFieldNameValidator::validate(&AnyScript, name).is_err(), "{name}");
        }
        let named = SchemaNameValidator::validate(&AnyScript, "hoodie.表.表_record").unwrap();
        assert_eq!(named, ("表_record".to_owned(), Some("hoodie.表".to_owned())));
        assert!(SchemaNameValidator::validate(&AnyScript, "a..b").is_err());
        assert!(SchemaNamespaceValidator::validate(&AnyScript, "").is_ok());
    }
}
