//! A push to another branch than `main` is an environment: the first one makes it, later ones deploy to it, and it goes with the
//! branch.
//!
//! Always: the branch in the repository is moved last, so that it never says more than what is served.

use pressroom_agent::git::push::Update;
use pressroom_api::environment::NewEnvironment;
use pressroom_api::failure::Failure;
use pressroom_api::git::Pushed;
use pressroom_api::progress::Progress;
use pressroom_model::environment::MadeBy;
use pressroom_model::id::{EnvironmentName, SiteName};

use crate::deliver::Delivery;
use crate::operator::ThisOperator;
use crate::push::brought;

impl ThisOperator {
    /// Takes what was pushed to a site's repository.
    pub(crate) async fn take_push(
        &self,
        site: &SiteName,
        pushed: &Pushed,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let delivery = self.delivery(site)?;
        let update = Update::parse(&pushed.name, &pushed.old, &pushed.new).ok_or_else(|| {
            Failure::yours(format!("`{}` is no branch", pushed.name)).state("nothing was changed")
        })?;
        if update.is_main() {
            return delivery.push_main(&update, progress).await;
        }
        let branch = update.name.trim_start_matches("refs/heads/");
        let name = match branch.parse::<EnvironmentName>() {
            Ok(name) if delivery.site.environment.is_none() => name,
            Ok(_) => {
                return keep(&delivery, &update, "an environment has none itself", progress).await;
            }
            Err(bad) => {
                let because = format!("`{branch}` cannot be the name of one: {}", bad.why);
                return keep(&delivery, &update, &because, progress).await;
            }
        };
        match update.is_deletion() {
            true => self.delete_branch(&delivery, &name, &update, progress).await,
            false => self.push_branch(&delivery, &name, &update, progress).await,
        }
    }

    /// Moves the environment of a branch to what was pushed; makes it first where there is none.
    async fn push_branch(
        &self,
        delivery: &Delivery<'_>,
        name: &EnvironmentName,
        update: &Update,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let of = delivery.name();
        let git = |error| delivery.git(error);
        let history = self.agent.history(of).await.map_err(git)?;
        // Before anything is made: what can never be a release makes no environment.
        let folder = self.agent.layout.incoming(of);
        let incoming = history.examine_branch(update, folder).await;
        let incoming = incoming.map_err(|refusal| delivery.refused(refusal))?;
        let is_new = self.environments_here().find(of, name).is_err();
        if is_new {
            let making = progress.begin(format!("make the environment {name} of {of}"));
            let made = self.make(of, name, progress).await;
            if let Err(failure) = made {
                making.failed("");
                self.take_away_again(of, name, progress).await;
                return Err(failure);
            }
            making.done("");
        }
        let own = self.environments_here().find(of, name)?;
        let environment = self.delivery(&own)?;
        let moved = {
            let _turn = self.agent.turn(&own).await;
            let build = progress.begin(format!("make a release for {own}"));
            environment.move_to(brought(&incoming, update), build, progress).await
        };
        drop(incoming);
        if let Err(failure) = moved {
            // Nobody asked for a copy of what serves.
            if is_new {
                self.take_away_again(of, name, progress).await;
            }
            return Err(failure);
        }
        history.take_branch(update).await.map_err(git)?;
        let all = self.environments_here().list();
        if let Some(shown) = all.iter().find(|one| one.site == own) {
            progress.note(format!("{name} is at {}", shown.url));
            progress.note(format!("who may look: `pressroom env open {of} {name}`"));
        }
        Ok(())
    }

    /// Takes an environment away whose push was refused, as far as it was made.
    async fn take_away_again(&self, of: &SiteName, name: &EnvironmentName, progress: &Progress) {
        if self.environments_here().find(of, name).is_ok()
            && let Err(error) = self.take_away(of, name, progress).await
        {
            progress.note(format!("the environment stays: {error}"));
        }
    }

    async fn make(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let events = self.agent.follow();
        let new = NewEnvironment { name: name.clone(), cron: false, payments: false };
        self.environments_here().add(of, new, MadeBy::Branch).await?;
        self.settle(progress, events).await
    }

    /// Deletes a branch, and its environment if a branch made that.
    async fn delete_branch(
        &self,
        delivery: &Delivery<'_>,
        name: &EnvironmentName,
        update: &Update,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let of = delivery.name();
        let all = self.environments_here().list();
        match all.iter().find(|one| one.of == *of && one.name == *name) {
            Some(found) if found.made_by == MadeBy::Branch => {
                self.take_away(of, name, progress).await?;
                progress.note(format!("the environment {name} is gone with its branch"));
            }
            Some(_) => progress.note(format!(
                "the environment {name} was made by a command and stays: `pressroom env remove {of} {name}`"
            )),
            None => {}
        }
        let history = self.agent.history(of).await.map_err(|error| delivery.git(error))?;
        history.take_branch(update).await.map_err(|error| delivery.git(error))
    }
}

/// Keeps a branch that is no environment.
async fn keep(
    delivery: &Delivery<'_>,
    update: &Update,
    because: &str,
    progress: &Progress,
) -> Result<(), Failure> {
    let history = delivery.agent.history(delivery.name()).await;
    let history = history.map_err(|error| delivery.git(error))?;
    history.take_branch(update).await.map_err(|error| delivery.git(error))?;
    if !update.is_deletion() {
        progress.note(format!("kept as a branch without an environment: {because}"));
    }
    Ok(())
}
