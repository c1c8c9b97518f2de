//! An open connection, handed from one process to another over a unix socket, so that it does not end with the process that
//! opened it.
//!
//! One byte says what comes of a wait: the connection with it, or that there is none. Always: who hears neither knows that the
//! other process has ended.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

const HERE_IT_IS: u8 = b'+';
const THERE_IS_NONE: u8 = b'-';

/// What comes of a wait for a connection.
#[derive(Debug)]
pub enum Handed {
    /// It.
    Connection(UnixStream),
    /// The other process has none to give.
    Nothing,
    /// The other process has ended.
    Gone,
}

/// Hands `connection` to whoever is at the other end; it stays open here, too.
pub async fn give(to: &UnixStream, connection: &UnixStream) -> io::Result<()> {
    let sent = to.async_io(Interest::WRITABLE, || {
        let descriptors = [connection.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut more = SendAncillaryBuffer::new(&mut space);
        more.push(SendAncillaryMessage::ScmRights(&descriptors));
        let word = [HERE_IT_IS];
        Ok(sendmsg(to, &[IoSlice::new(&word)], &mut more, SendFlags::NOSIGNAL)?)
    });
    sent.await.map(drop)
}

/// Says that there is no connection to hand over.
pub async fn give_nothing(to: &mut UnixStream) -> io::Result<()> {
    to.write_all(&[THERE_IS_NONE]).await
}

/// Waits for a connection. Cancel-safe, but for a connection that has come in that moment: it is closed.
pub async fn take(from: &UnixStream) -> io::Result<Handed> {
    let (word, descriptor) = from
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut more = RecvAncillaryBuffer::new(&mut space);
            let mut word = [0];
            let mut place = [IoSliceMut::new(&mut word)];
            let count = recvmsg(from, &mut place, &mut more, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let descriptor: Option<OwnedFd> = more.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            Ok(((count > 0).then_some(word[0]), descriptor))
        })
        .await?;
    match (word, descriptor) {
        (Some(HERE_IT_IS), Some(descriptor)) => {
            let connection = std::os::unix::net::UnixStream::from(descriptor);
            connection.set_nonblocking(true)?;
            Ok(Handed::Connection(UnixStream::from_std(connection)?))
        }
        (Some(THERE_IS_NONE), _) => Ok(Handed::Nothing),
        (None, _) => Ok(Handed::Gone),
        (Some(_), _) => Err(io::Error::new(io::ErrorKind::InvalidData, "no connection came")),
    }
}

/// Waits until the other end has hung up, whoever reads what it has said. Cancel-safe.
pub async fn hung_up(stream: &UnixStream) -> io::Result<()> {
    while !stream.ready(Interest::READABLE).await?.is_read_closed() {
        // What there is to read is for somebody else; only news counts.
        let _news =
            stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_connection_outlives_the_process_that_opened_it() {
        let (giver, taker) = UnixStream::pair().expect("a pair");
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        give(&giver, &ours).await.expect("given");
        drop((giver, ours));
        let Handed::Connection(mut handed) = take(&taker).await.expect("taken") else {
            panic!("no connection")
        };
        handed.write_all(b"hello").await.expect("written");
        drop(handed);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.expect("read");
        assert_eq!(heard, "hello");
        assert!(matches!(take(&taker).await.expect("taken"), Handed::Gone));
    }

    #[tokio::test]
    async fn that_there_is_none_is_told_from_a_giver_that_has_ended() {
        let (mut giver, taker) = UnixStream::pair().expect("a pair");
        give_nothing(&mut giver).await.expect("said");
        assert!(matches!(take(&taker).await.expect("taken"), Handed::Nothing));
    }

    #[tokio::test]
    async fn a_hang_up_is_seen_behind_what_nobody_has_read() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"unread").await.expect("written");
        let early = tokio::time::timeout(Duration::from_millis(50), hung_up(&ours)).await;
        assert!(early.is_err(), "it is there yet");
        drop(theirs);
        tokio::time::timeout(SOON, hung_up(&ours)).await.expect("seen").expect("no error");
    }
}
