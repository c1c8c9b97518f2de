//! The check of a candidate: a few of the site's own busiest pages, asked of its first instance and of one that serves.
//!
//! The first page compiles most of the code, then a few are asked for at a time. One that took long is asked for again, since
//! compiling is no fault. No visitor is involved, nothing is stored, and WordPress's own handler of fatal errors is off, so that nobody gets its mail and PHP's message
//! comes out whole.

use std::path::Path;
use std::time::Duration;

use pressroom_model::id::{InstanceId, SiteName};
use pressroom_plan::check::{self, Reply};
use pressroom_plan::machine::instance_of;
use pressroom_runtime::clock;

use crate::agent::Agent;
use crate::engine::{FINGERPRINT, edge};
use crate::facts::Version;
use crate::fastcgi;
use crate::probe::futures;

/// So many pages.
const PAGES: usize = 8;
/// So many at a time: others of the candidate's instances start meanwhile, and visitors are answered.
const AT_ONCE: usize = 2;
/// After so long no further page is asked for.
const ENOUGH: Duration = Duration::from_secs(1);
/// The longest wait for a page of the candidate: code is compiled, caches are cold.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait for a page of the serving version: it has visitors to answer.
const PATIENCE_BEFORE: Duration = Duration::from_secs(2);

impl Agent {
    /// What is wrong with the candidate of a site; `None`: it may serve.
    pub(crate) async fn fault_of_candidate(&self, name: &SiteName) -> Option<String> {
        let (candidate, serving, home) = {
            let state = self.state.lock();
            let facts = state.sites.get(name)?;
            let home = facts.prepared.as_ref()?.home.clone();
            (facts.candidate.clone()?.version, facts.serving.clone(), home)
        };
        let is_installed = self.state.lock().sites.get(name).is_some_and(|f| f.is_installed);
        if !is_installed {
            return None;
        }
        let ours = self.one_of(name, &candidate)?;
        let theirs = serving.and_then(|serving| Some((self.one_of(name, &serving)?, serving)));
        let begun = clock::now();
        let ours = (&ours, &candidate);
        let theirs = theirs.as_ref().map(|(id, serving)| (id, serving));
        let pages = self.pages_to_check(name).await;
        let (first, others) = pages.split_at(pages.len().min(1));
        let at_once = AT_ONCE.min(usize::from(candidate.site.php.workers)).max(1);
        for some in std::iter::once(first).chain(others.chunks(at_once)) {
            let asked = some.iter().map(|path| self.fault_of_page(ours, theirs, &home, path));
            if let Some(fault) = futures(asked).await.into_iter().flatten().next() {
                return Some(fault);
            }
            if begun.elapsed() > ENOUGH {
                break;
            }
        }
        None
    }

    async fn fault_of_page(
        &self,
        (id, candidate): (&InstanceId, &Version),
        theirs: Option<(&InstanceId, &Version)>,
        home: &str,
        path: &str,
    ) -> Option<String> {
        let first = self.ask_for(id, candidate, home, path, PATIENCE).await;
        let second = match first.status != 0 && first.took > check::SLOW {
            true => self.ask_for(id, candidate, home, path, PATIENCE).await,
            false => first.clone(),
        };
        let is_doubtful = check::is_doubtful(&first) || check::is_doubtful(&second);
        let before = match theirs {
            Some((id, serving)) if is_doubtful => {
                Some(self.ask_for(id, serving, home, path, PATIENCE_BEFORE).await)
            }
            _ => None,
        };
        // What only the first request says counts as well, but for its time.
        let first = Reply { took: second.took, ..first };
        check::fault(path, before.as_ref(), &first)
            .or_else(|| check::fault(path, before.as_ref(), &second))
    }

    /// The site's busiest pages, the front page first.
    async fn pages_to_check(&self, name: &SiteName) -> Vec<String> {
        let asked = serde_json::json!({ "site": name, "most": PAGES });
        let asked = edge::ask(&self.layout, "POST", "/busiest", Some(asked.to_string().into()));
        let busiest: Vec<String> = match asked.await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            // An edge that is away knows no pages; the front page is always there.
            Err(_) => Vec::new(),
        };
        let mut pages = vec!["/".to_owned(), "/wp-login.php".to_owned()];
        pages.extend(busiest.into_iter().filter(|path| path != "/").take(PAGES - pages.len()));
        pages
    }

    /// An instance of a version that runs.
    pub(crate) fn one_of(&self, name: &SiteName, version: &Version) -> Option<InstanceId> {
        self.one_with(name, &version.fingerprint)
    }

    /// An instance of a fingerprint that runs.
    pub(crate) fn one_with(&self, name: &SiteName, fingerprint: &str) -> Option<InstanceId> {
        let state = self.state.lock();
        let is_of = |process: &&pressroom_model::process::ProcessState| {
            process.pid.is_some()
                && !process.is_stopping
                && process.spec.env.get(FINGERPRINT).is_some_and(|of| of == fingerprint)
        };
        let mut processes = state.processes.iter().filter(is_of);
        processes
            .find_map(|process| instance_of(&process.spec.name).filter(|id| id.site() == *name))
    }

    async fn ask_for(
        &self,
        id: &InstanceId,
        version: &Version,
        home: &str,
        path: &str,
        patience: Duration,
    ) -> Reply {
        let root = self.layout.site_root(&version.site.name, &version.release.id);
        let root = version.means.php_root().unwrap_or(root);
        let socket = self.layout.instance_socket(id);
        let begun = clock::now();
        let asked = tokio::time::timeout(
            patience,
            ask(&socket, &root, home, path, &[("PRESSROOM_CHECK", "1")]),
        )
        .await;
        let took = begun.elapsed();
        match asked {
            Ok(Ok(answer)) => Reply {
                status: answer.status,
                bytes: answer.body.iter().filter(|byte| !byte.is_ascii_whitespace()).count(),
                errors: answer.errors,
                took,
                because: String::new(),
            },
            Ok(Err(error)) => Reply { because: error.to_string(), took, ..Reply::default() },
            Err(_) => {
                let because = format!("no answer within {} s", patience.as_secs());
                Reply { because, took, ..Reply::default() }
            }
        }
    }
}

/// One page, as an anonymous visitor would ask for it, with parameters that no visitor can send.
pub(crate) async fn ask(
    socket: &Path,
    root: &Path,
    home: &str,
    path: &str,
    more: &[(&str, &str)],
) -> std::io::Result<fastcgi::Answer> {
    let (scheme, authority) = home.split_once("://").unwrap_or(("https", home));
    let host = authority.split(':').next().unwrap_or(authority);
    let port = authority.split(':').nth(1).unwrap_or(if scheme == "https" { "443" } else { "80" });
    let (before, query) = path.split_once('?').unwrap_or((path, ""));
    let script = if before == "/wp-login.php" { "/wp-login.php" } else { "/index.php" };
    let root = root.display().to_string();
    let file = format!("{root}{script}");
    let mut params = vec![
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "Pressroom"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REDIRECT_STATUS", "200"),
        ("DOCUMENT_ROOT", &root),
        ("SCRIPT_FILENAME", &file),
        ("SCRIPT_NAME", script),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", path),
        ("QUERY_STRING", query),
        ("REQUEST_SCHEME", scheme),
        ("SERVER_NAME", host),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", port),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("HTTP_HOST", authority),
        ("HTTP_USER_AGENT", "Pressroom"),
        ("HTTP_ACCEPT", "*/*"),
    ];
    params.extend_from_slice(more);
    if scheme == "https" {
        params.push(("HTTPS", "on"));
    }
    fastcgi::get(socket, &params).await
}
