//! `pressroom env`: create, list, open, mail, refresh, promote, remove.

use pressroom_api::environment::{Environment, Letter, NewEnvironment, Promotion, TableDiff};
use pressroom_api::failure::Failure;
use pressroom_model::id::{EnvironmentName, SiteName};
use pressroom_runtime::clock;
use serde_json::json;

use super::{Context, Done, deploy, release};
use crate::args::{Env, EnvName};
use crate::talk::Ink;

pub(super) fn run(context: &Context<'_>, verb: Env) -> Done {
    match verb {
        Env::Create { site, name, from: _, with_cron, with_payments, json } => {
            let new = NewEnvironment { name, cron: with_cron, payments: with_payments };
            create(context, &site, &new, json)
        }
        Env::List { site, json } => list(context, site.as_ref(), json),
        Env::Open(of) => {
            let environment = find(context, &of.site, &of.name)?;
            show(context, &environment, of.json)
        }
        Env::Mail(of) => mail(context, &of),
        Env::Refresh { site, name, yes } => refresh(context, &site, &name, yes),
        Env::Promote { site, name, tables, yes, dry_run, json } if !tables.is_empty() => {
            let how = TablesHow { is_dry: dry_run, is_agreed: yes, json };
            promote_tables(context, &site, name, tables, &how)
        }
        Env::Promote { site, name, dry_run, json, .. } => {
            promote(context, &site, &name, dry_run, json)
        }
        Env::Remove { site, name, yes } => remove(context, &site, &name, yes),
    }
}

fn create(context: &Context<'_>, site: &SiteName, new: &NewEnvironment, json: bool) -> Done {
    let progress = context.talk.progress();
    let making = context.client.create_environment(site, new, &progress);
    context.ask(making)?;
    show(context, &find(context, site, &new.name)?, json)
}

fn find(
    context: &Context<'_>,
    site: &SiteName,
    name: &EnvironmentName,
) -> Result<Environment, Failure> {
    let all = context.ask(context.client.environments())?;
    all.into_iter().find(|one| one.of == *site && one.name == *name).ok_or_else(|| {
        Failure::yours(format!("`{site}` has no environment `{name}`"))
            .hint(format!("`{}` shows those that there are", context.command("env list")))
    })
}

fn show(context: &Context<'_>, environment: &Environment, json: bool) -> Done {
    if json {
        context.talk.json(&json!({
            "name": environment.name,
            "url": environment.url,
            "admin_password_file": environment.admin_password_file,
            "admin_user": environment.admin_user,
            "site": environment.site,
        }));
        return Ok(0);
    }
    context.talk.data(&environment.url);
    let admin = environment.admin_user.as_deref().unwrap_or("the administrator");
    let (of, name, site) = (&environment.of, &environment.name, &environment.site);
    context.talk.say(format!(
        "The password in front of it and of `{admin}`: {}\nnext:\n  {}  bring code to it\n  {}  make its code that of `{of}`\n  {}  read the mail it wanted to send",
        environment.admin_password_file.display(),
        context.command(&format!("deploy {site} SOURCE")),
        context.command(&format!("env promote {of} {name}")),
        context.command(&format!("env mail {of} {name}")),
    ));
    Ok(0)
}

fn list(context: &Context<'_>, site: Option<&SiteName>, json: bool) -> Done {
    let mut all = context.ask(context.client.environments())?;
    all.retain(|one| site.is_none_or(|site| one.of == *site));
    if json {
        context.talk.json(&all);
    } else if all.is_empty() {
        let make = context.command("env create SITE NAME");
        context.talk.say(format!("No environments. Make one with `{make}`."));
    } else {
        let line = |one: &Environment| {
            format!("{:<16} {:<16} {} {}", one.of, one.name, clock::rfc3339(one.made_ms), one.url)
        };
        context.talk.data(all.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(0)
}

fn mail(context: &Context<'_>, of: &EnvName) -> Done {
    let letters = context.ask(context.client.letters(&of.site, &of.name))?;
    if of.json {
        context.talk.json(&letters);
    } else if letters.is_empty() {
        context.talk.say(format!("`{}` of `{}` wanted to send no mail.", of.name, of.site));
    } else {
        let line = |letter: &Letter| {
            let at = clock::rfc3339(letter.at_ms);
            let file = context.talk.ink(Ink::Faint, letter.file.display().to_string());
            format!("{at}  {}  {}\n  {file}", letter.to, letter.subject)
        };
        context.talk.data(letters.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(0)
}

fn refresh(
    context: &Context<'_>,
    site: &SiteName,
    name: &EnvironmentName,
    is_agreed: bool,
) -> Done {
    let words = format!(
        "Environment `{name}` of `{site}`: what was changed in its database and media will be lost."
    );
    agree(context, &words, &format!("Refresh `{name}`?"), is_agreed, "refreshed", name)?;
    let progress = context.talk.progress();
    let refreshing = context.client.refresh_environment(site, name, &progress);
    context.ask(refreshing)?;
    context.talk.say(format!("`{name}` has the data of `{site}` as it is now."));
    Ok(0)
}

fn promote(
    context: &Context<'_>,
    site: &SiteName,
    name: &EnvironmentName,
    dry_run: bool,
    json: bool,
) -> Done {
    if dry_run {
        let diff = context.ask(context.client.promotable(site, name))?;
        return release::show_diff(context, &diff, json);
    }
    let from = deploy::serving(context, site)?;
    let promotion = Promotion {
        name: name.clone(),
        author: deploy::author(),
        tables: Vec::new(),
        expected: Vec::new(),
    };
    context.ask(context.client.promote(site, &promotion, &context.talk.progress()))?;
    deploy::moved(context, site, from, json)
}

/// How tables are promoted.
struct TablesHow {
    is_dry: bool,
    is_agreed: bool,
    json: bool,
}

fn promote_tables(
    context: &Context<'_>,
    site: &SiteName,
    name: EnvironmentName,
    tables: Vec<String>,
    how: &TablesHow,
) -> Done {
    let author = deploy::author();
    let mut promotion = Promotion { name, author, tables, expected: Vec::new() };
    let diffs = context.ask(context.client.compare_tables(site, &promotion))?;
    if how.json {
        context.talk.json(&diffs);
    } else {
        context.talk.data(diffs.iter().map(table_lines).collect::<Vec<_>>().join("\n"));
    }
    if how.is_dry {
        return Ok(0);
    }
    let words = format!("These tables of `{site}` will be replaced; a dump of them is kept.");
    let name = promotion.name.clone();
    agree(context, &words, "Replace them?", how.is_agreed, "promoted", &name)?;
    promotion.expected = diffs;
    context.ask(context.client.promote(site, &promotion, &context.talk.progress()))?;
    Ok(0)
}

fn table_lines(diff: &TableDiff) -> String {
    let head = format!(
        "{}: {} added, {} changed, {} removed",
        diff.table, diff.added, diff.changed, diff.removed
    );
    std::iter::once(head)
        .chain(diff.keys.iter().map(|key| format!("  {key}")))
        .collect::<Vec<_>>()
        .join("\n")
}

fn remove(context: &Context<'_>, site: &SiteName, name: &EnvironmentName, is_agreed: bool) -> Done {
    let words = format!(
        "Environment `{name}` of `{site}`: its database, media, files, mail and secrets will be deleted. Nothing is kept."
    );
    agree(context, &words, &format!("Remove `{name}`?"), is_agreed, "removed", name)?;
    let progress = context.talk.progress();
    let removing = context.client.remove_environment(site, name, &progress);
    context.ask(removing)?;
    context.talk.say(format!("`{name}` of `{site}` is removed."));
    Ok(0)
}

/// Says what will be lost, and goes on only if that is wanted.
fn agree(
    context: &Context<'_>,
    words: &str,
    question: &str,
    is_agreed: bool,
    done: &str,
    name: &EnvironmentName,
) -> Result<(), Failure> {
    context.talk.say(words);
    if is_agreed || context.talk.ask(question, false) == Some(true) {
        return Ok(());
    }
    Err(Failure::yours(format!("`{name}` was not {done}"))
        .state("nothing was changed")
        .hint("answer `y`, or give `--yes`"))
}
