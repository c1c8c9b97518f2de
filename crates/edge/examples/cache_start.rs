//! Measures a start with many pages on disk: `cargo run --release --example cache_start`.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pressroom_edge::cache::{self, Asked, Config, Lookup, PageCache, Rendered};
use pressroom_model::affirmation::Affirmation;
use pressroom_model::snapshot::CacheRules;
use pressroom_model::unit::Span;

const PAGES: usize = 2000;

fn main() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let config =
        Config { limit: 1 << 30, page_limit: 8 << 20, state: Some(folder.path().to_owned()) };
    let rules = CacheRules {
        enabled: true,
        ttl_max: Span::seconds(3600),
        stale_while_revalidate: Span::seconds(60),
        stale_if_error: Span::seconds(600),
        ignored_parameters: vec![],
        bypass_cookies: vec![],
        vary_cookies: vec![],
    };
    let name = "blog".parse().map_err(std::io::Error::other)?;
    let headers = HeaderMap::new();
    let cache = PageCache::new(&config)?;
    let site = cache.site(&name, &rules, "release", cache::now());
    let began = Instant::now();
    for page in 0..PAGES {
        let path = format!("/2026/page-{page}/");
        let Ok(key) = site.key(&asked(&path, &headers)) else { continue };
        let Lookup::Miss(lead) = cache.lookup(&site, &key, cache::now()) else { continue };
        let mut kind = HeaderMap::new();
        kind.insert("content-type", HeaderValue::from_static("text/html; charset=UTF-8"));
        let body: String =
            (0..1500).map(|n| format!("<p>Hello, {path}, {}</p>", n * page)).collect();
        let affirmation =
            Affirmation { ttl: 3600, tags: vec![format!("post-{page}"), "front".into()] };
        let rendered = Rendered {
            status: StatusCode::OK,
            headers: kind,
            body: body.into(),
            complete: true,
            affirmation: Some(&affirmation),
            because: None,
        };
        if let Err(refusal) = lead.store(rendered, cache::now()) {
            eprintln!("not stored: {refusal}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let kept = || std::fs::read_dir(folder.path().join("hot/blog")).map_or(0, Iterator::count);
    while kept() < PAGES && began.elapsed() < Duration::from_secs(180) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{} files after {:?}, {:?}", kept(), began.elapsed(), cache.totals());
    drop((cache, site));
    let began = Instant::now();
    let cache = PageCache::new(&config)?;
    let site = cache.site(&name, &rules, "release", cache::now());
    println!("open: {:?}", began.elapsed());
    let mut hits = 0;
    let mut worst = Duration::ZERO;
    for page in (0..PAGES).step_by(20) {
        let path = format!("/2026/page-{page}/");
        let Ok(key) = site.key(&asked(&path, &headers)) else { continue };
        let one = Instant::now();
        hits += u32::from(matches!(cache.lookup(&site, &key, cache::now()), Lookup::Hit(_)));
        worst = worst.max(one.elapsed());
    }
    println!("{hits} of 100 pages hit, worst lookup {worst:?}, all after {:?}", began.elapsed());
    while cache.totals().pages < PAGES as u64 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("awake: {} pages after {:?}", cache.totals().pages, began.elapsed());
    Ok(())
}

fn asked<'a>(path: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
    Asked {
        method: &Method::GET,
        scheme: "https",
        authority: "blog.example.com",
        path,
        query: None,
        headers,
    }
}
