//! The cron loop: looks every second when each site's next event is due, and runs the site's cron at that time.
//!
//! One run of a site at a time. Within a run WordPress's own lock keeps a visitor of `/wp-cron.php` out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::id::SiteName;
use pressroom_plan::cron::{Memory, is_due};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::sync::mpsc;

/// A future answer.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Where sites run.
pub trait Runner: Send + Sync + 'static {
    /// All sites that can run.
    fn sites(&self) -> Vec<SiteName>;
    /// When a site's next event is due, seconds since 1970.
    fn next_event<'a>(&'a self, site: &'a SiteName) -> Later<'a, Option<u64>>;
    /// Runs all due events of a site; returns when they have ended.
    fn run<'a>(&'a self, site: &'a SiteName) -> Later<'a, ()>;
}

const LOOK: Duration = Duration::from_millis(500);

/// Runs until told to stop; runs under way are waited for.
pub async fn run(runner: Arc<dyn Runner>, shutdown: Shutdown) {
    let group = Group::new("cron", shutdown.clone());
    let mut memories: BTreeMap<SiteName, Memory> = BTreeMap::new();
    let (ended, mut endings) = mpsc::channel::<(SiteName, bool)>(64);
    while !shutdown.is_requested() {
        let sites = runner.sites();
        memories.retain(|site, memory| memory.is_running || sites.contains(site));
        for site in sites {
            let memory = memories.entry(site.clone()).or_default();
            if memory.is_running {
                continue;
            }
            let next = match runner.next_event(&site).await {
                Ok(next) => next,
                // The database is away: it says so itself, and the events wait.
                Err(error) => {
                    tracing::debug!(%site, error, "cannot look for cron events");
                    continue;
                }
            };
            let Some(because) = is_due(next, memory, clock::wall_ms()) else { continue };
            memory.is_running = true;
            let (runner, ended) = (Arc::clone(&runner), ended.clone());
            group.spawn(format!("cron of {site}"), move |_| async move {
                let result = runner.run(&site).await;
                match &result {
                    Ok(()) => tracing::info!(%site, because, "cron ran"),
                    Err(error) => {
                        tracing::error!(%site, error, "cron failed; it will be tried again");
                    }
                }
                // The loop ends first only when nobody needs to know any more.
                let _ = ended.send((site, result.is_ok())).await;
            });
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(LOOK) => {}
            Some((site, is_good)) = endings.recv() => {
                let failures = memories.get(&site).map_or(0, |memory| memory.failures);
                let memory = Memory {
                    is_running: false,
                    failures: if is_good { 0 } else { failures + 1 },
                    ended_ms: clock::wall_ms(),
                };
                memories.insert(site, memory);
            }
        }
    }
    group.finish(Duration::from_secs(30)).await;
}
