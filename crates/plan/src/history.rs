//! What a site's git history lacks: every release that served is a commit on `main`, and `main` ends with the one that serves.
//!
//! History only grows. A return to an older release is a new commit with its tree, so nobody's clone is ever cut off.

use std::collections::BTreeMap;

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
}
