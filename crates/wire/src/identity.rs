//! A node's key and certificate, and how a certificate says whose it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pressroom_model::id::NodeName;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::WireError;
use crate::validity::Validity;

pub(crate) const NODE_SUFFIX: &str = ".node.pressroom.internal";
pub(crate) const GUEST_SUFFIX: &str = ".guest.pressroom.internal";

/// SHA-256 of a public key (its SubjectPublicKeyInfo) or of a certificate, hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One that was written as text.
    pub fn written(text: &str) -> Option<Self> {
        let is_good =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_good.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A member.
    Node(NodeName),
    /// Somebody with a join token, by its id: may join and nothing else.
    Guest(String),
}

/// Where the three files of an identity are, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The certificate, then its issuer.
    pub chain: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The cluster's authority.
    pub authority: PathBuf,
}

/// A key with its certificate: a node's, or a guest's.
pub struct Identity {
    /// Whose.
    pub peer: Peer,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) authority: CertificateDer<'static>,
    fingerprint: Fingerprint,
    validity: Validity,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Identity {
    /// The one in these texts, all PEM. `chain` has the authority behind the certificate.
    pub fn parse(chain: &[u8], key: &[u8], authority: &[u8]) -> Result<Self, WireError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| WireError::bad("a node's certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| WireError::bad("a node's key", error))?;
        let authority = CertificateDer::from_pem_slice(authority)
            .map_err(|error| WireError::bad("the authority's certificate", error))?;
        Self::of(chain, key, authority)
    }

    /// The one in these files.
    pub fn read(paths: &Paths) -> Result<Self, WireError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                WireError::bad("a node's identity", format!("{}: {error}", path.display()))
            })
        };
        Self::parse(&read(&paths.chain)?, &read(&paths.key)?, &read(&paths.authority)?)
    }

    pub(crate) fn of(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, WireError> {
        let leaf = chain
            .first()
            .ok_or_else(|| WireError::bad("a node's certificate", "no certificate in it"))?;
        let (peer, fingerprint) = said_by(leaf)
            .ok_or_else(|| WireError::bad("a node's certificate", "it names no node"))?;
        let validity = Validity::of(leaf)
            .ok_or_else(|| WireError::bad("a node's certificate", "it has no times"))?;
        // Refuses a key that is not the certificate's.
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| WireError::bad("a node's certificate", error))?;
        Ok(Self { peer, certified: Arc::new(certified), authority, fingerprint, validity })
    }

    /// Digest of its public key, which membership goes by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    /// From when until when its certificate is good.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Digest of the authority's certificate.
    pub fn authority_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }
}

/// A new key for a node: in PEM, and the public part as the authority wants it.
pub fn new_key() -> Result<(String, Vec<u8>), WireError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| WireError::bad("a new key", error))?;
    Ok((key.serialize_pem(), key.public_key_raw().to_vec()))
}

/// The digest of the key in the first certificate of a chain in PEM.
pub fn fingerprint_of(chain: &str) -> Result<Fingerprint, WireError> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes())
        .map_err(|error| WireError::bad("a node's certificate", error))?;
    let said = said_by(&leaf);
    said.map(|(_, key)| key)
        .ok_or_else(|| WireError::bad("a node's certificate", "it names no node"))
}

/// The public part of a key in PEM, as the authority wants it.
pub fn public_part(pem: &str) -> Result<Vec<u8>, WireError> {
    let key = KeyPair::from_pem(pem).map_err(|error| WireError::bad("a node's key", error))?;
    Ok(key.public_key_raw().to_vec())
}

/// Whose a certificate says it is, and the digest of its key. Whether that is so is the verifier's question.
pub(crate) fn said_by(certificate: &CertificateDer<'_>) -> Option<(Peer, Fingerprint)> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let key = Fingerprint::of(&parsed.subject_public_key_info());
    let peer = parsed.valid_dns_names().find_map(|name| {
        let node = name.strip_suffix(NODE_SUFFIX).and_then(|node| NodeName::from_str(node).ok());
        let guest = || Some(Peer::Guest(name.strip_suffix(GUEST_SUFFIX)?.to_owned()));
        node.map(Peer::Node).or_else(guest)
    })?;
    Some((peer, key))
}
