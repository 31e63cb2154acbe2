//! What an engine says, as it may be told: in our form, without secrets, and of addresses only the host.

use std::error::Error as StdError;
use std::net::IpAddr;

use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Place};
use url::{Host, Url};

/// The most bytes of a text in which secrets are looked for; what is behind them is not told.
const LOOKED_AT: usize = 64 << 10;

/// The beginning of a text without these secrets, of which a longer one stands before one that is a part of it.
pub(crate) fn hidden(text: &str, secrets: &[impl AsRef<str>]) -> String {
    let beginning = text.get(..text.floor_char_boundary(LOOKED_AT)).unwrap_or_default();
    let known = secrets.iter().map(AsRef::as_ref).filter(|secret: &&str| !secret.is_empty());
    let mut shown = known.clone().fold(beginning.to_owned(), |text, secret| text.replace(secret, "***"));
    if beginning.len() < text.len() {
        // The last of it may be a part of a secret.
        let longest = known.map(str::len).max().unwrap_or_default();
        shown.truncate(shown.floor_char_boundary(shown.len().saturating_sub(longest)));
    }
    shown
}

/// A message of an engine in our form: one line, a lower first letter, no final stop, and not too long.
pub(crate) fn sentence(text: &str, most: usize) -> String {
    let text: String =
        text.trim().trim_end_matches('.').chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let mut letters = text.chars();
    let lowered = match (letters.next(), letters.next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && (second.is_lowercase() || second == ' ') => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text,
    };
    shortened(lowered, most)
}

/// What the innermost cause of an error says.
pub(crate) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// The host and port of an address, and nothing else of it.
pub(crate) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

/// Whether a host is this machine, so that what is sent stays in it.
pub(crate) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

/// An error in a statement that the gateway wrote: a place in it would be looked for in that of the user, so it is in the
/// message.
pub(crate) fn ours(error: Error) -> Error {
    let Some(place @ Place::Statement { .. }) = error.place() else { return error };
    let message = format!("{} (at {place} of the query that was sent)", error.message());
    error.retold(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(hidden("a hunter2 b", &["hunter2"]), "a *** b");
        assert_eq!(hidden("a b", &[""]), "a b");
    }

    #[test]
    fn of_a_long_text_only_the_beginning_is_looked_at() {
        let secret = "hunter2-".repeat(2_000);
        let hidden = |text: &str| hidden(text, &[secret.as_str()]);
        // The last one is cut in two by the end of what is looked at.
        let shown = hidden(&format!("{}b", secret.repeat(5)));
        assert!(!shown.contains("hunter2"), "{}", shown.len());
        assert_eq!(hidden(&"é".repeat(LOOKED_AT)), "é".repeat((LOOKED_AT - secret.len()) / 2));
        assert_eq!(hidden(&format!("a {secret}")), "a ***");
    }

    #[test]
    fn sentences() {
        assert_eq!(sentence(" A table is\nmissing. ", 100), "a table is missing");
        assert_eq!(sentence("SQL is wrong", 100), "SQL is wrong");
        assert_eq!(sentence("Élan", 2), "é…");
    }

    #[test]
    fn a_place_in_our_own_query_is_in_the_message() {
        let error = Error::invalid("no").with_hint("look").at(Place::Statement { line: 1, column: 8 });
        assert_eq!(ours(error).to_string(), "no (at line 1, column 8 of the query that was sent); look");
        assert_eq!(ours(Error::invalid("no")).to_string(), "no");
        let elsewhere = Error::unavailable("gone").at(Place::Key("catalogs.t.url".to_owned()));
        assert_eq!(ours(elsewhere).to_string(), "catalogs.t.url: gone");
    }

    #[test]
    fn what_is_here() {
        let of = |text: &str| is_here(&Url::parse(text).unwrap());
        assert!(of("http://localhost:1") && of("http://127.0.0.2") && of("https://[::1]:9"));
        assert!(!of("http://localhost.evil") && !of("http://10.0.0.1"));
    }
}
