//! `pressroom site`: add, list, show, writes, remove.
//!
//! Each changes the file first in memory, has it checked, and writes it only when the rest has gone well or needs it.

use std::collections::BTreeMap;

use pressroom_api::client::Error;
use pressroom_api::failure::Failure;
use pressroom_api::operator::Wish;
use pressroom_model::config::Config;
use pressroom_model::id::SiteName;
use pressroom_model::status::Site as SiteStatus;
use pressroom_model::writes::{Class, Written};
use pressroom_runtime::clock;

use super::release::size;
use super::{Context, Done, read_password, status, wish};
use crate::args::{NewSite, Site};
use crate::edit::Edit;
use crate::load;
use crate::talk::Ink;

pub(super) fn run(context: &Context<'_>, verb: Site) -> Done {
    match verb {
        Site::Add { name, title, new, yes } => add(context, &name, title.as_deref(), &new, yes),
        Site::List(arguments) => list(context, arguments.json),
        Site::Show { name, json } => show(context, &name, json),
        Site::Writes { name, json } => writes(context, &name, json),
        Site::Remove { name, yes } => remove(context, &name, yes),
    }
}

fn add(
    context: &Context<'_>,
    name: &SiteName,
    title: Option<&str>,
    new: &NewSite,
    is_agreed: bool,
) -> Done {
    let password = new.admin_password_file.as_deref().map(read_password).transpose()?;
    let mut edit = Edit::of(&load::to_change(context)?)?;
    if edit.sites().iter().any(|there| there == name.as_str()) {
        return Err(Failure::yours(format!("there is already a site `{name}`"))
            .state("nothing was changed")
            .hint(format!(
                "change it in `{}`, then `{}`",
                context.place.config.display(),
                context.command("apply")
            )));
    }
    edit.site(name, title, new)?;
    let config = load::meaning(context, &edit.text())?;
    context.install_missing(&config, is_agreed)?;
    if context.machine.keeper(&context.place).is_none() {
        if password.is_some() {
            return Err(Failure::yours(
                "the password cannot be kept while Pressroom is not running",
            )
            .state("nothing was changed")
            .hint(format!(
                "use `{} --site {name} --admin-password-file FILE`",
                context.command("up")
            )));
        }
        load::write_if_changed(&context.place.config, &edit.text())?;
        context
            .talk
            .say(format!("`{name}` is in the configuration.\nnext:\n  {}", context.command("up")));
        return Ok(0);
    }
    let admin_passwords =
        password.map(|password| (name.clone(), password)).into_iter().collect::<BTreeMap<_, _>>();
    load::write_if_changed(&context.place.config, &edit.text())?;
    let wish = Wish { config, admin_passwords };
    context.ask(context.client.apply(&wish, &context.talk.progress()))?;
    for site in context.ask(context.client.status())?.sites.iter().filter(|site| site.name == *name)
    {
        context.talk.data(&site.url);
    }
    show_passwords(context, &wish.config)?;
    Ok(0)
}

/// Shows the passwords that were made and never shown.
pub(super) fn show_passwords(context: &Context<'_>, config: &Config) -> Result<(), Failure> {
    for (site, admin) in context.initial_admins(config)? {
        let (user, password) = (admin.user, admin.password);
        context.talk.data(format!(
            "{site}: log in as `{user}` with {}  (shown this once)",
            password.reveal()
        ));
    }
    Ok(())
}

fn list(context: &Context<'_>, json: bool) -> Done {
    let sites = known(context)?;
    if json {
        context.talk.json(&sites);
    } else if sites.is_empty() {
        context
            .talk
            .say(format!("No sites. Make one with `{}`.", context.command("site add NAME")));
    } else {
        let line = |site: &SiteStatus| {
            format!("{:<24} {} {}", site.name, context.talk.verdict(site.verdict, 11), site.url)
        };
        context.talk.data(sites.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    Ok(0)
}

fn show(context: &Context<'_>, name: &SiteName, json: bool) -> Done {
    let sites = known(context)?;
    let Some(site) = sites.iter().find(|site| site.name == *name) else {
        let all =
            sites.iter().map(|site| format!("`{}`", site.name)).collect::<Vec<_>>().join(", ");
        return Err(
            Failure::yours(format!("there is no site `{name}`")).hint(format!("there are: {all}"))
        );
    };
    if json {
        context.talk.json(site);
        return Ok(0);
    }
    let mut lines = status::site_lines(&context.talk, site);
    lines.push(format!("  {:<16} {}", "domains", site.domains.join(" ")));
    lines.push(format!(
        "  {:<16} {}",
        "release",
        site.release.as_ref().map_or("none yet", |release| release.as_str())
    ));
    context.talk.data(lines.join("\n"));
    Ok(0)
}

fn writes(context: &Context<'_>, name: &SiteName, json: bool) -> Done {
    let all = context.ask(context.client.writes(name))?;
    if json {
        context.talk.json(&all);
        return Ok(0);
    }
    let classes = [
        (Class::Media, "media: kept, served, copied into environments"),
        (Class::Scratch, "scratch: what plugins can make anew; goes with its release"),
        (Class::Code, "code: part of the release"),
        (Class::Refused, "refused: everything else is read-only"),
    ];
    let mut lines = Vec::new();
    for (class, title) in classes {
        let of_class: Vec<_> = all.iter().filter(|one| one.class == class).collect();
        if of_class.is_empty() {
            continue;
        }
        lines.push(context.talk.ink(Ink::Faint, title));
        lines.extend(of_class.into_iter().map(written));
    }
    if lines.is_empty() {
        context.talk.say(format!("`{name}` wrote nothing beside its database."));
    } else {
        context.talk.data(lines.join("\n"));
    }
    Ok(0)
}

fn written(one: &Written) -> String {
    let by = one.by.as_deref().unwrap_or("?");
    let at = one.at_ms.map(clock::rfc3339).unwrap_or_default();
    let much = match one.class {
        Class::Refused => format!("{} ×", one.files),
        _ => format!("{} files, {}", one.files, size(one.bytes)),
    };
    format!("  {:<40} {by:<20} {much:<22} {at}\n      {}", one.path, one.because)
}

/// The sites that run; without an agent those of the configuration.
fn known(context: &Context<'_>) -> Result<Vec<SiteStatus>, Failure> {
    match context.wait(context.client.status()) {
        Ok(status) => Ok(status.sites),
        Err(error @ Error::Away { .. }) if load::without_file(context)?.is_some() => {
            Err(context.failure(error))
        }
        Err(Error::Away { .. }) => {
            let port =
                |config: &Config| config.edge.https.first().map_or(443, |address| address.port());
            let config = load::config(context)?;
            Ok(config.sites.iter().map(|site| stopped(site, port(&config))).collect())
        }
        Err(error) => Err(error.into()),
    }
}

fn stopped(site: &pressroom_model::config::Site, port: u16) -> SiteStatus {
    let host = &site.domains[0];
    SiteStatus {
        name: site.name.clone(),
        url: if port == 443 {
            format!("https://{host}/")
        } else {
            format!("https://{host}:{port}/")
        },
        domains: site.domains.clone(),
        verdict: pressroom_model::verdict::Health::Stopped,
        because: "Pressroom is not running".to_owned(),
        release: None,
        instances: Vec::new(),
    }
}

fn remove(context: &Context<'_>, name: &SiteName, is_agreed: bool) -> Done {
    let mut edit = Edit::of(&load::to_change(context)?)?;
    edit.remove_site(name)?;
    let config = load::meaning(context, &edit.text())?;
    if context.machine.keeper(&context.place).is_none() {
        return Err(Failure::yours(format!(
            "`{name}` cannot be removed while Pressroom is not running"
        ))
        .cause("its database cannot be dumped")
        .state("nothing was changed")
        .hint(format!("start it first: `{}`", context.command("up --detach"))));
    }
    let kept = context.place.data.join("removed");
    context.talk.say(format!(
        "Site `{name}`: its database, uploads, files and secrets will be deleted.\nA dump of the database and the uploads \
         will be kept below `{}`.",
        kept.display()
    ));
    if !is_agreed && context.talk.ask(&format!("Remove `{name}`?"), false) != Some(true) {
        return Err(Failure::yours(format!("`{name}` was not removed"))
            .state("nothing was changed")
            .hint("answer `y`, or give `--yes`"));
    }
    let wish = wish(config);
    let kept = context.ask(context.client.remove_site(name, &wish, &context.talk.progress()))?;
    load::write_if_changed(&context.place.config, &edit.text())?;
    context.talk.data(kept.display());
    context.talk.say(format!("`{name}` is removed; its dump is there."));
    Ok(0)
}
