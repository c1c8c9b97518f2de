//! `pressroom release`: list, diff, verify, rollback.

use pressroom_api::release::{Diff, Which};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::rollout::{Record, Standing};

use super::{Context, Done, deploy};
use crate::args::Release;
use crate::talk::Ink;

/// So many paths of each kind are shown to people.
const SHOWN: usize = 20;

pub(super) fn run(context: &Context<'_>, verb: Release) -> Done {
    match verb {
        Release::List { site, json } => list(context, &site, json),
        Release::Diff { site, from, to, json } => {
            let which = Which { release: from, with: to, ..Which::default() };
            let diff = context.ask(context.client.diff(&site, &which))?;
            show_diff(context, &diff, json)
        }
        Release::Verify { site, release, json } => verify(context, &site, release, json),
        Release::Rollback { site, release, json } => {
            let from = deploy::serving(context, &site)?;
            let which = Which { release, author: deploy::author(), ..Which::default() };
            context.ask(context.client.rollback(&site, &which, &context.talk.progress()))?;
            deploy::moved(context, &site, from, json)
        }
    }
}

/// What people are shown of a release's id.
pub(super) fn short(id: &ReleaseId) -> &str {
    &id.as_str()[..12]
}

fn list(context: &Context<'_>, site: &SiteName, json: bool) -> Done {
    let records = context.ask(context.client.releases(site))?;
    if json {
        context.talk.json(&records);
        return Ok(0);
    }
    let line = |record: &Record| {
        let standing = match record.standing {
            Standing::Serving => context.talk.ink(Ink::Good, format!("{:<8}", "serving")),
            Standing::Parked => format!("{:<8}", "parked"),
            Standing::Kept => context.talk.ink(Ink::Faint, format!("{:<8}", "kept")),
        };
        format!(
            "{}  {standing}  {}  {:<10} WordPress {:<8} {}",
            short(&record.id),
            pressroom_runtime::clock::rfc3339(record.served_ms),
            record.author,
            record.wordpress,
            record.message
        )
    };
    context.talk.data(records.iter().map(line).collect::<Vec<_>>().join("\n"));
    if records.len() > 1 {
        let back = context.command(&format!("release rollback {site} RELEASE"));
        context.talk.say(format!("next:\n  {back}  go back to one of them"));
    }
    Ok(0)
}

/// Shows which files tell two releases apart.
pub(super) fn show_diff(context: &Context<'_>, diff: &Diff, json: bool) -> Done {
    if json {
        context.talk.json(diff);
        return Ok(0);
    }
    let kinds = [
        ("+", Ink::Good, &diff.added),
        ("~", Ink::Warning, &diff.changed),
        ("-", Ink::Bad, &diff.removed),
    ];
    let mut lines = Vec::new();
    for (mark, ink, paths) in kinds {
        let shown = paths.iter().take(SHOWN);
        lines.extend(shown.map(|path| context.talk.ink(ink, format!("{mark} {path}"))));
        if paths.len() > SHOWN {
            lines.push(format!("{mark} … and {} more (`--json` has all)", paths.len() - SHOWN));
        }
    }
    if lines.is_empty() {
        context.talk.say("The code is the same.");
    } else {
        context.talk.data(lines.join("\n"));
        context.talk.say(format!(
            "{} added, {} changed, {} removed",
            diff.added.len(),
            diff.changed.len(),
            diff.removed.len()
        ));
    }
    Ok(0)
}

fn verify(context: &Context<'_>, site: &SiteName, release: Option<String>, json: bool) -> Done {
    let damage =
        context.ask(context.client.verify(site, &Which { release, ..Which::default() }))?;
    if json {
        context.talk.json(&damage);
    } else if damage.is_empty() {
        context.talk.say("Every file is as its release says.");
    } else {
        let lines: Vec<_> =
            damage.iter().map(|one| format!("{}: {}", one.path, one.what)).collect();
        context.talk.data(lines.join("\n"));
        let mend = context.command(&format!("deploy {site}"));
        context.talk.say(format!("next:\n  {mend}  make the release anew"));
    }
    Ok(if damage.is_empty() { 0 } else { 2 })
}
