//! `run/keeper.json`: what runs, for the next keeper. Replaced by rename on every change.
//!
//! Not synced to disk: it must survive the keeper, not the machine; another boot's file is ignored anyway. A file that cannot be read is
//! moved aside and named in the log. Fields are only ever added, with defaults, so that keepers of two versions can follow each other.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pressroom_model::process::ProcessState;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{listeners, log, proc_stat};

/// Everything a keeper knows that its successor cannot find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) version: u32,
    /// Process ids and start times mean something in this boot only.
    pub(super) boot: String,
    #[serde(default)]
    pub(super) generation: u64,
    #[serde(default)]
    pub(super) processes: Vec<Process>,
    #[serde(default)]
    pub(super) listeners: Vec<listeners::Stored>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Rank of its first start: processes stop in reverse.
    #[serde(default)]
    pub(super) order: u64,
    /// Start time in ticks since boot; with the process id it names one process for ever.
    #[serde(default)]
    pub(super) ticks: u64,
    #[serde(flatten)]
    pub(super) state: ProcessState,
}

/// The version written here.
pub(super) const VERSION: u32 = 1;

/// What a former keeper of this boot wrote, if there was one.
pub(super) fn load(path: &Path) -> Option<Stored> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log::error(
                "cannot read what a former keeper left",
                json!({"path": path.display().to_string(), "because": error.to_string()}),
            );
            return None;
        }
    };
    match serde_json::from_slice::<Stored>(&bytes) {
        Ok(stored) if stored.boot == proc_stat::boot() => Some(stored),
        Ok(_) => {
            log::info(
                "the state file is of another boot",
                json!({"path": path.display().to_string()}),
            );
            None
        }
        Err(error) => {
            let aside = path.with_extension("json.bad");
            let _ = fs::rename(path, &aside);
            log::error(
                "the state file cannot be understood; processes of a former keeper are not adopted",
                json!({"kept": aside.display().to_string(), "because": error.to_string()}),
            );
            None
        }
    }
}

/// Replaces the file.
pub(super) fn save(path: &Path, stored: &Stored) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    let bytes = serde_json::to_vec(stored)?;
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&bytes)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(boot: String) -> Stored {
        Stored {
            version: VERSION,
            boot,
            generation: 7,
            processes: Vec::new(),
            listeners: Vec::new(),
        }
    }

    #[test]
    fn what_was_saved_is_loaded_in_this_boot_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("keeper.json");
        assert_eq!(load(&path), None);
        save(&path, &stored(proc_stat::boot())).expect("saves");
        assert_eq!(load(&path), Some(stored(proc_stat::boot())));
        save(&path, &stored("another".into())).expect("saves");
        assert_eq!(load(&path), None);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_moved_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("keeper.json");
        fs::write(&path, "{\"version\":1,\"boot\":3").expect("write");
        assert_eq!(load(&path), None);
        assert!(!path.exists() && folder.path().join("keeper.json.bad").exists());
    }
}
