//! `GetXdbcTypeInfo`: the SQL types there are, as JDBC and ODBC ask for them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use nexus_flight_catalog::Result;

use super::own_fault;

/// The schema of [`xdbc_type_info`].
pub fn xdbc_type_info_schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// One row for each SQL type, or for those of the JDBC code that the command names.
pub fn xdbc_type_info(command: &CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    types().into_iter().for_each(|info| builder.append(info));
    builder.build().and_then(|data| data.record_batch(command.data_type)).map_err(own_fault)
}

fn types() -> Vec<XdbcTypeInfo> {
    use XdbcDataType as T;
    use XdbcDatetimeSubcode as Sub;
    let other = |name| kind(name, T::XdbcUnknownType, None);
    vec![
        kind("BOOLEAN", T::XdbcBit, Some(1)),
        integer("TINYINT", T::XdbcTinyint, 3, false),
        integer("SMALLINT", T::XdbcSmallint, 5, false),
        integer("INTEGER", T::XdbcInteger, 10, false),
        integer("BIGINT", T::XdbcBigint, 19, false),
        integer("TINYINT UNSIGNED", T::XdbcTinyint, 3, true),
        integer("SMALLINT UNSIGNED", T::XdbcSmallint, 5, true),
        integer("INTEGER UNSIGNED", T::XdbcInteger, 10, true),
        integer("BIGINT UNSIGNED", T::XdbcBigint, 20, true),
        number(kind("REAL", T::XdbcReal, Some(7)), false, None),
        number(kind("DOUBLE", T::XdbcDouble, Some(15)), false, None),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            ..number(kind("DECIMAL", T::XdbcDecimal, Some(76)), false, Some(76))
        },
        XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", T::XdbcVarchar, Some(i32::MAX), "'", "'") },
        quoted("VARBINARY", T::XdbcVarbinary, Some(i32::MAX), "X'", "'"),
        quoted("BINARY", T::XdbcBinary, Some(i32::MAX), "X'", "'"),
        quoted("DATE", T::XdbcDate, Some(10), "DATE '", "'"),
        XdbcTypeInfo { maximum_scale: Some(9), ..time("TIME", T::XdbcTime, 18, Sub::XdbcSubcodeTime) },
        XdbcTypeInfo { maximum_scale: Some(9), ..time("TIMESTAMP", T::XdbcTimestamp, 29, Sub::XdbcSubcodeTimestamp) },
        XdbcTypeInfo {
            maximum_scale: Some(9),
            ..time("TIMESTAMP WITH TIME ZONE", T::XdbcTimestamp, 29, Sub::XdbcSubcodeTimestampWithTimezone)
        },
        interval("INTERVAL", Sub::XdbcSubcodeUnknown),
        interval("INTERVAL YEAR TO MONTH", Sub::XdbcSubcodeIntervalYearToMonth),
        interval("INTERVAL DAY TO SECOND", Sub::XdbcSubcodeIntervalDayToSecond),
        other("DURATION"),
        other("NULL"),
        nested("ARRAY"),
        nested("MAP"),
        nested("STRUCT"),
        nested("UNION"),
    ]
}

fn kind(name: &str, data_type: XdbcDataType, size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: size,
        literal_prefix: None,
        literal_suffix: None,
        create_params: None,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: false,
        searchable: Searchable::Full,
        unsigned_attribute: None,
        fixed_prec_scale: false,
        auto_increment: Some(false),
        local_type_name: Some(name.to_owned()),
        minimum_scale: None,
        maximum_scale: None,
        sql_data_type: data_type,
        datetime_subcode: None,
        num_prec_radix: None,
        interval_precision: None,
    }
}

fn number(info: XdbcTypeInfo, unsigned: bool, most_digits: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        num_prec_radix: Some(10),
        minimum_scale: most_digits.map(|_| 0),
        maximum_scale: most_digits,
        ..info
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32, unsigned: bool) -> XdbcTypeInfo {
    number(kind(name, data_type, Some(digits)), unsigned, Some(0))
}

fn quoted(name: &str, data_type: XdbcDataType, size: Option<i32>, prefix: &str, suffix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some(suffix.to_owned()),
        ..kind(name, data_type, size)
    }
}

fn time(name: &str, data_type: XdbcDataType, size: i32, subcode: XdbcDatetimeSubcode) -> XdbcTypeInfo {
    let word = name.split(' ').next().unwrap_or(name);
    XdbcTypeInfo {
        minimum_scale: Some(0),
        datetime_subcode: Some(subcode),
        sql_data_type: XdbcDataType::XdbcDatetime,
        ..quoted(name, data_type, Some(size), &format!("{word} '"), "'")
    }
}

fn interval(name: &str, subcode: XdbcDatetimeSubcode) -> XdbcTypeInfo {
    XdbcTypeInfo { datetime_subcode: Some(subcode), ..quoted(name, XdbcDataType::XdbcInterval, None, "INTERVAL '", "'") }
}

fn nested(name: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { searchable: Searchable::None, ..kind(name, XdbcDataType::XdbcUnknownType, None) }
}
