//! The thread that codes stored pages in the background: each page once, one after the other, so that it takes one
//! core at most and never the time of a request.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::memory::Memory;
use super::page::Page;
use crate::compress::Encoding;

/// Pages that may wait; a page that finds no room is asked for again by its next hit.
const QUEUE: usize = 512;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Coder {
    queue: SyncSender<Arc<Page>>,
}

/// The other end of the way.
#[derive(Debug)]
pub(super) struct Coding(Receiver<Arc<Page>>);

impl Coding {
    /// Starts the thread; it ends with the last sender. `done` is told of every page that has its variants.
    pub(super) fn start(
        self,
        memory: Arc<Memory>,
        done: impl Fn(&Arc<Page>) + Send + 'static,
    ) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("page-coder".into());
        thread.spawn(move || run(&self.0, &memory, done)).map(|_| ())
    }
}

impl Coder {
    /// A way and its other end.
    pub(super) fn new() -> (Self, Coding) {
        let (queue, pages) = sync_channel(QUEUE);
        (Self { queue }, Coding(pages))
    }

    /// Asks for the variants of a page, once.
    pub(super) fn ask(&self, page: &Arc<Page>) {
        if page.claim_coding() && self.queue.try_send(Arc::clone(page)).is_err() {
            page.unclaim_coding();
        }
    }
}

fn run(pages: &Receiver<Arc<Page>>, memory: &Memory, done: impl Fn(&Arc<Page>)) {
    while let Ok(page) = pages.recv() {
        let gone = memory.by_hash(page.key.hash()).is_none_or(|stored| stored.id != page.id);
        if gone {
            continue;
        }
        // The commonest and quickest first: it is served while the others are made.
        for encoding in [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd] {
            code(&page, encoding, memory);
        }
        done(&page);
    }
}

fn code(page: &Page, encoding: Encoding, memory: &Memory) {
    let plain = &page.plain().body;
    match encoding.encode(plain) {
        Ok(coded) if coded.len() < plain.len() => {
            memory.grow(page, || page.set(encoding, Bytes::from(coded)));
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, ?encoding, "a page could not be coded; it is served without");
        }
    }
}
