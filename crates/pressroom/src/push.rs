//! A push to `main` is a deploy, and it is refused when that is. Other branches: see [`crate::branch`].

use pressroom_agent::facts::Origin;
use pressroom_agent::git::push::{Incoming, Refusal, Update};
use pressroom_agent::git::repository::GitError;
use pressroom_agent::site::Brought;
use pressroom_api::failure::Failure;
use pressroom_api::progress::Progress;

use crate::deliver::Delivery;

impl Delivery<'_> {
    pub(crate) async fn push_main(
        &self,
        update: &Update,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let _turn = self.agent.turn(self.name()).await;
        let history = self.agent.history(self.name()).await.map_err(|error| self.git(error))?;
        let build = progress.begin(format!("make a release for {}", self.name()));
        let folder = self.agent.layout.incoming(self.name());
        let incoming = match history.examine(update, folder).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => {
                build.done("it serves already");
                return Ok(());
            }
            Err(refusal) => {
                build.failed("");
                return Err(self.refused(refusal));
            }
        };
        let id = self.move_to(brought(&incoming, update), build, progress).await?;
        drop(incoming);
        history.adopt(update, &id).await.map_err(|error| {
            Failure::ours("the push serves, but the repository could not be brought to it")
                .cause(error)
                .state(self.unmoved())
                .hint("it is tried again by itself; `git pull` shows when it is done")
        })
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> Failure {
        let hint = match &refusal {
            Refusal::Git(_) => {
                return Failure::ours("git failed").cause(refusal).state(self.unmoved());
            }
            Refusal::NoMain => "wait until the site serves something, then push again",
            Refusal::Deletion => "push another commit to `main`, or `pressroom release rollback`",
            Refusal::Moved | Refusal::NotForward => "`git pull` first, then push again",
            Refusal::Files(_) => "take these files out of the commit, then push again",
        };
        Failure::yours(format!("`{}` was not moved by this push", self.name()))
            .cause(&refusal)
            .state(self.unmoved())
            .hint(hint)
    }

    pub(crate) fn git(&self, error: GitError) -> Failure {
        Failure::ours(format!("the git repository of `{}` cannot be used", self.name()))
            .cause(error)
            .state(self.unmoved())
            .hint("`pressroom doctor` looks for reasons")
    }
}

/// A push as a release is made of it.
pub(crate) fn brought(incoming: &Incoming, update: &Update) -> Brought {
    let subject = incoming.message.lines().next().unwrap_or_default().to_owned();
    let origin = Origin {
        is_brought: true,
        source: "git push".to_owned(),
        author: incoming.author.clone(),
        email: incoming.email.clone(),
        message: if subject.is_empty() { "git push".to_owned() } else { subject },
        commit: Some(update.new.as_str().to_owned()),
    };
    Brought { code: incoming.code.clone(), origin }
}
