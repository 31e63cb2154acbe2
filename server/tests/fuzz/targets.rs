//! What takes bytes from outside, each by its real way in.

use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use nexus_flight_catalog::Result;
use nexus_server::config::{Config, policies};
use nexus_server::flight::actions;
use nexus_server::flight::options::{GetSessionOptionsResult, SessionOptionValue};
use nexus_server::workers::Workers;
use prost::Message;
use tokio::runtime::Builder;
use tonic::Code;

use crate::dice::Dice;
use crate::door::{Answer, Door, documented, frame};
use crate::seeds;

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Which of the commands that rows are put for, then the frames of messages after it.
    Puts,
    /// Which call, then a command, or the body of an action.
    Commands,
    /// A ticket.
    Tickets,
    /// The value of the session's cookie.
    Cookies,
    /// The header `authorization`.
    Credentials,
    /// A statement, whose rows are fetched too.
    Statements,
    /// A configuration or policy.
    Configurations,
}

impl Target {
    pub(crate) const ALL: [Self; 7] =
        [Self::Puts, Self::Commands, Self::Tickets, Self::Cookies, Self::Credentials, Self::Statements, Self::Configurations];

    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Takes some bytes. Panics where what comes of them is not for a client to be told, or lets in whom it must not.
    pub(crate) async fn take(self, door: &Door, bytes: &[u8]) {
        let (which, rest) = bytes.split_first().map_or((0, bytes), |(which, rest)| (usize::from(*which), rest));
        match self {
            Self::Puts => {
                let commands = seeds::of_rows(door);
                let command = commands[which % commands.len()].clone();
                let mut body = frame(&FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command)));
                body.extend_from_slice(rest);
                door.send("DoPut", &[], body).await.unwrap().holds();
            }
            Self::Commands => {
                let descriptor = FlightDescriptor::new_cmd(rest.to_vec());
                let answer = match which % 5 {
                    0 => door.call("GetFlightInfo", &descriptor).await,
                    1 => door.call("GetSchema", &descriptor).await,
                    2 => door.call("PollFlightInfo", &descriptor).await,
                    3 => door.call("DoPut", &FlightData::new().with_descriptor(descriptor)).await,
                    _ => {
                        let all = actions::list();
                        let r#type = all[which / 5 % all.len()].r#type.clone();
                        door.call("DoAction", &Action { r#type, body: rest.to_vec().into() }).await
                    }
                };
                answer.holds();
            }
            Self::Tickets => door.call("DoGet", &Ticket { ticket: bytes.to_vec().into() }).await.holds(),
            Self::Cookies => {
                let cookie = [b"nexus-session=", bytes].concat();
                let Some(answer) = options(door, &[(COOKIE, &cookie)]).await else { return };
                answer.holds();
                if answer.status.code() == Code::Ok {
                    let result: arrow_flight::Result = answer.message();
                    let options = GetSessionOptionsResult::decode(result.body).unwrap().session_options;
                    let is_one = |name: &str, values: &[&str]| {
                        values.iter().any(|value| options[name] == SessionOptionValue::from(*value))
                    };
                    assert!(
                        is_one("catalog", &["test"]) && is_one("schema", &["main", seeds::SCHEMA]),
                        "a session that was changed is taken"
                    );
                }
            }
            Self::Credentials => {
                let Some(answer) = options(door, &[(AUTHORIZATION, bytes)]).await else { return };
                answer.holds();
                let text = String::from_utf8_lossy(bytes);
                let of = |header: &str| header.split_once(' ').map(|(_, value)| value.trim().trim_end_matches('=').to_owned());
                let is_good = door.good.iter().any(|good| of(good) == of(&text));
                assert!(is_good || answer.status.code() == Code::Unauthenticated, "{:?}", answer.status);
            }
            Self::Statements => {
                let query = String::from_utf8_lossy(bytes).into_owned();
                let command = CommandStatementQuery { query, transaction_id: None }.as_any().encode_to_vec();
                let answer = door.call("GetFlightInfo", &FlightDescriptor::new_cmd(command)).await;
                answer.holds();
                if answer.status.code() != Code::Ok {
                    return;
                }
                let info: FlightInfo = answer.message();
                for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
                    // Rows of some have no end.
                    let within = (HeaderName::from_static("grpc-timeout"), &b"200m"[..]);
                    door.send("DoGet", &[within], frame(&ticket)).await.unwrap().holds();
                }
            }
            Self::Configurations => {
                let text = String::from_utf8_lossy(bytes);
                let path = door.folder.path().join("policy.toml");
                std::fs::write(&path, &*text).unwrap();
                let expressions = door.gateway.planner.expressions();
                // On threads that never run, so that the file is not looked at again.
                let idle = Builder::new_current_thread().build().unwrap();
                let threads = {
                    let _entered = idle.enter();
                    Workers::here()
                };
                let policy = policies(&path, expressions, false, &threads, || ());
                idle.shutdown_background();
                let config = Config::parse(&text, &door.folder.path().join("nexus.toml"), &|_| None);
                let both: [Result<()>; 2] = [policy.map(drop), config.map(drop)];
                for error in both.into_iter().filter_map(Result::err) {
                    assert_ne!(error.kind().name(), "internal", "{error}");
                }
            }
        }
    }

    /// Bytes as clients send them.
    pub(crate) async fn seeds(self, door: &Door) -> Vec<Vec<u8>> {
        match self {
            Self::Puts => seeds::puts(),
            Self::Commands => seeds::commands(door).await,
            Self::Tickets => seeds::tickets(door).await,
            Self::Cookies => seeds::cookies(door),
            Self::Credentials => door.good.iter().map(|header| header.as_bytes().to_vec()).collect(),
            Self::Statements => seeds::statements(),
            Self::Configurations => documented(),
        }
    }

    /// Bytes that are changed at random, within what is around them or as they are.
    pub(crate) fn changed(self, dice: &mut Dice, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
        if dice.below(4) == 0 {
            return dice.changed(seed, seeds);
        }
        match self {
            Self::Puts => messages_changed(dice, seed, seeds),
            Self::Credentials => token_changed(dice, seed, seeds),
            Self::Statements | Self::Configurations => dice.reworded(&String::from_utf8_lossy(seed), seeds).into_bytes(),
            _ => dice.changed(seed, seeds),
        }
    }
}

/// What the session has set, for who comes with further headers.
async fn options(door: &Door, headers: &[(HeaderName, &[u8])]) -> Option<Answer> {
    door.send("DoAction", headers, frame(&Action::new("GetSessionOptions", ""))).await
}

/// One message of a stream is changed within, so that what is around it still holds; or it comes twice, or elsewhere.
fn messages_changed(dice: &mut Dice, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
    let (mut changed, mut rest) = (vec![seed[0]], &seed[1..]);
    let mut messages = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        messages.push(FlightData::decode(&after[..length]).unwrap());
        rest = &after[length..];
    }
    let (at, other) = (dice.below(messages.len()), dice.below(messages.len()));
    match dice.below(8) {
        0 => messages.swap(at, other),
        1 => messages.insert(at, messages[other].clone()),
        2..5 => messages[at].data_header = dice.changed(&messages[at].data_header, seeds).into(),
        _ => messages[at].data_body = dice.changed(&messages[at].data_body, seeds).into(),
    }
    changed.extend(messages.iter().flat_map(frame));
    changed
}

/// One part of a token is changed beneath its base64.
fn token_changed(dice: &mut Dice, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
    let text = String::from_utf8_lossy(seed);
    let (scheme, token) = text.split_once(' ').unwrap();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let at = dice.below(parts.len());
    let plain = URL_SAFE_NO_PAD.decode(parts[at].trim_end_matches('=')).unwrap_or_default();
    parts[at] = URL_SAFE_NO_PAD.encode(dice.changed(&plain, seeds));
    format!("{scheme} {}", parts.join(".")).into_bytes()
}
