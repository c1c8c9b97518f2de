//! What others have heard of the store, for a node that hears late.
//!
//! Every agent keeps the changes that it heard last. Once a second it asks another node, the leader every other time, what there
//! is behind its own last revision. Usually that is nothing. Where it is something that the other has had for a while, this
//! node's own way to the store is bad: then it asks ten times a second, and says with each question how it is itself, which may
//! come late to the store as well. So a lossy way to the store alone delays hardly anything that the leader decides. Of a node that is
//! cut off from it the lease ends: it hears on, and counts as down.
//!
//! Only managers are believed: they could have written it themselves. Deliberately missing: a node that begins without the store
//! does not list it at others; it goes on with what it remembers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use pressroom_model::cluster::{Report, Role};
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::entry::Revision;
use pressroom_store::key::Key;
use pressroom_store::watch::Changes;
use pressroom_wire::http::{AnyBody, any_body};
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::door::{short, whole};
use super::membership::Membership;
use crate::agent::Agent;

/// Between two questions where the store is heard well.
const LOOK: Duration = Duration::from_secs(1);
/// The same where it is not.
const CLOSE_LOOK: Duration = Duration::from_millis(100);
/// What another node has had for so long should have come by itself.
const LATE: Duration = Duration::from_millis(200);
/// A node that has not heard late for so long hears well again.
const WELL: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many transactions are kept for others.
const KEPT: usize = 1024;
/// And so many bytes of them.
const KEPT_BYTES: usize = 16 << 20;
/// So many bytes are told at a time, if it is not one transaction.
const TOLD_BYTES: usize = 1 << 20;
/// Largest answer: a large transaction, as text.
const ANSWER: usize = 2 * KEPT_BYTES;

/// A transaction, as it is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) revision: Revision,
    /// Keys, and what they are now; `None`: gone.
    pub(crate) changes: Vec<(Key, Option<Vec<u8>>)>,
}

impl From<Changes> for News {
    fn from(changes: Changes) -> Self {
        let value = |change: pressroom_store::watch::Change| {
            (change.key, change.now.map(|entry| entry.value))
        };
        Self {
            revision: changes.revision,
            changes: changes.changes.into_iter().map(value).collect(),
        }
    }
}

impl News {
    fn size(&self) -> usize {
        let size = |(key, value): &(Key, Option<Vec<u8>>)| {
            key.as_str().len() + value.as_ref().map_or(0, Vec::len)
        };
        self.changes.iter().map(size).sum()
    }
}

/// What this node has heard: up to which revision, and the last of it for others.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The last revision that was taken over; none before the store was listed.
    last: Option<Revision>,
    /// The last revision that the store itself told.
    watched: Revision,
    /// Everything behind this one is kept.
    from: Revision,
    kept: VecDeque<(Instant, News)>,
    bytes: usize,
}

impl Heard {
    /// Everything was listed: what came before is not told.
    pub(crate) fn begin(&mut self, revision: Revision) {
        *self = Self { last: Some(revision), watched: revision, from: revision, ..Self::default() };
    }

    /// The store itself told this one.
    pub(crate) fn watched(&mut self, revision: Revision) {
        self.watched = self.watched.max(revision);
    }

    /// Whether nothing was heard that is later than this revision.
    pub(crate) fn is_behind(&self, revision: Revision) -> bool {
        self.last.is_none_or(|last| last <= revision)
    }

    /// Whether something is known here for a while that the store itself has not told.
    fn is_late(&self, now: Instant) -> bool {
        self.last.is_some()
            && (self.watched < self.from || self.behind(self.watched, now).1 >= LATE)
    }

    /// Keeps what was heard now of all that is behind `after`; whether it is new. Nothing is, where what is known ends before
    /// `after`: the store was listed anew since that was asked for.
    pub(crate) fn take(&mut self, news: &News, after: Revision, now: Instant) -> bool {
        if self.last.is_none_or(|last| last < after || news.revision <= last) {
            return false;
        }
        self.last = Some(news.revision);
        self.bytes += news.size();
        self.kept.push_back((now, news.clone()));
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.from = oldest.revision;
            self.bytes -= oldest.size();
        }
        true
    }

    /// What was heard behind a revision, as much as one answer has, and for how long the first of it is known; nothing, where that is
    /// not kept any more.
    fn behind(&self, after: Revision, now: Instant) -> (Vec<&News>, Duration) {
        if self.last.is_none() || after < self.from {
            return (Vec::new(), Duration::ZERO);
        }
        let begin = self.kept.partition_point(|(_, news)| news.revision <= after);
        let age = self.kept.get(begin).map_or(Duration::ZERO, |(at, _)| now.duration_since(*at));
        let mut bytes = 0;
        let fits = |news: &&News| {
            let is_first = bytes == 0;
            bytes += news.size();
            is_first || bytes <= TOLD_BYTES
        };
        (self.kept.range(begin..).map(|(_, news)| news).take_while(fits).collect(), age)
    }
}

/// What a node asks.
#[derive(Serialize, Deserialize)]
struct Question {
    /// Which store counts: revisions of another one say nothing.
    store: (String, u64),
    after: u64,
    /// How the asker is, where it hears late.
    report: Option<Report>,
}

/// What it is told.
#[derive(Default, Serialize, Deserialize)]
struct Answer {
    news: Vec<Told>,
    /// For how long the first of it is known, in milliseconds.
    age_ms: u64,
}

/// A transaction, as it is told.
#[derive(Serialize, Deserialize)]
struct Told {
    revision: u64,
    /// Keys, and what they are now, base64.
    changes: Vec<(String, Option<String>)>,
}

impl From<&News> for Told {
    fn from(news: &News) -> Self {
        let told = |(key, value): &(Key, Option<Vec<u8>>)| {
            (key.as_str().to_owned(), value.as_ref().map(|value| BASE64.encode(value)))
        };
        Self { revision: news.revision.0, changes: news.changes.iter().map(told).collect() }
    }
}

impl TryFrom<Told> for News {
    type Error = String;

    fn try_from(told: Told) -> Result<Self, String> {
        let heard = |(key, value): (String, Option<String>)| {
            let value = value.map(|value| BASE64.decode(value)).transpose();
            let value = value.map_err(|error| format!("`{key}`: {error}"))?;
            Ok((key.parse().map_err(|error| format!("`{key}`: {error}"))?, value))
        };
        let changes = told.changes.into_iter().map(heard).collect::<Result<_, String>>()?;
        Ok(Self { revision: Revision(told.revision), changes })
    }
}

/// What tells the store that counts from others before it: its token, and when it was restored.
fn store_of(own: &Membership) -> (String, u64) {
    (own.token.clone(), own.restored_ms)
}

impl Agent {
    /// Asks others for as long as the agent runs.
    pub(crate) async fn ask_what_is_heard(
        self: Arc<Self>,
        cluster: Arc<Cluster>,
        shutdown: Shutdown,
    ) {
        let mut late: Option<Instant> = None;
        let mut turn = 0_u64;
        loop {
            let pause = if late.is_some() { CLOSE_LOOK } else { LOOK };
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(pause) => {} }
            let Some(after) = cluster.heard.lock().last else { continue };
            turn += 1;
            let Some(peer) = self.teller(&cluster, turn.is_multiple_of(2)) else { continue };
            let asked = self.ask_one(&cluster, &peer, after, late.is_some());
            let answer = tokio::time::timeout(PATIENCE, asked).await;
            let (news, age) = match answer.unwrap_or_else(|_| Err("it is silent".into())) {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%peer, error, "does not say what it heard");
                    continue;
                }
            };
            let is_new = match self.take_news(&cluster, &news, after) {
                Ok(is_new) => is_new,
                Err(error) => {
                    tracing::warn!(%peer, %error, "what another node heard is not taken over");
                    continue;
                }
            };
            let now = clock::now();
            if is_new && age >= LATE || cluster.heard.lock().is_late(now) {
                if late.replace(now).is_none() {
                    tracing::info!(%peer, "the store is heard late here: others are asked");
                }
            } else if late.is_some_and(|at| now >= at + WELL) {
                tracing::info!("the store is heard in time again");
                late = None;
            }
        }
    }

    /// Whom to ask: the leader, or any other manager that is up.
    fn teller(&self, cluster: &Cluster, wants_leader: bool) -> Option<NodeName> {
        let own = cluster.node();
        let state = self.state.lock();
        let known = &state.known;
        let is_manager = |name: &NodeName| {
            let node = known.nodes.get(name);
            *name != own && node.is_some_and(|node| node.roles.contains(&Role::Manager))
        };
        let leader = known.leader.clone().filter(|name| wants_leader && is_manager(name));
        leader.or_else(|| {
            let others: Vec<&NodeName> =
                known.reports.keys().filter(|name| is_manager(name)).collect();
            others.choose(&mut rand::rng()).map(|name| (*name).clone())
        })
    }

    async fn ask_one(
        &self,
        cluster: &Cluster,
        peer: &NodeName,
        after: Revision,
        is_late: bool,
    ) -> Result<(Vec<News>, Duration), String> {
        let stamped = || Report { at_ms: clock::wall_ms(), ..self.own_report() };
        let question = Question {
            store: store_of(&cluster.membership()),
            after: after.0,
            report: is_late.then(stamped),
        };
        let text = serde_json::to_vec(&question).expect("plain data");
        let request = Request::post("/heard").body(any_body(Full::new(Bytes::from(text))));
        let answer = cluster.client.call(peer, request.expect("a good path")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let news = answer.news.into_iter().map(News::try_from).collect::<Result<_, _>>()?;
        Ok((news, Duration::from_millis(answer.age_ms)))
    }

    /// Answers another node what is heard here.
    pub(super) async fn answer_heard(
        &self,
        peer: &NodeName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Some(cluster) = &self.cluster else {
            return short(StatusCode::NOT_FOUND, "this is no node of a cluster");
        };
        let question = whole(request).await.and_then(|bytes| {
            serde_json::from_slice::<Question>(&bytes).map_err(|error| error.to_string())
        });
        let question = match question {
            Ok(question) => question,
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        if question.store != store_of(&cluster.membership()) {
            return short(StatusCode::CONFLICT, "another store counts here");
        }
        if let Some(report) = question.report {
            self.take_report(peer, report);
        }
        let answer = {
            let heard = cluster.heard.lock();
            let (news, age) = heard.behind(Revision(question.after), clock::now());
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Answer { news: news.into_iter().map(Told::from).collect(), age_ms }
        };
        short(StatusCode::OK, serde_json::to_vec(&answer).expect("plain data"))
    }

    /// What a node says of itself, if the store says that it is up: with its lease there, it is forgotten in time.
    fn take_report(&self, peer: &NodeName, report: Report) {
        let mut state = self.state.lock();
        if state.known.is_superseded(peer, &report) {
            return;
        }
        let Some(known) = state.known.reports.get_mut(peer) else { return };
        let is_other = known.0 != Report { at_ms: known.0.at_ms, ..report.clone() };
        *known = (report, clock::wall_ms());
        drop(state);
        if is_other {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(revision: u64, value: &str) -> News {
        let value = (!value.is_empty()).then(|| value.as_bytes().to_vec());
        News {
            revision: Revision(revision),
            changes: vec![("observed/x".parse().expect("a key"), value)],
        }
    }

    fn told(heard: &Heard, after: u64, now: Instant) -> (Vec<u64>, Duration) {
        let (news, age) = heard.behind(Revision(after), now);
        (news.iter().map(|news| news.revision.0).collect(), age)
    }

    #[test]
    fn others_are_told_what_is_behind_their_last_revision_and_how_long_it_is_known() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut heard = Heard::default();
        assert!(!heard.take(&news(3, "before the listing"), Revision(2), begun));
        heard.begin(Revision(10));
        assert!(!heard.take(&news(10, "listed"), Revision(10), begun));
        assert!(heard.take(&news(11, "a"), Revision(10), at(1)));
        assert!(heard.take(&news(13, ""), Revision(11), at(2)));
        assert!(!heard.take(&news(11, "a, from somebody else"), Revision(10), at(3)));
        // What is between 13 and 20 would be missed.
        assert!(!heard.take(&news(21, "asked for before a listing"), Revision(20), at(3)));
        assert_eq!(told(&heard, 10, at(4)), (vec![11, 13], Duration::from_secs(3)));
        assert_eq!(told(&heard, 11, at(4)), (vec![13], Duration::from_secs(2)));
        assert_eq!(told(&heard, 12, at(4)), (vec![13], Duration::from_secs(2)));
        assert_eq!(told(&heard, 13, at(4)), (vec![], Duration::ZERO));
        // More than is heard here.
        assert_eq!(told(&heard, 99, at(4)), (vec![], Duration::ZERO));
        // What is not known whole is not told at all.
        assert_eq!(told(&heard, 9, at(4)), (vec![], Duration::ZERO));
    }

    #[test]
    fn what_is_kept_for_others_is_bounded_and_never_has_a_gap() {
        let now = Instant::now();
        let mut heard = Heard::default();
        heard.begin(Revision(0));
        for revision in 1..=KEPT as u64 + 5 {
            assert!(heard.take(&news(revision, "x"), Revision(0), now));
        }
        assert_eq!(told(&heard, 4, now).0, Vec::<u64>::new());
        assert_eq!(told(&heard, 5, now).0.len(), KEPT);
        let large = "x".repeat(KEPT_BYTES / 2);
        for revision in 2000..2003 {
            assert!(heard.take(&news(revision, &large), Revision(0), now));
        }
        assert_eq!(told(&heard, 2001, now).0, [2002]);

        assert_eq!(told(&heard, 1999, now).0, Vec::<u64>::new());
        assert!(heard.bytes <= KEPT_BYTES);
        // One is told at a time, where they are large.
        let large = "x".repeat(2 * TOLD_BYTES);
        for revision in 3000..3003 {
            assert!(heard.take(&news(revision, &large), Revision(0), now));
        }
        assert_eq!(told(&heard, 2002, now).0, [3000]);
        assert_eq!(told(&heard, 3000, now).0, [3001]);
    }

    #[test]
    fn a_node_hears_late_while_the_store_has_not_told_what_others_did() {
        let begun = Instant::now();
        let mut heard = Heard::default();
        assert!(!heard.is_late(begun));
        heard.begin(Revision(10));
        assert!(heard.take(&news(11, "a"), Revision(10), begun));
        assert!(!heard.is_late(begun + LATE / 2));
        assert!(heard.is_late(begun + LATE));
        heard.watched(Revision(11));
        assert!(!heard.is_late(begun + LATE));
        // It tells what is known here already.
        heard.watched(Revision(9));
        assert!(!heard.is_late(begun + LATE));
        for revision in 12..12 + KEPT as u64 + 1 {
            assert!(heard.take(&news(revision, "x"), Revision(10), begun + LATE));
        }
        assert!(heard.is_late(begun + LATE), "more was told by others than is kept");
    }

    #[test]
    fn what_is_told_is_what_was_heard() {
        for value in ["", "text", "{\"a\":1}"] {
            let sent = news(7, value);
            assert_eq!(News::try_from(Told::from(&sent)), Ok(sent));
        }
        let strange = |key: &str, value: &str| Told {
            revision: 1,
            changes: vec![(key.to_owned(), Some(value.to_owned()))],
        };
        assert!(News::try_from(strange("observed/x", "not base64!")).is_err());
        assert!(News::try_from(strange("//", "")).is_err());
    }
}
