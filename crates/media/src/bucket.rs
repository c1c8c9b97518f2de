//! An object store that is spoken to as S3, and what we do with it: list, send, fetch, delete.
//!
//! Names are `PREFIX/SITE/PATH/VERSION` ([`crate::object`]); nothing else below the prefix is looked at. Nothing is tried twice
//! here, and nothing waits for long: whoever calls knows what waits, and when to come again.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read as _, Seek as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use pressroom_model::config::MediaStore;
use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;
use tokio::sync::mpsc;

use crate::exchange::{Stamp, Version};
use crate::object::{DIGITS, Object, escaped, unescaped};

/// A larger file is sent in parts of so many bytes.
const PART: usize = 5 << 20;
/// A store that does not accept a connection in that time is away.
const CONNECT: Duration = Duration::from_secs(5);
/// A store that is silent for so long is away; a part must have arrived by then.
const SILENCE: Duration = Duration::from_secs(100);
/// Longest name, in bytes, that S3 takes.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>
const LONGEST: usize = 1024;
/// What tells which versions a version came after.
const PAST: &str = "pressroom-past";

/// Why something did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer, or refuses. Trying again later is right.
    #[error("{0}")]
    Store(String),
    /// This machine's disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let (mut text, mut cause) = (error.to_string(), std::error::Error::source(&error));
        // The innermost says what happened; most of the outer ones repeat it.
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        // Which request it was, with its address and how long it took, is no news and different each time.
        if let Some((_, what)) =
            text.split_once("Error performing ").and_then(|(_, it)| it.split_once(" - "))
        {
            text = what.to_owned();
        }
        let end = text.char_indices().nth(400).map_or(text.len(), |(end, _)| end);
        text.truncate(end);
        Self::Store(text)
    }
}

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    id: String,
    secret: Secret,
    token: Option<Secret>,
}

impl AccessKey {
    /// Reads a key as AWS's own tools write it (`aws_access_key_id = …`), the first one of the text. `None`: there is none.
    ///
    /// <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>
    pub fn parse(text: &str) -> Option<Self> {
        let value = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                let (name, value) = (name.trim(), value.trim());
                (name.eq_ignore_ascii_case(wanted) && !value.is_empty()).then(|| value.to_owned())
            })
        };
        Some(Self {
            id: value("aws_access_key_id")?,
            secret: Secret::new(value("aws_secret_access_key")?),
            token: value("aws_session_token").map(Secret::new),
        })
    }
}

/// A file whose bytes are known.
#[derive(Debug)]
pub struct Measured {
    file: File,
    stamp: Stamp,
    digest: String,
    /// All of it, where it is small.
    bytes: Option<Bytes>,
}

impl Measured {
    /// Reads a file of this stamp; `None`: it has another size by now. Blocks.
    pub fn read(mut file: File, stamp: Stamp) -> io::Result<Option<Self>> {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = None;
        let length = if stamp.size <= PART as u64 {
            let mut all = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
            let length = file.by_ref().take(stamp.size + 1).read_to_end(&mut all)?;
            hasher.update(&all);
            bytes = Some(Bytes::from(all));
            length as u64
        } else {
            io::copy(&mut file, &mut hasher)?
        };
        file.rewind()?;
        let digest = digits(&hasher);
        Ok((length == stamp.size).then_some(Self { file, stamp, digest, bytes }))
    }
}

fn digits(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..DIGITS].to_owned()
}

/// A bucket, or what is below a prefix in it.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Bucket {
    /// The bucket that a configuration names. Nothing is asked yet.
    pub fn open(place: &MediaStore, key: &AccessKey) -> Result<Self, Error> {
        // Whoever came first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let is_plain = place.endpoint.as_ref().is_some_and(|it| it.starts_with("http://"));
        let options = ClientOptions::new()
            .with_allow_http(is_plain)
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE)
            .with_timeout_disabled();
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&place.bucket)
            .with_region(&place.region)
            .with_access_key_id(&key.id)
            .with_secret_access_key(key.secret.reveal())
            .with_client_options(options)
            .with_retry(once);
        if let Some(endpoint) = &place.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = &key.token {
            builder = builder.with_token(token.reveal());
        }
        Ok(Self::over(Arc::new(builder.build()?), &place.prefix))
    }

    /// What is below a prefix of a store.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { store, prefix }
    }

    fn folder(&self, site: &SiteName, path: &str) -> Result<Path, Error> {
        let slash = if path.is_empty() { "" } else { "/" };
        let name = format!("{}{site}{slash}{}", self.prefix, escaped(path));
        Path::parse(name).map_err(|error| Error::Store(error.to_string()))
    }

    fn at(&self, site: &SiteName, path: &str, object: &Object) -> Result<Path, Error> {
        let at = self.folder(site, path)?.join(object.name().as_str());
        match at.as_ref().len() <= LONGEST {
            true => Ok(at),
            false => {
                Err(Error::Store(format!("no object can have a name as long as that of {path}")))
            }
        }
    }

    /// The versions of a path that are there.
    pub async fn versions(&self, site: &SiteName, path: &str) -> Result<Vec<Object>, Error> {
        let folder = self.folder(site, path)?;
        let listed = self.store.list_with_delimiter(Some(&folder)).await?;
        let named = |it: &ObjectMeta| Object::named(it.location.filename()?, it.size);
        Ok(listed.objects.iter().filter_map(named).collect())
    }

    /// Whether it answers at all, asked with what every listing needs. Of that name there is nothing.
    pub async fn try_out(&self) -> Result<(), Error> {
        let nothing = Path::from(format!("{}.nothing", self.prefix));
        self.store.list_with_delimiter(Some(&nothing)).await?;
        Ok(())
    }

    /// Everything of a site that is there, by path.
    pub async fn all(&self, site: &SiteName) -> Result<BTreeMap<String, Vec<Object>>, Error> {
        let folder = self.folder(site, "")?;
        let front = format!("{folder}/");
        let mut all: BTreeMap<String, Vec<Object>> = BTreeMap::new();
        let mut listed = self.store.list(Some(&folder));
        while let Some(meta) = next(&mut listed).await {
            let meta = meta?;
            let below = meta.location.as_ref().strip_prefix(&front);
            let parts = below.and_then(|below| below.rsplit_once('/'));
            let Some((path, name)) = parts else { continue };
            if let (Some(path), Some(object)) = (unescaped(path), Object::named(name, meta.size)) {
                all.entry(path).or_default().push(object);
            }
        }
        Ok(all)
    }

    /// Sends a version. `None`: the file is being changed, and there is nothing there.
    pub async fn send(
        &self,
        site: &SiteName,
        path: &str,
        version: &Version,
        file: Measured,
    ) -> Result<Option<Object>, Error> {
        let past: Vec<String> = version.past.iter().map(i64::to_string).collect();
        let version = Version { past: Vec::new(), ..version.clone() };
        let object = Object { version, digest: file.digest.clone() };
        let at = self.at(site, path, &object)?;
        let attributes =
            Attributes::from_iter([(Attribute::Metadata(PAST.into()), past.join(","))]);
        match file.bytes {
            Some(bytes) => {
                let options = PutOptions { attributes, ..PutOptions::default() };
                self.store.put_opts(&at, PutPayload::from(bytes), options).await?;
            }
            None => {
                let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
                let mut upload = self.store.put_multipart_opts(&at, options).await?;
                let sent = send_parts(&mut *upload, file).await;
                if !matches!(sent, Ok(true)) {
                    // What is left of it is for the store's own rules about uploads that were not finished.
                    let _ = upload.abort().await;
                    return sent.map(|_| None);
                }
                upload.complete().await?;
            }
        }
        Ok(Some(object))
    }

    /// Fetches a version: what it came after, and its bytes, which end in a failure if they are not what was sent.
    pub async fn fetch(
        &self,
        site: &SiteName,
        path: &str,
        object: &Object,
    ) -> Result<(Version, Fetching), Error> {
        let at = self.at(site, path, object)?;
        let got = self.store.get_opts(&at, GetOptions::default()).await?;
        let past = got.attributes.get(&Attribute::Metadata(PAST.into()));
        let past = past.map(|past| past.split(',').filter_map(|one| one.parse().ok()).collect());
        let version = Version { past: past.unwrap_or_default(), ..object.version.clone() };
        Ok((version, Fetching { stream: got.into_stream(), digest: object.digest.clone() }))
    }

    /// Deletes a version; one that is not there is no failure.
    pub async fn delete(&self, site: &SiteName, path: &str, object: &Object) -> Result<(), Error> {
        match self.store.delete(&self.at(site, path, object)?).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

async fn next<T>(stream: &mut Pin<Box<dyn Stream<Item = T> + Send>>) -> Option<T> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}

/// Whether all of it was sent, and was what was measured.
async fn send_parts(upload: &mut dyn MultipartUpload, file: Measured) -> Result<bool, Error> {
    let Measured { mut file, stamp, digest, .. } = file;
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    loop {
        let read = move || {
            let mut part = Vec::with_capacity(PART);
            (&mut file).take(PART as u64).read_to_end(&mut part)?;
            hasher.update(&part);
            Ok::<_, io::Error>((file, hasher, part))
        };
        let part;
        (file, hasher, part) = blocking(read).await?;
        if part.is_empty() {
            return Ok(length == stamp.size && digits(&hasher) == digest);
        }
        length += part.len() as u64;
        upload.put_part(PutPayload::from(part)).await?;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A version that is being fetched.
pub struct Fetching {
    stream: Pin<Box<dyn Stream<Item = object_store::Result<Bytes>> + Send>>,
    digest: String,
}

impl std::fmt::Debug for Fetching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetching").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Fetching {
    /// Hands its bytes to somebody who reads and blocks.
    pub async fn read<T: Send + 'static>(
        mut self,
        taker: impl FnOnce(&mut dyn io::Read) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, pieces) = mpsc::channel(8);
        let hasher = blake3::Hasher::new();
        let mut arriving = Arriving { pieces, piece: Bytes::new(), hasher, digest: self.digest };
        let taking = tokio::task::spawn_blocking(move || taker(&mut arriving));
        let mut failed = None;
        while let Some(piece) = next(&mut self.stream).await {
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let taken = taking.await.map_err(io::Error::other)?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(taken?),
        }
    }
}

/// Bytes as they arrive. They end well only if they are what was sent.
struct Arriving {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    hasher: blake3::Hasher,
    digest: String,
}

impl io::Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None if digits(&self.hasher) == self.digest => return Ok(0),
                None => {
                    let what = "the object store gave other bytes than were sent to it";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        let length = self.piece.len().min(into.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        self.hasher.update(&into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_said_without_the_request() {
        let source = "Error performing GET http://s3/b?prefix=x in 12.3ms - connection refused";
        let error = object_store::Error::Generic { store: "S3", source: source.into() };
        assert_eq!(Error::from(error).to_string(), "connection refused");
    }

    #[test]
    fn a_key_is_read_as_others_write_it_and_shown_to_nobody() {
        let text = "[default]\naws_access_key_id = GK1\nAWS_SECRET_ACCESS_KEY=a=b\n[other]\naws_access_key_id = GK2\n";
        let key = AccessKey::parse(text).expect("a key");
        assert_eq!(
            (key.id.as_str(), key.secret.reveal(), key.token.is_none()),
            ("GK1", "a=b", true)
        );
        assert!(!format!("{key:?}").contains("a=b"));
        assert_eq!(AccessKey::parse("aws_access_key_id = GK1\naws_secret_access_key =\n"), None);
    }
}
