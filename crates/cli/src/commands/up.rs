//! `pressroom up`: from whatever is there to the first site answering over HTTPS.
//!
//! Every step may be taken again: a second `up` finds each one done. Two at once on one data directory take turns. In
//! the foreground only the `up` that started Pressroom stays, and stops it at Ctrl-C; a later one says so and returns.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use pressroom_api::failure::Failure;
use pressroom_api::operator::{CheckState, InitialAdmin, Wish};
use pressroom_model::config::Config;
use pressroom_model::id::{NodeName, SiteName};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, Done, down, read_password};
use crate::args::Up;
use crate::edit::Edit;
use crate::load;
use crate::talk::Ink;

/// Longest wait for another `up`.
const TURN: Duration = Duration::from_secs(600);
/// Longest wait for the agent to answer for the first time.
const AGENT: Duration = Duration::from_secs(30);
/// Longest wait for the first site, once everything is applied.
const SITE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(25);

pub(super) fn run(context: &Context<'_>, up: &Up) -> Done {
    if let Some(node) = context.machine.membership(&context.place)? {
        return as_node(context, up, &node);
    }
    let password = up.new.admin_password_file.as_deref().map(read_password).transpose()?;
    let turn = take_turn(context)?;
    let (text, config, site) = wanted(context, up)?;
    context.install_missing(&config, up.yes)?;
    let is_new = context.machine.keeper(&context.place).is_none();
    let stays = !up.detach && is_new;
    if is_new {
        warn(context, &config);
    }
    let mut signals = context.wait(async { Signals::catch(stays) })?;
    context.machine.start_keeper(&context.place)?;
    let passwords = password.map(|password| (site.clone(), password)).into_iter().collect();
    let wish = Wish { config, admin_passwords: passwords };
    let served = context.wait(async {
        tokio::select! {
            served = serve(context, &text, &wish, &site) => Some(served),
            () = signals.caught() => None,
        }
    });
    drop(turn);
    match served {
        None => down::stop(context),
        Some(Err(failure)) if stays => {
            down::stop(context)?;
            Err(failure)
        }
        Some(Err(mut failure)) => {
            failure.state.get_or_insert_with(|| {
                format!("what runs goes on; `{}` stops it", context.command("down"))
            });
            Err(failure)
        }
        Some(Ok(())) => {
            report(context, &wish.config, &context.initial_admins(&wish.config)?);
            match (stays, up.detach) {
                (true, _) => return stay(context, &mut signals),
                (false, true) => {}
                (false, false) => context.talk.say("It was running before, and goes on."),
            }
            Ok(0)
        }
    }
}

/// A node of a cluster serves what the cluster does; its own file says nothing.
fn as_node(context: &Context<'_>, up: &Up, node: &NodeName) -> Done {
    if up.site.is_some() || !up.http.is_empty() || !up.https.is_empty() {
        return Err(Failure::yours(format!("this machine is node `{node}` of a cluster"))
            .state("nothing was started or changed")
            .hint("a node starts with `pressroom up` alone; sites are added with `pressroom site add`"));
    }
    let turn = take_turn(context)?;
    let is_new = context.machine.keeper(&context.place).is_none();
    let stays = !up.detach && is_new;
    let mut signals = context.wait(async { Signals::catch(stays) })?;
    context.machine.start_keeper(&context.place)?;
    context.wait(agent_answers(context))?;
    // After a `down` that was interrupted. Whether it serves is looked at next, whatever was answered.
    let _ = context.wait(context.client.resume());
    let served = super::node::serve(context, node, false);
    drop(turn);
    served?;
    context.talk.data(format!("This machine is node `{node}`, and serves."));
    match stays {
        true => stay(context, &mut signals),
        false => Ok(0),
    }
}

/// Says what is worth knowing before anything is started.
fn warn(context: &Context<'_>, config: &Config) {
    let progress = context.talk.progress();
    if !context.machine.is_root() {
        progress.note(
            "as an ordinary user, all sites run as that user, unconfined and kept apart by PHP's open_basedir alone; as \
             root each has a user, a file system and limits of its own",
        );
    }
    for check in context.machine.examine(&context.place, Some(config)) {
        if check.state == CheckState::Bad {
            progress.note(format!("{}: {}; {}", check.check, check.detail, check.hint));
        }
    }
}

/// Writes the file, applies the wish and waits until the site is seen by a visitor.
///
/// The file comes after the agent: one that starts with an empty store would begin by the file alone, without the
/// password that is in the wish.
async fn serve(
    context: &Context<'_>,
    text: &str,
    wish: &Wish,
    site: &SiteName,
) -> Result<(), Failure> {
    agent_answers(context).await?;
    load::write_if_changed(&context.place.config, text)?;
    let progress = context.talk.progress();
    context.client.apply(wish, &progress).await?;
    let step = progress.begin(format!("visit `{site}` over HTTPS"));
    let late = Instant::now() + SITE;
    loop {
        let visit = context.client.visit(site).await?;
        if visit.is_good {
            step.done(visit.url);
            return Ok(());
        }
        if Instant::now() > late {
            step.failed(&visit.because);
            let hint = format!("`{}` looks for the reason", context.command("doctor"));
            return Err(Failure::ours(format!("site `{site}` does not answer at {}", visit.url))
                .cause(visit.because)
                .hint(hint));
        }
        tokio::time::sleep(LOOK * 4).await;
    }
}

async fn agent_answers(context: &Context<'_>) -> Result<(), Failure> {
    let late = Instant::now() + AGENT;
    while !context.client.answers().await {
        if Instant::now() > late {
            let log = context.place.logs().join("agent.log");
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<_> = words.lines().rev().take(5).collect();
            let cause = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(Failure::ours(format!(
                "the agent did not answer in {} s",
                AGENT.as_secs()
            ))
            .cause(if cause.is_empty() { "it wrote nothing".to_owned() } else { cause })
            .hint(format!("read `{}`", log.display())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What the flags make of the file, what that means, and the site that flags were about.
fn wanted(context: &Context<'_>, up: &Up) -> Result<(String, Config, SiteName), Failure> {
    let before = load::text(&context.place.config)?;
    if !before.is_empty() {
        // Everything that is wrong with it is said before anything is changed.
        load::meaning(context, &before)?;
    }
    let mut edit = Edit::of(&before)?;
    edit.listeners("http", &up.http)?;
    edit.listeners("https", &up.https)?;
    if let Some(console) = up.console {
        edit.console(console)?;
    }
    let first = edit.sites().first().and_then(|name| name.parse().ok());
    let site = match (&up.site, first) {
        (Some(site), _) => site.clone(),
        (None, Some(first)) => first,
        (None, None) => "blog".parse().expect("a good name"),
    };
    edit.site(&site, None, &up.new)?;
    let text = edit.text();
    let config = load::meaning(context, &text)?;
    Ok((text, config, site))
}

/// Waits while another `up` works on this data directory.
fn take_turn(context: &Context<'_>) -> Result<File, Failure> {
    let path = context.place.data.join("up.lock");
    let failed = |error: std::io::Error| {
        Failure::yours(format!("cannot use the data directory `{}`", context.place.data.display()))
            .cause(error)
            .hint("choose another one with `--data DIR`, or run as a user who may write there")
    };
    std::fs::create_dir_all(&context.place.data).map_err(failed)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let (late, mut was_said) = (Instant::now() + TURN, false);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < late => {
                if !was_said {
                    context.talk.say(
                        "Another `pressroom up` works on this data directory; waiting for it.",
                    );
                    was_said = true;
                }
                std::thread::sleep(LOOK);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::yours("another `pressroom up` works on this data directory")
                    .cause(format!("it has not ended in {} minutes", TURN.as_secs() / 60))
                    .hint("end it, or choose another data directory with `--data DIR`"));
            }
        }
    }
}

/// The signals that end a command in the foreground.
struct Signals(Option<[Signal; 3]>);

impl Signals {
    fn catch(wanted: bool) -> Result<Self, Failure> {
        if !wanted {
            return Ok(Self(None));
        }
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::ours("cannot listen for Ctrl-C").cause(error))
        };
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(catch);
        Ok(Self(Some([interrupt?, terminate?, hangup?])))
    }

    /// Waits for one of them; for ever, if they are not caught. Cancel-safe.
    async fn caught(&mut self) {
        match &mut self.0 {
            None => std::future::pending().await,
            Some([interrupt, terminate, hangup]) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            }
        }
    }
}

/// Stays until Ctrl-C, then stops everything; or until somebody else has stopped it.
fn stay(context: &Context<'_>, signals: &mut Signals) -> Done {
    context.talk.say("Running. Ctrl-C stops it.");
    let mut seen = Instant::now();
    loop {
        if context.wait(async { tokio::time::timeout(LOOK * 20, signals.caught()).await.is_ok() }) {
            return down::stop(context);
        }
        if context.machine.keeper(&context.place).is_some() {
            seen = Instant::now();
        } else if seen.elapsed() > AGENT {
            context.talk.say("Pressroom was stopped.");
            return Ok(0);
        }
    }
}

/// What to open, whom to log in as, and what to type next.
fn report(context: &Context<'_>, config: &Config, admins: &[(SiteName, InitialAdmin)]) {
    let status = context.ask(context.client.status()).ok();
    let mut lines = Vec::new();
    for site in &config.sites {
        let known =
            status.iter().flat_map(|status| &status.sites).find(|known| known.name == site.name);
        let url = known
            .map_or_else(|| format!("https://{}/", site.domains[0]), |known| known.url.clone());
        lines.push(format!("{:<10}{}", site.name, context.talk.strong(&url)));
        lines.push(format!(
            "{:<10}{}/wp-admin/  as `{}`",
            "",
            url.trim_end_matches('/'),
            site.admin.user
        ));
        if let Some((_, admin)) = admins.iter().find(|(name, _)| *name == site.name) {
            lines.push(format!(
                "{:<10}password {}  (shown this once)",
                "",
                context.talk.strong(admin.password.reveal())
            ));
        }
    }
    lines.push(format!("{:<10}http://{}/", "console", config.console.listen));
    context.talk.data(lines.join("\n"));
    let next = [
        ("status --watch", "how things are"),
        ("tls trust", "make browsers trust the local certificates"),
        ("down", "stop it"),
    ];
    let next: Vec<_> = next
        .iter()
        .map(|(verb, why)| {
            format!("  {}  {}", context.command(verb), context.talk.ink(Ink::Faint, why))
        })
        .collect();
    context.talk.say(format!("next:\n{}", next.join("\n")));
}
