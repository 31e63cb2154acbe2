//! TPC-H data made on the spot: eight Parquet files for the demo, the tests and the benchmarks.

use std::fmt::{Display, Write};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder};
use nexus_flight_catalog::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tpchgen::dates::TPCHDate;
use tpchgen::decimal::TPCHDecimal;
use tpchgen::distribution::Distributions;
use tpchgen::generators::{
    Customer, CustomerGenerator, LineItem, LineItemGenerator, Nation, NationGenerator, Order, OrderGenerator, Part,
    PartGenerator, PartSupp, PartSuppGenerator, Region, RegionGenerator, Supplier, SupplierGenerator,
};
use tpchgen::text::TextPool;

/// Rows that are made and written at once.
const BATCH: usize = 16_384;

/// Rows in a row group: enough for long runs, few enough that a small table still splits over the cores.
const ROW_GROUP: usize = 262_144;

/// The size that the specification's text has; another one would give other comments.
const TEXT_POOL: i32 = 300 << 20;

/// A table with its keys.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name; the file is this with `.parquet`.
    pub name: &'static str,
    /// The columns of its primary key.
    pub primary: &'static [&'static str],
    /// Its foreign keys.
    pub foreign: &'static [Foreign],
}

/// A foreign key.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// The columns here.
    pub columns: &'static [&'static str],
    /// The table referred to.
    pub table: &'static str,
    /// The columns there, in the same order.
    pub referenced: &'static [&'static str],
}

const fn foreign(columns: &'static [&'static str], table: &'static str, referenced: &'static [&'static str]) -> Foreign {
    Foreign { columns, table, referenced }
}

/// All tables, smallest first.
pub const TABLES: [Table; 8] = [
    Table { name: "region", primary: &["r_regionkey"], foreign: &[] },
    Table { name: "nation", primary: &["n_nationkey"], foreign: &[foreign(&["n_regionkey"], "region", &["r_regionkey"])] },
    Table { name: "supplier", primary: &["s_suppkey"], foreign: &[foreign(&["s_nationkey"], "nation", &["n_nationkey"])] },
    Table { name: "customer", primary: &["c_custkey"], foreign: &[foreign(&["c_nationkey"], "nation", &["n_nationkey"])] },
    Table { name: "part", primary: &["p_partkey"], foreign: &[] },
    Table {
        name: "partsupp",
        primary: &["ps_partkey", "ps_suppkey"],
        foreign: &[foreign(&["ps_partkey"], "part", &["p_partkey"]), foreign(&["ps_suppkey"], "supplier", &["s_suppkey"])],
    },
    Table { name: "orders", primary: &["o_orderkey"], foreign: &[foreign(&["o_custkey"], "customer", &["c_custkey"])] },
    Table {
        name: "lineitem",
        primary: &["l_orderkey", "l_linenumber"],
        foreign: &[
            foreign(&["l_orderkey"], "orders", &["o_orderkey"]),
            foreign(&["l_partkey", "l_suppkey"], "partsupp", &["ps_partkey", "ps_suppkey"]),
        ],
    },
];

/// Columns of few values, which a dictionary makes smaller and quicker to read. For the others it would only be built,
/// found too large, and thrown away.
const FEW_VALUES: [&str; 20] = [
    "c_mktsegment",
    "c_nationkey",
    "l_commitdate",
    "l_discount",
    "l_linenumber",
    "l_linestatus",
    "l_quantity",
    "l_receiptdate",
    "l_returnflag",
    "l_shipdate",
    "l_shipinstruct",
    "l_shipmode",
    "l_tax",
    "o_orderdate",
    "o_orderpriority",
    "o_orderstatus",
    "p_brand",
    "p_container",
    "p_mfgr",
    "p_type",
];

/// Writes the tables as `region.parquet` and so on into a folder, which is made where it is missing.
///
/// A file gets its name only when it is whole. `progress` hears the rows written so far of each table. Memory stays near
/// 400 MB at any scale, and is free again afterwards. Errors: a scale factor that is no sensible number; a folder that
/// cannot be written.
pub fn write(dir: &Path, scale_factor: f64, progress: impl FnMut(&str, u64)) -> Result<()> {
    check(scale_factor)?;
    fs::create_dir_all(dir).map_err(|cause| failed(dir, cause))?;
    let words = Distributions::static_default();
    // tpchgen's own pool would stay in memory as long as the process.
    let text = &TextPool::new(TEXT_POOL, words);
    let scale = scale_factor;
    let mut output = Output { dir, progress };
    output.table("region", region, RegionGenerator::new_with_distributions_and_text_pool(words, text).iter())?;
    output.table("nation", nation, NationGenerator::new_with_distributions_and_text_pool(words, text).iter())?;
    output.table(
        "supplier",
        supplier,
        SupplierGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text).iter(),
    )?;
    output.table(
        "customer",
        customer,
        CustomerGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text).iter(),
    )?;
    output.table("part", part, PartGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text).iter())?;
    output.table("partsupp", partsupp, PartSuppGenerator::new_with_text_pool(scale, 1, 1, text).iter())?;
    output.table("orders", orders, OrderGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text).iter())?;
    output.table("lineitem", lineitem, LineItemGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, text).iter())
}

struct Output<'a, P> {
    dir: &'a Path,
    progress: P,
}

type Columns = Vec<(&'static str, ArrayRef)>;

impl<P: FnMut(&str, u64)> Output<'_, P> {
    fn table<R>(&mut self, name: &str, columns: impl Fn(&[R]) -> Columns, rows: impl Iterator<Item = R>) -> Result<()> {
        // No listing of `*.parquet` sees this name, and two processes do not meet in it.
        let partial = self.dir.join(format!(".{name}.{}.partial", std::process::id()));
        let written = self.rows(name, &partial, columns, rows).and_then(|()| {
            let path = self.dir.join(format!("{name}.parquet"));
            fs::rename(&partial, &path).map_err(|cause| failed(&path, cause))
        });
        if written.is_err() {
            // The first error is the one to tell; a file left over is only a file.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn rows<R>(
        &mut self,
        name: &str,
        path: &Path,
        columns: impl Fn(&[R]) -> Columns,
        mut rows: impl Iterator<Item = R>,
    ) -> Result<()> {
        let batch = |rows: &[R]| {
            let columns = columns(rows).into_iter().map(|(name, array)| (name, array, false));
            RecordBatch::try_from_iter_with_nullable(columns).map_err(Error::from)
        };
        let schema = batch(&[])?.schema();
        let file = File::create(path).map_err(|cause| failed(path, cause))?;
        let broken = |cause: parquet::errors::ParquetError| failed(path, cause);
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties())).map_err(broken)?;
        let mut total = 0;
        let mut chunk = Vec::with_capacity(BATCH);
        loop {
            chunk.clear();
            chunk.extend(rows.by_ref().take(BATCH));
            if chunk.is_empty() {
                break;
            }
            writer.write(&batch(&chunk)?).map_err(broken)?;
            total += chunk.len() as u64;
            (self.progress)(name, total);
        }
        let file = writer.into_inner().map_err(broken)?;
        file.sync_all().map_err(|cause| failed(path, cause))
    }
}

/// Errors: `Invalid` where a scale factor is no sensible number.
pub fn check(scale_factor: f64) -> Result<()> {
    if scale_factor > 0.0 && scale_factor <= 1000.0 {
        return Ok(());
    }
    Err(Error::invalid(format!("{scale_factor} is no scale factor")).with_hint("give a number above 0, up to 1000"))
}

fn failed(path: &Path, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable(format!("{} cannot be written: {cause}", path.display())).with_retryable(false).caused_by(cause)
}

fn properties() -> WriterProperties {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_dictionary_enabled(false);
    let properties = FEW_VALUES
        .iter()
        .fold(properties, |properties, column| properties.set_column_dictionary_enabled(ColumnPath::from(*column), true));
    properties.build()
}

fn region(rows: &[Region<'_>]) -> Columns {
    vec![
        ("r_regionkey", int64(rows, |row| row.r_regionkey)),
        ("r_name", text(rows, |row| row.r_name)),
        ("r_comment", text(rows, |row| row.r_comment)),
    ]
}

fn nation(rows: &[Nation<'_>]) -> Columns {
    vec![
        ("n_nationkey", int64(rows, |row| row.n_nationkey)),
        ("n_name", text(rows, |row| row.n_name)),
        ("n_regionkey", int64(rows, |row| row.n_regionkey)),
        ("n_comment", text(rows, |row| row.n_comment)),
    ]
}

fn supplier(rows: &[Supplier]) -> Columns {
    vec![
        ("s_suppkey", int64(rows, |row| row.s_suppkey)),
        ("s_name", shown(rows, |row| row.s_name)),
        ("s_address", shown(rows, |row| &row.s_address)),
        ("s_nationkey", int64(rows, |row| row.s_nationkey)),
        ("s_phone", shown(rows, |row| &row.s_phone)),
        ("s_acctbal", decimal(rows, |row| row.s_acctbal)),
        ("s_comment", text(rows, |row| &row.s_comment)),
    ]
}

fn customer(rows: &[Customer<'_>]) -> Columns {
    vec![
        ("c_custkey", int64(rows, |row| row.c_custkey)),
        ("c_name", shown(rows, |row| row.c_name)),
        ("c_address", shown(rows, |row| &row.c_address)),
        ("c_nationkey", int64(rows, |row| row.c_nationkey)),
        ("c_phone", shown(rows, |row| &row.c_phone)),
        ("c_acctbal", decimal(rows, |row| row.c_acctbal)),
        ("c_mktsegment", text(rows, |row| row.c_mktsegment)),
        ("c_comment", text(rows, |row| row.c_comment)),
    ]
}

fn part(rows: &[Part<'_>]) -> Columns {
    vec![
        ("p_partkey", int64(rows, |row| row.p_partkey)),
        ("p_name", shown(rows, |row| &row.p_name)),
        ("p_mfgr", shown(rows, |row| row.p_mfgr)),
        ("p_brand", shown(rows, |row| row.p_brand)),
        ("p_type", text(rows, |row| row.p_type)),
        ("p_size", int32(rows, |row| row.p_size)),
        ("p_container", text(rows, |row| row.p_container)),
        ("p_retailprice", decimal(rows, |row| row.p_retailprice)),
        ("p_comment", text(rows, |row| row.p_comment)),
    ]
}

fn partsupp(rows: &[PartSupp<'_>]) -> Columns {
    vec![
        ("ps_partkey", int64(rows, |row| row.ps_partkey)),
        ("ps_suppkey", int64(rows, |row| row.ps_suppkey)),
        ("ps_availqty", int32(rows, |row| row.ps_availqty)),
        ("ps_supplycost", decimal(rows, |row| row.ps_supplycost)),
        ("ps_comment", text(rows, |row| row.ps_comment)),
    ]
}

fn orders(rows: &[Order<'_>]) -> Columns {
    vec![
        ("o_orderkey", int64(rows, |row| row.o_orderkey)),
        ("o_custkey", int64(rows, |row| row.o_custkey)),
        ("o_orderstatus", text(rows, |row| row.o_orderstatus.as_str())),
        ("o_totalprice", decimal(rows, |row| row.o_totalprice)),
        ("o_orderdate", date(rows, |row| row.o_orderdate)),
        ("o_orderpriority", text(rows, |row| row.o_orderpriority)),
        ("o_clerk", shown(rows, |row| row.o_clerk)),
        ("o_shippriority", int32(rows, |row| row.o_shippriority)),
        ("o_comment", text(rows, |row| row.o_comment)),
    ]
}

fn lineitem(rows: &[LineItem<'_>]) -> Columns {
    vec![
        ("l_orderkey", int64(rows, |row| row.l_orderkey)),
        ("l_partkey", int64(rows, |row| row.l_partkey)),
        ("l_suppkey", int64(rows, |row| row.l_suppkey)),
        ("l_linenumber", int32(rows, |row| row.l_linenumber)),
        ("l_quantity", decimal(rows, |row| TPCHDecimal(row.l_quantity * 100))),
        ("l_extendedprice", decimal(rows, |row| row.l_extendedprice)),
        ("l_discount", decimal(rows, |row| row.l_discount)),
        ("l_tax", decimal(rows, |row| row.l_tax)),
        ("l_returnflag", text(rows, |row| row.l_returnflag)),
        ("l_linestatus", text(rows, |row| row.l_linestatus)),
        ("l_shipdate", date(rows, |row| row.l_shipdate)),
        ("l_commitdate", date(rows, |row| row.l_commitdate)),
        ("l_receiptdate", date(rows, |row| row.l_receiptdate)),
        ("l_shipinstruct", text(rows, |row| row.l_shipinstruct)),
        ("l_shipmode", text(rows, |row| row.l_shipmode)),
        ("l_comment", text(rows, |row| row.l_comment)),
    ]
}

fn int64<R>(rows: &[R], value: impl Fn(&R) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(value)))
}

fn int32<R>(rows: &[R], value: impl Fn(&R) -> i32) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(rows.iter().map(value)))
}

fn decimal<R>(rows: &[R], value: impl Fn(&R) -> TPCHDecimal) -> ArrayRef {
    let values = Decimal128Array::from_iter_values(rows.iter().map(|row| i128::from(value(row).into_inner())));
    // The specification's range needs 12 digits, two of them after the point.
    Arc::new(values.with_data_type(arrow::datatypes::DataType::Decimal128(15, 2)))
}

fn date<R>(rows: &[R], value: impl Fn(&R) -> TPCHDate) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| value(row).to_unix_epoch())))
}

fn text<'a, R>(rows: &'a [R], value: impl Fn(&'a R) -> &'a str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
}

/// A column of values that have no text until they are shown.
fn shown<'a, R, D: Display>(rows: &'a [R], value: impl Fn(&'a R) -> D) -> ArrayRef {
    let mut column = StringBuilder::with_capacity(rows.len(), rows.len() * 20);
    for row in rows {
        // Writing into memory does not fail.
        let _ = write!(column, "{}", value(row));
        column.append_value("");
    }
    Arc::new(column.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn rows(dir: &Path, table: &str) -> (RecordBatch, usize) {
        let file = File::open(dir.join(format!("{table}.parquet"))).unwrap();
        let batches: Vec<_> =
            ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|batch| batch.unwrap()).collect();
        (batches[0].clone(), batches.iter().map(RecordBatch::num_rows).sum())
    }

    #[test]
    fn the_tables_hold_what_the_specification_says() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new/tpch");
        let mut heard = std::collections::BTreeMap::new();
        write(&dir, 0.01, |table, rows| {
            heard.insert(table.to_owned(), rows);
        })
        .unwrap();
        let counts = [5, 25, 100, 1_500, 2_000, 8_000, 15_000, 60_175];
        for (table, count) in TABLES.iter().zip(counts) {
            let (first, total) = rows(&dir, table.name);
            assert_eq!((total as u64, heard[table.name]), (count, count), "{}", table.name);
            for key in table.primary.iter().chain(table.foreign.iter().flat_map(|foreign| foreign.columns)) {
                assert!(first.column_by_name(key).is_some(), "{}.{key}", table.name);
            }
            for foreign in table.foreign {
                let there = TABLES.iter().find(|other| other.name == foreign.table).unwrap();
                assert_eq!(there.primary, foreign.referenced, "{} refers to {}", table.name, foreign.table);
            }
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 8, "nothing is left over");
        let (lineitem, _) = rows(&dir, "lineitem");
        insta::assert_snapshot!(pretty_format_batches(&[lineitem.slice(0, 2)]).unwrap(), @r"
    +------------+-----------+-----------+--------------+------------+-----------------+------------+-------+--------------+--------------+------------+--------------+---------------+-------------------+------------+------------------------------------+
    | l_orderkey | l_partkey | l_suppkey | l_linenumber | l_quantity | l_extendedprice | l_discount | l_tax | l_returnflag | l_linestatus | l_shipdate | l_commitdate | l_receiptdate | l_shipinstruct    | l_shipmode | l_comment                          |
    +------------+-----------+-----------+--------------+------------+-----------------+------------+-------+--------------+--------------+------------+--------------+---------------+-------------------+------------+------------------------------------+
    | 1          | 1552      | 93        | 1            | 17.00      | 24710.35        | 0.04       | 0.02  | N            | O            | 1996-03-13 | 1996-02-12   | 1996-03-22    | DELIVER IN PERSON | TRUCK      | egular courts above the            |
    | 1          | 674       | 75        | 2            | 36.00      | 56688.12        | 0.09       | 0.06  | N            | O            | 1996-04-12 | 1996-02-28   | 1996-04-20    | TAKE BACK RETURN  | MAIL       | ly final dependencies: slyly bold  |
    +------------+-----------+-----------+--------------+------------+-----------------+------------+-------+--------------+--------------+------------+--------------+---------------+-------------------+------------+------------------------------------+
    ");
        insta::assert_snapshot!(pretty_format_batches(&[rows(&dir, "supplier").0.slice(0, 1)]).unwrap(), @r"
    +-----------+--------------------+-------------------------------------+-------------+-----------------+-----------+------------------------------+
    | s_suppkey | s_name             | s_address                           | s_nationkey | s_phone         | s_acctbal | s_comment                    |
    +-----------+--------------------+-------------------------------------+-------------+-----------------+-----------+------------------------------+
    | 1         | Supplier#000000001 |  N kD4on9OM Ipw3,gf0JBoQDd7tgrzrddZ | 17          | 27-918-335-1736 | 5755.94   | each slyly above the careful |
    +-----------+--------------------+-------------------------------------+-------------+-----------------+-----------+------------------------------+
    ");
    }

    #[test]
    fn a_scale_factor_has_to_make_sense() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(write(Path::new("/nowhere"), scale, |_, _| {}).is_err());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let said = write(&file, 0.01, |_, _| {}).unwrap_err().to_string();
        assert!(said.contains("cannot be written"), "{said}");
    }
}
