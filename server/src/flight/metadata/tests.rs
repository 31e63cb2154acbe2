//! The answers of a small source: schemas, filters, order, column metadata, keys, and every number of `GetSqlInfo`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, TimeUnit, UInt32Type};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::IpcMessage;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetXdbcTypeInfo, SqlInfo,
};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use nexus_flight_catalog::{Capabilities, ForeignKey, Keys, Principal, Proof, Resolved, Source, Spec, Version};

use super::*;

static SPEC: Spec = Spec {
    kind: "shop",
    summary: "",
    options: &[],
    capabilities: Capabilities { keys: true, ..Capabilities::NONE },
    proof: Proof::Untested,
    docs: "",
    open: |_| Err(Error::internal("not opened by options")),
};

/// Two schemas; `broken` cannot be opened; `down` does not answer at all.
#[derive(Debug, Default)]
struct Shop {
    down: bool,
    opened: AtomicUsize,
}

#[async_trait]
impl Source for Shop {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    async fn ping(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    async fn schemas(&self, _cx: &Context) -> Result<Vec<String>> {
        if self.down {
            return Err(Error::unavailable("the shop is closed"));
        }
        Ok(vec!["sales".to_owned(), "sales_old".to_owned()])
    }

    async fn tables(&self, _cx: &Context, schema: &str) -> Result<Vec<TableEntry>> {
        Ok(match schema {
            "sales" => vec![
                TableEntry::table("broken"),
                TableEntry::table("customer"),
                TableEntry { name: "daily".to_owned(), kind: TableKind::View, comment: None },
                TableEntry::table("order_line"),
                TableEntry::table("orders"),
            ],
            _ => vec![TableEntry::table("orders")],
        })
    }

    async fn table(&self, _cx: &Context, schema: &str, table: &str) -> Result<Resolved> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if table == "broken" {
            return Err(Error::data("not a Parquet file"));
        }
        let key = |columns: &[&str], table: &str, referenced: &[&str]| ForeignKey {
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            schema: "sales".to_owned(),
            table: table.to_owned(),
            referenced: referenced.iter().map(|column| (*column).to_owned()).collect(),
        };
        let keys = match (schema, table) {
            ("sales", "customer") => Keys { primary: vec!["id".to_owned()], foreign: vec![] },
            ("sales", "orders") => {
                Keys { primary: vec!["year".to_owned(), "id".to_owned()], foreign: vec![key(&["customer"], "customer", &["id"])] }
            }
            ("sales", "order_line") => {
                Keys { primary: vec![], foreign: vec![key(&["order_year", "order"], "orders", &["year", "id"])] }
            }
            _ => Keys::default(),
        };
        let comment = HashMap::from([("comment".to_owned(), "who bought".to_owned())]);
        let fields = vec![
            Field::new("id", DataType::UInt64, false),
            Field::new("name", DataType::Utf8View, true).with_metadata(comment),
            Field::new("price", DataType::Decimal128(12, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ];
        let provider = MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]])?;
        Ok(Resolved { provider: Arc::new(provider), version: Version::Unknown, keys })
    }
}

fn shop() -> (Arc<Catalogs>, Arc<Shop>, Context) {
    let (catalogs, shop) = (Arc::new(Catalogs::default()), Arc::new(Shop::default()));
    catalogs.register("shop", Arc::clone(&shop) as Arc<dyn Source>);
    catalogs.register("closed", Arc::new(Shop { down: true, ..Shop::default() }));
    (catalogs, shop, Context::new(Principal::anonymous()))
}

/// The rows as text, a line each.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let table = pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
    let rows = table.lines().skip(3).filter(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}

fn ours(catalog: Option<&str>, schema: Option<&str>, table: Option<&str>) -> CommandGetTables {
    CommandGetTables {
        catalog: catalog.map(str::to_owned),
        db_schema_filter_pattern: schema.map(str::to_owned),
        table_name_filter_pattern: table.map(str::to_owned),
        ..CommandGetTables::default()
    }
}

async fn names(command: CommandGetTables) -> Vec<String> {
    let (all, shop, cx) = shop();
    let batch = tables(&all, &cx, TypeProfile::Native, &command).await.unwrap();
    assert_eq!(batch.schema(), tables_schema(false));
    assert_eq!(shop.opened.load(Ordering::Relaxed), 0, "a listing of names opened a table");
    let name = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
    (0..batch.num_rows()).map(|row| format!("{}.{}", name(1, row), name(2, row))).collect()
}

#[tokio::test]
async fn catalogs_and_schemas_are_listed() {
    let (all, _, cx) = shop();
    let batch = catalogs(&all, &cx, &CommandGetCatalogs {}).unwrap();
    assert_eq!(batch.schema(), catalogs_schema());
    assert_eq!(lines(&batch), ["closed", "shop"]);

    let ask = |catalog: Option<&str>, pattern: Option<&str>| CommandGetDbSchemas {
        catalog: catalog.map(str::to_owned),
        db_schema_filter_pattern: pattern.map(str::to_owned),
    };
    // A source that is down does not hide the others.
    let batch = db_schemas(&all, &cx, &ask(None, None)).await.unwrap();
    assert_eq!(batch.schema(), db_schemas_schema());
    assert_eq!(lines(&batch), ["shop information_schema", "shop sales", "shop sales_old"]);
    assert_eq!(lines(&db_schemas(&all, &cx, &ask(Some("shop"), Some("sales%"))).await.unwrap()).len(), 2);
    assert_eq!(lines(&db_schemas(&all, &cx, &ask(Some("shop"), Some("sales_"))).await.unwrap()).len(), 0);
    assert_eq!(db_schemas(&all, &cx, &ask(Some(""), None)).await.unwrap().num_rows(), 0);
    assert_eq!(db_schemas(&all, &cx, &ask(Some("nowhere"), None)).await.unwrap().num_rows(), 0);
    // Asked for by name, it says why.
    let error = db_schemas(&all, &cx, &ask(Some("closed"), None)).await.unwrap_err();
    insta::assert_snapshot!(error, @"the shop is closed");

    let batch = table_types(&CommandGetTableTypes {}).unwrap();
    assert_eq!(batch.schema(), table_types_schema());
    assert_eq!(lines(&batch), ["SYSTEM TABLE", "TABLE", "VIEW"]);
}

#[tokio::test]
async fn tables_are_filtered_by_patterns() {
    let shop = Some("shop");
    assert_eq!(
        names(ours(None, Some("sales%"), None)).await,
        ["sales.broken", "sales.customer", "sales.daily", "sales.order_line", "sales.orders", "sales_old.orders"]
    );
    assert_eq!(names(ours(shop, Some("sales"), Some("order%"))).await, ["sales.order_line", "sales.orders"]);
    assert_eq!(names(ours(shop, Some("sales"), Some("order_"))).await, ["sales.orders"]);
    assert_eq!(names(ours(shop, Some("sales"), Some("order\\_%"))).await, ["sales.order_line"]);
    assert_eq!(names(ours(shop, Some("sales"), Some("ORDERS"))).await, [""; 0]);
    assert_eq!(names(ours(shop, Some("sales"), Some(""))).await, [""; 0]);
    assert_eq!(names(ours(Some(""), None, None)).await, [""; 0]);
    assert_eq!(names(ours(Some("nowhere"), None, None)).await, [""; 0]);
    let views = CommandGetTables { table_types: vec!["VIEW".to_owned()], ..ours(None, Some("sales%"), None) };
    assert_eq!(names(views).await, ["sales.daily"]);
    let two =
        CommandGetTables { table_types: vec!["VIEW".to_owned(), "TABLE".to_owned()], ..ours(None, Some("sales%"), Some("d%")) };
    assert_eq!(names(two).await, ["sales.daily"]);
    let unknown = CommandGetTables { table_types: vec!["SYNONYM".to_owned()], ..ours(None, None, None) };
    assert_eq!(names(unknown).await, [""; 0]);
}

#[tokio::test]
async fn the_schemas_of_tables_carry_column_metadata() {
    let (all, _, cx) = shop();
    let command = CommandGetTables { include_schema: true, ..ours(Some("shop"), Some("sales"), None) };
    for profile in [TypeProfile::Native, TypeProfile::Lowered] {
        let batch = tables(&all, &cx, profile, &command).await.unwrap();
        assert_eq!(batch.schema(), tables_schema(true));
        let schemas: Vec<Schema> = batch
            .column(4)
            .as_binary::<i32>()
            .iter()
            .map(|bytes| Schema::try_from(IpcMessage(Bytes::copy_from_slice(bytes.unwrap()))).unwrap())
            .collect();
        assert!(schemas[0].fields().is_empty(), "a table that cannot be opened has no columns");
        let types: Vec<&DataType> = schemas[1].fields().iter().map(|field| field.data_type()).collect();
        match profile {
            TypeProfile::Native => assert_eq!((types[0], types[1]), (&DataType::UInt64, &DataType::Utf8View)),
            TypeProfile::Lowered => assert_eq!((types[0], types[1]), (&DataType::Decimal128(20, 0), &DataType::Utf8)),
        }
        let said = |column: &str| {
            let metadata = schemas[1].field_with_name(column).unwrap().metadata();
            let mut said: Vec<String> = metadata
                .iter()
                .filter_map(|(key, value)| Some(format!("{}={value}", key.strip_prefix("ARROW:FLIGHT:SQL:")?)))
                .collect();
            said.sort();
            said.join(" ")
        };
        insta::allow_duplicates! {
            insta::assert_snapshot!(said("id"), @"CATALOG_NAME=shop DB_SCHEMA_NAME=sales IS_AUTO_INCREMENT=0 IS_CASE_SENSITIVE=0 IS_READ_ONLY=1 IS_SEARCHABLE=1 PRECISION=20 SCALE=0 SCHEMA_NAME=sales TABLE_NAME=customer TYPE_NAME=BIGINT UNSIGNED");
            insta::assert_snapshot!(said("name"), @"CATALOG_NAME=shop DB_SCHEMA_NAME=sales IS_AUTO_INCREMENT=0 IS_CASE_SENSITIVE=1 IS_READ_ONLY=1 IS_SEARCHABLE=1 REMARKS=who bought SCHEMA_NAME=sales TABLE_NAME=customer TYPE_NAME=VARCHAR");
            insta::assert_snapshot!(said("price"), @"CATALOG_NAME=shop DB_SCHEMA_NAME=sales IS_AUTO_INCREMENT=0 IS_CASE_SENSITIVE=0 IS_READ_ONLY=1 IS_SEARCHABLE=1 PRECISION=12 SCALE=2 SCHEMA_NAME=sales TABLE_NAME=customer TYPE_NAME=DECIMAL");
            insta::assert_snapshot!(said("at"), @"CATALOG_NAME=shop DB_SCHEMA_NAME=sales IS_AUTO_INCREMENT=0 IS_CASE_SENSITIVE=0 IS_READ_ONLY=1 IS_SEARCHABLE=1 PRECISION=26 SCALE=6 SCHEMA_NAME=sales TABLE_NAME=customer TYPE_NAME=TIMESTAMP WITH TIME ZONE");
        }
    }
}

#[test]
fn the_columns_of_a_result_have_no_table_and_no_remarks() {
    let upstream = HashMap::from([
        ("comment".to_owned(), "who bought".to_owned()),
        ("ARROW:FLIGHT:SQL:TYPE_NAME".to_owned(), "Nullable(String)".to_owned()),
    ]);
    let described =
        column_metadata(&Schema::new(vec![Field::new("c", DataType::Utf8, true).with_metadata(upstream)]), None, false);
    let metadata = described.field(0).metadata();
    assert_eq!(metadata["ARROW:FLIGHT:SQL:TYPE_NAME"], "Nullable(String)");
    assert!(!metadata.keys().any(|key| key.ends_with("TABLE_NAME") || key.ends_with("REMARKS")));
    assert_eq!(column_metadata(&described, None, false), described);
}

#[tokio::test]
async fn keys_are_listed_from_every_side() {
    let (all, _, cx) = shop();
    let table = |name: &str| CommandGetPrimaryKeys { catalog: None, db_schema: Some("sales".into()), table: name.into() };
    let batch = primary_keys(&all, &cx, &table("orders")).await.unwrap();
    assert_eq!(batch.schema(), primary_keys_schema());
    assert_eq!(lines(&batch), ["shop sales orders year 1 orders_pkey", "shop sales orders id 2 orders_pkey"]);
    assert_eq!(primary_keys(&all, &cx, &table("order_line")).await.unwrap().num_rows(), 0);
    assert_eq!(primary_keys(&all, &cx, &table("nothing")).await.unwrap().num_rows(), 0);

    let line = [
        "shop sales orders year shop sales order_line order_year 1 order_line_order_year_order_fkey  3 3",
        "shop sales orders id shop sales order_line order 2 order_line_order_year_order_fkey  3 3",
    ];
    let exported = CommandGetExportedKeys { catalog: Some("shop".into()), db_schema: None, table: "orders".into() };
    let batch = exported_keys(&all, &cx, &exported).await.unwrap();
    assert_eq!(batch.schema(), foreign_keys_schema());
    assert_eq!(lines(&batch), line);

    let imported = CommandGetImportedKeys { catalog: None, db_schema: None, table: "order_line".into() };
    assert_eq!(lines(&imported_keys(&all, &cx, &imported).await.unwrap()), line);

    let between = |from: &str, to: &str| CommandGetCrossReference {
        pk_table: to.into(),
        fk_table: from.into(),
        fk_db_schema: Some("sales".into()),
        ..CommandGetCrossReference::default()
    };
    assert_eq!(lines(&cross_reference(&all, &cx, &between("order_line", "orders")).await.unwrap()), line);
    assert_eq!(cross_reference(&all, &cx, &between("order_line", "customer")).await.unwrap().num_rows(), 0);
    assert_eq!(cross_reference(&all, &cx, &between("orders", "customer")).await.unwrap().num_rows(), 1);
}

fn infos() -> SqlInfos {
    let functions = Functions { numeric: vec!["abs".to_owned()], ..Functions::default() };
    SqlInfos::new(Facts {
        functions,
        longest: 1 << 20,
        tables: 1_000,
        prepared_timeout: Duration::from_secs(600),
        transaction_timeout: Duration::from_secs(60),
        writable: true,
    })
    .unwrap()
}

#[test]
fn every_number_of_sql_info_has_an_answer() {
    let all = infos().answer(&CommandGetSqlInfo { info: vec![] }).unwrap();
    assert_eq!(*all.schema(), *SqlInfos::schema());
    let answered: Vec<u32> = all.column(0).as_primitive::<UInt32Type>().values().to_vec();
    let known: Vec<u32> = (0..2_000).filter(|number| SqlInfo::try_from(*number).is_ok()).map(|number| number as u32).collect();
    assert_eq!(answered, known);
    assert!(known.len() > 90);
}

#[test]
fn sql_info_answers_what_is_asked() {
    let ask = |info: &[u32]| lines(&infos().answer(&CommandGetSqlInfo { info: info.to_vec() }).unwrap());
    assert_eq!(ask(&[8, 0]), ["0 {string_value=nexus-gateway}", "8 {int32_bitmask=2}"]);
    assert_eq!(ask(&[0, 0, 0, 77_777]), ["0 {string_value=nexus-gateway}"]);
    assert_eq!(ask(&[77_777, u32::MAX]), [""; 0]);
    assert_eq!(ask(&[9, 100]), ["9 {bool_value=true}", "100 {int32_bitmask=600000}"]);
    assert_eq!(ask(&[509]), ["509 {string_list=[abs]}"]);
    assert_eq!(ask(&[528, 562]), ["528 {int32_bitmask=6}", "562 {bigint_value=0}"]);
    // A long list of numbers costs no more than a short one.
    assert_eq!(ask(&(0..1_000_000).collect::<Vec<u32>>()).len(), ask(&[]).len());
}

#[test]
fn every_column_type_is_an_xdbc_type() {
    let all = xdbc_type_info(&CommandGetXdbcTypeInfo { data_type: None }).unwrap();
    assert_eq!(all.schema(), xdbc_type_info_schema());
    let listed: Vec<&str> = all.column(0).as_string::<i32>().iter().flatten().collect();
    let item = || Arc::new(Field::new_list_field(DataType::Int8, true));
    for data_type in [
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float64,
        DataType::Decimal32(9, 2),
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::FixedSizeBinary(2),
        DataType::Date64,
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Second, None),
        DataType::Timestamp(TimeUnit::Second, Some("UTC".into())),
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        DataType::Duration(TimeUnit::Second),
        DataType::LargeListView(item()),
        DataType::Struct(vec![item()].into()),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
    ] {
        assert!(listed.contains(&crate::flight::columns::type_name(&data_type)), "{data_type}");
    }
    let strings = xdbc_type_info(&CommandGetXdbcTypeInfo { data_type: Some(12) }).unwrap();
    assert_eq!(strings.column(0).as_string::<i32>().value(0), "VARCHAR");
    assert_eq!(strings.num_rows(), 1);
    assert_eq!(xdbc_type_info(&CommandGetXdbcTypeInfo { data_type: Some(4_711) }).unwrap().num_rows(), 0);
}
