//! The thread that keeps the cache on disk: journals of purges, hot pages, learnt cookie names.
//!
//! Nothing on the way of a request waits for it but the receipts of purges, which wait for a `write`. Pages are written
//! in the pauses, the hottest when not all fit. When the disk fails, purges go on in memory, and what is on disk is
//! removed, since it could no longer be told which of it is stale; later the thread tries again from nothing.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::hot::{self, FileName, Index};
use super::journal::{Journal, Record, replace};
use super::memory::Memory;
use super::page::Page;
use super::site::Site;
use super::state::Places;

/// Commands that may wait.
const QUEUE: usize = 8192;
/// Pages written before the next look at the commands.
const AT_A_TIME: usize = 4;
/// Most pages on disk, and their bytes.
const MOST_PAGES: usize = 2_000;
const MOST_BYTES: usize = 256 << 20;
/// A journal longer than this is begun anew.
const LONG_JOURNAL: u64 = 256 << 10;
/// How often the hottest pages are chosen again, and a failed disk is tried again.
const CHOOSE: Duration = Duration::from_secs(20);
/// How soon a purge is synced.
const SYNC: Duration = Duration::from_millis(40);
/// How long the thread sleeps when it has nothing to do.
const IDLE: Duration = Duration::from_secs(2);

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A site is served: this is its journal, and these pages of it are on disk.
    Open { site: Arc<Site>, journal: Option<Journal>, pages: Vec<(FileName, usize)> },
    /// A purge was applied.
    Purge { site: Arc<Site>, record: Record, written: oneshot::Sender<()> },
    /// A page is ready to be kept.
    Keep(Arc<Page>),
    /// A page of an earlier process is in memory now.
    Woke(Arc<Page>),
    /// A page may not be kept.
    Forget(Arc<Page>),
    /// The site set a cookie of a new name.
    Cookies(Arc<Site>),
    /// A site is no more.
    Close(Arc<Site>),
    /// The process stops: all that is worth it is written, then this is told.
    Finish(oneshot::Sender<()>),
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Disk {
    commands: SyncSender<Command>,
}

impl Disk {
    /// Starts the thread; it ends with the last sender.
    pub(super) fn start(places: Places, memory: Arc<Memory>) -> io::Result<Self> {
        let (commands, receiver) = sync_channel(QUEUE);
        let (syncs, files) = sync_channel::<Arc<File>>(64);
        std::thread::Builder::new().name("page-sync".into()).spawn(move || {
            while let Ok(file) = files.recv() {
                if let Err(error) = file.sync_data() {
                    tracing::warn!(%error, "a journal of purges could not be synced");
                }
            }
        })?;
        let keeper =
            Keeper { places, memory, syncs, folders: HashMap::new(), waiting: VecDeque::new() };
        std::thread::Builder::new()
            .name("page-disk".into())
            .spawn(move || keeper.run(&receiver))?;
        Ok(Self { commands })
    }

    /// Asks for something; `false`: the thread is overwhelmed.
    pub(super) fn ask(&self, command: Command) -> bool {
        match self.commands.try_send(command) {
            Ok(()) => true,
            Err(TrySendError::Full(Command::Purge { site, .. })) => {
                site.lose_journal();
                false
            }
            Err(_) => false,
        }
    }

    /// Asks for something that must not be lost, by waiting for room.
    pub(super) fn insist(&self, command: Command) {
        // The thread lives as long as the sender; if it died nothing can be kept, which is what its log said.
        let _ = self.commands.send(command);
    }
}

#[derive(Debug)]
struct Keeper {
    places: Places,
    memory: Arc<Memory>,
    syncs: SyncSender<Arc<File>>,
    folders: HashMap<String, Folder>,
    waiting: VecDeque<Arc<Page>>,
}

/// What is on disk of one site.
#[derive(Debug)]
struct Folder {
    site: Arc<Site>,
    journal: Option<Journal>,
    unsynced: bool,
    pages: HashMap<FileName, OnDisk>,
}

#[derive(Debug, Clone, Copy)]
struct OnDisk {
    id: u64,
    hash: u64,
    bytes: usize,
}

impl Keeper {
    fn run(mut self, commands: &Receiver<Command>) {
        let (mut synced, mut chosen) = (Instant::now(), Instant::now());
        loop {
            let pause = match self.waiting.is_empty() {
                false => Duration::ZERO,
                true if self.folders.values().any(|folder| folder.unsynced) => SYNC,
                true => IDLE,
            };
            match commands.recv_timeout(pause) {
                Ok(first) => self.obey_all(first, commands),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..AT_A_TIME {
                let Some(page) = self.waiting.pop_front() else { break };
                self.keep(&page);
            }
            if synced.elapsed() >= SYNC {
                self.sync();
                self.shorten();
                synced = Instant::now();
            }
            if chosen.elapsed() >= CHOOSE {
                self.choose();
                self.recover();
                chosen = Instant::now();
            }
        }
    }

    /// Obeys what is there, all purges of a site with one write.
    fn obey_all(&mut self, first: Command, commands: &Receiver<Command>) {
        let mut purges: Vec<(Arc<Site>, Vec<Record>)> = Vec::new();
        let mut told = Vec::new();
        let mut next = Some(first);
        let mut finish = None;
        while let Some(command) = next {
            match command {
                Command::Purge { site, record, written } => {
                    told.push(written);
                    match purges.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &site)) {
                        Some((_, records)) => records.push(record),
                        None => purges.push((site, vec![record])),
                    }
                }
                Command::Finish(done) => finish = Some(done),
                other => {
                    // Order matters between a purge and the opening or closing of its site.
                    self.append_all(&mut purges);
                    self.obey(other);
                }
            }
            next = if told.len() < 256 { commands.try_recv().ok() } else { None };
        }
        self.append_all(&mut purges);
        for written in told {
            // Whoever does not wait any more need not be told.
            let _ = written.send(());
        }
        if let Some(done) = finish {
            self.finish();
            let _ = done.send(());
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { site, journal, pages } => {
                let pages = pages
                    .into_iter()
                    .map(|(name, bytes)| (name, OnDisk { id: 0, hash: 0, bytes }))
                    .collect();
                let folder = Folder { site: Arc::clone(&site), journal, unsynced: false, pages };
                self.folders.insert(site.name().to_string(), folder);
            }
            Command::Keep(page) => self.waiting.push_back(page),
            Command::Woke(page) => {
                let folder = self.folders.get_mut(page.site.name().as_str());
                let kept = folder.and_then(|folder| folder.pages.get_mut(&FileName::of(&page.key)));
                if let Some(kept) = kept.filter(|kept| kept.id == 0) {
                    (kept.id, kept.hash) = (page.id, page.key.hash());
                }
            }
            Command::Forget(page) => {
                self.waiting.retain(|waiting| waiting.key != page.key);
                self.drop_page(&page);
            }
            Command::Cookies(site) => {
                let path = self.places.cookies(site.name());
                if let Err(error) = replace(&path, site.learned.to_lines().as_bytes(), false) {
                    tracing::warn!(%error, path = %path.display(), "learnt cookie names could not be kept");
                }
            }
            Command::Close(site) => {
                self.folders.remove(site.name().as_str());
                self.waiting.retain(|page| !Arc::ptr_eq(&page.site, &site));
                self.places.clear(site.name());
                // What cannot be removed is stale for whoever gets this name later: its journal is gone.
                let _ = std::fs::remove_file(self.places.cookies(site.name()));
            }
            Command::Purge { .. } | Command::Finish(_) => {}
        }
    }

    fn append_all(&mut self, purges: &mut Vec<(Arc<Site>, Vec<Record>)>) {
        for (site, records) in purges.drain(..) {
            let Some(folder) = self.folders.get_mut(site.name().as_str()) else { continue };
            let Some(journal) = &mut folder.journal else { continue };
            match journal.append(&records) {
                Ok(()) => folder.unsynced = true,
                Err(error) => folder.fail(&self.places, &error),
            }
        }
    }

    fn sync(&mut self) {
        for folder in self.folders.values_mut().filter(|folder| folder.unsynced) {
            let Some(journal) = &folder.journal else { continue };
            folder.unsynced = self.syncs.try_send(journal.file()).is_err();
        }
    }

    /// Writes a page, if it is still the one in memory and there is room or it has a place already.
    fn keep(&mut self, page: &Arc<Page>) {
        let current = self.memory.by_hash(page.key.hash()).is_some_and(|there| there.id == page.id);
        let (pages, bytes) = self.totals();
        let Some(folder) = self.folders.get_mut(page.site.name().as_str()) else { return };
        let name = FileName::of(&page.key);
        let size = page.size.load(Ordering::Relaxed);
        let fits =
            folder.pages.contains_key(&name) || (pages < MOST_PAGES && bytes + size <= MOST_BYTES);
        if folder.journal.is_none() || !current || !fits {
            return;
        }
        if let Err(error) = folder.write(page, name, &self.places) {
            tracing::warn!(%error, site = %page.site.name(), "a page could not be kept on disk");
            folder.remove(name, &self.places);
        }
    }

    fn totals(&self) -> (usize, usize) {
        let pages = self.folders.values().map(|folder| folder.pages.len()).sum();
        let bytes = self
            .folders
            .values()
            .flat_map(|folder| folder.pages.values())
            .map(|page| page.bytes)
            .sum();
        (pages, bytes)
    }

    fn drop_page(&mut self, page: &Page) {
        if let Some(folder) = self.folders.get_mut(page.site.name().as_str()) {
            folder.remove(FileName::of(&page.key), &self.places);
        }
    }

    /// Chooses the hottest pages of memory again: others leave the disk, the missing ones wait to be written.
    fn choose(&mut self) {
        let mut all: Vec<Arc<Page>> = self.memory.find(|_| true);
        all.sort_by_key(|page| std::cmp::Reverse(page.hits.load(Ordering::Relaxed)));
        let (mut bytes, mut chosen) = (0, Vec::new());
        for page in all.into_iter().take(MOST_PAGES) {
            bytes += page.size.load(Ordering::Relaxed);
            if bytes > MOST_BYTES {
                break;
            }
            chosen.push(page);
        }
        let names: HashMap<FileName, &Arc<Page>> =
            chosen.iter().map(|page| (FileName::of(&page.key), page)).collect();
        for folder in self.folders.values_mut().filter(|folder| !folder.site.is_waking()) {
            let gone: Vec<FileName> =
                folder.pages.keys().filter(|name| !names.contains_key(name)).copied().collect();
            for name in gone {
                folder.remove(name, &self.places);
            }
        }
        let missing = names.into_iter().filter(|(name, page)| {
            let folder = self.folders.get(page.site.name().as_str());
            folder.is_some_and(|folder| {
                folder.pages.get(name).is_none_or(|kept| kept.id != page.id && kept.id != 0)
            })
        });
        self.waiting.extend(missing.map(|(_, page)| Arc::clone(page)).collect::<Vec<_>>());
    }

    /// Begins long journals anew, after the index has said of every page what they would have said.
    fn shorten(&mut self) {
        for folder in self.folders.values_mut() {
            if folder.site.take_lost_journal() {
                folder
                    .fail(&self.places, &io::Error::other("more purges than the disk could take"));
            }
            let long =
                folder.journal.as_ref().is_some_and(|journal| journal.length() > LONG_JOURNAL);
            if long && !folder.site.is_waking() {
                folder.checkpoint(&self.places, &self.memory);
            }
        }
    }

    fn recover(&mut self) {
        for folder in self.folders.values_mut().filter(|folder| folder.journal.is_none()) {
            folder.start_anew(&self.places);
        }
    }

    fn finish(&mut self) {
        while let Some(page) = self.waiting.pop_front() {
            self.keep(&page);
        }
        for folder in self
            .folders
            .values_mut()
            .filter(|folder| folder.journal.is_some() && !folder.site.is_waking())
        {
            folder.checkpoint(&self.places, &self.memory);
        }
        for journal in self.folders.values().filter_map(|folder| folder.journal.as_ref()) {
            if let Err(error) = journal.file().sync_data() {
                tracing::warn!(%error, "a journal of purges could not be synced");
            }
        }
        if let Err(error) = self.places.end_session() {
            tracing::warn!(%error, "the end could not be noted; the next start calls kept pages stale after a reboot");
        }
    }
}

impl Folder {
    fn write(&mut self, page: &Page, name: FileName, places: &Places) -> io::Result<()> {
        let (position, purged_at) = {
            let _book = self.site.book.lock();
            (self.site.position(), page.purged_at())
        };
        let file = hot::encode(page, &self.site.release(), position, purged_at)?;
        replace(&name.within(&places.pages(self.site.name())), &file, false)?;
        self.pages.insert(name, OnDisk { id: page.id, hash: page.key.hash(), bytes: file.len() });
        Ok(())
    }

    fn remove(&mut self, name: FileName, places: &Places) {
        if self.pages.remove(&name).is_some() {
            // A file that is gone already is as good.
            let _ = std::fs::remove_file(name.within(&places.pages(self.site.name())));
        }
    }

    /// What is on disk can no longer be told fresh from stale: it goes.
    fn fail(&mut self, places: &Places, error: &io::Error) {
        tracing::error!(%error, site = %self.site.name(), "purges cannot be journalled: pages are kept in memory only");
        self.journal = None;
        self.pages.clear();
        places.clear(self.site.name());
    }

    fn start_anew(&mut self, places: &Places) {
        // A purge that is applied meanwhile is still to come through the queue.
        let begun = places
            .make(self.site.name())
            .and_then(|()| Journal::begin(&places.journal(self.site.name()), self.site.position()));
        match begun {
            Ok(journal) => {
                tracing::info!(site = %self.site.name(), "purges are journalled again");
                self.journal = Some(journal);
            }
            Err(error) => {
                tracing::warn!(%error, site = %self.site.name(), "purges still cannot be journalled");
            }
        }
    }

    fn checkpoint(&mut self, places: &Places, memory: &Memory) {
        let index = self.index(memory);
        let path = places.index(self.site.name());
        let written = serde_json::to_vec(&index)
            .map_err(io::Error::from)
            .and_then(|text| replace(&path, &text, true))
            .and_then(|()| {
                self.journal.as_mut().map_or(Ok(()), |journal| journal.restart(index.position))
            });
        if let Err(error) = written {
            tracing::warn!(%error, site = %self.site.name(), "the journal of purges could not be shortened");
        }
    }

    /// What is known of the pages on disk at this position: those that memory has no more are called stale.
    fn index(&self, memory: &Memory) -> Index {
        let _book = self.site.book.lock();
        let purged_at = |kept: &OnDisk| {
            let page = memory.by_hash(kept.hash).filter(|page| page.id == kept.id);
            page.map_or(1, |page| page.purged_at().unwrap_or(0))
        };
        let pages = self.pages.iter().map(|(name, kept)| (name.text(), purged_at(kept))).collect();
        Index { position: self.site.position(), pages }
    }
}

/// Removes a file or folder that may be missing.
pub(super) fn remove_all(path: &Path) {
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, path = %path.display(), "what may be out of date could not be removed");
        }
        _ => {}
    }
}
