//! Trino's types, as it names them, and what each is here.
//!
//! What there is stands in Trino's documentation, "Data types". An answer names them as SQL does, a name in double quotes where it
//! needs them. `information_schema` of Trino 476 does not quote one, so that the names within a row are not to be told apart there.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};
use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Result};

use super::client::Named;

/// How deep a type may be nested, and of how many the columns of a statement may be made, those within others counted.
const DEPTH: usize = 32;
const PARTS: usize = 10_000;

/// The letters of a type that are kept in a message.
const LONGEST: usize = 200;

/// The finest part of a second that Arrow holds: a billionth, of nine digits.
const FINEST: u8 = 9;

/// A type whose values are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Boolean,
    TinyInt,
    SmallInt,
    Integer,
    BigInt,
    Real,
    Double,
    /// Its precision and its scale.
    Decimal(u8, i8),
    /// With a length or without.
    Varchar,
    /// `char(n)`: it comes with its padding, which Trino does not compare.
    Char,
    /// `varbinary`, and sketches such as `HyperLogLog`, which come as their bytes.
    Bytes,
    Date,
    /// The digits of its seconds behind the point, as of the two below: at most nine.
    Time(u8),
    Timestamp(u8),
    /// With time zone: only the instant is kept.
    TimestampTz(u8),
    YearMonth,
    DayTime,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// The fields with their names.
    Row(Vec<(String, Type)>),
    /// The type of NULL.
    Unknown,
    /// Any other one, as Trino writes its values: `uuid`, `json`, `ipaddress`, `time with time zone`, times finer than nanoseconds.
    Other,
}

impl Type {
    /// What a column of the type is here.
    pub(super) fn arrow(&self) -> DataType {
        match self {
            Type::Boolean => DataType::Boolean,
            Type::TinyInt => DataType::Int8,
            Type::SmallInt => DataType::Int16,
            Type::Integer => DataType::Int32,
            Type::BigInt => DataType::Int64,
            Type::Real => DataType::Float32,
            Type::Double => DataType::Float64,
            Type::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Type::Varchar | Type::Char | Type::Other => DataType::Utf8,
            Type::Bytes => DataType::Binary,
            Type::Date => DataType::Date32,
            Type::Time(digits) => DataType::Time64(unit((*digits).max(4))),
            Type::Timestamp(digits) => DataType::Timestamp(unit(*digits), None),
            Type::TimestampTz(digits) => DataType::Timestamp(unit(*digits), Some("UTC".into())),
            Type::YearMonth => DataType::Interval(IntervalUnit::YearMonth),
            Type::DayTime => DataType::Interval(IntervalUnit::MonthDayNano),
            Type::List(element) => DataType::List(item(element)),
            Type::Map(key, value) => DataType::Map(entries(key, value), false),
            Type::Row(parts) => DataType::Struct(fields(parts)),
            Type::Unknown => DataType::Null,
        }
    }
}

/// The types of the columns, and the schema of their rows. Errors: `Data` with the column whose type is not known or is too large.
pub(super) fn schema(columns: &[Named]) -> Result<(Vec<Type>, SchemaRef)> {
    let mut left = PARTS;
    let mut types = Vec::with_capacity(columns.len().min(PARTS));
    let mut all = Vec::with_capacity(columns.len().min(PARTS));
    for Named { name, type_name } in columns {
        let ty = read(type_name, &mut left).map_err(|why| {
            let (name, shown) = (shortened(name.clone(), LONGEST), shortened(type_name.clone(), LONGEST));
            Error::data(format!("trino: the type {shown} of the column \"{name}\" {why}"))
                .with_hint("leave the column out, or cast it to json or varchar")
        })?;
        all.push(Field::new(name, ty.arrow(), true));
        types.push(ty);
    }
    Ok((types, Arc::new(Schema::new(all))))
}

/// The coarsest unit that holds so many digits of a second, from milliseconds on.
fn unit(digits: u8) -> TimeUnit {
    match digits {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// The elements of a list.
pub(super) fn item(element: &Type) -> FieldRef {
    Arc::new(Field::new("item", element.arrow(), true))
}

/// A key of a map and its value.
pub(super) fn pair(key: &Type, value: &Type) -> Fields {
    Fields::from(vec![Field::new("key", key.arrow(), false), Field::new("value", value.arrow(), true)])
}

/// The entries of a map.
pub(super) fn entries(key: &Type, value: &Type) -> FieldRef {
    Arc::new(Field::new("entries", DataType::Struct(pair(key, value)), false))
}

/// The fields of a row.
pub(super) fn fields(parts: &[(String, Type)]) -> Fields {
    parts.iter().map(|(name, ty)| Field::new(name, ty.arrow(), true)).collect()
}

/// Why a name is not read.
type Refused = &'static str;

const UNCLEAR: Refused = "is not known";
const DEEP: Refused = "is nested too deep";
const LARGE: Refused = "has too many parts, or the columns together do";

/// Names that are more than one word.
const PHRASES: [&str; 5] =
    ["timestamp with time zone", "time with time zone", "interval year to month", "interval day to second", "double precision"];

/// The type of a name, of no more parts than are left.
fn read(text: &str, left: &mut usize) -> Result<Type, Refused> {
    let mut reader = Reader { rest: text, left };
    let ty = reader.unnamed(0)?;
    if reader.rest.trim().is_empty() { Ok(ty) } else { Err(UNCLEAR) }
}

/// The rest of a name, and of how many parts more it may be made.
struct Reader<'a> {
    rest: &'a str,
    left: &'a mut usize,
}

impl<'a> Reader<'a> {
    /// What stands before the next bracket or comma that is not in quotes.
    fn head(&mut self) -> &'a str {
        let mut quoted = false;
        let ends = |letter: char| {
            quoted ^= letter == '"';
            !quoted && matches!(letter, '(' | ')' | ',')
        };
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        head.trim()
    }

    fn eats(&mut self, mark: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn needs(&mut self, mark: char) -> Result<(), Refused> {
        if self.eats(mark) { Ok(()) } else { Err(UNCLEAR) }
    }

    /// A field of a row: its type, behind its name if it has one.
    fn field(&mut self, depth: usize) -> Result<(Option<String>, Type), Refused> {
        let (name, ty) = named(self.head())?;
        Ok((name, self.finished(ty, depth)?))
    }

    fn unnamed(&mut self, depth: usize) -> Result<Type, Refused> {
        match self.field(depth)? {
            (None, ty) => Ok(ty),
            (Some(_), _) => Err(UNCLEAR),
        }
    }

    /// The type of a name, with what follows it in brackets and behind them.
    fn finished(&mut self, name: &str, depth: usize) -> Result<Type, Refused> {
        *self.left = self.left.checked_sub(1).ok_or(LARGE)?;
        if depth > DEPTH {
            return Err(DEEP);
        }
        let name = name.to_ascii_lowercase();
        Ok(match name.as_str() {
            "boolean" => Type::Boolean,
            "tinyint" => Type::TinyInt,
            "smallint" => Type::SmallInt,
            "integer" | "int" => Type::Integer,
            "bigint" => Type::BigInt,
            "real" => Type::Real,
            "double" | "double precision" => Type::Double,
            "decimal" => self.decimal()?,
            "varchar" => self.without_arguments(Type::Varchar)?,
            "char" => self.without_arguments(Type::Char)?,
            "varbinary" | "hyperloglog" | "p4hyperloglog" | "setdigest" | "qdigest" | "tdigest" => {
                self.without_arguments(Type::Bytes)?
            }
            "date" => Type::Date,
            "time" => match (self.digits()?, self.is_zoned()?) {
                (digits @ ..=FINEST, false) => Type::Time(digits),
                _ => Type::Other,
            },
            "timestamp" => match (self.digits()?, self.is_zoned()?) {
                (digits @ ..=FINEST, false) => Type::Timestamp(digits),
                (digits @ ..=FINEST, true) => Type::TimestampTz(digits),
                _ => Type::Other,
            },
            "timestamp with time zone" => match self.digits()? {
                digits @ ..=FINEST => Type::TimestampTz(digits),
                _ => Type::Other,
            },
            "interval year to month" => Type::YearMonth,
            "interval day to second" => Type::DayTime,
            "array" => {
                self.needs('(')?;
                let element = self.unnamed(depth + 1)?;
                self.needs(')')?;
                Type::List(Box::new(element))
            }
            "map" => {
                self.needs('(')?;
                // A key comes as a text, and one that is itself nested is not read out of it.
                let key = match self.unnamed(depth + 1)? {
                    Type::List(_) | Type::Map(..) | Type::Row(_) => Type::Other,
                    key => key,
                };
                self.needs(',')?;
                let value = self.unnamed(depth + 1)?;
                self.needs(')')?;
                Type::Map(Box::new(key), Box::new(value))
            }
            "row" => {
                self.needs('(')?;
                let mut parts = Vec::new();
                loop {
                    let (name, ty) = self.field(depth + 1)?;
                    let nameless = parts.len();
                    parts.push((name.unwrap_or_else(|| format!("field{nameless}")), ty));
                    if !self.eats(',') {
                        break;
                    }
                }
                self.needs(')')?;
                Type::Row(parts)
            }
            "unknown" => Type::Unknown,
            "time with time zone" => self.without_arguments(Type::Other)?,
            _ if !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_') => {
                self.without_arguments(Type::Other)?
            }
            _ => return Err(UNCLEAR),
        })
    }

    /// Passes over arguments that make no difference here.
    fn without_arguments(&mut self, ty: Type) -> Result<Type, Refused> {
        let mut open = usize::from(self.eats('('));
        while open > 0 {
            self.head();
            let mut marks = self.rest.chars();
            match marks.next() {
                Some('(') => open += 1,
                Some(')') => open -= 1,
                Some(_) => {}
                None => return Err(UNCLEAR),
            }
            self.rest = marks.as_str();
        }
        Ok(ty)
    }

    fn number(&mut self) -> Result<u8, Refused> {
        self.head().parse().map_err(|_| UNCLEAR)
    }

    fn decimal(&mut self) -> Result<Type, Refused> {
        if !self.eats('(') {
            return Ok(Type::Decimal(38, 0));
        }
        let precision = self.number()?;
        let scale = if self.eats(',') { self.number()? } else { 0 };
        self.needs(')')?;
        match i8::try_from(scale) {
            Ok(signed) if matches!(precision, 1..=38) && scale <= precision => Ok(Type::Decimal(precision, signed)),
            _ => Err(UNCLEAR),
        }
    }

    /// How many digits of a second there are: three where nothing is said.
    fn digits(&mut self) -> Result<u8, Refused> {
        if !self.eats('(') {
            return Ok(3);
        }
        let digits = self.number()?;
        self.needs(')')?;
        Ok(digits)
    }

    fn is_zoned(&mut self) -> Result<bool, Refused> {
        match self.head() {
            "" => Ok(false),
            zone if zone.eq_ignore_ascii_case("with time zone") => Ok(true),
            _ => Err(UNCLEAR),
        }
    }
}

/// The name of a field, if it has one, and what names its type.
fn named(head: &str) -> Result<(Option<String>, &str), Refused> {
    if let Some(text) = head.strip_prefix('"') {
        let (name, ty) = unquoted(text).ok_or(UNCLEAR)?;
        return Ok((Some(name), ty));
    }
    for phrase in PHRASES {
        let start = head.len().checked_sub(phrase.len()).and_then(|start| head.split_at_checked(start));
        if let Some((name, ty)) = start.filter(|(_, ty)| ty.eq_ignore_ascii_case(phrase)) {
            if name.is_empty() {
                return Ok((None, ty));
            }
            if name.ends_with(char::is_whitespace) {
                return Ok((Some(name.trim_end().to_owned()), ty));
            }
        }
    }
    Ok(match head.rsplit_once(char::is_whitespace) {
        Some((name, ty)) => (Some(name.trim_end().to_owned()), ty),
        None => (None, head),
    })
}

/// A name whose first quote is taken off, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after.trim_start())),
        }
    }
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    fn parse(text: &str) -> Result<Type> {
        let column = Named { name: "c".to_owned(), type_name: text.to_owned() };
        schema(&[column]).map(|(mut types, _)| types.remove(0))
    }

    fn list(element: Type) -> Type {
        Type::List(Box::new(element))
    }

    fn map(key: Type, value: Type) -> Type {
        Type::Map(Box::new(key), Box::new(value))
    }

    fn row(parts: Vec<(&str, Type)>) -> Type {
        Type::Row(parts.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect())
    }

    #[test]
    fn types_are_known_by_their_names() {
        for (text, wanted) in [
            ("boolean", Type::Boolean),
            ("bigint", Type::BigInt),
            ("double", Type::Double),
            ("decimal(12,2)", Type::Decimal(12, 2)),
            ("decimal(38, 0)", Type::Decimal(38, 0)),
            ("decimal(38,38)", Type::Decimal(38, 38)),
            ("decimal", Type::Decimal(38, 0)),
            ("varchar", Type::Varchar),
            ("VARCHAR(25)", Type::Varchar),
            ("char(5)", Type::Char),
            ("varbinary", Type::Bytes),
            ("HyperLogLog", Type::Bytes),
            ("qdigest(decimal(3, 1))", Type::Bytes),
            ("time", Type::Time(3)),
            ("time(9)", Type::Time(9)),
            ("time(12)", Type::Other),
            ("time(3) with time zone", Type::Other),
            ("time with time zone", Type::Other),
            ("timestamp", Type::Timestamp(3)),
            ("timestamp(0)", Type::Timestamp(0)),
            ("timestamp(12)", Type::Other),
            ("timestamp with time zone", Type::TimestampTz(3)),
            ("timestamp(6) with time zone", Type::TimestampTz(6)),
            ("timestamp(10) with time zone", Type::Other),
            ("interval day to second", Type::DayTime),
            ("INTERVAL YEAR TO MONTH", Type::YearMonth),
            ("unknown", Type::Unknown),
            ("uuid", Type::Other),
            ("function(bigint,array(boolean))", Type::Other),
            ("array(array(varchar(3)))", list(list(Type::Varchar))),
            ("map(varchar, row(x double))", map(Type::Varchar, row(vec![("x", Type::Double)]))),
            ("map(array(bigint),date)", map(Type::Other, Type::Date)),
            ("row(bigint, varchar)", row(vec![("field0", Type::BigInt), ("field1", Type::Varchar)])),
            (r#"row("a b" bigint, c array(varchar(3)))"#, row(vec![("a b", Type::BigInt), ("c", list(Type::Varchar))])),
            (r#"row("a"",(b" date, "" real)"#, row(vec![("a\",(b", Type::Date), ("", Type::Real)])),
            (
                "row(t timestamp(6) with time zone, i interval day to second, two words double, interval day to second)",
                row(vec![
                    ("t", Type::TimestampTz(6)),
                    ("i", Type::DayTime),
                    ("two words", Type::Double),
                    ("field3", Type::DayTime),
                ]),
            ),
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_names_no_type_is_refused() {
        for text in [
            "",
            "(",
            "bigint)",
            "a bigint",
            "array",
            "array(bigint",
            "array(a bigint)",
            "array(bigint, bigint)",
            "map(bigint)",
            "row()",
            "row(a bigint,)",
            "row(\"a bigint)",
            "decimal(39,0)",
            "decimal(0)",
            "decimal(3,4)",
            "decimal(3,2,1)",
            "timestamp(300)",
            "timestamp(3) with a clock",
            "varchar(3",
            "$x",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{text}");
        }
    }

    #[test]
    fn types_are_bounded() {
        let nested = |depth: usize| format!("{}bigint{}", "array(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(DEPTH)).is_ok());
        assert!(parse(&nested(DEPTH + 1)).unwrap_err().message().ends_with(DEEP));
        // Nothing runs out of stack on the way to that.
        assert!(parse(&nested(1_000_000)).is_err());
        assert!(parse(&"array(".repeat(1_000_000)).is_err());

        let wide = |parts: usize| format!("row({})", vec!["bigint"; parts].join(","));
        assert!(parse(&wide(PARTS - 1)).is_ok());
        let error = parse(&wide(PARTS)).unwrap_err();
        assert!(error.message().ends_with(LARGE) && error.message().len() < 400, "{error}");

        let half = |name: &str| Named { name: name.to_owned(), type_name: wide(PARTS / 2) };
        assert!(schema(&[half("a")]).is_ok());
        let error = schema(&[half("a"), half("b")]).unwrap_err();
        assert!(error.message().contains("of the column \"b\" has too many parts"), "{error}");
    }

    #[test]
    fn a_schema_has_the_columns_in_their_order() {
        let named = |name: &str, type_name: &str| Named { name: name.to_owned(), type_name: type_name.to_owned() };
        let columns = [
            named("at", "timestamp(3) with time zone"),
            named("m", "map(integer,array(time(6)))"),
            named("r", "row(x decimal(5,2), y uuid)"),
            named("t", "time"),
        ];
        let (types, schema) = schema(&columns).unwrap();
        assert_eq!(types.len(), 4);
        let wanted = Schema::new(vec![
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            Field::new_map(
                "m",
                "entries",
                Field::new("key", DataType::Int32, false),
                Field::new_list("value", Field::new("item", DataType::Time64(TimeUnit::Microsecond), true), true),
                false,
                true,
            ),
            Field::new_struct(
                "r",
                vec![Field::new("x", DataType::Decimal128(5, 2), true), Field::new("y", DataType::Utf8, true)],
                true,
            ),
            Field::new("t", DataType::Time64(TimeUnit::Microsecond), true),
        ]);
        assert_eq!(*schema, wanted);
    }
}
