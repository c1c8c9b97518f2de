//! Who may still make sessions when memory for them is short.
//!
//! The sessions server forgets nothing, so one site could fill it for all. While memory is short, a site that holds more
//! than its share (the same for every site) may make nothing new; it keeps what it has, and what it holds beyond its share is
//! added to the server's room, so that the others go on at once and nobody's sessions are deleted.
//!
//! Always: a site within its share is never held back. Never more than twice the configured memory.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::SiteName;
use pressroom_model::unit::ByteSize;

/// Memory is short when more than so many percent are used.
const SHORT_PERCENT: u64 = 80;

/// Who was held back may make sessions again below so many percent of its share.
const RELIEF_PERCENT: u64 = 80;

/// What the server uses, and what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in use.
    pub used: ByteSize,
    /// Bytes that are meant for all sites together.
    pub limit: ByteSize,
}

/// What a site holds, and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Its keys and values.
    pub held: ByteSize,
    /// What every site may hold when memory is short.
    pub share: ByteSize,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The sites that may make nothing new.
    pub held_back: BTreeMap<SiteName, Holding>,
    /// The most memory that the server may use (`maxmemory`).
    pub room: ByteSize,
}

/// Whether it is worth counting what each site holds, which costs the server a moment.
pub fn is_worth_counting(memory: Memory, held_back: &BTreeSet<SiteName>) -> bool {
    !held_back.is_empty() || is_short(memory.used.get(), memory.limit)
}

fn is_short(used: u64, limit: ByteSize) -> bool {
    used > percent(limit.get(), SHORT_PERCENT)
}

fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

/// An equal share for every site.
pub fn share(limit: ByteSize, sites: usize) -> ByteSize {
    ByteSize::bytes(limit.get() / (sites as u64).max(1))
}

/// Below this a site that was held back may make sessions again.
pub fn relief(share: ByteSize) -> ByteSize {
    ByteSize::bytes(percent(share.get(), RELIEF_PERCENT))
}

/// Who is held back from now on. `held` has every site of the configuration; `before` are those held back so far.
pub fn decide(
    memory: Memory,
    held: &BTreeMap<SiteName, ByteSize>,
    before: &BTreeSet<SiteName>,
) -> Decision {
    let share = share(memory.limit, held.len());
    let excess = |held: ByteSize| held.get().saturating_sub(share.get());
    let mut held_back: BTreeMap<SiteName, Holding> = held
        .iter()
        .filter(|(site, held)| before.contains(*site) && **held >= relief(share))
        .map(|(site, held)| (site.clone(), Holding { held: *held, share }))
        .collect();
    let mut beyond: u64 = held_back.values().map(|holding| excess(holding.held)).sum();
    let mut largest: Vec<_> =
        held.iter().filter(|(_, held)| **held > share).map(|(s, h)| (*h, s)).collect();
    largest.sort_by(|a, b| b.cmp(a));
    for (held, site) in largest {
        // What those who are held back have beyond their share has got room of its own.
        if !is_short(memory.used.get().saturating_sub(beyond), memory.limit) {
            break;
        }
        if held_back.insert(site.clone(), Holding { held, share }).is_none() {
            beyond += excess(held);
        }
    }
    let room = ByteSize::bytes(memory.limit.get() + beyond.min(memory.limit.get()));
    Decision { held_back, room }
}

fn mib(size: ByteSize) -> String {
    format!("{:.1} MiB", size.get() as f64 / f64::from(1 << 20))
}

/// What is told of a site that is held back.
pub fn words(site: &SiteName, holding: Holding) -> String {
    format!(
        "`{site}` holds {} of sessions, more than its share of {}: it may make none until it holds less than {}",
        mib(holding.held),
        mib(holding.share),
        mib(relief(holding.share)),
    )
}

/// The same with what to do, for when it begins.
pub fn notice(site: &SiteName, holding: Holding, memory: Memory) -> String {
    format!(
        "memory for sessions is short ({} of {} used), and {}. The other sites go on. Sessions expire by themselves \
         (`session.gc_maxlifetime`); find the plugin that begins one for every visitor or robot, or that keeps much in \
         them. Memory for sessions is a thirty-second of the machine's",
        mib(memory.used),
        mib(memory.limit),
        words(site, holding),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().expect("a good name")
    }

    /// With 100 MiB for all: what sites hold, who was held back, what else is used; who is held back then, and the room.
    fn check(held: &[(&str, u64)], before: &[&str], held_back: &[&str], room: u64) {
        let used = held.iter().map(|(_, mib)| mib).sum::<u64>() + 2;
        let memory = Memory { used: ByteSize::mib(used), limit: ByteSize::mib(100) };
        let sizes = held.iter().map(|(name, mib)| (site(name), ByteSize::mib(*mib))).collect();
        let before = before.iter().map(|name| site(name)).collect();
        let decision = decide(memory, &sizes, &before);
        let names: Vec<_> = decision.held_back.keys().map(ToString::to_string).collect();
        assert_eq!(names, held_back, "{held:?}");
        assert_eq!(decision.room, ByteSize::mib(room), "{held:?}");
    }

    #[test]
    fn only_who_holds_too_much_while_memory_is_short_is_held_back() {
        check(&[("a", 70), ("b", 5)], &[], &[], 100);
        check(&[("a", 85), ("b", 5)], &[], &["a"], 135);
        check(&[("a", 49), ("b", 49)], &[], &[], 100);
        check(&[("a", 97)], &[], &[], 100);
    }

    #[test]
    fn the_largest_is_held_back_first_and_no_more_than_needed() {
        check(&[("a", 30), ("b", 56), ("c", 1), ("d", 1)], &[], &["b"], 131);
        check(&[("a", 45), ("b", 46), ("c", 1), ("d", 1)], &[], &["b"], 121);
        check(&[("a", 48), ("b", 90), ("c", 1), ("d", 1)], &["b"], &["b"], 165);
        check(&[("a", 60), ("b", 90), ("c", 1), ("d", 1)], &["b"], &["a", "b"], 200);
    }

    #[test]
    fn it_ends_well_below_the_share_only() {
        check(&[("a", 45), ("b", 5)], &["a"], &["a"], 100);
        check(&[("a", 40), ("b", 5)], &["a"], &["a"], 100);
        check(&[("a", 39), ("b", 5)], &["a"], &[], 100);
        check(&[("b", 5)], &["gone"], &[], 100);
    }

    #[test]
    fn nobody_is_counted_while_there_is_plenty() {
        let memory = |used| Memory { used: ByteSize::mib(used), limit: ByteSize::mib(100) };
        assert!(!is_worth_counting(memory(80), &BTreeSet::new()));
        assert!(is_worth_counting(memory(81), &BTreeSet::new()));
        assert!(is_worth_counting(memory(1), &BTreeSet::from([site("a")])));
    }

    #[test]
    fn the_notice_has_the_figures() {
        let holding = Holding { held: ByteSize::mib(60), share: ByteSize::mib(32) };
        let memory = Memory { used: ByteSize::mib(62), limit: ByteSize::mib(64) };
        let notice = notice(&site("blog"), holding, memory);
        for part in
            ["62.0 MiB of 64.0 MiB", "`blog` holds 60.0 MiB", "share of 32.0 MiB", "25.6 MiB"]
        {
            assert!(notice.contains(part), "{part} in {notice}");
        }
    }
}
