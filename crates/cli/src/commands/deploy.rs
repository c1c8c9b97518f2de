//! `pressroom deploy SITE [SOURCE]`: brings code to a site.

use std::path::PathBuf;

use pressroom_api::failure::Failure;
use pressroom_api::release::{Code, Deployment, Moved};
use pressroom_model::config::Source;
use pressroom_model::id::SiteName;
use pressroom_model::rollout::{Record, Standing};

use super::release::{self, short};
use super::{Context, Done};
use crate::args::Deploy;

pub(super) fn run(context: &Context<'_>, arguments: &Deploy) -> Done {
    let (site, code) = (&arguments.site, code(arguments)?);
    if arguments.dry_run {
        let diff = context.ask(context.client.compare(site, &code))?;
        return release::show_diff(context, &diff, arguments.json);
    }
    let from = serving(context, site)?;
    let deployment = Deployment {
        code,
        author: author(),
        message: arguments.message.clone().unwrap_or_default(),
    };
    context.ask(context.client.deploy(site, &deployment, &context.talk.progress()))?;
    moved(context, site, from, arguments.json)
}

/// Says which release serves now.
pub(super) fn moved(
    context: &Context<'_>,
    site: &SiteName,
    from: Option<Record>,
    json: bool,
) -> Done {
    let Some(now) = serving(context, site)? else {
        return Err(Failure::ours(format!("`{site}` serves no release")));
    };
    if json {
        let from = from.map(|record| record.id);
        context.talk.json(&Moved { release: now.id, from });
        return Ok(0);
    }
    context.talk.data(format!("{site} serves release {}  {}", short(&now.id), now.message));
    if from.is_some_and(|from| from.id != now.id) {
        let back = context.command(&format!("release rollback {site}"));
        context.talk.say(format!("next:\n  {back}  go back at once"));
    }
    Ok(0)
}

/// The release that serves a site.
pub(super) fn serving(context: &Context<'_>, site: &SiteName) -> Result<Option<Record>, Failure> {
    let records = context.ask(context.client.releases(site))?;
    Ok(records.into_iter().find(|record| record.standing == Standing::Serving))
}

/// What is brought. The agent does not know where we are: paths are made whole here.
fn code(arguments: &Deploy) -> Result<Code, Failure> {
    let Some(source) = &arguments.source else { return Ok(Code::Configured) };
    if let Some(version) = source.to_str().and_then(|text| text.strip_prefix("wordpress:"))
        && !source.exists()
    {
        let published = Source::published(version).map_err(|why| {
            Failure::yours(format!("`{version}` cannot be deployed"))
                .cause(why)
                .state("nothing was changed")
        });
        return published.map(Code::Source);
    }
    let whole = |path: &PathBuf| {
        path.canonicalize().map_err(|error| {
            Failure::yours(format!("`{}` cannot be deployed", path.display()))
                .cause(error)
                .state("nothing was changed")
        })
    };
    let path = whole(source)?;
    if path.is_dir() {
        return match arguments.sha256 {
            None => Ok(Code::Folder(path)),
            Some(_) => Err(Failure::yours("a folder has no SHA-256")
                .state("nothing was changed")
                .hint("leave `--sha256` out, or give an archive")),
        };
    }
    Ok(Code::Archive { path, sha256: arguments.sha256.clone() })
}

/// Who types, for the list of releases.
pub(super) fn author() -> String {
    let name = |variable| std::env::var(variable).ok().filter(|name: &String| !name.is_empty());
    name("SUDO_USER").or_else(|| name("USER")).unwrap_or_else(|| "operator".to_owned())
}
