//! What clients send, as it should be.

use std::path::Path;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedSubstraitPlanRequest, ActionEndSavepointRequest,
    ActionEndTransactionRequest, Any, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementSubstraitPlan, ProstMessageExt, SubstraitPlan, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{CancelFlightInfoRequest, FlightDescriptor, FlightInfo, RenewFlightEndpointRequest};
use datafusion::prelude::SessionContext;
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use nexus_flight_catalog::Principal;
use nexus_server::flight::actions;
use nexus_server::flight::options::{SessionOptionValue, SetSessionOptionsRequest};
use prost::Message;

use crate::door::{Door, frame, update};
use crate::rows;

/// The schema of the session whose cookie is changed.
pub(crate) const SCHEMA: &str = "kept";

/// The tables that there are.
pub(crate) const TABLES: [&str; 10] = [
    "CREATE TABLE numbers AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, 'c')) t(id, name)",
    "CREATE TABLE other AS SELECT 4 AS id, 'd' AS name",
    "CREATE TABLE region (r_regionkey BIGINT, r_name VARCHAR, r_comment VARCHAR)",
    "CREATE TABLE nation (n_nationkey BIGINT, n_name VARCHAR, n_regionkey BIGINT, n_comment VARCHAR)",
    "CREATE TABLE supplier (s_suppkey BIGINT, s_name VARCHAR, s_address VARCHAR, s_nationkey BIGINT, s_phone VARCHAR, \
     s_acctbal DECIMAL(15, 2), s_comment VARCHAR)",
    "CREATE TABLE customer (c_custkey BIGINT, c_name VARCHAR, c_address VARCHAR, c_nationkey BIGINT, c_phone VARCHAR, \
     c_acctbal DECIMAL(15, 2), c_mktsegment VARCHAR, c_comment VARCHAR)",
    "CREATE TABLE part (p_partkey BIGINT, p_name VARCHAR, p_mfgr VARCHAR, p_brand VARCHAR, p_type VARCHAR, p_size INT, \
     p_container VARCHAR, p_retailprice DECIMAL(15, 2), p_comment VARCHAR)",
    "CREATE TABLE partsupp (ps_partkey BIGINT, ps_suppkey BIGINT, ps_availqty INT, ps_supplycost DECIMAL(15, 2), ps_comment VARCHAR)",
    "CREATE TABLE orders (o_orderkey BIGINT, o_custkey BIGINT, o_orderstatus VARCHAR, o_totalprice DECIMAL(15, 2), o_orderdate DATE, \
     o_orderpriority VARCHAR, o_clerk VARCHAR, o_shippriority INT, o_comment VARCHAR)",
    "CREATE TABLE lineitem (l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INT, l_quantity DECIMAL(15, 2), \
     l_extendedprice DECIMAL(15, 2), l_discount DECIMAL(15, 2), l_tax DECIMAL(15, 2), l_returnflag VARCHAR, l_linestatus VARCHAR, \
     l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct VARCHAR, l_shipmode VARCHAR, l_comment VARCHAR)",
];

const STATEMENTS: [&str; 12] = [
    "SELECT id, name FROM numbers WHERE id IN (1, 2) AND name LIKE 'n%' ORDER BY id DESC LIMIT 2",
    "SELECT count(*), sum(id) FILTER (WHERE id > 1) FROM numbers GROUP BY GROUPING SETS ((name), ())",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    "SELECT row_number() OVER w, lag(name, 1) OVER w FROM numbers WINDOW w AS (PARTITION BY id % 2 ORDER BY id)",
    "SELECT CAST('2024-01-31' AS DATE) + INTERVAL '1 month', TIMESTAMP '2024-02-29 12:00:00', X'00ff', 1.5e3",
    "SELECT a.id FROM numbers a LEFT JOIN other b USING (id) WHERE NOT EXISTS (SELECT 1 FROM other c WHERE c.id = a.id)",
    "EXPLAIN ANALYZE VERBOSE SELECT * FROM numbers",
    "INSERT INTO numbers (id, name) VALUES ($1, $2), (2, 'b')",
    "CREATE TEMPORARY TABLE t (a INT NOT NULL, b DECIMAL(10, 2) DEFAULT 1, PRIMARY KEY (a))",
    "SELECT regexp_replace(name, '(n)(\\d+)', '\\2\\1', 'g'), [1, 2][1], {a: 1}.a, name COLLATE \"C\" FROM \"numbers\"",
    "SELECT CASE WHEN id > 1 THEN 'x' ELSE NULL END, coalesce(NULL, 'ü𝄞'), extract(YEAR FROM now()) FROM numbers",
    "SAVEPOINT a; ROLLBACK TO a",
];

/// The statements above, and those of TPC-H.
pub(crate) fn statements() -> Vec<Vec<u8>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().join("integration/tpch");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    // For the same order each time.
    paths.sort();
    assert_eq!(paths.len(), 22);
    STATEMENTS.iter().map(|text| text.as_bytes().to_vec()).chain(paths.iter().map(|path| std::fs::read(path).unwrap())).collect()
}

fn ingest(table: &str, temporary: bool, replaces: bool) -> Any {
    let if_exists = if replaces { TableExistsOption::Replace } else { TableExistsOption::Append };
    let options = TableDefinitionOptions { if_not_exist: TableNotExistOption::Create.into(), if_exists: if_exists.into() };
    let table_definition_options = Some(options);
    CommandStatementIngest { table_definition_options, table: table.to_owned(), temporary, ..Default::default() }.as_any()
}

/// The commands that rows come with.
pub(crate) fn of_rows(door: &Door) -> Vec<Vec<u8>> {
    let [reads, writes] = door.prepared.clone();
    let all = [
        CommandPreparedStatementQuery { prepared_statement_handle: reads }.as_any(),
        CommandPreparedStatementUpdate { prepared_statement_handle: writes }.as_any(),
        ingest("put", false, true),
        ingest("numbers", false, false),
        ingest("put", true, true),
    ];
    all.iter().map(Message::encode_to_vec).collect()
}

/// Streams of rows, each for one of those commands.
pub(crate) fn puts() -> Vec<Vec<u8>> {
    let put = |(which, messages): (usize, Vec<_>)| {
        let frames = messages.iter().flat_map(frame);
        std::iter::once(u8::try_from(which).unwrap()).chain(frames).collect()
    };
    rows::streams().into_iter().enumerate().map(put).collect()
}

/// Commands about what there is.
fn metadata() -> Vec<Any> {
    let (catalog, schema) = (Some("test".to_owned()), Some("main".to_owned()));
    let pattern = Some("num_e%".to_owned());
    vec![
        CommandGetCatalogs {}.as_any(),
        CommandGetDbSchemas { catalog: catalog.clone(), db_schema_filter_pattern: pattern.clone() }.as_any(),
        CommandGetTables {
            catalog: catalog.clone(),
            db_schema_filter_pattern: schema.clone(),
            table_name_filter_pattern: pattern,
            table_types: vec!["TABLE".to_owned()],
            include_schema: true,
        }
        .as_any(),
        CommandGetTableTypes {}.as_any(),
        CommandGetSqlInfo { info: vec![0, 3, 500, 501] }.as_any(),
        CommandGetXdbcTypeInfo { data_type: Some(4) }.as_any(),
        CommandGetPrimaryKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: "numbers".to_owned() }.as_any(),
        CommandGetExportedKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: "numbers".to_owned() }.as_any(),
        CommandGetImportedKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: "numbers".to_owned() }.as_any(),
        CommandGetCrossReference {
            pk_catalog: catalog.clone(),
            pk_db_schema: schema.clone(),
            pk_table: "numbers".to_owned(),
            fk_catalog: catalog,
            fk_db_schema: schema,
            fk_table: "other".to_owned(),
        }
        .as_any(),
    ]
}

fn query(text: &str) -> Any {
    CommandStatementQuery { query: text.to_owned(), transaction_id: None }.as_any()
}

async fn plan() -> SubstraitPlan {
    let context = SessionContext::new();
    context.sql("CREATE TABLE numbers AS SELECT 1::bigint AS id, 'a' AS name").await.unwrap().collect().await.unwrap();
    let text = "SELECT name, count(*), CASE WHEN max(id) > 1 THEN 'x' END FROM numbers WHERE id IN (1, 2) GROUP BY name";
    let plan = context.sql(text).await.unwrap().into_unoptimized_plan();
    let plan = to_substrait_plan(&plan, &context.state()).unwrap().encode_to_vec().into();
    SubstraitPlan { plan, version: String::new() }
}

async fn info(door: &Door, command: &Any) -> FlightInfo {
    door.call("GetFlightInfo", &FlightDescriptor::new_cmd(command.encode_to_vec())).await.message()
}

/// Each command at one of the calls that take it, and the bodies of the actions.
pub(crate) async fn commands(door: &Door) -> Vec<Vec<u8>> {
    let [reads, writes] = door.prepared.clone();
    let mut all = metadata();
    all.extend([
        query(STATEMENTS[0]),
        query(STATEMENTS[2]),
        update(STATEMENTS[8]),
        CommandPreparedStatementQuery { prepared_statement_handle: reads.clone() }.as_any(),
        CommandPreparedStatementUpdate { prepared_statement_handle: writes }.as_any(),
        CommandStatementSubstraitPlan { plan: Some(plan().await), transaction_id: None }.as_any(),
    ]);
    let calls = all.iter().enumerate().flat_map(|(at, command)| {
        // A prefix that says which call, as the target reads it.
        [0, 1 + at % 3].map(|which| [&[u8::try_from(which).unwrap()][..], &command.encode_to_vec()].concat())
    });
    let names = actions::list();
    let bodies = bodies(door, reads).await;
    let actions = bodies.into_iter().map(|(name, body)| {
        let at = names.iter().position(|action| action.r#type == name).unwrap();
        [&[u8::try_from(4 + 5 * at).unwrap()][..], &body].concat()
    });
    calls.chain(actions).collect()
}

async fn bodies(door: &Door, handle: bytes::Bytes) -> Vec<(&'static str, Vec<u8>)> {
    let info = info(door, &query(STATEMENTS[0])).await;
    let endpoint = info.endpoint.first().cloned();
    let (transaction_id, text) = (bytes::Bytes::from_static(&[7; 60]), STATEMENTS[0].to_owned());
    let options = [("catalog", "test"), ("time_zone", "Asia/Shanghai"), ("timeout", "5s"), ("endpoints", "4")];
    let session_options = options.map(|(name, value)| (name.to_owned(), SessionOptionValue::from(value))).into();
    let of_plan = ActionCreatePreparedSubstraitPlanRequest { plan: Some(plan().await), transaction_id: None };
    vec![
        ("CreatePreparedStatement", any(&ActionCreatePreparedStatementRequest { query: text, transaction_id: None })),
        ("CreatePreparedSubstraitPlan", any(&of_plan)),
        ("ClosePreparedStatement", any(&ActionClosePreparedStatementRequest { prepared_statement_handle: handle })),
        ("CancelQuery", any(&ActionCancelQueryRequest { info: info.encode_to_vec().into() })),
        ("CancelFlightInfo", CancelFlightInfoRequest { info: Some(info) }.encode_to_vec()),
        ("RenewFlightEndpoint", RenewFlightEndpointRequest { endpoint }.encode_to_vec()),
        ("BeginTransaction", any(&ActionBeginTransactionRequest {})),
        ("EndTransaction", any(&ActionEndTransactionRequest { transaction_id: transaction_id.clone(), action: 1 })),
        ("BeginSavepoint", any(&ActionBeginSavepointRequest { transaction_id: transaction_id.clone(), name: "a".to_owned() })),
        ("EndSavepoint", any(&ActionEndSavepointRequest { savepoint_id: transaction_id, action: 1 })),
        ("SetSessionOptions", SetSessionOptionsRequest { session_options }.encode_to_vec()),
    ]
}

fn any(message: &(impl ProstMessageExt + Clone)) -> Vec<u8> {
    message.as_any().encode_to_vec()
}

/// Those of statements, which are sealed, and of commands about what there is, which are not.
pub(crate) async fn tickets(door: &Door) -> Vec<Vec<u8>> {
    let mut tickets = Vec::new();
    let of_statements = STATEMENTS[..5].iter().map(|text| query(text));
    for command in of_statements.chain(metadata()) {
        let info = info(door, &command).await;
        assert_eq!(info.flight_descriptor.unwrap().r#type(), DescriptorType::Cmd);
        tickets.extend(info.endpoint.into_iter().filter_map(|endpoint| Some(endpoint.ticket?.ticket.to_vec())));
    }
    tickets
}

/// Those of a session that has set something.
pub(crate) fn cookies(door: &Door) -> Vec<Vec<u8>> {
    let mut session = door.gateway.sessions.start();
    session.schema = SCHEMA.to_owned();
    session.options.set("timeout", Some("5s")).unwrap();
    vec![door.gateway.sessions.seal(&Principal("ann".into()), &session).unwrap().into_bytes()]
}
