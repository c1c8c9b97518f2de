//! Which other edges are heard, and whether they are enough to trust what is stored here.
//!
//! An edge in a part of the cluster that was cut off does not know what the rest purges. It may still hear its neighbours there: so
//! whoever is not with most of the others shows what it has, and says so (`Cache-Status: …; detail=partitioned`), until it is with
//! them again and has heard what they purged. Of two parts at most one trusts its pages.
//!
//! Always: an edge counts others only while they count on it. Whoever purges waits for the receipts of those that it hears, so what
//! one of them purges from then on is known here before the editor has his answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use tokio::sync::Notify;

/// An edge that was not heard for so long is away.
const SILENCE: Duration = Duration::from_secs(2);
/// An edge that was cut off and is with most others again waits so long for the rest, before it trusts its pages.
const REUNION: Duration = Duration::from_secs(2);

/// How many of the others this edge is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// At least half of them, and those that are missing have been away for a while: with this edge they are more than half of the
    /// cluster.
    Most,
    /// Fewer.
    Few,
    /// After few it is most, since then.
    Gathering(Instant),
}

impl Share {
    /// When this edge, which runs since `began`, is with so many of `all` others.
    fn next(self, with: usize, all: usize, (began, now): (Instant, Instant)) -> Self {
        match self {
            _ if with == all => Self::Most,
            _ if with * 2 < all && now >= began + SILENCE => Self::Few,
            Self::Few => Self::Gathering(now),
            Self::Gathering(since) if now < since + REUNION => self,
            Self::Most | Self::Gathering(_) => Self::Most,
        }
    }
}

/// The last good answer of another edge.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// When it was asked.
    asked: Instant,
    /// Whether it hears this edge as well.
    hears_us: bool,
}

/// The other edges as this one hears them.
#[derive(Debug)]
pub struct Company {
    began: Instant,
    share: Mutex<Share>,
    words: Mutex<BTreeMap<NodeName, Word>>,
    signs: Mutex<BTreeMap<NodeName, Arc<Notify>>>,
}

impl Company {
    /// Of an edge that begins now.
    pub(super) fn new() -> Self {
        let (words, signs) = (Mutex::default(), Mutex::default());
        Self { began: clock::now(), share: Mutex::new(Share::Most), words, signs }
    }

    /// Told when an edge that is not heard shows that it is there.
    pub(super) fn sign_of(&self, node: &NodeName) -> Arc<Notify> {
        Arc::clone(self.signs.lock().entry(node.clone()).or_default())
    }

    /// An edge is there: it asked something, or can be reached.
    pub(super) fn notice(&self, node: &NodeName) {
        if !self.hears(node) {
            self.sign_of(node).notify_one();
        }
    }

    /// An edge answered what it was asked at `asked`, and all that it had purged until then holds here.
    pub(super) fn hear(&self, node: &NodeName, asked: Instant, hears_us: bool) {
        self.words.lock().insert(node.clone(), Word { asked, hears_us });
    }

    fn word(&self, node: &NodeName) -> Option<Word> {
        let word = self.words.lock().get(node).copied();
        word.filter(|word| clock::now() < word.asked + SILENCE)
    }

    /// Whether this edge was heard lately: what it purged until a moment ago holds here.
    pub fn hears(&self, node: &NodeName) -> bool {
        self.word(node).is_some()
    }

    /// Whether each hears the other: what it purges holds here before it says so to anybody.
    pub(super) fn is_with(&self, node: &NodeName) -> bool {
        self.word(node).is_some_and(|word| word.hears_us)
    }

    /// How many of these others this edge is with.
    pub(super) fn share(&self, others: &[NodeName]) -> Share {
        let now = clock::now();
        let with = others.iter().filter(|node| self.is_with(node)).count();
        let mut share = self.share.lock();
        *share = share.next(with, others.len(), (self.began, now));
        *share
    }

    /// Whether it is not with most of them, or not yet with all that come back.
    pub fn is_cut_off(&self, others: &[NodeName]) -> bool {
        self.share(others) != Share::Most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_parts_of_a_cluster_at_most_one_has_most() {
        let began = clock::now();
        let now = began + SILENCE;
        for nodes in 2..=9 {
            for part in 1..nodes {
                let of = |part: usize| Share::Most.next(part - 1, nodes - 1, (began, now));
                let (one, other) = (of(part), of(nodes - part));
                assert!(one == Share::Few || other == Share::Few, "{part} of {nodes}");
                assert_eq!(one == Share::Most, part * 2 > nodes, "{part} of {nodes}");
            }
        }
    }

    #[test]
    fn an_edge_that_was_cut_off_is_back_when_all_are_there_or_late() {
        use Share::{Few, Gathering, Most};
        let began = clock::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let check = |share: Share, with: usize, ms: u64, expected: Share| {
            assert_eq!(share.next(with, 5, (began, at(ms))), expected, "{share:?} {with} {ms}");
        };
        check(Most, 0, 500, Most);
        check(Most, 2, 2_000, Few);
        check(Most, 3, 2_000, Most);
        check(Few, 2, 9_000, Few);
        check(Few, 3, 9_000, Gathering(at(9_000)));
        check(Few, 5, 9_000, Most);
        check(Gathering(at(9_000)), 4, 10_999, Gathering(at(9_000)));
        check(Gathering(at(9_000)), 4, 11_000, Most);
        check(Gathering(at(9_000)), 5, 9_100, Most);
        check(Gathering(at(9_000)), 2, 9_100, Few);
        assert_eq!(Few.next(0, 0, (began, at(9_000))), Most, "nobody else is left");
    }

    #[test]
    fn one_that_does_not_hear_us_is_heard_and_is_no_company() {
        let (company, node) = (Company::new(), "n2".parse().expect("a name"));
        assert!(!company.hears(&node) && !company.is_with(&node));
        company.hear(&node, clock::now(), false);
        assert!(company.hears(&node) && !company.is_with(&node));
        company.hear(&node, clock::now(), true);
        assert!(company.is_with(&node));
        company.hear(&node, clock::now().checked_sub(SILENCE).expect("a while ago"), true);
        assert!(!company.hears(&node) && !company.is_with(&node), "it was asked too long ago");
    }
}
