//! The end of a cut, as visitors meet it.
//!
//! An edge that is cut off from most others shows what it has, and says so. When the cut is healed it does not know yet what was purged
//! meanwhile, and hears of it a moment later. So whoever asks such an edge for a page has it look first which of those that it does
//! not hear can be reached again, and waits for what they have to tell.
//!
//! Always: a look is begun after its asker came, so that it holds for them; those who come during one share the next; an edge that
//! can be reached and tells nothing delays visitors once in a while, and for a bounded time.

use std::future::Future;
use std::task::Poll;
use std::time::{Duration, Instant};

use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_wire::members::Service;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Mesh;

/// An edge that is not reached in this time is not there: within a data centre it is a hundredth of it.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for what others have to tell.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long nobody looks after others were there and told nothing.
const VAIN: Duration = Duration::from_secs(30);
/// Between two looks whether the reunion has come to its end.
const STEP: Duration = Duration::from_millis(10);

/// Who has looked, and when.
#[derive(Debug, Default)]
pub(crate) struct Reunion(Mutex<Looked>);

#[derive(Debug, Default)]
struct Looked {
    /// When the last look began.
    begun: Option<Instant>,
    /// Nobody looks before.
    not_before: Option<Instant>,
}

impl Looked {
    /// Whether a look is due for one who came at `asked`.
    fn is_due(&self, asked: Instant, now: Instant) -> bool {
        self.begun.is_none_or(|begun| begun < asked) && self.not_before.is_none_or(|it| it <= now)
    }
}

impl Mesh {
    /// Waits until this edge, if it is cut off, is with those of the others that can be reached again.
    pub(crate) async fn reunite(&self) {
        let asked = clock::now();
        let mut looked = self.reunion.0.lock().await;
        if !self.is_cut_off() || !looked.is_due(asked, clock::now()) {
            return;
        }
        looked.begun = Some(clock::now());
        let there = self.who_is_back().await;
        there.iter().for_each(|node| self.company.notice(node));
        let is_over = || !self.is_cut_off() || there.iter().all(|node| self.company.is_with(node));
        let late = clock::now() + PATIENCE;
        while !is_over() && clock::now() < late {
            tokio::time::sleep(STEP).await;
        }
        if !is_over() {
            looked.not_before = Some(clock::now() + VAIN);
        }
    }

    fn is_cut_off(&self) -> bool {
        self.company.is_cut_off(&self.others())
    }

    /// Those that this edge is not with, and that can be reached.
    async fn who_is_back(&self) -> Vec<NodeName> {
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
        assert!(looked.is_due(at(0), at(0)));
        looked.begun = Some(at(5));
        assert!(!looked.is_due(at(3), at(20)), "it was looked for them");
        assert!(looked.is_due(at(6), at(20)), "a cut may have been healed since");
        looked.not_before = Some(at(100));
        assert!(!looked.is_due(at(6), at(20)) && looked.is_due(at(6), at(100)));
    }
}
