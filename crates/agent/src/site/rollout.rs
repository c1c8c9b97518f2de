//! The steps of a rollout, as `plan::rollout` decides them: each changes what is known of the site and stores that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use pressroom_model::config::{Config, Runtime, Site};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::process::ProcessState;
use pressroom_model::rollout::{Record, Stage, Standing};
use pressroom_plan::machine::instance_of;
use pressroom_plan::rollout::PARKED_MS;
use pressroom_release::releases::Releases;
use pressroom_runtime::{clock, tree};

use super::{Error, is_current};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::confinement::Means;
use crate::engine::FINGERPRINT;
use crate::engine::php::{Code, Container, Instances};
use crate::facts::{Candidate, Kept, Parked, Refused, Release, SiteFacts, Version};

/// What never served stays for so long.
const STRAYS_STAY: Duration = Duration::from_secs(3600);

impl Agent {
    /// The version that operators want, once everything that it is made of is there.
    pub(crate) fn wanted_version(
        &self,
        config: &Config,
        site: &Site,
        facts: &SiteFacts,
    ) -> Result<Option<Version>, crate::engine::Error> {
        let now_ms = clock::wall_ms();
        let is_fresh = |prepared: &&crate::facts::Prepared| prepared.is_for(config, site, now_ms);
        let (Some(prepared), Some(release)) =
            (facts.prepared.as_ref().filter(is_fresh), facts.release.as_ref())
        else {
            return Ok(None);
        };
        if !is_current(release, site) || !self.layout.site_root(&site.name, &release.id).is_dir() {
            return Ok(None);
        }
        let image = match site.php.runtime {
            Runtime::Process => None,
            Runtime::Docker => match self.image_of(site) {
                Some(tag) => Some(tag),
                None => return Ok(None),
            },
        };
        let version = Version {
            fingerprint: String::new(),
            site: site.clone(),
            release: release.clone(),
            is_author: false,
            means: if image.is_some() { Means::ALL } else { self.means() },
            image,
        };
        let fingerprint = self.instances_of(prepared, &version)?.fingerprint().to_owned();
        Ok(Some(Version { fingerprint, ..version }))
    }

    /// The instances of a version.
    pub(crate) fn instances_of(
        &self,
        prepared: &crate::facts::Prepared,
        version: &Version,
    ) -> Result<Instances, crate::engine::Error> {
        let edge_gid = self.users.edge()?.map(|ids| ids.gid);
        let code = match version.is_author {
            true => Code::Author(self.users.authors()?.map(|ids| ids.gid)),
            false => Code::Release(version.release.id.clone()),
        };
        let container = version.image.as_ref().map(|tag| Container {
            docker: self.docker(),
            image: tag.clone(),
            can_confine: self.means() == Means::ALL,
        });
        Ok(Instances::new(
            &self.layout,
            &version.site,
            code,
            &prepared.secrets,
            (prepared.user.clone(), edge_gid),
            &prepared.site_config,
            (version.means, container),
        ))
    }

    /// The version of a fingerprint, if instances of it may be started.
    pub(crate) fn version(&self, name: &SiteName, fingerprint: &str) -> Option<Version> {
        let state = self.state.lock();
        let facts = state.sites.get(name)?;
        let candidate = facts.candidate.as_ref().map(|candidate| &candidate.version);
        let author = self.author_version(facts).ok().flatten();
        facts
            .serving
            .iter()
            .chain(candidate)
            .chain(author.as_ref())
            .find(|version| version.fingerprint == fingerprint)
            .cloned()
    }

    pub(crate) async fn begin_rollout(
        &self,
        config: &Config,
        name: &SiteName,
        stage: Stage,
    ) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let Some(version) = self.wanted_version(config, &site, &facts)? else { return Ok(()) };
        let since_ms = clock::wall_ms();
        self.change(name, |facts| {
            facts.refused = None;
            if facts.serving.is_none() {
                record(facts, &version, since_ms);
                facts.serving = Some(version);
            } else {
                facts.candidate = Some(Candidate { version, stage, since_ms });
            }
        })
        .await?;
        // A first release serves at once.
        self.histories.due.notify_one();
        self.bytecode.due.notify_one();
        Ok(())
    }

    /// Asks the first instance of the candidate for pages; it goes on, or is given up.
    pub(crate) async fn check_candidate(&self, name: &SiteName) -> Result<(), Error> {
        match self.fault_of_candidate(name).await {
            None => self.advance(name, Stage::Filling).await,
            Some(fault) => self.abandon_rollout(name, &fault).await,
        }
    }

    pub(crate) async fn advance(&self, name: &SiteName, stage: Stage) -> Result<(), Error> {
        self.change(name, |facts| {
            if let Some(candidate) = &mut facts.candidate {
                candidate.stage = stage;
                candidate.since_ms = clock::wall_ms();
            }
        })
        .await
    }

    pub(crate) async fn finish_rollout(&self, name: &SiteName) -> Result<(), Error> {
        let now_ms = clock::wall_ms();
        self.change(name, |facts| {
            let Some(candidate) = facts.candidate.take() else { return };
            record(facts, &candidate.version, now_ms);
            let former = facts.serving.replace(candidate.version);
            facts.parked = former.map(|version| Parked { version, until_ms: now_ms + PARKED_MS });
        })
        .await?;
        self.histories.due.notify_one();
        self.bytecode.due.notify_one();
        self.renew_cli_ini(name)?;
        self.collect_releases(name).await
    }

    /// The command line's PHP gets the values of the version that serves.
    pub(crate) fn renew_cli_ini(&self, name: &SiteName) -> Result<(), Error> {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        if let (Some(prepared), Some(serving)) = (&facts.prepared, &facts.serving) {
            self.instances_of(prepared, serving)?.write_cli_ini()?;
        }
        Ok(())
    }

    pub(crate) async fn abandon_rollout(
        &self,
        name: &SiteName,
        because: &str,
    ) -> Result<(), Error> {
        let because = &self.with_last_words(name, because);
        let mut words = None;
        self.change(name, |facts| {
            let Some(candidate) = facts.candidate.take() else { return };
            let release = candidate.version.release;
            words = Some(format!("`{name}` was not moved to release {}: {because}", release.id));
            let is_still_wanted = facts.release.as_ref() == Some(&release);
            facts.refused = Some(Refused {
                fingerprint: candidate.version.fingerprint,
                release: release.id.clone(),
                because: because.to_owned(),
            });
            // Nobody wants brought code any more once it was refused; a setting goes on to be wanted.
            if release.origin.is_brought && is_still_wanted {
                facts.release = facts.serving.as_ref().map(|serving| serving.release.clone());
            }
        })
        .await?;
        if let Some(words) = words {
            tracing::warn!(site = %name, "{words}");
            self.notice(words);
        }
        Ok(())
    }

    /// Adds what the candidate's instances that ended wrote last.
    fn with_last_words(&self, name: &SiteName, because: &str) -> String {
        let dead: Vec<String> = {
            let state = self.state.lock();
            let facts = state.sites.get(name).and_then(|facts| facts.candidate.as_ref());
            let Some(candidate) = facts else { return because.to_owned() };
            let is_of = |process: &&ProcessState| {
                process.pid.is_none()
                    && process.spec.env.get(FINGERPRINT) == Some(&candidate.version.fingerprint)
                    && instance_of(&process.spec.name).is_some_and(|id| id.site() == *name)
            };
            state.processes.iter().filter(is_of).map(|process| process.spec.name.clone()).collect()
        };
        let words = dead.iter().map(|process| self.last_words(process));
        std::iter::once(because.to_owned())
            .chain(words)
            .collect::<Vec<_>>()
            .join("\n")
            .trim()
            .to_owned()
    }

    /// Changes what is known of a site, and stores it before anything follows from it. What cannot be stored is not so.
    pub(super) async fn change(
        &self,
        name: &SiteName,
        change: impl FnOnce(&mut SiteFacts),
    ) -> Result<(), Error> {
        let before = {
            let mut state = self.state.lock();
            let facts = state.sites.entry(name.clone()).or_default();
            let before = facts.clone();
            change(facts);
            before
        };
        if let Err(error) = self.remember(name).await {
            self.state.lock().sites.insert(name.clone(), before);
            return Err(error.into());
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Deletes what is left of a site's releases that nobody needs any more: never one that serves, is parked, or is on its way.
    /// While releases are being made it waits for the next time: what is made may be one of these.
    pub(crate) async fn collect_releases(&self, name: &SiteName) -> Result<(), Error> {
        let Ok(_alone) = self.collection.try_write() else { return Ok(()) };
        if !self.leads() {
            // What is kept is decided elsewhere.
            return self.remove_strays(name).await;
        }
        self.measure_releases(name).await?;
        let now_ms = clock::wall_ms();
        let mut gone = Vec::new();
        self.change(name, |facts| {
            gone = facts.outlived(now_ms);
            facts.releases.retain(|kept| !gone.contains(&kept.release.id));
        })
        .await?;
        let others = self.known_releases(|_| true);
        self.delete_releases(name, gone, others).await?;
        self.remove_strays(name).await
    }

    /// Deletes what was made and never served: to be compared, refused, or by an agent that died.
    async fn remove_strays(&self, name: &SiteName) -> Result<(), Error> {
        let known: BTreeSet<ReleaseId> = self.known_releases(|_| true).into_iter().collect();
        let (layout, name) = (self.layout.clone(), name.clone());
        // Long after the last instance of a refused one has ended.
        let old = UNIX_EPOCH + Duration::from_millis(clock::wall_ms()) - STRAYS_STAY;
        off_the_loop(move || {
            let failed = |source| Error::Code { site: name.clone(), source };
            for folder in ["releases", "scratch"] {
                for (id, path) in trees(&layout.site(&name).join(folder))? {
                    let made = std::fs::symlink_metadata(&path).and_then(|meta| meta.modified());
                    if !known.contains(&id) && made.is_ok_and(|made| made < old) {
                        tracing::info!(site = %name, release = %id, folder, "deleted, since it never served");
                        tree::remove(&path)?;
                    }
                }
            }
            // What a site has that is not served at present, its folder says.
            let mut known = known;
            for site in std::fs::read_dir(layout.sites())?.flatten() {
                known.extend(trees(&site.path().join("releases"))?.into_iter().map(|(id, _)| id));
            }
            Releases::at(layout.releases()).remove_strays(&known, old).map_err(failed)?;
            Ok::<_, Error>(())
        })
        .await
    }

    /// Looks how much of the disk former releases take, where that is not known yet.
    async fn measure_releases(&self, name: &SiteName) -> Result<(), Error> {
        let unknown: Vec<(ReleaseId, ReleaseId)> = {
            let state = self.state.lock();
            let kept = state.sites.get(name).map_or(&[][..], |facts| &facts.releases);
            let pairs = kept.windows(2).filter(|pair| pair[1].own_bytes.is_none());
            pairs.map(|pair| (pair[1].release.id.clone(), pair[0].release.id.clone())).collect()
        };
        let releases = Releases::at(self.layout.releases());
        let measured = off_the_loop(move || {
            let own = |(id, next): (ReleaseId, ReleaseId)| {
                // What cannot be read takes nothing that could be had back.
                let bytes = releases.own_bytes(&id, &next).unwrap_or_default();
                (id, bytes)
            };
            Ok::<_, Error>(unknown.into_iter().map(own).collect::<Vec<_>>())
        })
        .await?;
        let mut state = self.state.lock();
        let kept = state.sites.get_mut(name).into_iter().flat_map(|facts| &mut facts.releases);
        for kept in kept {
            if let Some((_, bytes)) = measured.iter().find(|(id, _)| *id == kept.release.id) {
                kept.own_bytes = Some(*bytes);
            }
        }
        Ok(())
    }

    /// The releases that some sites have.
    pub(crate) fn known_releases(&self, is_meant: impl Fn(&SiteName) -> bool) -> Vec<ReleaseId> {
        let state = self.state.lock();
        let known = |facts: &SiteFacts| -> Vec<ReleaseId> {
            let records = facts.releases.iter().map(|kept| kept.release.id.clone());
            records.chain(facts.used()).collect()
        };
        state.sites.iter().filter(|(of, _)| is_meant(of)).flat_map(|(_, f)| known(f)).collect()
    }

    /// Deletes releases that a site has no use for; what `others` have stays in the store of releases.
    pub(crate) async fn delete_releases(
        &self,
        name: &SiteName,
        gone: Vec<ReleaseId>,
        others: Vec<ReleaseId>,
    ) -> Result<(), Error> {
        let (releases, layout) = (Releases::at(self.layout.releases()), self.layout.clone());
        let name = name.clone();
        off_the_loop(move || {
            for id in gone {
                tree::remove(&layout.site_root(&name, &id))?;
                tree::remove(&layout.scratch(&name, &id))?;
                if !others.contains(&id) {
                    releases
                        .remove(&id)
                        .map_err(|source| Error::Code { site: name.clone(), source })?;
                }
            }
            Ok::<_, Error>(())
        })
        .await
    }
}

/// The releases in a folder, and where each is.
fn trees(folder: &Path) -> std::io::Result<Vec<(ReleaseId, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let tree =
        |entry: std::fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    Ok(entries.flatten().filter_map(tree).collect())
}

/// Writes a version's release into the site's history, in front.
fn record(facts: &mut SiteFacts, version: &Version, served_ms: u64) {
    let is_it = |kept: &Kept| kept.release.id == version.release.id;
    let first_ms = facts.releases.iter().find(|kept| is_it(kept)).map(|kept| kept.first_ms);
    facts.releases.retain(|kept| !is_it(kept));
    let release = version.release.clone();
    let first_ms = first_ms.unwrap_or(served_ms);
    facts.releases.insert(0, Kept { release, served_ms, first_ms, own_bytes: None });
}

impl Agent {
    /// The releases of a site, the one that serves first.
    pub fn releases(&self, name: &SiteName) -> Vec<Record> {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let id = |release: &Release| release.id.clone();
        let serving = facts.serving.as_ref().map(|serving| id(&serving.release));
        let is_parked = |kept: &Kept| {
            facts.parked.as_ref().is_some_and(|parked| {
                parked.version.release.id == kept.release.id && clock::wall_ms() < parked.until_ms
            })
        };
        let record = |kept: &Kept| Record {
            id: id(&kept.release),
            standing: match () {
                () if serving.as_ref() == Some(&kept.release.id) => Standing::Serving,
                () if is_parked(kept) => Standing::Parked,
                () => Standing::Kept,
            },
            wordpress: kept.release.wordpress.clone(),
            files: kept.release.files,
            bytes: kept.release.bytes,
            served_ms: kept.served_ms,
            source: kept.release.origin.source.clone(),
            author: kept.release.origin.author.clone(),
            message: kept.release.origin.message.clone(),
        };
        facts.releases.iter().map(record).collect()
    }

    /// A release that served a site, to go back to.
    pub fn kept(&self, name: &SiteName, id: &ReleaseId) -> Option<Release> {
        let state = self.state.lock();
        let mut kept = state.sites.get(name)?.releases.iter();
        kept.find(|kept| kept.release.id == *id).map(|kept| kept.release.clone())
    }

    /// What becomes of a release of a site.
    pub fn outlook(&self, name: &SiteName, id: &ReleaseId) -> Outlook {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let parked = facts.parked.as_ref().filter(|parked| parked.version.release.id == *id);
        Outlook {
            parked_until_ms: parked.map(|parked| parked.until_ms),
            is_collected_next: facts.goes_next(clock::wall_ms()).contains(id),
        }
    }

    /// How the rollout stands that [`Agent::bring`] or [`Agent::bring_back`] has asked for.
    pub fn rollout(&self, name: &SiteName) -> Outcome {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let wanted = facts
            .release
            .filter(|release| self.site(name).is_some_and(|site| is_current(release, &site)));
        match (facts.candidate, facts.refused, facts.serving) {
            (Some(_), ..) => Outcome::UnderWay,
            (None, Some(refused), _) => Outcome::Refused(refused.because),
            (None, None, Some(serving))
                if wanted.is_some_and(|wanted| wanted.id == serving.release.id) =>
            {
                Outcome::Serves
            }
            _ => Outcome::UnderWay,
        }
    }

    /// Sites whose configuration asks for a version that was refused, with the reasons.
    pub fn refusals(&self) -> Vec<(SiteName, Refused)> {
        let Some(config) = self.config() else { return Vec::new() };
        let state = self.state.lock();
        let refused = config.sites.iter().filter_map(|site| {
            let facts = state.sites.get(&site.name)?;
            let refused = facts.refused.clone().filter(|_| facts.candidate.is_none())?;
            let wanted = self.wanted_version(&config, site, facts).ok()??;
            (wanted.fingerprint == refused.fingerprint).then(|| (site.name.clone(), refused))
        });
        refused.collect()
    }
}

/// What becomes of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Until when its instances run on without requests, milliseconds since 1970.
    pub parked_until_ms: Option<u64>,
    /// The next release that comes takes its place.
    pub is_collected_next: bool,
}

/// How a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided yet.
    UnderWay,
    /// Every new request runs it.
    Serves,
    /// It was given up, and why.
    Refused(String),
}
