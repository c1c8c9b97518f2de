//! When an operator's template is rendered, and what is done with what came out.
//!
//! A file that is there is never replaced because a store has nothing to say: stores that were wiped, restored from too old a
//! backup, or asked under the wrong prefix answer so. After a change it is waited until the store has been quiet for a moment,
//! so that twenty instances that come up at once are one reload; but not for ever.

use std::time::Duration;

use pressroom_model::template::Empty;

/// The store has been quiet for so long: render.
pub const QUIET: Duration = Duration::from_millis(50);
/// After a change it is rendered at the latest so much later, quiet or not.
pub const LATEST: Duration = Duration::from_millis(500);
/// What failed is tried again after this, and later and later.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// But at least so often.
pub const RETRY_MOST: Duration = Duration::from_secs(60);

/// What is known before rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How many keys the resource names.
    pub keys: usize,
    /// How many values the store has under them.
    pub values: usize,
    /// Whether there is a file with something in it.
    pub has_file: bool,
    /// What the resource says of an empty store.
    pub empty: Empty,
}

/// Whether to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Render.
    Render,
    /// Leave the file: the store has nothing.
    Hold,
}

/// Whether to render now.
pub fn decide(facts: Facts) -> Decision {
    let is_empty_answer = facts.keys > 0 && facts.values == 0;
    match facts.empty {
        Empty::Keep if is_empty_answer && facts.has_file => Decision::Hold,
        _ => Decision::Render,
    }
}

/// How long to wait yet, when the first change that was not rendered is `since_first` ago and the last one `since_last`.
pub fn wait(since_first: Duration, since_last: Duration) -> Duration {
    QUIET.saturating_sub(since_last).min(LATEST.saturating_sub(since_first))
}

/// What is there, and what should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The text is another one.
    pub text: bool,
    /// The mode, the owner or the group is another one.
    pub rights: bool,
    /// The program was not told of the text that is there: whoever wrote it died before, or telling failed.
    pub owes_reload: bool,
}

/// What is done, in this order; a check that fails ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Ask the check command.
    pub check: bool,
    /// Replace the file.
    pub replace: bool,
    /// Run the reload command.
    pub reload: bool,
}

/// The steps from one to the other.
pub fn steps(difference: Difference) -> Steps {
    let Difference { text, rights, owes_reload } = difference;
    Steps { check: text, replace: text || rights, reload: text || rights || owes_reload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_store_takes_nothing_away() {
        let check = |keys, values, has_file, empty| decide(Facts { keys, values, has_file, empty });
        assert_eq!(check(1, 0, true, Empty::Keep), Decision::Hold);
        assert_eq!(check(1, 0, true, Empty::Render), Decision::Render);
        assert_eq!(check(1, 0, false, Empty::Keep), Decision::Render);
        assert_eq!(check(1, 1, true, Empty::Keep), Decision::Render);
        assert_eq!(check(0, 0, true, Empty::Keep), Decision::Render);
    }

    #[test]
    fn it_is_waited_for_quiet_but_not_for_ever() {
        let ms = Duration::from_millis;
        assert_eq!(wait(ms(0), ms(0)), ms(50));
        assert_eq!(wait(ms(30), ms(10)), ms(40));
        assert_eq!(wait(ms(60), ms(60)), ms(0));
        assert_eq!(wait(ms(480), ms(1)), ms(20));
        assert_eq!(wait(ms(900), ms(1)), ms(0));
    }

    #[test]
    fn nothing_is_run_for_a_file_that_is_as_it_should_be() {
        let none = Difference { text: false, rights: false, owes_reload: false };
        let nothing = Steps { check: false, replace: false, reload: false };
        assert_eq!(steps(none), nothing);
        let all = Steps { check: true, replace: true, reload: true };
        assert_eq!(steps(Difference { text: true, ..none }), all);
        assert_eq!(
            steps(Difference { owes_reload: true, ..none }),
            Steps { reload: true, ..nothing }
        );
        assert_eq!(steps(Difference { rights: true, ..none }), Steps { check: false, ..all });
    }
}
