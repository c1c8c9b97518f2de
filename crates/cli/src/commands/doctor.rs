//! `pressroom doctor`: what is wrong with the machine, the configuration and what runs, and what to do about it.

use pressroom_api::client::Error;
use pressroom_api::operator::{Check, CheckState};

use super::{Context, Done};
use crate::args::Json;
use crate::load;
use crate::talk::Ink;

/// The name of the check of `pressroom.toml`.
const CONFIGURATION: &str = "configuration";

pub(super) fn run(context: &Context<'_>, arguments: &Json) -> Done {
    // The agent of a node that has no file knows what is wanted of it, and looks at that.
    let is_elsewhere = matches!(load::without_file(context), Ok(Some(_)));
    let config = (!is_elsewhere).then(|| load::config(context));
    let mut checks = Vec::new();
    if let Some(Err(failure)) = &config {
        checks.push(Check {
            check: CONFIGURATION.to_owned(),
            state: CheckState::Bad,
            detail: match &failure.cause {
                Some(cause) => format!("{}: {cause}", failure.what),
                None => failure.what.clone(),
            },
            hint: failure.hint.clone().unwrap_or_default(),
        });
    }
    let config = config.and_then(Result::ok);
    checks.extend(context.machine.examine(&context.place, config.as_ref()));
    match context.wait(context.client.doctor()) {
        Ok(found) => {
            for check in found {
                if !checks
                    .iter()
                    .any(|there| there.check == check.check && there.detail == check.detail)
                {
                    checks.push(check);
                }
            }
        }
        Err(Error::Away { .. }) if context.machine.keeper(&context.place).is_none() => {
            checks.push(Check {
                check: "running".to_owned(),
                state: CheckState::Warning,
                detail: "Pressroom is not running here".to_owned(),
                hint: format!("start it with `{}`", context.command("up")),
            });
        }
        Err(error) => checks.push(Check {
            check: "agent".to_owned(),
            state: CheckState::Bad,
            detail: error.to_string(),
            hint: format!("read `{}`", context.command("logs agent")),
        }),
    }
    if arguments.json {
        context.talk.json(&checks);
    } else {
        context.talk.data(page(context, &checks));
    }
    let bad = |check: &&Check| check.state == CheckState::Bad;
    Ok(match checks.iter().filter(bad).any(|check| check.check != CONFIGURATION) {
        true => 2,
        // The file is the operator's.
        false => u8::from(checks.iter().any(|check| check.state == CheckState::Bad)),
    })
}

fn page(context: &Context<'_>, checks: &[Check]) -> String {
    let mut lines = Vec::new();
    for check in checks {
        let (mark, ink) = match check.state {
            CheckState::Good => ("✓", Ink::Good),
            CheckState::Warning => ("!", Ink::Warning),
            CheckState::Bad => ("✗", Ink::Bad),
        };
        let mark =
            if context.talk.is_screen { context.talk.ink(ink, mark) } else { mark.to_owned() };
        lines.push(format!("{mark} {:<18} {}", check.check, check.detail.replace('\n', "\n    ")));
        if !check.hint.is_empty() {
            lines.push(format!("    {}", check.hint));
        }
    }
    lines.join("\n")
}
