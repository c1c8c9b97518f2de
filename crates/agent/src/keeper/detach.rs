//! Starting a keeper in the background: a grandchild in its own session, with nothing inherited from the shell that asked for it.

use std::collections::BTreeMap;
use std::path::Path;

use pressroom_model::process::{ProcessSpec, Restart, Stop};

use super::launch::{self, Extras, LaunchError, Parent};

/// Why a keeper could not be started in the background.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the keeper: {0}")]
pub struct DetachError(#[from] LaunchError);

/// What of the environment a keeper may want; everything else (agents' sockets, tokens) would stay readable for as long as it lives.
const KEPT: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "RUST_BACKTRACE",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "PRESSROOM_LOG",
];

/// Starts `program` (usually `/proc/self/exe`) with `args` (`keep …`, absolute paths) so that it is
/// nobody's child, in its own session, in `/`, with standard input from `/dev/null` and output appended to `log`. Returns its process id
/// once its program runs; whether the keeper is ready is for its socket to say.
pub fn spawn_detached(program: &Path, args: &[String], log: &Path) -> Result<i32, DetachError> {
    let env: BTreeMap<String, String> = KEPT
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    let spec = ProcessSpec {
        name: "keeper".to_owned(),
        program: std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned()),
        args: args.to_vec(),
        env,
        cwd: None,
        user: None,
        confinement: None,
        listeners: Vec::new(),
        umask: 0o022,
        open_files: None,
        output: log.to_owned(),
        output_limit: u64::MAX,
        stop: Stop::default(),
        restart: Restart::Never,
    };
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let waiting =
        launch::fork(&spec, &Extras { sockets: Vec::new(), open_files, parent: Parent::Nobody })?;
    Ok(waiting.go()?.as_raw_nonzero().get())
}
