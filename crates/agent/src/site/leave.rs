//! Environments that leave: nothing of them may be left, whenever the agent that deletes them ends.
//!
//! Which ones leave is part of the intent, in the same transaction that takes an environment out of it; one that is being made is
//! among them, too, until it is wanted. So what was begun is finished by the agent after this one, without anybody asking.

use std::time::Duration;

use pressroom_model::id::SiteName;
use pressroom_plan::machine::instance_of;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;

use super::Error;
use crate::agent::Agent;
use crate::keeper;
use crate::view;

/// How often it is looked who leaves.
const LOOK: Duration = Duration::from_millis(100);
/// Longest pause after a deletion that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Its processes end in this time, or are killed by the keeper.
const STOP: Duration = Duration::from_secs(120);

impl Agent {
    /// Takes an environment out of the intent, and returns when nothing of it is left. The first failure is returned;
    /// the deletion is tried again all the same.
    pub async fn remove_environment(&self, name: &SiteName) -> Result<(), Error> {
        self.change_environments(|environments, leaving| {
            environments.retain(|known| known.site_name().as_ref() != Ok(name));
            leaving.insert(name.clone());
        })
        .await?;
        self.see_off(name).await
    }

    /// Deletes environments that leave, until shutdown.
    pub(crate) async fn watch_leavers(self: std::sync::Arc<Self>, shutdown: Shutdown) {
        let mut pause = LOOK;
        while !shutdown.is_requested() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => return,
            }
            pause = LOOK;
            let leads = self.leads();
            let leaving = {
                let state = self.state.lock();
                match !leads || state.is_stopping || state.keeper.is_none() {
                    true => continue,
                    false => state.leaving.clone(),
                }
            };
            for name in leaving {
                if let Err(error) = self.see_off(&name).await {
                    self.notice(format!(
                        "`{name}` could not be deleted whole: {error}; it is tried again"
                    ));
                    pause = LONGEST_PAUSE;
                }
            }
        }
    }

    /// Deletes everything of an environment that leaves, once nothing of it runs.
    async fn see_off(&self, name: &SiteName) -> Result<(), Error> {
        let _alone = self.making.lock().await;
        if !self.state.lock().leaving.contains(name) {
            return Ok(());
        }
        // A script that is at work for it need not come to its end.
        keeper::end_limit(self.layout.data(), name.as_str());
        let until = clock::now() + STOP;
        while self.is_about(name) && clock::now() < until {
            tokio::time::sleep(LOOK / 4).await;
        }
        self.clear_site(name).await?;
        self.clear_traces(name)?;
        self.change_environments(|_, leaving| leaving.retain(|known| known != name)).await?;
        Ok(())
    }

    /// Whether anything of it runs, is done for it, or is served.
    fn is_about(&self, name: &SiteName) -> bool {
        let state = self.state.lock();
        let is_of = |process: &str| instance_of(process).is_some_and(|id| id.site() == *name);
        let view = view::published(&self.layout);
        let is_served = view.is_some_and(|view| view.sites.iter().any(|site| site.name == *name));
        is_served
            || !state.is_view_served()
            || state.processes.iter().any(|process| is_of(&process.spec.name))
            || state.running.iter().any(|action| action.site().as_ref() == Some(name))
    }
}
