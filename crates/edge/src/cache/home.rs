//! The cache's life on disk, as the cache itself sees it: open a site, journal a purge, wake what is asleep.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Weak};

use pressroom_model::affirmation::Purge;
use tokio::sync::oneshot;

use super::disk::{Command, Disk};
use super::journal::Record;
use super::site::Site;
use super::state::Places;
use super::{Millis, PageCache, now};

/// Where the cache lives on disk.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) disk: Disk,
    pub(super) places: Places,
    /// What an earlier process left can be believed.
    pub(super) believed: bool,
    /// Sites with pages to be woken.
    pub(super) waking: SyncSender<Arc<Site>>,
}

impl Home {
    /// Opens what is there of a site.
    pub(super) fn open(&self, site: &Arc<Site>) {
        let cookies = std::fs::read_to_string(self.places.cookies(site.name())).unwrap_or_default();
        site.learned.read_lines(&cookies);
        match site.asleep.open(site, &self.places, self.believed) {
            Ok(opened) => {
                site.start_at(opened.position);
                let (journal, pages) = (opened.journal, opened.pages);
                self.disk.insist(Command::Open { site: Arc::clone(site), journal, pages });
                if site.is_waking() {
                    // A full queue only means that this site's pages wake when they are asked for.
                    let _ = self.waking.try_send(Arc::clone(site));
                }
            }
            Err(error) => {
                tracing::error!(%error, site = %site.name(), "the state on disk cannot be used: pages are kept in memory only");
                self.places.clear(site.name());
            }
        }
    }

    /// Journals a purge; tells when it is written.
    pub(super) fn journal(
        &self,
        site: &Arc<Site>,
        position: u64,
        purge: &Purge,
        at: Millis,
    ) -> oneshot::Receiver<()> {
        let (written, told) = oneshot::channel();
        let record = Record { position, at, purge: purge.clone() };
        self.disk.ask(Command::Purge { site: Arc::clone(site), record, written });
        told
    }
}

/// Wakes all pages of all sites that come, one after the other.
pub(super) fn wake_all(sites: &Receiver<Arc<Site>>, cache: &Weak<PageCache>) {
    while let Ok(site) = sites.recv() {
        while let Some(cache) = cache.upgrade() {
            if !site.asleep.wake_any(&cache, &site, now()) {
                break;
            }
        }
    }
}
