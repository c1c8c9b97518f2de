//! What a site's git history lacks: every release that served is a commit on `main`, and `main` ends with the one that serves.
//!
//! History only grows. A return to an older release is a new commit with its tree, so nobody's clone is ever cut off.
//!
//! A leader that does not have a history takes over the longest copy of another node ([`search`]). Only when all of them have said that
//! they have none is a new one made, or when those that do not answer have been asked for [`PATIENCE`]: git alone waits meanwhile, and
//! a machine that starts again is back by then; one that never comes back must not keep a site without git.

use std::collections::BTreeMap;
use std::time::Duration;

use pressroom_model::id::ReleaseId;

/// How `main` comes to the next release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<C> {
    /// That commit lies ahead of `main`, pushed or made by somebody who died then: `main` moves to it.
    Move(C),
    /// It was committed before: its tree, again.
    Again(C),
    /// It is committed for the first time.
    Record,
}

/// The releases that `main` lacks, in the order in which they served. `kept`: the releases that served, the last one first;
/// `at_main`: those that `main`'s own commit stands for; `committed`: what is known by the history.
pub fn lacking<C>(
    kept: &[ReleaseId],
    at_main: &[ReleaseId],
    committed: &BTreeMap<ReleaseId, C>,
) -> Vec<ReleaseId> {
    let known = kept.iter().position(|id| at_main.contains(id));
    // Nobody knows what `main` is: whoever was to say so died. What serves must be its end, and what was committed is in it.
    let end = known.or_else(|| {
        let before = kept.iter().skip(1).position(|id| committed.contains_key(id));
        before.map(|at| at + 1)
    });
    kept.iter().take(end.unwrap_or(kept.len())).rev().cloned().collect()
}

/// How `main` comes to `release`. `committed`: what is known by the history; `ahead`: a commit of the release that builds on `main`.
pub fn step<C: Clone>(
    release: &ReleaseId,
    committed: &BTreeMap<ReleaseId, C>,
    ahead: Option<C>,
) -> Step<C> {
    match (ahead, committed.get(release)) {
        (Some(commit), _) => Step::Move(commit),
        (None, Some(commit)) => Step::Again(commit.clone()),
        (None, None) => Step::Record,
    }
}

/// Nodes that may have a history, and do not answer, are waited for so long.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What another node says of its copy of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// It has one, with so many commits on `main`.
    Of(u64),
    /// It has none.
    None,
    /// It does not answer, or does not give what it has.
    Silent,
}

/// Where a leader gets a history that it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search<N> {
    /// From that node.
    Take(N),
    /// Perhaps from these: not yet.
    Wait(Vec<N>),
    /// Nowhere: it makes one; these may have had it.
    Anew(Vec<N>),
}

/// Where a history comes from that other nodes have been asked for since `asked` ago. All copies are of one history, so the longest has
/// the most of it.
pub fn search<N: Clone + Ord>(copies: &BTreeMap<N, Copy>, asked: Duration) -> Search<N> {
    let has = copies.iter().filter_map(|(node, copy)| match copy {
        Copy::Of(commits) => Some((*commits, node)),
        Copy::None | Copy::Silent => None,
    });
    // Of equals the first by name.
    if let Some((_, node)) = has.rev().max_by_key(|(commits, _)| *commits) {
        return Search::Take(node.clone());
    }
    let silent = copies.iter().filter(|(_, copy)| **copy == Copy::Silent);
    let silent: Vec<N> = silent.map(|(node, _)| node.clone()).collect();
    match silent.is_empty() || asked >= PATIENCE {
        true => Search::Anew(silent),
        false => Search::Wait(silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ReleaseId {
        format!("{n:032x}").parse().expect("a good id")
    }

    #[test]
    fn everything_since_main_is_lacking_in_the_order_in_which_it_served() {
        let kept = [id(4), id(3), id(2), id(1)];
        let check = |at_main: &[ReleaseId], committed: &[u8], expected: &[u8]| {
            let committed = committed.iter().map(|n| (id(*n), ())).collect();
            let expected: Vec<_> = expected.iter().map(|n| id(*n)).collect();
            assert_eq!(lacking(&kept, at_main, &committed), expected);
        };
        check(&[id(2)], &[1, 2], &[3, 4]);
        check(&[id(4)], &[1, 2, 3, 4], &[]);
        check(&[], &[], &[1, 2, 3, 4]);
        check(&[], &[1, 2], &[3, 4]);
        check(&[], &[1, 2, 3, 4], &[4]);
        check(&[id(3)], &[3, 4], &[4]);
        assert_eq!(lacking(&[], &[id(1)], &BTreeMap::from([(id(1), ())])), []);
    }

    #[test]
    fn a_pushed_commit_is_taken_as_it_is_and_a_return_is_a_new_commit() {
        let committed = BTreeMap::from([(id(1), "old")]);
        assert_eq!(step(&id(1), &committed, None), Step::Again("old"));
        assert_eq!(step(&id(1), &committed, Some("new")), Step::Move("new"), "a revert by git");
        assert_eq!(step(&id(2), &committed, None), Step::Record);
    }

    #[test]
    fn the_longest_copy_is_taken_and_a_new_history_is_the_last_resort() {
        use super::Copy::{None, Of, Silent};
        let check = |copies: &[(&'static str, Copy)], asked_secs, expected| {
            let copies = copies.iter().copied().collect();
            assert_eq!(search(&copies, Duration::from_secs(asked_secs)), expected, "{copies:?}");
        };
        check(&[("n1", None), ("n2", Of(3)), ("n3", Of(7))], 0, Search::Take("n3"));
        check(&[("n1", Of(3)), ("n2", Of(3)), ("n3", Silent)], 0, Search::Take("n1"));
        check(&[("n1", Of(1)), ("n2", Silent)], 3600, Search::Take("n1"));
        check(&[("n1", None), ("n2", None)], 0, Search::Anew(vec![]));
        check(&[], 0, Search::Anew(vec![]));
        check(&[("n1", None), ("n2", Silent)], 599, Search::Wait(vec!["n2"]));
        check(&[("n1", None), ("n2", Silent)], 600, Search::Anew(vec!["n2"]));
    }
}
