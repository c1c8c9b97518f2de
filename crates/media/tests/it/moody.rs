//! An object store in memory that is away, or slow, when a test wants it.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_core::Stream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Semaphore;

type Many<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

#[derive(Debug)]
pub(crate) struct Moody {
    inner: InMemory,
    is_away: AtomicBool,
    is_slow: AtomicBool,
    /// Something has arrived that is held back.
    arrived: Semaphore,
    /// It may go on.
    released: Semaphore,
}

impl Moody {
    pub(crate) fn new() -> Self {
        Self {
            inner: InMemory::new(),
            is_away: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
        }
    }

    pub(crate) fn go_away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
    }

    pub(crate) fn come_back(&self) {
        self.is_away.store(false, Ordering::Relaxed);
    }

    /// The next object that is put is held back until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Waits until something is held back.
    pub(crate) async fn holds(&self) {
        self.arrived.acquire().await.expect("open").forget();
    }

    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }

    fn answer(&self) -> Result<()> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(object_store::Error::Generic { store: "moody", source: "away".into() }),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Moody {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.answer()?;
        if self.is_slow.swap(false, Ordering::Relaxed) {
            self.arrived.add_permits(1);
            self.released.acquire().await.expect("open").forget();
        }
        self.inner.put_opts(at, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.answer()?;
        self.inner.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.answer()?;
        self.inner.get_opts(at, how).await
    }

    fn delete_stream(&self, all: Many<Path>) -> Many<Path> {
        self.inner.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> Many<ObjectMeta> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.answer()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}
