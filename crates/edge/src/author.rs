//! Requests that change code go to the author instance: PHP of an ordinary instance says so, and they are sent again.
//!
//! The edge cannot tell such a request by itself: what it does is in its body, and whether its sender may do that is
//! WordPress's to say. So an ordinary instance gets it first, recognises it before any plugin is loaded, verifies session,
//! capability and nonce, and answers with one header. The author instance verifies again.
//!
//! The agent takes turns behind the author's sockets and hands a connection to PHP over. From then on neither the agent's end
//! nor the client's leaving ends the request: the agent sees to it that PHP finishes what it has begun.
//!
//! Always: a body that may be sent twice is collected whole first; the header never reaches a client.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use pressroom_model::id::NodeName;

use crate::body::Body;
use crate::cache::Bypass;
use crate::core::Core;
use crate::fastcgi::exchange::Source;
use crate::handler::{Asking, Script};
use crate::mesh::Mesh;
use crate::mesh::passing::{self, Kind};
use crate::notice::Notice;
use crate::pages;
use crate::php::call::{Call, Reach};
use crate::php::request;
use crate::php::spool::spool;
use crate::view::{Author, Site};

/// PHP's word that a request is for the author instance: `change`, or `loopback` for one that such a change makes; with
/// `soon` the answer is that of an ordinary instance, and the author instance is started, since it may be needed next.
pub const TO_AUTHOR: HeaderName = HeaderName::from_static("x-pressroom-author");

/// An agent that is being replaced is back within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a request may turn out to change code, as far as its path tells: its body is kept. Uploads of media may be huge
/// and are none.
pub fn may_change_code(path: &str) -> bool {
    let script = path.rsplit('/').next().unwrap_or(path);
    let is_media = matches!(script, "async-upload.php" | "media-new.php" | "upload.php");
    (path.contains("/wp-admin/") && !is_media) || path.contains("/wp/v2/plugins")
}

/// A request that was kept.
pub struct Kept {
    author: Arc<Author>,
    source: Source,
    length: Option<u64>,
}

impl Kept {
    /// Keeps a request for the author of the site; `None`: there is none, or the body cannot be sent twice.
    pub async fn of(site: &Site, source: &Source, length: Option<u64>) -> Option<Self> {
        let author = site.author.clone()?;
        Some(Self { author, source: source.again().await?, length })
    }

    /// Sends it to the author instance.
    pub async fn send(
        mut self,
        core: &Arc<Core>,
        site: &Arc<Site>,
        asking: &Asking,
        script: &Script,
        bypass: &Bypass,
        word: &str,
    ) -> Response<Body> {
        if self.source.rewind().await.is_err() {
            return Notice::NoAuthor.answer(&asking.id);
        }
        if let Some((mesh, node)) = elsewhere(core, site, asking) {
            let kind = if word == "loopback" { Kind::Loopback } else { Kind::Change };
            let passed =
                passing::pass(core, mesh, node, asking, kind, self.source.into_body()).await;
            return passed.unwrap_or_else(|_| Notice::NoAuthor.answer(&asking.id));
        }
        let facts =
            request::Facts { root: &self.author.model.root, ..pages::facts(site, asking, script) };
        let params = request::direct(&facts, &asking.parts.headers, self.length);
        let mut call: Call = pages::call(core, site, asking, params);
        call.pool = match word {
            "loopback" => self.author.loopback.clone(),
            _ => self.author.change.clone(),
        };
        call.source = self.source;
        call.limits.time = self.author.model.time;
        call.patience = PATIENCE;
        call.reach = Reach::Handed;
        // Sent once, whatever its method.
        call.safe = false;
        match call.run(|| {}).await {
            Ok((answer, pending)) => {
                pages::as_it_comes(core, site, asking, bypass, answer, pending)
            }
            Err(failure) => {
                tracing::error!(site = site.model.name.as_str(), request = asking.id, %failure, "the author instance did not answer");
                Notice::NoAuthor.answer(&asking.id)
            }
        }
    }
}

/// The way to the node whose agent has the author instance, where that is another one.
fn elsewhere<'a>(
    core: &'a Core,
    site: &'a Site,
    asking: &Asking,
) -> Option<(&'a Arc<Mesh>, &'a NodeName)> {
    let node = site.model.author_node.as_ref();
    // What was passed on because PHP there has time may still be for the author; what is for the author goes no further.
    let node = node.filter(|_| matches!(asking.passed, None | Some(Kind::Page)))?;
    Some((core.shared.mesh.get()?, node))
}

/// A request for the author instance that another edge passes on: PHP there has verified it, and PHP here does again.
pub async fn answer_edge(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    kind: Kind,
    body: Incoming,
) -> Response<Body> {
    if kind == Kind::Soon {
        knock(site);
        return Response::new(Body::Empty);
    }
    let most = site.model.limits.upload.get();
    let spooled = spool(body, None, most, &core.shared.spool, true).await;
    let Ok((source, length)) = spooled else { return Notice::TooLarge.answer(&asking.id) };
    match Kept::of(site, &source, Some(length)).await {
        Some(kept) => kept.send(core, site, asking, script, &Bypass::Method, kind.word()).await,
        None => Notice::NoAuthor.answer(&asking.id),
    }
}

/// Has the author instance started, wherever it is.
pub fn wake(core: &Arc<Core>, site: &Arc<Site>, asking: &Asking) {
    match elsewhere(core, site, asking) {
        Some((mesh, node)) => {
            if let Some(knocking) = passing::knock(mesh, node, asking) {
                tokio::spawn(knocking);
            }
        }
        None => knock(site),
    }
}

fn knock(site: &Site) {
    let Some(author) = site.author.clone() else { return };
    tokio::spawn(async move {
        // Knocking is enough; the agent knows who knocks.
        let knock = tokio::net::UnixStream::connect(&author.model.loopback);
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, knock).await {
            tracing::debug!(%error, "the author instance cannot be woken");
        }
    });
}

/// PHP's word in the headers of its answer, which is taken out of them.
pub fn word(headers: &mut HeaderMap) -> Option<String> {
    let value = headers.remove(TO_AUTHOR)?;
    value.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::may_change_code;

    #[test]
    fn bodies_are_kept_where_code_may_change_and_nowhere_else() {
        for path in [
            "/wp-admin/update.php",
            "/two/wp-admin/admin-ajax.php",
            "/wp-admin/network/plugins.php",
            "/wp-json/wp/v2/plugins",
            "/wp-json/wp/v2/plugins/hello",
        ] {
            assert!(may_change_code(path), "{path}");
        }
        for path in ["/wp-admin/async-upload.php", "/wp-json/wp/v2/media", "/", "/cart/"] {
            assert!(!may_change_code(path), "{path}");
        }
    }
}
