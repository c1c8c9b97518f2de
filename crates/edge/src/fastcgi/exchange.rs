//! One request on one FastCGI connection: the body goes up while the answer comes down, each at the pace of its reader.
//!
//! Always: at most one piece of the body and one read of the answer are in memory; dropping an exchange closes the
//! connection, which is how PHP learns that nobody wants the answer any more. The time limit counts PHP's time: what
//! the client takes to send its body or to read the answer is not charged to PHP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use pressroom_wire::http::{AnyBody, any_body};
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, ReadBuf,
};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep};

use super::codec::{self, Event};

/// A client that holds a worker must send so much within so long a time of waiting for it.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_BYTES: u64 = 640 * 1024;
const READ: usize = 32 * 1024;

/// The body of a request.
pub enum Source {
    /// None, or a small one.
    Memory(Bytes),
    /// What a client has sent so far, and the rest as it comes.
    Client(Bytes, Incoming),
    /// Spooled, because the client did not say how long it is.
    File(tokio::fs::File),
}

impl Source {
    /// The same body for a second exchange, which may begin when the first has ended; `None`: it comes from the client as it
    /// is sent on.
    pub async fn again(&self) -> Option<Self> {
        match self {
            Self::Memory(bytes) => Some(Self::Memory(bytes.clone())),
            Self::Client(..) => None,
            Self::File(file) => Some(Self::File(file.try_clone().await.ok()?)),
        }
    }

    /// As the body of a request to another edge.
    pub fn into_body(self) -> AnyBody {
        match self {
            Self::Memory(bytes) => any_body(Full::new(bytes)),
            Self::Client(bytes, _) => any_body(Full::new(bytes)),
            Self::File(file) => any_body(Reading { file, buffer: vec![0; 64 << 10] }),
        }
    }

    /// Goes back to the beginning.
    pub async fn rewind(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.seek(io::SeekFrom::Start(0)).await.map(drop),
            Self::Memory(_) | Self::Client(..) => Ok(()),
        }
    }
}

/// A spooled body as it is read.
struct Reading {
    file: tokio::fs::File,
    buffer: Vec<u8>,
}

impl hyper::body::Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<hyper::body::Frame<Bytes>>>> {
        let Self { file, buffer } = &mut *self;
        let mut space = tokio::io::ReadBuf::new(buffer);
        let read = ready!(Pin::new(file).poll_read(cx, &mut space));
        Poll::Ready(match read {
            Ok(()) if space.filled().is_empty() => None,
            Ok(()) => Some(Ok(hyper::body::Frame::data(Bytes::copy_from_slice(space.filled())))),
            Err(error) => Some(Err(error)),
        })
    }
}

/// Why an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// PHP closed the connection without finishing.
    #[error("PHP closed the connection before its answer was complete")]
    Died,
    /// PHP took longer than it may.
    #[error("PHP did not finish in time")]
    TimedOut,
    /// The peer does not speak FastCGI.
    #[error(transparent)]
    Garbled(#[from] codec::Garbled),
    /// The client stopped sending its body.
    #[error("the client stopped sending its request")]
    ClientGone,
    /// The body is longer than it may be.
    #[error("the request's body is longer than allowed")]
    TooLarge,
}

enum UploadFault {
    /// PHP listens no more; it may well have answered.
    Deaf,
    Client(Fault),
}

type Upload = Pin<Box<dyn Future<Output = Result<OwnedWriteHalf, UploadFault>> + Send>>;

/// Hears what PHP says to the log.
pub type Listener = Box<dyn FnMut(&[u8]) + Send>;

/// A running request.
pub struct Exchange {
    read: OwnedReadHalf,
    /// Kept open: closing our half could be taken for the client's leaving.
    write: Option<OwnedWriteHalf>,
    upload: Option<Upload>,
    input: BytesMut,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    handed_out: Option<Instant>,
    stderr: Listener,
    has_spoken: bool,
}

impl Exchange {
    /// Sends the parameters, and begins to send the body, of at most `largest` bytes.
    pub async fn start(
        stream: UnixStream,
        params: &[u8],
        source: Source,
        largest: u64,
        limit: Duration,
        stderr: Listener,
    ) -> io::Result<Self> {
        let (read, mut write) = stream.into_split();
        let mut out = BytesMut::with_capacity(params.len() + 64);
        codec::begin(&mut out, params);
        let mut upload: Option<Upload> = None;
        let source = match source {
            Source::Memory(bytes) => {
                codec::stdin(&mut out, &bytes);
                out.extend_from_slice(&codec::stdin_header(0));
                None
            }
            other => Some(other),
        };
        write.write_all(&out).await?;
        let mut kept = None;
        match source {
            Some(source) => upload = Some(Box::pin(send_body(source, write, largest))),
            None => kept = Some(write),
        }
        Ok(Self {
            read,
            write: kept,
            upload,
            input: BytesMut::new(),
            deadline: Box::pin(tokio::time::sleep(limit)),
            limit,
            handed_out: None,
            stderr,
            has_spoken: false,
        })
    }

    /// Whether PHP sent a single byte.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// The next piece of the answer, or its end.
    pub async fn next(&mut self) -> Result<Event, Fault> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Exchange::next`]; never returns [`Event::Stderr`], which goes to the log.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        if let Some(since) = self.handed_out.take() {
            let later = self.deadline.deadline() + since.elapsed();
            self.deadline.as_mut().reset(later);
        }
        self.poll_upload(cx)?;
        loop {
            while let Some(event) = codec::next(&mut self.input)? {
                match event {
                    Event::Stderr(text) => (self.stderr)(&text),
                    event => {
                        self.handed_out = Some(Instant::now());
                        return Poll::Ready(Ok(event));
                    }
                }
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Fault::Died)),
                Poll::Ready(Ok(_)) => {
                    self.has_spoken = true;
                    // The client may also go on sending, as long as PHP is listening.
                    self.poll_upload(cx)?;
                }
                Poll::Pending => break,
            }
        }
        if self.upload.is_none() {
            ready!(self.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(Fault::TimedOut));
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ);
        let spare = self.input.spare_capacity_mut();
        let mut buffer = ReadBuf::uninit(spare);
        ready!(Pin::new(&mut self.read).poll_read(cx, &mut buffer))?;
        let n = buffer.filled().len();
        #[expect(
            unsafe_code,
            reason = "`ReadBuf` has just initialised exactly these `n` bytes of the spare capacity"
        )]
        // SAFETY: `filled` is a prefix of the spare capacity, hence `len + n` initialised bytes within the capacity.
        unsafe {
            self.input.set_len(self.input.len() + n);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.as_mut().poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(write)) => self.write = Some(write),
            Poll::Ready(Err(UploadFault::Deaf)) => {}
            Poll::Ready(Err(UploadFault::Client(fault))) => {
                self.upload = None;
                return Err(fault);
            }
        }
        self.upload = None;
        self.deadline.as_mut().reset(Instant::now() + self.limit);
        Ok(())
    }
}

async fn send_body(
    source: Source,
    mut write: OwnedWriteHalf,
    largest: u64,
) -> Result<OwnedWriteHalf, UploadFault> {
    match source {
        Source::Memory(bytes) => send(&mut write, &bytes).await?,
        Source::Client(first, rest) => {
            send(&mut write, &first).await?;
            send_client(rest, &mut write, largest.saturating_sub(first.len() as u64)).await?;
        }
        Source::File(file) => send_file(file, &mut write).await?,
    }
    write.write_all(&codec::stdin_header(0)).await.map_err(|_| UploadFault::Deaf)?;
    Ok(write)
}

async fn send_client(
    mut body: Incoming,
    write: &mut OwnedWriteHalf,
    largest: u64,
) -> Result<(), UploadFault> {
    let (mut sent, mut window, mut waited) = (0, 0, Duration::ZERO);
    loop {
        let asked = Instant::now();
        let frame = tokio::time::timeout(WINDOW, body.frame()).await;
        waited += asked.elapsed();
        let frame = match frame {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) | Err(_) => return Err(UploadFault::Client(Fault::ClientGone)),
        };
        let Ok(data) = frame.into_data() else { continue };
        sent += data.len() as u64;
        window += data.len() as u64;
        if sent > largest {
            return Err(UploadFault::Client(Fault::TooLarge));
        }
        if waited > WINDOW {
            if window < WINDOW_BYTES {
                return Err(UploadFault::Client(Fault::ClientGone));
            }
            (window, waited) = (0, Duration::ZERO);
        }
        send(write, &data).await?;
    }
}

async fn send_file(
    mut file: tokio::fs::File,
    write: &mut OwnedWriteHalf,
) -> Result<(), UploadFault> {
    let mut piece = BytesMut::with_capacity(codec::RECORD);
    loop {
        piece.clear();
        match file.read_buf(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(_) => send(write, &piece).await?,
            Err(_) => return Err(UploadFault::Client(Fault::ClientGone)),
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, data: &[u8]) -> Result<(), UploadFault> {
    for part in data.chunks(codec::RECORD) {
        let header = codec::stdin_header(part.len());
        let mut both = bytes::Buf::chain(&header[..], part);
        write.write_all_buf(&mut both).await.map_err(|_| UploadFault::Deaf)?;
    }
    Ok(())
}
