//! `nexus sql`: statements from the command line, a pipe or a prompt, sent to any Flight SQL server.

mod client;
mod completion;
mod cookies;
mod destination;
mod output;
mod repl;
mod split;

use std::fmt;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Schema, SchemaRef};
use clap::Args as Arguments;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use nexus_flight_catalog::{Error, Result};
use secrecy::SecretString;

use client::{Client, Rows};
use destination::Destination;
pub use output::Format;
use output::Output;

use crate::query::size;
use crate::session::cache_control::{self, CacheControl};
use crate::wire::caching;

/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The most that is read from a pipe.
const LARGEST_SCRIPT: u64 = 64 << 20;

/// The arguments of `nexus sql`.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    /// Server to ask: grpc://HOST:PORT, or grpc+tls://HOST:PORT
    #[arg(long, default_value = "grpc://127.0.0.1:31337")]
    pub url: String,
    /// User to sign in as; the password comes from NEXUS_PASSWORD or a prompt
    #[arg(long)]
    pub user: Option<String>,
    /// Catalog of names that say none
    #[arg(long)]
    pub catalog: Option<String>,
    /// Schema of names that say none
    #[arg(long)]
    pub schema: Option<String>,
    /// Answers of the server's cache to take, as in cache-control: no-cache, no-store, only-if-cached, max-age=60, max-stale=60
    #[arg(long, value_name = "CONTROL")]
    pub cache: Option<CacheControl>,
    /// Name of the answers in the server's cache, which are given to who gives the same one
    #[arg(long, value_name = "TAG", value_parser = cache_control::tag)]
    pub cache_tag: Option<String>,
    /// Statement to run, instead of asking for some; may be given again
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Form of the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// File to write the rows to, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Tell of each statement its rows, bytes and time, and what the server's cache did, on standard error
    #[arg(short, long)]
    pub verbose: bool,
}

/// Runs statements and writes their rows. Gives 0, or 130 where Ctrl-C ended a statement. Errors: what the server said of
/// the first statement that failed; the caller writes it to standard error and exits with 1.
pub async fn run(args: Args) -> Result<ExitCode> {
    let asks = args.command.is_empty() && io::stdin().is_terminal();
    let script = if asks { None } else { Some(script(&args)?) };
    check(&args, script.as_deref())?;
    let password = match &args.user {
        Some(user) => Some(password(user)?),
        None => None,
    };
    let user = args.user.as_deref().zip(password.as_ref());
    let control = args.cache.map(|control| control.to_string());
    let headers = [
        ("catalog", args.catalog.as_deref()),
        ("schema", args.schema.as_deref()),
        (caching::CONTROL, control.as_deref()),
        (caching::TAG, args.cache_tag.as_deref()),
    ];
    let mut client = Client::connect(&args.url, user, &headers).await?;
    let Some(statements) = script else { return repl::run(&mut client, args.format).await };
    let mut to = args.output.as_deref().map_or_else(|| Ok(Destination::stdout()), Destination::file)?;
    for statement in &statements {
        match run_statement(&mut client, Ask::Statement(statement), args.format, &mut to).await? {
            Done::Whole(total) if args.verbose => eprintln!("{total}"),
            Done::Whole(_) => {}
            Done::ReaderGone => return Ok(ExitCode::SUCCESS),
            Done::Interrupted => return Ok(ExitCode::from(INTERRUPTED)),
        }
    }
    to.keep()?;
    Ok(ExitCode::SUCCESS)
}

/// The statements of `-c`, or else of standard input.
fn script(args: &Args) -> Result<Vec<String>> {
    let mut text = args.command.join(";\n");
    if args.command.is_empty() {
        let read = io::stdin().lock().take(LARGEST_SCRIPT + 1).read_to_string(&mut text);
        let read = read.map_err(|cause| Error::invalid(format!("standard input cannot be read: {cause}")))?;
        if read as u64 > LARGEST_SCRIPT {
            let message = format!("standard input holds more than {} MiB of statements", LARGEST_SCRIPT >> 20);
            return Err(Error::exhausted(message).with_hint("split it").with_retryable(false));
        }
    }
    let (mut statements, rest) = split::statements(&text);
    statements.extend(split::last(rest));
    Ok(statements.into_iter().map(str::to_owned).collect())
}

/// What clap cannot say: forms and destinations that do not go together.
fn check(args: &Args, script: Option<&[String]>) -> Result<()> {
    let form = format!("{:?}", args.format).to_lowercase();
    match script {
        None if args.output.is_some() => Err(Error::invalid("--output needs a statement").with_hint("give it with -c")),
        Some([]) => Err(Error::invalid("there is no statement to run").with_hint("give one with -c or on standard input")),
        Some(statements) if statements.len() > 1 && !args.format.is_text() => {
            Err(Error::invalid(format!("{form} holds the rows of one statement, not of {}", statements.len()))
                .with_hint("run them one at a time, each with its own --output"))
        }
        _ if args.output.is_none() && !args.format.is_text() && io::stdout().is_terminal() => {
            Err(Error::invalid(format!("{form} is nothing for a terminal"))
                .with_hint("add --output FILE, or send it to a program with |"))
        }
        _ => Ok(()),
    }
}

fn password(user: &str) -> Result<SecretString> {
    if let Ok(password) = std::env::var("NEXUS_PASSWORD") {
        return Ok(password.into());
    }
    if io::stdin().is_terminal() {
        return repl::password(user);
    }
    Err(Error::unauthenticated(format!("there is no password for user \"{user}\""))
        .with_hint("set the environment variable NEXUS_PASSWORD"))
}

/// What the server is asked for.
#[derive(Clone, Copy)]
enum Ask<'a> {
    Statement(&'a str),
    Catalogs,
    Schemas,
    Tables(Option<&'a str>),
    /// Those of the tables with a name.
    Columns(&'a str),
}

/// How a statement came to its end.
enum Done {
    Whole(Total),
    Interrupted,
    /// Whoever reads our rows wants no more of them.
    ReaderGone,
}

/// What a statement gave.
struct Total {
    rows: u64,
    bytes: u64,
    took: Duration,
    columns: SchemaRef,
    /// What the server's cache had to do with it, where that is said.
    cached: Option<String>,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, took) = (if self.rows == 1 { "row" } else { "rows" }, self.took.as_secs_f64());
        write!(f, "{} {rows}, {}, {took:.3} s", HumanCount(self.rows), HumanBytes(self.bytes))?;
        self.cached.iter().try_for_each(|cached| write!(f, ", {cached}"))
    }
}

/// Runs one statement and writes its rows as they come. Ctrl-C drops the stream, which tells the server to stop.
async fn run_statement(client: &mut Client, ask: Ask<'_>, format: Format, to: &mut Destination) -> Result<Done> {
    // `biased`: an interrupt that is there together with the next batch goes first.
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Done::Interrupted),
        done = transfer(client, ask, format, to) => done,
    }
}

async fn transfer(client: &mut Client, ask: Ask<'_>, format: Format, to: &mut Destination) -> Result<Done> {
    let start = Instant::now();
    let progress = progress();
    let mut rows = match ask {
        Ask::Statement(statement) => client.query(statement).await?,
        Ask::Catalogs => client.catalogs().await?,
        Ask::Schemas => client.schemas().await?,
        Ask::Tables(pattern) => client.tables(pattern).await?,
        Ask::Columns(table) => client.columns(table).await?,
    };
    let mut next = rows.next().await?;
    let schema = schema(&rows);
    let mut total = Total { rows: 0, bytes: 0, took: Duration::ZERO, columns: Arc::clone(&schema), cached: None };
    // Only what goes wrong with writing is asked for its reason here: a server's connection breaks in the same words.
    let written = |result: Result<()>| match result {
        Err(error) if output::reader_is_gone(&error) => Ok(false),
        result => result.map(|()| true),
    };
    let mut output = match Output::new(format, &schema, to) {
        Ok(output) => output,
        Err(error) => return written(Err(error)).map(|_| Done::ReaderGone),
    };
    while let Some(batch) = next {
        total.rows += batch.num_rows() as u64;
        total.bytes += size(&batch);
        // The line of progress must not stand between the rows.
        if !written(progress.suspend(|| output.write(&batch)))? {
            return Ok(Done::ReaderGone);
        }
        progress.set_message(format!(
            "{} {}, {}",
            HumanCount(total.rows),
            if total.rows == 1 { "row" } else { "rows" },
            HumanBytes(total.bytes)
        ));
        next = rows.next().await?;
    }
    progress.finish_and_clear();
    if !written(output.finish(&schema))? {
        return Ok(Done::ReaderGone);
    }
    total.took = start.elapsed();
    total.cached = rows.cached().map(str::to_owned);
    Ok(Done::Whole(total))
}

fn schema(rows: &Rows<'_>) -> SchemaRef {
    rows.schema().cloned().unwrap_or_else(|| Schema::empty().into())
}

/// A line on standard error with time, rows and bytes; nothing where that is not a terminal.
fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(200));
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(arguments: &[&str]) -> Args {
        Command::parse_from([&["sql"], arguments].concat()).args
    }

    fn refused(arguments: &[&str]) -> String {
        let args = args(arguments);
        check(&args, Some(&script(&args).unwrap())).unwrap_err().to_string()
    }

    #[test]
    fn commands_are_split_into_statements() {
        let args = args(&["-c", "SELECT 1; SELECT ';'", "-c", "SELECT 2"]);
        assert_eq!(script(&args).unwrap(), ["SELECT 1", "SELECT ';'", "SELECT 2"]);
        assert_eq!((args.url.as_str(), args.format), ("grpc://127.0.0.1:31337", Format::Table));
    }

    #[test]
    fn what_is_wanted_of_the_cache_is_read_as_in_its_header() {
        let args = args(&["--cache", "Max-Age=60,no-cache", "--cache-tag", "nightly", "-v"]);
        assert_eq!(args.cache.map(|control| control.to_string()).as_deref(), Some("no-cache, max-age=60"));
        assert_eq!((args.cache_tag.as_deref(), args.verbose), (Some("nightly"), true));
        for wrong in [["--cache", "maybe"], ["--cache-tag", ""]] {
            assert!(Command::try_parse_from(["sql"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_total_says_what_the_cache_did_where_that_is_known() {
        let of = |rows, cached: Option<&str>| {
            let (took, columns) = (Duration::from_millis(12), Arc::new(Schema::empty()));
            Total { rows, bytes: 2_048, took, columns, cached: cached.map(str::to_owned) }.to_string()
        };
        assert_eq!(of(1, Some("cache hit, 2 s old")), "1 row, 2.00 KiB, 0.012 s, cache hit, 2 s old");
        assert_eq!(of(1_200, None), "1,200 rows, 2.00 KiB, 0.012 s");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        insta::assert_snapshot!(refused(&["-c", "SELECT 1; SELECT 2", "--format", "arrow"]), @"arrow holds the rows of one statement, not of 2; run them one at a time, each with its own --output");
        insta::assert_snapshot!(refused(&["-c", " ; -- nothing"]), @"there is no statement to run; give one with -c or on standard input");
        insta::assert_snapshot!(check(&args(&["--output", "rows"]), None).unwrap_err(), @"--output needs a statement; give it with -c");
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("grpc://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let said = run(args(&["--url", &url, "-c", "SELECT 1"])).await.unwrap_err().to_string();
        assert!(said.starts_with("no connection to 127.0.0.1:") && said.contains("grpc+tls://"), "{said}");
    }
}
