//! The cron loop's way to this machine's sites.

use std::sync::Arc;

use pressroom_agent::agent::Agent;
use pressroom_control::cron::{Later, Next, Runner};
use pressroom_model::config::Site;
use pressroom_model::id::SiteName;

/// The sites of this machine.
pub(crate) struct Sites(pub(crate) Arc<Agent>);

impl Runner for Sites {
    fn sites(&self) -> Vec<SiteName> {
        // One node's affair.
        if !self.0.leads() {
            return Vec::new();
        }
        let config = self.0.config();
        let sites = config.iter().flat_map(|config| &config.sites);
        // An environment's events rest, unless its operator wanted them.
        let runs = |site: &&Site| site.environment.as_ref().is_none_or(|it| it.cron);
        sites.filter(runs).map(|site| site.name.clone()).collect()
    }

    fn next_events<'a>(&'a self, site: &'a SiteName) -> Later<'a, Vec<Next>> {
        Box::pin(async move {
            let next = self.0.next_cron_events(site).await.map_err(|error| error.to_string())?;
            Ok(next.into_iter().map(|(blog, at)| Next { blog, at }).collect())
        })
    }

    fn run<'a>(&'a self, site: &'a SiteName, blog: u64) -> Later<'a, ()> {
        Box::pin(async move {
            // The next leader finds what is cut off here, and may run it again: not while it runs here.
            tokio::select! {
                // Asked first: a run that must not be is not even begun.
                biased;
                () = self.0.deposed() => Err("this node leads no more: the run was ended".into()),
                ran = self.0.run_cron(site, blog) => ran.map_err(|error| error.to_string()),
            }
        })
    }
}
