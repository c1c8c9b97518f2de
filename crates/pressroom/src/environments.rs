//! Environments as the operator's API asks for them: made, listed, refreshed, promoted, removed.

use std::sync::Arc;

use pressroom_agent::agent::Agent;
use pressroom_agent::engine::mariadb::promote;
use pressroom_agent::facts::{Origin, Release};
use pressroom_agent::mailbox;
use pressroom_agent::site::{self, environment, home};
use pressroom_api::environment::{
    Environment, Letter, LetterText, NewEnvironment, Promotion, TableDiff,
};
use pressroom_api::failure::Failure;
use pressroom_api::progress::Progress;
use pressroom_api::release::Diff;
use pressroom_model::config::Site;
use pressroom_model::environment::MadeBy;
use pressroom_model::id::{EnvironmentName, SiteName};

/// The environments of this agent.
pub(crate) struct Environments<'a> {
    pub(crate) agent: &'a Arc<Agent>,
}

impl Environments<'_> {
    /// All of them, by site and name.
    pub(crate) fn list(&self) -> Vec<Environment> {
        let Some(config) = self.agent.config() else { return Vec::new() };
        let shown = |site: &Site| {
            let environment = site.environment.clone()?;
            let release = self.serving(&site.name).map(|release| release.id);
            Some(Environment {
                name: environment.name,
                of: environment.of,
                site: site.name.clone(),
                url: format!("{}/", home(&config, site)),
                admin_user: self.agent.environment_admin(&site.name),
                admin_password_file: self.agent.layout.environment_password(&site.name),
                release,
                cron: environment.cron,
                payments: environment.payments,
                made_ms: environment.made_ms,
                made_by: environment.made_by,
            })
        };
        let mut all: Vec<Environment> = config.sites.iter().filter_map(shown).collect();
        all.sort_by(|a, b| (&a.of, &a.name).cmp(&(&b.of, &b.name)));
        all
    }

    /// The site that an environment is.
    pub(crate) fn find(&self, of: &SiteName, name: &EnvironmentName) -> Result<SiteName, Failure> {
        let all = self.list();
        if let Some(found) = all.iter().find(|one| one.of == *of && one.name == *name) {
            return Ok(found.site.clone());
        }
        let names: Vec<String> =
            all.iter().filter(|one| one.of == *of).map(|one| format!("`{}`", one.name)).collect();
        let failure = Failure::yours(format!("`{of}` has no environment `{name}`"))
            .state("nothing was changed");
        Err(match names.is_empty() {
            true => failure.hint(format!("make it: `pressroom env create {of} {name}`")),
            false => failure.hint(format!("it has {}", names.join(", "))),
        })
    }

    /// Makes it part of the intent. What follows is the loop's.
    pub(crate) async fn add(
        &self,
        of: &SiteName,
        new: NewEnvironment,
        made_by: MadeBy,
    ) -> Result<SiteName, Failure> {
        let refuse = |what: &str| {
            Failure::yours(format!("no environment of `{of}` can be made"))
                .cause(what)
                .state("nothing was changed")
        };
        let parent = self.agent.site(of).ok_or_else(|| refuse("there is no such site"))?;
        if let Some(environment) = &parent.environment {
            return Err(refuse("it is an environment itself").hint(format!(
                "make one of its site: `pressroom env create {} {}`",
                environment.of, new.name
            )));
        }
        if self.serving(of).is_none() {
            return Err(refuse("the site serves nothing yet")
                .hint("`pressroom status` shows what it waits for"));
        }
        let NewEnvironment { name, cron, payments } = new;
        let wished = environment::Wished { name, cron, payments, made_by };
        self.agent.add_environment(of, wished).await.map_err(|error| match error {
            site::Error::Name(_)
            | site::Error::Twice { .. }
            | site::Error::Environments(_)
            | site::Error::Blog { .. } => refuse(&error.to_string()).hint("choose another name"),
            error => Failure::ours(format!("no environment of `{of}` was made"))
                .cause(error)
                .state(format!("`{of}` goes on as it was")),
        })
    }

    /// The release that a site serves.
    pub(crate) fn serving(&self, name: &SiteName) -> Option<Release> {
        let first = self.agent.releases(name).into_iter().next()?;
        self.agent.kept(name, &first.id)
    }

    /// The release of an environment, as one that its site could have.
    pub(crate) fn promoted(
        &self,
        of: &SiteName,
        promotion: &Promotion,
    ) -> Result<Release, Failure> {
        let name = self.find(of, &promotion.name)?;
        let release = self.serving(&name).ok_or_else(|| {
            Failure::yours(format!("environment `{}` serves nothing yet", promotion.name))
                .state(format!("`{of}` goes on as it was"))
        })?;
        let origin = Origin {
            is_brought: true,
            source: format!("environment {}", promotion.name),
            author: promotion.author.clone(),
            message: format!("promote {}: {}", promotion.name, release.origin.message),
            ..Origin::default()
        };
        Ok(Release { origin, ..release })
    }

    /// What promoting it would change in the code.
    pub(crate) fn promotable(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
    ) -> Result<Diff, Failure> {
        let site = self.find(of, name)?;
        let (Some(from), Some(to)) = (self.serving(of), self.serving(&site)) else {
            return Err(Failure::yours("one of the two serves nothing yet"));
        };
        let releases = pressroom_release::releases::Releases::at(self.agent.layout.releases());
        let diff = releases
            .diff(&from.id, &to.id)
            .map_err(|error| Failure::ours("the releases cannot be compared").cause(error))?;
        Ok(Diff {
            from: Some(from.id),
            to: Some(to.id),
            added: diff.added,
            changed: diff.changed,
            removed: diff.removed,
        })
    }

    /// What promoting tables would change.
    pub(crate) async fn compare_tables(
        &self,
        of: &SiteName,
        promotion: &Promotion,
    ) -> Result<Vec<TableDiff>, Failure> {
        let site = self.find(of, &promotion.name)?;
        let diffs = self.agent.compare_tables(&site, &promotion.tables).await;
        Ok(diffs.map_err(|error| unpromoted(of, error))?.into_iter().map(shown).collect())
    }

    /// Promotes tables, if that changes what is expected.
    pub(crate) async fn promote_tables(
        &self,
        of: &SiteName,
        promotion: &Promotion,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let site = self.find(of, &promotion.name)?;
        let step = progress.begin(format!("put {} in place", promotion.tables.join(", ")));
        let expected: Vec<_> = promotion.expected.iter().cloned().map(known).collect();
        match self.agent.promote_tables(&site, &promotion.tables, &expected).await {
            Ok(promoted) => {
                step.done(format!("what they were before: {}", promoted.dump.display()));
                if promoted.diffs != expected {
                    progress.note(format!(
                        "`{of}` was written to at that very moment: those rows are in the dump alone"
                    ));
                }
                Ok(())
            }
            Err(error) => {
                step.failed(error.to_string());
                Err(unpromoted(of, error))
            }
        }
    }

    /// The letters in its mailbox.
    pub(crate) async fn letters(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
    ) -> Result<Vec<Letter>, Failure> {
        let site = self.find(of, name)?;
        let folder = self.agent.layout.mailbox(&site);
        let mailbox = folder.clone();
        let letters = read(move || mailbox::letters(&mailbox)).await?;
        let shown = |letter: mailbox::Letter| Letter {
            file: folder.join(format!("{}.eml", letter.id)),
            id: letter.id,
            at_ms: letter.at_ms,
            from: letter.from,
            to: letter.to,
            subject: letter.subject,
        };
        Ok(letters.into_iter().map(shown).collect())
    }

    /// What one of them says.
    pub(crate) async fn letter(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
        id: &str,
    ) -> Result<LetterText, Failure> {
        let site = self.find(of, name)?;
        let (folder, of_it) = (self.agent.layout.mailbox(&site), id.to_owned());
        let text = read(move || mailbox::text(&folder, &of_it)).await?;
        let none = || {
            Failure::yours(format!("`{site}` has no letter `{id}`"))
                .hint("the oldest go when there are too many")
        };
        text.map(|text| LetterText { text }).ok_or_else(none)
    }
}

/// Reads a mailbox where nobody waits for it: what is in there is as big as an environment likes.
async fn read<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: String| Failure::ours("the mailbox cannot be read").cause(error);
    done.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn unpromoted(of: &SiteName, error: site::Error) -> Failure {
    let failure = match &error {
        site::Error::Table(_) => Failure::yours("these tables cannot be promoted"),
        _ => Failure::ours("these tables could not be promoted"),
    };
    failure.cause(error).state(format!("the tables of `{of}` are as they were"))
}

fn shown(diff: promote::TableDiff) -> TableDiff {
    let promote::TableDiff { table, added, changed, removed, keys } = diff;
    TableDiff { table, added, changed, removed, keys }
}

fn known(diff: TableDiff) -> promote::TableDiff {
    let TableDiff { table, added, changed, removed, keys } = diff;
    promote::TableDiff { table, added, changed, removed, keys }
}
