//! What a manifest tells of the columns of each file, by their ids. It is most of a manifest, and read right from the file: the crate of
//! the format takes every number of it through several forms.

use iceberg::spec::{Datum, PrimitiveType};
use nexus_flight_catalog::Result;
use serde_json::Value;

use super::table::unreadable;
use crate::lake::Rest;

/// Values by the ids of columns.
#[derive(Debug, Default)]
pub(super) struct ById<T>(Vec<(i32, T)>);

impl<T> ById<T> {
    /// Of values of which the last counts where a column has several.
    fn new(mut all: Vec<(i32, T)>) -> Self {
        all.reverse();
        all.sort_by_key(|(id, _)| *id);
        all.dedup_by_key(|(id, _)| *id);
        Self(all)
    }

    pub(super) fn get(&self, id: i32) -> Option<&T> {
        let at = self.0.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// In the order of the ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &T)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }
}

/// What is told of the columns of one file; nothing of a column that it is not told of.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) sizes: ById<u64>,
    pub(super) values: ById<u64>,
    pub(super) nulls: ById<u64>,
    pub(super) nans: ById<u64>,
    lower: ById<Vec<u8>>,
    upper: ById<Vec<u8>>,
}

impl Metrics {
    /// Whether the file is known to hold a column.
    pub(super) fn hold(&self, id: i32) -> bool {
        [&self.sizes, &self.values, &self.nulls].iter().any(|counts| counts.get(id).is_some())
    }

    /// What no value of a column is less than, which had this type when the file was written. Errors: `Data` for bytes that are none.
    pub(super) fn lower(&self, id: i32, written: &PrimitiveType) -> Result<Option<Datum>> {
        self.lower.get(id).map(|bytes| datum(bytes, written)).transpose()
    }

    /// What no value of a column is greater than. Errors: as of [`Self::lower`].
    pub(super) fn upper(&self, id: i32, written: &PrimitiveType) -> Result<Option<Datum>> {
        self.upper.get(id).map(|bytes| datum(bytes, written)).transpose()
    }
}

fn datum(bytes: &[u8], written: &PrimitiveType) -> Result<Datum> {
    Datum::try_from_bytes(bytes, written.clone()).map_err(|cause| unreadable(&cause.message()))
}

enum Metric {
    Sizes,
    Values,
    Nulls,
    Nans,
    Lower,
    Upper,
}

/// How a metric lies in a manifest: groups of ids with a value each.
pub(super) struct Apart {
    metric: Metric,
    /// Which of its two types is NULL, where it may be that.
    null: Option<u64>,
}

impl Apart {
    /// Of a field of a record in Avro; none where that is no metric, or none as writers give it, of which nothing is known then.
    pub(super) fn of(field: &Value) -> Option<Self> {
        let metric = match field.get("name")?.as_str()? {
            "column_sizes" => Metric::Sizes,
            "value_counts" => Metric::Values,
            "null_value_counts" => Metric::Nulls,
            "nan_value_counts" => Metric::Nans,
            "lower_bounds" => Metric::Lower,
            "upper_bounds" => Metric::Upper,
            _ => return None,
        };
        let is = |of: &Value, name: &str| of.as_str() == Some(name);
        let (null, list) = match field.get("type")? {
            Value::Array(types) => match types.as_slice() {
                [null, list] if is(null, "null") => (Some(0), list),
                [list, null] if is(null, "null") => (Some(1), list),
                _ => return None,
            },
            list => (None, list),
        };
        let of = |record: &Value, key: &str, name: &str| record.get(key).is_some_and(|value| is(value, name));
        let pair = list.get("items").filter(|items| of(list, "type", "array") && of(items, "type", "record"))?;
        let [id, value] = pair.get("fields")?.as_array()?.as_slice() else { return None };
        let wanted = if matches!(metric, Metric::Lower | Metric::Upper) { "bytes" } else { "long" };
        let is_known = of(id, "name", "key") && of(id, "type", "int") && of(value, "name", "value") && of(value, "type", wanted);
        is_known.then_some(Self { metric, null })
    }

    /// Goes past a metric and adds it to those of its file; none where it is not all there.
    pub(super) fn read(&self, rest: &mut Rest<'_>, metrics: &mut Metrics) -> Option<()> {
        if let Some(null) = self.null {
            match u64::try_from(rest.long()?).ok()? {
                variant if variant == null => return Some(()),
                0 | 1 => {}
                _ => return None,
            }
        }
        match self.metric {
            Metric::Sizes => metrics.sizes = counts(rest)?,
            Metric::Values => metrics.values = counts(rest)?,
            Metric::Nulls => metrics.nulls = counts(rest)?,
            Metric::Nans => metrics.nans = counts(rest)?,
            Metric::Lower => metrics.lower = bounds(rest)?,
            Metric::Upper => metrics.upper = bounds(rest)?,
        }
        Some(())
    }

    /// The number that stands in a file for a metric of nothing: that of NULL, or of a group without values.
    pub(super) fn nothing(&self) -> u64 {
        self.null.unwrap_or_default()
    }
}

/// Counts, but for those below zero, which count nothing.
fn counts(rest: &mut Rest<'_>) -> Option<ById<u64>> {
    let all = pairs(rest, |rest| rest.long())?;
    Some(ById::new(all.into_iter().filter_map(|(id, count)| Some((id, u64::try_from(count).ok()?))).collect()))
}

fn bounds(rest: &mut Rest<'_>) -> Option<ById<Vec<u8>>> {
    pairs(rest, |rest| rest.counted().map(<[u8]>::to_vec)).map(ById::new)
}

fn pairs<T>(rest: &mut Rest<'_>, value: impl Fn(&mut Rest<'_>) -> Option<T>) -> Option<Vec<(i32, T)>> {
    let mut pairs = Vec::new();
    loop {
        let count = rest.long()?;
        if count == 0 {
            return Some(pairs);
        }
        if count < 0 {
            rest.long()?;
        }
        for _ in 0..count.unsigned_abs() {
            pairs.push((i32::try_from(rest.long()?).ok()?, value(rest)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(name: &str, of: &str) -> Value {
        let fields = json!([{ "name": "key", "type": "int" }, { "name": "value", "type": of }]);
        let list = json!({ "type": "array", "items": { "type": "record", "name": "k1_v2", "fields": fields } });
        json!({ "name": name, "type": ["null", list] })
    }

    fn read(field: &Value, bytes: &[u8]) -> Option<Metrics> {
        let (mut metrics, mut rest) = (Metrics::default(), Rest(bytes));
        Apart::of(field)?.read(&mut rest, &mut metrics)?;
        rest.0.is_empty().then_some(metrics)
    }

    #[test]
    fn of_several_counts_of_a_column_the_last_one_counts() {
        // A group of two; then one with its bytes before it, of which the first is below zero.
        let bytes = [2, 4, 14, 2, 4, 6, 3, 8, 14, 1, 14, 8, 0];
        let metrics = read(&field("null_value_counts", "long"), &bytes).unwrap();
        assert_eq!(metrics.nulls.iter().collect::<Vec<_>>(), [(2, &3), (7, &4)]);
        assert!(metrics.hold(7) && !metrics.hold(3));
        assert!(read(&field("null_value_counts", "long"), &[0]).is_some_and(|metrics| !metrics.hold(7)));
    }

    #[test]
    fn bounds_are_values_of_their_type() {
        let metrics = read(&field("lower_bounds", "bytes"), &[2, 2, 2, 8, 7, 0, 0, 0, 0]).unwrap();
        assert_eq!(metrics.lower(1, &PrimitiveType::Int).unwrap(), Some(Datum::int(7)));
        assert_eq!(metrics.lower(1, &PrimitiveType::Long).unwrap(), Some(Datum::long(7)));
        assert_eq!(metrics.lower(1, &PrimitiveType::Uuid).unwrap_err().kind(), nexus_flight_catalog::Kind::Data);
        assert_eq!(
            (metrics.lower(2, &PrimitiveType::Int).unwrap(), metrics.upper(1, &PrimitiveType::Int).unwrap()),
            (None, None)
        );
    }

    #[test]
    fn what_is_cut_or_no_metric_is_not_read() {
        let counts = field("value_counts", "long");
        // The number of a type that there is not, more pairs than bytes, and an id that is none.
        for bytes in [&[4, 0][..], &[2, 0xFE, 0xFF, 0xFF, 0x7F, 2, 2], &[2, 2, 0xFE, 0xFF, 0xFF, 0xFF, 0x7F, 2, 0], &[2, 2, 2]] {
            assert!(read(&counts, bytes).is_none(), "{bytes:?}");
        }
        assert!(Apart::of(&field("value_counts", "bytes")).is_none() && Apart::of(&field("split_offsets", "long")).is_none());
        assert!(Apart::of(&json!({ "name": "lower_bounds", "type": "bytes" })).is_none());
    }
}
