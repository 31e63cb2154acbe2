//! The tables that every source under test holds.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema};

use crate::source::{ForeignKey, Keys};

/// A table that the source under test holds.
#[derive(Debug, Clone)]
pub struct SeedTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub batch: RecordBatch,
    /// Its keys; checked where the source declares that it knows keys.
    pub keys: Keys,
}

/// The tables that a fixture loads: `types` (common types, NULLs, text in many scripts), `links` (refers to `types`),
/// `empty`, and `nested` (lists, structures, binary) for sources that can hold it.
pub fn seed() -> Vec<SeedTable> {
    let primary = |column: &str| Keys { primary: vec![column.to_owned()], foreign: vec![] };
    let target = ForeignKey {
        columns: vec!["target".into()],
        schema: "main".into(),
        table: "types".into(),
        referenced: vec!["id".into()],
    };
    let links = Keys { foreign: vec![target], ..primary("link") };
    let types = types(ROWS);
    vec![
        SeedTable { name: "empty".into(), batch: types.slice(0, 0), keys: Keys::default() },
        SeedTable { name: "links".into(), batch: links_batch(), keys: links },
        SeedTable { name: "nested".into(), batch: nested(), keys: Keys::default() },
        SeedTable { name: "types".into(), batch: types, keys: primary("id") },
    ]
}

pub(super) const ROWS: i64 = 120;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Fields = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let made = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays);
    made.unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())))
}

/// The table `types` with this many rows; a fixture's mutation writes it anew with more.
pub fn types(rows: i64) -> RecordBatch {
    let texts =
        ["alpha", "Beta", "数据网关", "データ", "게이트웨이", "naïve café", "emoji 🚀", "comma, \"quoted\"", "x%_y", " padded "];
    let ids = || 0..rows;
    let sparse = |step: i64| move |id: i64| (id % step != 0).then_some(id);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(ids()))),
        ("flag", Arc::new(ids().map(sparse(7)).map(|id| id.map(|id| id % 2 == 0)).collect::<BooleanArray>())),
        ("small", Arc::new(ids().map(sparse(5)).map(|id| id.map(|id| (id % 20 - 10) as i32)).collect::<Int32Array>())),
        ("ratio", Arc::new(ids().map(sparse(11)).map(|id| id.map(|id| id as f64 / 8.0 - 3.5)).collect::<Float64Array>())),
        ("price", {
            let values: Decimal128Array = ids().map(sparse(9)).map(|id| id.map(|id| i128::from(id * 1099 - 5000))).collect();
            Arc::new(values.with_data_type(DataType::Decimal128(15, 2)))
        }),
        ("name", {
            let text = |id: i64| texts.get((id % 13) as usize).map(|text| format!("{text} {}", id % 3));
            Arc::new(ids().map(text).collect::<StringArray>())
        }),
        ("day", Arc::new(ids().map(sparse(6)).map(|id| id.map(|id| 19_000 + id as i32 * 3)).collect::<Date32Array>())),
        ("at", {
            let micros = |id: i64| 1_700_000_000_000_000 + id * 86_400_123_456;
            Arc::new(ids().map(sparse(8)).map(|id| id.map(micros)).collect::<TimestampMicrosecondArray>())
        }),
    ];
    batch(columns)
}

fn links_batch() -> RecordBatch {
    let targets = (0..40).map(|link| (link % 4 != 3).then_some(link * 5 % 130));
    batch(vec![
        ("link", Arc::new(Int64Array::from_iter_values(0..40))),
        ("target", Arc::new(targets.collect::<Int64Array>())),
        ("note", Arc::new((0..40).map(|link| (link % 3 != 0).then(|| format!("备注 {link}"))).collect::<StringArray>())),
    ])
}

fn nested() -> RecordBatch {
    let lists = (0..30).map(|row| (row % 4 != 0).then(|| (0..row % 5).map(Some).collect::<Vec<Option<i32>>>()));
    let x: ArrayRef = Arc::new((0..30).map(|row| (row % 3 != 0).then_some(row)).collect::<Int32Array>());
    let y: ArrayRef = Arc::new((0..30).map(|row| Some(format!("点 {row}"))).collect::<StringArray>());
    let fields = [("x", &x), ("y", &y)].map(|(name, array)| Arc::new(Field::new(name, array.data_type().clone(), true)));
    let point = StructArray::try_new(Fields::from(fields.to_vec()), vec![x, y], None);
    let bytes = (0..30u8).map(|row| (row % 5 != 0).then(|| vec![row, 0, 255]));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..30))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("bytes", Arc::new(bytes.collect::<BinaryArray>())),
    ];
    if let Ok(point) = point {
        columns.push(("point", Arc::new(point)));
    }
    batch(columns)
}
