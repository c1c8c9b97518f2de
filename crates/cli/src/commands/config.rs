//! `pressroom config`: check, show, reference; and other programs' configuration files: render, watch, examples.

use std::path::Path;
use std::time::Duration;

use pressroom_api::failure::Failure;
use pressroom_model::file;
use pressroom_model::template::{Standing, State};

use super::{Context, Done};
use crate::args::{Config, templates as args};
use crate::load;
use crate::machine::{Backend, Templates};

pub(super) fn run(context: &Context<'_>, verb: &Config) -> Done {
    match verb {
        Config::Check => {
            let config = load::config(context)?;
            let sites = if config.sites.len() == 1 {
                "1 site".to_owned()
            } else {
                format!("{} sites", config.sites.len())
            };
            context.talk.say(format!("`{}` is good: {sites}.", context.place.config.display()));
        }
        Config::Show(show) => {
            let config = match show.applied {
                true => load::applied(context)?,
                false => load::config(context)?,
            };
            match show.json.json {
                true => context.talk.json(&config),
                false => context.talk.data(file::show(&config)),
            }
        }
        Config::Reference => context.talk.data(file::reference()),
        Config::Render(templates) => return render(context, templates),
        Config::Watch(watch) => {
            let interval = Duration::from_secs(watch.interval);
            context.machine.watch_templates(&context.place, &wish(&watch.templates)?, interval)?;
        }
        Config::Examples(args::Examples { program: Some(program), to: Some(to) }) => {
            copy_examples(context, program, to)?;
        }
        Config::Examples(_) => list_examples(context),
    }
    Ok(0)
}

/// A file that is not as it should be is a mistake of the templates' author's, or of a command.
fn render(context: &Context<'_>, templates: &args::Templates) -> Done {
    let all = context.machine.render(&context.place, &wish(templates)?)?;
    if templates.json {
        context.talk.json(&all);
    } else if all.is_empty() {
        let folder = templates.confdir.join("conf.d");
        context.talk.say(format!("There is no resource in `{}`.", folder.display()));
    } else {
        let lines: Vec<String> = all.iter().map(template_line).collect();
        context.talk.data(lines.join("\n"));
    }
    let is_good = |state: &State| !matches!(state.standing, Standing::Failed | Standing::Unread);
    Ok(u8::from(!all.iter().all(is_good)))
}

/// How one file stands, on a line; also what `status` shows.
pub(super) fn template_line(state: &State) -> String {
    let away = if state.is_heard { "" } else { "; the store does not answer, so it stays" };
    let standing = state.standing.to_string();
    format!("  {:<16} {standing:<11} {}  {}{away}", state.name, state.dest.display(), state.because)
}

fn wish(templates: &args::Templates) -> Result<Templates, Failure> {
    Ok(Templates {
        folder: templates.confdir.clone(),
        backend: backend(templates)?,
        prefix: templates.prefix.clone(),
        noop: templates.noop,
        sync_only: templates.sync_only,
        keep_stage: templates.keep_stage_file,
    })
}

/// What was named; else what the other options are for.
fn backend(templates: &args::Templates) -> Result<Backend, Failure> {
    let implied = match (templates.file.is_empty(), templates.node.is_empty()) {
        (false, true) => "file",
        (true, false) => "etcd",
        _ => "pressroom",
    };
    match templates.backend.as_deref().unwrap_or(implied) {
        "env" => Ok(Backend::Environment),
        "file" if templates.file.is_empty() => {
            Err(Failure::yours("the backend `file` needs a file").hint("name it: `--file PATH`"))
        }
        "file" => Ok(Backend::Files(templates.file.clone())),
        "etcd" => {
            let endpoints = match templates.node.as_slice() {
                [] => vec!["http://127.0.0.1:2379".to_owned()],
                named => named.iter().map(|node| endpoint(node)).collect(),
            };
            if templates.client_ca_keys.is_none()
                && let Some(secret) = endpoints.iter().find(|one| one.starts_with("https:"))
            {
                let what = format!(
                    "`{secret}` speaks TLS, and no authority is named that its certificate is of"
                );
                return Err(Failure::yours(what).hint("name its file: `--client-ca-keys FILE`"));
            }
            Ok(Backend::Etcd {
                endpoints,
                authority: templates.client_ca_keys.clone(),
                identity: templates.client_cert.clone().zip(templates.client_key.clone()),
            })
        }
        _ => Ok(Backend::Pressroom),
    }
}

/// confd takes addresses without a scheme.
fn endpoint(node: &str) -> String {
    if node.contains("://") { node.to_owned() } else { format!("http://{node}") }
}

fn list_examples(context: &Context<'_>) {
    let all = context.machine.example_templates();
    let lines: Vec<String> = all.iter().map(|(path, _)| path.display().to_string()).collect();
    context.talk.data(lines.join("\n"));
    context.talk.say("Copy those of one program: `pressroom config examples PROGRAM --to DIR`.");
}

fn copy_examples(context: &Context<'_>, program: &str, to: &Path) -> Result<(), Failure> {
    let all = context.machine.example_templates();
    let wanted: Vec<_> = all
        .iter()
        .filter_map(|(path, contents)| Some((path.strip_prefix(program).ok()?, contents)))
        .collect();
    if wanted.is_empty() {
        return Err(Failure::yours(format!("there are no templates for `{program}`"))
            .hint("`pressroom config examples` lists them"));
    }
    for (path, contents) in wanted {
        let path = to.join(path);
        let failed =
            |error| Failure::ours(format!("`{}` cannot be written", path.display())).cause(error);
        if path.exists() {
            context.talk.say(format!("`{}` is there, and stays as it is.", path.display()));
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(&path, contents).map_err(failed)?;
        context.talk.data(path.display());
    }
    context.talk.say(format!(
        "Edit them, then try: `pressroom config render --confdir {} --noop`.",
        to.display()
    ));
    Ok(())
}
