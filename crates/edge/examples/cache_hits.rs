//! Measures what a hit costs in the page cache, alone and with all cores on one page: `cargo run --release --example cache_hits`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pressroom_edge::cache::{self, Asked, Config, Lookup, PageCache, Rendered, Site};
use pressroom_model::affirmation::Affirmation;
use pressroom_model::snapshot::CacheRules;
use pressroom_model::unit::Span;

const ROUNDS: u32 = 300_000;

fn main() -> std::io::Result<()> {
    let cache = PageCache::new(&Config { limit: 256 << 20, page_limit: 8 << 20, state: None })?;
    let rules = CacheRules {
        enabled: true,
        ttl_max: Span::seconds(3600),
        stale_while_revalidate: Span::seconds(60),
        stale_if_error: Span::seconds(600),
        ignored_parameters: ["utm_*", "fbclid", "gclid", "msclkid", "mc_*", "_ga"]
            .map(String::from)
            .to_vec(),
        bypass_cookies: ["wordpress_logged_in_*", "wp-postpass_*", "woocommerce_*"]
            .map(String::from)
            .to_vec(),
        vary_cookies: vec![],
    };
    let name = "blog".parse().map_err(std::io::Error::other)?;
    let site = cache.site(&name, &rules, "release", cache::now());
    for page in 0..2000 {
        store(&cache, &site, &format!("/2026/page-{page}/"));
    }
    store(&cache, &site, "/");
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while Instant::now() < deadline && !is_coded(&cache, &site) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for threads in [1, 2] {
        run("key", threads, &cache, &site, |_, site, headers| {
            black_box(site.key(&asked(headers)).is_ok());
        });
        run("key + lookup", threads, &cache, &site, |cache, site, headers| {
            let Ok(key) = site.key(&asked(headers)) else { return };
            black_box(matches!(cache.lookup(site, &key, cache::now()), Lookup::Hit(_)));
        });
        run("key + lookup + answer", threads, &cache, &site, |cache, site, headers| {
            let Ok(key) = site.key(&asked(headers)) else { return };
            if let Lookup::Hit(hit) = cache.lookup(site, &key, cache::now()) {
                black_box(hit.answer(&Method::GET, headers).body().len());
            }
        });
    }
    Ok(())
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    Asked {
        method: &Method::GET,
        scheme: "https",
        authority: "blog.example.com",
        path: "/2026/page-7/",
        query: None,
        headers,
    }
}

fn store(cache: &Arc<PageCache>, site: &Arc<Site>, path: &str) {
    let none = HeaderMap::new();
    let asked = Asked { path, ..asked(&none) };
    let Ok(key) = site.key(&asked) else { return };
    let Lookup::Miss(lead) = cache.lookup(site, &key, cache::now()) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/html; charset=UTF-8"));
    headers.insert(
        "link",
        HeaderValue::from_static("<https://blog.example.com/wp-json/>; rel=\"https://api.w.org/\""),
    );
    headers.insert("x-frame-options", HeaderValue::from_static("SAMEORIGIN"));
    let affirmation = Affirmation { ttl: 3600, tags: vec!["post-1".into(), "front".into()] };
    let rendered = Rendered {
        status: StatusCode::OK,
        headers,
        body: format!("<p>Hello, {path}</p>").repeat(700).into(),
        complete: true,
        affirmation: Some(&affirmation),
        because: None,
    };
    if let Err(refusal) = lead.store(rendered, cache::now()) {
        eprintln!("not stored: {refusal}");
    }
}

fn is_coded(cache: &Arc<PageCache>, site: &Arc<Site>) -> bool {
    let headers = HeaderMap::new();
    let Ok(key) = site.key(&Asked { path: "/", ..asked(&headers) }) else { return false };
    match cache.lookup(site, &key, cache::now()) {
        Lookup::Hit(hit) => {
            hit.page().representation(pressroom_edge::compress::Encoding::Zstd).is_some()
        }
        _ => false,
    }
}

fn run(
    what: &str,
    threads: usize,
    cache: &Arc<PageCache>,
    site: &Arc<Site>,
    work: impl Fn(&Arc<PageCache>, &Arc<Site>, &HeaderMap) + Sync,
) {
    let best = (0..5).map(|_| round(threads, cache, site, &work)).min().unwrap_or_default();
    println!("{threads} threads, {what}: {best} ns each, best of five rounds");
}

fn round(
    threads: usize,
    cache: &Arc<PageCache>,
    site: &Arc<Site>,
    work: &(impl Fn(&Arc<PageCache>, &Arc<Site>, &HeaderMap) + Sync),
) -> u128 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut headers = HeaderMap::new();
                headers.insert("host", HeaderValue::from_static("blog.example.com"));
                headers
                    .insert("accept-encoding", HeaderValue::from_static("gzip, deflate, br, zstd"));
                headers.insert("cookie", HeaderValue::from_static("_ga=GA1.2.1234; _fbp=fb.1.2"));
                for _ in 0..ROUNDS {
                    work(cache, site, &headers);
                }
            });
        }
    });
    began.elapsed().as_nanos() / u128::from(ROUNDS)
}
