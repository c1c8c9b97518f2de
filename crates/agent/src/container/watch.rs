//! Containers that lost their client: found and ended.
//!
//! Whenever an instance in a container came or went, and at every beginning of an agent. A container is one that nobody holds when the
//! keeper, asked after Docker was, does not run its client. Images that no version is of any more go at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::config::{Runtime, Site};
use pressroom_runtime::shutdown::Shutdown;

use super::image::KNOWN;
use super::{Docker, image};
use crate::agent::Agent;
use crate::apply::{Error, off_the_loop};

/// Between two looks at what the keeper said.
const LOOK: Duration = Duration::from_secs(1);

impl Agent {
    /// This machine's Docker.
    pub(crate) fn docker(&self) -> Docker {
        Docker::new(&self.layout, &self.containers.lock().socket)
    }

    /// The image that new versions of a site are of, once it is known to be there.
    pub(crate) fn image_of(&self, site: &Site) -> Option<String> {
        let given = site.php.image.clone();
        given.or_else(|| self.containers.lock().images.get(&site.php.version).cloned())
    }

    /// Whether some site is in containers, or was.
    pub(crate) fn uses_docker(&self) -> bool {
        let state = self.state.lock();
        let asks = state
            .config
            .iter()
            .flat_map(|config| &config.sites)
            .any(|site| site.php.runtime == Runtime::Docker);
        asks || state.sites.values().any(|facts| {
            facts
                .serving
                .iter()
                .chain(facts.parked.iter().map(|parked| &parked.version))
                .any(|version| version.image.is_some())
        })
    }

    /// Builds the image of a PHP version, and knows then that it is there.
    pub(crate) async fn build_image(&self, version: &str) -> Result<(), Error> {
        if !self.users.are_separate() {
            return Err(Error::Refused(
                "only root can put sites into containers; `runtime = \"process\"` is what works"
                    .into(),
            ));
        }
        let (docker, wanted) = (self.docker(), version.to_owned());
        crate::files::folder(&self.layout.engine("docker"), 0o700, None)?;
        let tag = off_the_loop(move || {
            let image = image::of(&wanted)?;
            docker.build(&image)?;
            Ok::<_, Error>(image.tag)
        })
        .await?;
        self.containers.lock().images.insert(version.to_owned(), tag);
        Ok(())
    }

    /// Ends containers whose client is gone, and notices when other packages were installed.
    pub(crate) async fn watch_containers(self: Arc<Self>, shutdown: Shutdown) {
        let (mut seen, mut installed) = (None, None);
        while !shutdown.is_requested() {
            if self.uses_docker() {
                let now = std::fs::metadata(KNOWN).and_then(|it| it.modified()).ok();
                if installed.replace(now).is_some_and(|before| before != now) {
                    // The next decision has them looked at again.
                    self.containers.lock().images.clear();
                }
                let clients = self.clients();
                if seen.as_ref() != Some(&clients) {
                    let looked = async {
                        self.end_leftovers().await?;
                        self.prune_images().await
                    };
                    match looked.await {
                        Ok(()) => seen = Some(clients),
                        Err(error) => tracing::warn!(%error, "cannot look for containers"),
                    }
                }
            }
            tokio::select! {
                () = shutdown.requested() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Deletes the images of former packages.
    async fn prune_images(&self) -> Result<(), Error> {
        let mut wanted: BTreeSet<String> =
            self.containers.lock().images.values().cloned().collect();
        if wanted.is_empty() {
            // Which are the current ones is not known yet.
            return Ok(());
        }
        let facts = self.state.lock().sites.values().cloned().collect::<Vec<_>>();
        let versions = facts.iter().flat_map(|facts| {
            facts.serving.iter().chain(facts.parked.iter().map(|parked| &parked.version))
        });
        wanted.extend(versions.filter_map(|version| version.image.clone()));
        let docker = self.docker();
        off_the_loop(move || docker.prune(&wanted).map_err(Error::from)).await
    }

    /// Names and process ids of Docker's clients, and when they ended.
    fn clients(&self) -> Vec<(String, Option<i32>, u64)> {
        let state = self.state.lock();
        let clients = state.processes.iter().filter(|it| it.spec.program.ends_with("docker"));
        clients.map(|it| (it.spec.name.clone(), it.pid, it.starts)).collect()
    }

    /// Ends the containers that nobody holds.
    pub(crate) async fn end_leftovers(&self) -> Result<(), Error> {
        if !self.uses_docker() {
            return Ok(());
        }
        let docker = self.docker();
        let found = off_the_loop({
            let docker = docker.clone();
            move || docker.containers().map_err(Error::from)
        })
        .await?;
        if found.is_empty() {
            return Ok(());
        }
        self.look_at_processes().await?;
        let held = self.clients();
        let is_held =
            |process: &str| held.iter().any(|(name, pid, _)| name == process && pid.is_some());
        for container in found.into_iter().filter(|it| !is_held(&it.process)) {
            tracing::warn!(process = %container.process, "its container outlived its client: ending it");
            let docker = docker.clone();
            off_the_loop(move || docker.remove(&container.id).map_err(Error::from)).await?;
        }
        Ok(())
    }
}
