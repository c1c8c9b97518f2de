//! Accepting and connecting over mutual TLS 1.3 (RFC 8446); both sides know each other when it is done.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::WireError;
use crate::identity::{Fingerprint, Identity, NODE_SUFFIX, Paths, Peer, said_by};
use crate::members::{Register, Service};

/// Longest time for a connection and its handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(3);
/// Between two looks whether an identity was renewed.
const LOOK: Duration = Duration::from_secs(1);

/// A node's way to others: its identity and the list of members. Clones are the same.
#[derive(Debug, Clone)]
pub struct Wire {
    identity: Arc<RwLock<Arc<Identity>>>,
    /// The members.
    pub members: Register,
}

/// Whether those who have a join token and nothing else are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// To join.
    Welcome,
    /// Not here.
    Refused,
}

/// What becomes of who knocks at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// It is let in.
    LetIn,
    /// It is refused, because it was removed.
    Removed,
}

/// A connection that somebody opened to us.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Who.
    pub peer: Peer,
    /// With which key.
    pub key: Fingerprint,
    /// What it wants to speak (ALPN, RFC 7301).
    pub protocol: Vec<u8>,
    /// The stream.
    pub stream: server::TlsStream<S>,
}

impl Wire {
    /// With this identity, among these members.
    pub fn new(identity: Identity, members: Register) -> Self {
        Self { identity: Arc::new(RwLock::new(Arc::new(identity))), members }
    }

    /// Our own identity.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().clone()
    }

    /// Replaces it: the certificate was renewed. Acceptors show the new one from then on; open connections go on.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write() = Arc::new(identity);
    }

    /// Takes over the identity in these files whenever they were replaced, until shutdown: in a process whose identity the agent
    /// renews.
    pub async fn follow_identity(self, paths: Paths, stop: Shutdown) {
        let stamp = || {
            let meta = std::fs::metadata(&paths.chain).ok()?;
            Some((std::os::unix::fs::MetadataExt::ino(&meta), meta.modified().ok()?))
        };
        // What was replaced before the first look is read once more.
        let mut seen = None;
        while !stop.is_requested() {
            let now = stamp();
            if now.is_some() && now != seen {
                seen = now;
                match Identity::read(&paths) {
                    Ok(identity) => self.set_identity(identity),
                    Err(error) => tracing::error!(%error, "the identity stays as it was"),
                }
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    /// What takes connections, with the identity as it is at each of them. `protocols` are what is spoken here; a peer that speaks none of them is refused.
    pub fn acceptor(&self, protocols: &[&[u8]], guests: Guests) -> Result<Acceptor, WireError> {
        let identity = self.identity();
        let inner = WebPkiClientVerifier::builder_with_provider(roots(&identity)?, provider())
            .build()
            .map_err(|error| WireError::bad("the authority's certificate", error))?;
        let verifier = Doorkeeper { inner, members: self.members.clone(), guests };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| WireError::bad("TLS 1.3", error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Shown(Arc::clone(&self.identity))));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session would not be looked at again.
        config.send_tls13_tickets = 0;
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    /// Connects to a service of a node, and makes sure that it is that node.
    pub async fn connect(
        &self,
        node: &NodeName,
        service: Service,
        protocol: &[u8],
    ) -> Result<client::TlsStream<TcpStream>, WireError> {
        let members = self.members.now();
        let member = members.get(node).ok_or_else(|| WireError::Unknown(node.clone()))?;
        let identity = self.identity();
        let validity = identity.validity();
        if validity.is_over(clock::wall_ms() / 1000) {
            return Err(WireError::Over { until: validity.until });
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(&identity)?, provider())
            .build()
            .map_err(|error| WireError::bad("the authority's certificate", error))?;
        let verifier = Recogniser { inner: verifier, meant: Meant::With(member.keys.clone()) };
        let name = format!("{node}{NODE_SUFFIX}");
        let address = member.at(service);
        let away = |cause| WireError::Away { node: node.to_string(), address, cause };
        connect(address, &name, &identity, verifier, protocol, away).await
    }
}

impl Wire {
    /// Asks a node's agent nothing but whether we are let in. In TLS 1.3 the one who connects is told last: by the first bytes of the
    /// answer, or by an alert in their place (RFC 8446, section 6.2, `certificate_revoked`).
    pub async fn knock(&self, node: &NodeName) -> Result<Knock, WireError> {
        let mut stream = self.connect(node, Service::Agent, crate::http::PROTOCOL).await?;
        let address = stream.get_ref().0.peer_addr();
        let away = |cause: String| WireError::Away {
            node: node.to_string(),
            address: address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            cause,
        };
        match tokio::time::timeout(HANDSHAKE, stream.read_u8()).await {
            Ok(Ok(_)) => Ok(Knock::LetIn),
            Ok(Err(error)) if says_removed(&error) => Ok(Knock::Removed),
            Ok(Err(error)) => Err(away(error.to_string())),
            Err(_) => Err(away(format!("no answer within {HANDSHAKE:?}"))),
        }
    }
}

fn says_removed(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner == Some(&Error::AlertReceived(AlertDescription::CertificateRevoked))
}

/// Connects with a join token to any node of its cluster.
pub async fn connect_as_guest(
    identity: &Identity,
    address: SocketAddr,
    protocol: &[u8],
) -> Result<client::TlsStream<TcpStream>, WireError> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider())
        .build()
        .map_err(|error| WireError::bad("the join token", error))?;
    let verifier = Recogniser { inner, meant: Meant::Any };
    let away = |cause| WireError::Unreached { address, cause };
    connect(address, "any.node.pressroom.internal", identity, verifier, protocol, away).await
}

async fn connect(
    address: SocketAddr,
    name: &str,
    identity: &Identity,
    verifier: impl ServerCertVerifier + 'static,
    protocol: &[u8],
    away: impl Fn(String) -> WireError,
) -> Result<client::TlsStream<TcpStream>, WireError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| WireError::bad("TLS 1.3", error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &identity.certified,
        ))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| away(error.to_string()))?;
    let connected = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    match tokio::time::timeout(HANDSHAKE, connected).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(away(error.to_string())),
        Err(_) => Err(away(format!("no answer within {HANDSHAKE:?}"))),
    }
}

/// A connection that we opened.
pub type ClientStream = client::TlsStream<TcpStream>;

/// Takes connections.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// The handshake on a fresh connection, within [`HANDSHAKE`].
    pub async fn accept<S>(&self, stream: S) -> std::io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await??;
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let Some((peer, key)) = leaf.and_then(said_by) else {
            return Err(std::io::Error::other("the verifier let somebody in without a name"));
        };
        let protocol = connection.alpn_protocol().unwrap_or_default().to_vec();
        Ok(Accepted { peer, key, protocol, stream })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, WireError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(identity.authority.clone())
        .map_err(|error| WireError::bad("the authority's certificate", error))?;
    Ok(Arc::new(roots))
}

fn stranger() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// The methods of both kinds of verifier that are about signatures alone.
macro_rules! verified_by_inner {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.3 only".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}

/// Shows the identity as it is now.
#[derive(Debug)]
struct Shown(Arc<RwLock<Arc<Identity>>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().certified))
    }
}

/// Lets members in, and guests where they are welcome.
#[derive(Debug)]
struct Doorkeeper {
    inner: Arc<dyn ClientCertVerifier>,
    members: Register,
    guests: Guests,
}

impl ClientCertVerifier for Doorkeeper {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let Some((peer, key)) = said_by(end_entity) else { return Err(stranger()) };
        let is_welcome = matches!(peer, Peer::Node(_)) || self.guests == Guests::Welcome;
        match is_welcome && self.members.admits(&peer, &key) {
            true => Ok(verified),
            // TLS has a word for it, which `knock` understands.
            false if self.members.was_removed(&key) => {
                Err(Error::InvalidCertificate(CertificateError::Revoked))
            }
            false => Err(stranger()),
        }
    }

    verified_by_inner!();
}

/// Makes sure that a server is the node that was meant.
#[derive(Debug)]
struct Recogniser {
    inner: Arc<WebPkiServerVerifier>,
    meant: Meant,
}

/// Which node somebody wants to reach.
#[derive(Debug)]
enum Meant {
    /// The one of the name that was called, with one of these keys.
    With(BTreeSet<Fingerprint>),
    /// Any of the cluster, whatever its name; a guest is none.
    Any,
}

impl ServerCertVerifier for Recogniser {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = match (&self.meant, said_by(end_entity)) {
            (Meant::With(keys), Some((_, key))) if keys.contains(&key) => server_name.to_owned(),
            (Meant::Any, Some((Peer::Node(node), _))) => {
                ServerName::try_from(format!("{node}{NODE_SUFFIX}")).map_err(|_| stranger())?
            }
            _ => return Err(stranger()),
        };
        self.inner.verify_server_cert(end_entity, intermediates, &name, ocsp, now)
    }

    verified_by_inner!();
}
