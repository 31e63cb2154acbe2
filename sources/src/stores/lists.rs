//! A look through the footer and the page index of a Parquet file before they are decoded. The decoder makes room for as many items as a list says that it
//! has, and calls itself for each level of the schema: either would end the process, and not only what reads the file.

/// How many levels a schema may have.
const DEEPEST: usize = 200;
/// How many levels the decoder goes into what it does not know.
const UNKNOWN: usize = 64;

/// Where the look ends before the footer does.
enum End {
    /// There are no more bytes, or none that the decoder would take; it says so itself.
    Cut,
    /// What the decoder would believe.
    Lies(&'static str),
}

type Passed<T> = Result<T, End>;

/// What the decoder takes a field for by its number, whatever kind the footer says that it is (parquet.thrift). All that holds no list
/// is of the kind that the footer says.
enum Shape {
    Number,
    Bytes,
    Struct(&'static [(i64, Shape)]),
    List(&'static Shape),
    Schema,
}

const ANY: Shape = Shape::Struct(&[]);
const FOOTER: &[(i64, Shape)] = &[(2, Shape::Schema), (4, Shape::List(&GROUP)), (5, Shape::List(&ANY)), (7, Shape::List(&ANY))];
const GROUP: Shape = Shape::Struct(&[(1, Shape::List(&CHUNK)), (4, Shape::List(&ANY))]);
const CHUNK: Shape = Shape::Struct(&[(3, COLUMN)]);
const COLUMN: Shape = Shape::Struct(&[
    (2, Shape::List(&Shape::Number)),
    (3, Shape::List(&Shape::Bytes)),
    (8, Shape::List(&ANY)),
    (13, Shape::List(&ANY)),
    (16, Shape::Struct(&[(2, Shape::List(&Shape::Number)), (3, Shape::List(&Shape::Number))])),
    (17, Shape::Struct(&[(2, Shape::List(&Shape::Number))])),
]);
/// What a page index says of the pages of a column: the bounds of each, and where they are (`ColumnIndex`, `OffsetIndex`).
const BOUNDS: &[(i64, Shape)] = &[
    (1, Shape::List(&Shape::Number)),
    (2, Shape::List(&Shape::Bytes)),
    (3, Shape::List(&Shape::Bytes)),
    (4, Shape::Number),
    (5, Shape::List(&Shape::Number)),
    (6, Shape::List(&Shape::Number)),
    (7, Shape::List(&Shape::Number)),
];
const PLACE: Shape = Shape::Struct(&[(1, Shape::Number), (2, Shape::Number), (3, Shape::Number)]);
const PLACES: &[(i64, Shape)] = &[(1, Shape::List(&PLACE)), (2, Shape::List(&Shape::Number))];
/// The number of fields within one of the schema.
const CHILDREN: i64 = 5;

/// Errors: what the footer says that cannot be. Whatever else is wrong with it the decoder finds.
pub(super) fn look_through(footer: &[u8]) -> Result<(), &'static str> {
    looked(footer, FOOTER)
}

/// The same of what a page index says of the bounds of a column's pages.
pub(super) fn look_through_bounds(bounds: &[u8]) -> Result<(), &'static str> {
    looked(bounds, BOUNDS)
}

/// The same of what it says of the places of a column's pages.
pub(super) fn look_through_places(places: &[u8]) -> Result<(), &'static str> {
    looked(places, PLACES)
}

fn looked(bytes: &[u8], fields: &[(i64, Shape)]) -> Result<(), &'static str> {
    match Rest(bytes).structure(fields, 0) {
        Err(End::Lies(why)) => Err(why),
        Ok(()) | Err(End::Cut) => Ok(()),
    }
}

/// What has not been looked through.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: u64) -> Passed<&'a [u8]> {
        let taken = usize::try_from(count).ok().and_then(|count| self.0.split_at_checked(count));
        let (taken, rest) = taken.ok_or(End::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Passed<u8> {
        self.take(1)?.first().copied().ok_or(End::Cut)
    }

    fn number(&mut self) -> Passed<u64> {
        let (mut bits, mut shift) = (0, 0_u32);
        loop {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or_default();
            shift = shift.saturating_add(7);
            if byte & 0x80 == 0 {
                return Ok(bits);
            }
        }
    }

    /// A number that can be less than 0.
    fn signed(&mut self) -> Passed<i64> {
        let bits = self.number()?;
        Ok((bits >> 1) as i64 ^ -((bits & 1) as i64))
    }

    /// How many items a list has, and of which kind the footer says that they are.
    fn list(&mut self) -> Passed<(u64, u8)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.number()?,
            few => few.into(),
        };
        match count > self.0.len() as u64 {
            true => Err(End::Lies("a list in it has more items than there are bytes")),
            false => Ok((count, head & 0x0F)),
        }
    }

    /// The number and kind of the next field after another; none where the struct ends.
    fn field(&mut self, last: i64) -> Passed<Option<(i64, u8)>> {
        let head = self.byte()?;
        if head & 0x0F == 0 {
            return Ok(None);
        }
        let id = match head >> 4 {
            0 => self.signed()?,
            more => last.wrapping_add(more.into()),
        };
        Ok(Some((id, head & 0x0F)))
    }

    fn structure(&mut self, fields: &[(i64, Shape)], depth: usize) -> Passed<()> {
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            match fields.iter().find(|(known, _)| *known == id) {
                Some((_, shape)) => self.shaped(shape, depth)?,
                None => self.unknown(kind, depth)?,
            }
            last = id;
        }
        Ok(())
    }

    fn shaped(&mut self, shape: &Shape, depth: usize) -> Passed<()> {
        match shape {
            Shape::Number => self.number().map(drop),
            Shape::Bytes => self.number().and_then(|count| self.take(count)).map(drop),
            Shape::Struct(fields) => self.structure(fields, depth + 1),
            Shape::List(of) => {
                let (count, _) = self.list()?;
                (0..count).try_for_each(|_| self.shaped(of, depth + 1))
            }
            Shape::Schema => self.schema(),
        }
    }

    /// A value of a kind by the compact protocol of Thrift.
    fn unknown(&mut self, kind: u8, depth: usize) -> Passed<()> {
        match kind {
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.shaped(&Shape::Number, depth),
            7 => self.take(8).map(drop),
            8 => self.shaped(&Shape::Bytes, depth),
            9 if depth < UNKNOWN => match self.list()? {
                // Each truth takes a byte here.
                (count, 1 | 2) => self.take(count).map(drop),
                (count, of) => (0..count).try_for_each(|_| self.unknown(of, depth + 1)),
            },
            12 if depth < UNKNOWN => self.structure(&[], depth + 1),
            _ => Err(End::Cut),
        }
    }

    /// The fields of the schema, each before those within it.
    fn schema(&mut self) -> Passed<()> {
        let (count, _) = self.list()?;
        // How many of the fields within each field are still to come.
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..count {
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            match self.children()? {
                0 => {}
                children if children > count => return Err(End::Lies("its schema has fewer fields than it says")),
                children => open.push(children),
            }
            if open.len() > DEEPEST {
                return Err(End::Lies("its schema has too many levels"));
            }
        }
        Ok(())
    }

    /// How many fields are within a field of the schema.
    fn children(&mut self) -> Passed<u64> {
        let (mut last, mut children) = (0, 0);
        while let Some((id, kind)) = self.field(last)? {
            match id {
                // As many bits as the decoder takes; below 0 it would be a large number.
                CHILDREN => children = u64::from(self.signed()? as u32),
                _ => self.unknown(kind, 1)?,
            }
            last = id;
        }
        Ok(children)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
    use arrow::datatypes::Int32Type;
    use parquet::arrow::ArrowWriter;

    use super::*;

    /// A version, and a schema of so many levels, in as many fields as it says.
    fn of_levels(levels: u8, said: &[u8]) -> Vec<u8> {
        let level = |children: u8| [0x48, 1, b'a', 0x15, children, 0];
        let fields = (0..levels).flat_map(|_| level(2)).chain(level(0));
        [0x15, 2, 0x19, 0xFC].into_iter().chain(said.iter().copied()).chain(fields).collect()
    }

    #[test]
    fn what_writers_write_passes() {
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), None]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "名"]));
        let batch = RecordBatch::try_from_iter([("lists", lists), ("numbers", numbers), ("texts", texts)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let (rest, _) = bytes.split_last_chunk::<8>().unwrap();
        let length = u32::from_le_bytes(*bytes[rest.len()..].first_chunk().unwrap()) as usize;
        let mut footer = Rest(&rest[rest.len() - length..]);
        // To the end, and in step with what is there.
        assert!(footer.structure(FOOTER, 0).is_ok() && footer.0.is_empty());
    }

    #[test]
    fn what_the_decoder_would_believe_is_refused() {
        assert_eq!(look_through(&of_levels(100, &[101])), Ok(()));
        assert_eq!(look_through(&of_levels(250, &[251, 1])), Err("its schema has too many levels"));
        let many = [0xFF, 0xFF, 0xFF, 0xFF, 0x07];
        assert_eq!(look_through(&of_levels(1, &many)), Err("a list in it has more items than there are bytes"));
        // The same for row groups, said to be a number.
        let groups = [&[0x46_u8, 0xFC][..], &many[..]].concat();
        assert_eq!(look_through(&groups), Err("a list in it has more items than there are bytes"));
        let children = [0x29, 0x1C, 0x55, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F, 0];
        assert_eq!(look_through(&children), Err("its schema has fewer fields than it says"));
        for cut in 3..children.len() {
            assert_eq!(look_through(&children[..cut]), Ok(()));
        }
    }
}
