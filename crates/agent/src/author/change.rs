//! One change of a site's code, from its turn to the end of PHP: nobody else changes the code meanwhile.
//!
//! PHP goes on whoever leaves: the client, the edge, this agent. The edge has its connection to PHP from us and we keep it open as
//! well; when the edge is gone we read the rest for nobody. That a change is under way is stored before it begins, so the
//! agent after one that died in the middle has the site's turn from its first moment until PHP has ended, and hears at the desk
//! what PHP has to say.
//!
//! Always: a turn ends when PHP has, or after [`LONGEST`], when php-fpm has ended PHP; then what was not named is put right.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::id::SiteName;
use pressroom_plan::health::Answer;
use pressroom_runtime::clock;
use pressroom_runtime::handover::{self, hung_up};
use pressroom_runtime::tasks::Group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{LONGEST, STAYS_MS, Turn, is_scratch};
use crate::agent::Agent;
use crate::engine::php;
use crate::facts::SiteFacts;

/// How often it is looked whether PHP has ended, where no connection tells.
const LOOK: Duration = Duration::from_millis(20);

/// A change that is under way: the desk hears it, and nobody else has the turn.
pub(crate) struct Change {
    agent: Arc<Agent>,
    name: SiteName,
    _turn: Turn,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.agent.authors.at_work.lock().remove(&self.name);
    }
}

impl Agent {
    /// A request that changes code: its turn, the author instance, the request itself, and its end.
    pub(super) async fn serve_change(
        self: &Arc<Self>,
        name: &SiteName,
        mut edge: UnixStream,
    ) -> io::Result<()> {
        let begun = clock::now();
        let turn = tokio::select! {
            biased;
            // Whoever left before it began wants nothing any more.
            left = hung_up(&edge) => return left,
            turn = self.turn(name) => turn,
        };
        let turn_ms = ms(begun);
        let change = match self.begin_change(name, turn).await {
            Ok(change) => change,
            Err(error) => {
                handover::give_nothing(&mut edge).await?;
                return Err(error);
            }
        };
        let copy_ms = ms(begun);
        let served = match self.author_socket(name).await {
            Ok(php) => {
                let php_ms = ms(begun);
                let served = self.serve_php(&edge, php).await;
                tracing::info!(site = %name, turn_ms, copy_ms, php_ms, ms = ms(begun), "the author instance answered");
                served
            }
            Err(error) => handover::give_nothing(&mut edge).await.and(Err(error)),
        };
        self.end_change(change).await?;
        served
    }

    /// Gives the edge its connection to PHP, and waits for PHP's end, though the edge may leave before.
    async fn serve_php(&self, edge: &UnixStream, mut php: UnixStream) -> io::Result<()> {
        handover::give(edge, &php).await?;
        let ends = async {
            tokio::select! {
                ended = hung_up(&php) => return ended,
                left = hung_up(edge) => left?,
            }
            // A request that has not come whole must not be waited for.
            php.shutdown().await?;
            let mut rest = vec![0; 16 << 10];
            while php.read(&mut rest).await? > 0 {}
            Ok(())
        };
        tokio::time::timeout(LONGEST.get(), ends).await.unwrap_or_else(|_| {
            let seconds = LONGEST.get().as_secs();
            Err(io::Error::other(format!("PHP has not ended within {seconds} s")))
        })
    }

    /// Begins a change, with the copy equal to the serving release.
    pub(super) async fn begin_change(
        self: &Arc<Self>,
        name: &SiteName,
        turn: Turn,
    ) -> io::Result<Change> {
        self.want_author(name);
        self.renew_copy(name, None).await.map_err(io::Error::other)?;
        self.authors.at_work.lock().insert(name.clone());
        let change = Change { agent: Arc::clone(self), name: name.clone(), _turn: turn };
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let version = self.author_version(&facts).map_err(io::Error::other)?;
        let noted = self.note_change(name, version.map(|version| version.fingerprint)).await;
        if noted.is_err() {
            self.state.lock().sites.entry(name.clone()).or_default().change = None;
        }
        noted.map(|()| change)
    }

    /// Waits until PHP has ended, puts right what was written and not named, and ends the turn.
    pub(super) async fn end_change(&self, change: Change) -> io::Result<()> {
        let name = &change.name;
        self.until_idle(name, clock::now() + LONGEST.get()).await;
        self.want_author(name);
        let renewed = self.renew_copy(name, None).await.map_err(io::Error::other);
        // Whatever became of the copy: this change is over.
        self.note_change(name, None).await?;
        let others = renewed?;
        let others: Vec<&String> = others.iter().filter(|path| !is_scratch(path)).collect();
        if !others.is_empty() {
            let few: Vec<String> = others.iter().take(5).map(|path| format!("`{path}`")).collect();
            self.notice(format!(
                "`{name}`: while code was changed in wp-admin, {} other files were written ({}); they were put right",
                others.len(),
                few.join(", ")
            ));
        }
        Ok(())
    }

    async fn note_change(&self, name: &SiteName, change: Option<String>) -> io::Result<()> {
        if self.site(name).is_none() {
            return Ok(());
        }
        self.state.lock().sites.entry(name.clone()).or_default().change = change;
        self.remember(name).await.map_err(io::Error::other)
    }

    /// Waits until no worker of the author instance has a request: PHP may go on after its answer.
    async fn until_idle(&self, name: &SiteName, until: Instant) {
        loop {
            let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
            let Some(id) = self.change_instance(name, &facts) else { return };
            let (answer, busy) = php::probe(&self.layout, &id).await;
            if busy == 0 && answer == Answer::Well {
                return;
            }
            if clock::now() > until {
                self.notice(format!("`{name}`: PHP of a change in wp-admin has not ended"));
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The instance that a change runs on, if it is there.
    fn change_instance(
        &self,
        name: &SiteName,
        facts: &SiteFacts,
    ) -> Option<pressroom_model::id::InstanceId> {
        let fingerprint = facts.change.as_deref()?;
        self.one_with(name, fingerprint)
    }

    /// Takes the turns of sites whose code was being changed when the agent before this one ended. Called before anybody else
    /// can ask for a turn.
    pub(crate) fn take_up_changes(self: &Arc<Self>) {
        let names: Vec<SiteName> = {
            let mut state = self.state.lock();
            let under_way = state.sites.iter_mut().filter(|(_, facts)| facts.change.is_some());
            let kept = under_way.map(|(name, facts)| {
                facts.author_until_ms = clock::wall_ms() + STAYS_MS;
                name.clone()
            });
            kept.collect()
        };
        for name in names {
            let Some(turn) = self.try_turn(&name) else { continue };
            self.authors.at_work.lock().insert(name.clone());
            let change = Change { agent: Arc::clone(self), name: name.clone(), _turn: turn };
            self.authors.taken_up.lock().insert(name, change);
        }
    }

    /// Ends the changes that were taken up, each when PHP has ended.
    pub(super) fn end_taken_up(self: &Arc<Self>, group: &Group) {
        let ready: Vec<Change> = {
            let mut taken_up = self.authors.taken_up.lock();
            let names: Vec<SiteName> =
                taken_up.keys().filter(|name| self.has_code(name)).cloned().collect();
            names.iter().filter_map(|name| taken_up.remove(name)).collect()
        };
        for change in ready {
            let agent = Arc::clone(self);
            group.spawn("change taken up", move |_| async move {
                let name = change.name.clone();
                // The keeper knows what runs; we may not have heard it yet.
                if let Err(error) = agent.look_at_processes().await {
                    tracing::warn!(site = %name, %error, "the keeper does not answer");
                }
                if let Err(error) = agent.end_change(change).await {
                    agent.notice(format!("`{name}`: a change in wp-admin was cut off: {error}"));
                }
            });
        }
    }
}

fn ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
