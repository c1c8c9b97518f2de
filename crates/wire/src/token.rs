//! What a new machine is given to join: a client certificate of short life that is good for joining alone, with its key, the
//! addresses of nodes that can admit it, and the authority's fingerprint, so that it joins this cluster and no other.
//!
//! One line of text without a space, fit for cloud-init. Whoever has it can join once before it expires: keep it secret.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::WireError;
use crate::authority::Authority;
use crate::identity::{Identity, Peer};

const PREFIX: &str = "pressroom1.";

/// A join token.
#[derive(Debug)]
pub struct Token {
    /// Its name, which the cluster remembers until it was used.
    pub id: String,
    /// Where agents of the cluster are.
    pub addresses: Vec<SocketAddr>,
    /// What it shows.
    pub identity: Identity,
}

/// Writes one that is good `until` then; times in seconds since 1970.
pub fn write(
    authority: &Authority,
    id: &str,
    addresses: &[SocketAddr],
    now: u64,
    until: u64,
) -> Result<String, WireError> {
    let bad = |error| WireError::bad("a join token", error);
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(bad)?;
    let chain = authority.sign_guest(id, &key, now, until)?;
    let der = |pem: &str| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| WireError::bad("a join token", error))
    };
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let parts = [
        addresses.join(",").into_bytes(),
        der(&chain)?.to_vec(),
        key.serialize_der(),
        der(authority.pem())?.to_vec(),
    ];
    let parts: Vec<String> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
    Ok(format!("{PREFIX}{}", parts.join(".")))
}

/// Reads one.
pub fn read(text: &str) -> Result<Token, WireError> {
    let bad = |cause: &str| WireError::bad("the join token", cause);
    let coded = text.trim().strip_prefix(PREFIX).ok_or_else(|| {
        bad("it does not begin with `pressroom1.`; copy the whole line that `pressroom node token` printed")
    })?;
    let cut =
        || bad("it is cut off or changed; copy the whole line that `pressroom node token` printed");
    let parts: Result<Vec<Vec<u8>>, _> =
        coded.split('.').map(|part| URL_SAFE_NO_PAD.decode(part)).collect();
    let parts: [Vec<u8>; 4] = parts.ok().and_then(|parts| parts.try_into().ok()).ok_or_else(cut)?;
    let [addresses, certificate, key, authority] = parts;
    let addresses = String::from_utf8(addresses).ok().ok_or_else(cut)?;
    let addresses: Result<Vec<SocketAddr>, _> = addresses.split(',').map(str::parse).collect();
    let addresses = addresses.map_err(|_| cut())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let chain = vec![CertificateDer::from(certificate)];
    let identity = Identity::of(chain, key, CertificateDer::from(authority)).map_err(|_| cut())?;
    let Peer::Guest(id) = identity.peer.clone() else { return Err(cut()) };
    Ok(Token { id, addresses, identity })
}
