//! How many bytes rows are as text, at the most: known before any of it is made.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteArray, GenericByteViewArray, GenericListArray, GenericListViewArray, OffsetSizeTrait,
};
use arrow::datatypes::{
    ArrowNativeType, ByteArrayType, ByteViewType, DataType, Fields, Int16Type, Int32Type, Int64Type, RunEndIndexType,
};

use crate::http::text::Text;
use crate::printable::in_json;

/// From so many bytes on, what is to be escaped in a text is looked for in a row that goes alone.
const LONG: usize = 1 << 10;
/// The keys of a dictionary that are looked at together.
const KEYS: usize = 8 << 10;
/// What a value takes beside what it says: quotes, brackets, or `null`; and a view of it, where it is copied.
const AROUND: usize = 16;

/// The most bytes that some rows of a schema's columns take as text; where that is more than `most`, any number above it. A row alone is
/// looked at in detail.
pub(super) fn length(fields: &Fields, columns: &[ArrayRef], rows: Range<usize>, text: Text, most: usize) -> usize {
    let mut counting = Counting { text, is_exact: rows.len() == 1, most, total: 0 };
    counting.fields(fields, columns, rows);
    counting.total
}

struct Counting {
    text: Text,
    is_exact: bool,
    most: usize,
    total: usize,
}

impl Counting {
    fn add(&mut self, count: usize, each: usize) {
        self.total = self.total.saturating_add(count.saturating_mul(each));
    }

    fn is_enough(&self) -> bool {
        self.total > self.most
    }

    /// What a byte of a text may become.
    fn escaped(&self) -> usize {
        match self.text {
            // \u001f
            Text::Json => 6,
            // Quotes are doubled.
            Text::Csv => 2,
        }
    }

    /// The bytes that a text becomes, without what is around it.
    fn string(&self, string: &[u8]) -> usize {
        if !self.is_exact || string.len() < LONG {
            return string.len().saturating_mul(self.escaped());
        }
        let each = |byte: &u8| match self.text {
            Text::Json => in_json(*byte),
            Text::Csv => 1 + usize::from(*byte == b'"'),
        };
        string.iter().map(each).sum()
    }

    /// Rows of columns, with the names of these where they stand in each row, and what is between and around them.
    fn fields(&mut self, fields: &Fields, columns: &[ArrayRef], rows: Range<usize>) {
        self.add(rows.len(), AROUND);
        for (field, column) in fields.iter().zip(columns) {
            let name = match self.text {
                Text::Json => self.string(field.name().as_bytes()).saturating_add(4),
                Text::Csv => 1,
            };
            self.add(rows.len(), name);
            self.values(column, rows.clone());
            if self.is_enough() {
                return;
            }
        }
    }

    fn values(&mut self, array: &ArrayRef, rows: Range<usize>) {
        if rows.is_empty() || self.is_enough() {
            return;
        }
        if let Some(width) = width(array.data_type()) {
            return self.add(rows.len(), width);
        }
        match array.data_type() {
            DataType::Utf8 => self.bytes(array.as_string::<i32>(), rows, true),
            DataType::LargeUtf8 => self.bytes(array.as_string::<i64>(), rows, true),
            DataType::Binary => self.bytes(array.as_binary::<i32>(), rows, false),
            DataType::LargeBinary => self.bytes(array.as_binary::<i64>(), rows, false),
            DataType::Utf8View => self.views(array.as_string_view(), rows),
            DataType::BinaryView => self.views(array.as_binary_view(), rows),
            DataType::List(_) => self.lists(array.as_list::<i32>(), rows),
            DataType::LargeList(_) => self.lists(array.as_list::<i64>(), rows),
            DataType::ListView(_) => self.list_views(array.as_list_view::<i32>(), rows),
            DataType::LargeListView(_) => self.list_views(array.as_list_view::<i64>(), rows),
            DataType::FixedSizeList(_, length) => {
                let (list, length) = (array.as_fixed_size_list(), length.unsigned_abs() as usize);
                self.items(list.values(), rows.len(), rows.start * length..rows.end * length);
            }
            DataType::Struct(fields) => self.fields(fields, array.as_struct().columns(), rows),
            DataType::Map(_, _) => {
                let map = array.as_map();
                let entries = entries(map.value_offsets(), &rows);
                self.add(rows.len(), AROUND);
                // A colon and a comma.
                self.add(entries.len(), 2);
                self.values(map.keys(), entries.clone());
                self.values(map.values(), entries);
            }
            DataType::Dictionary(_, _) => self.dictionary(array, rows),
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.runs::<Int16Type>(array, rows),
                DataType::Int32 => self.runs::<Int32Type>(array, rows),
                _ => self.runs::<Int64Type>(array, rows),
            },
            // Unions, which no text is made of.
            _ => {}
        }
    }

    fn bytes<T: ByteArrayType>(&mut self, array: &GenericByteArray<T>, rows: Range<usize>, is_text: bool) {
        self.add(rows.len(), AROUND);
        if is_text && self.is_exact {
            for row in rows {
                let value: &[u8] = array.value(row).as_ref();
                self.add(1, self.string(value));
            }
            return;
        }
        let each = if is_text { self.escaped() } else { 2 };
        self.add(entries(array.value_offsets(), &rows).len(), each);
    }

    fn views<T: ByteViewType>(&mut self, array: &GenericByteViewArray<T>, rows: Range<usize>) {
        self.add(rows.len(), AROUND);
        if T::IS_UTF8 && self.is_exact {
            for row in rows {
                let value: &[u8] = array.value(row).as_ref();
                self.add(1, self.string(value));
            }
            return;
        }
        let each = if T::IS_UTF8 { self.escaped() } else { 2 };
        // A view begins with its length.
        let lengths = array.views()[rows].iter().map(|view| *view as u32 as usize);
        self.add(lengths.sum(), each);
    }

    fn lists<O: OffsetSizeTrait>(&mut self, list: &GenericListArray<O>, rows: Range<usize>) {
        self.items(list.values(), rows.len(), entries(list.value_offsets(), &rows));
    }

    fn list_views<O: OffsetSizeTrait>(&mut self, views: &GenericListViewArray<O>, rows: Range<usize>) {
        let lists = views.value_offsets().iter().zip(views.value_sizes());
        for (offset, size) in lists.skip(rows.start).take(rows.len()) {
            let (start, length) = (offset.as_usize(), size.as_usize());
            self.items(views.values(), 1, start..start + length);
            if self.is_enough() {
                return;
            }
        }
    }

    /// So many lists with these items in all.
    fn items(&mut self, values: &ArrayRef, lists: usize, items: Range<usize>) {
        self.add(lists, AROUND);
        self.add(items.len(), 1);
        self.values(values, items);
    }

    /// A long value counts as often as it is used.
    fn dictionary(&mut self, array: &ArrayRef, rows: Range<usize>) {
        self.add(rows.len(), AROUND);
        for start in rows.clone().step_by(KEYS) {
            let some = array.slice(start, KEYS.min(rows.end - start));
            let dictionary = some.as_any_dictionary();
            if dictionary.values().is_empty() {
                continue;
            }
            for key in dictionary.normalized_keys() {
                self.values(dictionary.values(), key..key + 1);
            }
            if self.is_enough() {
                return;
            }
        }
    }

    fn runs<R: RunEndIndexType>(&mut self, array: &ArrayRef, rows: Range<usize>) {
        let some = array.slice(rows.start, rows.len());
        let Some(runs) = some.as_run_opt::<R>() else { return };
        let (first, mut from) = (runs.get_start_physical_index(), 0);
        for (place, end) in runs.run_ends().sliced_values().enumerate() {
            let before = self.total;
            self.values(runs.values(), first + place..first + place + 1);
            if self.is_enough() {
                return;
            }
            let end = end.as_usize();
            let again = end.saturating_sub(std::mem::replace(&mut from, end)).saturating_sub(1);
            self.add(again, self.total - before);
        }
    }
}

/// What rows have of what their offsets point into.
fn entries<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

/// The most bytes of a value of a type whose values are all about as long; none for other types.
fn width(data_type: &DataType) -> Option<usize> {
    // A sign, a point, a zero before it, and zeros for the scale.
    let decimal = |digits: usize, scale: &i8| digits + scale.unsigned_abs() as usize + 4;
    Some(match data_type {
        DataType::Null | DataType::Boolean => 5,
        number if number.is_integer() => 20,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => 32,
        DataType::Decimal32(_, scale) => decimal(10, scale),
        DataType::Decimal64(_, scale) => decimal(20, scale),
        DataType::Decimal128(_, scale) => decimal(39, scale),
        DataType::Decimal256(_, scale) => decimal(78, scale),
        // Or, in its place, that there is no such time.
        time if time.is_temporal() => 200,
        DataType::FixedSizeBinary(size) => 2 * size.unsigned_abs() as usize + AROUND,
        _ => return None,
    })
}
