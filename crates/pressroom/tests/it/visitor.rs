//! A visitor: HTTP/1.1 over TLS on loopback, cookies kept like a browser's, one connection for each request.
//!
//! The certificate is checked against Pressroom's local authority. Nothing is retried and nothing is cached here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header's first value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// `x-cache`.
    pub(crate) fn cache(&self) -> &str {
        self.header("x-cache")
    }
}

/// Somebody who visits one site.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) cookies: BTreeMap<String, String>,
    /// Sent with every request.
    pub(crate) headers: Vec<(String, String)>,
    /// How long a request may take.
    pub(crate) patience: Duration,
    host: String,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Visitor {
    /// Somebody new, who trusts the authority in this file.
    pub(crate) fn new(home: &str, authority: &Path) -> Self {
        let host = home.strip_prefix("https://").expect("an HTTPS site").to_owned();
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(443);
        Self {
            cookies: BTreeMap::new(),
            headers: Vec::new(),
            patience: Duration::from_secs(30),
            host,
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            tls: trust(authority.to_owned()),
        }
    }

    /// A page, with no redirect followed.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A page, or why there is none.
    pub(crate) fn try_get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask("GET", path, &[], "")
    }

    /// Sends a form.
    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.try_post(path, fields).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Sends a form, or says why it could not.
    pub(crate) fn try_post(&mut self, path: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
        let body: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let kind = [("Content-Type", "application/x-www-form-urlencoded".to_owned())];
        self.ask("POST", path, &kind, body.join("&"))
    }

    /// Sends JSON to WordPress's REST interface as the user who is logged in.
    pub(crate) fn rest(&mut self, route: &str, json: &serde_json::Value) -> Answer {
        let nonce = self.get("/wp-admin/admin-ajax.php?action=rest-nonce").body;
        let more = [("Content-Type", "application/json".to_owned()), ("X-WP-Nonce", nonce)];
        let answer =
            self.ask("POST", &format!("/index.php?rest_route={route}"), &more, json.to_string());
        answer.unwrap_or_else(|error| panic!("POST {route}: {error}"))
    }

    /// Sends a form with a file, as a browser does.
    pub(crate) fn upload(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        file: (&str, &str, &[u8]),
    ) -> Answer {
        let (kind, body) = multipart(fields, file);
        let answer = self.ask("POST", path, &kind, &body);
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// As [`Visitor::upload`], but nobody waits for the answer; dropped, the connection is closed.
    pub(crate) fn begin_upload(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        file: (&str, &str, &[u8]),
    ) -> Left {
        let (kind, body) = multipart(fields, file);
        let request = self.request("POST", path, &kind, &body);
        Left {
            _connection: self.send(&request).unwrap_or_else(|error| panic!("POST {path}: {error}")),
        }
    }

    /// Logs in.
    pub(crate) fn log_in(&mut self, user: &str, password: &str) {
        self.get("/wp-login.php");
        let fields =
            [("log", user), ("pwd", password), ("testcookie", "1"), ("wp-submit", "Log In")];
        let answer = self.post("/wp-login.php", &fields);
        assert_eq!(answer.status, 302, "the login of {user}: {}", answer.body);
    }

    /// One request.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        more: &[(&str, String)],
        body: impl AsRef<[u8]>,
    ) -> io::Result<Answer> {
        let request = self.request(method, path, more, body.as_ref());
        let answer = self.exchange(&request, method == "HEAD")?;
        for (name, value) in &answer.headers {
            if name == "set-cookie" {
                self.keep_cookie(value);
            }
        }
        Ok(answer)
    }

    fn request(&self, method: &str, path: &str, more: &[(&str, String)], body: &[u8]) -> Vec<u8> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers: Vec<(&str, String)> =
            self.headers.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        if !cookies.is_empty() {
            headers.push(("Cookie", cookies.join("; ")));
        }
        headers.extend_from_slice(more);
        if !body.is_empty() || method == "POST" {
            headers.push(("Content-Length", body.len().to_string()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    fn keep_cookie(&mut self, line: &str) {
        let Some((name, value)) = line.split(';').next().and_then(|pair| pair.split_once('='))
        else {
            return;
        };
        if value.is_empty()
            || value == "deleted"
            || value.trim() == "+"
            || line.contains("Max-Age=0")
        {
            self.cookies.remove(name.trim());
        } else {
            self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }

    /// Connects and sends; the answer is still to be read.
    fn send(&self, request: &[u8]) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        let name =
            self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request)?;
        Ok(stream)
    }

    fn exchange(&self, request: &[u8], is_head: bool) -> io::Result<Answer> {
        let mut stream = self.send(request)?;
        let mut raw = Vec::new();
        if let Err(error) = stream.read_to_end(&mut raw)
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(error);
        }
        parse(&raw, is_head)
    }
}

/// A request that nobody waits for.
pub(crate) struct Left {
    _connection: StreamOwned<ClientConnection, TcpStream>,
}

/// A form with a file, as a browser sends it: the header of its kind, and the body.
fn multipart(
    fields: &[(&str, &str)],
    file: (&str, &str, &[u8]),
) -> ([(&'static str, String); 1], Vec<u8>) {
    let boundary = "----pressroom-boundary";
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .as_bytes(),
        );
    }
    let (field, name, bytes) = file;
    body.extend_from_slice(
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\nContent-Type: application/zip\r\n\r\n").as_bytes(),
    );
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    ([("Content-Type", format!("multipart/form-data; boundary={boundary}"))], body)
}

fn trust(authority: PathBuf) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(authority).expect("the authority's certificate")
    {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.expect("TLS versions").with_root_certificates(roots).with_no_client_auth())
}

/// Form encoding.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn parse(raw: &[u8], is_head: bool) -> io::Result<Answer> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = raw
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(|| broken("no whole head"))?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer =
        Answer { status: status.ok_or_else(|| broken("no status"))?, headers, body: String::new() };
    let rest = &raw[end + 4..];
    let body = if is_head {
        Vec::new()
    } else if answer.header("transfer-encoding") == "chunked" {
        unchunk(rest).ok_or_else(|| broken("a chunked body that was cut off"))?
    } else {
        let length = answer.header("content-length").parse().unwrap_or(rest.len());
        rest.get(..length).ok_or_else(|| broken("a body that was cut off"))?.to_vec()
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}
