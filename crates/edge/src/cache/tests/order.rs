//! The claim of flow 2 under many interleavings: a page that is called fresh is never older than a confirmed purge.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;

const TAGS: usize = 6;
const PAGES: usize = 12;

/// What the site's pages show: a version by tag, and the last version whose purge was confirmed.
#[derive(Default)]
struct Database {
    written: [AtomicU64; TAGS],
    confirmed: [AtomicU64; TAGS],
}

impl Database {
    fn confirmed(&self) -> [u64; TAGS] {
        std::array::from_fn(|tag| self.confirmed[tag].load(Ordering::SeqCst))
    }

    /// A page as PHP would render it: the versions it read.
    fn render(&self, page: usize) -> String {
        let read = |tag: usize| format!("{tag}={}", self.written[tag].load(Ordering::SeqCst));
        shown(page).map(read).join(" ")
    }

    fn write(&self, tag: usize) -> u64 {
        self.written[tag].fetch_add(1, Ordering::SeqCst) + 1
    }

    fn confirm(&self, tag: usize, version: u64) {
        self.confirmed[tag].fetch_max(version, Ordering::SeqCst);
    }
}

/// The tags that a page shows.
fn shown(page: usize) -> [usize; 2] {
    [page % TAGS, (page * 5 + 2) % TAGS]
}

fn tag_names(page: usize) -> Affirmation {
    let names = shown(page).map(|tag| format!("tag-{tag}"));
    Affirmation { ttl: 100_000, tags: names.to_vec() }
}

/// What a change of a tag purges: one way or another all pages that show it.
fn change(tag: usize, dice: u32) -> Purge {
    match dice % 10 {
        0 => all(),
        1 => {
            let pages = (0..PAGES).filter(|page| shown(*page).contains(&tag));
            Purge { urls: pages.map(|page| format!("/{page}/")).collect(), ..Purge::default() }
        }
        _ => by_tag(&format!("tag-{tag}")),
    }
}

fn check(body: &[u8], confirmed: &[u64; TAGS], seed: u64) {
    for part in std::str::from_utf8(body).expect("text").split(' ') {
        let (tag, version) = part.split_once('=').expect("a version");
        let (tag, version): (usize, u64) =
            (tag.parse().expect("a tag"), version.parse().expect("a version"));
        assert!(
            version >= confirmed[tag],
            "tag {tag} is at {version}, {} was confirmed; seed {seed}",
            confirmed[tag]
        );
    }
}

/// A generator that is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % sides
    }

    fn pause(&mut self) {
        for _ in 0..self.roll(4) {
            std::thread::yield_now();
        }
    }
}

fn visit(
    cache: &Arc<PageCache>,
    site: &Arc<Site>,
    database: &Database,
    dice: &mut Dice,
    seed: u64,
) -> bool {
    let page = dice.roll(PAGES);
    let confirmed = database.confirmed();
    let mut lead = match cache.lookup(site, &key(site, &format!("/{page}/")), T0) {
        Lookup::Hit(hit) => {
            check(&hit.answer(&Method::GET, &HeaderMap::new()).into_body(), &confirmed, seed);
            return true;
        }
        Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) | Lookup::Pass(lead) => lead,
        Lookup::Stale(_, None) | Lookup::Wait(_) => return false,
    };
    dice.pause();
    match dice.roll(20) {
        0 => drop(lead),
        1 => lead.refuse(&Refusal::Denied("a cart".into()), T0),
        2 => lead.refuse(&Refusal::Status(500), T0),
        _ => {
            lead.begin(T0);
            dice.pause();
            let body = database.render(page);
            dice.pause();
            lead.store(html(&body, &tag_names(page)), T0).expect("stored");
        }
    }
    false
}

#[test]
fn a_page_called_fresh_is_never_older_than_a_confirmed_purge() {
    let hits = AtomicU32::new(0);
    for seed in 1..=4_u64 {
        // So little room that pages leave all the time, in every second run.
        let (cache, site) = empty(if seed % 2 == 0 { 40 << 10 } else { 1 << 20 });
        let (database, over) = (Database::default(), AtomicBool::new(false));
        std::thread::scope(|threads| {
            for thread in 0..3 {
                let (cache, site, database, over, hits) = (&cache, &site, &database, &over, &hits);
                threads.spawn(move || {
                    let mut dice = Dice(seed * 1_000_003 + thread);
                    while !over.load(Ordering::Relaxed) {
                        hits.fetch_add(
                            u32::from(visit(cache, site, database, &mut dice, seed)),
                            Ordering::Relaxed,
                        );
                    }
                });
            }
            let mut dice = Dice(seed * 7_777_777);
            for _ in 0..800 {
                let tag = dice.roll(TAGS);
                let version = database.write(tag);
                dice.pause();
                let _ = cache.purge(&site, &change(tag, dice.roll(100) as u32), "test", T0);
                database.confirm(tag, version);
                dice.pause();
                dice.pause();
            }
            over.store(true, Ordering::Relaxed);
        });
    }
    assert!(hits.load(Ordering::Relaxed) > 100, "{hits:?} hits: nothing was tried");
}

fn start(state: &Path) -> (Arc<PageCache>, Arc<Site>) {
    let config = Config { limit: 1 << 20, page_limit: 1 << 20, state: Some(state.to_owned()) };
    let cache = PageCache::new(&config).expect("a cache");
    let site = cache.site(&name("blog"), &rules(), RELEASE, T0);
    (cache, site)
}

#[tokio::test]
async fn nor_is_it_after_the_edge_was_killed_at_any_moment() {
    let mut hits = 0;
    for seed in 1..=6_u64 {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut cache, mut site) = start(folder.path());
        let (database, mut dice) = (Database::default(), Dice(seed * 31_337));
        for _ in 0..400 {
            match dice.roll(60) {
                0 => {
                    if dice.roll(4) == 0 {
                        cache.close().await;
                    }
                    drop(site);
                    drop(cache);
                    (cache, site) = start(folder.path());
                }
                1..=6 => {
                    let tag = dice.roll(TAGS);
                    let version = database.write(tag);
                    let purged =
                        cache.purge(&site, &change(tag, dice.roll(100) as u32), "test", T0);
                    assert!(purged.receipt().await.ok);
                    database.confirm(tag, version);
                }
                7 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => hits += u32::from(visit(&cache, &site, &database, &mut dice, seed)),
            }
        }
    }
    assert!(hits > 100, "{hits} hits: nothing was tried");
}
