//! A site's book: which page shows what, and what was purged lately. It makes storing and purging one after the other.
//!
//! A page is entered under the hash of each of its tags and of its addresses, so a purge looks at the pages it meets and
//! no others. The last purges are kept by their position: a page whose render began before one of them, and which that
//! one meets, is stale the moment it is stored. When a render took so long that its beginning has left the list, it is
//! taken as purged.

use std::collections::{HashMap, HashSet, VecDeque};

use pressroom_model::affirmation::Purge;

use super::key::{Key, normalise, without_port};
use super::memory::ByHash;
use super::rules::Rules;

/// How many purges are remembered.
const REMEMBERED: usize = 1024;
/// How many hashes of one purge are remembered; a larger one is remembered as meeting everything.
const REMEMBERED_TAGS: usize = 2048;

/// The book of one site.
#[derive(Debug, Default)]
pub(super) struct Book {
    shown_on: HashMap<u64, HashSet<u64, ByHash>, ByHash>,
    recent: VecDeque<Recent>,
    /// The last position before the first in `recent`.
    before: u64,
}

#[derive(Debug)]
struct Recent {
    position: u64,
    met: Met,
}

/// What a purge meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Met {
    /// The whole site.
    All,
    /// Pages with one of these hashes.
    Some(Box<[u64]>),
}

impl Met {
    /// What a purge meets, in hashes.
    pub(super) fn of(purge: &Purge, rules: &Rules) -> Self {
        if purge.all {
            return Self::All;
        }
        let tags = purge.tags.iter().map(|tag| tag_hash(tag));
        let urls = purge.urls.iter().map(|url| url_hash(url, rules));
        Self::Some(sorted(tags.chain(urls).collect()))
    }

    /// Whether it meets a page with these (sorted) hashes.
    pub(super) fn meets(&self, tags: &[u64]) -> bool {
        match self {
            Self::All => true,
            Self::Some(purged) => purged.iter().any(|hash| tags.binary_search(hash).is_ok()),
        }
    }
}

impl Book {
    /// Starts at a position (after a restart): what began before it is taken as purged.
    pub(super) fn start_at(&mut self, position: u64) {
        self.before = self.before.max(position);
    }

    /// Notes a purge; returns the keys of the pages that it meets, `None` for all of them.
    pub(super) fn purge(&mut self, position: u64, met: &Met) -> Option<Vec<u64>> {
        let (remembered, keys) = match met {
            Met::All => (Met::All, None),
            Met::Some(hashes) => {
                let keys: HashSet<u64, ByHash> = hashes
                    .iter()
                    .filter_map(|hash| self.shown_on.get(hash))
                    .flatten()
                    .copied()
                    .collect();
                let remembered =
                    if hashes.len() > REMEMBERED_TAGS { Met::All } else { met.clone() };
                (remembered, Some(keys.into_iter().collect()))
            }
        };
        self.recent.push_back(Recent { position, met: remembered });
        if self.recent.len() > REMEMBERED {
            self.before = self.recent.pop_front().map_or(self.before, |gone| gone.position);
        }
        keys
    }

    /// Whether a page with these hashes, whose render began at `position`, has been purged since.
    pub(super) fn purged_since(&self, position: u64, tags: &[u64]) -> bool {
        position < self.before
            || self
                .recent
                .iter()
                .rev()
                .take_while(|recent| recent.position > position)
                .any(|r| r.met.meets(tags))
    }

    /// Enters a page.
    pub(super) fn enter(&mut self, key: u64, tags: &[u64]) {
        for tag in tags {
            self.shown_on.entry(*tag).or_default().insert(key);
        }
    }

    /// Strikes a page out, but for the tags of the one that has its key now.
    pub(super) fn strike(&mut self, key: u64, tags: &[u64], but: &[u64]) {
        for tag in tags.iter().filter(|tag| but.binary_search(tag).is_err()) {
            if let Some(keys) = self.shown_on.get_mut(tag) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.shown_on.remove(tag);
                }
            }
        }
    }
}

/// The hashes of a page: its tags, and its addresses for purges by URL.
pub(super) fn page_hashes(key: &Key, tags: &[String]) -> Box<[u64]> {
    let mut hashes: Vec<u64> = tags.iter().map(|tag| tag_hash(tag)).collect();
    hashes.extend([hash(b"path", "", key.path()), hash(b"path", key.host(), key.path())]);
    if key.query().is_some() {
        hashes.push(hash(b"url", "", key.path_and_query()));
        hashes.push(hash(b"url", key.host(), key.path_and_query()));
    }
    sorted(hashes)
}

/// The hash of a tag.
pub(super) fn tag_hash(tag: &str) -> u64 {
    hash(b"tag", "", tag)
}

/// The hash that a purge by URL meets: with a query that one page (on any host, unless it names one), without a query
/// the path with any query.
fn url_hash(url: &str, rules: &Rules) -> u64 {
    let after_scheme =
        url.split_once("://").map(|(_, rest)| rest).or_else(|| url.strip_prefix("//"));
    let (host, rest) = match after_scheme {
        Some(rest) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        None => ("", url),
    };
    let host = without_port(host).to_ascii_lowercase();
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) =
        rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let mut text = String::with_capacity(rest.len() + 1);
    if !path.starts_with('/') {
        text.push('/');
    }
    normalise(path, &mut text);
    let end = text.len();
    for parameter in query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|parameter| !parameter.is_empty())
    {
        let before = text.len();
        text.push(if before == end { '?' } else { '&' });
        normalise(parameter, &mut text);
        if rules
            .ignored_parameters
            .contains(text[before + 1..].split('=').next().unwrap_or_default())
        {
            text.truncate(before);
        }
    }
    hash(if text.len() > end { b"url" } else { b"path" }, &host, &text)
}

/// A hash that is the same in every process, since pages on disk hold it.
fn hash(kind: &[u8], host: &str, text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind).update(&[0]).update(host.as_bytes()).update(&[0]).update(text.as_bytes());
    let digest = hasher.finalize();
    u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
}

fn sorted(mut hashes: Vec<u64>) -> Box<[u64]> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::names::Names;

    fn rules() -> Rules {
        Rules {
            enabled: true,
            ttl_max: 0,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            ignored_parameters: Names::new(["utm_*"]),
            bypass_cookies: Names::default(),
            vary_cookies: Names::default(),
        }
    }

    fn tags(names: &[&str]) -> Box<[u64]> {
        sorted(names.iter().map(|name| tag_hash(name)).collect())
    }

    fn by_tags(names: &[&str]) -> Met {
        Met::of(
            &Purge {
                tags: names.iter().map(|name| (*name).to_owned()).collect(),
                ..Purge::default()
            },
            &rules(),
        )
    }

    #[test]
    fn a_render_that_began_before_a_purge_is_met_by_it() {
        let mut book = Book::default();
        book.purge(1, &by_tags(&["post-1"]));
        book.purge(2, &by_tags(&["post-2"]));
        assert!(book.purged_since(0, &tags(&["post-1"])));
        assert!(!book.purged_since(1, &tags(&["post-1"])));
        assert!(book.purged_since(1, &tags(&["post-2", "front"])));
        assert!(!book.purged_since(2, &tags(&["post-1", "post-2"])));
        book.purge(3, &Met::All);
        assert!(book.purged_since(2, &tags(&[])));
    }

    #[test]
    fn a_render_whose_beginning_is_forgotten_is_taken_as_purged() {
        let mut book = Book::default();
        for position in 1..=(REMEMBERED as u64 + 10) {
            book.purge(position, &by_tags(&["other"]));
        }
        assert!(book.purged_since(9, &tags(&["mine"])));
        assert!(!book.purged_since(10, &tags(&["mine"])));
        let large: Vec<String> = (0..REMEMBERED_TAGS + 1).map(|n| format!("post-{n}")).collect();
        book.purge(5000, &Met::of(&Purge { tags: large, ..Purge::default() }, &rules()));
        assert!(book.purged_since(4999, &tags(&["mine"])));
    }

    #[test]
    fn a_purge_meets_the_pages_that_show_it_and_no_others() {
        let mut book = Book::default();
        book.enter(1, &tags(&["front", "post-1"]));
        book.enter(2, &tags(&["post-1"]));
        book.enter(3, &tags(&["post-2"]));
        let mut met = book.purge(1, &by_tags(&["post-1", "front", "none"])).expect("not all");
        met.sort_unstable();
        assert_eq!(met, [1, 2]);
        book.strike(1, &tags(&["front", "post-1"]), &tags(&["front"]));
        assert_eq!(book.purge(2, &by_tags(&["post-1"])), Some(vec![2]));
        assert_eq!(book.purge(3, &by_tags(&["front"])), Some(vec![1]));
        assert_eq!(book.purge(4, &Met::All), None);
    }

    #[test]
    fn a_url_meets_its_page_however_it_is_written() {
        let page = |text: &str| page_hashes(&Key::from_text(text).expect("a key"), &[]);
        let plain = page("blog\nhttps://blog.test:8443\n/a/%e6%97%a5/\n");
        let query = page("blog\nhttps://blog.test\n/a/?p=1\nlang=de");
        for (url, on_plain, on_query) in [
            ("/a/%E6%97%A5/", true, false),
            ("https://blog.test/a/日/", true, false),
            ("https://BLOG.test:8443/a/日/#top", true, false),
            ("http://other.test/a/%e6%97%a5/", false, false),
            ("/a/", false, true),
            ("/a/?p=1&utm_source=x", false, true),
            ("//blog.test/a/?p=1", false, true),
            ("/a/?p=2", false, false),
            ("/a", false, false),
            ("", false, false),
        ] {
            let met = Met::of(&Purge { urls: vec![url.to_owned()], ..Purge::default() }, &rules());
            assert_eq!((met.meets(&plain), met.meets(&query)), (on_plain, on_query), "{url}");
        }
    }
}
