//! The cron loop: looks twice a second when each blog's next event is due, and runs the blog's cron at that time.
//!
//! A site without a network is one blog. One run of a blog at a time, a few of a site: a blog whose events take long, or
//! die, holds up itself and not its neighbours. Within a run WordPress's own lock keeps a visitor of `/wp-cron.php` out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::id::SiteName;
use pressroom_plan::cron::{Memory, is_due};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::sync::mpsc;

/// A future answer.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// When something is due in a blog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// WordPress's number of the blog; 1 in a site without a network.
    pub blog: u64,
    /// When its earliest event is due, seconds since 1970.
    pub at: u64,
}

/// Where sites run.
pub trait Runner: Send + Sync + 'static {
    /// All sites that can run.
    fn sites(&self) -> Vec<SiteName>;
    /// The next event of each blog of a site that has one.
    fn next_events<'a>(&'a self, site: &'a SiteName) -> Later<'a, Vec<Next>>;
    /// Runs all due events of a blog; returns when they have ended.
    fn run<'a>(&'a self, site: &'a SiteName, blog: u64) -> Later<'a, ()>;
}

const LOOK: Duration = Duration::from_millis(500);
/// A look at hundreds of blogs takes a while: the next one waits for this many times as long.
const PATIENCE: u32 = 50;
/// So many blogs of a site run at once: each is a PHP process.
const AT_ONCE: usize = 4;

/// A blog of a site.
type Blog = (SiteName, u64);

/// What the last look at a site saw, and when the next one is.
#[derive(Debug, Default)]
struct Look {
    next: Vec<Next>,
    again: Option<Instant>,
}

/// Runs until told to stop; runs under way are waited for.
pub async fn run(runner: Arc<dyn Runner>, shutdown: Shutdown) {
    let group = Group::new("cron", shutdown.clone());
    let mut memories: BTreeMap<Blog, Memory> = BTreeMap::new();
    let mut looks: BTreeMap<SiteName, Look> = BTreeMap::new();
    let (ended, mut endings) = mpsc::channel::<(Blog, bool)>(64);
    while !shutdown.is_requested() {
        let sites = runner.sites();
        memories.retain(|(site, _), memory| memory.is_running || sites.contains(site));
        looks.retain(|site, _| sites.contains(site));
        for site in sites {
            let look = looks.entry(site.clone()).or_default();
            if free(&memories, &site) == 0 {
                continue;
            }
            if look.again.is_none_or(|again| clock::now() >= again) {
                match see(&*runner, &site).await {
                    Ok(seen) => {
                        *look = seen;
                        memories.retain(|(of, blog), memory| {
                            *of != site || memory.is_running || look.has(*blog)
                        });
                    }
                    // The database is away: it says so itself, and the events wait.
                    Err(error) => {
                        tracing::debug!(%site, error, "cannot look for cron events");
                        continue;
                    }
                }
            }
            for (blog, because) in due(&mut memories, &site, look, clock::wall_ms()) {
                let (runner, ended, site) = (Arc::clone(&runner), ended.clone(), site.clone());
                group.spawn(format!("cron of {site}, blog {blog}"), move |_| async move {
                    let result = runner.run(&site, blog).await;
                    match &result {
                        Ok(()) => tracing::info!(%site, blog, because, "cron ran"),
                        Err(error) => {
                            tracing::error!(%site, blog, error, "cron failed; it will be tried again");
                        }
                    }
                    // The loop ends first only when nobody needs to know any more.
                    let _ = ended.send(((site, blog), result.is_ok())).await;
                });
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(LOOK) => {}
            Some((blog, is_good)) = endings.recv() => {
                // What it had is done; what it has now, the next look says.
                if let Some(look) = looks.get_mut(&blog.0) {
                    look.next.retain(|next| next.blog != blog.1);
                }
                let failures = memories.get(&blog).map_or(0, |memory| memory.failures);
                let memory = Memory {
                    is_running: false,
                    failures: if is_good { 0 } else { failures + 1 },
                    ended_ms: clock::wall_ms(),
                };
                memories.insert(blog, memory);
            }
        }
    }
    group.finish(Duration::from_secs(30)).await;
}

impl Look {
    fn has(&self, blog: u64) -> bool {
        self.next.iter().any(|next| next.blog == blog)
    }
}

/// Looks at a site; the longest overdue blogs come first.
async fn see(runner: &dyn Runner, site: &SiteName) -> Result<Look, String> {
    let began = clock::now();
    let mut next = runner.next_events(site).await?;
    next.sort_by_key(|next| next.at);
    let pause = (began.elapsed() * PATIENCE).clamp(LOOK / 2, LOOK * 10);
    Ok(Look { next, again: Some(clock::now() + pause) })
}

/// How many more blogs of a site may run.
fn free(memories: &BTreeMap<Blog, Memory>, site: &SiteName) -> usize {
    let running =
        memories.iter().filter(|((of, _), memory)| of == site && memory.is_running).count();
    AT_ONCE.saturating_sub(running)
}

/// The blogs of a site to run now and why; they are remembered as running.
fn due(
    memories: &mut BTreeMap<Blog, Memory>,
    site: &SiteName,
    look: &Look,
    now_ms: u64,
) -> Vec<(u64, String)> {
    let mut due = Vec::new();
    for Next { blog, at } in &look.next {
        if free(memories, site) == 0 {
            break;
        }
        let memory = memories.entry((site.clone(), *blog)).or_default();
        if let Some(because) = is_due(Some(*at), memory, now_ms) {
            memory.is_running = true;
            due.push((*blog, because));
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_blogs_run_at_once_and_one_that_failed_holds_up_nobody() {
        let site: SiteName = "net".parse().expect("a good name");
        let mut memories = BTreeMap::new();
        let next = (1..=9).map(|blog| Next { blog, at: blog }).collect();
        let look = Look { next, again: None };
        let ran = |memories: &mut _| -> Vec<u64> {
            due(memories, &site, &look, 100_000).into_iter().map(|(blog, _)| blog).collect()
        };
        assert_eq!(ran(&mut memories), [1, 2, 3, 4]);
        assert_eq!(ran(&mut memories), [0; 0]);
        let failed = Memory { is_running: false, failures: 2, ended_ms: 99_900 };
        memories.insert((site.clone(), 1), failed);
        assert_eq!(ran(&mut memories), [5]);
    }
}
