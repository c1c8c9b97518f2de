//! What an object store does not have yet: which path is next, and which is to be tried again when. Pure.
//!
//! It is in memory alone, because it follows from what is on disk: whatever the ledger has and the store is not known to have
//! ([`crate::stored`]). So nothing that waits is lost with the agent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pressroom_model::id::SiteName;

/// The longest pause of a path that the store refuses again and again.
const LONGEST: Duration = Duration::from_secs(300);

/// A path of a site.
pub type Place = (SiteName, String);

/// Why a path waits; the first kind is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It changed here: this node is the first that can tell the store.
    Own,
    /// It changed on another node, which tells the store as well, if it can.
    Heard,
    /// The store has something that is missing here.
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    kind: Kind,
    due: Instant,
    since_ms: u64,
    /// Attempts that came to nothing.
    failures: u32,
    /// Tells those apart that are due at the same time.
    number: u64,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Waiting {
    items: BTreeMap<Place, Item>,
    order: BTreeMap<Kind, BTreeMap<(Instant, u64), Place>>,
    /// What is being done, and whether it was noted again meanwhile.
    taken: BTreeMap<Place, (Item, Option<Item>)>,
    numbers: u64,
}

impl Waiting {
    /// Notes a path, to be looked at when it is due; `now_ms` since 1970. One that waits already keeps the earlier time.
    pub fn note(&mut self, place: Place, kind: Kind, due: Instant, now_ms: u64) {
        self.numbers += 1;
        let item = Item { kind, due, since_ms: now_ms, failures: 0, number: self.numbers };
        match self.taken.get_mut(&place) {
            Some((_, again)) => *again = Some(again.map_or(item, |before| earlier(before, item))),
            None => self.insert(place, item),
        }
    }

    fn insert(&mut self, place: Place, item: Item) {
        let item = match self.items.get(&place).copied() {
            Some(before) => {
                self.order.entry(before.kind).or_default().remove(&(before.due, before.number));
                earlier(before, item)
            }
            None => item,
        };
        let line = self.order.entry(item.kind).or_default();
        line.insert((item.due, item.number), place.clone());
        self.items.insert(place, item);
    }

    /// Takes what is next; it counts still, until [`Self::done`] or [`Self::again`].
    ///
    /// Own changes go in the order in which they came, those of others from the last one on: where several nodes have the same to
    /// tell, because the store was away, they come towards each other instead of sending everything twice.
    pub fn take(&mut self, now: Instant) -> Option<(Place, Kind)> {
        let next = self.order.iter().find_map(|(kind, line)| {
            let mut due = line.range(..=(now, u64::MAX));
            match kind {
                Kind::Heard => due.next_back(),
                Kind::Own | Kind::Missing => due.next(),
            }
        });
        let place = next?.1.clone();
        let item = self.items.remove(&place)?;
        self.order.entry(item.kind).or_default().remove(&(item.due, item.number));
        self.taken.insert(place.clone(), (item, None));
        Some((place, item.kind))
    }

    /// What was taken is done; what was noted meanwhile waits.
    pub fn done(&mut self, place: &Place) {
        if let Some((_, Some(again))) = self.taken.remove(place) {
            self.insert(place.clone(), again);
        }
    }

    /// What was taken is to be tried again after `pause`, and after twice as long each time: one that is always refused is not
    /// always in the way.
    pub fn again(&mut self, place: &Place, now: Instant, pause: Duration) {
        if let Some((item, again)) = self.taken.remove(place) {
            let (failures, item) = (item.failures, again.map_or(item, |it| earlier(item, it)));
            let pause = pause.saturating_mul(1 << failures.min(16)).min(LONGEST.max(pause));
            self.insert(place.clone(), Item { due: now + pause, failures: failures + 1, ..item });
        }
    }

    /// Another node has brought it to the store: what waits for that does not any more. What is being done goes on, and what is missing
    /// here is fetched still.
    pub fn brought(&mut self, place: &Place) {
        if let Some(item) = self.items.get(place).filter(|item| item.kind != Kind::Missing) {
            self.order.entry(item.kind).or_default().remove(&(item.due, item.number));
            self.items.remove(place);
        }
    }

    /// The store is back: whatever had to be tried again is due.
    pub fn hasten(&mut self, now: Instant) {
        let is_late = |(_, item): &(&Place, &Item)| item.failures > 0 && item.due > now;
        let late: Vec<Place> =
            self.items.iter().filter(is_late).map(|(place, _)| place.clone()).collect();
        for place in late {
            if let Some(item) = self.items.get(&place).copied() {
                self.insert(place, Item { due: now, ..item });
            }
        }
    }

    /// Forgets a site.
    pub fn forget(&mut self, site: &SiteName) {
        self.items.retain(|(of, _), _| of != site);
        for line in self.order.values_mut() {
            line.retain(|_, (of, _)| of != site);
        }
        self.taken.retain(|(of, _), _| of != site);
    }

    /// Whether nothing waits at all, in either direction.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.taken.is_empty()
    }

    fn to_tell(&self) -> impl Iterator<Item = &Item> {
        let taken = self.taken.values().map(|(item, _)| item);
        self.items.values().chain(taken).filter(|item| item.kind != Kind::Missing)
    }

    /// So many uploads and deletions the store does not have yet.
    pub fn count(&self) -> u64 {
        self.to_tell().count() as u64
    }

    /// So many of them wait since then, milliseconds since 1970, or longer.
    pub fn count_since(&self, until_ms: u64) -> u64 {
        self.to_tell().filter(|item| item.since_ms <= until_ms).count() as u64
    }

    /// Since when the first of them waits, milliseconds since 1970.
    pub fn since_ms(&self) -> Option<u64> {
        self.to_tell().map(|item| item.since_ms).min()
    }
}

fn earlier(a: Item, b: Item) -> Item {
    Item {
        kind: a.kind.min(b.kind),
        due: a.due.min(b.due),
        since_ms: a.since_ms.min(b.since_ms),
        failures: 0,
        number: a.number.min(b.number),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pressroom_runtime::clock;

    use super::*;

    fn place(path: &str) -> Place {
        ("blog".parse().expect("a name"), path.to_owned())
    }

    #[test]
    fn own_changes_go_first_and_nothing_is_done_twice_at_once_or_forgotten() {
        let (start, mut waiting) = (clock::now(), Waiting::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        waiting.note(place("missing"), Kind::Missing, at(0), 1);
        waiting.note(place("heard"), Kind::Heard, at(5), 2);
        waiting.note(place("own"), Kind::Own, at(1), 3);
        waiting.note(place("own"), Kind::Heard, at(9), 9);
        let next =
            |waiting: &mut Waiting, seconds| waiting.take(at(seconds)).map(|((_, path), _)| path);
        assert_eq!(next(&mut waiting, 0).as_deref(), Some("missing"));
        assert_eq!(next(&mut waiting, 9).as_deref(), Some("own"));
        assert_eq!(next(&mut waiting, 9).as_deref(), Some("heard"));
        assert_eq!(next(&mut waiting, 9), None);
        // Under way still counts; what was noted meanwhile comes again.
        assert_eq!((waiting.count(), waiting.since_ms()), (2, Some(2)));
        assert_eq!([1, 2, 3].map(|until_ms| waiting.count_since(until_ms)), [0, 1, 2]);
        waiting.note(place("own"), Kind::Own, at(9), 10);
        waiting.done(&place("own"));
        assert_eq!(next(&mut waiting, 9).as_deref(), Some("own"));
        waiting.done(&place("own"));
        waiting.again(&place("heard"), at(10), Duration::from_secs(10));
        assert_eq!(next(&mut waiting, 19), None);
        assert_eq!(next(&mut waiting, 20).as_deref(), Some("heard"));
        waiting.done(&place("heard"));
        assert_eq!((waiting.count(), waiting.since_ms()), (0, None));
        waiting.note(place("late"), Kind::Own, at(0), 1);
        waiting.forget(&place("").0);
        assert_eq!((waiting.count(), next(&mut waiting, 99)), (0, None));
    }

    #[test]
    fn what_another_node_has_brought_waits_no_more() {
        let (start, mut waiting) = (clock::now(), Waiting::default());
        for (path, kind) in [
            ("own", Kind::Own),
            ("heard", Kind::Heard),
            ("missing", Kind::Missing),
            ("taken", Kind::Own),
        ] {
            let due = if path == "taken" { start } else { start + Duration::from_secs(1) };
            waiting.note(place(path), kind, due, 1);
        }
        assert_eq!(waiting.take(start), Some((place("taken"), Kind::Own)));
        for path in ["own", "heard", "missing", "taken", "unknown"] {
            waiting.brought(&place(path));
        }
        let later = start + Duration::from_secs(9);
        assert_eq!(waiting.count(), 1, "what is being done");
        assert_eq!(waiting.take(later), Some((place("missing"), Kind::Missing)));
        assert_eq!(waiting.take(later), None);
        waiting.again(&place("taken"), later, Duration::ZERO);
        assert_eq!(waiting.take(later), Some((place("taken"), Kind::Own)));
    }

    #[test]
    fn what_others_have_as_well_is_taken_from_its_other_end_and_what_is_refused_less_and_less() {
        let (start, mut waiting) = (clock::now(), Waiting::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (number, path) in ["a", "b", "c"].into_iter().enumerate() {
            waiting.note(place(path), Kind::Heard, at(number as u64), 1);
        }
        let next =
            |waiting: &mut Waiting, seconds| waiting.take(at(seconds)).map(|((_, path), _)| path);
        assert_eq!(next(&mut waiting, 1).as_deref(), Some("b"));
        assert_eq!(next(&mut waiting, 9).as_deref(), Some("c"));
        waiting.again(&place("b"), at(10), Duration::from_secs(2));
        assert_eq!(next(&mut waiting, 10).as_deref(), Some("a"));
        assert_eq!(next(&mut waiting, 11), None);
        assert_eq!(next(&mut waiting, 12).as_deref(), Some("b"));
        waiting.again(&place("b"), at(20), Duration::from_secs(2));
        assert_eq!(next(&mut waiting, 23), None, "twice as long");
        waiting.hasten(at(23));
        assert_eq!(next(&mut waiting, 23).as_deref(), Some("b"));
        for _ in 0..40 {
            waiting.again(&place("b"), at(30), Duration::from_secs(2));
            assert_eq!(next(&mut waiting, 330).as_deref(), Some("b"));
        }
        // Somebody changed it: it is another file, which may be taken.
        waiting.note(place("b"), Kind::Own, at(31), 9);
        waiting.again(&place("b"), at(31), Duration::from_secs(2));
        assert_eq!(waiting.count(), 3);
    }
}
