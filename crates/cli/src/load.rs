//! What `pressroom.toml` says, or a failure with everything that is wrong with it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_api::failure::Failure;
use pressroom_model::config::Config;
use pressroom_model::file::{self, Fault};
use pressroom_model::id::NodeName;

use crate::commands::Context;
use crate::edit::Edit;

/// The text of the file; empty if there is none.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::yours(format!("cannot read `{}`", path.display())).cause(error)),
    }
}

/// What the file means. There must be one.
pub(crate) fn config(context: &Context<'_>) -> Result<Config, Failure> {
    let path = &context.place.config;
    if let Some(node) = without_file(context)? {
        return Err(elsewhere(path, &node));
    }
    if !path.exists() {
        return Err(Failure::yours(format!("there is no configuration at `{}`", path.display()))
            .hint(format!(
                "`{}` makes one, or name yours with `--config FILE`",
                context.command("up")
            )));
    }
    meaning(context, &text(path)?)
}

/// The text of the file, for a change of it. On a node of a cluster it must have all sites that the cluster has, because those that are not
/// in it would be served no more: a node that joined has no file and must not begin one, and a copy may be of an earlier time.
pub(crate) fn to_change(context: &Context<'_>) -> Result<String, Failure> {
    let path = &context.place.config;
    if let Some(node) = without_file(context)? {
        return Err(elsewhere(path, &node));
    }
    let text = text(path)?;
    if context.machine.membership(&context.place)?.is_some()
        && context.machine.keeper(&context.place).is_some()
    {
        let there = Edit::of(&text)?.sites();
        // Of what was removed a moment ago this node may hear a moment late.
        let mut left = 6;
        while let Err(failure) = is_whole(path, &there, &applied(context)?) {
            left -= 1;
            if left == 0 {
                return Err(failure);
            }
            context.rest(Duration::from_millis(500));
        }
    }
    Ok(text)
}

/// What is applied, whatever the file says.
pub(crate) fn applied(context: &Context<'_>) -> Result<Config, Failure> {
    context.ask(context.client.applied())?.ok_or_else(|| {
        Failure::yours("nothing is applied yet").hint(format!(
            "`{}` makes a first site, `{}` applies a file",
            context.command("up"),
            context.command("apply")
        ))
    })
}

fn is_whole(path: &Path, there: &[String], applied: &Config) -> Result<(), Failure> {
    let lacking: Vec<String> = applied
        .sites
        .iter()
        .filter(|site| there.iter().all(|name| name != site.name.as_str()))
        .map(|site| format!("`{}`", site.name))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Failure::yours(format!("`{}` does not have all sites of the cluster", path.display()))
        .cause(format!("it lacks {}", lacking.join(", ")))
        .state("nothing was changed")
        .hint(
            "if it is an old copy, replace it by what `pressroom config show --applied` prints; \
             if they are to be served no more, `pressroom apply` it first",
        ))
}

/// The node that this machine is, if it has no file because the cluster's is on another one. An empty one is what a redirection leaves
/// behind that went wrong: it is none.
pub(crate) fn without_file(context: &Context<'_>) -> Result<Option<NodeName>, Failure> {
    match text(&context.place.config)?.trim().is_empty() {
        true => context.machine.membership(&context.place),
        false => Ok(None),
    }
}

fn elsewhere(path: &Path, node: &NodeName) -> Failure {
    Failure::yours(format!("there is no configuration at `{}`", path.display()))
        .cause(format!(
            "this machine is node `{node}`, and the configuration of its cluster is on another one"
        ))
        .state("nothing was changed")
        .hint(
            "type it on the node that has `pressroom.toml`, or copy that file here first; \
             if that node is lost, `pressroom config show --applied` prints what a file must say",
        )
}

/// What a text means.
pub(crate) fn meaning(context: &Context<'_>, text: &str) -> Result<Config, Failure> {
    let path = &context.place.config;
    let config = file::parse(text, &context.machine.facts(&context.place))
        .map_err(|faults| faulty(path, &faults))?;
    if config.node.data != context.place.data {
        let (file, here) = (config.node.data.display(), context.place.data.display());
        return Err(Failure::yours(format!(
            "`{}` is for the data directory `{file}`, not `{here}`",
            path.display()
        ))
        .hint("remove `data` from `[node]`, or leave `--data` out and give `--config FILE`"));
    }
    Ok(config)
}

fn faulty(path: &Path, faults: &[Fault]) -> Failure {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let lines: Vec<_> = faults.iter().map(|fault| format!("{name}:{fault}")).collect();
    let count =
        if faults.len() == 1 { "a fault".to_owned() } else { format!("{} faults", faults.len()) };
    Failure::yours(format!("`{}` has {count}", path.display()))
        .cause(lines.join("\n"))
        .state("nothing was changed")
        .hint("`pressroom config reference` explains every key")
}

/// Replaces the file if the text is another.
pub(crate) fn write_if_changed(path: &Path, new: &str) -> Result<(), Failure> {
    if text(path)? == new { Ok(()) } else { write(path, new) }
}

/// Replaces the file, whole or not at all; its permissions stay.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::yours(format!("cannot write `{}`", path.display()))
            .cause(error)
            .state("the file is as it was")
    };
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut name = real.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new: PathBuf = folder.join(name);
    let replace = || {
        std::fs::write(&new, text)?;
        if let Ok(there) = std::fs::metadata(&real) {
            std::fs::set_permissions(&new, there.permissions())?;
        }
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &real)
    };
    replace().map_err(|error| {
        let _already_gone = std::fs::remove_file(&new);
        failed(error)
    })
}
