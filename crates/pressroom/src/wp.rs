//! wp-cli for a site: which phar, whether it can do what is asked, and how it is run.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pressroom_agent::agent::Agent;
use pressroom_api::failure::Failure;
use pressroom_api::wp::Wish;
use pressroom_model::id::SiteName;
use pressroom_model::process::ProcessSpec;
use pressroom_plan::wp::{GET, OWN, elsewhere};

/// Every phar has this word behind its first part, which is short.
const MARK: &[u8] = b"__HALT_COMPILER";
const FIRST_PART: u64 = 1 << 20;

/// How wp-cli is run for a site.
pub(crate) fn command(
    agent: &Arc<Agent>,
    name: &SiteName,
    wish: &Wish,
) -> Result<ProcessSpec, Failure> {
    if let Some(elsewhere) = elsewhere(&wish.arguments) {
        return Err(Failure::yours(format!("`wp {}` cannot work here", elsewhere.command))
            .cause(elsewhere.because)
            .state("nothing was changed")
            .hint(elsewhere.instead));
    }
    let configured = agent.config().and_then(|config| config.wordpress.wp_cli);
    let named = wish.phar.clone().or(configured);
    let phar = named.or_else(|| wish.found.clone()).ok_or_else(|| {
        Failure::yours("there is no wp-cli on this machine")
            .cause("neither `--phar` nor the key `wp_cli` names one, and no `wp` is in PATH")
            .state(OWN)
            .hint(GET)
    })?;
    let phar = checked(&phar).map_err(|because| {
        Failure::yours(format!("`{}` cannot be run as wp-cli", phar.display()))
            .cause(because)
            .state("nothing was run")
            .hint(GET)
    })?;
    agent.wp_cli(name, &phar, &wish.arguments).map_err(|error| {
        Failure::ours(format!("wp-cli cannot be run for `{name}`"))
            .cause(error)
            .hint("`pressroom status` shows what the site waits for")
    })
}

/// The file itself, if it is a phar that a site's user can read.
fn checked(phar: &Path) -> Result<PathBuf, String> {
    let words = |error: std::io::Error| error.to_string();
    let path = phar.canonicalize().map_err(words)?;
    let file = File::open(&path).map_err(words)?;
    let found = file.metadata().map_err(words)?;
    if !found.is_file() {
        return Err("it is no file".into());
    }
    let mut start = Vec::new();
    file.take(FIRST_PART).read_to_end(&mut start).map_err(words)?;
    if !start.windows(MARK.len()).any(|window| window == MARK) {
        return Err("it is no phar; a script that starts another program would not find that within the site's walls".into());
    }
    if rustix::process::geteuid().is_root() && found.mode() & 0o004 == 0 {
        let path = path.display();
        return Err(format!(
            "sites have users of their own, who may not read it: `chmod a+r {path}`"
        ));
    }
    Ok(path)
}
