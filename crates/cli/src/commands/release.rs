//! `pressroom release`: list, show, diff, verify, rollback.

use pressroom_api::release::{Details, Diff, PartMove, Which};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::rollout::{PartKind, Record, Standing};
use pressroom_runtime::clock;

use super::{Context, Done, deploy};
use crate::args::Release;
use crate::talk::Ink;

/// So many paths of each kind are shown to people.
const SHOWN: usize = 20;

pub(super) fn run(context: &Context<'_>, verb: Release) -> Done {
    match verb {
        Release::List { site, json } => list(context, &site, json),
        Release::Show { site, release, json } => {
            let which = Which { release, ..Which::default() };
            let details = context.ask(context.client.show_release(&site, &which))?;
            show(context, &details, json)
        }
        Release::Diff { site, from, to, json } => {
            let which = Which { release: from, with: to, ..Which::default() };
            let diff = context.ask(context.client.diff(&site, &which))?;
            show_diff(context, &diff, json)
        }
        Release::Verify { site, release, json } => verify(context, &site, release, json),
        Release::Rollback { site, release, tables, json } => {
            let from = deploy::serving(context, &site)?;
            let which = Which { release, author: deploy::author(), tables, ..Which::default() };
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

fn show(context: &Context<'_>, details: &Details, json: bool) -> Done {
    if json {
        context.talk.json(details);
        return Ok(0);
    }
    let record = &details.record;
    let state = match (record.standing, details.parked_until_ms) {
        (Standing::Serving, _) => context.talk.ink(Ink::Good, "serving"),
        (Standing::Parked, Some(until)) => {
            format!("parked until {}: going back to it is instant", clock::rfc3339(until))
        }
        _ if details.is_collected_next => "kept; the next release takes its place".to_owned(),
        _ => "kept".to_owned(),
    };
    let mut lines = vec![
        record.id.to_string(),
        entry("state", &state),
        entry("since", &clock::rfc3339(record.served_ms)),
        entry("source", &record.source),
        entry("author", &record.author),
        entry("message", &record.message),
        entry("files", &format!("{} ({})", record.files, size(record.bytes))),
    ];
    lines.extend(details.commit.iter().map(|commit| entry("commit", commit)));
    lines.extend(details.back_by.iter().map(|who| entry("gone back by", who)));
    for part in &details.parts {
        let version = if part.version.is_empty() { "without a version" } else { &part.version };
        let text = format!("{} {version}", part.title);
        let text = match part.kind {
            PartKind::Core => text,
            _ => format!("{text}  ({})", part.name),
        };
        lines.push(entry(word(part.kind), &text));
    }
    if let Some(before) = &details.predecessor {
        let diff = &details.diff;
        let [added, changed, removed] =
            [&diff.added, &diff.changed, &diff.removed].map(|paths| paths.len());
        lines.push(entry(
            "against",
            &format!("{}: {added} added, {changed} changed, {removed} removed", short(before)),
        ));
        lines.extend(details.moves.iter().map(|one| entry("", &moved(one))));
    }
    context.talk.data(lines.join("\n"));
    Ok(0)
}

/// Bytes, as people say them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn entry(name: &str, text: &str) -> String {
    format!("  {name:<16} {text}")
}

fn word(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Core => "core",
        PartKind::Plugin => "plugin",
        PartKind::MustUse => "must-use plugin",
        PartKind::Theme => "theme",
    }
}

fn moved(one: &PartMove) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let (from, to) = (version(&one.from), version(&one.to));
    match (&one.from, &one.to) {
        (None, _) => format!("+ {} {to}", one.title),
        (_, None) => format!("- {} {from}", one.title),
        _ => format!("~ {} {from} → {to}", one.title),
    }
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
