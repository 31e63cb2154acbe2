//! Avro files, unpacked and walked through before they are decoded: their reader takes an empty block for the end, believes counts
//! and sizes, and takes what it does not find for NULL.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use flate2::read::DeflateDecoder;
use nexus_flight_catalog::{Error, Result};
use serde_json::Value;

use super::manifests::cut;
use super::metrics::{Apart, Metrics};
use super::table::{refused, unreadable};
use crate::lake::{MAGIC, Rest, Taken};

/// The most bytes that a file has, packed and unpacked.
pub(super) const LARGEST: usize = 512 * 1024 * 1024;
/// The most bytes of one value, which takes many times as much where it is decoded.
const LARGEST_VALUE: usize = 16 * 1024 * 1024;

/// The fewest bytes of a value of a manifest, which has the address and the format of a file.
const SHORTEST: usize = 16;
/// What a value takes in memory besides its bytes: a file with what is told of it.
const VALUE: u64 = 1024;

/// The most bytes of a number.
const LONGEST: usize = 10;

/// A file that holds the values that it says, with its blocks unpacked.
pub(super) struct File {
    /// What stands before the blocks, by name.
    pub(super) header: BTreeMap<String, Vec<u8>>,
    /// How many values the blocks hold.
    pub(super) values: u64,
    /// What each value tells of columns, of a manifest; it is not in the blocks then.
    pub(super) metrics: Vec<Metrics>,
    marker: Vec<u8>,
    /// Each with the number of its values and its bytes before it, and the marker after it.
    blocks: Vec<Vec<u8>>,
}

impl File {
    /// What its values take is taken of `room`. Errors: `Data` where the blocks do not make up the whole file, or do not hold what its
    /// schema says; `Unsupported` for a codec or a schema that metadata does not have; `Exhausted`.
    pub(super) fn new(bytes: &[u8], room: &mut Taken) -> Result<Self> {
        Self::walked(bytes, Shapes::default(), room)
    }

    /// A manifest, with what it tells of columns apart from the rest. Errors: as of [`Self::new`].
    pub(super) fn of_manifest(bytes: &[u8], room: &mut Taken) -> Result<Self> {
        Self::walked(bytes, Shapes { is_manifest: true, ..Shapes::default() }, room)
    }

    fn walked(bytes: &[u8], mut shapes: Shapes, memory: &mut Taken) -> Result<Self> {
        let mut rest = Rest(bytes.strip_prefix(MAGIC).ok_or_else(cut)?);
        let header = rest.header().ok_or_else(cut)?.into_iter();
        let header = header.map(|(name, value)| Some((String::from_utf8(name.to_vec()).ok()?, value.to_vec())));
        let mut header = header.collect::<Option<BTreeMap<_, _>>>().ok_or_else(cut)?;
        let marker = rest.take(16).ok_or_else(cut)?;
        let schema = header.get("avro.schema").ok_or_else(cut)?;
        memory.grow_by_json(schema)?;
        let schema: Value = serde_json::from_slice(schema).map_err(|cause| unreadable(&cause))?;
        let shape = shapes.shape(&schema).filter(|shape| !shape.is_empty());
        let shape = shape.ok_or_else(|| refused("metadata with such an Avro schema".to_owned()))?;
        let codec = header.remove("avro.codec").unwrap_or_default();
        let (mut values, mut room, mut blocks, mut metrics) = (0, LARGEST, Vec::new(), Vec::new());
        while !rest.0.is_empty() {
            let count = rest.long().and_then(|count| u64::try_from(count).ok()).ok_or_else(cut)?;
            let packed = rest.counted().ok_or_else(cut)?;
            // Their reader takes an empty block for the end, so it has to be.
            if rest.take(16) != Some(marker) || (count == 0 && !rest.0.is_empty()) {
                return Err(cut());
            }
            let block = unpacked(&codec, packed, room)?;
            if count > block.len() as u64 {
                return Err(cut());
            }
            memory.grow((block.len() as u64).saturating_add(count.saturating_mul(VALUE)))?;
            let (mut within, mut apart) = (Rest(&block), Found::default());
            for _ in 0..count {
                let before = within.0.len();
                within.pass(&shape, &mut apart).ok_or_else(cut)?;
                let size = before - within.0.len();
                if shapes.is_manifest {
                    if size < SHORTEST {
                        return Err(cut());
                    }
                    metrics.push(std::mem::take(&mut apart.metrics));
                }
                if size > LARGEST_VALUE {
                    return Err(refused(format!("metadata with values of more than {LARGEST_VALUE} bytes")));
                }
            }
            if !within.0.is_empty() {
                return Err(cut());
            }
            if count > 0 {
                let left = apart.left(&block);
                let mut whole = Vec::with_capacity(left.len() + 2 * LONGEST + marker.len());
                write_long(&mut whole, count);
                write_counted(&mut whole, &left);
                whole.extend_from_slice(marker);
                blocks.push(whole);
            }
            values += count;
            room -= block.len();
        }
        Ok(Self { header, values, metrics, marker: marker.to_vec(), blocks })
    }

    /// The file as it is now, not packed.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.with(&self.blocks)
    }

    /// The same as several files one after the other, so many at most and one at least, each with the whole header.
    pub(super) fn parts(&self, most: usize) -> Vec<Vec<u8>> {
        let each = self.blocks.len().div_ceil(most.max(1));
        match each {
            0 => vec![self.bytes()],
            each => self.blocks.chunks(each).map(|blocks| self.with(blocks)).collect(),
        }
    }

    fn with(&self, blocks: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        write_long(&mut bytes, self.header.len() as u64);
        for (name, value) in &self.header {
            write_counted(&mut bytes, name.as_bytes());
            write_counted(&mut bytes, value);
        }
        bytes.push(0);
        bytes.extend_from_slice(&self.marker);
        for block in blocks {
            bytes.extend_from_slice(block);
        }
        bytes
    }
}

fn write_long(bytes: &mut Vec<u8>, value: u64) {
    let mut bits = value << 1;
    while bits > 0x7F {
        bytes.push((bits & 0x7F) as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
}

fn write_counted(bytes: &mut Vec<u8>, value: &[u8]) {
    write_long(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

/// What a block holds, if it is not more than there is room for.
fn unpacked<'a>(codec: &[u8], packed: &'a [u8], room: usize) -> Result<Cow<'a, [u8]>> {
    let read = |reader: &mut dyn Read| -> Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        // One byte more shows that there are too many.
        reader.take(room as u64 + 1).read_to_end(&mut unpacked).map_err(|cause| unreadable(&cause))?;
        Ok(unpacked)
    };
    let unpacked = match codec {
        b"" | b"null" => Cow::Borrowed(packed),
        b"deflate" => Cow::Owned(read(&mut DeflateDecoder::new(packed))?),
        b"zstandard" => {
            let mut reader = FileCompressionType::ZSTD.convert_read(Cursor::new(packed.to_vec()))?;
            Cow::Owned(read(&mut reader)?)
        }
        b"snappy" => {
            let (packed, sum) = packed.split_last_chunk::<4>().ok_or_else(cut)?;
            let length = snap::raw::decompress_len(packed).map_err(|cause| unreadable(&cause))?;
            // Three bytes stand for 64 at most.
            if length / 32 > packed.len() || length > room {
                return Err(too_large());
            }
            let unpacked = snap::raw::Decoder::new().decompress_vec(packed).map_err(|cause| unreadable(&cause))?;
            if crc32fast::hash(&unpacked) != u32::from_be_bytes(*sum) {
                return Err(cut());
            }
            Cow::Owned(unpacked)
        }
        other => return Err(refused(format!("Avro files packed by \"{}\"", String::from_utf8_lossy(other)))),
    };
    if unpacked.len() > room {
        return Err(too_large());
    }
    Ok(unpacked)
}

fn too_large() -> Error {
    Error::data(format!("this unpacks to more than {LARGEST} bytes, and should be metadata"))
}

/// How the values of a schema lie in a file.
enum Shape {
    /// So many bytes, which are some.
    Sized(usize),
    Long,
    /// A number of bytes and those.
    Counted,
    /// One after the other; of none there is one at most, the partition of files without any.
    All(Vec<Shape>),
    /// Groups with the number of each; an item is no less than a byte.
    Items(Box<Shape>),
    /// A number, and that of these; none is NULL.
    One(Vec<Option<Shape>>),
    /// What a manifest tells of columns.
    Metric(Apart),
}

impl Shape {
    fn is_empty(&self) -> bool {
        matches!(self, Self::All(parts) if parts.iter().all(Self::is_empty))
    }
}

/// What is known of a schema so far.
#[derive(Default)]
struct Shapes {
    /// The types of a fixed size, by name. Only these are called by name again, so that no schema is larger than it is written.
    sized: HashMap<String, usize>,
    has_empty: bool,
    /// Whether what a record tells of columns is read apart.
    is_manifest: bool,
}

impl Shapes {
    /// None for schemas that metadata does not have, whose values could be many for few bytes or none.
    fn shape(&mut self, schema: &Value) -> Option<Shape> {
        match schema {
            Value::String(name) => Some(match name.as_str() {
                "boolean" => Shape::Sized(1),
                "int" | "long" => Shape::Long,
                "float" => Shape::Sized(4),
                "double" => Shape::Sized(8),
                "bytes" | "string" => Shape::Counted,
                known => Shape::Sized(*self.sized.get(known)?),
            }),
            Value::Array(variants) => {
                let variants = variants.iter().map(|variant| match variant.as_str() {
                    Some("null") => Some(None),
                    _ => self.shape(variant).map(Some),
                });
                variants.collect::<Option<Vec<Option<Shape>>>>().map(Shape::One)
            }
            Value::Object(object) => {
                let of = object.get("type")?;
                let shape = match of.as_str() {
                    Some("record") => {
                        let fields = object.get("fields")?.as_array()?;
                        if fields.is_empty() && std::mem::replace(&mut self.has_empty, true) {
                            return None;
                        }
                        let fields = fields.iter().map(|field| match Apart::of(field).filter(|_| self.is_manifest) {
                            Some(apart) => Some(Shape::Metric(apart)),
                            None => self.shape(field.get("type")?),
                        });
                        Shape::All(fields.collect::<Option<Vec<Shape>>>()?)
                    }
                    Some("fixed") => {
                        let size = object.get("size")?.as_u64().filter(|size| *size > 0)?;
                        let size = usize::try_from(size).ok()?;
                        let known = self.sized.insert(object.get("name")?.as_str()?.to_owned(), size);
                        if known.is_some_and(|known| known != size) {
                            return None;
                        }
                        Shape::Sized(size)
                    }
                    Some("enum") => Shape::Long,
                    Some("array") => items(self.shape(object.get("items")?)?)?,
                    Some("map") => items(Shape::All(vec![Shape::Counted, self.shape(object.get("values")?)?]))?,
                    _ => self.shape(of)?,
                };
                // Their reader looks for a number of bytes before a UUID, wherever it lies.
                let is_uuid = object.get("logicalType").and_then(Value::as_str) == Some("uuid");
                (!is_uuid || matches!(shape, Shape::Counted)).then_some(shape)
            }
            _ => None,
        }
    }
}

fn items(item: Shape) -> Option<Shape> {
    (!item.is_empty()).then(|| Shape::Items(Box::new(item)))
}

/// What the values of a block tell apart from the rest.
#[derive(Default)]
struct Found {
    /// Of the last value.
    metrics: Metrics,
    /// How much of the block was left before and after each metric, and what stands for none.
    metric_places: Vec<(usize, usize, u64)>,
}

impl Found {
    /// The block without the metrics.
    fn left<'a>(&self, block: &'a [u8]) -> Cow<'a, [u8]> {
        if self.metric_places.is_empty() {
            return Cow::Borrowed(block);
        }
        let between = |rest: usize, until: usize| block.get(block.len() - rest..block.len() - until).unwrap_or_default();
        let (mut left, mut rest) = (Vec::new(), block.len());
        for (before, after, nothing) in &self.metric_places {
            left.extend_from_slice(between(rest, *before));
            write_long(&mut left, *nothing);
            rest = *after;
        }
        left.extend_from_slice(between(rest, 0));
        Cow::Owned(left)
    }
}

impl Rest<'_> {
    /// Goes past a value; none where that is not all there. Each step takes a byte, but for parts of which a schema has one.
    fn pass(&mut self, shape: &Shape, found: &mut Found) -> Option<()> {
        match shape {
            Shape::Sized(size) => self.take(*size).map(drop),
            Shape::Long => self.long().map(drop),
            Shape::Counted => self.counted().map(drop),
            Shape::All(parts) => parts.iter().try_for_each(|part| self.pass(part, found)),
            Shape::Items(item) => loop {
                let count = self.long()?;
                if count == 0 {
                    return Some(());
                }
                if count < 0 {
                    self.long()?;
                }
                for _ in 0..count.unsigned_abs() {
                    self.pass(item, found)?;
                }
            },
            Shape::One(variants) => {
                let variant = usize::try_from(self.long()?).ok()?;
                variants.get(variant)?.as_ref().map_or(Some(()), |variant| self.pass(variant, found))
            }
            Shape::Metric(apart) => {
                let before = self.0.len();
                apart.read(self, &mut found.metrics)?;
                found.metric_places.push((before, self.0.len(), apart.nothing()));
                Some(())
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use nexus_flight_catalog::Kind;
    use serde_json::json;

    use super::*;
    use crate::lake::Room;

    fn opened(bytes: &[u8]) -> Result<File> {
        File::new(bytes, &mut Room::new().taken())
    }

    /// A file without values and this header.
    pub(in crate::iceberg) fn of_header(header: &[(&str, Value)]) -> File {
        let header = header.iter().map(|(name, value)| ((*name).to_owned(), serde_json::to_vec(value).unwrap())).collect();
        File { header, values: 0, metrics: Vec::new(), marker: vec![7; 16], blocks: Vec::new() }
    }

    fn with(schema: Value, codec: &str, blocks: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = of_header(&[("avro.schema", schema)]);
        file.header.insert("avro.codec".to_owned(), codec.as_bytes().to_vec());
        for (count, block) in blocks {
            let mut whole = Vec::new();
            write_long(&mut whole, *count);
            write_counted(&mut whole, block);
            whole.extend([7; 16]);
            file.blocks.push(whole);
        }
        file.bytes()
    }

    /// A file with blocks of so many values of one byte.
    fn file(blocks: &[usize]) -> Vec<u8> {
        let blocks: Vec<Vec<u8>> = blocks.iter().map(|count| vec![0; *count]).collect();
        let blocks: Vec<(u64, &[u8])> = blocks.iter().map(|block| (block.len() as u64, block.as_slice())).collect();
        with(json!("int"), "null", &blocks)
    }

    fn values(bytes: &[u8]) -> Option<u64> {
        opened(bytes).ok().map(|file| file.values)
    }

    #[test]
    fn blocks_are_counted() {
        assert_eq!(values(&file(&[])), Some(0));
        assert_eq!(values(&file(&[3, 40])), Some(43));
        assert_eq!(values(&file(&[3, 0])), Some(3));
        let again = opened(&file(&[3, 300])).unwrap().bytes();
        assert_eq!(values(&again), Some(303));
    }

    #[test]
    fn parts_make_up_the_file() {
        let of = |blocks: &[usize], most: usize| {
            let parts = opened(&file(blocks)).unwrap().parts(most);
            parts.iter().map(|part| values(part).unwrap()).collect::<Vec<u64>>()
        };
        assert_eq!(of(&[1, 2, 4, 8, 16], 2), [7, 24]);
        assert_eq!(of(&[1, 2, 4], 1), [7]);
        assert_eq!(of(&[1, 2], 8), [1, 2]);
        assert_eq!(of(&[], 8), [0]);
    }

    #[test]
    fn a_file_that_is_cut_or_lies_is_refused() {
        let whole = file(&[3, 40]);
        let ends = [file(&[]).len(), file(&[3]).len(), whole.len()];
        for cut in 0..=whole.len() {
            assert_eq!(values(&whole[..cut]).is_some(), ends.contains(&cut), "{cut}");
        }
        // An empty block before others, more values than bytes, another marker, and another beginning.
        assert_eq!(values(&file(&[0, 3])), None);
        let at = file(&[]).len();
        for (place, byte) in [(at, 80), (at + 5, 8), (0, b'o')] {
            let mut bytes = file(&[3]);
            bytes[place] = byte;
            assert_eq!(values(&bytes), None, "{place}");
        }
    }

    #[test]
    fn blocks_are_unpacked_to_a_bound() {
        let snappy = |length: u8, sum: [u8; 4]| [&[length, 4, 2, 4][..], &sum].concat();
        let sum = crc32fast::hash(&[2, 4]).to_be_bytes();
        let deflated = [1, 2, 0, 0xFD, 0xFF, 2, 4];
        for (codec, block) in [("deflate", deflated.to_vec()), ("snappy", snappy(2, sum))] {
            let file = opened(&with(json!("int"), codec, &[(2, &block[..])])).unwrap();
            assert_eq!((file.values, file.blocks), (2, vec![[&[4, 4, 2, 4][..], &[7; 16]].concat()]), "{codec}");
        }
        for block in [snappy(2, [0; 4]), snappy(0x7F, sum)] {
            assert_eq!(values(&with(json!("int"), "snappy", &[(2, &block[..])])), None);
        }
        assert_eq!(unpacked(b"deflate", &deflated, 2).unwrap().into_owned(), vec![2, 4]);
        assert_eq!(unpacked(b"deflate", &deflated, 1).unwrap_err().kind(), Kind::Data);
        assert_eq!(unpacked(b"bzip2", &deflated, 9).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn values_take_no_more_memory_than_there_is() {
        let bytes = file(&[1000]);
        let room = Room::of(1100 * 1024);
        let held = File::new(&bytes, &mut room.taken()).map(|file| file.values);
        assert_eq!(held.ok(), Some(1000));
        let mut taken = room.taken();
        File::new(&bytes, &mut taken).map(drop).unwrap();
        let refused = File::new(&bytes, &mut room.taken()).err().unwrap();
        assert_eq!(refused.kind(), Kind::Exhausted);
    }

    #[test]
    fn what_a_manifest_tells_of_columns_is_apart() {
        let fields = json!([{ "name": "key", "type": "int" }, { "name": "value", "type": "long" }]);
        let counts = json!({ "type": "array", "items": { "type": "record", "name": "k1_v2", "fields": fields } });
        let schema = json!({ "type": "record", "name": "r2", "fields": [
            { "name": "a", "type": "int" },
            { "name": "value_counts", "type": ["null", counts.clone()] },
            { "name": "b", "type": "string" },
            { "name": "column_sizes", "type": counts },
        ] });
        let text = [&[24][..], b"file:///w/t/"].concat();
        let first = [&[2, 2, 2, 14, 4, 0][..], &text[..], &[2, 6, 8, 0]].concat();
        let block = [&first[..], &[4, 0], &text[..], &[0]].concat();
        let bytes = with(schema, "null", &[(2, &block[..])]);
        let left = [&[2, 0][..], &text[..], &[0, 4, 0], &text[..], &[0]].concat();
        let file = File::of_manifest(&bytes, &mut Room::new().taken()).unwrap();
        assert_eq!(file.blocks, vec![[&[4, 64][..], &left[..], &[7; 16][..]].concat()]);
        let told: Vec<_> = file.metrics.iter().map(|told| (told.values.get(7), told.sizes.get(3))).collect();
        assert_eq!(told, [(Some(&2), Some(&4)), (None, None)]);
        let whole = opened(&bytes).unwrap();
        assert_eq!((whole.metrics.len(), whole.blocks), (0, vec![[&[4, 78][..], &block[..], &[7; 16][..]].concat()]));
        // One that says that it has more than there is, and one that names no file.
        for block in [&first[..4], &[2, 0, 0, 0]] {
            let bytes = with(serde_json::from_slice(&whole.header["avro.schema"]).unwrap(), "null", &[(1, block)]);
            assert!(File::of_manifest(&bytes, &mut Room::new().taken()).is_err(), "{block:?}");
        }
    }

    #[test]
    fn values_are_as_their_schema_says() {
        let schema = json!({ "type": "record", "name": "a", "fields": [
            { "name": "b", "type": ["null", { "type": "array", "items": "string" }] },
            { "name": "c", "type": { "type": "map", "values": { "type": "fixed", "name": "two", "size": 2 } } },
            { "name": "d", "type": { "type": "record", "name": "none", "fields": [] } },
            { "name": "e", "type": "two" },
        ] });
        let holds = |block: &[u8]| values(&with(schema.clone(), "null", &[(1, block)])).is_some();
        assert!(holds(&[2, 4, 2, b'x', 0, 0, 2, 2, b'k', 1, 2, 0, 1, 2]));
        assert!(holds(&[0, 1, 8, 2, b'k', 1, 2, 0, 1, 2]));
        // No such variant, more items than there are, a text that is cut, and a byte too many.
        assert!(!holds(&[4, 0, 1, 2]));
        assert!(!holds(&[2, 0xFE, 0xFF, 0xFF, 0x7F, 0, 0, 0, 1, 2]));
        assert!(!holds(&[2, 2, 40, b'x']));
        assert!(!holds(&[0, 0, 1, 2, 3]));
    }

    #[test]
    fn schemas_of_many_values_in_few_bytes_are_refused() {
        let empty = |name: &str| json!({ "type": "record", "name": name, "fields": [] });
        let fixed = |size: u64| json!({ "type": "fixed", "name": "f", "size": size });
        let uuid = json!({ "type": "fixed", "name": "u", "size": 16, "logicalType": "uuid" });
        for items in [json!("null"), empty("a"), fixed(0), uuid, json!("unknown")] {
            assert!(Shapes::default().shape(&json!({ "type": "array", "items": items })).is_none(), "{items}");
        }
        let two = json!([empty("a"), empty("b")]);
        assert!(Shapes::default().shape(&two).is_none());
        let text = json!({ "type": "string", "logicalType": "uuid" });
        assert!(Shapes::default().shape(&json!({ "type": "array", "items": text })).is_some());
        assert_eq!(values(&with(empty("a"), "null", &[(9, &[][..])])), None);
    }
}
