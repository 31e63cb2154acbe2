//! What metadata tells of a new file, from its footer: sizes, counts, and bounds of values (Iceberg specification, Manifests).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PrimitiveLiteral, PrimitiveType, Schema, Struct,
};
use nexus_flight_catalog::{Error, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use crate::lake::Nans;
use crate::stores::Uploaded;

/// The most letters of a text, and the most bytes, that a bound has.
const LONGEST: usize = 16;

/// The bounds of a column, as far as they are known.
struct Bounds {
    low: Option<Datum>,
    high: Option<Datum>,
}

#[derive(Default)]
struct Metrics {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    nans: HashMap<i32, u64>,
    bounds: HashMap<i32, Bounds>,
}

/// A file with so many NaN as a manifest tells of it. There are no bounds of floats where one is NaN, of which some readers take it for
/// larger than all others, nor of UUIDs, which not everybody orders alike, nor of what lists and maps hold.
pub(super) fn described(
    file: &Uploaded,
    nans: &Nans,
    address: &str,
    partition: Struct,
    spec: i32,
    schema: &Schema,
) -> Result<DataFile> {
    let unsound = || Error::internal("a file that was written has a size or a count below zero");
    let rows = u64::try_from(file.footer.file_metadata().num_rows()).map_err(|_| unsound())?;
    let Metrics { sizes, values, nulls, nans, bounds } = metrics(&file.footer, nans, schema).ok_or_else(unsound)?;
    let (mut lower, mut upper) = (HashMap::new(), HashMap::new());
    for (id, Bounds { low, high }) in bounds {
        lower.extend(low.and_then(|low| Some((id, shortened(low, false)?))));
        upper.extend(high.and_then(|high| Some((id, shortened(high, true)?))));
    }
    let offsets: Option<Vec<i64>> = file.footer.row_groups().iter().map(|group| group.file_offset()).collect();
    let mut builder = DataFileBuilder::default();
    builder.content(DataContentType::Data).file_path(address.to_owned()).file_format(DataFileFormat::Parquet);
    builder.partition(partition).partition_spec_id(spec).record_count(rows).file_size_in_bytes(file.size);
    builder.column_sizes(sizes).value_counts(values).null_value_counts(nulls).nan_value_counts(nans);
    builder.lower_bounds(lower).upper_bounds(upper);
    builder.split_offsets(offsets);
    builder.build().map_err(|cause| Error::internal("a file cannot be described").caused_by(cause))
}

/// None for a footer that no writer writes.
fn metrics(footer: &ParquetMetaData, nans: &Nans, schema: &Schema) -> Option<Metrics> {
    let mut metrics = Metrics::default();
    for (leaf, chunk) in footer.row_groups().iter().flat_map(|group| group.columns().iter().enumerate()) {
        let info = chunk.column_descr().self_type().get_basic_info();
        let Some(id) = info.has_id().then(|| info.id()) else { continue };
        let values = u64::try_from(chunk.num_values()).ok()?;
        *metrics.sizes.entry(id).or_default() += u64::try_from(chunk.compressed_size()).ok()?;
        *metrics.values.entry(id).or_default() += values;
        let primitive = schema.field_by_id(id).and_then(|field| field.field_type.as_primitive_type());
        let (Some(primitive), 0) = (primitive, chunk.column_descr().max_rep_level()) else { continue };
        let statistics = chunk.statistics();
        let nulls = statistics.and_then(Statistics::null_count_opt);
        *metrics.nulls.entry(id).or_default() += nulls?;
        if matches!(primitive, PrimitiveType::Float | PrimitiveType::Double) {
            metrics.nans.insert(id, nans.of(leaf));
        }
        if nulls == Some(values) {
            continue;
        }
        let told = statistics.filter(|_| nans.of(leaf) == 0);
        let found = told.map_or(Bounds { low: None, high: None }, |statistics| bounds(statistics, primitive));
        match metrics.bounds.entry(id) {
            Entry::Vacant(place) => {
                place.insert(found);
            }
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                known.low = outer(known.low.take(), found.low, |new, known| new < known);
                known.high = outer(known.high.take(), found.high, |new, known| new > known);
            }
        }
    }
    Some(metrics)
}

/// The one of two bounds that is a bound of both; none where one is not known.
fn outer(known: Option<Datum>, new: Option<Datum>, is_outer: impl Fn(&Datum, &Datum) -> bool) -> Option<Datum> {
    let (known, new) = (known?, new?);
    Some(if is_outer(&new, &known) { new } else { known })
}

/// What a footer says of the values of a column in a group of rows.
fn bounds(statistics: &Statistics, primitive: &PrimitiveType) -> Bounds {
    let datum = |plain: Option<&[u8]>| -> Option<Datum> {
        let plain = plain?;
        let bytes: Vec<u8> = match (primitive, statistics) {
            (PrimitiveType::Uuid, _) => return None,
            // Numbers are stored with the least byte first, and decimals are told of with it last.
            (PrimitiveType::Decimal { .. }, Statistics::Int32(_) | Statistics::Int64(_)) => plain.iter().rev().copied().collect(),
            _ => plain.to_vec(),
        };
        Datum::try_from_bytes(&bytes, primitive.clone()).ok()
    };
    Bounds { low: datum(statistics.min_bytes_opt()), high: datum(statistics.max_bytes_opt()) }
}

/// A bound that is not long, and still a bound: an upper one is rounded up. None where there is no such.
fn shortened(bound: Datum, is_upper: bool) -> Option<Datum> {
    match (bound.data_type(), bound.literal()) {
        (PrimitiveType::String, PrimitiveLiteral::String(text)) => {
            let mut short: Vec<char> = text.chars().take(LONGEST).collect();
            if is_upper && text.chars().nth(LONGEST).is_some() {
                short = next(short, following)?;
            }
            Some(Datum::string(short.into_iter().collect::<String>()))
        }
        (PrimitiveType::Binary, PrimitiveLiteral::Binary(bytes)) => {
            let mut short: Vec<u8> = bytes.iter().take(LONGEST).copied().collect();
            if is_upper && bytes.len() > LONGEST {
                short = next(short, |byte| byte.checked_add(1))?;
            }
            Some(Datum::binary(short))
        }
        (PrimitiveType::Fixed(_), PrimitiveLiteral::Binary(bytes)) if bytes.len() > LONGEST => None,
        _ => Some(bound),
    }
}

/// The least that is larger than all that begin like this, and no longer; none where there is none.
fn next<T: Copy>(mut parts: Vec<T>, following: impl Fn(T) -> Option<T>) -> Option<Vec<T>> {
    while let Some(last) = parts.pop() {
        if let Some(following) = following(last) {
            parts.push(following);
            return Some(parts);
        }
    }
    None
}

/// The letter after another.
fn following(letter: char) -> Option<char> {
    // Between them are the surrogates, which are no letters.
    if letter == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(letter) + 1) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, ListArray,
        RecordBatch, StringArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type};
    use object_store::path::Path;

    use super::super::columns::Columns;
    use super::*;
    use crate::stores::{Location, Store, Upload};

    fn bound(bound: Datum, is_upper: bool) -> Option<String> {
        shortened(bound, is_upper).map(|bound| bound.to_human_string())
    }

    #[test]
    fn long_bounds_are_cut_and_still_bounds() {
        let long = "名".repeat(17);
        assert_eq!(bound(Datum::string(&long), false), Some("名".repeat(16)));
        assert_eq!(bound(Datum::string(&long), true), Some(format!("{}后", "名".repeat(15))));
        assert_eq!(bound(Datum::string("a".repeat(16)), true), Some("a".repeat(16)));
        let highest = |count: usize| "\u{10FFFF}".repeat(count);
        assert_eq!(bound(Datum::string(format!("a{}", highest(16))), true), Some("b".to_owned()));
        assert_eq!(bound(Datum::string(highest(17)), true), None);
        assert_eq!(following('\u{D7FF}'), Some('\u{E000}'));
        assert_eq!(shortened(Datum::binary([0xFF; 17]), true), None);
        let rounded = Datum::binary([&[7, 0xFF].repeat(7)[..], &[8]].concat());
        assert_eq!(shortened(Datum::binary([7, 0xFF].repeat(9)), true), Some(rounded));
        assert_eq!(shortened(Datum::fixed([1; 17]), false), None);
    }

    #[tokio::test]
    async fn metadata_tells_what_is_in_a_file() {
        let schema: Schema = serde_json::from_value(serde_json::json!({
            "type": "struct", "schema-id": 0, "fields": [
                { "id": 11, "name": "number", "required": false, "type": "int" },
                { "id": 12, "name": "price", "required": false, "type": "decimal(9,2)" },
                { "id": 13, "name": "ratio", "required": false, "type": "double" },
                { "id": 14, "name": "name", "required": false, "type": "string" },
                { "id": 15, "name": "bytes", "required": false, "type": "binary" },
                { "id": 16, "name": "day", "required": false, "type": "date" },
                { "id": 17, "name": "flag", "required": false, "type": "boolean" },
                { "id": 20, "name": "rate", "required": false, "type": "float" },
                { "id": 18, "name": "many", "required": false, "type":
                    { "type": "list", "element-id": 19, "element-required": false, "element": "int" } },
            ],
        }))
        .unwrap();
        let many = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        let (_, offsets, values, nulls) = many.into_parts();
        let many = ListArray::new(Arc::new(Field::new("element", DataType::Int32, true)), offsets, values, nulls);
        let price = Decimal128Array::from(vec![Some(-150), Some(99), None]).with_precision_and_scale(9, 2).unwrap();
        let given: Vec<(&str, ArrayRef, bool)> = vec![
            ("number", Arc::new(Int32Array::from(vec![Some(-7), None, Some(300)])), true),
            ("price", Arc::new(price), true),
            ("ratio", Arc::new(Float64Array::from(vec![1.5, f64::NAN, 2.5])), true),
            ("name", Arc::new(StringArray::from(vec!["b", "名", "a"])), true),
            ("bytes", Arc::new(BinaryArray::from_vec(vec![&[0xFF_u8][..], &[][..], &[1][..]])), true),
            ("day", Arc::new(Date32Array::from(vec![1, 2, 3])), true),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, None])), true),
            ("rate", Arc::new(Float32Array::from(vec![Some(0.0), Some(-1.5), None])), true),
            ("many", Arc::new(many), true),
        ];
        let columns = Columns::of(&schema).unwrap();
        let rows = columns.rows(&RecordBatch::try_from_iter_with_nullable(given).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open("lake", &Location::Folder(folder.path().to_owned())).unwrap());
        let stored = Arc::clone(&columns.stored);
        let mut upload = Upload::described(&store, Path::from("a.parquet"), stored, columns.described.clone()).unwrap();
        upload.write(&rows.slice(0, 2)).await.unwrap();
        upload.flush().await.unwrap();
        upload.write(&rows.slice(2, 1)).await.unwrap();
        let mut nans = Nans::default();
        nans.add(&rows);
        let uploaded = upload.close().await.unwrap();
        let file = described(&uploaded, &nans, "s3://b/a.parquet", Struct::empty(), 3, &schema).unwrap();
        assert_eq!((file.record_count(), file.split_offsets().map(<[i64]>::len)), (3, Some(2)));
        assert_eq!(file.column_sizes().len(), 9);
        assert_eq!(*file.nan_value_counts(), HashMap::from([(13, 1), (20, 0)]));
        assert_eq!((file.value_counts().get(&11), file.value_counts().get(&19)), (Some(&3), Some(&4)));
        assert_eq!((file.null_value_counts().get(&11), file.null_value_counts().get(&17)), (Some(&1), Some(&2)));
        assert_eq!(file.null_value_counts().get(&19), None);
        let shown = |id: i32| {
            let shown = |bounds: &HashMap<i32, Datum>| bounds.get(&id).map(|bound| bound.to_human_string());
            Some((shown(file.lower_bounds())?, shown(file.upper_bounds())?))
        };
        let both = |low: &str, high: &str| Some((low.to_owned(), high.to_owned()));
        assert_eq!(shown(11), both("-7", "300"));
        assert_eq!(file.lower_bounds().get(&12).map(Datum::literal), Some(&PrimitiveLiteral::Int128(-150)));
        assert_eq!(file.upper_bounds().get(&12).map(Datum::literal), Some(&PrimitiveLiteral::Int128(99)));
        assert_eq!(shown(14), both("a", "名"));
        assert_eq!(file.lower_bounds().get(&15), Some(&Datum::binary([])));
        assert_eq!(file.upper_bounds().get(&15), Some(&Datum::binary([0xFF])));
        assert_eq!(shown(16), both("1970-01-02", "1970-01-04"));
        assert_eq!(shown(17), both("true", "true"));
        assert_eq!((shown(13), shown(19), shown(20)), (None, None, both("-1.5", "0")));
    }
}
