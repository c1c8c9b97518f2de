//! `pressroom wp SITE -- …`: the agent says how wp-cli is run, and we run it, because the terminal is ours.

use std::path::PathBuf;

use pressroom_api::failure::Failure;
use pressroom_api::wp::Wish;

use super::{Context, Done};
use crate::args::Wp;

pub(super) fn run(context: &Context<'_>, arguments: Wp) -> Done {
    let Wp { site, env, phar, arguments } = arguments;
    // The agent does not know where we are.
    let phar = phar.map(|path| {
        path.canonicalize().map_err(|error| {
            Failure::yours(format!("`{}` cannot be run as wp-cli", path.display())).cause(error)
        })
    });
    let wish = Wish { environment: env, phar: phar.transpose()?, found: found(), arguments };
    let spec = context.ask(context.client.wp_cli(&site, &wish))?;
    context.machine.enter(&context.place, &spec)
}

/// A `wp` in our `PATH`.
fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).flat_map(|folder| {
        ["wp", "wp-cli", "wp-cli.phar"].into_iter().map(move |name| folder.join(name))
    });
    all.find(|file| file.is_file())
}
