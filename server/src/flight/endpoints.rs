//! The endpoints of a `FlightInfo`: made, renewed, opened and cancelled.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_flight::sql::{Any, Command, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{CancelStatus, FlightEndpoint, FlightInfo, Location, Ticket as FlightTicket};
use bytes::Bytes;
use nexus_flight_catalog::{Error, Result};
use prost::Message;

use crate::cancel::{Cancellations, Run};
use crate::flight::caller::Caller;
use crate::flight::ticket::{Ticket, check_owner};
use crate::seal::{Purpose, Seal};

/// Makes endpoints and knows those that run here.
#[derive(Debug)]
pub struct Endpoints {
    seal: Arc<Seal>,
    lives: Duration,
    location: Option<String>,
    cancellations: Arc<Cancellations>,
}

impl Endpoints {
    /// With tickets that hold for so long, to be fetched at a location, or where they were asked for.
    pub fn new(seal: Arc<Seal>, lives: Duration, location: Option<String>) -> Self {
        Self { seal, lives, location, cancellations: Arc::new(Cancellations::new(lives)) }
    }

    /// Where the rows of a statement are to be had, until its ticket expires.
    pub fn of_statement(&self, ticket: &Ticket) -> Result<FlightEndpoint> {
        // Before the seal, which may so hold a moment longer than was promised, and never shorter.
        let expires = SystemTime::now() + self.lives;
        let sealed = self.seal.seal(Purpose::Ticket, ticket, self.lives)?;
        let ticket = TicketStatementQuery { statement_handle: sealed.into() }.as_any();
        let mut endpoint = self.endpoint(ticket);
        let expiration = endpoint.expiration_time.get_or_insert_default();
        let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        expiration.seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        expiration.nanos = since.subsec_nanos().cast_signed();
        Ok(endpoint)
    }

    /// Where the answer to a command about metadata is to be had, at any time.
    pub fn of_metadata(&self, command: Command) -> FlightEndpoint {
        self.endpoint(command.into_any())
    }

    fn endpoint(&self, ticket: Any) -> FlightEndpoint {
        let ticket = FlightTicket { ticket: ticket.encode_to_vec().into() };
        // None: the client stays on the connection it has, which is the only one known to reach this server.
        let location = self.location.iter().map(|uri| Location { uri: uri.clone() }).collect();
        FlightEndpoint { ticket: Some(ticket), location, expiration_time: None, app_metadata: Bytes::new() }
    }

    /// The same endpoint for as long as a new one. Errors: its ticket has expired, or is not the caller's.
    pub fn renew(&self, caller: &Caller, endpoint: FlightEndpoint) -> Result<FlightEndpoint> {
        let ticket = endpoint.ticket.as_ref().ok_or_else(no_ticket)?;
        match command(&ticket.ticket)? {
            Command::TicketStatementQuery(sealed) => self.of_statement(&self.open(caller, &sealed)?),
            _ => Ok(endpoint),
        }
    }

    /// The ticket behind a sealed one. Errors: it is not ours, has expired, or is another principal's.
    pub fn open(&self, caller: &Caller, sealed: &TicketStatementQuery) -> Result<Ticket> {
        let ticket: Ticket = self.seal.open(Purpose::Ticket, &sealed.statement_handle)?;
        check_owner(&ticket.principal, &caller.principal, "ticket")?;
        Ok(ticket)
    }

    /// Begins a run of a ticket. Errors: `Cancelled` where it was cancelled here.
    pub fn begin(&self, ticket: &Ticket) -> Result<Run> {
        self.cancellations.begin(ticket.id)
    }

    /// Ends what runs here of the statements that an info tells of, and lets none of them begin here again. Metadata is
    /// answered at once, and what writes has been done, so there is nothing to end. Errors: `Precondition` where none of them
    /// runs here and other servers take the same tickets, since it may run there.
    pub async fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus> {
        let (mut status, mut runs) = (CancelStatus::NotCancellable, false);
        for endpoint in &info.endpoint {
            let ticket = endpoint.ticket.as_ref().ok_or_else(no_ticket)?;
            if let Command::TicketStatementQuery(sealed) = command(&ticket.ticket)? {
                // A statement may run for longer than its ticket holds.
                let ticket: Ticket = self.seal.open_expired(Purpose::Ticket, &sealed.statement_handle)?;
                check_owner(&ticket.principal, &caller.principal, "ticket")?;
                // What writes was done when it was described.
                if ticket.affected.is_some() {
                    continue;
                }
                runs |= self.cancellations.cancel(ticket.id).await;
                status = CancelStatus::Cancelled;
            }
        }
        if status == CancelStatus::Cancelled && !runs && self.seal.is_shared() {
            return Err(Error::precondition(
                "the statement does not run on this server: it has ended, has not begun, or runs on another",
            )
            .with_hint("end it by closing its stream, or cancel over a connection to the server that runs it"));
        }
        Ok(status)
    }
}

/// The command in a ticket.
pub fn command(ticket: &[u8]) -> Result<Command> {
    let any = Any::decode(ticket)
        .map_err(|_| Error::invalid("the ticket is not one of Flight SQL").with_hint("ask GetFlightInfo for one"))?;
    Ok(Command::try_from(any)?)
}

fn no_ticket() -> Error {
    Error::invalid("the endpoint has no ticket").with_hint("give it as GetFlightInfo gave it")
}
