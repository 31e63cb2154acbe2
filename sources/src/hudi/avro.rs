//! Commits in Avro, walked through before they are decoded: their reader makes room for whatever number it finds, unpacks without
//! end, and goes as deep as a schema that holds itself.

use std::collections::HashMap;

use serde_json::Value;

use crate::lake::{MAGIC, Rest};

/// How deep types may nest.
const DEEPEST: usize = 32;
/// The most plain values, of which each takes many times its bytes in memory.
pub(super) const MOST_VALUES: u32 = 16 * 1024 * 1024;
/// The logical types whose values lie as those of the type beneath.
const LOGICAL: &[&str] = &["date", "time-", "timestamp-", "local-timestamp-", "decimal"];

/// Whether the first value of a file is all there, as the schema of the file says, and is not packed.
pub(super) fn is_sound(file: &[u8]) -> bool {
    walked(file).is_some()
}

fn walked(file: &[u8]) -> Option<()> {
    let mut rest = Rest(file.strip_prefix(MAGIC)?);
    let header: HashMap<&[u8], &[u8]> = rest.header()?.into_iter().collect();
    let codec = header.get(&b"avro.codec"[..]).copied().unwrap_or(b"null");
    let schema: Value = serde_json::from_slice(header.get(&b"avro.schema"[..])?).ok()?;
    rest.take(16)?;
    let (count, block) = (rest.long()?, rest.counted()?);
    let mut named = Named::new();
    name(&schema, &mut named)?;
    if count < 1 || codec != b"null" {
        return None;
    }
    Values { rest: Rest(block), left: MOST_VALUES }.pass(&schema, &named, 0)
}

/// The types that have names, by the last part of those.
type Named<'a> = HashMap<&'a str, &'a Value>;

/// Finds the types that have names. None where two have one.
fn name<'a>(schema: &'a Value, named: &mut Named<'a>) -> Option<()> {
    match schema {
        Value::Array(variants) => variants.iter().try_for_each(|variant| name(variant, named)),
        Value::Object(object) => {
            let of = object.get("type")?;
            if matches!(of.as_str(), Some("record" | "enum" | "fixed"))
                && named.insert(last(object.get("name")?.as_str()?), schema).is_some()
            {
                return None;
            }
            let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
            let within = fields.filter_map(|field| field.get("type")).chain(object.get("items")).chain(object.get("values"));
            within.chain([of]).try_for_each(|within| name(within, named))
        }
        _ => Some(()),
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// What is left of a block.
struct Values<'a> {
    rest: Rest<'a>,
    /// How many plain values may come yet.
    left: u32,
}

impl Values<'_> {
    /// Goes past a value; none where that is not all there.
    fn pass(&mut self, schema: &Value, named: &Named<'_>, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match schema {
            Value::String(of) => self.plain(of, named, depth),
            Value::Array(variants) => {
                let variant = usize::try_from(self.rest.long()?).ok()?;
                self.pass(variants.get(variant)?, named, depth + 1)
            }
            Value::Object(object) => {
                if let Some(logical) = object.get("logicalType") {
                    let logical = logical.as_str()?;
                    LOGICAL.iter().find(|known| logical.starts_with(**known))?;
                }
                let of = object.get("type")?;
                match of.as_str() {
                    Some("record") => {
                        let mut fields = object.get("fields")?.as_array()?.iter();
                        fields.try_for_each(|field| self.pass(field.get("type")?, named, depth + 1))
                    }
                    Some("enum") => self.rest.long().map(drop),
                    Some("fixed") => self.rest.take(usize::try_from(object.get("size")?.as_u64()?).ok()?).map(drop),
                    Some("array") => self.items(false, object.get("items")?, named, depth + 1),
                    Some("map") => self.items(true, object.get("values")?, named, depth + 1),
                    _ => self.pass(of, named, depth + 1),
                }
            }
            _ => None,
        }
    }

    fn plain(&mut self, of: &str, named: &Named<'_>, depth: usize) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        match of {
            "null" => Some(()),
            "boolean" => self.rest.take(1).map(drop),
            "int" | "long" => self.rest.long().map(drop),
            "float" => self.rest.take(4).map(drop),
            "double" => self.rest.take(8).map(drop),
            "bytes" | "string" => self.rest.counted().map(drop),
            known => self.pass(named.get(last(known))?, named, depth + 1),
        }
    }

    /// Goes past the items of a list or, with a key before each, of a map. Each takes a byte at least.
    fn items(&mut self, has_keys: bool, item: &Value, named: &Named<'_>, depth: usize) -> Option<()> {
        loop {
            let count = self.rest.long()?;
            if count == 0 {
                return Some(());
            }
            if count < 0 {
                self.rest.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                let before = self.rest.0.len();
                if has_keys {
                    self.rest.counted()?;
                }
                self.pass(item, named, depth)?;
                if self.rest.0.len() == before {
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes, or another text, with their number before them.
    fn counted(bytes: &[u8]) -> Vec<u8> {
        let count = bytes.len() * 2;
        let number = if count < 0x80 { vec![count as u8] } else { vec![(count & 0x7F) as u8 | 0x80, (count >> 7) as u8] };
        [number, bytes.to_vec()].concat()
    }

    fn file(schema: &str, codec: &str, block: &[u8]) -> Vec<u8> {
        let header = [&b"avro.schema"[..], schema.as_bytes(), b"avro.codec", codec.as_bytes()].map(counted).concat();
        [&MAGIC[..], &[4], &header[..], &[0], &[7; 16], &[2], &counted(block)[..], &[7; 16]].concat()
    }

    fn is_read(schema: &str, block: &[u8]) -> bool {
        is_sound(&file(schema, "null", block))
    }

    const COMMIT: &str = r#"{"type":"record","name":"C","namespace":"n","fields":[
        {"name":"stats","type":["null",{"type":"map","values":{"type":"array","items":
            {"type":"record","name":"S","fields":[{"name":"id","type":["null",{"type":"string","avro.java.string":"String"}]}]}}}]},
        {"name":"first","type":["null","n.S"]},{"name":"version","type":["int","null"],"default":1}]}"#;

    #[test]
    fn what_is_all_there_is_sound() {
        // A map of one list of one, with its size, then a record, then a number.
        let stats = [2, 2, 2, b'p', 2, 2, 2, b'x', 0, 0];
        let block = [&stats[..], &[2, 0], &[0, 4]].concat();
        assert!(is_read(COMMIT, &block));
        for cut in 0..block.len() {
            assert!(!is_read(COMMIT, &block[..cut]), "{cut}");
        }
        assert!(is_read(COMMIT, &[0, 0, 2]));
        assert!(!is_sound(&file(COMMIT, "deflate", &block)) && !is_sound(b"Obj"));
    }

    #[test]
    fn what_would_take_all_memory_is_not() {
        // As many items as a number can say, of no bytes each, and a record that holds itself.
        let many = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert!(!is_read(r#"{"type":"array","items":"null"}"#, &many));
        assert!(!is_read(r#"{"type":"array","items":"long"}"#, &many));
        let itself = r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#;
        assert!(is_read(itself, &[2, 2, 0]) && !is_read(itself, &[2; 1000]));
        assert!(!is_read(r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#, b""));
        assert!(!is_read(r#"{"type":"fixed","name":"f","size":16,"logicalType":"uuid"}"#, &[0; 16]));
    }
}
