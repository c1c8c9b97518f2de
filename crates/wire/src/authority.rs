//! The cluster's own authority (RFC 5280): made by `cluster init`, held by the nodes that may admit others.
//!
//! It speaks for names below `pressroom.internal` alone, so a stolen key is good for nothing outside of the cluster.
//!
//! A certificate's common name and serial number come from its key: etcd knows its users by the one, and whom it must refuse
//! by the other.

use std::net::IpAddr;
use std::time::Duration;

use pressroom_model::id::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams,
    SanType, SerialNumber, SignatureAlgorithm,
};

use crate::WireError;
use crate::identity::{Fingerprint, GUEST_SUFFIX, NODE_SUFFIX};

/// How long a node's certificate is good for; renewed when a third of it is left.
pub const NODE_LIFE: Duration = Duration::from_secs(90 * 86_400);
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);

/// The authority, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A public key of ECDSA on the curve P-256, as a new node sends it.
pub struct PublicKey(pub Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    /// A new one; `now` in seconds since 1970. Answers it and its key in PEM.
    pub fn make(now: u64) -> Result<(Self, String), WireError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let text = key.serialize_pem();
        let parameters = parameters(now);
        let pem = parameters.self_signed(&key).map_err(failed)?.pem();
        Ok((Self { issuer: Issuer::new(parameters, key), pem }, text))
    }

    /// The one of this certificate and key, both in PEM.
    pub fn open(pem: &str, key: &str) -> Result<Self, WireError> {
        let key = KeyPair::from_pem(key).map_err(failed)?;
        // Only its name goes into what it signs; times and constraints are in the certificate that is handed on.
        Ok(Self { issuer: Issuer::new(parameters(0), key), pem: pem.to_owned() })
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a node with this key, in PEM, its issuer behind it; its common name is the key's fingerprint. `now` in
    /// seconds since 1970.
    pub fn sign_node(
        &self,
        node: &NodeName,
        address: IpAddr,
        key: &impl PublicKeyData,
        now: u64,
    ) -> Result<String, WireError> {
        self.sign_node_until(node, address, key, now, now + NODE_LIFE.as_secs())
    }

    /// The same, good `until` then, seconds since 1970.
    pub fn sign_node_until(
        &self,
        node: &NodeName,
        address: IpAddr,
        key: &impl PublicKeyData,
        now: u64,
        until: u64,
    ) -> Result<String, WireError> {
        let name = format!("{node}{NODE_SUFFIX}");
        let common = fingerprint(key).to_string();
        self.sign(&common, (vec![name], Some(address)), key, (now, until))
    }

    /// A certificate that etcd takes for its administrator's, good for an hour and nowhere else: it names neither node nor guest.
    pub fn sign_administrator(
        &self,
        key: &impl PublicKeyData,
        now: u64,
    ) -> Result<String, WireError> {
        let name = "administrator.pressroom.internal".to_owned();
        self.sign("root", (vec![name], None), key, (now, now + 3600))
    }

    /// A certificate for somebody who is to join, good `until` then and for nothing else.
    pub fn sign_guest(
        &self,
        id: &str,
        key: &impl PublicKeyData,
        now: u64,
        until: u64,
    ) -> Result<String, WireError> {
        self.sign(id, (vec![format!("{id}{GUEST_SUFFIX}")], None), key, (now, until))
    }

    /// The list of certificates with these keys as refused, in PEM (RFC 5280, section 5). `now` in seconds since 1970.
    pub fn refuse(
        &self,
        keys: impl IntoIterator<Item = Fingerprint>,
        now: u64,
    ) -> Result<String, WireError> {
        let moment = |at| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at);
        let refused = keys.into_iter().map(|key| RevokedCertParams {
            serial_number: serial(&key),
            revocation_time: moment(now),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: moment(now),
            next_update: moment(now + AUTHORITY_LIFE.as_secs()),
            crl_number: SerialNumber::from(now),
            issuing_distribution_point: None,
            revoked_certs: refused.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)
    }

    fn sign(
        &self,
        common: &str,
        (names, address): (Vec<String>, Option<IpAddr>),
        key: &impl PublicKeyData,
        (now, until): (u64, u64),
    ) -> Result<String, WireError> {
        let mut parameters = CertificateParams::default();
        for name in names {
            let name = name.try_into().map_err(|error| WireError::bad("a node's name", error))?;
            parameters.subject_alt_names.push(SanType::DnsName(name));
        }
        // etcd looks whether a peer's certificate is good for the address that it comes from.
        parameters.subject_alt_names.extend(address.map(SanType::IpAddress));
        parameters.distinguished_name = distinguished(common);
        parameters.serial_number = Some(serial(&fingerprint(key)));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        set_times(&mut parameters, now, until);
        let certificate = parameters.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(format!("{}{}", certificate.pem(), self.pem))
    }
}

fn fingerprint(key: &impl PublicKeyData) -> Fingerprint {
    Fingerprint::of(&key.subject_public_key_info())
}

/// The serial number of the certificate with this key: 16 bytes of its digest, never negative (RFC 5280, section 4.1.2.2). Two
/// keys have the same one as seldom as they have the same digest.
fn serial(key: &Fingerprint) -> SerialNumber {
    let digits = |at| u8::from_str_radix(&key.as_str()[at..at + 2], 16).expect("hexadecimal");
    let mut bytes: Vec<u8> = (0..32).step_by(2).map(digits).collect();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from(bytes)
}

fn failed(error: rcgen::Error) -> WireError {
    WireError::bad("the cluster's authority", error)
}

fn parameters(now: u64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = distinguished("Pressroom cluster authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("pressroom.internal".into())],
        excluded_subtrees: vec![],
    });
    set_times(&mut parameters, now, now + AUTHORITY_LIFE.as_secs());
    parameters
}

fn distinguished(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Valid from a day before, because clocks differ.
fn set_times(parameters: &mut CertificateParams, now: u64, until: u64) {
    let moment = |at| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at);
    parameters.not_before = moment(now.saturating_sub(86_400));
    parameters.not_after = moment(until);
}
