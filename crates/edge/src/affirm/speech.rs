//! One connection's speech: what is said of which request, and what is left unsaid when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use pressroom_model::affirmation::{Message, Purge, Receipt};

use super::{Affirmations, Request};
use crate::cache::{self, Site};

/// Requests of which one connection may speak at a time; a worker speaks of one after the other.
const MOST_REQUESTS: usize = 64;

/// What one connection has said.
#[derive(Debug)]
pub(super) struct Speech {
    all: Arc<Affirmations>,
    site: Arc<Site>,
    /// The requests spoken of that are not done, by token: whether they said that they write.
    open: BTreeMap<String, Open>,
}

#[derive(Debug, Default)]
struct Open {
    writing: bool,
    request: Option<Arc<Request>>,
}

impl Speech {
    pub(super) fn new(all: Arc<Affirmations>, site: Arc<Site>) -> Self {
        Self { all, site, open: BTreeMap::new() }
    }

    /// Hears one line; a purge is to be answered.
    pub(super) async fn hear(&mut self, line: &[u8]) -> Result<Option<Receipt>, serde_json::Error> {
        match serde_json::from_slice(line)? {
            Message::Writing { request } => self.note(request, |open| open.writing = true),
            Message::Purge { request, purge } => {
                if let Some(request) = request {
                    self.note(request, |_| {});
                }
                let purged = self.all.cache.purge(&self.site, &purge, "PHP", cache::now());
                return Ok(Some(purged.receipt().await));
            }
            Message::Done { request, affirmation, because, purge } => {
                if let Some(purge) = purge.filter(|purge| *purge != Purge::default()) {
                    let _ =
                        self.all.cache.purge(&self.site, &purge, "PHP, summed up", cache::now());
                }
                self.open.remove(&request);
                if let Some(request) = self.all.request(&self.site, &request) {
                    request.done(affirmation, because);
                }
            }
        }
        Ok(None)
    }

    fn note(&mut self, token: String, change: impl FnOnce(&mut Open)) {
        if super::number(&token).is_none()
            || (self.open.len() >= MOST_REQUESTS && !self.open.contains_key(&token))
        {
            return;
        }
        let request = self.all.request(&self.site, &token);
        let open = self.open.entry(token).or_default();
        change(open);
        if let Some(request) = request {
            if open.writing {
                request.write();
            }
            open.request = Some(request);
        }
    }
}

impl Drop for Speech {
    /// The connection has ended: requests that wrote and were not done have ended in silence, known or not.
    fn drop(&mut self) {
        let mut silent = false;
        for open in self.open.values() {
            match &open.request {
                Some(request) => {
                    request.hang_up();
                    silent |= open.writing && request.claim_purge(true);
                }
                None => silent |= open.writing,
            }
        }
        if silent {
            self.all
                .purge_for_silence(&self.site, "a connection ended before its request was done");
        }
    }
}
