//! Questions for names that are none of ours, put to the resolvers that operators named. Nothing is kept: that is their affair.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How the question came, and is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a datagram.
    Datagram,
    /// Over a connection.
    Connection,
}

/// Longest wait for one resolver.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the first resolver that answers says to a question, under the question's own id; `None`: nobody answered.
pub async fn ask(resolvers: &[SocketAddr], question: &Message, way: Way) -> Option<Message> {
    for resolver in resolvers {
        // Another id each time, from a socket of its own: who did not see the question cannot answer it.
        let mut asked = question.clone();
        asked.metadata.id = rand::random();
        let answered = async {
            match way {
                Way::Datagram => by_datagram(*resolver, &asked).await,
                Way::Connection => by_connection(*resolver, &asked).await,
            }
        };
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(mut answer)) => {
                answer.metadata.id = question.id;
                return Some(answer);
            }
            Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver did not answer"),
            Err(_) => tracing::debug!(%resolver, "a resolver did not answer in time"),
        }
    }
    None
}

async fn by_datagram(resolver: SocketAddr, asked: &Message) -> std::io::Result<Message> {
    let own: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(resolver).await?;
    socket.send(&asked.to_vec().map_err(std::io::Error::other)?).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Something else that came there is no answer; the true one may follow.
        if let Some(answer) = answer_to(asked, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_connection(resolver: SocketAddr, asked: &Message) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(resolver).await?;
    let bytes = asked.to_vec().map_err(std::io::Error::other)?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    answer_to(asked, &buffer).ok_or_else(|| std::io::Error::other("no answer to what was asked"))
}

fn answer_to(asked: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_answer = answer.message_type == hickory_proto::op::MessageType::Response;
    (is_answer && answer.id == asked.id && answer.queries == asked.queries).then_some(answer)
}
