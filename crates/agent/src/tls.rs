//! Certificates without a public authority: a local one, made once, may speak for the sites' names and nothing else.
//!
//! Whoever trusts the local authority (`pressroom tls trust` says how) trusts it for its name constraints only
//! (RFC 5280, section 4.2.1.10), so a stolen key cannot speak for anybody's bank. A domain outside of the constraints
//! makes a new authority with the old key; it has to be trusted again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use pressroom_model::config::Site;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use serde::{Deserialize, Serialize};

use crate::files::{self, Owner};
use crate::layout::Layout;

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("certificates: {0}")]
    Io(#[from] io::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate for {names}: {source}")]
    Make {
        /// For which names.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// How long a site's certificate is good for; renewed when a third of it is left.
const LIFE: Duration = Duration::from_secs(397 * 86_400);
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 86_400);

/// What was made, to know when it must be made anew.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    names: Vec<String>,
    until: u64,
}

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// PEM: the certificate, then its issuer.
    pub chain: PathBuf,
    /// PEM: the key.
    pub key: PathBuf,
}

/// The certificate of `site`, signed by the local authority; made or renewed where needed.
/// `all_domains` are the names of every site: the authority is constrained to them.
pub fn local(
    layout: &Layout,
    site: &Site,
    all_domains: &[String],
    reader: Owner,
    now_ms: u64,
) -> Result<Paths, Error> {
    let folder = layout.certificates();
    let paths = Paths {
        chain: folder.join(format!("{}.pem", site.name)),
        key: folder.join(format!("{}.key", site.name)),
    };
    let (authority, is_new) = authority(layout, all_domains, now_ms)?;
    let record = layout.secrets().join(format!("certificate-{}.json", site.name));
    let is_good = !is_new && paths.chain.is_file() && paths.key.is_file();
    if is_good
        && made(&record)
            .is_some_and(|made| made.names == site.domains && is_young(&made, LIFE, now_ms))
    {
        return Ok(paths);
    }
    let (chain, key, until) = sign(&authority, site, now_ms)?;
    files::write(&paths.key, key.as_bytes(), 0o640, reader)?;
    files::write(&paths.chain, chain.as_bytes(), 0o644, reader)?;
    let made = Made { names: site.domains.clone(), until };
    files::write(&record, &serde_json::to_vec(&made).expect("a plain struct"), 0o600, None)?;
    Ok(paths)
}

fn made(path: &std::path::Path) -> Option<Made> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn is_young(made: &Made, life: Duration, now_ms: u64) -> bool {
    made.until > now_ms / 1000 + life.as_secs() / 3
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The local authority, and whether it was made just now.
fn authority(layout: &Layout, domains: &[String], now_ms: u64) -> Result<(Authority, bool), Error> {
    let fail = |source| Error::Make { names: "the local authority".into(), source };
    let key_path = layout.secrets().join("ca.key");
    let record = layout.secrets().join("ca.json");
    let key = match std::fs::read_to_string(&key_path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(fail)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(fail)?;
            files::write(&key_path, key.serialize_pem().as_bytes(), 0o600, None)?;
            key
        }
        Err(error) => return Err(files::naming(&key_path, &error).into()),
    };
    let mut names: Vec<String> =
        domains.iter().map(|name| name.trim_start_matches("*.").to_owned()).collect();
    names.push("localhost".into());
    names.sort();
    names.dedup();
    let old = made(&record);
    // A name that it may speak for stands for everything below as well.
    let is_below = |name: &str, known: &str| {
        name.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let covers =
        |made: &Made| names.iter().all(|name| made.names.iter().any(|known| is_below(name, known)));
    if let (Some(made), Ok(pem)) = (&old, std::fs::read_to_string(layout.authority()))
        && covers(made)
        && is_young(made, AUTHORITY_LIFE, now_ms)
    {
        let issuer = Issuer::new(authority_parameters(&made.names, made.until), key);
        return Ok((Authority { issuer, pem }, false));
    }
    // Names of former sites stay: fewer reasons to be trusted anew.
    names.extend(old.map(|made| made.names).unwrap_or_default());
    names.sort();
    names.dedup();
    let until = now_ms / 1000 + AUTHORITY_LIFE.as_secs();
    let parameters = authority_parameters(&names, until);
    let pem = parameters.self_signed(&key).map_err(fail)?.pem();
    files::write(&layout.authority(), pem.as_bytes(), 0o644, None)?;
    let made = Made { names, until };
    files::write(&record, &serde_json::to_vec(&made).expect("a plain struct"), 0o600, None)?;
    Ok((Authority { issuer: Issuer::new(parameters, key), pem }, true))
}

fn authority_parameters(names: &[String], until: u64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name("Pressroom local authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut permitted: Vec<GeneralSubtree> =
        names.iter().map(|name| GeneralSubtree::DnsName(name.clone())).collect();
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])));
    let mut loopback = [0; 16];
    loopback[15] = 1;
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::V6(loopback, [255; 16])));
    parameters.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: vec![] });
    set_times(&mut parameters, until, AUTHORITY_LIFE);
    parameters
}

fn sign(authority: &Authority, site: &Site, now_ms: u64) -> Result<(String, String, u64), Error> {
    let fail = |source| Error::Make { names: site.domains.join(", "), source };
    let mut parameters = CertificateParams::new(site.domains.clone()).map_err(fail)?;
    if site.domains.iter().any(|domain| domain == "localhost") {
        parameters.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        parameters.subject_alt_names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    parameters.distinguished_name = name(&site.domains[0]);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let until = now_ms / 1000 + LIFE.as_secs();
    set_times(&mut parameters, until, LIFE);
    let key = KeyPair::generate().map_err(fail)?;
    let certificate = parameters.signed_by(&key, &authority.issuer).map_err(fail)?;
    Ok((format!("{}{}", certificate.pem(), authority.pem), key.serialize_pem(), until))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Valid from a day before it was made (clocks differ) until `until`, in seconds since 1970.
fn set_times(parameters: &mut CertificateParams, until: u64, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_after = epoch + Duration::from_secs(until);
    parameters.not_before =
        epoch + Duration::from_secs(until.saturating_sub(life.as_secs() + 86_400));
}
