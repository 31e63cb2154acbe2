//! Rows as Trino writes them in JSON → record batches.
//!
//! How a value is written is what the server's `JsonEncodingUtils` does with each type. Values go straight from the text into the
//! columns, in one pass.

mod column;
mod text;

use std::fmt;
use std::mem;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Result};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use self::column::{ARRAY, Column, FEW, FULL, MANY, OBJECT, last};
use self::text::{NANOSECONDS, Refused};
use super::types::Type;

/// How many values may be made up in one call, for the fields of rows that are NULL as a whole: such a row comes as four letters,
/// and takes room for each of its fields.
const SPARE: usize = 1 << 21;

/// What to do where a text of Trino is none: it keeps the bytes that a source has, and sends them.
const NOT_UTF8: &str = "a varchar there is not UTF-8: read it in a view or a native statement as from_utf8(to_utf8(…))";

/// The letters of a column's name that are kept in a message.
const LONGEST: usize = 200;

/// Makes batches of the rows of a statement.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    types: Arc<[Type]>,
    schema: SchemaRef,
}

impl Decoder {
    /// For columns of these types, as `types::schema` gives them with their schema.
    pub(super) fn new(types: Vec<Type>, schema: SchemaRef) -> Self {
        Self { types: types.into(), schema }
    }

    /// All rows of a JSON array, in batches of at most `most` rows. `room` grows by what they take, or by as much as the text has
    /// where that is more. Errors: `Data` with the column and the row for a value that is not of its type, and for what is not JSON;
    /// `Exhausted` where there is no room, and for what takes much more of it than it had as text.
    pub(super) fn decode(&self, json: &[u8], most: usize, room: &MemoryReservation) -> Result<Vec<RecordBatch>> {
        // Arrow counts the bytes of texts and the elements of lists in 32 bits, and there are no more of them than bytes here.
        if i32::try_from(json.len()).is_err() {
            return Err(Error::exhausted("trino: a page of rows is larger than 2 GiB"));
        }
        let json = std::str::from_utf8(json)
            .map_err(|error| Error::data("trino: a page of rows is not UTF-8").with_hint(NOT_UTF8).caused_by(error))?;
        // Most values take about as much as their text; more is asked for with each batch that turns out to take it.
        room.try_grow(json.len())?;
        let mut filled = Filled::new(self, most, room, json.len());
        let mut reader = serde_json::Deserializer::from_str(json);
        match Rows(&mut filled).deserialize(&mut reader).and_then(|()| reader.end()) {
            Ok(()) => filled.finish(),
            Err(error) => {
                let stopped = filled.stopped.take();
                Err(stopped.unwrap_or_else(|| self.refused(&filled, &error)))
            }
        }
    }

    /// What was wrong. A message of the reader may quote values, unless it is of JSON itself.
    fn refused(&self, filled: &Filled<'_>, error: &serde_json::Error) -> Error {
        let row = filled.before + filled.rows + 1;
        let Some(what) = filled.state.fault else {
            return Error::data(match error.classify() {
                Category::Data => format!("trino: row {row} of a page is not an array of values"),
                _ => format!("trino: a page of rows is not JSON: {error}"),
            });
        };
        let Some(column) = self.schema.fields().get(filled.at) else {
            return Error::data(format!("trino: row {row} of a page has more values than there are columns"));
        };
        let name = shortened(column.name().clone(), LONGEST);
        let message = format!("trino: the column \"{name}\" holds {what}, in row {row} of a page");
        match what {
            FULL => Error::exhausted(message)
                .with_hint("select the fields that you need, and not the whole row")
                .with_retryable(false),
            NANOSECONDS => Error::data(message).with_hint("cast the column to timestamp(6)"),
            _ => Error::data(message).with_hint("leave such rows out, or cast the column to varchar"),
        }
    }
}

/// What has been read so far.
struct Filled<'a> {
    decoder: &'a Decoder,
    most: usize,
    /// What the batches take, and for how much of it there is room.
    room: &'a MemoryReservation,
    made: usize,
    paid: usize,
    columns: Vec<Column>,
    /// The rows in the columns, and in batches before them.
    rows: usize,
    before: usize,
    /// The column that is read.
    at: usize,
    full: Vec<RecordBatch>,
    state: State,
    /// Why no more is made, where that is not for a value.
    stopped: Option<Error>,
}

/// What values know of besides their column.
struct State {
    spare: usize,
    /// What was wrong with a value.
    fault: Option<Refused>,
}

impl State {
    /// Notes what is wrong, for which the reader has texts alone.
    fn heard<E: de::Error>(&mut self, done: Result<(), Refused>) -> Result<(), E> {
        done.map_err(|what| {
            self.fault = Some(what);
            E::custom(what)
        })
    }
}

impl<'a> Filled<'a> {
    fn new(decoder: &'a Decoder, most: usize, room: &'a MemoryReservation, paid: usize) -> Self {
        let (columns, state) = (columns(&decoder.types), State { spare: SPARE, fault: None });
        Self { decoder, most, room, made: 0, paid, columns, rows: 0, before: 0, at: 0, full: Vec::new(), state, stopped: None }
    }

    fn end_row(&mut self) -> Result<()> {
        self.rows += 1;
        if self.rows >= self.most { self.end_batch() } else { Ok(()) }
    }

    fn end_batch(&mut self) -> Result<()> {
        let filled = mem::replace(&mut self.columns, columns(&self.decoder.types));
        let rows = mem::take(&mut self.rows);
        self.before += rows;
        let batch = batch(&self.decoder.schema, filled, rows)?;
        self.made += batch.get_array_memory_size();
        if let Some(more) = self.made.checked_sub(self.paid) {
            self.room.try_grow(more)?;
            self.paid = self.made;
        }
        self.full.push(batch);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>> {
        if self.rows > 0 {
            self.end_batch()?;
        }
        Ok(self.full)
    }
}

fn columns(types: &[Type]) -> Vec<Column> {
    types.iter().map(Column::new).collect()
}

fn batch(schema: &SchemaRef, columns: Vec<Column>, rows: usize) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        arrays.push(column.finish()?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// An array of rows.
struct Rows<'a, 'b>(&'a mut Filled<'b>);

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row(&mut *self.0))?.is_some() {
            if let Err(stopped) = self.0.end_row() {
                self.0.stopped = Some(stopped);
                return Err(<A::Error as de::Error>::custom("no more"));
            }
        }
        Ok(())
    }
}

/// A row: a value for each column.
struct Row<'a, 'b>(&'a mut Filled<'b>);

impl<'de> DeserializeSeed<'de> for Row<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let Filled { columns, at, state, .. } = self.0;
        *at = 0;
        for column in columns.iter_mut() {
            if values.next_element_seed(Value { column, state: &mut *state })?.is_none() {
                return state.heard(Err("no value"));
            }
            *at += 1;
        }
        match values.next_element::<IgnoredAny>()? {
            Some(_) => state.heard(Err(MANY)),
            None => Ok(()),
        }
    }
}

/// A value of a column, or of a part of one.
struct Value<'a> {
    column: &'a mut Column,
    state: &'a mut State,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.column.is_verbatim() {
            return deserializer.deserialize_any(self);
        }
        let json = <&RawValue>::deserialize(deserializer)?;
        let done = self.column.verbatim(json.get(), &mut self.state.spare);
        self.state.heard(done)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        let done = self.column.null(&mut self.state.spare);
        self.state.heard(done)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.state.heard(self.column.boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.state.heard(self.column.integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let done = match i64::try_from(value) {
            Ok(value) => self.column.integer(value),
            Err(_) => Err(self.column.number()),
        };
        self.state.heard(done)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.state.heard(Err(self.column.number()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.state.heard(self.column.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let Value { column, state } = self;
        match column {
            Column::List { values, offsets, valid, .. } => {
                let mut end = last(offsets);
                while parts.next_element_seed(Value { column: values, state: &mut *state })?.is_some() {
                    end += 1;
                }
                offsets.push(end);
                valid.append_non_null();
            }
            Column::Row { columns, valid, .. } => {
                for column in columns.iter_mut() {
                    if parts.next_element_seed(Value { column, state: &mut *state })?.is_none() {
                        return state.heard(Err(FEW));
                    }
                }
                if parts.next_element::<IgnoredAny>()?.is_some() {
                    return state.heard(Err(MANY));
                }
                valid.append_non_null();
            }
            _ => return state.heard(Err(ARRAY)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Value { column, state } = self;
        let Column::Map { keys, values, offsets, valid, .. } = column else {
            return state.heard(Err(OBJECT));
        };
        let mut end = last(offsets);
        while map.next_key_seed(Key(Value { column: keys, state: &mut *state }))?.is_some() {
            map.next_value_seed(Value { column: values, state: &mut *state })?;
            end += 1;
        }
        offsets.push(end);
        valid.append_non_null();
        Ok(())
    }
}

/// A key of a map.
struct Key<'a>(Value<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        let Value { column, state } = self.0;
        state.heard(column.key(value))
    }
}

#[cfg(test)]
mod tests;
