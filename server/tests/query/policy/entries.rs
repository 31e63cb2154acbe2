//! 10,000 cases of policy, user, table and way in, each judged by the oracle.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables,
    CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{
    Action as Call, CancelFlightInfoRequest, FlightDescriptor, FlightInfo, IpcMessage, RenewFlightEndpointRequest,
};
use axum::http::StatusCode;
use bytes::Bytes;
use futures::TryStreamExt;
use nexus_flight_catalog::policy::{Action, RuleText};
use nexus_flight_catalog::{Context, Error, Kind, Principal};
use nexus_server::flight::metadata;
use nexus_server::flight::profile::TypeProfile;
use nexus_server::query::{CacheUse, Query};
use nexus_server::transactions::Transactions;
use prost::Message;
use tonic::{Code, Status};
use uuid::Uuid;

use super::oracle::{Oracle, random_rule};
use super::{COLUMNS, Dice, Governed, PEOPLE, TABLES};

/// Somebody and a table, under a policy.
struct Case<'a> {
    governed: &'a Governed,
    oracle: &'a Oracle<'a>,
    who: &'a str,
    table: &'a str,
    /// The columns that are seen, and the rows.
    seen: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// What a failure says.
    said: String,
}

/// 500 policies with 20 questions each.
#[tokio::test(flavor = "multi_thread")]
async fn random_policies_hold_at_every_entry() {
    let governed = Governed::new().await;
    // There is a statement of others in the lists of statements from the first case on.
    governed.run("root", "SELECT 1 AS a").await.unwrap();
    let mut dice = Dice(20_261_126);
    for number in 0..500 {
        let rules: Vec<RuleText> = (0..1 + dice.below(5)).map(|_| random_rule(&mut dice)).collect();
        governed.rules(rules.clone());
        let oracle = Oracle(&rules);
        for _ in 0..20 {
            let (who, table) = (dice.one(&PEOPLE), dice.one(&TABLES));
            let (seen, rows) = (oracle.seen(who, table), oracle.rows(who, table));
            let said = format!("policy {number}: {who} {table}\n{rules:#?}");
            let case = Case { governed: &governed, oracle: &oracle, who, table, seen, rows, said };
            match dice.below(24) {
                0 => case.all_columns().await,
                1 => case.one_column(dice.one(&COLUMNS)).await,
                2 => case.count().await,
                3 => case.information_schema().await,
                4 => case.described().await,
                5 => case.explained().await,
                6 => case.made().await,
                7 => case.ingested().await,
                8 => case.substrait().await,
                // No row meets the condition, so that the tables stay as they are.
                9 => case.changed(&format!("DELETE FROM {table} WHERE x = -1")).await,
                10 => case.changed(&format!("UPDATE {table} SET z = 1 WHERE x = -1")).await,
                11 => case.bound().await,
                12 => case.table_listed().await,
                13 => case.place_listed().await,
                14 => case.over_http().await,
                15 => case.kept().await,
                16 => case.administered().await,
                17 => case.keys_listed().await,
                18 => case.of_another().await,
                19 => case.of_their_own().await,
                20 => case.inserted_and_committed().await,
                21 => case.changed_and_committed().await,
                22 => case.dropped_and_committed().await,
                _ => case.native().await,
            }
        }
    }
}

/// The header of rows that are shown, and the rows, sorted.
fn cells(shown: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut lines = shown.lines().filter(|line| line.starts_with('|')).map(cells);
    let header = lines.next().unwrap_or_default();
    let mut rows: Vec<Vec<String>> = lines.collect();
    rows.sort();
    (header, rows)
}

/// A count as rows.
fn count_of(rows: usize) -> Vec<Vec<String>> {
    vec![vec![rows.to_string()]]
}

impl Case<'_> {
    fn cx(&self) -> Context {
        Context::new(Principal(self.who.into()))
    }

    fn catalog(&self) -> &str {
        &self.table[..1]
    }

    async fn run(&self, statement: &str) -> Result<String, Error> {
        self.governed.run(self.who, statement).await
    }

    /// Nothing is seen, as if nothing was there.
    fn must_be_missing(&self, error: &Error) {
        assert!(self.seen.is_empty() && error.kind() == Kind::NotFound, "{error}\n{}", self.said);
    }

    async fn all_columns(&self) {
        match self.run(&format!("SELECT * FROM {}", self.table)).await {
            Ok(found) => {
                let (header, rows) = cells(&found);
                assert_eq!(header, self.seen, "{}", self.said);
                assert_eq!(rows, self.rows, "{}", self.said);
            }
            Err(error) => self.must_be_missing(&error),
        }
    }

    async fn one_column(&self, column: &str) {
        let found = self.run(&format!("SELECT {column} FROM {}", self.table)).await;
        let at = self.seen.iter().position(|seen| *seen == column);
        assert_eq!(found.is_ok(), at.is_some(), "{column}: {found:?}\n{}", self.said);
        if let (Ok(found), Some(at)) = (found, at) {
            let mut wanted: Vec<Vec<String>> = self.rows.iter().map(|row| vec![row[at].clone()]).collect();
            wanted.sort();
            assert_eq!(cells(&found).1, wanted, "{}", self.said);
        }
    }

    async fn count(&self) {
        match self.run(&format!("SELECT count(*) AS c FROM {}", self.table)).await {
            Ok(found) => {
                assert!(!self.seen.is_empty(), "{found}\n{}", self.said);
                assert_eq!(cells(&found).1, count_of(self.rows.len()), "{}", self.said);
            }
            Err(error) => self.must_be_missing(&error),
        }
    }

    async fn information_schema(&self) {
        let (catalog, name) = (self.catalog(), &self.table[7..]);
        let statement =
            format!("SELECT column_name FROM {catalog}.information_schema.columns WHERE table_name = '{name}' ORDER BY 1");
        match self.run(&statement).await {
            Ok(found) => assert_eq!(cells(&found).1.concat(), self.seen, "{}", self.said),
            // Nothing of the catalog may be known.
            Err(error) => self.must_be_missing(&error),
        }
        match self.run(&format!("DESCRIBE {}", self.table)).await {
            Ok(found) => {
                let names: Vec<String> = cells(&found).1.into_iter().map(|mut row| row.remove(0)).collect();
                assert_eq!(names, self.seen, "{}", self.said);
            }
            Err(error) => self.must_be_missing(&error),
        }
    }

    async fn described(&self) {
        let query = self.governed.query(self.who, &format!("SELECT * FROM {}", self.table));
        let described = self.governed.fixture.gateway.execute.describe(&query).await;
        let names = described.map(|known| known.schema.fields().iter().map(|field| field.name().clone()).collect());
        assert_eq!(names.unwrap_or_else(|_| Vec::new()), self.seen, "{}", self.said);
    }

    async fn explained(&self) {
        let explained = self.run(&format!("EXPLAIN ANALYZE SELECT count(*) FROM {}", self.table)).await;
        assert_eq!(explained.is_ok(), !self.seen.is_empty(), "{explained:?}\n{}", self.said);
        if let Ok(plan) = &explained
            && self.oracle.hides(self.who, self.table)
        {
            let tells = ["x > 2", "x@0 > 2", "IS NOT NULL", "'?'"].into_iter().any(|told| plan.contains(told));
            assert!(!tells, "{plan}\n{}", self.said);
        }
    }

    async fn made(&self) {
        let made = format!("{}made", &self.table[..7]);
        let done = self.run(&format!("CREATE TABLE {made} AS SELECT 1 AS x")).await;
        assert_eq!(done.is_ok(), self.oracle.allows(self.who, &made, Action::Write), "{done:?}\n{}", self.said);
        if done.is_ok() {
            self.governed.run("root", &format!("DROP TABLE {made}")).await.unwrap();
        }
    }

    async fn ingested(&self) {
        let done = self.governed.ingest(self.who, self.table).await;
        // A column that is not seen is not there to be filled.
        let may = self.oracle.allows(self.who, self.table, Action::Write) && self.seen == COLUMNS;
        assert_eq!(done.is_ok(), may, "{done:?}\n{}", self.said);
    }

    async fn substrait(&self) {
        let found = self.governed.substrait(self.who, self.table).await;
        assert_eq!(found.is_ok(), self.seen == COLUMNS, "{found:?}\n{}", self.said);
        assert!(found.is_err() || cells(&found.unwrap()).1 == self.rows, "{}", self.said);
    }

    /// A change of no rows.
    async fn changed(&self, statement: &str) {
        let done = self.run(statement).await;
        let may = self.oracle.allows(self.who, self.table, Action::Write) && !self.oracle.hides(self.who, self.table);
        assert_eq!(done.is_ok(), may, "{statement}: {done:?}\n{}", self.said);
        if self.seen.is_empty() {
            assert_eq!(done.unwrap_err().kind(), Kind::NotFound, "{statement}\n{}", self.said);
        }
    }

    /// As a prepared statement runs, with a value for its parameter.
    async fn bound(&self) {
        let mut query = self.governed.query(self.who, &format!("SELECT count(*) AS c FROM {} WHERE x <= ?", self.table));
        let two: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        query.parameters = Some(RecordBatch::try_from_iter([("$1", two)]).unwrap());
        let found = self.governed.answer(query).await;
        let at = self.seen.iter().position(|seen| *seen == "x");
        assert_eq!(found.is_ok(), at.is_some(), "{found:?}\n{}", self.said);
        if let (Ok((_, found)), Some(at)) = (found, at) {
            let small = self.rows.iter().filter(|row| row[at].parse::<i64>().unwrap() <= 2);
            assert_eq!(cells(&found).1, count_of(small.count()), "{}", self.said);
        }
    }

    /// `GetTables`, with their columns.
    async fn table_listed(&self) {
        let command = CommandGetTables {
            catalog: Some(self.catalog().to_owned()),
            db_schema_filter_pattern: Some("main".to_owned()),
            table_name_filter_pattern: Some(self.table[7..].to_owned()),
            table_types: vec![],
            include_schema: true,
        };
        let catalogs = &self.governed.fixture.gateway.catalogs;
        let listed = metadata::tables(catalogs, &self.cx(), TypeProfile::Native, &command).await.unwrap();
        assert_eq!(listed.num_rows() == 1, self.oracle.lists(self.who, self.table), "{}", self.said);
        let schemas = listed.column(4).as_binary::<i32>().iter().flatten();
        let schemas = schemas.map(|bytes| Schema::try_from(IpcMessage(Bytes::copy_from_slice(bytes))).unwrap());
        let columns: Vec<String> =
            schemas.flat_map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()).collect();
        assert_eq!(columns, self.seen, "{}", self.said);
    }

    /// `GetCatalogs` and `GetDbSchemas`.
    async fn place_listed(&self) {
        let (catalogs, catalog) = (&self.governed.fixture.gateway.catalogs, self.catalog());
        let listed = metadata::catalogs(catalogs, &self.cx(), &CommandGetCatalogs {}).unwrap();
        let is_known = listed.column(0).as_string::<i32>().iter().flatten().any(|name| name == catalog);
        assert_eq!(is_known, self.oracle.knows(self.who, catalog, false), "{}", self.said);
        let command = CommandGetDbSchemas { catalog: Some(catalog.to_owned()), db_schema_filter_pattern: None };
        let listed = metadata::db_schemas(catalogs, &self.cx(), &command).await.unwrap();
        let schemas: Vec<&str> = listed.column(1).as_string::<i32>().iter().flatten().collect();
        assert_eq!(schemas.contains(&"main"), self.oracle.knows(self.who, catalog, true), "{schemas:?}\n{}", self.said);
        assert_eq!(schemas.contains(&"information_schema"), is_known, "{schemas:?}\n{}", self.said);
    }

    async fn over_http(&self) {
        let (status, body) = self.governed.http(self.who, &format!("SELECT count(*) AS c FROM {}", self.table)).await;
        match self.seen.is_empty() {
            true => assert_eq!(status, StatusCode::NOT_FOUND, "{body}\n{}", self.said),
            false => assert_eq!(body, format!("{{\"c\":{}}}\n", self.rows.len()), "{status}\n{}", self.said),
        }
    }

    /// What is asked twice comes from the cache, and what the cache has for one is for nobody who sees something else.
    async fn kept(&self) {
        let statement = format!("SELECT * FROM {} ORDER BY 1", self.table);
        match self.run(&statement).await {
            Ok(found) => {
                let again = self.governed.ask(self.who, &statement).await.unwrap();
                assert_eq!(again, (CacheUse::Hit, found), "{}", self.said);
            }
            Err(error) => self.must_be_missing(&error),
        }
        for who in PEOPLE {
            match self.governed.run(who, &statement).await {
                Ok(found) => assert_eq!(cells(&found).1, self.oracle.rows(who, self.table), "{who} after {}", self.said),
                Err(error) => assert!(self.oracle.seen(who, self.table).is_empty(), "{who}: {error}\n{}", self.said),
            }
        }
    }

    async fn administered(&self) {
        let others = format!("SELECT count(*) AS c FROM system.main.queries WHERE principal <> '{}'", self.who);
        match self.run(&others).await {
            Ok(found) => {
                let sees_others = cells(&found).1 != count_of(0);
                assert_eq!(sees_others, self.oracle.allows(self.who, "system.main.queries", Action::Admin), "{}", self.said);
            }
            Err(error) => assert!(!self.oracle.opens(self.who, "system.main.queries"), "{error}\n{}", self.said),
        }
        let settings = self.run("SELECT key FROM system.main.settings LIMIT 1").await;
        let is_admin = self.oracle.allows(self.who, "system.main.settings", Action::Admin);
        assert!(is_admin || settings.is_err(), "{settings:?}\n{}", self.said);
        let may = is_admin && self.oracle.opens(self.who, "system.main.settings");
        assert!(settings.is_ok() || !may, "{settings:?}\n{}", self.said);
    }

    /// A statement in the language of the source. That here has none, and says so to who may ask it.
    async fn native(&self) {
        let (cx, catalog) = (self.cx(), self.catalog());
        let kinds = match self.governed.fixture.gateway.catalogs.source(&cx.principal, catalog) {
            Ok(source) => {
                let described = source.native_describe(&cx, "SELECT 1").await.map(|_| ());
                let asked = source.native_query(&cx, "SELECT 1").await.map(|_| ());
                [described, asked].map(|refused| refused.unwrap_err().kind())
            }
            Err(error) => [error.kind(); 2],
        };
        let wanted = match (self.oracle.knows(self.who, catalog, false), self.oracle.native(self.who, catalog)) {
            (false, _) => Kind::NotFound,
            (true, false) => Kind::Denied,
            (true, true) => Kind::Unsupported,
        };
        assert_eq!(kinds, [wanted; 2], "{}", self.said);
    }

    /// `GetPrimaryKeys`, `GetImportedKeys`, `GetExportedKeys` and `GetCrossReference`. A key is told of by columns that are seen as they
    /// are, and to what it refers has to be seen as well.
    async fn keys_listed(&self) {
        let (catalogs, cx, oracle) = (&self.governed.fixture.gateway.catalogs, self.cx(), self.oracle);
        let (catalog, schema) = (Some(self.catalog().to_owned()), Some("main".to_owned()));
        let (table, other) = (self.table[7..].to_owned(), if self.table.ends_with('t') { "u" } else { "t" });
        let other_table = format!("{}{other}", &self.table[..7]);
        let primary = CommandGetPrimaryKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: table.clone() };
        let imported = CommandGetImportedKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: table.clone() };
        let exported = CommandGetExportedKeys { catalog: catalog.clone(), db_schema: schema.clone(), table: table.clone() };
        let crossing = CommandGetCrossReference {
            pk_catalog: catalog.clone(),
            pk_db_schema: schema.clone(),
            pk_table: other.to_owned(),
            fk_catalog: catalog,
            fk_db_schema: schema,
            fk_table: table,
        };
        let refers = |from: &str, to: &str| oracle.sees_plain(self.who, from, "z") && oracle.seen(self.who, to).contains(&"x");
        let (to_other, from_other) = (refers(self.table, &other_table), refers(&other_table, self.table));
        for (what, listed, is_told) in [
            ("primary", metadata::primary_keys(catalogs, &cx, &primary).await, oracle.sees_plain(self.who, self.table, "x")),
            ("imported", metadata::imported_keys(catalogs, &cx, &imported).await, to_other),
            ("exported", metadata::exported_keys(catalogs, &cx, &exported).await, from_other),
            ("crossing", metadata::cross_reference(catalogs, &cx, &crossing).await, to_other),
        ] {
            assert_eq!(listed.unwrap().num_rows(), usize::from(is_told), "{what} keys\n{}", self.said);
        }
    }

    /// What is had for a command.
    async fn info(&self, who: &str, command: &Any) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
        Ok(self.governed.service.get_flight_info(Governed::call(who, descriptor)).await?.into_inner())
    }

    async fn action(&self, who: &str, name: &str, body: Vec<u8>) -> Result<Vec<arrow_flight::Result>, Status> {
        let action = Call { r#type: name.to_owned(), body: body.into() };
        self.governed.service.do_action(Governed::call(who, action)).await?.into_inner().try_collect().await
    }

    /// A ticket and a prepared statement of who sees everything are of no use to anybody else, whatever they may see.
    async fn of_another(&self) {
        let query = format!("SELECT * FROM {}", self.table);
        let request = ActionCreatePreparedStatementRequest { query: query.clone(), transaction_id: None }.as_any();
        let made = self.action("root", "CreatePreparedStatement", request.encode_to_vec()).await.unwrap();
        let made = Any::decode(made[0].body.clone()).unwrap();
        let made = ActionCreatePreparedStatementResult::decode(made.value).unwrap();
        let prepared = CommandPreparedStatementQuery { prepared_statement_handle: made.prepared_statement_handle }.as_any();
        let descriptor = FlightDescriptor::new_cmd(prepared.encode_to_vec());
        let info = self.info("root", &CommandStatementQuery { query, transaction_id: None }.as_any()).await.unwrap();
        let endpoint = info.endpoint[0].clone();
        let ticket = endpoint.ticket.clone().unwrap();
        let renewal = RenewFlightEndpointRequest { endpoint: Some(endpoint) }.encode_to_vec();
        let cancelling = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
        let service = &self.governed.service;
        for (what, done) in [
            ("run", service.do_get(Governed::call(self.who, ticket.clone())).await.map(drop)),
            ("renewed", self.action(self.who, "RenewFlightEndpoint", renewal).await.map(drop)),
            ("cancelled", self.action(self.who, "CancelFlightInfo", cancelling).await.map(drop)),
            ("described", service.get_schema(Governed::call(self.who, descriptor)).await.map(drop)),
            ("prepared", self.info(self.who, &prepared).await.map(drop)),
        ] {
            assert_eq!(done.unwrap_err().code(), Code::PermissionDenied, "{what}\n{}", self.said);
        }
        // Nobody has ended it for its own user.
        service.do_get(Governed::call("root", ticket)).await.map(drop).unwrap();
    }

    /// A ticket of one's own gives what one sees.
    async fn of_their_own(&self) {
        let query = format!("SELECT * FROM {}", self.table);
        match self.info(self.who, &CommandStatementQuery { query, transaction_id: None }.as_any()).await {
            Ok(info) => {
                let ticket = info.endpoint[0].ticket.clone().unwrap();
                let messages = self.governed.service.do_get(Governed::call(self.who, ticket)).await.unwrap().into_inner();
                let rows = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
                let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
                assert_eq!(cells(&pretty_format_batches(&rows).unwrap().to_string()).1, self.rows, "{}", self.said);
                assert!(!self.seen.is_empty(), "{}", self.said);
            }
            Err(error) => assert!(self.seen.is_empty() && error.code() == Code::NotFound, "{error}\n{}", self.said),
        }
    }

    /// A statement in a transaction, which then sees what is seen outside, and commits.
    async fn committed(&self, statement: &str, may: bool) {
        let (cx, writes) = (self.cx(), Arc::clone(&self.governed.fixture.gateway.writes));
        let transactions = Transactions::new(Duration::from_secs(60), Duration::from_secs(600), writes);
        let id = transactions.begin(&cx.principal, Uuid::nil()).unwrap();
        let inside = |statement: &str| Query {
            transaction: Some(transactions.get(&cx.principal, id).unwrap()),
            ..self.governed.query(self.who, statement)
        };
        let done = self.governed.answer(inside(statement)).await;
        assert_eq!(done.is_ok(), may, "{statement}: {done:?}\n{}", self.said);
        match self.governed.answer(inside(&format!("SELECT * FROM {}", self.table))).await {
            Ok((_, found)) => assert_eq!(cells(&found), (self.header(), self.rows.clone()), "{}", self.said),
            Err(error) => self.must_be_missing(&error),
        }
        transactions.end(&cx, id, true).await.unwrap();
    }

    fn header(&self) -> Vec<String> {
        self.seen.iter().map(|column| (*column).to_owned()).collect()
    }

    /// Of no rows, so that the tables stay as they are.
    async fn inserted_and_committed(&self) {
        let may = self.oracle.allows(self.who, self.table, Action::Write) && self.seen == COLUMNS;
        self.committed(&format!("INSERT INTO {} (x, y, z) SELECT 1, 'a', 2 WHERE false", self.table), may).await;
    }

    async fn changed_and_committed(&self) {
        let may = self.oracle.allows(self.who, self.table, Action::Write) && !self.oracle.hides(self.who, self.table);
        for change in
            [format!("UPDATE {} SET z = 1 WHERE x = -1", self.table), format!("DELETE FROM {} WHERE x = -1", self.table)]
        {
            self.committed(&change, may).await;
        }
    }

    async fn dropped_and_committed(&self) {
        let made = format!("{}made", &self.table[..7]);
        self.governed.run("root", &format!("CREATE TABLE {made} (x BIGINT, y VARCHAR, z BIGINT)")).await.unwrap();
        let may = self.oracle.allows(self.who, &made, Action::Write) && !self.oracle.hides(self.who, &made);
        self.committed(&format!("DROP TABLE {made}"), may).await;
        let left = self.governed.run("root", &format!("DROP TABLE {made}")).await;
        assert_eq!(left.is_ok(), !may, "{left:?}\n{}", self.said);
    }
}
