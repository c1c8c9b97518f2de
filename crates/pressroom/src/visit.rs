//! One request as a visitor makes it: over TLS, with the certificate checked.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pressroom_api::operator::Visit;
use pressroom_model::config::Edge;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Asks a home page once.
pub(crate) async fn visit(
    edge: &Edge,
    url: &str,
    host: &str,
    address: SocketAddr,
    authorities: &Path,
) -> Visit {
    let since = Instant::now();
    let result =
        tokio::time::timeout(Duration::from_secs(15), get(edge, host, address, authorities)).await;
    let ms = since.elapsed().as_millis() as u64;
    let visit = |status, is_good, because: String| Visit {
        url: url.to_owned(),
        status,
        is_good,
        because,
        ms,
    };
    match result {
        Err(_) => visit(0, false, "no answer within 15 s".into()),
        Ok(Err(error)) => visit(0, false, error.to_string()),
        Ok(Ok((200, body))) if !body.is_empty() => visit(200, true, String::new()),
        Ok(Ok((200, _))) => visit(200, false, "the page is empty".into()),
        Ok(Ok((status, _))) => visit(status, false, format!("HTTP status {status}")),
    }
}

async fn get(
    edge: &Edge,
    host: &str,
    address: SocketAddr,
    authorities: &Path,
) -> Result<(u16, Bytes), Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let stream = pressroom_agent::probe::connect(edge, address).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    // As browsers do: the scheme's own port is not said, and WordPress would redirect to the address without it.
    let authority = match address.port() {
        443 => host.to_owned(),
        port => format!("{host}:{port}"),
    };
    let request = hyper::Request::get("/").header("host", authority).body(Empty::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, Limited::new(response.into_body(), 16 << 20).collect().await?.to_bytes()))
    };
    let driven = async {
        // Its end reaches the exchange as well.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! { answer = exchange => answer, () = driven => unreachable!("it is pending for ever") }
}
