//! Claims about what is left after a process ended, in order or not.

use std::path::Path;

use super::*;

fn start(state: &Path) -> (Arc<PageCache>, Arc<Site>) {
    let config = Config { limit: 1 << 24, page_limit: 1 << 20, state: Some(state.to_owned()) };
    let cache = PageCache::new(&config).expect("a cache");
    let site = cache.site(&name("blog"), &rules(), RELEASE, T0);
    (cache, site)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn files(state: &Path) -> usize {
    let folder = std::fs::read_dir(state.join("hot/blog")).expect("a folder");
    folder.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".page")).count()
}

async fn purge(cache: &Arc<PageCache>, site: &Arc<Site>, purge: &Purge) {
    assert!(cache.purge(site, purge, "test", T0 + 5).receipt().await.ok);
}

/// A folder with two pages on disk, and the cache that is still running.
fn two_pages() -> (tempfile::TempDir, Arc<PageCache>, Arc<Site>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, site) = start(folder.path());
    store(&cache, &site, "/a/", &"a ".repeat(1000), &["post-1"], T0);
    store(&cache, &site, "/b/", "b", &["post-2"], T0);
    until("both pages are on disk", || files(folder.path()) == 2);
    (folder, cache, site)
}

fn words(cache: &Arc<PageCache>, site: &Arc<Site>) -> [&'static str; 2] {
    ["/a/", "/b/"].map(|path| word(cache, site, path, T0 + 10))
}

#[tokio::test]
async fn a_killed_edge_answers_hot_pages_at_once_but_not_as_fresh_what_was_purged() {
    let (folder, cache, site) = two_pages();
    purge(&cache, &site, &by_tag("post-1")).await;
    let position = site.position();
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(site.position(), position);
    assert_eq!(words(&cache, &site), ["stale", "hit"]);
    let coded = cache.memory.get(&key(&site, "/a/")).expect("there");
    assert!(coded.representation(crate::compress::Encoding::Brotli).is_some(), "with its variants");
    drop(cache);
    let (cache, site) = start(folder.path());
    purge(&cache, &site, &all()).await;
    assert_eq!(words(&cache, &site), ["stale", "stale"], "purged while they slept, or after");
}

#[tokio::test]
async fn an_end_in_order_is_believed_after_a_reboot_and_a_power_cut_is_not() {
    let (folder, cache, _site) = two_pages();
    cache.close().await;
    drop(cache);
    let session = folder.path().join("hot/session.json");
    std::fs::write(&session, r#"{"boot":"another","ended":true}"#).expect("written");
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["hit", "hit"]);
    drop(cache);
    std::fs::write(&session, r#"{"boot":"another","ended":false}"#).expect("written");
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["stale", "stale"]);
}

#[tokio::test]
async fn purges_before_a_checkpoint_are_honoured_after_it() {
    let (folder, cache, site) = two_pages();
    purge(&cache, &site, &by_tag("post-2")).await;
    cache.close().await;
    purge(&cache, &site, &by_tag("post-3")).await;
    assert_eq!(journal::read(&folder.path().join("journals/blog.journal")).records.len(), 1);
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["hit", "stale"]);
    purge(&cache, &site, &by_tag("post-1")).await;
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["stale", "stale"]);
}

#[tokio::test]
async fn a_long_journal_is_begun_anew_and_forgets_nothing() {
    let (folder, cache, site) = two_pages();
    let path = folder.path().join("journals/blog.journal");
    purge(&cache, &site, &by_tag("post-1")).await;
    let long =
        Purge { tags: (0..2000).map(|n| format!("elsewhere-{n}")).collect(), ..Purge::default() };
    let base = journal::read(&path).base;
    until("the journal is begun anew", || {
        let _ = cache.purge(&site, &long, "test", T0 + 6);
        journal::read(&path).base > base
    });
    purge(&cache, &site, &by_tag("nothing")).await;
    let position = site.position();
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(site.position(), position);
    assert_eq!(words(&cache, &site), ["stale", "hit"]);
}

#[tokio::test]
async fn a_torn_journal_makes_the_site_stale_and_a_missing_one_too() {
    for spoil in [
        |path: &Path| std::fs::remove_file(path),
        |path: &Path| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(std::fs::metadata(path)?.len() - 3)
        },
    ] {
        let (folder, cache, site) = two_pages();
        purge(&cache, &site, &by_tag("post-9")).await;
        drop(cache);
        spoil(&folder.path().join("journals/blog.journal")).expect("spoilt");
        let (cache, site) = start(folder.path());
        assert_eq!(words(&cache, &site), ["stale", "stale"]);
    }
}

#[tokio::test]
async fn spoilt_pages_are_rendered_again() {
    let (folder, cache, _site) = two_pages();
    drop(cache);
    for entry in std::fs::read_dir(folder.path().join("hot/blog")).expect("a folder").flatten() {
        let mut bytes = std::fs::read(entry.path()).expect("read");
        if let Some(byte) = bytes.get_mut(60) {
            *byte ^= 1;
        }
        std::fs::write(entry.path(), bytes).expect("written");
    }
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["miss", "miss"]);
}

#[tokio::test]
async fn pages_of_another_release_are_stale() {
    let (folder, cache, _site) = two_pages();
    drop(cache);
    let config =
        Config { limit: 1 << 24, page_limit: 1 << 20, state: Some(folder.path().to_owned()) };
    let cache = PageCache::new(&config).expect("a cache");
    let site = cache.site(&name("blog"), &rules(), "another", T0);
    assert_eq!(words(&cache, &site), ["stale", "stale"]);
}

#[tokio::test]
async fn a_page_that_became_personal_does_not_come_back() {
    let (folder, cache, site) = two_pages();
    let later = T0 + 100_001;
    let Lookup::Stale(_, Some(lead)) = cache.lookup(&site, &key(&site, "/a/"), later) else {
        panic!("no lead")
    };
    lead.refuse(&Refusal::SetCookie, later);
    until("its file is gone", || files(folder.path()) == 1);
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["miss", "hit"]);
}

#[tokio::test]
async fn a_disk_that_refuses_leaves_no_page_that_could_be_wrong() {
    let (folder, cache, site) = two_pages();
    // Larger than any journal frame may be: the append fails as it would on a full disk.
    let vast =
        Purge { tags: (0..900_000).map(|n| format!("post-{n}")).collect(), ..Purge::default() };
    // So many take a while to write down; whether the receipt waits for that is another matter.
    cache.purge(&site, &vast, "test", T0 + 5).receipt().await;
    assert_eq!(words(&cache, &site), ["stale", "stale"]);
    until("its pages are deleted", || !folder.path().join("hot/blog").exists());
    drop(cache);
    let (cache, site) = start(folder.path());
    assert_eq!(words(&cache, &site), ["miss", "miss"]);
}

#[tokio::test]
async fn learnt_cookies_and_removed_sites_are_remembered() {
    let (folder, cache, site) = two_pages();
    cache.learn_cookie(&site, "cart_hash");
    let path = folder.path().join("journals/blog.cookies");
    until("the names are on disk", || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("cart_hash"))
    });
    drop(cache);
    let (cache, site) = start(folder.path());
    assert!(site.learned.contains("cart_hash"));
    cache.retain_sites(|_| false);
    until("nothing is left", || !folder.path().join("hot/blog").exists() && !path.exists());
}
