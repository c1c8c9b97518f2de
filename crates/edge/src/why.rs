//! One request explained: which site, what its path means, what the cache would do and why, which instances there are;
//! and, if asked for, how long PHP takes for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::Shared;
use crate::cache::{self, Asked, Freshness};
use crate::client::Scheme;
use crate::fastcgi::exchange::Source;
use crate::mesh::choice::Place;
use crate::php::call::{Call, Reach};
use crate::php::request::{self, Facts};
use crate::pool::Class;
use crate::route::{Target, route};
use crate::view::Site;

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// The whole URL.
    pub url: String,
    /// The method; GET if it is left out.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Whether PHP is asked as well (only for a page that the cache may have).
    #[serde(default)]
    pub execute: bool,
}

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// No URL.
    #[error("`{0}` is not a whole URL such as https://example.com/path")]
    Url(String),
    /// No header.
    #[error("`{0}` is not a good header")]
    Header(String),
    /// No method.
    #[error("`{0}` is not a method")]
    Method(String),
}

/// The answer.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// The host as it is compared.
    pub host: String,
    /// The site, if one has the host.
    pub site: Option<String>,
    /// What the path means.
    pub target: String,
    /// The key in the cache.
    pub key: Option<String>,
    /// `hit`, `stale`, `miss` or `bypass`; for files `none`.
    pub decision: String,
    /// Why.
    pub because: String,
    /// The stored page's age in seconds.
    pub age: Option<u64>,
    /// The seconds for which it is fresh.
    pub ttl: Option<u64>,
    /// How many tags and addresses it is found by.
    pub tags: Option<usize>,
    /// Bytes in all codings.
    pub bytes: Option<usize>,
    /// Instances: busy and all workers.
    pub instances: BTreeMap<String, (u32, u32)>,
    /// Requests that wait for a worker of the site.
    pub waiting: u32,
    /// In a cluster: where PHP would be asked, the best place first.
    pub way: Vec<String>,
    /// What PHP said, if it was asked.
    pub executed: Option<Executed>,
}

/// How PHP answered.
#[derive(Debug, Serialize)]
pub struct Executed {
    /// Status; `None`: it failed.
    pub status: Option<u16>,
    /// Who answered.
    pub instance: Option<String>,
    /// Milliseconds of waiting for a worker.
    pub queue_ms: f64,
    /// Milliseconds to the end of PHP's headers.
    pub php_ms: f64,
    /// Whether, and why not, the answer could be stored.
    pub stored: String,
    /// The tags that PHP named, if it could.
    pub tags: Vec<String>,
}

/// Explains.
pub async fn explain(shared: &Arc<Shared>, question: Question) -> Result<Explanation, Bad> {
    let uri: Uri = question.url.parse().map_err(|_| Bad::Url(question.url.clone()))?;
    let (Some(authority), Some(scheme)) = (uri.authority(), uri.scheme_str()) else {
        return Err(Bad::Url(question.url));
    };
    let method = question.method.as_deref().unwrap_or("GET");
    let method: Method = method.parse().map_err(|_| Bad::Method(method.to_owned()))?;
    let headers = headers(&question.headers)?;
    let host = crate::host::canonical(authority.as_str())
        .ok_or_else(|| Bad::Url(question.url.clone()))?
        .into_owned();
    let view = shared.view.load_full();
    let mut told =
        Explanation { host: host.clone(), decision: "none".to_owned(), ..Explanation::default() };
    let Some(site) = view.hosts.find(&host) else {
        told.because = "no site has this host: answered 421".to_owned();
        return Ok(told);
    };
    told.site = Some(site.model.name.to_string());
    told.instances = site
        .pool
        .load()
        .into_iter()
        .map(|(id, busy, workers)| (id.to_string(), (busy, workers)))
        .collect();
    told.waiting = site.pool.waiting();
    let target = route(uri.path(), site.model.network, &*site.library);
    told.target = describe(&target);
    if scheme == "http" && site.model.redirect_to_https {
        told.because = "plain HTTP is redirected to HTTPS".to_owned();
        return Ok(told);
    }
    let Target::Php { script, path_info, .. } = target else {
        told.because = "not a page".to_owned();
        return Ok(told);
    };
    let asked = Asked {
        method: &method,
        scheme,
        authority: authority.as_str(),
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
    };
    match site.cached.key(&asked) {
        Err(bypass) => {
            told.decision = "bypass".to_owned();
            told.because = bypass.to_string();
            told.way = way(shared, site, None);
        }
        Ok(key) => {
            told.key = Some(key.path_and_query().to_owned());
            judge(shared, &key, &mut told);
            told.way = way(shared, site, Some(key.text()));
            // A node that has no PHP of the site would wait for it.
            if question.execute && (told.way.is_empty() || site.pool.usable().1 > 0) {
                let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
                let facts = Facts {
                    root: site.model.root_for_php(),
                    script: &script,
                    path_info: &path_info,
                    method: &Method::GET,
                    uri: key.path_and_query(),
                    host: &host,
                    authority: authority.as_str(),
                    scheme,
                    address: [127, 0, 0, 1].into(),
                    protocol: "HTTP/1.1",
                    request_id: "why",
                };
                told.executed = Some(execute(shared, site, &facts, key.cookies()).await);
            }
        }
    }
    Ok(told)
}

/// Where PHP would be asked for a page, or past the cache; nothing on a machine that is alone.
fn way(shared: &Shared, site: &Site, page: Option<&str>) -> Vec<String> {
    let Some(mesh) = shared.mesh.get() else { return Vec::new() };
    let words = |place| match place {
        Place::Here => "here".to_owned(),
        Place::Owner(node) => format!("{node} (owns the page)"),
        Place::There(node) => node.to_string(),
    };
    mesh.places(site, None, page).into_iter().map(words).collect()
}

fn judge(shared: &Shared, key: &cache::Key, told: &mut Explanation) {
    let why = shared.cache.why(key, cache::now());
    let refused = why.refused.map(|(reason, _)| reason);
    let Some(page) = why.page else {
        told.decision = "miss".to_owned();
        told.because = match refused {
            Some(reason) => format!("not stored the last time: {reason}"),
            None => "not asked for yet".to_owned(),
        };
        return;
    };
    (told.age, told.ttl) = (Some(page.age), Some(page.ttl));
    (told.tags, told.bytes) = (Some(page.tags), Some(page.bytes));
    let (decision, because) = match page.freshness {
        Freshness::Fresh(_) => ("hit", "stored and fresh"),
        Freshness::StaleWhileRevalidate(_) if page.purged_at.is_some() => {
            ("stale", "purged; refreshed by the next request")
        }
        Freshness::StaleWhileRevalidate(_) => {
            ("stale", "past its time; refreshed by the next request")
        }
        Freshness::StaleIfError(_) => ("miss", "too old, kept in case PHP fails"),
        Freshness::Expired => ("miss", "too old"),
    };
    told.decision = decision.to_owned();
    told.because = because.to_owned();
}

async fn execute(
    shared: &Arc<Shared>,
    site: &Arc<Site>,
    facts: &Facts<'_>,
    cookies: &str,
) -> Executed {
    let call = Call {
        site: site.model.name.to_string(),
        affirmations: shared.affirmations.clone(),
        cached: site.cached.clone(),
        pool: site.pool.clone(),
        limits: site.model.limits.clone(),
        params: request::canonical(facts, cookies),
        source: Source::Memory(bytes::Bytes::new()),
        safe: true,
        class: Class::Person,
        request_id: "why".to_owned(),
        patience: site.model.limits.queue_time.get(),
        reach: Reach::Direct,
    };
    match call.run(|| {}).await {
        Ok((mut answer, pending)) => {
            while let Some(Ok(_)) = answer.body.piece().await {}
            let closing = pending.finished(true).await;
            let ms = |d: std::time::Duration| d.as_secs_f64() * 1000.0;
            let tags = closing.affirmation.iter().flat_map(|word| word.tags.clone()).collect();
            let stored = match (&closing.affirmation, &closing.because) {
                (Some(word), _) => format!("could be, for {} s", word.ttl),
                (None, Some(because)) => format!("could not be: {because}"),
                (None, None) => "could not be: PHP said nothing".to_owned(),
            };
            Executed {
                status: Some(answer.head.status.as_u16()),
                instance: Some(answer.instance.to_string()),
                queue_ms: ms(answer.times.queue),
                php_ms: ms(answer.times.php),
                stored,
                tags,
            }
        }
        Err(failure) => Executed {
            status: None,
            instance: None,
            queue_ms: 0.0,
            php_ms: 0.0,
            stored: failure.to_string(),
            tags: Vec::new(),
        },
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Heartbeat => "the edge's heartbeat".to_owned(),
        Target::Ready => "the readiness probe".to_owned(),
        Target::Redirect(to) => format!("a redirect to {to}"),
        Target::File(tree, path) => format!("the file {path} of {tree:?}"),
        Target::Php { script, path_info, .. } => format!("PHP {script}{path_info}"),
        Target::Git => "the site's git repository".to_owned(),
        Target::Denied => "denied".to_owned(),
        Target::Malformed => "a broken path".to_owned(),
    }
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, Bad> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let bad = || Bad::Header(name.clone());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(headers)
}
