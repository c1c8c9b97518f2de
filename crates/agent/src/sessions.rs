//! Looking after the memory of the sessions: one site must not fill it for all.
//!
//! Usually a look is one `INFO`. Only when memory is short, or a site is held back, it is counted what each site holds, in
//! batches between which the server answers others, and then not again for ten times as long as that took. What follows is
//! decided by [`pressroom_plan::sessions`]: the loop tells Redis the new rights as it tells it about new sites, by the file
//! of users. That file also remembers who is held back when an agent dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::config::Config;
use pressroom_model::id::SiteName;
use pressroom_model::unit::ByteSize;
use pressroom_plan::sessions::{self, Decision, Memory};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;

use crate::agent::Agent;
use crate::engine::Error;
use crate::engine::redis::Redis;

const LOOK: Duration = Duration::from_secs(1);

/// A count may take a tenth of the time.
const REST: u32 = 10;

/// One look at the sessions server, and what follows; nothing when there is plenty. The server has got its room then.
pub async fn look(
    redis: &Redis,
    sites: &[SiteName],
    before: &BTreeSet<SiteName>,
) -> Result<(Memory, Decision), Error> {
    let (used, room) = redis.memory().await?;
    let memory = Memory { used, limit: redis.limit() };
    let decision = if sessions::is_worth_counting(memory, before) {
        let counted = redis.holdings().await?;
        let held: BTreeMap<SiteName, ByteSize> = sites
            .iter()
            .map(|site| {
                let held = counted.get(site.as_str()).copied().unwrap_or_default();
                (site.clone(), ByteSize::bytes(held))
            })
            .collect();
        sessions::decide(memory, &held, before)
    } else {
        Decision { held_back: BTreeMap::new(), room: memory.limit }
    };
    if room != decision.room {
        redis.make_room(decision.room).await?;
    }
    Ok((memory, decision))
}

impl Agent {
    /// Looks for as long as the agent runs.
    pub(crate) async fn watch_sessions(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            let began = clock::now();
            if self.has_data()
                && let Some(config) = self.config()
                && let Ok(engines) = self.engines(&config)
                && let Err(error) = self.look_at_sessions(&config, &engines.redis[1]).await
            {
                // It does not run yet, or its probe says the same more loudly.
                tracing::debug!(%error, "cannot look at the memory of the sessions");
            }
            let pause = LOOK.max(began.elapsed() * REST);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    async fn look_at_sessions(&self, config: &Config, redis: &Redis) -> Result<(), Error> {
        let sites: Vec<SiteName> = config.sites.iter().map(|site| site.name.clone()).collect();
        let before = self.state.lock().held_back.clone();
        let (memory, decision) = look(redis, &sites, &before).await?;
        let after: BTreeSet<SiteName> = decision.held_back.keys().cloned().collect();
        for (site, holding) in &decision.held_back {
            if !before.contains(site) {
                let notice = sessions::notice(site, *holding, memory);
                tracing::warn!(%site, "{notice}");
                self.notice(notice);
            }
        }
        for site in before.difference(&after).filter(|site| sites.contains(site)) {
            self.notice(format!("`{site}` may make sessions again: it holds less than its share"));
        }
        let words: Vec<_> = decision
            .held_back
            .iter()
            .map(|(site, holding)| sessions::words(site, *holding))
            .collect();
        let mut state = self.state.lock();
        state.held_back_because = words.join("; ");
        if state.held_back != after {
            state.held_back = after;
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
    }
}
