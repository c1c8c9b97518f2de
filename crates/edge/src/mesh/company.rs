//! Which other edges are heard, and whether they are enough to trust what is stored here.
//!
//! An edge in a part of the cluster that was cut off does not know what the rest purges. It may still hear its neighbours there: so
//! whoever is with fewer than half of the others shows what it has, and says so (`Cache-Status: …; detail=partitioned`), until it is
//! with them again and has heard what they purged. Two parts never both trust their pages for longer than [`SILENCE`].
//!
//! Always: an edge counts another one only for as long as that one counts on it. Whoever purges waits a moment for the receipts of
//! those that it hears, so what one of them purges is known here, or that moment has passed, before the editor has his answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use tokio::sync::Notify;

/// An edge that was not heard for so long is away.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// An edge that was cut off and is with half of the others again waits so long for the rest, before it trusts its pages.
const REUNION: Duration = Duration::from_secs(2);

/// Whether this edge is with enough of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quorum {
    /// At least half of them, so that with this edge they are more than half of the cluster; those that are missing have been away
    /// for a while.
    Held,
    /// Fewer. An edge that begins has nobody yet.
    Lost,
    /// It was lost and is held again, since then.
    Gathering(Instant),
}

impl Quorum {
    /// When this edge is with so many of `all` others.
    fn next(self, with: usize, all: usize, now: Instant) -> Self {
        match self {
            _ if with == all => Self::Held,
            _ if with * 2 < all => Self::Lost,
            Self::Lost => Self::Gathering(now),
            Self::Gathering(since) if now < since + REUNION => self,
            Self::Held | Self::Gathering(_) => Self::Held,
        }
    }
}

/// Until when at least half of `all` others count, each of whom does until one of these moments; `None`: for ever.
fn end_of_half(mut ends: Vec<Instant>, all: usize) -> Option<Instant> {
    ends.sort_unstable_by(|a, b| b.cmp(a));
    ends.get(all.div_ceil(2).checked_sub(1)?).copied()
}

/// The last good answer of another edge.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// When it was asked.
    asked: Instant,
    /// So long after that it counts on us, whatever happens.
    counts: Duration,
}

impl Word {
    fn heard_until(self) -> Instant {
        self.asked + SILENCE
    }

    fn with_until(self) -> Instant {
        self.asked + self.counts.min(SILENCE)
    }
}

#[derive(Debug)]
struct State {
    quorum: Quorum,
    words: BTreeMap<NodeName, Word>,
    /// Until when the pages that are stored here are trusted; `None`: for ever.
    trusted: Option<Instant>,
}

/// The other edges as this one hears them.
#[derive(Debug)]
pub struct Company {
    began: Instant,
    state: Mutex<State>,
    asked_for: Mutex<BTreeMap<NodeName, Arc<Notify>>>,
}

impl Company {
    /// Of an edge that begins now.
    pub(super) fn new() -> Self {
        let began = clock::now();
        let state = State { quorum: Quorum::Lost, words: BTreeMap::new(), trusted: Some(began) };
        Self { began, state: Mutex::new(state), asked_for: Mutex::default() }
    }

    /// Told when an edge is to be asked at once what it purged.
    pub(super) fn asked_for(&self, node: &NodeName) -> Arc<Notify> {
        Arc::clone(self.asked_for.lock().entry(node.clone()).or_default())
    }

    /// Has it asked at once.
    pub(super) fn ask(&self, node: &NodeName) {
        self.asked_for(node).notify_one();
    }

    /// An edge asked something: it is there.
    pub(super) fn was_asked_by(&self, node: &NodeName) {
        if !self.hears(node) {
            self.ask(node);
        }
    }

    /// An edge answered what it was asked at `asked`, and all that it had purged until then holds here. So long it `counts` on us.
    pub(super) fn hear(&self, node: &NodeName, asked: Instant, counts: Duration) {
        self.state.lock().words.insert(node.clone(), Word { asked, counts });
    }

    fn word(&self, node: &NodeName) -> Option<Word> {
        self.state.lock().words.get(node).copied()
    }

    /// For how long from now this edge counts on another one: it was heard lately, and what it purged until a moment ago holds here.
    pub(super) fn counts_on(&self, node: &NodeName) -> Duration {
        let end = self.word(node).map(Word::heard_until);
        end.map_or(Duration::ZERO, |end| end.saturating_duration_since(clock::now()))
    }

    /// Whether this edge was heard lately.
    pub fn hears(&self, node: &NodeName) -> bool {
        !self.counts_on(node).is_zero()
    }

    /// Whether it hears this one too.
    pub fn is_with(&self, node: &NodeName) -> bool {
        self.word(node).is_some_and(|word| clock::now() < word.with_until())
    }

    /// All that an edge had purged until this moment holds here: it was asked then, and answered.
    pub(super) fn heard(&self, node: &NodeName) -> Option<Instant> {
        self.word(node).map(|word| word.asked)
    }

    /// Whether a receipt of this edge is worth waiting for. One that has just begun knows nobody, and others count on it.
    pub(crate) fn is_awaited(&self, node: &NodeName) -> bool {
        clock::now() < self.began + SILENCE || self.hears(node)
    }

    /// Counts who of these others is there now; and until when the pages that are stored here are trusted, `None`: for ever.
    pub(super) fn review(&self, others: &[NodeName]) -> (Quorum, Option<Instant>) {
        let mut state = self.state.lock();
        let now = clock::now();
        let ends = others.iter().filter_map(|node| state.words.get(node)).map(|it| it.with_until());
        let ends: Vec<_> = ends.filter(|end| now < *end).collect();
        // Nobody may have looked while it was so.
        let was_lost = state.trusted.is_some_and(|end| end <= now) && state.quorum == Quorum::Held;
        let before = if was_lost { Quorum::Lost } else { state.quorum };
        state.quorum = before.next(ends.len(), others.len(), now);
        state.trusted = match state.quorum {
            Quorum::Held => end_of_half(ends, others.len()),
            Quorum::Lost | Quorum::Gathering(_) => Some(now),
        };
        (state.quorum, state.trusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeName {
        format!("n{n}").parse().expect("a name")
    }

    #[test]
    fn of_two_parts_of_a_cluster_at_most_one_holds_the_quorum() {
        let now = clock::now();
        for nodes in 2..=9 {
            for part in 1..nodes {
                let of = |part: usize| Quorum::Held.next(part - 1, nodes - 1, now);
                let (one, other) = (of(part), of(nodes - part));
                assert!(one == Quorum::Lost || other == Quorum::Lost, "{part} of {nodes}");
                assert_eq!(one == Quorum::Held, part * 2 > nodes, "{part} of {nodes}");
            }
        }
    }

    #[test]
    fn an_edge_that_was_cut_off_is_back_when_all_are_there_or_late() {
        use Quorum::{Gathering, Held, Lost};
        let began = clock::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let check = |quorum: Quorum, with: usize, ms: u64, expected: Quorum| {
            assert_eq!(quorum.next(with, 5, at(ms)), expected, "{quorum:?} {with} {ms}");
        };
        check(Held, 2, 2_000, Lost);
        check(Held, 3, 2_000, Held);
        check(Lost, 2, 9_000, Lost);
        check(Lost, 3, 9_000, Gathering(at(9_000)));
        check(Lost, 5, 9_000, Held);
        check(Gathering(at(9_000)), 4, 10_999, Gathering(at(9_000)));
        check(Gathering(at(9_000)), 4, 11_000, Held);
        check(Gathering(at(9_000)), 5, 9_100, Held);
        check(Gathering(at(9_000)), 2, 9_100, Lost);
        assert_eq!(Lost.next(0, 0, at(9_000)), Held, "nobody else is left");
    }

    #[test]
    fn pages_are_trusted_until_fewer_than_half_count() {
        let now = clock::now();
        let at = |s: u64| now + Duration::from_secs(s);
        assert_eq!(end_of_half(vec![], 0), None, "there is nobody else");
        assert_eq!(end_of_half(vec![at(3)], 1), Some(at(3)));
        assert_eq!(end_of_half(vec![at(3), at(5)], 2), Some(at(5)));
        assert_eq!(end_of_half(vec![at(5), at(3), at(4)], 3), Some(at(4)));
        assert_eq!(end_of_half(vec![at(5), at(3)], 3), Some(at(3)));
    }

    #[test]
    fn one_that_does_not_hear_us_is_heard_and_is_no_company() {
        let (company, n2) = (Company::new(), node(2));
        assert!(!company.hears(&n2) && company.is_awaited(&n2), "others may count on us");
        company.hear(&n2, clock::now(), Duration::ZERO);
        assert!(company.hears(&n2) && !company.is_with(&n2));
        assert_eq!(company.review(std::slice::from_ref(&n2)).0, Quorum::Lost);
        company.hear(&n2, clock::now(), Duration::from_secs(9));
        assert!(company.is_with(&n2) && company.counts_on(&n2) <= SILENCE);
        let (quorum, trusted) = company.review(std::slice::from_ref(&n2));
        assert_eq!(quorum, Quorum::Held);
        assert!(trusted.is_some_and(|end| end <= clock::now() + SILENCE), "{trusted:?}");
        company.hear(&n2, clock::now().checked_sub(SILENCE).expect("a while ago"), SILENCE);
        assert!(!company.hears(&n2) && !company.is_with(&n2), "it was asked too long ago");
    }

    #[test]
    fn an_edge_that_stood_still_gathers_all_before_it_trusts_its_pages() {
        let (company, others) = (Company::new(), [node(2), node(3)]);
        let hear = |n| company.hear(&node(n), clock::now(), SILENCE);
        hear(2);
        assert!(matches!(company.review(&others).0, Quorum::Gathering(_)));
        hear(3);
        assert_eq!(company.review(&others).0, Quorum::Held);
        // What it trusted ended while nobody looked; then one of two is heard, which is half.
        company.state.lock().trusted = Some(clock::now());
        company.state.lock().words.clear();
        hear(2);
        let (quorum, trusted) = company.review(&others);
        assert!(matches!(quorum, Quorum::Gathering(_)), "{quorum:?}");
        assert!(trusted.is_some_and(|end| end <= clock::now()));
        assert_eq!(company.review(&[]), (Quorum::Held, None), "it is alone by a decision");
    }
}
