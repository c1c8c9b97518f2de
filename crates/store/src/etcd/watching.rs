//! Changes from etcd, each once and in order, whichever endpoint tells them: a watch that loses its endpoint goes on at
//! another one behind the last revision that it has shown.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use super::connection::{Again, CallError, InUse, streaming, words};
use super::proto::{
    DELETE, Event, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use super::{EtcdStore, number, revision};
use crate::StoreError;
use crate::entry::Revision;
use crate::key::Prefix;
use crate::watch::{Change, Changes, QUEUE, Watch};

/// Longest wait until etcd has begun a watch.
const BEGIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// A watch at one endpoint.
struct Running {
    at: InUse,
    answers: Streaming<WatchResponse>,
    /// A watch lives as long as its questions.
    _questions: mpsc::Sender<WatchRequest>,
}

/// What a running watch says next.
enum Said {
    Events(Vec<Event>),
    Compacted(Revision),
    /// It has ended, or its endpoint was left.
    Over(String),
}

/// Begins a watch of everything under `prefix` behind `after`.
pub(super) async fn begin(
    store: &EtcdStore,
    prefix: Prefix,
    after: Revision,
) -> Result<Watch, StoreError> {
    let mut running = start(store, &prefix, after).await?;
    if is_forgotten(store, &prefix, after).await? {
        return Err(match next(store, &mut running).await {
            Said::Compacted(oldest) => StoreError::Compacted { oldest },
            _ => StoreError::Failed { doing: "starting a watch", cause: "history is gone".into() },
        });
    }
    let (sender, coming) = mpsc::channel(QUEUE + 1);
    let (own, of) = (store.clone(), prefix);
    store.tasks.spawn("etcd watch", move |stop| async move {
        tokio::select! {
            () = stop.requested() => {}
            () = sender.closed() => {}
            () = follow(&own, &of, running, after, &sender) => {}
        }
    });
    Ok(Watch::new(after, VecDeque::new(), coming))
}

/// Whether the changes right behind `after` are not known any more.
async fn is_forgotten(
    store: &EtcdStore,
    prefix: &Prefix,
    after: Revision,
) -> Result<bool, StoreError> {
    let doing = "starting a watch";
    // What is watched may be all that may be read.
    let (key, _) = store.range(prefix);
    let question = RangeRequest {
        key,
        revision: number(after.next()),
        count_only: true,
        ..Default::default()
    };
    let path = "/etcdserverpb.KV/Range";
    let asked = store.connection.ask::<_, RangeResponse>(doing, path, question, Again::Harmless);
    match asked.await {
        Ok(_) => Ok(false),
        // The revision behind the last one is still to come.
        Err(CallError::Answered(status)) if status.code() == Code::OutOfRange => {
            Ok(status.message().contains("compacted"))
        }
        Err(error) => Err(error.of(doing)),
    }
}

async fn start(store: &EtcdStore, prefix: &Prefix, after: Revision) -> Result<Running, StoreError> {
    let failed = |cause: String| StoreError::Failed { doing: "starting a watch", cause };
    let mut follower = store.connection.follow();
    let at = tokio::time::timeout(BEGIN, follower.wait_for(Option::is_some)).await;
    let at = at.ok().and_then(Result::ok).and_then(|at| at.clone());
    let at = at.ok_or_else(|| failed(store.connection.nobody()))?;
    let (key, range_end) = store.range(prefix);
    let create = WatchCreateRequest { key, range_end, start_revision: number(after.next()) };
    let (questions, asked) = mpsc::channel(1);
    let begun = async {
        let question = WatchRequest { create_request: Some(create) };
        // The receiver is beside us.
        let _ = questions.send(question).await;
        let channel = at.channel.clone();
        let mut answers =
            streaming::<_, WatchResponse>(channel, "/etcdserverpb.Watch/Watch", Questions(asked))
                .await
                .map_err(|status| words(&status))?;
        match answers.message().await {
            Ok(Some(said)) if said.created => Ok(answers),
            Ok(Some(said)) => Err(said.cancel_reason),
            Ok(None) => Err("it ended at once".into()),
            Err(status) => Err(words(&status)),
        }
    };
    match tokio::time::timeout(BEGIN, begun).await {
        Ok(Ok(answers)) => Ok(Running { at, answers, _questions: questions }),
        Ok(Err(cause)) => {
            store.connection.left(&at);
            Err(failed(cause))
        }
        Err(_) => {
            store.connection.left(&at);
            Err(failed(format!("{}: no answer within {BEGIN:?}", at.url)))
        }
    }
}

/// Passes on what a watch says, and begins it anew where it ended, until nobody listens or the listener is too slow.
async fn follow(
    store: &EtcdStore,
    prefix: &Prefix,
    mut running: Running,
    mut last: Revision,
    sender: &mpsc::Sender<Result<Changes, StoreError>>,
) {
    loop {
        match next(store, &mut running).await {
            Said::Events(events) => {
                for changes in transactions(store, prefix, events) {
                    if changes.revision <= last {
                        continue;
                    }
                    if sender.capacity() <= 1 {
                        // It lists again; the place for this word was kept.
                        let _ = sender.try_send(Err(StoreError::Compacted { oldest: last }));
                        return;
                    }
                    last = changes.revision;
                    if sender.try_send(Ok(changes)).is_err() {
                        return;
                    }
                }
            }
            Said::Compacted(oldest) => {
                let _ = sender.try_send(Err(StoreError::Compacted { oldest }));
                return;
            }
            Said::Over(cause) => {
                tracing::debug!(url = running.at.url, cause, "a watch goes on at another endpoint");
                running = loop {
                    match start(store, prefix, last).await {
                        Ok(running) => break running,
                        Err(_) => tokio::time::sleep(PAUSE).await,
                    }
                };
            }
        }
    }
}

async fn next(store: &EtcdStore, running: &mut Running) -> Said {
    let mut follower = store.connection.follow();
    let url = running.at.url.clone();
    let is_left = follower.wait_for(|in_use| in_use.as_ref().is_none_or(|it| it.url != url));
    let said = tokio::select! {
        said = running.answers.message() => said,
        _ = is_left => return Said::Over("its endpoint was left".into()),
    };
    match said {
        Ok(Some(said)) if said.compact_revision > 0 => {
            Said::Compacted(revision(said.compact_revision))
        }
        Ok(Some(said)) if said.canceled => Said::Over(said.cancel_reason),
        Ok(Some(said)) => Said::Events(said.events),
        Ok(None) => Said::Over("it ended".into()),
        Err(status) => {
            store.connection.left(&running.at);
            Said::Over(words(&status))
        }
    }
}

/// Events as the transactions that they are of.
fn transactions(store: &EtcdStore, prefix: &Prefix, events: Vec<Event>) -> Vec<Changes> {
    let mut all: Vec<Changes> = Vec::new();
    for event in events {
        let Some(found) = event.kv else { continue };
        let at = revision(found.mod_revision);
        let Some(entry) = store.entry(found).filter(|entry| entry.key.is_under(prefix)) else {
            continue;
        };
        let key = entry.key.clone();
        let change = Change { key, now: (event.r#type != DELETE).then_some(entry) };
        match all.last_mut().filter(|changes| changes.revision == at) {
            Some(changes) => changes.changes.push(change),
            None => all.push(Changes { revision: at, changes: vec![change] }),
        }
    }
    all
}

struct Questions(mpsc::Receiver<WatchRequest>);

impl futures_core::Stream for Questions {
    type Item = WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
