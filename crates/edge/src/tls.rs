//! TLS: certificates by name from the snapshot's files, reloaded when these change.
//!
//! Always: a certificate that cannot be read leaves the last good one of its site in place. A name that nobody has gets
//! the first certificate, so that the visitor is told on a page (421) rather than by a broken handshake.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pressroom_model::snapshot::{Certificate, Snapshot};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::host::Hosts;

#[derive(Debug, Default)]
struct Table {
    by_name: Hosts<Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

type Stamp = (Option<SystemTime>, Option<SystemTime>);

struct Loaded {
    certificate: Certificate,
    stamp: Stamp,
    key: Option<Arc<CertifiedKey>>,
}

/// All certificates.
#[derive(Default)]
pub struct Certificates {
    table: ArcSwap<Table>,
    loaded: Mutex<HashMap<String, Loaded>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Why a certificate was refused.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error("{path}: {error}", path = path.display())]
    Pem { path: PathBuf, error: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate", path = .0.display())]
    Empty(PathBuf),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Certificates {
    /// Reads what changed since the last time.
    pub fn refresh(&self, snapshot: &Snapshot) {
        let mut loaded = self.loaded.lock();
        for site in &snapshot.sites {
            let Some(certificate) = &site.certificate else { continue };
            let stamp = stamp(certificate);
            let known = loaded.get(site.name.as_str());
            if known.is_some_and(|l| l.certificate == *certificate && l.stamp == stamp) {
                continue;
            }
            let key = match load(certificate) {
                Ok(key) => Some(Arc::new(key)),
                Err(error) => {
                    tracing::error!(site = %site.name, %error, "a certificate cannot be used; the last good one stays");
                    known.and_then(|l| l.key.clone())
                }
            };
            let entry = Loaded { certificate: certificate.clone(), stamp, key };
            loaded.insert(site.name.as_str().to_owned(), entry);
        }
        loaded.retain(|name, _| {
            snapshot.sites.iter().any(|s| s.name.as_str() == name && s.certificate.is_some())
        });
        self.table.store(Arc::new(table(snapshot, &loaded)));
    }

    /// The TLS settings of the listeners.
    pub fn config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(4096);
        // One ticket is enough for clients that reconnect; two cost a write more.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

fn table(snapshot: &Snapshot, loaded: &HashMap<String, Loaded>) -> Table {
    let mut table = Table::default();
    for site in &snapshot.sites {
        let Some(key) = loaded.get(site.name.as_str()).and_then(|l| l.key.clone()) else {
            continue;
        };
        table.first.get_or_insert_with(|| key.clone());
        for domain in &site.domains {
            table.by_name.add(domain, key.clone());
        }
    }
    table
}

fn stamp(certificate: &Certificate) -> Stamp {
    let of = |path| std::fs::metadata(path).and_then(|m: std::fs::Metadata| m.modified()).ok();
    (of(&certificate.chain), of(&certificate.key))
}

fn load(certificate: &Certificate) -> Result<CertifiedKey, Bad> {
    let bad = |path: &PathBuf| {
        let path = path.clone();
        move |error| Bad::Pem { path, error }
    };
    let chain = CertificateDer::pem_file_iter(&certificate.chain)
        .and_then(|items| items.collect::<Result<Vec<_>, _>>())
        .map_err(bad(&certificate.chain))?;
    if chain.is_empty() {
        return Err(Bad::Empty(certificate.chain.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(bad(&certificate.key))?;
    Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        let named = hello.server_name().map(str::to_ascii_lowercase);
        named.and_then(|name| table.by_name.find(&name).cloned()).or_else(|| table.first.clone())
    }
}
