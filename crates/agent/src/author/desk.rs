//! The desk: PHP of the author instance says what it has changed, and hears how the rollout ended.
//!
//! One JSON line each way on a connection: `{"id":"…","parts":["wp-content/plugins/x"],"author":"Ann <ann@example.com>","message":"…"}`,
//! answered by `{"release":"ID"}` or `{"refused":"why"}`. PHP waits for the answer, so that no instance meets a database
//! that names code which is not there yet. Where the agent ends before it has answered, PHP says the same to the next one, which
//! knows by the id what was published already, and answers how that ends.

use std::io;
use std::time::Duration;

use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_runtime::clock;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::agent::Agent;
use crate::facts::{Origin, Published};
use crate::site::{self, Brought, Code, Outcome};

/// Longest line.
const MOST: u64 = 64 * 1024;
/// `plan` gives a rollout up long before.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest name and message.
const MOST_WORDS: usize = 300;

/// What was changed.
#[derive(Debug, Deserialize)]
struct Said {
    /// How PHP calls it: another one for each change.
    id: String,
    /// Which parts of the code.
    parts: Vec<String>,
    /// The WordPress user.
    author: String,
    /// What was done.
    message: String,
}

/// What became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// Every new request runs this release.
    Release(String),
    /// Nothing of it stays, and why.
    Refused(String),
}

impl Agent {
    pub(super) async fn serve_desk(&self, name: &SiteName, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        BufReader::new(read.take(MOST)).read_line(&mut line).await?;
        let answer = match serde_json::from_str::<Said>(&line) {
            Ok(said) => self.publish(name, said).await,
            Err(error) => Answer::Refused(format!("the change cannot be read: {error}")),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await
    }

    /// Makes a release of what was changed, and moves the site to it.
    async fn publish(&self, name: &SiteName, said: Said) -> Answer {
        if !self.authors.at_work.lock().contains(name) {
            return Answer::Refused("no request that changes code is under way".into());
        }
        let mut parts = Vec::new();
        for word in &said.parts {
            match super::part(word) {
                Some(part) => parts.push(part),
                None => {
                    return Answer::Refused(format!("`{word}` is not changed in wp-admin"));
                }
            }
        }
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            facts.and_then(|facts| Some(facts.serving.as_ref()?.release.id.clone()))
        };
        let Some(base) = serving else {
            return Answer::Refused("the site serves no release yet".into());
        };
        let code = Code::Edited {
            base: base.clone(),
            copy: self.layout.author_root(name),
            parts: parts.clone(),
        };
        let origin = Origin {
            is_brought: true,
            source: "wp-admin".into(),
            author: words(&said.author),
            message: words(&said.message),
            ..Origin::default()
        };
        let brought = match self.known(name, &said.id) {
            Some(id) => Ok(id),
            None => self.bring_in(name, &said.id, Brought { code, origin }).await,
        };
        let outcome = match brought {
            Ok(id) => match self.end_of_rollout(name, &id).await {
                Outcome::Serves => {
                    tracing::info!(site = %name, release = %id, author = said.author, message = said.message, "changed in wp-admin");
                    return Answer::Release(id.to_string());
                }
                Outcome::Refused(because) => because,
                Outcome::UnderWay => "the rollout did not come to its end in time".into(),
            },
            Err(error) => error.to_string(),
        };
        // WordPress goes on with what it shows: the files must be those that it will find again.
        if let Err(error) = self.renew_copy(name, Some(parts)).await {
            tracing::error!(site = %name, %error, "the author's copy could not be put right");
        }
        Answer::Refused(outcome)
    }

    fn serves(&self, name: &SiteName, id: &ReleaseId) -> bool {
        let state = self.state.lock();
        let serving = state.sites.get(name).and_then(|facts| facts.serving.as_ref());
        serving.is_some_and(|serving| serving.release.id == *id)
    }

    /// The release that was published by this name, if the site was asked to have it.
    fn known(&self, name: &SiteName, id: &str) -> Option<ReleaseId> {
        let state = self.state.lock();
        let facts = state.sites.get(name)?;
        let release = &facts.published.as_ref().filter(|published| published.id == id)?.release;
        let is_it = |known: Option<&ReleaseId>| known == Some(release);
        let was_wanted = is_it(facts.release.as_ref().map(|wanted| &wanted.id))
            || is_it(facts.serving.as_ref().map(|serving| &serving.release.id))
            || is_it(facts.refused.as_ref().map(|refused| &refused.release));
        was_wanted.then(|| release.clone())
    }

    /// Makes the release, which the site should have from now on, by the name that PHP has for it.
    async fn bring_in(
        &self,
        name: &SiteName,
        id: &str,
        brought: Brought,
    ) -> Result<ReleaseId, site::Error> {
        let release = self.take_in(name, brought).await?;
        let made = release.id.clone();
        let published = Published { id: id.to_owned(), release: made.clone() };
        self.state.lock().sites.entry(name.clone()).or_default().published = Some(published);
        // Stored in one go with what the site should have.
        self.want(name, release).await?;
        Ok(made)
    }

    async fn end_of_rollout(&self, name: &SiteName, id: &ReleaseId) -> Outcome {
        let until = clock::now() + PATIENCE;
        loop {
            match self.rollout(name) {
                Outcome::Serves if !self.serves(name, id) => {
                    return Outcome::Refused("another release was asked for meanwhile".into());
                }
                Outcome::UnderWay if clock::now() < until => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// A user's words on one line, and not too many.
fn words(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(MOST_WORDS).collect()
}
