//! Bringing code to a site and going back, as the operator's API asks for it: the release is made, the rollout is
//! followed to its end, and what went wrong is told in PHP's own words.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pressroom_agent::agent::{Agent, Event};
use pressroom_agent::facts::{Origin, Release, Upgrade};
use pressroom_agent::git::source::SourceError;
use pressroom_agent::published::PublishedError;
use pressroom_agent::site::{self, Brought, Outcome};
use pressroom_api::failure::Failure;
use pressroom_api::progress::{Progress, Running};
use pressroom_api::release::{Code, Damage, Deployment, Diff, Which};
use pressroom_model::config::{Site, Source};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::rollout::{Record, Standing};
use pressroom_release::releases::Releases;
use pressroom_release::source::{self, Shape};
use pressroom_release::{ReleaseError, archive};
use pressroom_runtime::clock;

use crate::operator::step;

/// Longest rollout: `plan` gives one up long before.
const LONGEST: Duration = Duration::from_secs(300);

/// Lines of a command that are shown.
const SAID: usize = 20;

pub(crate) struct Delivery<'a> {
    pub(crate) agent: &'a Arc<Agent>,
    pub(crate) site: Site,
}

impl Delivery<'_> {
    pub(crate) fn name(&self) -> &SiteName {
        &self.site.name
    }

    /// Makes a release of what is brought, and moves the site to it.
    pub(crate) async fn deploy(
        &self,
        deployment: Deployment,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let _turn = self.agent.turn(self.name()).await;
        let build = progress.begin(format!("make a release for {}", self.name()));
        let (code, words) = self.code(&deployment.code).await?;
        let origin = Origin {
            is_brought: deployment.code != Code::Configured,
            source: words.clone(),
            author: deployment.author,
            email: String::new(),
            commit: None,
            message: match deployment.message.is_empty() {
                true => format!("deploy {words}"),
                false => deployment.message,
            },
        };
        self.move_to(Brought { code, origin }, build, progress).await.map(drop)
    }

    /// Makes the release that `build` tells of, and moves the site to it, with the operator's commands before and after.
    pub(crate) async fn move_to(
        &self,
        brought: Brought,
        build: Running,
        progress: &Progress,
    ) -> Result<ReleaseId, Failure> {
        let (events, before) = (self.agent.follow(), self.serving());
        let made = self.agent.take_in(self.name(), brought).await;
        let release = made.map_err(|error| self.not_made(error))?;
        let id = release.id.clone();
        build.done(short(&id));
        if before.as_ref() == Some(&id) {
            progress.note(format!("`{}` serves this code already", self.name()));
        }
        for hook in &self.site.deploy.before {
            self.run_hook(&id, hook, progress).await.map_err(|because| {
                Failure::yours(format!("`{}` was not moved to release {}", self.name(), short(&id)))
                    .cause(because)
                    .state(self.unmoved())
                    .hint("mend the code, or `before` in `[site.deploy]`, and deploy again")
            })?;
        }
        let wanted = self.agent.want(self.name(), release).await;
        wanted.map_err(|error| self.not_made(error))?;
        self.follow(&id, before, progress, events).await?;
        for hook in &self.site.deploy.after {
            if let Err(because) = self.run_hook(&id, hook, progress).await {
                progress.note(format!("the new code serves, but {because}"));
            }
        }
        Ok(id)
    }

    /// Runs one of the operator's commands; what it says becomes part of the report.
    async fn run_hook(
        &self,
        id: &ReleaseId,
        hook: &str,
        progress: &Progress,
    ) -> Result<(), String> {
        let step = progress.begin(format!("run `{hook}`"));
        match self.agent.run_hook(self.name(), id, hook).await {
            Ok(said) => {
                step.done("");
                said.lines().take(SAID).for_each(|line| progress.note(line));
                Ok(())
            }
            Err(error) => {
                step.failed("");
                Err(error.to_string())
            }
        }
    }

    /// What a deployment would change.
    pub(crate) async fn compare(&self, code: &Code) -> Result<Diff, Failure> {
        let (code, _) = self.code(code).await?;
        let made = self.agent.make_only(self.name(), code).await;
        let id = made.map_err(|error| self.not_made(error))?;
        self.between(self.serving(), id)
    }

    /// A release in the place of files that only this machine has, for the node that leads.
    pub(crate) async fn make_here(&self, code: Code) -> Result<Code, Failure> {
        if !matches!(code, Code::Folder(_) | Code::Archive { .. }) {
            return Ok(code);
        }
        let (code, source) = self.code(&code).await?;
        let made = self.agent.make_only(self.name(), code).await;
        let release = made.map_err(|error| self.not_made(error))?;
        Ok(Code::Made { release, source })
    }

    /// Moves the site back to a release that served it.
    pub(crate) async fn rollback(&self, which: Which, progress: &Progress) -> Result<(), Failure> {
        let _turn = self.agent.turn(self.name()).await;
        let events = self.agent.follow();
        let before = self.serving();
        let id = match which.release {
            Some(text) => self.find(&text)?,
            None => {
                let records = self.agent.releases(self.name());
                let former = records.iter().find(|record| record.standing != Standing::Serving);
                former.map(|record| record.id.clone()).ok_or_else(|| {
                    Failure::yours(format!("`{}` has had one release only", self.name()))
                        .state("nothing was changed")
                })?
            }
        };
        let kept = self.agent.kept(self.name(), &id).ok_or_else(|| self.unknown(id.as_str()))?;
        let by = match which.author.is_empty() {
            true => "operator",
            false => which.author.as_str(),
        };
        let upgrade = self.agent.upgraded_since(self.name(), &id);
        let brought = self.agent.bring_back(self.name(), &kept, Some(by)).await;
        brought.map_err(|error| self.not_made(error))?;
        self.follow(&id, before, progress, events).await?;
        match (upgrade, which.tables) {
            (Some(upgrade), true) => self.put_tables_back(&upgrade, progress).await,
            (Some(upgrade), false) => {
                progress.note(meanwhile(self.name(), &id, &upgrade));
                Ok(())
            }
            (None, true) => {
                progress.note("WordPress has not changed the tables since this release served, or that was undone");
                Ok(())
            }
            (None, false) => Ok(()),
        }
    }

    async fn put_tables_back(&self, upgrade: &Upgrade, progress: &Progress) -> Result<(), Failure> {
        let name = self.name();
        let step =
            progress.begin(format!("put the tables of {name} back to schema {}", upgrade.from));
        match self.agent.put_tables_back(name, upgrade).await {
            Ok(dump) => {
                step.done(format!("what they were until now: {}", dump.display()));
                Ok(())
            }
            Err(error) => {
                step.failed("");
                Err(Failure::ours(format!("the tables of `{name}` were not put back"))
                    .cause(error)
                    .state("the release serves, on the tables as they were")
                    .hint(format!("what they were before is in {}", upgrade.dump.display())))
            }
        }
    }

    /// Moves the site to a release that was made for another one.
    pub(crate) async fn take_over(
        &self,
        release: Release,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let _turn = self.agent.turn(self.name()).await;
        let events = self.agent.follow();
        let before = self.serving();
        let id = release.id.clone();
        if before.as_ref() == Some(&id) {
            progress.note(format!("`{}` serves this code already", self.name()));
        }
        let brought = self.agent.bring_back(self.name(), &release, None).await;
        brought.map_err(|error| self.not_made(error))?;
        self.follow(&id, before, progress, events).await
    }

    /// What tells two releases apart: by default the serving one from the one before.
    pub(crate) fn diff(&self, which: &Which) -> Result<Diff, Failure> {
        let records = self.agent.releases(self.name());
        let second = || records.get(1).map(|record| record.id.clone());
        let (from, to) = match (&which.release, &which.with) {
            (Some(from), Some(to)) => (Some(self.find(from)?), Some(self.find(to)?)),
            (Some(from), None) => (Some(self.find(from)?), self.serving()),
            (None, _) => (second(), self.serving()),
        };
        match (from, to) {
            (Some(from), Some(to)) => self.between(Some(from), to),
            _ => Err(Failure::yours(format!("`{}` has had one release only", self.name()))),
        }
    }

    /// Hashes every file of a release again, in the store of releases and where PHP runs it.
    pub(crate) async fn verify(&self, which: &Which) -> Result<Vec<Damage>, Failure> {
        let id = match &which.release {
            Some(text) => self.find(text)?,
            None => self.serving().ok_or_else(|| self.unknown("serving"))?,
        };
        let (releases, folder) = (self.releases(), self.agent.layout.site_root(self.name(), &id));
        let checked = tokio::task::spawn_blocking(move || {
            let mut faults = releases.verify(&id)?;
            if folder.is_dir() {
                faults.extend(releases.verify_linked(&id, &folder)?);
            }
            Ok::<_, ReleaseError>(faults)
        });
        let failed = |error: String| Failure::ours("the release cannot be read").cause(error);
        let faults = checked.await.map_err(|error| failed(error.to_string()))?;
        let faults = faults.map_err(|error| failed(error.to_string()))?;
        let damage = |fault: pressroom_release::releases::Fault| Damage {
            path: fault.path,
            what: fault.what.to_owned(),
        };
        Ok(faults.into_iter().map(damage).collect())
    }

    pub(crate) fn releases(&self) -> Releases {
        Releases::at(self.agent.layout.releases())
    }

    pub(crate) fn serving(&self) -> Option<ReleaseId> {
        let records = self.agent.releases(self.name());
        let serving = records.into_iter().find(|record| record.standing == Standing::Serving);
        serving.map(|record| record.id)
    }

    pub(crate) fn between(&self, from: Option<ReleaseId>, to: ReleaseId) -> Result<Diff, Failure> {
        let Some(from) = from else { return Ok(Diff { to: Some(to), ..Diff::default() }) };
        let diff = self
            .releases()
            .diff(&from, &to)
            .map_err(|error| Failure::ours("the releases cannot be compared").cause(error))?;
        Ok(Diff {
            from: Some(from),
            to: Some(to),
            added: diff.added,
            changed: diff.changed,
            removed: diff.removed,
        })
    }

    /// A release of the site by the beginning of its id.
    pub(crate) fn find(&self, text: &str) -> Result<ReleaseId, Failure> {
        let records: Vec<Record> = self.agent.releases(self.name());
        let mut found = records.iter().filter(|record| record.id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(record), None) if !text.is_empty() => Ok(record.id.clone()),
            (Some(_), Some(_)) => Err(Failure::yours(format!("`{text}` is not one release"))
                .cause("several begin so")
                .hint("give more digits")),
            _ => Err(self.unknown(text)),
        }
    }

    pub(crate) fn unknown(&self, text: &str) -> Failure {
        Failure::yours(format!("`{}` has no release `{text}`", self.name()))
            .state("nothing was changed")
            .hint(format!("`pressroom release list {}` shows them", self.name()))
    }

    /// What is brought, as the agent takes it, and in words.
    async fn code(&self, code: &Code) -> Result<(site::Code, String), Failure> {
        let configured = || {
            let source = self.site.wordpress.clone();
            let words = site::in_words(&source);
            (site::Code::Source(source), words)
        };
        match code {
            Code::Configured => Ok(configured()),
            Code::Source(source) => {
                Ok((site::Code::Source(source.clone()), site::in_words(source)))
            }
            Code::Folder(path) => self.folder(path),
            Code::Made { release, source } => {
                let here = self.agent.have_release(release).await;
                here.map_err(|error| {
                    Failure::ours(format!("release {} cannot be had", short(release)))
                        .cause(error)
                        .state(self.unmoved())
                        .hint("deploy again; `pressroom node list` shows which nodes are heard")
                })?;
                Ok((site::Code::Again(release.clone()), source.clone()))
            }
            Code::Archive { path, sha256 } => {
                let sha256 = match sha256 {
                    Some(sha256) => sha256.clone(),
                    // Nobody said what it must be: it is what is there now, and may not change while it is read.
                    None => archive::digest(path).map_err(|error| {
                        Failure::yours(format!("`{}` cannot be deployed", path.display()))
                            .cause(error)
                            .state("nothing was changed")
                    })?,
                };
                let source = Source::Archive { path: path.clone(), sha256 };
                let words = site::in_words(&source);
                Ok((site::Code::Source(source), words))
            }
        }
    }

    fn folder(&self, path: &Path) -> Result<(site::Code, String), Failure> {
        let words = path.display().to_string();
        let (shape, folder) = source::shape(path).map_err(|error| {
            Failure::yours(format!("`{words}` cannot be deployed"))
                .cause(error)
                .state("nothing was changed")
                .hint("give a folder with a whole WordPress, or a wp-content")
        })?;
        match (shape, self.serving()) {
            (Shape::Whole, _) => Ok((site::Code::Source(Source::Path(folder)), words)),
            (Shape::Content, Some(core)) => Ok((site::Code::Content(folder, core), words)),
            (Shape::Content, None) => {
                Err(Failure::yours(format!("`{}` serves no WordPress yet", self.name()))
                    .hint("deploy a whole WordPress first"))
            }
        }
    }

    pub(crate) fn not_made(&self, error: site::Error) -> Failure {
        let is_theirs = match &error {
            site::Error::Code { source, .. } => !matches!(source, ReleaseError::Io { .. }),
            site::Error::Published(source) => !matches!(source, PublishedError::Io(_)),
            site::Error::Source { source, .. } => {
                !matches!(source, SourceError::Io(_) | SourceError::Git(_))
            }
            _ => false,
        };
        let failure = match is_theirs {
            true => Failure::yours(format!("no release was made for `{}`", self.name())),
            false => Failure::ours(format!("no release was made for `{}`", self.name())),
        };
        failure.cause(error).state(self.unmoved())
    }

    pub(crate) fn unmoved(&self) -> String {
        match self.serving() {
            Some(id) => format!("`{}` still serves release {}", self.name(), short(&id)),
            None => "nothing was changed".to_owned(),
        }
    }

    /// Waits until every new request runs the release, or it was refused.
    pub(crate) async fn follow(
        &self,
        id: &ReleaseId,
        before: Option<ReleaseId>,
        progress: &Progress,
        mut events: tokio::sync::broadcast::Receiver<Event>,
    ) -> Result<(), Failure> {
        let until = clock::now() + LONGEST;
        loop {
            tokio::select! {
                event = events.recv() => if let Ok(event) = event { progress.tell(step(event)) },
                () = tokio::time::sleep(Duration::from_millis(25)) => {}
            }
            match self.agent.rollout(self.name()) {
                Outcome::Serves => {
                    while let Ok(event) = events.try_recv() {
                        progress.tell(step(event));
                    }
                    return Ok(());
                }
                Outcome::Refused(because) => {
                    return Err(Failure::yours(format!(
                        "`{}` was not moved to release {}",
                        self.name(),
                        short(id)
                    ))
                    .cause(because)
                    .state(self.unmoved())
                    .hint(format!(
                        "mend the code and deploy again; `pressroom logs {}` has more",
                        self.name()
                    )));
                }
                Outcome::UnderWay if clock::now() > until => {
                    let from = before.as_ref().map(short).unwrap_or_default();
                    return Err(Failure::ours(format!(
                        "the rollout of `{}` from {from} to {} has not ended in {} s",
                        self.name(),
                        short(id),
                        LONGEST.as_secs()
                    ))
                    .state(self.unmoved())
                    .hint("`pressroom status` shows how it goes on"));
                }
                Outcome::UnderWay => {}
            }
        }
    }
}

/// What operators should know of tables that a later WordPress has changed.
fn meanwhile(name: &SiteName, id: &ReleaseId, upgrade: &Upgrade) -> String {
    format!(
        "the tables of `{name}` moved from schema {} to {} for WordPress {} since this release served, and keep what is in them. \
         What they were before is in {}; `pressroom release rollback {name} {} --tables` puts that back, without what was written since",
        upgrade.from,
        upgrade.to,
        upgrade.wordpress,
        upgrade.dump.display(),
        short(id)
    )
}

/// What people are shown of a release's id.
pub(crate) fn short(id: &ReleaseId) -> String {
    id.as_str()[..12].to_owned()
}
