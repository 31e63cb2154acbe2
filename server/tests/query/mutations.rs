//! Bytes from outside, changed at random from seeds that never change: whatever they are, there is an answer or an error, soon.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, FlightDescriptor, Ticket};
use futures::StreamExt;
use nexus_flight_catalog::Principal;
use nexus_server::config::{self, Config};
use nexus_server::flight::service::Service;
use nexus_server::serve;
use nexus_server::wire::jwt::Jwt;
use nexus_server::workers::{self, Workers};
use prost::Message;
use tonic::{Code, Request};

use crate::fixture::Fixture;

/// How often each seed is changed.
const TURNS: usize = 1_500;
/// The longest that one of them may take.
const SOON: Duration = Duration::from_secs(1);

const STATEMENTS: [&str; 12] = [
    "SELECT id, name FROM numbers WHERE id IN (1, 2) AND name LIKE 'n%' ORDER BY id DESC LIMIT 2",
    "SELECT count(*), sum(id) FILTER (WHERE id > 1) FROM numbers GROUP BY GROUPING SETS ((name), ())",
    "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
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

/// Random numbers of a seed, by xorshift (Marsaglia, 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    /// The bytes with up to four changes: one byte, one bit, a part taken out, put in twice, or put in from elsewhere.
    fn changed(&mut self, seed: &[u8], from: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(12)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 if at < end => drop(bytes.drain(at..end)),
                3 if at < end => {
                    let part = bytes[at..end].repeat(1 + self.below(6));
                    bytes.splice(at..at, part);
                }
                4 => {
                    let other = from[self.below(from.len())];
                    let begin = self.below(other.len() + 1);
                    let part = other[begin..(begin + self.below(40)).min(other.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

fn took(began: Instant, what: &[u8]) {
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}: {}", String::from_utf8_lossy(what));
}

/// On threads with the stacks of those of the binary.
fn on_threads(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = workers::threads("test").unwrap();
    runtime.block_on(async { tokio::spawn(work).await.unwrap() });
    runtime.shutdown_background();
}

fn service(settings: &str) -> (Fixture, Arc<Service>) {
    let fixture = Fixture::on(settings, Workers::here());
    let config = Config::parse(settings, Path::new("nexus.toml"), &|_| None).unwrap();
    let service = Arc::new(serve::service(&config, &fixture.gateway).unwrap());
    (fixture, service)
}

fn called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Principal::anonymous());
    request
}

#[test]
fn statements() {
    on_threads(async {
        let fixture = Fixture::on("[limits]\nmemory = \"64MiB\"\n", Workers::here());
        let (mut dice, seeds) = (Dice(0x9E37_79B9), STATEMENTS.map(str::as_bytes));
        for turn in 0..TURNS {
            let bytes = dice.changed(seeds[turn % seeds.len()], &seeds);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let began = Instant::now();
            if let Err(error) = fixture.gateway.execute.describe(&fixture.query(&text)).await {
                assert_ne!(error.kind().name(), "internal", "{text}\n{error}");
            }
            took(began, &bytes);
        }
    });
}

#[test]
fn commands_and_actions() {
    on_threads(async {
        let (_fixture, service) = service("");
        let commands: Vec<Vec<u8>> = vec![
            CommandStatementQuery { query: STATEMENTS[0].to_owned(), transaction_id: None }.as_any().encode_to_vec(),
            CommandPreparedStatementQuery { prepared_statement_handle: vec![7; 60].into() }.as_any().encode_to_vec(),
            CommandGetTables { include_schema: true, catalog: Some("test".to_owned()), ..CommandGetTables::default() }
                .as_any()
                .encode_to_vec(),
        ];
        let actions =
            ["CreatePreparedStatement", "CancelFlightInfo", "RenewFlightEndpoint", "SetSessionOptions", "BeginTransaction"];
        let seeds: Vec<&[u8]> = commands.iter().map(Vec::as_slice).collect();
        let mut dice = Dice(0x00C0_FFEE);
        for turn in 0..TURNS {
            let bytes = dice.changed(seeds[turn % seeds.len()], &seeds);
            let began = Instant::now();
            let described = service.get_flight_info(called(FlightDescriptor::new_cmd(bytes.clone()))).await;
            told(described.err());
            let action = Action { r#type: actions[turn % actions.len()].to_owned(), body: bytes.clone().into() };
            told(service.do_action(called(action)).await.err());
            told(service.do_get(called(Ticket { ticket: bytes.clone().into() })).await.err());
            took(began, &bytes);
        }
    });
}

#[test]
fn tickets_and_cookies() {
    on_threads(async {
        let (fixture, service) = service("");
        let command = CommandStatementQuery { query: STATEMENTS[0].to_owned(), transaction_id: None }.as_any().encode_to_vec();
        let info = service.get_flight_info(called(FlightDescriptor::new_cmd(command))).await.unwrap().into_inner();
        let ticket = info.endpoint[0].ticket.clone().unwrap().ticket;
        let session = fixture.gateway.sessions.start();
        let cookie = fixture.gateway.sessions.seal(&Principal::anonymous(), &session).unwrap();
        let mut dice = Dice(0xDEAD_BEEF);
        for _ in 0..TURNS {
            let bytes = dice.changed(&ticket, &[&ticket, cookie.as_bytes()]);
            let began = Instant::now();
            // What is around the sealed part may be written in several ways.
            told(service.do_get(called(Ticket { ticket: bytes.clone().into() })).await.err());
            let changed = dice.changed(cookie.as_bytes(), &[cookie.as_bytes(), &ticket]);
            let text = String::from_utf8_lossy(&changed).into_owned();
            let opened = fixture.gateway.sessions.open(&Principal::anonymous(), &text).await;
            assert!(opened.is_err() || text == cookie, "a session that was changed is taken");
            took(began, &bytes);
        }
        // As it was it still holds.
        let mut rows = service.do_get(called(Ticket { ticket })).await.unwrap().into_inner();
        rows.next().await.unwrap().unwrap();
    });
}

/// A status that a client may get for what it sent.
fn told(status: Option<tonic::Status>) {
    if let Some(status) = status {
        assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{status:?}");
    }
}

#[test]
fn configurations() {
    let seed = "[flight]\nlisten = \"127.0.0.1:0\"\n[auth]\nmode = \"basic\"\n[auth.users.ann]\npassword_hash = \"${file:hash}\"\n\
        [auth.jwt]\nissuer = \"https://a\"\naudience = \"b\"\njwks = \"https://a/keys\"\n[limits]\nmemory = \"1GiB\"\ntime = \"5m\"\n\
        [catalogs.lake]\nkind = \"files\"\npath = \"/data\"\nttl = \"10s\"\n";
    let mut dice = Dice(0x1234_5678);
    for _ in 0..TURNS {
        let bytes = dice.changed(seed.as_bytes(), &[seed.as_bytes()]);
        let began = Instant::now();
        if let Err(error) = Config::parse(&String::from_utf8_lossy(&bytes), Path::new("nexus.toml"), &|_| None) {
            assert_ne!(error.kind().name(), "internal", "{error}");
        }
        took(began, &bytes);
    }
}

#[test]
fn json_web_tokens() {
    on_threads(async {
        let folder = tempfile::tempdir().unwrap();
        // The key and token of RFC 8037, appendix A.
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        std::fs::write(folder.path().join("key"), key).unwrap();
        let config = config::Jwt {
            issuer: "https://login.example.com/".to_owned(),
            audience: "nexus".to_owned(),
            jwks: None,
            key: Some("key".into()),
            user: "sub".to_owned(),
        };
        let jwt = Jwt::open(&config, folder.path(), &Workers::here()).unwrap();
        let seed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
            hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let claims = "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJpc3MiOiJhIiwiYXVkIjoiYiIsInN1YiI6ImMiLCJleHAiOjk5OTk5OTk5OTl9.AAAA";
        let mut dice = Dice(0xABCD_EF01);
        for turn in 0..TURNS {
            let of = if turn % 2 == 0 { seed } else { claims };
            let bytes = dice.changed(of.as_bytes(), &[seed.as_bytes(), claims.as_bytes()]);
            let began = Instant::now();
            let error = jwt.check(&String::from_utf8_lossy(&bytes)).await.expect_err("none of them says who it is");
            assert_eq!(error.kind().name(), "unauthenticated");
            took(began, &bytes);
        }
    });
}
