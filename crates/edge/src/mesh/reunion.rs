//! The end of a cut, as visitors meet it.
//!
//! An edge that is with fewer than half of the others ([`super::company`]) shows what it has, and says so. When the cut is healed it does
//! not know yet what was purged meanwhile, and hears of it a moment later. So whoever asks such an edge for a page has it look first
//! which of those that it is not with can be reached, and waits for what they have to tell.
//!
//! Always: a look is begun after its asker came, so that it holds for them; those who come during one share the next; it goes on when
//! its asker leaves; an edge that can be reached and tells nothing delays visitors once in a while, and for a bounded time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_wire::members::Service;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot};

use super::Mesh;
use crate::cache::Trust;

/// An edge that is not reached in this time is not there: within a data centre it is a hundredth of it.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for what others have to tell.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long nobody waits for an edge that was there and told nothing.
const VAIN: Duration = Duration::from_secs(30);
/// Between two looks whether they have told it.
const STEP: Duration = Duration::from_millis(10);

/// Who has looked, and when.
#[derive(Debug, Default)]
pub(crate) struct Reunion(Mutex<Looked>);

#[derive(Debug, Default)]
struct Looked {
    /// When the last look began.
    begun: Option<Instant>,
    /// Who was there and told nothing, in a look that began then.
    vain: BTreeMap<NodeName, Instant>,
}

impl Looked {
    /// Whether a look is due for one who came at `asked`.
    fn is_due(&self, asked: Instant) -> bool {
        self.begun.is_none_or(|begun| begun < asked)
    }

    /// Whether somebody who is there is worth waiting for; `heard`: since when it was asked that it answered last.
    fn is_worth_it(&self, node: &NodeName, heard: Option<Instant>, now: Instant) -> bool {
        let vain = self.vain.get(node).filter(|begun| now < **begun + VAIN);
        vain.is_none_or(|begun| heard.is_some_and(|asked| *begun <= asked))
    }
}

impl Mesh {
    /// Waits until all that was purged before now holds here, as far as those who purged it can be reached.
    pub(crate) async fn reunite(self: &Arc<Self>, trust: &Arc<Trust>) {
        let asked = clock::now();
        let (mesh, trust) = (Arc::clone(self), Arc::clone(trust));
        let (done, is_done) = oneshot::channel();
        self.group.spawn("a look for others", move |_| async move {
            mesh.look(asked, &trust).await;
            // Its asker may have left.
            let _ = done.send(());
        });
        // It is never sent to where the edge ends.
        let _ = is_done.await;
    }

    async fn look(&self, asked: Instant, trust: &Trust) {
        let mut looked = self.reunion.0.lock().await;
        if trust.holds() || !looked.is_due(asked) {
            return;
        }
        let begun = clock::now();
        looked.begun = Some(begun);
        let mut there = self.who_is_there().await;
        there.retain(|node| looked.is_worth_it(node, self.company.heard(node), begun));
        there.iter().for_each(|node| self.company.ask(node));
        while clock::now() < begun + PATIENCE && !trust.holds() {
            there.retain(|node| self.company.heard(node).is_none_or(|asked| asked < begun));
            if there.is_empty() {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
        if !trust.holds() {
            looked.vain.extend(there.into_iter().map(|node| (node, begun)));
        }
    }

    /// Those that this edge is not with, and that can be reached.
    async fn who_is_there(&self) -> Vec<NodeName> {
        let members = self.wire.members.now();
        let away = self.others().into_iter().filter(|node| !self.company.is_with(node));
        let mut looks: Vec<_> = away
            .filter_map(|node| {
                let address = members.get(&node)?.at(Service::Edge);
                Some((node, Box::pin(TcpStream::connect(address))))
            })
            .collect();
        let mut there = Vec::new();
        // In one task, so that what has come in time counts, however late this thread comes to it.
        let all = std::future::poll_fn(|context| {
            looks.retain_mut(|(node, look)| match look.as_mut().poll(context) {
                Poll::Ready(reached) => {
                    there.extend(reached.is_ok().then(|| node.clone()));
                    false
                }
                Poll::Pending => true,
            });
            if looks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        // Who is left is not there.
        let _ = tokio::time::timeout(LOOK, all).await;
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_holds_for_those_who_came_before_it_began() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut looked = Looked::default();
        assert!(looked.is_due(at(0)));
        looked.begun = Some(at(5));
        assert!(!looked.is_due(at(3)), "it was looked for them");
        assert!(looked.is_due(at(6)), "a cut may have been healed since");
    }

    #[test]
    fn who_told_nothing_is_not_waited_for_again_for_a_while() {
        let (node, now) = ("n2".parse().expect("a name"), Instant::now());
        let mut looked = Looked::default();
        assert!(looked.is_worth_it(&node, None, now));
        looked.vain.insert(node.clone(), now);
        let before = now.checked_sub(STEP);
        assert!(!looked.is_worth_it(&node, before, now) && !looked.is_worth_it(&node, None, now));
        assert!(looked.is_worth_it(&node, before, now + VAIN));
        assert!(looked.is_worth_it(&node, Some(now), now), "it has told something since");
    }
}
