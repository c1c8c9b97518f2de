//! Our own process that answers questions for names: its sockets, its process, its probe. The view is kept by [`crate::names`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_model::process::{ListenAddress, ListenerSpec, ProcessSpec, UserIds};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::DNS;
use tokio::net::UdpSocket;

use super::{Error, fingerprint, owner, spec};
use crate::files::Owner;
use crate::layout::Layout;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process on this node.
#[derive(Debug, Clone)]
pub struct Dns {
    layout: Layout,
    config_file: PathBuf,
    user: Option<UserIds>,
    addresses: Vec<SocketAddr>,
}

impl Dns {
    /// The one that answers at these addresses.
    pub fn new(
        layout: &Layout,
        config_file: &Path,
        user: Option<UserIds>,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        Self { layout: layout.clone(), config_file: config_file.to_owned(), user, addresses }
    }

    /// Where it answers.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// UDP and TCP at each address.
    pub fn listeners(&self) -> Vec<ListenerSpec> {
        let both = |(n, address): (usize, &SocketAddr)| {
            let udp = ("dns-udp", ListenAddress::Udp(*address));
            let tcp = ("dns-tcp", ListenAddress::Tcp(*address));
            [udp, tcp].map(|(kind, address)| ListenerSpec {
                name: if n == 0 { kind.to_owned() } else { format!("{kind}-{}", n + 1) },
                address,
                sockets: 1,
            })
        };
        self.addresses.iter().enumerate().flat_map(both).collect()
    }

    /// What must be equal for the running process to be the wanted one.
    pub fn fingerprint(&self) -> String {
        let listeners = serde_json::to_vec(&self.listeners()).expect("plain values");
        fingerprint(&[&listeners, env!("CARGO_PKG_VERSION").as_bytes()])
    }

    /// Who reads its view.
    pub fn reader(&self) -> Owner {
        owner(self.user.as_ref()).map(|(_, gid)| (0, gid))
    }

    /// Says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let program = crate::host::own_program()?;
        let arguments = vec![
            "dns".into(),
            "--data".into(),
            self.layout.data().display().to_string(),
            "--config".into(),
            self.config_file.display().to_string(),
        ];
        let mut spec = spec(DNS, program, arguments, &self.fingerprint(), self.layout.output(DNS));
        spec.user = self.user.clone();
        spec.listeners = self.listeners().into_iter().map(|listener| listener.name).collect();
        Ok(spec)
    }

    /// The real question: is anything answered? That it has no names yet is no fault of its own.
    pub async fn probe(&self) -> Answer {
        let Some(address) = self.addresses.first() else { return Answer::Well };
        match tokio::time::timeout(PATIENCE, ask(*address)).await {
            Ok(Ok(())) => Answer::Well,
            Ok(Err(error)) => Answer::Badly(error.to_string()),
            Err(_) => Answer::Badly(format!("no answer within {PATIENCE:?}")),
        }
    }
}

/// Asks for the name servers of the root, which nobody knows here.
async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(address).await?;
    let id: [u8; 2] = rand::random();
    // One question, no recursion; the name is the root, the type NS, the class IN.
    let question = [id[0], id[1], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    socket.send(&question).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 12 && answer[..2] == id && answer[2] & 0x80 != 0 {
            return Ok(());
        }
    }
}
