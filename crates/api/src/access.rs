//! Ways into the console: a ticket opens it once, and the session that comes of it may change things.
//!
//! A ticket is what `pressroom console` prints. It travels through a terminal and an address bar, so it lives for minutes and works
//! once. A session is kept by one tab of a browser and sent by its page alone: not as a cookie, which browsers send to every server
//! of the same name, whatever its port, so to every site that is tried on this machine.
//!
//! Always: both are random, kept as digests, and in memory only: an agent that ends takes them with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pressroom_model::secret::Secret;
use serde::{Deserialize, Serialize};

/// So long a ticket opens the console.
pub const TICKET: Duration = Duration::from_secs(300);
/// So long a session lasts.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Tickets, and sessions, that are there at a time; the oldest ends for another one.
const MOST: usize = 64;

/// Whoever asks for a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// Who they are: releases that they go back to say so.
    pub author: String,
}

/// A way into the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The console's address, with the ticket in it.
    pub url: Secret,
    /// So many seconds it opens the console.
    pub seconds: u64,
}

/// What a page gives for a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) ticket: String,
}

/// A session, for the page that gave a ticket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) session: Secret,
    pub(crate) author: String,
}

/// The tickets and sessions of an agent. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Passes(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    address: Option<SocketAddr>,
    tickets: List,
    sessions: List,
}

type Digest = [u8; 32];

/// Digests of what was given out, with who got it and until when it counts.
#[derive(Default)]
struct List(BTreeMap<Digest, (String, Instant)>);

impl List {
    fn give_out(&mut self, author: String, now: Instant, lasts: Duration) -> Secret {
        self.0.retain(|_, (_, until)| now < *until);
        if self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                self.0.remove(&oldest);
            }
        }
        let text = random();
        self.0.insert(digest(&text), (author, now + lasts));
        Secret::new(text)
    }

    fn holder(&self, text: &str, now: Instant) -> Option<&String> {
        let (author, until) = self.0.get(&digest(text))?;
        (now < *until).then_some(author)
    }
}

impl Passes {
    /// The console is open at this address; `None`: it is closed.
    pub(crate) fn open_at(&self, address: Option<SocketAddr>) {
        self.lock().address = address;
    }

    /// A ticket; `None`: there is no console.
    pub(crate) fn ticket(&self, visitor: Visitor, now: Instant) -> Option<Ticket> {
        let mut known = self.lock();
        let address = known.address?;
        let ticket = known.tickets.give_out(visitor.author, now, TICKET);
        // Behind the `#`, so that it is in no request, no log and no `Referer`.
        let url = Secret::new(format!("http://{address}/#ticket={}", ticket.reveal()));
        Some(Ticket { url, seconds: TICKET.as_secs() })
    }

    /// A session for a ticket, which is worth nothing afterwards.
    pub(crate) fn exchange(&self, ticket: &str, now: Instant) -> Option<Session> {
        let mut known = self.lock();
        let author = known.tickets.holder(ticket, now)?.clone();
        known.tickets.0.remove(&digest(ticket));
        let session = known.sessions.give_out(author.clone(), now, SESSION);
        Some(Session { session, author })
    }

    /// Whose session this is.
    pub(crate) fn holder(&self, session: &str, now: Instant) -> Option<String> {
        self.lock().sessions.holder(session, now).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Passes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passes")
    }
}

/// 256 random bits, in hexadecimal.
fn random() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looked up by what nobody can choose, so that how long it takes says nothing.
fn digest(text: &str) -> Digest {
    *blake3::hash(text.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (Passes, Instant) {
        let passes = Passes::default();
        passes.open_at(Some(SocketAddr::from(([127, 0, 0, 1], 7070))));
        (passes, Instant::now())
    }

    fn ticket(passes: &Passes, author: &str, now: Instant) -> String {
        let ticket = passes.ticket(Visitor { author: author.into() }, now).expect("a ticket");
        let url = ticket.url.reveal().to_owned();
        url.strip_prefix("http://127.0.0.1:7070/#ticket=").expect("the address").to_owned()
    }

    #[test]
    fn a_ticket_opens_once_and_in_time() {
        let (passes, now) = opened();
        let ada = ticket(&passes, "ada", now);
        assert!(passes.exchange(&ada, now + TICKET).is_none(), "too late");
        let ada = ticket(&passes, "ada", now);
        let session = passes.exchange(&ada, now).expect("a session");
        assert_eq!(session.author, "ada");
        assert!(passes.exchange(&ada, now).is_none(), "once");
        let holder = |now| passes.holder(session.session.reveal(), now);
        assert_eq!(holder(now), Some("ada".to_owned()));
        assert_eq!(holder(now + SESSION), None);
        assert_eq!(passes.holder(&ada, now), None, "a ticket is no session");
    }

    #[test]
    fn there_are_so_many_and_the_oldest_goes() {
        let (passes, now) = opened();
        let first = ticket(&passes, "first", now);
        for n in 1..=MOST as u64 {
            ticket(&passes, "more", now + Duration::from_millis(n));
        }
        assert!(passes.exchange(&first, now).is_none());
        assert_eq!(passes.lock().tickets.0.len(), MOST);
    }

    #[test]
    fn a_closed_console_gives_no_ticket() {
        let (passes, now) = opened();
        passes.open_at(None);
        assert!(passes.ticket(Visitor { author: "ada".into() }, now).is_none());
    }
}
