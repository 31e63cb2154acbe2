//! The prompt of `nexus sql`: lines until a semicolon, a history, and the few commands that begin with a backslash.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use nexus_flight_catalog::{Error, Result};
use rustyline::completion::Completer;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Editor, Helper};
use secrecy::SecretString;

use super::client::Client;
use super::completion::Names;
use super::destination::Destination;
use super::output::Format;
use super::{Ask, Done, run_statement, split};
use crate::session::cache_control::CacheControl;

const HELP: &str = "\
Statements end with a semicolon and may take several lines.
  \\d TABLE        show the columns of a table
  \\d, \\dt [LIKE]  list the tables, or those whose name is like a pattern
  \\dn             list the schemas
  \\l              list the catalogs
  \\cache CONTROL  take answers of the server's cache as that says from now on: no-cache, max-age=60, use, ...
  \\q              leave, as exit, quit and Ctrl-D do
  \\?              this help
Tab completes words of SQL, and names. Ctrl-C drops what is typed, or cancels the statement that runs.";

/// How long the prompt waits for the names that can be completed.
const LISTED_WITHIN: Duration = Duration::from_secs(2);

/// Asks for statements and runs them until the user leaves. A statement that fails is told and the prompt comes back.
pub(super) async fn run(client: &mut Client, format: Format) -> Result<ExitCode> {
    let mut editor: Editor<Names, DefaultHistory> = Editor::new().map_err(unusable)?;
    let mut names = Names::default();
    // Without names the prompt is as good for all else.
    let _ = tokio::time::timeout(LISTED_WITHIN, listed(client, &mut names)).await;
    editor.set_helper(Some(names));
    let history = history();
    if let Some(path) = &history {
        let _ = path.parent().map(std::fs::create_dir_all);
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    let remember = |editor: &mut Editor<Names, DefaultHistory>, entry: &str| {
        // A history that cannot be kept is not worth an error. It is kept at once: a terminal may be closed at any time.
        let _ = editor.add_history_entry(entry);
        let _ = history.as_ref().map(|path| editor.append_history(path));
    };
    eprintln!("nexus sql; \\? for help");
    let mut typed = String::new();
    loop {
        // Nothing else of this program waits for this thread while it waits for a line.
        let prompt = if typed.is_empty() { "nexus> " } else { "    -> " };
        // While a person types, this thread's other tasks go on elsewhere: the connection has a cancelled stream to reset.
        match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) if typed.is_empty() && line.trim_start().starts_with('\\') => {
                remember(&mut editor, line.trim());
                let mut words = line.split_whitespace();
                let ask = match (words.next(), words.next()) {
                    (Some("\\q"), _) => break,
                    (Some("\\d"), Some(table)) => Ask::Columns(table),
                    (Some("\\d" | "\\dt"), pattern) => Ask::Tables(pattern),
                    (Some("\\dn"), _) => Ask::Schemas,
                    (Some("\\l"), _) => Ask::Catalogs,
                    (Some("\\cache"), _) => {
                        // Its words may stand apart.
                        match line.trim().trim_start_matches("\\cache").parse::<CacheControl>() {
                            Ok(control) => client.take_kept(control),
                            Err(error) => eprintln!("error: {error}"),
                        }
                        continue;
                    }
                    (Some("\\?"), _) => {
                        eprintln!("{HELP}");
                        continue;
                    }
                    (command, _) => {
                        eprintln!("error: there is no command {}; \\? lists them", command.unwrap_or_default());
                        continue;
                    }
                };
                let _ = show(client, ask, Format::Table).await;
            }
            Ok(line) => {
                if !typed.is_empty() {
                    typed.push('\n');
                }
                match line.trim().trim_end_matches(';') {
                    "exit" | "quit" if typed.is_empty() => break,
                    "help" if typed.is_empty() => {
                        eprintln!("\\? lists the commands; all else is SQL, up to a semicolon");
                        continue;
                    }
                    _ => {}
                }
                typed.push_str(&line);
                let (statements, rest) = split::statements(&typed);
                if !statements.is_empty() {
                    remember(&mut editor, typed.trim());
                }
                for statement in &statements {
                    // Ctrl-C is meant for all that was typed.
                    match show(client, Ask::Statement(statement), format).await {
                        ControlFlow::Break(()) => break,
                        ControlFlow::Continue(None) => {}
                        ControlFlow::Continue(Some(columns)) => {
                            if let Some(names) = editor.helper_mut() {
                                names.columns(&columns);
                            }
                        }
                    }
                }
                // A comment or blank line alone does not begin a statement.
                typed = split::last(rest).map(|_| rest.trim_start().to_owned()).unwrap_or_default();
            }
            Err(ReadlineError::Interrupted) => typed.clear(),
            Err(ReadlineError::Eof) => break,
            Err(cause) => return Err(unusable(cause)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of catalogs, schemas and tables.
async fn listed(client: &mut Client, names: &mut Names) -> Result<()> {
    let mut tables = client.tables(None).await?;
    while let Some(batch) = tables.next().await? {
        names.list(&batch);
    }
    Ok(())
}

/// Runs a statement and tells how it went. Gives the columns of what it answered. Breaks where the user cancelled it.
async fn show(client: &mut Client, ask: Ask<'_>, format: Format) -> ControlFlow<(), Option<SchemaRef>> {
    let mut to = Destination::stdout();
    match run_statement(client, ask, format, &mut to).await {
        Ok(Done::Whole(total)) => {
            eprintln!("{total}");
            return ControlFlow::Continue(Some(total.columns));
        }
        Ok(Done::Interrupted) => {
            eprintln!("cancelled");
            return ControlFlow::Break(());
        }
        Ok(Done::ReaderGone) => {}
        Err(error) => eprintln!("error: {error}"),
    }
    ControlFlow::Continue(None)
}

/// Where the history is kept, by the XDG rules.
fn history() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("nexus/sql_history"))
}

/// Asks for a password without showing it.
pub(super) fn password(user: &str) -> Result<SecretString> {
    let mut editor: Editor<Masked, DefaultHistory> = Editor::new().map_err(unusable)?;
    editor.set_helper(Some(Masked));
    // Without colours the editor would not ask the helper what to show.
    editor.set_color_mode(ColorMode::Forced);
    editor.set_auto_add_history(false);
    match tokio::task::block_in_place(|| editor.readline(&format!("Password of {user}: "))) {
        Ok(password) => Ok(password.into()),
        Err(ReadlineError::Interrupted | ReadlineError::Eof) => Err(Error::cancelled()),
        Err(cause) => Err(unusable(cause)),
    }
}

fn unusable(cause: ReadlineError) -> Error {
    Error::invalid(format!("the terminal cannot be used: {cause}")).with_hint("give statements with -c").caused_by(cause)
}

/// Shows nothing of what is typed.
struct Masked;

impl Highlighter for Masked {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        " ".repeat(line.chars().count()).into()
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Completer for Masked {
    type Candidate = String;
}

impl Hinter for Masked {
    type Hint = String;
}

impl Validator for Masked {}

impl Helper for Masked {}
