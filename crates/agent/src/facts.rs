//! What the agent knows of a site beyond its configuration; most of it outlives the agent, in the store.
//!
//! A site has a release that it *should* have, and a version that *serves*; they differ while a rollout is under way, or
//! after it was refused. Every step of a rollout is stored before the next one begins, so an agent that dies in
//! between goes on where it was.

use std::path::PathBuf;

use pressroom_model::config::{Config, Site};
use pressroom_model::id::ReleaseId;
use pressroom_model::rollout::Stage;
use pressroom_model::text::plain;
use pressroom_plan::retention;
use serde::{Deserialize, Serialize};

/// What is known of a site beyond its configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SiteFacts {
    /// The release that it should have, and what that was made from.
    #[serde(default)]
    pub release: Option<Release>,
    /// The version that visitors get.
    #[serde(default)]
    pub serving: Option<Version>,
    /// The version that is on its way.
    #[serde(default)]
    pub candidate: Option<Candidate>,
    /// The version that served before.
    #[serde(default)]
    pub parked: Option<Parked>,
    /// The version that failed last.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// While its code is being changed in wp-admin: the fingerprint of the author instance.
    #[serde(default)]
    pub change: Option<String>,
    /// What the author instance published last.
    #[serde(default)]
    pub published: Option<Published>,
    /// Releases that served it, the last one first.
    #[serde(default)]
    pub releases: Vec<Kept>,
    /// The commit that its git history begins with, once there is one: what another node has is of this site if it builds on that.
    #[serde(default)]
    pub history: Option<String>,
    /// WordPress is in its database.
    #[serde(default)]
    pub is_installed: bool,
    /// The WordPress to which its tables were brought last.
    #[serde(default)]
    pub schema_of: Option<String>,
    /// What WordPress did to its tables and was not undone, the last time last.
    #[serde(default)]
    pub upgrades: Vec<Upgrade>,
    /// The kind of network that is in its database and the address that its blogs were given last; see
    /// [`crate::site::network_at`].
    #[serde(default)]
    pub network: Option<String>,
    /// The administrator of an environment.
    #[serde(default)]
    pub admin: Option<String>,
    /// User, folders and secrets were made for this configuration, in this agent's life.
    #[serde(skip)]
    pub prepared: Option<Prepared>,
    /// Its database and user are known to be there.
    #[serde(skip)]
    pub has_database: bool,
    /// The release that was made last and is to be wanted soon: it must not be collected meanwhile.
    #[serde(skip)]
    pub brought: Option<ReleaseId>,
    /// Until when its author instance is wanted, milliseconds since 1970.
    #[serde(skip)]
    pub author_until_ms: u64,
}

/// WordPress changed its tables because another WordPress serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The version of the tables before.
    pub from: u64,
    /// The version of the tables after.
    pub to: u64,
    /// The WordPress that it was done for.
    pub wordpress: String,
    /// What they were before.
    pub dump: PathBuf,
}

/// So many are remembered.
const UPGRADES: usize = 10;

/// What an instance runs: a release with PHP settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name: changes with everything that needs other instances.
    pub fingerprint: String,
    /// The site's configuration in it.
    pub site: Site,
    /// Its code.
    pub release: Release,
    /// It is the author instance's: its code is that release at first, and is written.
    #[serde(default)]
    pub is_author: bool,
    /// How its processes are confined.
    #[serde(default)]
    pub means: crate::confinement::Means,
    /// The image that its instances are containers of, if they are.
    #[serde(default)]
    pub image: Option<String>,
}

/// A version on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub version: Version,
    /// How far it is.
    pub stage: Stage,
    /// Since when at that stage, milliseconds since 1970.
    pub since_ms: u64,
}

/// A version that served until lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Which.
    pub version: Version,
    /// Until when its instances are kept, milliseconds since 1970.
    pub until_ms: u64,
}

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its code.
    pub release: ReleaseId,
    /// Why.
    pub because: String,
}

/// What the author instance published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// How PHP calls it.
    pub id: String,
    /// The release that it became.
    pub release: ReleaseId,
}

/// A site's release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// Digest of the source setting when it was made: it counts until that changes.
    #[serde(default)]
    pub setting: String,
    /// Digest of the files that we added.
    #[serde(default)]
    pub ours: String,
    /// How it came.
    #[serde(default)]
    pub origin: Origin,
    /// What the source's files looked like then; see [`crate::agent::Agent::look_at_sources`].
    #[serde(default)]
    pub source: String,
    /// The version that it says of itself.
    pub wordpress: String,
    /// How many files it has.
    #[serde(default)]
    pub files: usize,
    /// All their bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Who went back to it, if it serves because of that.
    #[serde(default)]
    pub back_by: Option<String>,
}

/// How a release came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A command brought it: it counts until the source setting changes, whatever the source holds.
    pub is_brought: bool,
    /// Where it came from, in words.
    pub source: String,
    /// Who brought it.
    pub author: String,
    /// Who brought it, by e-mail address; empty: not known.
    #[serde(default)]
    pub email: String,
    /// What was done.
    pub message: String,
    /// The commit that it was pushed with.
    #[serde(default)]
    pub commit: Option<String>,
}

impl Origin {
    /// The same with words that can be shown: they are anybody's who pushes or clicks.
    pub(crate) fn plain(self) -> Self {
        let [source, author, email, message] =
            [self.source, self.author, self.email, self.message].map(|text| plain(&text));
        Self { source, author, email, message, ..self }
    }
}

/// A release that served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub release: Release,
    /// When it began to serve last, milliseconds since 1970.
    pub served_ms: u64,
    /// When it began to serve for the first time.
    #[serde(default)]
    pub first_ms: u64,
    /// What the next release does not have as well, in bytes, once that was looked at.
    #[serde(default)]
    pub own_bytes: Option<u64>,
}

/// A prepared site.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The configuration it was prepared for.
    pub site: Site,
    /// When, milliseconds since 1970: it is done again every day, which renews certificates.
    pub at_ms: u64,
    /// The home URL.
    pub home: String,
    /// Its certificate.
    pub certificate: Option<crate::tls::Paths>,
    /// The rendered `config/site.php`.
    pub site_config: String,
    /// Its user.
    pub user: Option<pressroom_model::process::UserIds>,
    /// Its secrets.
    pub secrets: pressroom_model::config::SiteSecrets,
}

impl SiteFacts {
    /// Releases whose static files may still be asked for, beside the current one: pages that name them are still about.
    pub(crate) fn former(&self, current: &ReleaseId, now_ms: u64) -> Vec<ReleaseId> {
        let reach = retention::within_reach(&self.served(), now_ms);
        let ids = reach.into_iter().map(|place| self.releases[place].release.id.clone());
        ids.filter(|id| id != current).collect()
    }

    /// Releases that nobody needs any more.
    pub(crate) fn outlived(&self, now_ms: u64) -> Vec<ReleaseId> {
        let outlived = retention::outlived(&self.served(), now_ms);
        outlived.into_iter().map(|place| self.releases[place].release.id.clone()).collect()
    }

    /// Former releases that nobody will need any more when another one comes now.
    pub(crate) fn goes_next(&self, now_ms: u64) -> Vec<ReleaseId> {
        let next = retention::Served { began_ms: now_ms, own_bytes: 0, is_used: true };
        let mut served = self.served();
        served.insert(0, next);
        let outlived = retention::outlived(&served, now_ms);
        outlived.into_iter().map(|place| self.releases[place - 1].release.id.clone()).collect()
    }

    fn served(&self) -> Vec<retention::Served> {
        let used = self.used();
        let served = |kept: &Kept| retention::Served {
            began_ms: kept.served_ms,
            own_bytes: kept.own_bytes.unwrap_or_default(),
            is_used: used.contains(&kept.release.id),
        };
        self.releases.iter().map(served).collect()
    }

    /// Remembers that the tables were changed.
    pub(crate) fn was_upgraded(&mut self, upgrade: Upgrade) {
        self.upgrades.push(upgrade);
        let many = self.upgrades.len().saturating_sub(UPGRADES);
        self.upgrades.drain(..many);
    }

    /// The first change of the tables since a release served first: before it they were what that release knows.
    pub(crate) fn upgraded_since(&self, kept: &Kept) -> Option<&Upgrade> {
        self.upgrades.iter().find(|upgrade| {
            upgrade.at_ms > kept.first_ms && upgrade.wordpress != kept.release.wordpress
        })
    }

    /// Forgets a change of the tables that was undone, and what came after it.
    pub(crate) fn was_undone(&mut self, upgrade: &Upgrade) {
        let place = self.upgrades.iter().position(|known| known == upgrade);
        self.upgrades.truncate(place.unwrap_or(self.upgrades.len()));
    }

    /// The versions that something runs or is to run.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.version);
        self.serving.iter().chain(candidate)
    }

    /// Releases that something runs or may run.
    pub(crate) fn used(&self) -> Vec<ReleaseId> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.version.release);
        let parked = self.parked.as_ref().map(|parked| &parked.version.release);
        let serving = self.serving.as_ref().map(|serving| &serving.release);
        let all = [self.release.as_ref(), candidate, parked, serving];
        let ids = all.into_iter().flatten().map(|release| release.id.clone());
        ids.chain(self.brought.clone()).collect()
    }
}

impl Prepared {
    /// Whether it holds for this configuration: the site, its address, and not older than a day.
    pub(crate) fn is_for(&self, config: &Config, site: &Site, now_ms: u64) -> bool {
        self.site == *site
            && self.home == crate::site::home(config, site)
            && now_ms < self.at_ms + PREPARED_MS
    }
}

/// A site is prepared again after a day.
const PREPARED_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_moved_since_a_release_if_a_later_wordpress_changed_them() {
        let kept = |wordpress: &str, first_ms| Kept {
            release: serde_json::from_value(serde_json::json!({
                "id": "0".repeat(32),
                "wordpress": wordpress,
            }))
            .expect("a release"),
            served_ms: 100,
            first_ms,
            own_bytes: None,
        };
        let mut facts = SiteFacts::default();
        for (n, wordpress) in ["6.2", "6.3"].into_iter().enumerate() {
            let (at_ms, from) = (10 + 20 * n as u64, n as u64);
            let dump = PathBuf::from(wordpress);
            facts.was_upgraded(Upgrade {
                at_ms,
                from,
                to: from + 1,
                wordpress: wordpress.into(),
                dump,
            });
        }
        let first = |kept: &Kept| facts.upgraded_since(kept).map(|upgrade| upgrade.from);
        assert_eq!(first(&kept("6.1", 0)), Some(0));
        // It was for this one that they were changed first.
        assert_eq!(first(&kept("6.2", 9)), Some(1));
        assert_eq!(first(&kept("6.3", 29)), None);
        // It has had later tables from the beginning.
        assert_eq!(first(&kept("6.1", 40)), None);
        let upgrade = facts.upgrades[1].clone();
        facts.was_undone(&upgrade);
        let first = |kept: &Kept| facts.upgraded_since(kept).map(|upgrade| upgrade.from);
        assert_eq!((first(&kept("6.1", 0)), first(&kept("6.2", 9))), (Some(0), None));
    }
}
