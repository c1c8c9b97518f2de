//! `pressroom install`: a systemd unit, so that Pressroom starts with the machine.
//!
//! The unit leaves children alone: systemd stops the keeper only, which stops its children in order, and an upgrade of
//! the keeper does not touch them.

use std::path::{Path, PathBuf};

use pressroom_api::failure::Failure;

use super::{Context, Done};
use crate::args::Install;

pub(super) fn run(context: &Context<'_>, arguments: &Install) -> Done {
    let text = unit(&context.machine.program(), &context.place.data, &context.place.config);
    if arguments.print {
        context.talk.data(text);
        return Ok(0);
    }
    if !context.machine.is_root() {
        return Err(Failure::yours("only root may install a system unit")
            .hint("`pressroom install --print` prints it, for `~/.config/systemd/user/` or for somebody who may"));
    }
    let path = PathBuf::from("/etc/systemd/system/pressroom.service");
    context.machine.install_unit(&path, &text)?;
    context.talk.say(format!("`{}` is written and enabled.", path.display()));
    let start = match context.machine.keeper(&context.place) {
        None => "start it now: systemctl start pressroom".to_owned(),
        Some(_) => format!(
            "let systemd take over: {} && systemctl start pressroom",
            context.command("down")
        ),
    };
    context.talk.say(format!("next:\n  {start}"));
    Ok(0)
}

fn unit(program: &Path, data: &Path, config: &Path) -> String {
    let (program, data, config) = (quoted(program), quoted(data), quoted(config));
    format!(
        "\
[Unit]
Description=Pressroom: WordPress that stays up and keeps up
After=network-online.target local-fs.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={program} keep --data {data} --config {config}
ExecStop={program} down --data {data} --config {config}
KillMode=process
Delegate=yes
DelegateSubgroup=keeper
Restart=always
RestartSec=1
TimeoutStopSec=120
LimitNOFILE=1048576
TasksMax=infinity
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"
    )
}

/// A path as systemd reads it in a command.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-%$+,:@=".contains(c));
    if is_plain { text } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_leaves_children_alone_and_paths_whole() {
        let unit = unit(
            Path::new("/usr/bin/pressroom"),
            Path::new("/srv/my press/100%"),
            Path::new("/etc/p.toml"),
        );
        for line in [
            "ExecStart=/usr/bin/pressroom keep --data \"/srv/my press/100%%\" --config /etc/p.toml",
            "KillMode=process",
            "Delegate=yes",
            "DelegateSubgroup=keeper",
            "Restart=always",
        ] {
            assert!(unit.lines().any(|there| there == line), "{line}\n{unit}");
        }
    }
}
