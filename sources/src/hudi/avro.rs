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

/// The most types that a schema is made of, where what is told by a name counts each time.
const MOST_TYPES: u64 = 100_000;
/// The most bytes of the schema of a block of rows.
const LARGEST_SCHEMA: usize = 4 * 1024 * 1024;

/// Whether the values of a schema are no more than bytes tell: of a list whose items take none there may be more than anybody counts
/// to, and types that hold others twice, which do so too, are soon too many.
pub(super) fn is_countable(schema: &str) -> bool {
    let parsed = (schema.len() <= LARGEST_SCHEMA).then(|| serde_json::from_str::<Value>(schema).ok()).flatten();
    parsed.is_some_and(|schema| extent(&schema, &mut HashMap::new()).is_some_and(|extent| extent.types <= MOST_TYPES))
}

/// What the values of a type can come to.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// How many types it is made of.
    types: u64,
    /// Whether a value may take no bytes.
    is_nothing: bool,
}

/// None for what is no schema, for a list of what takes no bytes, and for a type that holds itself. Of types of which the names end
/// alike the worst counts.
fn extent<'a>(schema: &'a Value, named: &mut HashMap<&'a str, Extent>) -> Option<Extent> {
    match schema {
        Value::String(of) => match of.as_str() {
            "null" => Some(Extent { types: 1, is_nothing: true }),
            "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string" => Some(Extent { types: 1, is_nothing: false }),
            known => named.get(last(known)).copied(),
        },
        // Which of them it is takes a byte.
        Value::Array(variants) => {
            let mut types = 1_u64;
            for variant in variants {
                types = types.saturating_add(extent(variant, named)?.types);
            }
            Some(Extent { types, is_nothing: false })
        }
        Value::Object(object) => {
            let of = object.get("type")?;
            let found = match of.as_str() {
                Some("record") => {
                    let mut all = Extent { types: 1, is_nothing: true };
                    for field in object.get("fields")?.as_array()? {
                        let field = extent(field.get("type")?, named)?;
                        all.types = all.types.saturating_add(field.types);
                        all.is_nothing &= field.is_nothing;
                    }
                    all
                }
                Some("enum") => Extent { types: 1, is_nothing: false },
                Some("fixed") => Extent { types: 1, is_nothing: object.get("size")?.as_u64()? == 0 },
                Some("array") => {
                    let item = extent(object.get("items")?, named).filter(|item| !item.is_nothing)?;
                    Extent { types: item.types.saturating_add(1), is_nothing: false }
                }
                Some("map") => Extent { types: extent(object.get("values")?, named)?.types.saturating_add(1), is_nothing: false },
                _ => return extent(of, named),
            };
            if let Some(name) = object.get("name").and_then(Value::as_str) {
                let known = named.entry(last(name)).or_insert(found);
                *known = Extent { types: known.types.max(found.types), is_nothing: known.is_nothing || found.is_nothing };
            }
            Some(found)
        }
        _ => None,
    }
}

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
    fn lists_of_nothing_and_types_without_end_are_not_countable() {
        let record = |fields: &str| format!(r#"{{"type":"record","name":"R","namespace":"n","fields":[{fields}]}}"#);
        let column = |of: &str| is_countable(&record(&format!(r#"{{"name":"c","type":{of}}}"#)));
        for of in [
            r#"["null",{"type":"array","items":["null","string"]}]"#,
            r#"{"type":"map","values":"null"}"#,
            r#"{"type":"array","items":{"type":"fixed","name":"F","size":1,"logicalType":"decimal"}}"#,
            r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"n","type":["null"]}]}}"#,
        ] {
            assert!(column(of), "{of}");
        }
        for of in [
            r#"["null",{"type":"array","items":"null"}]"#,
            r#"{"type":"array","items":{"type":"null"}}"#,
            r#"{"type":"array","items":{"type":"fixed","name":"F","size":0}}"#,
            r#"{"type":"array","items":{"type":"record","name":"I","fields":[]}}"#,
            r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"n","type":"null"}]}}"#,
            r#"["null","n.R"]"#,
            r#""unknown""#,
        ] {
            assert!(!column(of), "{of}");
        }
        let first = r#"{"type":"record","name":"r0","fields":[{"name":"a","type":"int"}]}"#;
        let doubled = |levels| {
            (1..levels).fold(first.to_owned(), |within, level| {
                let last = level - 1;
                let fields = format!(r#"{{"name":"a","type":{within}}},{{"name":"b","type":"r{last}"}}"#);
                format!(r#"{{"type":"record","name":"r{level}","fields":[{fields}]}}"#)
            })
        };
        assert!(is_countable(&doubled(10)) && !is_countable(&doubled(20)));
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
