//! Claims about what is heard, and what is made of silence.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use http::{HeaderMap, Method};
use pressroom_model::affirmation::{Message, Purge, Receipt};
use pressroom_model::snapshot::CacheRules;
use pressroom_model::unit::Span;

use super::*;
use crate::cache::{Asked, Config, Lookup, Rendered};

struct Stage {
    folder: tempfile::TempDir,
    cache: Arc<PageCache>,
    all: Arc<Affirmations>,
}

impl Stage {
    fn new() -> Self {
        let config = Config { limit: 1 << 20, page_limit: 1 << 20, state: None };
        let cache = PageCache::new(&config).expect("a cache");
        let all = Affirmations::new(Arc::clone(&cache));
        Self { folder: tempfile::tempdir().expect("a folder"), cache, all }
    }

    fn site(&self, name: &str) -> Arc<Site> {
        let rules = CacheRules {
            enabled: true,
            ttl_max: Span::seconds(60),
            stale_while_revalidate: Span::seconds(60),
            stale_if_error: Span::seconds(60),
            ignored_parameters: vec![],
            bypass_cookies: vec![],
            vary_cookies: vec![],
        };
        self.cache.site(&name.parse().expect("a name"), &rules, "release", cache::now())
    }

    /// Serves a site's socket for a user; ends with the runtime.
    fn serve(&self, site: &Arc<Site>, uid: u32) {
        let listener = UnixListener::bind(self.path(site)).expect("a socket");
        tokio::spawn(Arc::clone(&self.all).serve(Arc::clone(site), uid, listener));
    }

    fn path(&self, site: &Site) -> std::path::PathBuf {
        self.folder.path().join(site.name().as_str())
    }

    fn connect(&self, site: &Site) -> UnixStream {
        UnixStream::connect(self.path(site)).expect("connected")
    }

    fn store(&self, site: &Arc<Site>) {
        let key = key(site);
        let Lookup::Miss(lead) = self.cache.lookup(site, &key, cache::now()) else {
            panic!("no miss")
        };
        let affirmation = Affirmation { ttl: 60, tags: vec!["front".into()] };
        let answer = Rendered {
            status: http::StatusCode::OK,
            headers: HeaderMap::new(),
            body: "page".into(),
            complete: true,
            affirmation: Some(&affirmation),
            because: None,
        };
        lead.store(answer, cache::now()).expect("stored");
    }

    fn is_fresh(&self, site: &Arc<Site>) -> bool {
        matches!(self.cache.lookup(site, &key(site), cache::now()), Lookup::Hit(_))
    }
}

fn key(site: &Site) -> cache::Key {
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &Method::GET,
        scheme: "https",
        authority: "blog.test",
        path: "/",
        query: None,
        headers: &headers,
    };
    site.key(&asked).expect("a key")
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn say(stream: &mut UnixStream, message: &Message) {
    let mut line = serde_json::to_vec(message).expect("json");
    line.push(b'\n');
    stream.write_all(&line).expect("said");
}

fn done(token: &str, because: Option<&str>, purge: Option<Purge>) -> Message {
    let affirmation =
        because.is_none().then(|| Affirmation { ttl: 60, tags: vec!["front".into()] });
    Message::Done {
        request: token.to_owned(),
        affirmation,
        because: because.map(str::to_owned),
        purge,
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn done_before_the_end_needs_no_wait() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    let pending = stage.all.open(&site, true);
    let mut php = stage.connect(&site);
    say(&mut php, &done(&pending.token(), None, None));
    until("it was heard", || stage.all.counts().messages == 1).await;
    let began = Instant::now();
    let closing = pending.finished(true).await;
    assert_eq!(closing.affirmation.map(|affirmation| affirmation.ttl), Some(60));
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(stage.all.pending(), 0);
}

#[tokio::test]
async fn the_end_before_done_waits_for_it() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    let pending = stage.all.open(&site, false);
    let token = pending.token();
    let mut php = stage.connect(&site);
    let waiting = tokio::spawn(pending.finished(true));
    tokio::task::yield_now().await;
    say(&mut php, &done(&token, Some("cart"), None));
    let closing = waiting.await.expect("no panic");
    assert_eq!(
        (closing.done, closing.because.as_deref(), closing.affirmation),
        (true, Some("cart"), None)
    );
    assert_eq!(stage.all.silences(), 0);
}

#[tokio::test]
async fn silence_is_no_affirmation_and_purges_what_may_have_been_written() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.store(&site);
    assert_eq!(stage.all.open(&site, true).finished(true).await, Closing::default());
    assert!(stage.is_fresh(&site), "a safe request that said nothing purges nothing");
    let began = Instant::now();
    stage.all.open(&site, false).finished(true).await;
    assert!(began.elapsed() >= PATIENCE);
    assert!(!stage.is_fresh(&site), "an unsafe one does");
}

#[tokio::test]
async fn a_worker_that_dies_after_it_wrote_purges_its_site_at_once() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    stage.store(&site);
    let pending = stage.all.open(&site, true);
    let mut php = stage.connect(&site);
    say(&mut php, &Message::Writing { request: pending.token() });
    until("it was heard", || stage.all.counts().messages == 1).await;
    drop(php);
    let began = Instant::now();
    pending.finished(true).await;
    assert!(began.elapsed() < PATIENCE / 2, "nobody is left to wait for");
    until("the site is purged", || !stage.is_fresh(&site)).await;
    until("it is counted once", || stage.all.silences() == 1).await;
}

#[tokio::test]
async fn a_word_that_is_heard_after_its_request_is_forgotten_still_counts() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    stage.store(&site);
    let pending = stage.all.open(&site, true);
    let token = pending.token();
    pending.finished(false).await;
    let mut php = stage.connect(&site);
    say(&mut php, &Message::Writing { request: token });
    drop(php);
    until("the site is purged", || !stage.is_fresh(&site)).await;
}

#[tokio::test]
async fn a_dropped_request_that_could_write_purges_its_site() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.store(&site);
    drop(stage.all.open(&site, true));
    assert!(stage.is_fresh(&site));
    drop(stage.all.open(&site, false));
    assert!(!stage.is_fresh(&site));
}

#[tokio::test]
async fn a_client_that_leaves_does_not_purge_the_site() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    stage.store(&site);
    let pending = stage.all.open(&site, false);
    let mut php = stage.connect(&site);
    say(&mut php, &Message::Writing { request: pending.token() });
    let token = pending.token();
    let left = tokio::spawn(pending.abandoned());
    tokio::time::sleep(PATIENCE + PATIENCE / 10).await;
    say(&mut php, &done(&token, None, None));
    assert!(left.await.expect("no panic").done);
    assert!(stage.is_fresh(&site));
    let pending = stage.all.open(&site, false);
    say(&mut php, &Message::Writing { request: pending.token() });
    until("it was heard", || stage.all.counts().messages == 3).await;
    drop(php);
    assert!(!pending.abandoned().await.done, "a worker that dies hangs up");
    until("the site is purged", || !stage.is_fresh(&site)).await;
}

#[tokio::test]
async fn a_site_speaks_for_itself_only() {
    let stage = Stage::new();
    let (blog, shop) = (stage.site("blog"), stage.site("shop"));
    stage.serve(&shop, uid());
    stage.store(&blog);
    let pending = stage.all.open(&blog, true);
    let mut php = stage.connect(&shop);
    say(&mut php, &Message::Purge { request: None, purge: cache::all() });
    say(&mut php, &Message::Writing { request: pending.token() });
    say(&mut php, &done(&pending.token(), None, Some(cache::all())));
    until("all was heard", || stage.all.counts().messages == 3).await;
    assert!(stage.is_fresh(&blog));
    assert_eq!(pending.finished(true).await, Closing::default());
    assert!(stage.is_fresh(&blog));
}

#[tokio::test]
async fn a_stranger_is_turned_away() {
    if uid() == 0 {
        // Root may speak for every site; the rule for others is shown by a process of another user.
        return strangers_of_another_user().await;
    }
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid() + 1);
    let _php = stage.connect(&site);
    until("it was turned away", || stage.all.counts().strangers == 1).await;
}

async fn strangers_of_another_user() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, 65_533);
    for path in [stage.folder.path().to_owned(), stage.path(&site)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
            .expect("opened to all");
    }
    let script =
        format!("$s = stream_socket_client('unix://{}'); fgets($s);", stage.path(&site).display());
    let spawned = std::process::Command::new("php")
        .args(["-n", "-r", &script])
        .uid(65_534)
        .gid(65_534)
        .spawn();
    let Ok(mut child) = spawned else { return };
    until("it was turned away", || stage.all.counts().strangers == 1).await;
    assert_eq!(stage.all.counts().accepted, 0);
    child.wait().expect("it ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_answered_by_a_receipt_after_which_nothing_is_fresh() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    stage.store(&site);
    let mut php = stage.connect(&site);
    let purge = Purge { tags: vec!["front".into()], ..Purge::default() };
    say(&mut php, &Message::Purge { request: None, purge });
    let mut line = String::new();
    BufReader::new(&php).read_line(&mut line).expect("a receipt");
    let receipt: Receipt = serde_json::from_str(&line).expect("json");
    assert_eq!((receipt.ok, receipt.pages, receipt.position), (true, 1, 1));
    assert!(!stage.is_fresh(&site));
    php.write_all(b"{\"say\":\"purge\",\"tags\":[\"a\"],\"new\":1}\n\n").expect("said");
    line.clear();
    BufReader::new(&php).read_line(&mut line).expect("a receipt");
    assert!(line.contains("\"position\":2"), "unknown fields are ignored: {line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_hurts_its_own_connection_only() {
    let stage = Stage::new();
    let site = stage.site("blog");
    stage.serve(&site, uid());
    let mut long = stage.connect(&site);
    let flood = vec![b'x'; 1 << 16];
    // The edge closes in the middle of the line, which the writer sees as an error.
    while long.write_all(&flood).is_ok() {}
    let mut noisy = stage.connect(&site);
    for _ in 0..20 {
        if noisy.write_all(b"\xff\xfe{]\n").is_err() {
            break;
        }
    }
    until("both were turned away", || stage.all.counts().garbage >= 10).await;
    let mut php = stage.connect(&site);
    let pending = stage.all.open(&site, true);
    let text = serde_json::to_vec(&done(&pending.token(), None, None)).expect("json");
    for byte in text {
        php.write_all(&[byte]).expect("said slowly");
    }
    php.write_all(b"\n").expect("said");
    assert!(pending.finished(true).await.done);
}

#[test]
fn a_token_is_well_formed_or_nothing() {
    assert_eq!(number("0000000000000000000000000000000f"), Some(15));
    for bad in ["", "f", "+000000000000000000000000000000f", "g000000000000000000000000000000f"] {
        assert_eq!(number(bad), None, "{bad}");
    }
}
