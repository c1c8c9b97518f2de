//! The edge's view, composed from the configuration and what is observed, and published by rename.

use std::io;
use std::path::PathBuf;

use pressroom_model::config::{Config, Site};
use pressroom_model::id::{InstanceId, NodeName, ReleaseId};
use pressroom_model::snapshot::{self, AccessLog, Backend, CacheRules, Guard, Limits, Snapshot};
use pressroom_model::unit::{ByteSize, Span};

use crate::engine::edge::affirm_listener;
use crate::engine::fingerprint;
use crate::facts::Version;
use crate::files::{self, Owner};
use crate::layout::Layout;
use crate::tls;

/// What is known of a site that may be served.
#[derive(Debug)]
pub struct Served<'a> {
    /// Its configuration.
    pub site: &'a Site,
    /// The version that its instances run.
    pub version: &'a Version,
    /// Its former releases whose static files may still be asked for.
    pub former: Vec<ReleaseId>,
    /// Instances that requests may be sent to.
    pub pool: Vec<InstanceId>,
    /// Its affirmation socket.
    pub affirm: u16,
    /// User id that may speak on its affirmation socket.
    pub uid: u32,
    /// Its certificate.
    pub certificate: Option<tls::Paths>,
    /// The password in front of it.
    pub guard: Option<Guard>,
    /// Other nodes that run instances of that version.
    pub remote: Vec<NodeName>,
    /// The node that has its author instance, where that is another one.
    pub author_node: Option<NodeName>,
}

/// The view; its generation is set when it is published.
pub fn compose(layout: &Layout, config: &Config, served: &[Served<'_>]) -> Snapshot {
    Snapshot {
        generation: 0,
        node: config.node.name.to_string(),
        sites: served.iter().map(|served| site(layout, config, served)).collect(),
        trusted_proxies: config.edge.trusted_proxies.clone(),
        proxy_protocol: config.edge.proxy_protocol,
        https_port: config.edge.https.first().map(|address| address.port()),
        access_log: config
            .edge
            .access_log
            .map(|format| AccessLog { path: layout.access_log(), format }),
        cache_size: config.edge.cache_size,
        git: Some(layout.git_socket()),
        media: None,
        cluster: None,
    }
}

fn site(layout: &Layout, config: &Config, served: &Served<'_>) -> snapshot::Site {
    let site = served.site;
    let rules = &site.page_cache;
    snapshot::Site {
        name: site.name.clone(),
        domains: site.domains.clone(),
        network: site.network,
        guard: served.guard.clone(),
        release: served.version.release.id.clone(),
        root: layout.site_root(&site.name, &served.version.release.id),
        php_root: served.version.means.php_root(),
        remote: served.remote.clone(),
        author_node: served.author_node.clone(),
        former: files_of(layout, served),
        uploads: layout.uploads(&site.name),
        pool: served
            .pool
            .iter()
            .map(|id| Backend {
                id: id.clone(),
                socket: layout.instance_socket(id),
                workers: served.version.site.php.workers,
                draining: false,
            })
            .collect(),
        author: site.file_mods.then(|| snapshot::Author {
            change: layout.author_change(&site.name),
            loopback: layout.author_loopback(&site.name),
            root: served.version.means.php_root().unwrap_or_else(|| layout.author_root(&site.name)),
            time: crate::author::LONGEST,
        }),
        affirm_listener: affirm_listener(served.affirm),
        affirm_uid: served.uid,
        certificate: served.certificate.as_ref().map(|paths| snapshot::Certificate {
            chain: paths.chain.clone(),
            key: paths.key.clone(),
        }),
        redirect_to_https: config.edge.redirect_to_https && !config.edge.https.is_empty(),
        limits: Limits {
            upload: site.upload_limit,
            // php-fpm ends a request first; this is for a worker that cannot be ended.
            time: Span::millis(site.php.time.get().as_millis() as u64 + 10_000),
            queue_time: Span::seconds(10),
            queue: 1000,
            answer: ByteSize::mib(2048),
        },
        cache: CacheRules {
            enabled: rules.enabled,
            ttl_max: rules.ttl_max,
            stale_while_revalidate: rules.stale_while_revalidate,
            stale_if_error: rules.stale_if_error,
            ignored_parameters: rules.ignored_parameters.clone(),
            bypass_cookies: rules.bypass_cookies.clone(),
            vary_cookies: rules.vary_cookies.clone(),
        },
    }
}

/// Where else files may be that the release does not have: in what plugins keep, and in former releases.
fn files_of(layout: &Layout, served: &Served<'_>) -> Vec<PathBuf> {
    let (site, serving) = (&served.site.name, &served.version.release.id);
    let of = |id: &ReleaseId| {
        let scratch = Some(layout.scratch(site, id)).filter(|folder| folder.is_dir());
        let root = (id != serving).then(|| layout.site_root(site, id));
        root.into_iter().chain(scratch)
    };
    std::iter::once(serving).chain(&served.former).flat_map(of).collect()
}

/// Digest of a view, its generation left out.
pub fn digest(view: &Snapshot) -> String {
    let view = Snapshot { generation: 0, ..view.clone() };
    fingerprint(&[&serde_json::to_vec(&view).expect("plain structs")])
}

/// The view on disk, if there is a good one.
pub fn published(layout: &Layout) -> Option<Snapshot> {
    serde_json::from_slice(&std::fs::read(layout.snapshot()).ok()?).ok()
}

/// Publishes a view under the next generation, which is returned.
pub fn publish(layout: &Layout, view: &Snapshot, reader: Owner) -> io::Result<u64> {
    let generation = published(layout).map_or(1, |old| old.generation + 1);
    let view = Snapshot { generation, ..view.clone() };
    let text = serde_json::to_vec_pretty(&view).expect("plain structs");
    files::write(&layout.snapshot(), &text, 0o640, reader)?;
    Ok(generation)
}
