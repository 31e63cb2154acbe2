//! What the client makes of a server that answers as Trino does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use futures::TryStreamExt;
use nexus_flight_catalog::{Kind, Principal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A catalog of the server at an address.
pub(in crate::trino) fn config(url: &str) -> Config {
    Config {
        url: Url::parse(url).unwrap(),
        user: "me".to_owned(),
        login: Login::None,
        ca: None,
        certificate: None,
        catalog: "lake".to_owned(),
        schemas: None,
        session: Vec::new(),
        client_tags: Vec::new(),
        spooling: true,
        allow_http: false,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        place: Place::Key("catalogs.t.url".to_owned()),
    }
}

/// Room without an end.
pub(in crate::trino) fn room() -> MemoryReservation {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    MemoryConsumer::new("rows").register(&pool)
}

/// The requests that a server got.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, beginning: &str) -> usize {
        self.all().iter().filter(|request| request.starts_with(beginning)).count()
    }

    fn one(&self, beginning: &str) -> String {
        let all = self.all();
        all.iter().find(|request| request.starts_with(beginning)).unwrap_or_else(|| panic!("{all:?}")).clone()
    }

    /// Whether such a request comes within two seconds.
    async fn comes(&self, beginning: &str) -> bool {
        for _ in 0..200 {
            if self.all().iter().any(|request| request.starts_with(beginning)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

/// The address of a server that answers a request, whose text is given with that address, by a status and a body.
async fn served(answer: impl Fn(&str, &str) -> (u16, Vec<u8>) + Send + Sync + 'static) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (format!("http://{}", listener.local_addr().unwrap()), Asked::default());
    let (here, seen, answer) = (address.clone(), asked.clone(), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (here, seen, answer) = (here.clone(), seen.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut request = String::new();
                while !is_whole(&request) {
                    let mut piece = [0; 4096];
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.push_str(std::str::from_utf8(&piece[..count]).unwrap()),
                    }
                }
                seen.0.lock().unwrap().push(request.clone());
                let (status, body) = answer(&request, &here);
                // To come again at once means something in an answer that is busy.
                let more = "retry-after: 0\r\nconnection: close";
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{more}\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            });
        }
    });
    (address, asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn client(config: Config) -> Client {
    Client::new(Arc::new(config)).unwrap()
}

fn asker() -> Context {
    Context::new(Principal::anonymous())
}

async fn all(statement: Statement) -> Result<Vec<String>> {
    statement.rows.map_ok(|rows| String::from_utf8(rows.json.to_vec()).unwrap()).try_collect().await
}

/// A page as Trino writes it; what stands for `@` is the server's address.
fn page(text: &str, here: &str) -> (u16, Vec<u8>) {
    let state = if text.contains("nextUri") { "RUNNING" } else { "FINISHED" };
    (200, format!(r#"{{"id":"q_1",{}"stats":{{"state":"{state}"}}}}"#, text.replace('@', here)).into_bytes())
}

/// A statement that has a row on each page, and no last page.
fn endless(request: &str, here: &str) -> (u16, Vec<u8>) {
    match request.starts_with("DELETE") {
        true => (204, Vec::new()),
        false => {
            page(r#""nextUri":"@/v1/statement/executing/q_1/s/1","columns":[{"name":"a","type":"bigint"}],"data":[[1]],"#, here)
        }
    }
}

#[tokio::test]
async fn rows_come_in_order_to_the_last_page() {
    let busy = AtomicUsize::new(0);
    let (address, asked) = served(move |request, here| match request.split_whitespace().nth(1) {
        Some("/v1/statement") => page(r#""nextUri":"@/v1/statement/queued/q_1/s/1","#, here),
        Some("/v1/statement/queued/q_1/s/1") if busy.fetch_add(1, Ordering::Relaxed) == 0 => (503, Vec::new()),
        Some("/v1/statement/queued/q_1/s/1") => page(r#""nextUri":"@/v1/statement/executing/q_1/s/1","#, here),
        Some("/v1/statement/executing/q_1/s/1") => page(
            r#""nextUri":"@/v1/statement/executing/q_1/s/2","columns":[{"name":"a","type":"bigint"}],"data":[[1],[2]],"#,
            here,
        ),
        _ => page(r#""columns":[{"name":"a","type":"bigint"}],"data":[[3]],"#, here),
    })
    .await;
    let mut config = config(&address);
    config.login = Login::Password("hunter2".into());
    config.session = vec![("query_max_run_time".to_owned(), "1 m,x".to_owned())];
    config.client_tags = vec!["a".to_owned(), "b".to_owned()];
    let client = client(config);
    assert!(!format!("{client:?}").contains("hunter2"));
    let cx = asker();
    let statement = client.run(&cx, "SELECT a FROM t").await.unwrap();
    assert_eq!((statement.id.as_str(), statement.columns[0].type_name.as_str()), ("q_1", "bigint"));
    assert_eq!(all(statement).await.unwrap(), ["[[1],[2]]", "[[3]]"]);
    let posted = asked.one("POST /v1/statement ");
    for line in [
        "x-trino-user: me",
        "x-trino-catalog: lake",
        "x-trino-session: query_max_run_time=1+m%2Cx",
        "x-trino-client-tags: a,b",
        "x-trino-client-capabilities: PARAMETRIC_DATETIME",
        "x-trino-query-data-encoding: json+zstd",
        "authorization: Basic bWU6aHVudGVyMg==",
        &format!("x-trino-trace-token: {}", cx.query),
        "SELECT a FROM t",
    ] {
        assert!(posted.lines().any(|found| found == line), "{line}\n{posted}");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asked.all().iter().any(|request| request.starts_with("DELETE")));
}

#[tokio::test]
async fn who_leaves_has_the_statement_ended() {
    let (address, asked) = served(endless).await;
    let statement = client(config(&address)).run(&asker(), "SELECT 1").await.unwrap();
    drop(statement);
    assert!(asked.comes("DELETE /v1/statement/executing/q_1/s/1 ").await);
    // No more is asked for than there are places, and what was on its way.
    assert!(asked.all().len() <= AHEAD + 4, "{:?}", asked.all());

    let (address, asked) = served(endless).await;
    let (client, cx) = (client(config(&address)), asker());
    // It is polled once, so the answer to the POST has not come.
    assert!(client.run(&cx, "SELECT 1").now_or_never().is_none());
    assert!(asked.comes("DELETE /v1/statement/executing/q_1/s/1 ").await);
}

#[tokio::test]
async fn a_statement_is_ended_again_until_it_is() {
    let left = async |refused: usize, status: u16, taken: usize| {
        let tries = AtomicUsize::new(0);
        let (address, asked) = served(move |request, here| match request.starts_with("DELETE") {
            true if tries.fetch_add(1, Ordering::Relaxed) < refused => (status, Vec::new()),
            _ => endless(request, here),
        })
        .await;
        let client = client(config(&address));
        let _taken = client.0.endings.try_acquire_many(taken as u32).unwrap();
        drop(client.run(&asker(), "SELECT 1").await.unwrap());
        // Longer than the waits up to the fifth time.
        for _ in 0..20 {
            if asked.count("DELETE ") > 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        asked.count("DELETE ")
    };
    assert_eq!(left(4, 500, 0).await, 5);
    assert_eq!(left(usize::MAX, 404, 0).await, 1, "it is not there any more");
    assert_eq!(left(usize::MAX, 500, MOST_ENDINGS).await, 1, "others are asked for again");
}

#[tokio::test]
async fn a_busy_server_is_not_asked_again_at_once() {
    let busy = AtomicUsize::new(0);
    let (address, asked) = served(move |request, here| match request.starts_with("POST") {
        true => page(r#""nextUri":"@/v1/statement/queued/q_1/s/1","#, here),
        false if busy.fetch_add(1, Ordering::Relaxed) < 3 => (429, Vec::new()),
        false => page(r#""columns":[{"name":"a","type":"bigint"}],"data":[[1]],"#, here),
    })
    .await;
    let since = Instant::now();
    let statement = client(config(&address)).run(&asker(), "SELECT 1").await.unwrap();
    assert_eq!(all(statement).await.unwrap(), ["[[1]]"]);
    assert_eq!(asked.count("GET "), 4);
    assert!(since.elapsed() >= FIRST_WAIT * (1 + 2 + 4), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_page_that_never_ends_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let here = address.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let first = page(r#""nextUri":"@/v1/statement/queued/q_1/s/1","#, &here).1;
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                let is_first = request[..count].starts_with(b"POST");
                let length = if is_first { first.len() } else { LARGEST_PAGE };
                let head = format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(&[head.into_bytes(), first].concat()).await;
                // It is never silent.
                while !is_first && stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // What is left unread would break the answer off.
                while matches!(stream.read(&mut request).await, Ok(1..)) {}
            });
        }
    });
    let mut config = config(&address);
    config.read_timeout = Duration::from_millis(300);
    let since = Instant::now();
    let left = client(config).run(&asker(), "SELECT 1").await.err().unwrap();
    assert_eq!(left.kind(), Kind::Unavailable);
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&since.elapsed()), "{:?}", since.elapsed());
}

#[tokio::test]
async fn pages_are_of_the_statement_and_the_last_one_ends_it() {
    let after = async |last: &'static str| {
        let (address, asked) = served(move |request, here| match request.split_whitespace().next() {
            Some("GET") => (200, last.into()),
            _ => endless(request, here),
        })
        .await;
        let statement = client(config(&address)).run(&asker(), "SELECT 1").await.unwrap();
        let error = all(statement).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(asked.comes("DELETE /v1/statement/executing/q_1/s/1 ").await);
        error.message().to_owned()
    };
    let cut = after(r#"{"id":"q_1","data":[[2]],"stats":{"state":"RUNNING"}}"#).await;
    assert_eq!(cut, "trino ends a statement that it says is RUNNING");
    let other = after(r#"{"id":"q_2","data":[[2]],"stats":{"state":"FINISHED"}}"#).await;
    assert_eq!(other, "trino answers with a page of another statement than q_1");
}

#[test]
fn plain_http_goes_by_no_proxy() {
    // A client asks the environment when it is made, and only that of another process can be set.
    let tests = module_path!().split_once("::").unwrap().1;
    for name in ["rows_come_in_order_to_the_last_page", "segments_are_fetched_in_order_without_a_login"] {
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", &format!("{tests}::{name}")]).env_remove("no_proxy").env_remove("NO_PROXY");
        let output = test.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

#[tokio::test]
async fn what_is_cancelled_ends_though_nobody_reads() {
    let (address, asked) = served(endless).await;
    let cx = asker();
    let mut statement = client(config(&address)).run(&cx, "SELECT 1").await.unwrap();
    cx.cancel.cancel();
    assert!(asked.comes("DELETE ").await);
    assert_eq!(statement.rows.try_next().await.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test]
async fn segments_are_fetched_in_order_without_a_login() {
    let (address, asked) = served(|request, here| match request.split_whitespace().nth(1) {
        Some("/v1/statement") => page(
            r#""columns":[{"name":"a","type":"bigint"}],"data":{"encoding":"json+zstd","segments":[
               {"type":"spooled","uri":"@/segment/1","ackUri":"@/ack/1","headers":{"x-store-key":["k"],"Cookie":["c"]},"metadata":{"uncompressedSize":5}},
               {"type":"inline","data":"W1syXV0=","metadata":{}},
               {"type":"spooled","uri":"@/segment/3","ackUri":"@/ack/3","metadata":{}}]},"#,
            here,
        ),
        Some("/segment/1") => (200, zstd::encode_all(b"[[1]]".as_slice(), 3).unwrap()),
        Some("/segment/3") => (200, b"[[3]]".to_vec()),
        _ => (200, Vec::new()),
    })
    .await;
    let mut config = config(&address);
    config.login = Login::Token("abc".into());
    let cx = asker();
    let statement = client(config).run(&cx, "SELECT a FROM t").await.unwrap();
    assert_eq!(all(statement).await.unwrap(), ["[[1]]", "[[2]]", "[[3]]"]);
    assert!(asked.comes("GET /ack/1 ").await && asked.comes("GET /ack/3 ").await);
    let fetched = asked.one("GET /segment/1 ");
    assert!(fetched.contains("x-store-key: k") && !fetched.contains("cookie"), "{fetched}");
    let logged_in = asked.all().iter().filter(|request| request.contains("authorization: Bearer abc")).count();
    assert_eq!(logged_in, 1, "{:?}", asked.all());
    assert_eq!(cx.memory.reserved(), 0);
}

#[tokio::test]
async fn what_goes_wrong_is_said() {
    let (address, _) = served(|_, here| page(r#""nextUri":"@.evil/","error":null,"#, here)).await;
    let leads_away = client(config(&address)).run(&asker(), "SELECT 1").await.err().unwrap();
    assert_eq!(leads_away.kind(), Kind::Data);

    let failure = r#""error":{"message":"line 1:1: mismatched input","errorName":"SYNTAX_ERROR","errorType":"USER_ERROR","errorLocation":{"lineNumber":1,"columnNumber":1}},"#;
    let (address, _) = served(move |_, here| page(failure, here)).await;
    let failed = client(config(&address)).run(&asker(), "SELEC").await.err().unwrap();
    assert_eq!((failed.kind(), failed.message()), (Kind::Invalid, "trino: mismatched input (SYNTAX_ERROR)"));
    assert_eq!(failed.place(), Some(&Place::Statement { line: 1, column: 1 }));

    let (address, _) = served(|_, _| (401, b"Invalid credentials".to_vec())).await;
    let refused = client(config(&address)).run(&asker(), "SELECT 1").await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Unauthenticated);

    let (address, _) = served(|_, _| (200, vec![b' '; 64 << 10])).await;
    let cx = Context { memory: Arc::new(GreedyMemoryPool::new(32 << 10)), ..asker() };
    let too_much = client(config(&address)).run(&cx, "SELECT 1").await.err().unwrap();
    assert_eq!(too_much.kind(), Kind::Exhausted);
    assert_eq!(cx.memory.reserved(), 0);
}

#[tokio::test]
async fn how_a_server_is() {
    let info = async |body: &'static str| {
        let (address, asked) = served(move |_, _| (200, body.into())).await;
        let mut config = config(&address);
        config.login = Login::Token("abc".into());
        let known = client(config).info().await.map_err(|error| error.kind());
        assert!(!asked.one("GET /v1/info ").contains("authorization"));
        known
    };
    assert_eq!(info(r#"{"nodeVersion":{"version":"476"},"coordinator":true,"starting":false}"#).await, Ok(()));
    assert_eq!(info(r#"{"starting":true}"#).await, Err(Kind::Unavailable));
    assert_eq!(info("<html>").await, Err(Kind::Data));

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = client(config(&format!("http://{free}"))).info().await.unwrap_err();
    assert!(nobody.to_string().contains(&format!("trino at {free} does not answer")), "{nobody}");
    assert_eq!(nobody.kind(), Kind::Unavailable);
}

#[test]
fn quick_pages_wait_longer_and_longer() {
    assert_eq!(pause(0), None);
    assert_eq!(pause(QUICK_PAGES - 1), None);
    assert_eq!(pause(QUICK_PAGES), Some(QUICK));
    assert_eq!(pause(QUICK_PAGES + 2), Some(QUICK * 4));
    assert_eq!(pause(u32::MAX), Some(LONGEST_WAIT));
}

#[test]
fn a_body_has_room_for_what_it_holds() {
    let mut body = Body { bytes: Vec::new(), room: room(), most: 100_000 };
    while body.has_place_for(&[0; 30_000]) {
        body.push(&[0; 30_000]).unwrap();
        assert!(body.room.size() >= body.bytes.len());
    }
    assert_eq!((body.bytes.len(), body.room.size()), (90_000, 100_000));
}

#[test]
fn a_server_is_not_waited_for_without_end() {
    let mut headers = HeaderMap::new();
    assert_eq!(retry_after(&headers), None);
    for (said, heard) in [("7", Some(7)), ("18446744073709551615", Some(3_600)), ("Wed, 21 Oct 2015 07:28:00 GMT", None)] {
        headers.insert(RETRY_AFTER, said.parse().unwrap());
        assert_eq!(retry_after(&headers), heard.map(Duration::from_secs), "{said}");
    }
}

#[test]
fn files_that_are_no_certificates_are_named_by_their_key() {
    let said = |change: fn(&mut Config)| {
        let mut config = config("https://trino");
        change(&mut config);
        Client::new(Arc::new(config)).unwrap_err().to_string()
    };
    let missing = said(|config| config.ca = Some("/nowhere/ca.pem".into()));
    assert!(missing.starts_with("catalogs.t.ca: /nowhere/ca.pem: "), "{missing}");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let other = said(|config| config.ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()));
    assert_eq!(other, format!("catalogs.t.ca: {manifest}: there is no certificate in it; name a file in PEM"));
    let pair = said(|config| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        config.certificate = Some((path.into(), path.into()));
    });
    assert!(pair.starts_with("catalogs.t.certificate: "), "{pair}");
}
