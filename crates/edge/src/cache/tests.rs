//! Claims about the cache as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pressroom_model::affirmation::{Affirmation, Purge};
use pressroom_model::snapshot::CacheRules;
use pressroom_model::unit::Span;
use tokio::time::Instant;

use super::*;

mod order;
mod restart;

pub(super) const T0: Millis = 1_700_000_000_000;
pub(super) const RELEASE: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn rules() -> CacheRules {
    CacheRules {
        enabled: true,
        ttl_max: Span::seconds(3600),
        stale_while_revalidate: Span::seconds(60),
        stale_if_error: Span::seconds(600),
        ignored_parameters: vec!["utm_*".into()],
        bypass_cookies: vec!["wordpress_logged_in_*".into()],
        vary_cookies: vec!["lang".into()],
    }
}

pub(super) fn name(text: &str) -> SiteName {
    text.parse().expect("a good name")
}

pub(super) fn empty(limit: u64) -> (Arc<PageCache>, Arc<Site>) {
    let cache =
        PageCache::new(&Config { limit, page_limit: 1 << 20, state: None }).expect("a cache");
    let site = cache.site(&name("blog"), &rules(), RELEASE, T0);
    (cache, site)
}

pub(super) fn key(site: &Site, path: &str) -> Key {
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &Method::GET,
        scheme: "https",
        authority: "blog.test",
        path,
        query: None,
        headers: &headers,
    };
    site.key(&asked).expect("a key")
}

pub(super) fn affirmed(ttl: u64, tags: &[&str]) -> Affirmation {
    Affirmation { ttl, tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
}

pub(super) fn html(body: &str, affirmation: &Affirmation) -> Rendered<'static> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/html; charset=UTF-8"));
    let affirmation: &'static Affirmation = Box::leak(Box::new(affirmation.clone()));
    Rendered {
        status: StatusCode::OK,
        headers,
        body: Bytes::from(body.to_owned()),
        complete: true,
        affirmation: Some(affirmation),
        because: None,
    }
}

pub(super) fn by_tag(tag: &str) -> Purge {
    Purge { tags: vec![tag.to_owned()], ..Purge::default() }
}

fn miss(cache: &Arc<PageCache>, site: &Arc<Site>, key: &Key, now: Millis) -> Lead {
    match cache.lookup(site, key, now) {
        Lookup::Miss(lead) => lead,
        other => panic!("not a miss: {other:?}"),
    }
}

pub(super) fn store(
    cache: &Arc<PageCache>,
    site: &Arc<Site>,
    path: &str,
    body: &str,
    tags: &[&str],
    now: Millis,
) {
    let lead = match cache.lookup(site, &key(site, path), now) {
        Lookup::Miss(lead) | Lookup::Stale(_, Some(lead)) | Lookup::Pass(lead) => lead,
        other => panic!("nothing to render: {other:?}"),
    };
    lead.store(html(body, &affirmed(100, tags)), now).expect("stored");
}

pub(super) fn word(
    cache: &Arc<PageCache>,
    site: &Arc<Site>,
    path: &str,
    now: Millis,
) -> &'static str {
    match cache.lookup(site, &key(site, path), now) {
        Lookup::Hit(hit) | Lookup::Stale(hit, _) => hit.word(),
        Lookup::Miss(_) => "miss",
        Lookup::Pass(_) => "pass",
        Lookup::Wait(_) => "wait",
    }
}

fn body(cache: &Arc<PageCache>, site: &Arc<Site>, path: &str, now: Millis) -> Bytes {
    match cache.lookup(site, &key(site, path), now) {
        Lookup::Hit(hit) | Lookup::Stale(hit, _) => {
            hit.answer(&Method::GET, &HeaderMap::new()).into_body()
        }
        other => panic!("no page: {other:?}"),
    }
}

#[test]
fn a_page_is_a_hit_until_its_ttl_then_stale_and_refreshed_once() {
    let (cache, site) = empty(1 << 20);
    assert_eq!(word(&cache, &site, "/", T0), "miss");
    store(&cache, &site, "/", "one", &[], T0);
    assert_eq!(word(&cache, &site, "/", T0 + 99_999), "hit");
    let later = T0 + 100_001;
    let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/"), later) else {
        panic!("no lead")
    };
    assert!(matches!(cache.lookup(&site, &key(&site, "/"), later), Lookup::Stale(_, None)));
    lead.store(html("two", &affirmed(100, &[])), later).expect("stored");
    assert_eq!(body(&cache, &site, "/", later), "two");
    assert_eq!(word(&cache, &site, "/", later), "hit");
}

#[test]
fn a_purge_makes_the_pages_it_meets_stale_and_no_others() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/a/", "a", &["post-1", "front"], T0);
    store(&cache, &site, "/b/", "b", &["post-2"], T0);
    assert_eq!(cache.purge(&site, &by_tag("post-1"), "test", T0).pages, 1);
    assert_eq!((word(&cache, &site, "/a/", T0), word(&cache, &site, "/b/", T0)), ("stale", "hit"));
    assert_eq!(cache.purge(&site, &by_tag("post-1"), "test", T0).pages, 0);
    let url = Purge { urls: vec!["/b/".into()], ..Purge::default() };
    assert_eq!(cache.purge(&site, &url, "test", T0).pages, 1);
    assert_eq!(word(&cache, &site, "/b/", T0), "stale");
}

#[test]
fn a_purge_of_a_site_meets_that_site_only() {
    let (cache, site) = empty(1 << 20);
    let other = cache.site(&name("shop"), &rules(), RELEASE, T0);
    store(&cache, &site, "/", "a", &["front"], T0);
    store(&cache, &other, "/", "b", &["front"], T0);
    assert_eq!(cache.purge(&site, &all(), "test", T0).pages, 1);
    assert_eq!((word(&cache, &site, "/", T0), word(&cache, &other, "/", T0)), ("stale", "hit"));
    cache.site(&name("shop"), &rules(), "another", T0);
    assert_eq!(word(&cache, &other, "/", T0), "stale", "a switch of the release purges");
    cache.retain_sites(|name| name.as_str() == "blog");
    assert_eq!(cache.totals().pages, 1);
}

#[test]
fn what_was_purged_during_its_render_is_stale_at_once() {
    let (cache, site) = empty(1 << 20);
    let lead = miss(&cache, &site, &key(&site, "/"), T0);
    let _ = cache.purge(&site, &by_tag("post-1"), "test", T0);
    let hit = lead.store(html("old", &affirmed(100, &["post-1"])), T0).expect("stored");
    assert!(!hit.is_fresh());
    let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/"), T0) else {
        panic!("no refresh")
    };
    assert!(lead.store(html("new", &affirmed(100, &["post-1"])), T0).expect("stored").is_fresh());
    let lead = miss(&cache, &site, &key(&site, "/x/"), T0);
    let _ = cache.purge(&site, &all(), "test", T0);
    assert!(!lead.store(html("old", &affirmed(100, &[])), T0).expect("stored").is_fresh());
}

#[test]
fn a_render_that_began_after_a_purge_is_not_met_by_it() {
    let (cache, site) = empty(1 << 20);
    let mut lead = miss(&cache, &site, &key(&site, "/"), T0);
    let _ = cache.purge(&site, &by_tag("post-1"), "test", T0);
    lead.begin(T0 + 5);
    assert!(
        lead.store(html("new", &affirmed(100, &["post-1"])), T0 + 9).expect("stored").is_fresh()
    );
}

#[test]
fn a_refusal_takes_the_page_out_and_nobody_waits_for_the_next_ones() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/", "public", &[], T0);
    let later = T0 + 100_001;
    let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/"), later) else {
        panic!("no lead")
    };
    lead.refuse(&Refusal::SetCookie, later);
    assert_eq!(word(&cache, &site, "/", later), "pass");
    assert_eq!(cache.why(&key(&site, "/"), later).refused.expect("noted").0, "it sets a cookie");
    assert_eq!(word(&cache, &site, "/", later + 9_999), "pass");
    miss(&cache, &site, &key(&site, "/"), later + 10_000)
        .refuse(&Refusal::SetCookie, later + 10_000);
    assert_eq!(word(&cache, &site, "/", later + 10_000 + 19_999), "pass", "longer each time");
    let Lookup::Pass(lead) = cache.lookup(&site, &key(&site, "/"), later + 10_001) else {
        panic!("no pass")
    };
    lead.store(html("public again", &affirmed(100, &[])), later + 10_001).expect("stored");
    assert_eq!(word(&cache, &site, "/", later + 10_001), "hit");
}

#[test]
fn a_failed_refresh_rests_and_serves_the_stale_page() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/", "old", &[], T0);
    let mut now = T0 + 100_001;
    for pause in [1_000, 2_000, 4_000] {
        let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/"), now) else {
            panic!("no lead")
        };
        lead.refuse(&Refusal::Status(500), now);
        assert!(matches!(
            cache.lookup(&site, &key(&site, "/"), now + pause - 1),
            Lookup::Stale(_, None)
        ));
        now += pause;
    }
    // Beyond stale-while-revalidate a request renders itself, and falls back on the stale page.
    now = T0 + 200_000;
    let lead = miss(&cache, &site, &key(&site, "/"), now);
    assert!(lead.fallback(now).is_some());
    lead.refuse(&Refusal::NoAnswer, now);
    assert!(matches!(cache.lookup(&site, &key(&site, "/"), now + 1), Lookup::Stale(_, None)));
    assert!(
        miss(&cache, &site, &key(&site, "/"), T0 + 100_000 + 600_001)
            .fallback(T0 + 700_001)
            .is_none()
    );
}

#[test]
fn a_purge_ends_the_rest_after_failures() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/", "old", &["post-1"], T0);
    for purge in [by_tag("post-1"), all()] {
        let _ = cache.purge(&site, &purge, "test", T0);
        let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/"), T0) else {
            panic!("no lead")
        };
        lead.refuse(&Refusal::Status(500), T0);
        assert!(matches!(cache.lookup(&site, &key(&site, "/"), T0), Lookup::Stale(_, None)));
    }
}

#[tokio::test]
async fn who_waits_for_a_render_that_a_purge_overtook_is_told_so() {
    let (cache, site) = empty(1 << 20);
    let lead = miss(&cache, &site, &key(&site, "/"), T0);
    let _ = cache.purge(&site, &by_tag("post-1"), "test", T0);
    let Lookup::Wait(wait) = cache.lookup(&site, &key(&site, "/"), T0) else { panic!("no wait") };
    lead.store(html("old", &affirmed(100, &["post-1"])), T0).expect("stored");
    let waited = wait.until(Instant::now() + Duration::from_secs(20), || T0).await;
    let Waited::Page(hit) = waited else { panic!("{waited:?}") };
    assert_eq!(hit.word(), "stale");
}

#[test]
fn the_limit_of_bytes_is_kept_and_used_pages_stay() {
    let limit = 512 << 10;
    let (cache, site) = empty(limit);
    for n in 0..400 {
        store(&cache, &site, &format!("/{n}/"), &"x".repeat(200 + n % 300), &["tag", "other"], T0);
        assert!(cache.totals().bytes <= limit, "{:?}", cache.totals());
        assert_ne!(word(&cache, &site, "/0/", T0), "miss", "used all the time, after {n}");
    }
    let totals = cache.totals();
    assert!(totals.pages > 10 && totals.pages < 400 && totals.evicted > 0, "{totals:?}");
    assert_eq!(
        cache.purge(&site, &by_tag("tag"), "test", T0).pages,
        totals.pages,
        "the book knows who is left"
    );
    cache.set_limit(0);
    assert_eq!((cache.totals().pages, cache.totals().bytes), (0, 0));
}

#[test]
fn an_answer_has_all_that_a_client_needs() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/", &"hello ".repeat(1000), &[], T0);
    let Lookup::Hit(hit) = cache.lookup(&site, &key(&site, "/"), T0 + 7_500) else {
        panic!("no hit")
    };
    let answer = hit.answer(&Method::GET, &HeaderMap::new());
    let header = |name: &str| {
        answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(header("content-length").as_deref(), Some("6000"));
    assert_eq!(header("x-cache").as_deref(), Some("hit"));
    assert_eq!(header("age").as_deref(), Some("7"));
    assert_eq!(header("cache-status").as_deref(), Some("pressroom; hit; ttl=93"));
    assert_eq!(header("vary").as_deref(), Some("accept-encoding"));
    let etag = header("etag").expect("an entity tag");
    let head = hit.answer(&Method::HEAD, &HeaderMap::new());
    assert!(head.body().is_empty() && head.headers()["content-length"] == "6000");
    for (held, status) in
        [(etag.as_str(), 304), ("W/\"x\"", 200), ("*", 304), ("\"a\", W/\"b\"", 200), ("", 200)]
    {
        let mut request = HeaderMap::new();
        request.insert("if-none-match", held.parse().expect("a header"));
        let answer = hit.answer(&Method::GET, &request);
        assert_eq!(answer.status().as_u16(), status, "{held}");
        assert_eq!(answer.body().is_empty(), status == 304, "{held}");
    }
}

#[test]
fn variants_are_made_once_in_the_background() {
    let (cache, site) = empty(1 << 20);
    store(&cache, &site, "/", &"hello ".repeat(1000), &[], T0);
    let mut request = HeaderMap::new();
    request.insert("accept-encoding", HeaderValue::from_static("gzip, br"));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let Lookup::Hit(hit) = cache.lookup(&site, &key(&site, "/"), T0) else { panic!("no hit") };
        let answer = hit.answer(&Method::GET, &request);
        if answer.headers().get("content-encoding").is_some_and(|coding| coding == "br") {
            assert!(answer.body().len() < 100);
            assert!(answer.headers()["etag"].to_str().expect("text").ends_with("-br\""));
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never coded");
        std::thread::yield_now();
    }
}

#[test]
fn a_redirect_has_no_body() {
    let (cache, site) = empty(1 << 20);
    let mut answer = html("<a href>moved</a>", &affirmed(100, &[]));
    answer.status = StatusCode::MOVED_PERMANENTLY;
    answer.headers.insert("location", HeaderValue::from_static("/b/"));
    let hit = miss(&cache, &site, &key(&site, "/"), T0).store(answer, T0).expect("stored");
    let answer = hit.answer(&Method::GET, &HeaderMap::new());
    assert_eq!((answer.status().as_u16(), answer.body().len()), (301, 0));
    assert_eq!(answer.headers()["location"], "/b/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_who_ask_for_an_absent_page_get_one_render() {
    let (cache, site) = empty(1 << 20);
    let renders = Arc::new(AtomicU32::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (cache, site, renders) = (Arc::clone(&cache), Arc::clone(&site), Arc::clone(&renders));
        tasks.spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(20);
            let render = |lead: Lead| async move {
                renders.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                lead.store(html("page", &affirmed(100, &[])), T0).expect("stored")
            };
            let hit = match cache.lookup(&site, &key(&site, "/"), T0) {
                Lookup::Hit(hit) => hit,
                Lookup::Miss(lead) => render(lead).await,
                Lookup::Wait(wait) => match wait.until(deadline, || T0).await {
                    Waited::Page(hit) => hit,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            assert_eq!(hit.answer(&Method::GET, &HeaderMap::new()).into_body(), "page");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    assert_eq!(renders.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn when_a_leader_vanishes_the_next_who_waits_leads() {
    let (cache, site) = empty(1 << 20);
    let first = miss(&cache, &site, &key(&site, "/"), T0);
    let wait = || match cache.lookup(&site, &key(&site, "/"), T0) {
        Lookup::Wait(wait) => wait,
        other => panic!("{other:?}"),
    };
    let (one, two) = (wait(), wait());
    let deadline = Instant::now() + Duration::from_secs(20);
    let waits = tokio::spawn(async move {
        tokio::join!(one.until(deadline, || T0), two.until(deadline, || T0))
    });
    tokio::task::yield_now().await;
    drop(first);
    let third = tokio::time::timeout(Duration::from_millis(50), waits).await;
    assert!(third.is_err(), "one leads now, the other goes on waiting");
}

#[tokio::test]
async fn an_answer_for_one_is_not_given_to_those_who_wait() {
    let (cache, site) = empty(1 << 20);
    let lead = miss(&cache, &site, &key(&site, "/"), T0);
    let Lookup::Wait(wait) = cache.lookup(&site, &key(&site, "/"), T0) else { panic!("no wait") };
    lead.refuse(&Refusal::Denied("cart".into()), T0);
    let deadline = Instant::now() + Duration::from_secs(20);
    assert!(matches!(wait.until(deadline, || T0).await, Waited::Pass(_)));
    assert_eq!(word(&cache, &site, "/", T0), "pass");
}

#[tokio::test]
async fn a_wait_has_a_deadline() {
    let (cache, site) = empty(1 << 20);
    let lead = miss(&cache, &site, &key(&site, "/"), T0);
    let Lookup::Wait(wait) = cache.lookup(&site, &key(&site, "/"), T0) else { panic!("no wait") };
    let waited = wait.until(Instant::now() + Duration::from_millis(10), || T0).await;
    assert!(matches!(waited, Waited::Late(None)));
    drop(lead);
    assert_eq!(word(&cache, &site, "/", T0), "miss");
}
