//! The cookie names that a site ever set: a later request with one of them may be personal, so it bypasses.
//!
//! Names grow a tail for each user or session (`wp-settings-7`, `cart_9f8e7d6c5b4a`), so a trailing number or long
//! hexadecimal tail is learnt as a pattern. The set is bounded; a site that overflows it has every unknown cookie
//! taken as its own. Reads are lock-free, since every request with a cookie asks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

/// Most names and patterns of one site.
const MOST: usize = 256;

/// Stands for a tail that varies.
const TAIL: char = '\u{1}';

/// What one site ever set.
#[derive(Debug, Default)]
pub struct Learned {
    names: ArcSwap<BTreeSet<Box<str>>>,
    full: AtomicBool,
}

impl Learned {
    /// Notes a name; says whether that was news.
    pub fn learn(&self, name: &str) -> bool {
        let name = name.trim();
        if name.is_empty() || name.len() > 256 || self.contains(name) || self.is_full() {
            return false;
        }
        self.add(&pattern(name))
    }

    fn add(&self, pattern: &str) -> bool {
        self.names.rcu(|names| {
            let mut names = BTreeSet::clone(names);
            if names.len() < MOST {
                names.insert(pattern.into());
            } else {
                self.full.store(true, Ordering::Relaxed);
            }
            names
        });
        true
    }

    /// Whether the site ever set such a cookie.
    pub fn contains(&self, name: &str) -> bool {
        let names = self.names.load();
        if names.is_empty() {
            return false;
        }
        names.contains(name)
            || matches!(pattern(name), std::borrow::Cow::Owned(pattern) if names.contains(&*pattern))
    }

    /// Whether more was set than is remembered.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// All patterns, to be kept over a restart.
    pub fn to_lines(&self) -> String {
        let mut lines: String = self.names.load().iter().flat_map(|name| [name, "\n"]).collect();
        if self.is_full() {
            lines.push_str("\u{2}\n");
        }
        lines
    }

    /// Reads back what [`Self::to_lines`] wrote.
    pub fn read_lines(&self, lines: &str) {
        for line in lines.lines().filter(|line| !line.is_empty() && line.len() <= 256) {
            if line == "\u{2}" {
                self.full.store(true, Ordering::Relaxed);
            } else {
                self.add(line);
            }
        }
    }
}

/// The name with its varying tail replaced, if it has one.
fn pattern(name: &str) -> std::borrow::Cow<'_, str> {
    let hexadecimal = name.len() - tail(name, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let stem = if name.len() - hexadecimal >= 12 {
        hexadecimal
    } else {
        name.len() - tail(name, |byte| byte.is_ascii_digit())
    };
    if stem == name.len() || stem < 3 {
        name.into()
    } else {
        format!("{}{TAIL}", &name[..stem]).into()
    }
}

fn tail(name: &str, belongs: fn(u8) -> bool) -> usize {
    name.bytes().rev().take_while(|byte| belongs(*byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_varies_is_learnt_once() {
        let learned = Learned::default();
        assert!(learned.learn("wp-settings-1"));
        assert!(!learned.learn("wp-settings-22"));
        assert!(learned.learn("wp_woocommerce_session_0123456789abcdef"));
        assert!(!learned.learn("wp_woocommerce_session_fedcba9876543210"));
        for (name, known) in [
            ("wp-settings-7", true),
            ("wp-settings-time-7", false),
            ("wp-settings-", false),
            ("wp_woocommerce_session_aaaaaaaaaaaaaaaa", true),
            ("_ga", false),
        ] {
            assert_eq!(learned.contains(name), known, "{name}");
        }
    }

    #[test]
    fn a_site_that_sets_too_many_names_has_all_unknown_ones_taken_as_its_own() {
        let learned = Learned::default();
        for n in 0..MOST {
            learned.learn(&format!("name-{n}-x"));
        }
        assert!(!learned.is_full());
        learned.learn("one-more");
        assert!(learned.is_full());
        let again = Learned::default();
        again.read_lines(&learned.to_lines());
        assert!(again.is_full() && again.contains("name-17-x"));
    }

    #[test]
    fn names_survive_being_written_and_read() {
        let learned = Learned::default();
        learned.learn("cart");
        learned.learn("session_1");
        let again = Learned::default();
        again.read_lines(&learned.to_lines());
        assert!(again.contains("cart") && again.contains("session_99") && !again.is_full());
    }
}
