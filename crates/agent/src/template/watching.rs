//! Every resource of a folder, for as long as somebody wants: each is rendered when its values change, and again after a
//! while when something failed. Resources and templates may be edited meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::template::{Resource, Standing, State};
use pressroom_plan::template as plan;
use pressroom_render::confd::{Pairs, Surroundings};
use pressroom_runtime::backoff::{Backoff, roll};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::{self, Shutdown};
use pressroom_runtime::tasks::Group;

use super::Board;
use super::confdir::{self, Loaded};
use super::hand::{self, Done, Options};
use super::source::{Feed, News, Source, Values};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a resource may take to stop: longer than a command of the operator's may.
const GRACE: Duration = Duration::from_secs(65);
/// A source that cannot be reached is asked again after this, and later and later.
const AWAY_FIRST: Duration = Duration::from_millis(200);
const AWAY_MOST: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Clone)]
pub struct Watching {
    /// confd's folder.
    pub folder: PathBuf,
    /// Counts instead of the resources' own prefixes.
    pub prefix: Option<String>,
    /// Where values come from.
    pub source: Source,
    /// What is not to be done.
    pub options: Options,
    /// Everything is read anew so often, whatever was heard.
    pub interval: Duration,
    /// What templates may ask.
    pub around: Arc<dyn Surroundings>,
    /// Where it is put up how the files stand.
    pub board: Board,
}

impl Watching {
    /// Brings every file to what it should be, once. The answers are in the order of names.
    pub async fn once(&self) -> std::io::Result<Vec<(String, Done)>> {
        let mut all = Vec::new();
        for loaded in confdir::load(&self.folder, self.prefix.as_deref())? {
            let done = match &loaded.resource {
                Err(faults) => failed(faults.clone()),
                Ok(resource) => match self.source.read(&resource.places()).await {
                    Err(error) => failed(format!("no values: {error}; the file stays as it is")),
                    Ok(values) => self.apply(&loaded, &pairs(resource, &values)).await,
                },
            };
            self.put_up(&loaded, &done, true);
            all.push((loaded.name, done));
        }
        Ok(all)
    }

    /// Keeps every file as it should be until shutdown.
    pub async fn keep(self, stop: Shutdown) {
        let mut told = String::new();
        while !stop.is_requested() {
            let signature = confdir::signature(&self.folder).ok();
            let (trigger, inner) = shutdown::pair();
            let group = Group::new("templates", inner);
            match confdir::load(&self.folder, self.prefix.as_deref()) {
                Ok(all) => {
                    told.clear();
                    self.board.retain(&all.iter().map(|one| one.name.clone()).collect::<Vec<_>>());
                    for loaded in all {
                        let (own, tasks) = (self.clone(), group.clone());
                        group.spawn(format!("template {}", loaded.name), move |stop| async move {
                            own.keep_one(loaded, tasks, stop).await;
                        });
                    }
                }
                Err(error) if error.to_string() != told => {
                    told = error.to_string();
                    tracing::error!(%error, "the folder of templates cannot be read");
                    self.board.retain(&[]);
                    self.board.put(folder_fault(&self.folder, &told));
                }
                Err(_) => {}
            }
            self.until_edited(signature, &stop).await;
            trigger.fire("the folder of templates changed");
            group.finish(GRACE).await;
        }
    }

    /// Waits until the folder is another one than it was.
    async fn until_edited(&self, signature: Option<blake3::Hash>, stop: &Shutdown) {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let folder = self.folder.clone();
            let now = tokio::task::spawn_blocking(move || confdir::signature(&folder).ok()).await;
            if now.is_ok_and(|now| now != signature) {
                return;
            }
        }
    }

    async fn keep_one(&self, loaded: Loaded, tasks: Group, stop: Shutdown) {
        let Ok(resource) = loaded.resource.clone() else {
            let faults = loaded.resource.as_ref().err().cloned().unwrap_or_default();
            tracing::error!(resource = loaded.name, faults, "a resource cannot be read");
            self.put_up(&loaded, &failed(faults), false);
            return;
        };
        let places = resource.places();
        let mut away = Backoff::new(AWAY_FIRST, AWAY_MOST);
        while !stop.is_requested() {
            match self.source.open(&places, &tasks).await {
                Ok((values, feed)) => {
                    away.reset();
                    self.follow(&loaded, &resource, values, feed, &stop).await;
                }
                Err(error) => {
                    if away.failures() == 0 {
                        tracing::warn!(resource = loaded.name, %error, "no values; its file stays");
                        self.wait_for_source(&loaded, &error.to_string());
                    }
                    let pause = away.pause(roll());
                    tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(pause) => {} }
                }
            }
        }
    }

    /// Renders now and after every change, until the source is lost or it is time to look at everything again.
    async fn follow(
        &self,
        loaded: &Loaded,
        resource: &Resource,
        mut values: Values,
        mut feed: Feed,
        stop: &Shutdown,
    ) {
        let again = clock::now() + self.interval;
        let mut retry = Backoff::new(plan::RETRY_FIRST, plan::RETRY_MOST);
        loop {
            let done = self.apply(loaded, &pairs(resource, &values)).await;
            let is_done =
                matches!(done.standing, Standing::Current | Standing::Held | Standing::Differs);
            self.tell(loaded, &done);
            self.put_up(loaded, &done, true);
            let pause = if is_done {
                retry.reset();
                Duration::MAX
            } else {
                retry.pause(roll())
            };
            let rest = again.saturating_duration_since(clock::now());
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(pause.min(rest)) => {
                    if clock::now() >= again {
                        return;
                    }
                }
                news = feed.next() => {
                    if !self.take(loaded, news, &mut values) {
                        return;
                    }
                    if !self.settle(loaded, &mut feed, &mut values).await {
                        return;
                    }
                }
            }
        }
    }

    /// Takes news over; `false`: the source was lost.
    fn take(&self, loaded: &Loaded, news: News, values: &mut Values) -> bool {
        match news {
            News::Changed(changes) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => values.insert(key, value),
                        None => values.remove(&key),
                    };
                }
                true
            }
            News::Lost(error) => {
                tracing::warn!(resource = loaded.name, %error, "the source was lost; its file stays");
                self.board.heard(&loaded.name, false);
                false
            }
        }
    }

    /// Waits until the source has been quiet for a moment; `false`: it was lost.
    async fn settle(&self, loaded: &Loaded, feed: &mut Feed, values: &mut Values) -> bool {
        let first = clock::now();
        let mut last = first;
        loop {
            let wait = plan::wait(first.elapsed(), last.elapsed());
            if wait.is_zero() {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                news = feed.next() => {
                    if !self.take(loaded, news, values) {
                        return false;
                    }
                    last = clock::now();
                }
            }
        }
    }

    async fn apply(&self, loaded: &Loaded, pairs: &Arc<Pairs>) -> Done {
        let (loaded, pairs) = (loaded.clone(), Arc::clone(pairs));
        let (options, around) = (self.options, Arc::clone(&self.around));
        let work = move || hand::apply(&loaded, &pairs, options, &around);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| failed(format!("the renderer ended: {error}")))
    }

    /// Logs what is news.
    fn tell(&self, loaded: &Loaded, done: &Done) {
        let because = &done.because;
        let is_news = self.board.all().iter().all(|state| {
            state.name != loaded.name
                || (state.standing, &state.because) != (done.standing, because)
        });
        match done.standing {
            _ if done.is_replaced => tracing::info!(resource = loaded.name, because, "rendered"),
            Standing::Failed | Standing::Unread if is_news => {
                tracing::error!(resource = loaded.name, because, "not as it should be");
            }
            Standing::Held if is_news => {
                tracing::warn!(resource = loaded.name, because, "held");
            }
            _ => {}
        }
    }

    fn put_up(&self, loaded: &Loaded, done: &Done, is_heard: bool) {
        let now = clock::wall_ms();
        self.board.put(State {
            name: loaded.name.clone(),
            dest: dest(loaded),
            standing: done.standing,
            because: done.because.clone(),
            since_ms: now,
            replaced_ms: done.is_replaced.then_some(now),
            is_heard,
        });
    }

    /// A source that was never heard leaves a file that nothing is known of; otherwise its standing stays.
    fn wait_for_source(&self, loaded: &Loaded, because: &str) {
        if self.board.all().iter().any(|state| state.name == loaded.name) {
            self.board.heard(&loaded.name, false);
        } else {
            let because = format!("no values yet: {because}");
            let done = Done { standing: Standing::Waiting, because, is_replaced: false };
            self.put_up(loaded, &done, false);
        }
    }
}

fn failed(because: String) -> Done {
    Done { standing: Standing::Failed, because, is_replaced: false }
}

fn dest(loaded: &Loaded) -> PathBuf {
    loaded.resource.as_ref().map(|resource| resource.dest.clone()).unwrap_or_default()
}

fn folder_fault(folder: &Path, because: &str) -> State {
    State {
        name: folder.display().to_string(),
        dest: PathBuf::new(),
        standing: Standing::Failed,
        because: because.to_owned(),
        since_ms: clock::wall_ms(),
        replaced_ms: None,
        is_heard: false,
    }
}

/// The values as the template sees them.
fn pairs(resource: &Resource, values: &Values) -> Arc<Pairs> {
    let seen: BTreeMap<String, String> =
        values.iter().map(|(key, value)| (resource.key(key), value.clone())).collect();
    Arc::new(seen)
}
