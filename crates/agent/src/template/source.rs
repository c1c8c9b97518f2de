//! Where values come from: a store, the environment, or files; and how their changes are heard.
//!
//! A store is listed, then watched from that very revision, so no change is missed between the two. A watch that is lost is
//! begun with a listing again, which shows whatever happened meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::tasks::Group;
use pressroom_store::key::Prefix;
use pressroom_store::watch::{Changes, Watch};
use pressroom_store::{Store, StoreError};
use tokio::sync::mpsc;

use super::confdir::walk;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Transactions that may wait for the renderer.
const QUEUE: usize = 256;

/// Where values come from.
#[derive(Clone)]
pub enum Source {
    /// A store; its keys are those of templates without the slash in front.
    Store(Arc<dyn Store>),
    /// Variables: `NGINX_DOMAIN` is `/nginx/domain`.
    Environment(Arc<BTreeMap<String, String>>),
    /// YAML or JSON files, or folders of them.
    Files(Vec<PathBuf>),
}

/// Why a source does not answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A place that no store can have.
    #[error("{0}")]
    Place(#[from] pressroom_store::key::BadKey),
    /// A file.
    #[error("{path}: {what}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Values by key of the source, without a slash in front.
pub type Values = BTreeMap<String, String>;

/// How changes are heard.
pub enum Feed {
    /// There are none.
    Still,
    /// From a store.
    Store(mpsc::Receiver<Result<Changes, StoreError>>),
    /// From files, which are read again and again; with what they said last.
    Files(Vec<PathBuf>, Vec<String>, Values),
}

/// What was heard.
#[derive(Debug)]
pub enum News {
    /// These keys changed; `None`: it is gone.
    Changed(Vec<(String, Option<String>)>),
    /// The source was lost: open it again.
    Lost(SourceError),
}

impl Source {
    /// What there is under these places.
    pub async fn read(&self, places: &[String]) -> Result<Values, SourceError> {
        match self {
            Self::Store(store) => {
                let mut values = Values::new();
                for place in places {
                    let listing = store.list(&place.parse()?).await?;
                    values.extend(listing.entries.iter().map(pair));
                }
                Ok(values)
            }
            Self::Environment(variables) => Ok(variables_under(variables, places)),
            Self::Files(paths) => {
                let (paths, places) = (paths.clone(), places.to_vec());
                blocking(move || read_files(&paths, &places)).await
            }
        }
    }

    /// The same, and every change from then on; watches are tasks of `tasks`.
    pub async fn open(
        &self,
        places: &[String],
        tasks: &Group,
    ) -> Result<(Values, Feed), SourceError> {
        let store = match self {
            Self::Store(store) => store,
            Self::Environment(_) => return Ok((self.read(places).await?, Feed::Still)),
            Self::Files(paths) => {
                let values = self.read(places).await?;
                return Ok((values.clone(), Feed::Files(paths.clone(), places.to_vec(), values)));
            }
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut values = Values::new();
        for place in places {
            let prefix: Prefix = place.parse()?;
            let listing = store.list(&prefix).await?;
            let watch = store.watch(&prefix, listing.revision).await?;
            values.extend(listing.entries.iter().map(pair));
            let sender = sender.clone();
            tasks.spawn("template watch", move |stop| async move {
                tokio::select! {
                    () = stop.requested() => {}
                    () = sender.closed() => {}
                    () = hand_on(watch, &sender) => {}
                }
            });
        }
        Ok((values, if places.is_empty() { Feed::Still } else { Feed::Store(receiver) }))
    }
}

/// Hands changes on until the watch is lost.
async fn hand_on(mut watch: Watch, to: &mpsc::Sender<Result<Changes, StoreError>>) {
    loop {
        let news = watch.next().await;
        let is_over = news.is_err();
        if to.send(news).await.is_err() || is_over {
            return;
        }
    }
}

impl Feed {
    /// The next news. Cancel-safe.
    pub async fn next(&mut self) -> News {
        match self {
            Self::Still => std::future::pending().await,
            Self::Store(receiver) => match receiver.recv().await {
                Some(Ok(changes)) => {
                    let news = changes.changes.into_iter().map(|change| {
                        let value = change.now.map(|entry| text(&entry.value));
                        (change.key.as_str().to_owned(), value)
                    });
                    News::Changed(news.collect())
                }
                Some(Err(error)) => News::Lost(error.into()),
                None => News::Lost(StoreError::Closed.into()),
            },
            Self::Files(paths, places, last) => loop {
                tokio::time::sleep(LOOK).await;
                let (paths, places) = (paths.clone(), places.clone());
                match blocking(move || read_files(&paths, &places)).await {
                    Ok(now) if now == *last => {}
                    Ok(now) => {
                        let gone = last.keys().filter(|key| !now.contains_key(*key));
                        let mut news: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
                        let fresh = now.iter().filter(|(key, value)| last.get(*key) != Some(value));
                        news.extend(fresh.map(|(key, value)| (key.clone(), Some(value.clone()))));
                        *last = now;
                        return News::Changed(news);
                    }
                    Err(error) => return News::Lost(error),
                }
            },
        }
    }
}

fn pair(entry: &pressroom_store::entry::Entry) -> (String, String) {
    (entry.key.as_str().to_owned(), text(&entry.value))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let closed = |_| SourceError::Store(StoreError::Closed);
    tokio::task::spawn_blocking(work).await.map_err(closed)?
}

/// Variables whose name begins as the place does, as confd has it.
fn variables_under(variables: &BTreeMap<String, String>, places: &[String]) -> Values {
    let wanted: Vec<String> =
        places.iter().map(|place| place.replace('/', "_").to_uppercase()).collect();
    variables
        .iter()
        .filter(|(name, _)| wanted.iter().any(|wanted| name.starts_with(wanted.as_str())))
        .map(|(name, value)| (name.to_lowercase().replace('_', "/"), value.clone()))
        // A name may have nothing where a key must have something.
        .filter(|(key, _)| key.split('/').all(|part| !part.is_empty()))
        .collect()
}

/// The largest file that is read.
const MOST: u64 = 16 * 1024 * 1024;

fn read_files(paths: &[PathBuf], places: &[String]) -> Result<Values, SourceError> {
    let mut values = Values::new();
    for path in paths {
        let fault = |path: &PathBuf, what: &dyn std::fmt::Display| SourceError::File {
            path: path.clone(),
            what: what.to_string(),
        };
        let about = std::fs::metadata(path).map_err(|error| fault(path, &error))?;
        let mut files = Vec::new();
        if about.is_dir() {
            walk(path, 16, &mut |file, _| files.push(file.to_owned()))
                .map_err(|error| fault(path, &error))?;
            files.sort();
        } else {
            files.push(path.clone());
        }
        for file in files {
            let length = std::fs::metadata(&file).map(|about| about.len()).unwrap_or(0);
            if length > MOST {
                return Err(fault(&file, &format!("larger than {MOST} bytes")));
            }
            let text = std::fs::read_to_string(&file).map_err(|error| fault(&file, &error))?;
            // JSON is YAML.
            let tree: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| {
                fault(&file, &error.to_string().lines().next().unwrap_or("no YAML"))
            })?;
            flatten(&tree, String::new(), &mut values);
        }
    }
    values.retain(|key, _| places.iter().any(|place| key.starts_with(place.as_str())));
    Ok(values)
}

/// `{a: {b: 1}, c: [x]}` is `a/b` and `c/0`.
fn flatten(tree: &serde_json::Value, key: String, values: &mut Values) {
    let below = |name: &str| {
        let name = name.trim_matches('/');
        if key.is_empty() { name.to_owned() } else { format!("{key}/{name}") }
    };
    match tree {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(name, tree)| flatten(tree, below(name), values));
        }
        serde_json::Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(at, tree)| flatten(tree, below(&at.to_string()), values));
        }
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => {
            values.insert(key, text.clone());
        }
        other => {
            values.insert(key, other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_keys() {
        let variables: BTreeMap<String, String> =
            [("NGINX_DOMAIN", "a"), ("NGINXY", "b"), ("HOME", "c"), ("NGINX__X", "d")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let found = variables_under(&variables, &["nginx".into()]);
        let found: Vec<_> =
            found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("nginx/domain", "a"), ("nginxy", "b")]);
    }

    #[test]
    fn files_are_trees_of_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("values.yaml");
        std::fs::write(&path, "nginx:\n  domain: example.com\n  workers: 2\n  on: true\n  ratio: 0.5\n  hosts: [a, b]\n  none: null\nother: x\n").expect("written");
        std::fs::write(folder.path().join("z.json"), r#"{"nginx": {"workers": 3}}"#)
            .expect("written");
        let found = read_files(&[folder.path().to_owned()], &["nginx".into()]).expect("read");
        let found: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            found.join(" "),
            "nginx/domain=example.com nginx/hosts/0=a nginx/hosts/1=b nginx/on=true nginx/ratio=0.5 nginx/workers=3"
        );
        std::fs::write(&path, "a: [").expect("written");
        let error = read_files(&[path], &[String::new()]).expect_err("bad").to_string();
        assert!(error.contains("values.yaml: "), "{error}");
    }
}
