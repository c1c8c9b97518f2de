//! Where the data directory, the configuration and the sockets of one Pressroom are.

use std::path::{Component, Path, PathBuf};

use pressroom_api::failure::Failure;

use crate::args::PlaceArguments;

/// Longest path of a data directory: the kernel takes 107 bytes for a socket's path, and the sockets are below it.
const LONGEST: usize = 70;

/// One Pressroom on this machine: everything else follows from its data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The data directory: absolute, and short enough for the sockets in it.
    pub data: PathBuf,
    /// The configuration file: absolute; by default `pressroom.toml` in the data directory.
    pub config: PathBuf,
}

impl Place {
    /// The socket of the operator API.
    pub fn agent_socket(&self) -> PathBuf {
        self.data.join("run/agent.sock")
    }

    /// The socket of the keeper.
    pub fn keeper_socket(&self) -> PathBuf {
        self.data.join("run/keeper.sock")
    }

    /// The folder with the output of every process: `NAME.log`, and `NAME.log.1` before it.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The logs of a site's PHP.
    pub fn site_logs(&self, site: &str) -> PathBuf {
        self.data.join("sites").join(site).join("logs")
    }

    /// The folder that relative paths in the configuration start from.
    pub fn folder(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }
}

/// A variable of this process's environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Which place the arguments mean: `--data`; else what the file given by `--config` says; else the default.
pub(crate) fn find(
    arguments: &PlaceArguments,
    is_root: bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Place, Failure> {
    let config = arguments.config.as_deref().map(absolute).transpose()?;
    let data = match (&arguments.data, &config) {
        (Some(data), _) => absolute(data)?,
        (None, Some(config)) => match named_in(config) {
            Some(data) => absolute(Path::new(&data))?,
            None => absolute(&default(is_root, environment)?)?,
        },
        (None, None) => absolute(&default(is_root, environment)?)?,
    };
    if data.as_os_str().len() > LONGEST {
        return Err(Failure::yours(format!(
            "the data directory's path is too long: `{}`",
            data.display()
        ))
        .cause(format!(
            "it has {} bytes; unix sockets below it allow {LONGEST}",
            data.as_os_str().len()
        ))
        .hint("choose a shorter one with `--data DIR`, or point a short symbolic link to it"));
    }
    let config = config.unwrap_or_else(|| data.join("pressroom.toml"));
    Ok(Place { data, config })
}

/// `[node] data` of a configuration, if it can be read; what is wrong with it is said when it is loaded.
fn named_in(config: &Path) -> Option<String> {
    let document: toml_edit::DocumentMut = std::fs::read_to_string(config).ok()?.parse().ok()?;
    Some(document.get("node")?.get("data")?.as_str()?.to_owned())
}

fn default(
    is_root: bool,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<PathBuf, Failure> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/pressroom"));
    }
    let shared = environment("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = || environment("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = shared.or_else(own).ok_or_else(|| {
        Failure::yours("there is no place for the data")
            .cause("HOME is not set")
            .hint("name one with `--data DIR`")
    })?;
    Ok(base.join("pressroom"))
}

/// The path from the root, without `.` and `..`. Symbolic links stay: a short one may be there for the sockets.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let full = std::path::absolute(path)
        .map_err(|error| Failure::yours(format!("`{}` is no path", path.display())).cause(error))?;
    let mut clean = PathBuf::new();
    for part in full.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(
        data: Option<&str>,
        is_root: bool,
        variables: &[(&str, &str)],
    ) -> Result<String, Failure> {
        let arguments = PlaceArguments { data: data.map(PathBuf::from), config: None };
        let environment =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        find(&arguments, is_root, &environment).map(|place| place.data.display().to_string())
    }

    #[test]
    fn the_data_directory_follows_the_user() {
        assert_eq!(data(None, true, &[("HOME", "/root")]).as_deref(), Ok("/var/lib/pressroom"));
        assert_eq!(
            data(None, false, &[("HOME", "/home/eve")]).as_deref(),
            Ok("/home/eve/.local/share/pressroom")
        );
        let variables = [("HOME", "/home/eve"), ("XDG_DATA_HOME", "/x")];
        assert_eq!(data(None, false, &variables).as_deref(), Ok("/x/pressroom"));
        assert_eq!(data(Some("/a/./b/../c/"), false, &variables).as_deref(), Ok("/a/c"));
        assert_eq!(data(None, false, &[]).expect_err("nowhere").exit_status(), 1);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_before_anything_is_done() {
        assert!(data(Some(&format!("/{}", "a".repeat(69))), true, &[]).is_ok());
        let failure = data(Some(&format!("/{}", "a".repeat(70))), true, &[]).expect_err("too long");
        assert!(failure.cause.expect("said").contains("71 bytes"));
    }
}
