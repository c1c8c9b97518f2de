//! What was pushed to a site's repository: `main` is a deploy, and the push is refused when that is.

use pressroom_agent::facts::Origin;
use pressroom_agent::git::push::{Refusal, Update};
use pressroom_agent::git::repository::GitError;
use pressroom_agent::site::Brought;
use pressroom_api::failure::Failure;
use pressroom_api::git::Pushed;
use pressroom_api::progress::Progress;

use crate::deliver::Delivery;

impl Delivery<'_> {
    /// Takes what was pushed.
    pub(crate) async fn push(&self, pushed: Pushed, progress: &Progress) -> Result<(), Failure> {
        let update = Update::parse(&pushed.name, &pushed.old, &pushed.new).ok_or_else(|| {
            Failure::yours(format!("`{}` is no branch", pushed.name)).state("nothing was changed")
        })?;
        if update.is_main() {
            return self.push_main(&update, progress).await;
        }
        let history = self.agent.history(self.name()).await.map_err(|error| self.git(error))?;
        history.take_branch(&update).await.map_err(|error| self.git(error))?;
        progress.note("kept as a branch; only `main` is deployed");
        Ok(())
    }

    async fn push_main(&self, update: &Update, progress: &Progress) -> Result<(), Failure> {
        let _turn = self.agent.turn(self.name()).await;
        let history = self.agent.history(self.name()).await.map_err(|error| self.git(error))?;
        let build = progress.begin(format!("make a release for {}", self.name()));
        let folder = self.agent.layout.incoming(self.name());
        let incoming = match history.examine(update, folder).await {
            Ok(incoming) => incoming,
            Err(refusal) => {
                build.failed("");
                return Err(self.refused(refusal));
            }
        };
        let subject = incoming.message.lines().next().unwrap_or_default().to_owned();
        let origin = Origin {
            is_brought: true,
            source: "git push".to_owned(),
            author: incoming.author.clone(),
            email: incoming.email.clone(),
            message: if subject.is_empty() { "git push".to_owned() } else { subject },
            commit: Some(update.new.as_str().to_owned()),
        };
        let brought = Brought { code: incoming.code.clone(), origin };
        let id = self.move_to(brought, build, progress).await?;
        drop(incoming);
        history.adopt(update, &id).await.map_err(|error| {
            Failure::ours("the push serves, but the repository could not be brought to it")
                .cause(error)
                .state(self.unmoved())
                .hint("it is tried again by itself; `git pull` shows when it is done")
        })
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let hint = match &refusal {
            Refusal::Git(_) => {
                return Failure::ours("git failed").cause(refusal).state(self.unmoved());
            }
            Refusal::Deletion => "push another commit to `main`, or `pressroom release rollback`",
            Refusal::Moved | Refusal::NotForward => "`git pull` first, then push again",
            Refusal::Files(_) => "take these files out of the commit, then push again",
        };
        Failure::yours(format!("`{}` was not moved by this push", self.name()))
            .cause(&refusal)
            .state(self.unmoved())
            .hint(hint)
    }

    fn git(&self, error: GitError) -> Failure {
        Failure::ours(format!("the git repository of `{}` cannot be used", self.name()))
            .cause(error)
            .state(self.unmoved())
            .hint("`pressroom doctor` looks for reasons")
    }
}
