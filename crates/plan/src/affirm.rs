//! Which affirmation socket is whose.
//!
//! A process inherits sockets only when it starts, but sites come and go while the edge runs. So the keeper holds more
//! affirmation sockets than there are sites, the edge inherits them all, and a site is *given* one: its file moves into
//! the site's folder, the socket behind it stays the same. Only when all are given away is the edge replaced.
//!
//! Always: no socket has two sites, and a site keeps its socket as long as it is in the configuration: first what the
//! keeper holds counts, then what the edge was last told.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::SiteName;

/// The least number of sockets: what a machine with a few sites never outgrows.
pub const LEAST: u16 = 32;

/// Who has which socket. Sockets count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// The socket of each site.
    pub of: BTreeMap<SiteName, u16>,
    /// How many there are, given or spare.
    pub sockets: u16,
}

/// What is known of former assignments.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// By the files of the sockets that the keeper holds.
    pub held: BTreeMap<SiteName, u16>,
    /// How many sockets the keeper holds.
    pub sockets: u16,
    /// By the edge's last view.
    pub published: BTreeMap<SiteName, u16>,
}

/// Gives every site a socket. There are never fewer than are held: to close some, the edge would have to be replaced.
pub fn assign(sites: &[SiteName], known: &Known) -> Assignment {
    let mut of = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for former in [&known.held, &known.published] {
        for site in sites {
            if let Some(&number) = former.get(site)
                && !of.contains_key(site)
                && taken.insert(number)
            {
                of.insert(site.clone(), number);
            }
        }
    }
    for site in sites {
        if !of.contains_key(site) {
            let number = (0..).find(|number| !taken.contains(number)).unwrap_or(u16::MAX);
            taken.insert(number);
            of.insert(site.clone(), number);
        }
    }
    let highest = taken.last().map_or(0, |number| number.saturating_add(1));
    let needed = highest.max(LEAST).checked_next_power_of_two().unwrap_or(u16::MAX);
    Assignment { of, sockets: needed.max(known.sockets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &str) -> Vec<SiteName> {
        words.split_whitespace().map(|word| word.parse().expect("a good name")).collect()
    }

    fn numbers(pairs: &[(&str, u16)]) -> BTreeMap<SiteName, u16> {
        pairs.iter().map(|(site, n)| (site.parse().expect("a good name"), *n)).collect()
    }

    fn check(
        sites: &str,
        held: &[(&str, u16)],
        published: &[(&str, u16)],
        expected: &[(&str, u16)],
    ) {
        let known = Known { held: numbers(held), sockets: 0, published: numbers(published) };
        let found = assign(&names(sites), &known);
        assert_eq!(found.of, numbers(expected), "{sites} with {held:?} and {published:?}");
        assert_eq!(found.sockets, LEAST);
    }

    #[test]
    fn a_site_keeps_its_socket_and_no_socket_has_two_sites() {
        check("a b", &[], &[], &[("a", 0), ("b", 1)]);
        check("b", &[("a", 0), ("b", 1)], &[], &[("b", 1)]);
        check("b c", &[("a", 0), ("b", 1)], &[], &[("b", 1), ("c", 0)]);
        // The keeper knows better than a view of yesterday; the view knows better than nothing.
        check("a b", &[("a", 5)], &[("a", 2), ("b", 3)], &[("a", 5), ("b", 3)]);
        check("a b", &[("a", 3)], &[("b", 3)], &[("a", 3), ("b", 0)]);
        check("a b", &[("a", 4), ("b", 4)], &[], &[("a", 4), ("b", 0)]);
    }

    #[test]
    fn there_is_always_room_and_the_number_grows_by_doubling_and_never_shrinks() {
        let sites = |n: usize| names(&(0..n).map(|n| format!("s{n} ")).collect::<String>());
        let count = |n, sockets| assign(&sites(n), &Known { sockets, ..Known::default() }).sockets;
        assert_eq!(count(0, 0), LEAST);
        assert_eq!(count(32, 0), 32);
        assert_eq!(count(33, 32), 64);
        assert_eq!(count(3, 64), 64);
    }
}
