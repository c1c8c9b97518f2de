//! What this node says of itself, under a lease: when the agent or the machine dies, the others know within seconds.

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::cluster::{Report, SiteReport};
use pressroom_model::verdict::Health;
use pressroom_plan::machine::{EDGE, MARIADB, REDIS_CACHE, REDIS_SESSIONS, instance_of};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::transaction::Transaction;
use pressroom_store::{LeaseId, StoreError};

use super::{Cluster, keys};
use crate::agent::{Agent, State};
use crate::engine::FINGERPRINT;

/// A node that was not heard of for so long is down.
pub const TTL: Duration = Duration::from_secs(6);
/// The lease is renewed so often, and the report written again at the latest, for its clock.
const RENEWAL: Duration = Duration::from_secs(2);
/// Between two looks whether something changed.
const LOOK: Duration = Duration::from_millis(100);

impl Agent {
    /// Reports for as long as the agent runs.
    pub(crate) async fn be_present(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let mut lease = None;
        while !shutdown.is_requested() {
            if let Err(error) = self.report_for_a_lease(&cluster, &mut lease, &shutdown).await {
                tracing::debug!(%error, "the report cannot be stored");
                tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(RENEWAL / 2) => {} }
            }
        }
        // Stopped is not lost: the others need not wait.
        if let Some(lease) = lease {
            let _ = tokio::time::timeout(RENEWAL, self.store.revoke(lease)).await;
        }
    }

    async fn report_for_a_lease(
        &self,
        cluster: &Cluster,
        held: &mut Option<LeaseId>,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        let lease = self.store.grant(TTL).await?;
        *held = Some(lease.id);
        let key = keys::report(&cluster.membership().node);
        let (mut last, mut renewed) = (None, clock::now());
        while !shutdown.is_requested() {
            let report = self.own_report();
            let is_old = clock::now() >= renewed + RENEWAL;
            if is_old {
                self.store.keep_alive(lease.id).await?;
                renewed = clock::now();
            }
            if is_old || last.as_ref() != Some(&report) {
                let stamped = Report { at_ms: clock::wall_ms(), ..report.clone() };
                let text = serde_json::to_vec(&stamped).expect("plain data");
                self.store
                    .commit(Transaction::new().put_leased(key.clone(), text, lease.id))
                    .await?;
                last = Some(report);
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
        Ok(())
    }

    /// What there is to say; without the time.
    pub(crate) fn own_report(&self) -> Report {
        let has_data = self.has_data();
        let certificate = self.cluster.as_ref().map(|it| it.wire.identity().validity());
        let now = clock::wall_ms() / 1000;
        let state = self.state.lock();
        let answers = |name: &str| health(&state, name).is_some_and(Health::is_serving);
        Report {
            program: env!("CARGO_PKG_VERSION").into(),
            at_ms: 0,
            edge: health(&state, EDGE),
            data: has_data.then(|| [MARIADB, REDIS_CACHE, REDIS_SESSIONS].into_iter().all(answers)),
            certificate_until_ms: certificate.map_or(0, |it| it.until * 1000),
            is_certificate_late: certificate.is_some_and(|it| it.is_late(now)),
            memory_mib: Some(self.memory.get() >> 20),
            addresses: state.floating.held(),
            refused: state.floating.refused(),
            media_waiting: self.media.store.about_waiting(),
            sites: sites(&state),
        }
    }
}

fn health(state: &State, name: &str) -> Option<Health> {
    let process = state.processes.iter().find(|process| process.spec.name == name)?;
    let (pid, memory) = state.verdicts.get(name)?;
    (process.pid == Some(*pid)).then_some(memory.verdict.health)
}

fn sites(state: &State) -> std::collections::BTreeMap<pressroom_model::id::SiteName, SiteReport> {
    let config = state.config.iter().flat_map(|config| &config.sites);
    let is_served = state.is_view_served();
    config
        .map(|site| {
            let mut report = SiteReport {
                is_ready: state.ready.get(&site.name).is_some_and(|it| it.health.is_serving()),
                workers: site.php.workers,
                ..SiteReport::default()
            };
            if is_served && let Some((fingerprint, release)) = state.shown.get(&site.name) {
                report.serves = Some(fingerprint.clone());
                report.release = Some(release.clone());
            }
            for process in &state.processes {
                let is_its =
                    instance_of(&process.spec.name).is_some_and(|id| id.site() == site.name);
                let version = process.spec.env.get(FINGERPRINT);
                let answers = !process.is_stopping
                    && health(state, &process.spec.name).is_some_and(Health::is_serving);
                if let Some(version) = version.filter(|_| is_its && answers) {
                    *report.instances.entry(version.clone()).or_default() += 1;
                }
            }
            (site.name.clone(), report)
        })
        .collect()
}
