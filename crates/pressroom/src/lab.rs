//! `pressroom lab`, done by the room of that name.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use pressroom_agent::keeper;
use pressroom_api::failure::Failure;
use pressroom_api::progress::Progress;
use pressroom_cli::machine::{Lab, LabSaid};
use pressroom_lab::faults::{self, Fault};
use pressroom_lab::{LabError, host, lab, up};

/// Does what was typed with the lab in this folder.
pub(crate) fn run(folder: &Path, verb: &Lab, progress: &Progress) -> Result<LabSaid, Failure> {
    let done = match verb {
        Lab::Up { nodes, zones, site, is_standalone, addresses } => {
            let wish = up::Wish {
                nodes: *nodes,
                zones: zones.clone(),
                site: site.clone(),
                is_standalone: *is_standalone,
                addresses: *addresses,
            };
            let mut step = None;
            let made = up::up(folder, &wish, &mut |words| {
                if let Some(step) = step.replace(progress.begin(words)) {
                    step.done("");
                }
            });
            match (&made, step) {
                (Ok(_), Some(step)) => step.done(""),
                (Err(error), Some(step)) => step.failed(error.to_string()),
                _ => {}
            }
            made.map(|made| shown(&made))
        }
        Lab::Status => up::status(folder).map(|made| with_state(shown(&made), &made)),
        Lab::Exec(whom, words) => exec(folder, whom, words),
        Lab::Down => faults::down(folder, keeper::end_groups).map(|()| LabSaid::default()),
        Lab::Host(name) => host::be_first(name).map(|()| LabSaid::default()),
        Lab::Cut(whom) => strike(folder, whom, &Fault::Cut),
        Lab::Heal(whom) => strike(folder, whom, &Fault::Heal),
        Lab::Slow(whom, rate) => strike(folder, whom, &Fault::Slow(*rate)),
        Lab::Kill(whom) => strike(folder, whom, &Fault::Kill),
        Lab::Start(whom) => strike(folder, whom, &Fault::Start),
        Lab::Freeze(whom, process) => strike(folder, whom, &Fault::Freeze(process.clone())),
        Lab::Thaw(whom) => strike(folder, whom, &Fault::Thaw),
    };
    done.map_err(failure)
}

fn strike(folder: &Path, whom: &str, fault: &Fault) -> Result<LabSaid, LabError> {
    faults::strike(folder, whom, fault).map(|()| LabSaid::default())
}

fn exec(folder: &Path, whom: &str, words: &[String]) -> Result<LabSaid, LabError> {
    let mut command = up::exec(folder, whom, words)?;
    let status =
        command.status().map_err(|source| LabError::Io { what: "nsenter".into(), source })?;
    let signal = status.signal().map(|signal| signal.saturating_add(128));
    let status = status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
    Ok(LabSaid { lab: None, status })
}

/// The lab as it is promised to scripts.
fn shown(made: &lab::Lab) -> LabSaid {
    let nodes: Vec<_> = made
        .nodes
        .iter()
        .map(|node| {
            serde_json::json!({
                "name": node.name,
                "zone": node.zone,
                "address": node.address,
                "netns": node.netns,
                "data": node.data,
                "database": node.database,
                "leader": node.leader,
            })
        })
        .collect();
    let lab = serde_json::json!({ "site": made.site, "client": made.client, "nodes": nodes, "addresses": made.addresses });
    LabSaid { lab: Some(lab), status: 0 }
}

/// Whether each host runs, which only `status` says.
fn with_state(mut said: LabSaid, made: &lab::Lab) -> LabSaid {
    let nodes = said.lab.as_mut().and_then(|lab| lab.get_mut("nodes")?.as_array_mut());
    for (shown, node) in nodes.into_iter().flatten().zip(&made.nodes) {
        shown["runs"] = host::is_running(node).into();
    }
    said
}

fn failure(error: LabError) -> Failure {
    match error {
        LabError::Io { .. } | LabError::Failed { .. } | LabError::Late { .. } => {
            Failure::ours("the lab could not do that")
                .cause(error)
                .hint("`pressroom lab status` shows the hosts; `pressroom lab exec NODE -- CMD` looks into one")
        }
        LabError::None(_) | LabError::Another { .. } | LabError::Unknown(..) | LabError::Wish(_) => {
            Failure::yours("the lab could not do that").cause(error)
        }
    }
}
