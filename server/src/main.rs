//! The command line of the gateway.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use nexus_flight_catalog::source::TRACE;
use nexus_flight_catalog::{Error, Place, Result};
use nexus_server::audit::{Trail, Verified};
use nexus_server::config::{AuthMode, Config, LogFormat, json_schema};
use nexus_server::gateway::Gateway;
use nexus_server::kinds::SPECS;
use nexus_server::serve::{self, Listeners};
use nexus_server::traces::Exporter;
use nexus_server::wire::tls::Tls;
use nexus_server::workers::{self, Workers};
use nexus_server::{audit, demo, shell, tpch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Characters that a password has at least (NIST SP 800-63B).
const SHORTEST_PASSWORD: usize = 8;

/// One Arrow Flight SQL endpoint for every source.
#[derive(Debug, Parser)]
#[command(name = "nexus", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configured catalogs.
    Serve(ServeArgs),
    /// Run statements, or a prompt for them, against any Flight SQL server.
    Sql(shell::Args),
    /// Look at configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Read a password from standard input and print its argon2id hash for [auth.users].
    HashPassword,
    /// Make an API token: the first line is the token, the others let it in, in the file of auth.tokens.
    Token {
        /// Who comes in with it.
        #[arg(long)]
        user: String,
    },
    /// Look at audit trails.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Write the TPC-H tables as Parquet files.
    Tpch {
        /// The size: 1 is about 1 GB of text.
        #[arg(long, default_value_t = 0.01)]
        scale_factor: f64,
        /// The folder to write into.
        #[arg(long)]
        output: PathBuf,
    },
    /// Print a page of the reference that is made from the code.
    #[command(subcommand, hide = true)]
    Docs(DocsCommand),
}

#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false)]
struct What {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve TPC-H data made on the spot.
    #[arg(long)]
    demo: bool,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    #[command(flatten)]
    what: What,
    /// The size of the demo's data.
    #[arg(long, default_value_t = 0.01, conflicts_with = "config")]
    scale_factor: f64,
    /// The Flight SQL address of the demo.
    #[arg(long, default_value = "127.0.0.1:31337", conflicts_with = "config")]
    flight_listen: SocketAddr,
    /// The HTTP address of the demo.
    #[arg(long, default_value = "127.0.0.1:8080", conflicts_with = "config")]
    http_listen: SocketAddr,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration without serving it.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Ask every source too whether it answers, and whether rules of the policy fit the tables that they name.
        #[arg(long)]
        connect: bool,
    },
    /// Print the JSON Schema of configurations.
    Schema,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no record of a trail was changed, added or taken away, and print the last one's index and hash.
    Verify {
        /// The configuration file of the gateway that wrote it.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// An index and hash that were printed earlier: they have to be there still.
        #[arg(long, num_args = 2, value_names = ["INDEX", "HASH"])]
        known: Option<Vec<String>>,
    },
}

#[derive(Debug, Subcommand)]
enum DocsCommand {
    /// The connectors.
    Connectors,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start(cli.command).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Sets of threads: one for the protocols, the others for the statements.
fn start(command: Command) -> Result<ExitCode> {
    let protocols = workers::threads("nexus-protocol")?;
    let result = protocols.block_on(async { tokio::spawn(async { run(command, Workers::new()?).await }).await });
    // A thread that still works on something nobody waits for must not hold the end up.
    protocols.shutdown_background();
    result.unwrap_or_else(|error| Err(Error::internal("the main task ended early").caused_by(error)))
}

async fn run(command: Command, workers: Workers) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => serve(args, workers).await?,
        Command::Sql(args) => return shell::run(args).await,
        Command::Config(ConfigCommand::Check { file, connect }) => return check(&file, connect, workers).await,
        Command::Config(ConfigCommand::Schema) => say(format_args!("{:#}", json_schema(&SPECS))),
        Command::HashPassword => say(format_args!("{}", nexus_server::wire::auth::hash_password(read_password()?)?)),
        Command::Token { user } => {
            let (token, lines) = nexus_server::wire::tokens::new(&user)?;
            say(format_args!("{token}\n{}", lines.trim_end()));
        }
        Command::Audit(AuditCommand::Verify { config, known }) => verify(&config, known.as_deref())?,
        Command::Tpch { scale_factor, output } => {
            let shown = std::io::stderr().is_terminal();
            tpch::write(&output, scale_factor, |table, rows| {
                if shown {
                    eprint!("\r{table}: {rows} rows   ");
                }
            })?;
        }
        Command::Docs(DocsCommand::Connectors) => say(format_args!("{}", nexus_server::docs::connectors().trim_end())),
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(file: &Path, connect: bool, workers: Workers) -> Result<ExitCode> {
    let config = Config::load(file)?;
    if let Some(tls) = &config.tls {
        Tls::open(tls, &config.base).map_err(|error| config.locate(error))?;
    }
    let gateway = Gateway::new(&config, workers, None)?;
    let mut failed = if connect { gateway.unreachable(&config).await } else { Vec::new() };
    if connect && failed.is_empty() {
        failed = gateway.unfit(&config).await;
    }
    for error in &failed {
        eprintln!("error: {error}");
    }
    if !failed.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let answer = if connect { ", and every source answers" } else { "" };
    say(format_args!("{}: the configuration is good{answer}", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Says that an audit trail is whole.
fn verify(file: &Path, known: Option<&[String]>) -> Result<()> {
    let config = Config::load(file)?;
    let trail = config
        .audit
        .as_ref()
        .ok_or_else(|| Error::invalid("this gateway keeps no audit trail").with_hint("name its folder as audit.folder"))?;
    let known = match known {
        Some([index, hash]) => {
            let index = index.parse().map_err(|_| Error::invalid(format!("\"{index}\" is not the index of a record")))?;
            Some((index, hash.as_str()))
        }
        _ => None,
    };
    let Verified { first, last, head, torn } = audit::verify(trail, &config.base, known)?;
    say(format_args!("records {first} to {last} are as they were written\n{last} {head}"));
    if torn > 0 {
        say(format_args!("{torn} bytes after them are no whole record: it is being written, or was when the process ended"));
    }
    Ok(())
}

async fn serve(args: ServeArgs, workers: Workers) -> Result<()> {
    let config = match &args.what.config {
        Some(file) => Config::load(file)?,
        None => demo::config(&demo::folder(), args.scale_factor, args.flight_listen, args.http_listen)?,
    };
    let exporter = observe(&config)?;
    // Each connection and each open file takes one, and many systems begin with 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the number of open files stays as the system set it");
    }
    let metrics = serve::metrics()?;
    let trail = config.audit.as_ref().map(|audit| Trail::open(audit, &config.base).map(Arc::new)).transpose()?;
    let gateway = Gateway::new(&config, workers, trail)?;
    if args.what.demo {
        demo::register(&gateway.catalogs)?;
    }
    let listeners = Listeners::bind(&config).map_err(|error| match args.what.config {
        Some(_) => config.locate(error),
        // Nobody wrote a file: there it is a flag.
        None => match error.place() {
            Some(Place::Key(key)) => {
                let flag = format!("--{}", key.replace('.', "-"));
                let hint = error.hint().unwrap_or_default().replace(key.as_str(), &flag);
                Error::new(error.kind(), format!("{flag}: {}", error.message())).with_hint(hint)
            }
            _ => error,
        },
    })?;
    let (flight, http) = listeners.addresses()?;
    if config.auth.mode == AuthMode::Basic && config.tls.is_none() && !(flight.ip().is_loopback() && http.ip().is_loopback()) {
        tracing::warn!(
            "passwords come in as they are, since this port has no TLS: give it a certificate in [tls], or let others reach it through a proxy that has one"
        );
    }
    let stop = CancellationToken::new();
    // Before anybody is told that it is ready: whoever reads that may stop it at once.
    let signals = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    tokio::spawn(stop_on_signal(signals, stop.clone()));
    say(format_args!("ready flight={flight} http={http}"));
    serve::serve(&config, gateway, listeners, metrics, stop).await?;
    tracing::info!("stopped");
    if let Some(exporter) = exporter {
        // The runtime sends what this waits for.
        let sent = tokio::task::spawn_blocking(move || exporter.shut_down()).await;
        sent.map_err(|cause| Error::internal("the last spans could not be sent").caused_by(cause))?;
    }
    Ok(())
}

/// The first signal stops accepting and lets streams end; the second one ends at once.
async fn stop_on_signal((mut interrupt, mut terminate): (Signal, Signal), stop: CancellationToken) {
    let mut signal = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    signal().await;
    tracing::info!("stopping: running streams may end; a second signal ends at once");
    stop.cancel();
    signal().await;
    std::process::exit(130);
}

/// A line on standard output. Whoever reads it may want no more of it.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn handler(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::internal(format!("signals cannot be handled: {error}")))
}

/// Begins to write the log, and to send spans where a collector is configured.
fn observe(config: &Config) -> Result<Option<Exporter>> {
    let level = EnvFilter::try_new(&config.log.level).map_err(|error| Error::invalid(format!("log.level: {error}")))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let is_span = |metadata: &Metadata<'_>| metadata.target() == TRACE;
    let exporter = Exporter::new(&config.traces).map_err(|error| config.locate(error))?;
    // What libraries tell beyond that quotes the statements they work on. The kernel of Delta repeats what a store says in a failure, which
    // may be the keys that it was sent; the failure itself is told without them by who asked.
    let redacts = config.audit.as_ref().is_some_and(|audit| audit.redact);
    if redacts {
        // What a panic says is written past the log, and may quote values.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!("a thread of the gateway panicked at {place}; what it said may quote a statement, and is left out");
        }));
    }
    let is_told = move |metadata: &Metadata<'_>| {
        let (level, target) = (*metadata.level(), metadata.target());
        (!redacts || level <= Level::INFO || target.starts_with("nexus")) && !target.starts_with("delta_kernel")
    };
    let lines = lines.with_filter(level.and(filter_fn(move |metadata| !is_span(metadata) && is_told(metadata))));
    match &exporter {
        Some(exporter) => {
            let spans = exporter.layer().with_filter(filter_fn(is_span));
            tracing_subscriber::registry().with(lines).with(spans).init();
        }
        // Not with a layer that is none: it would have every span made.
        None => tracing_subscriber::registry().with(lines).init(),
    }
    Ok(exporter)
}

fn read_password() -> Result<secrecy::SecretString> {
    let mut password = String::new();
    std::io::stdin().read_line(&mut password).map_err(|error| Error::invalid(format!("no password could be read: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::invalid("the password is empty").with_hint("give it on standard input"));
    }
    if password.chars().count() < SHORTEST_PASSWORD {
        eprintln!("warning: the password has fewer than {SHORTEST_PASSWORD} characters, and is soon guessed; take a longer one");
    }
    Ok(password.into())
}
