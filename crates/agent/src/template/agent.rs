//! The templates of `[templates]`, kept by the agent for as long as the configuration names a folder.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::config::Templates;
use pressroom_runtime::shutdown::{self, Shutdown};
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;

use super::around::Machine;
use super::hand::Options;
use super::source::Source;
use super::watching::Watching;
use crate::agent::Agent;

/// How often it is looked whether the configuration names another folder.
const LOOK: Duration = Duration::from_millis(500);
/// Everything is read anew so often, whatever was heard.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long commands may take to end.
const GRACE: Duration = Duration::from_secs(8);

impl Agent {
    pub(crate) async fn keep_templates(self: Arc<Self>, stop: Shutdown) {
        while !stop.is_requested() {
            let wanted = self.config().and_then(|config| config.templates);
            let (trigger, inner) = shutdown::pair();
            let group = Group::new("templates", inner);
            if let Some(templates) = self.trusted(wanted.as_ref()) {
                let watching = self.watching(templates);
                group.spawn("templates", move |stop| watching.keep(stop));
            } else {
                self.templates.retain(&[]);
            }
            while !stop.is_requested() && self.config().and_then(|c| c.templates) == wanted {
                tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
            }
            trigger.fire("other templates");
            group.finish(GRACE).await;
        }
    }

    /// The folder, if nobody but root can put commands into it.
    fn trusted<'a>(&self, wanted: Option<&'a Templates>) -> Option<&'a Templates> {
        let templates = wanted?;
        if !self.users.are_separate() {
            self.notice("`[templates]` is for a Pressroom that runs as root; `pressroom config watch` does the same as anybody".to_owned());
            return None;
        }
        if let Some(path) = loose(&templates.confdir) {
            self.notice(format!("`{}` can be written by others than root, so the templates in `{}` are left alone: its commands would run as root", path, templates.confdir.display()));
            return None;
        }
        Some(templates)
    }

    /// Discovery's records are at the root of etcd; a machine alone has them in its own store.
    fn watching(&self, templates: &Templates) -> Watching {
        let store: Arc<dyn Store> = match &self.etcd {
            Some(etcd) => Arc::new(etcd.at("/")),
            None => Arc::clone(&self.store),
        };
        Watching {
            folder: templates.confdir.clone(),
            prefix: templates.prefix.clone(),
            source: Source::Store(store),
            options: Options::default(),
            interval: INTERVAL,
            around: Arc::new(Machine),
            board: self.templates.clone(),
        }
    }
}

/// What of a folder others than root can write: itself, or its two parts.
fn loose(folder: &Path) -> Option<String> {
    [folder.to_owned(), folder.join("conf.d"), folder.join("templates")].into_iter().find_map(
        |path| {
            let about = std::fs::metadata(&path).ok()?;
            let is_loose = about.uid() != 0 || about.mode() & 0o022 != 0;
            is_loose.then(|| path.display().to_string())
        },
    )
}
