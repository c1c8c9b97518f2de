//! What the keeper does when it is asked, one request at a time.

use std::time::{Duration, Instant};

use pressroom_model::process::{ListenerSpec, ProcessSpec, Reply, Request};
use rustix::process::WaitOptions;
use serde_json::json;

use super::Keeper;
use crate::keeper::children::{self, ProcessError};
use crate::keeper::connection::Watch;
use crate::keeper::launch::{self, Extras, LaunchError, Parent};
use crate::keeper::listeners::ListenError;
use crate::keeper::{log, proc_stat};

/// The longest a watch may wait.
const LONGEST_WATCH: Duration = Duration::from_secs(300);

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the keeper is shutting down")]
    ShuttingDown,
}

impl Keeper {
    pub(super) fn answer_requests(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            while let Some(request) = self.connections[index].next_request() {
                let pid = self.connections[index].pid;
                self.children.heard(pid, now);
                let reply = match request {
                    Ok(Request::Watch { seen, wait_ms }) => {
                        let wait = Duration::from_millis(wait_ms).min(LONGEST_WATCH);
                        self.connections[index].watch = Some(Watch { seen, until: now + wait });
                        continue;
                    }
                    Ok(request) => self
                        .fulfil(request, now)
                        .unwrap_or_else(|refusal| refused(&refusal.to_string())),
                    Err(because) => refused(&because),
                };
                if self.is_changed {
                    self.save_or_warn();
                }
                self.connections[index].answer(&reply);
            }
        }
    }

    pub(super) fn answer_watches(&mut self, now: Instant) {
        let generation = self.generation;
        let is_due = |watch: Watch| watch.seen != generation || watch.until <= now;
        if self.connections.iter().any(|connection| connection.watch.is_some_and(is_due)) {
            let reply = self.listed();
            let due = self
                .connections
                .iter_mut()
                .filter(|connection| connection.watch.is_some_and(is_due));
            due.for_each(|connection| connection.answer(&reply));
        }
    }

    fn fulfil(&mut self, request: Request, now: Instant) -> Result<Reply, Refusal> {
        match request {
            Request::Listen { listener } => self.listen(&listener)?,
            Request::Unlisten { name } => {
                if self.listeners.unlisten(&name) {
                    log::info("closed a listener", json!({"listener": name}));
                    self.changed();
                }
            }
            Request::Start { spec } => {
                return self.start(&spec, now).map(|pid| Reply::Started { pid });
            }
            Request::Stop { name, kill } => {
                log::info(if kill { "killing" } else { "stopping" }, json!({"name": name}));
                self.is_changed = true;
                self.children.stop(&name, kill, now)?;
            }
            Request::Signal { name, signal } => self.children.signal(&name, signal)?,
            Request::Forget { name } => {
                self.is_changed = true;
                self.children.forget(&name)?;
            }
            Request::List | Request::Watch { .. } => return Ok(self.listed()),
            Request::Alive => {}
            Request::Shutdown => self.shut_down(),
        }
        Ok(Reply::Done)
    }

    fn listed(&self) -> Reply {
        Reply::Listed {
            generation: self.generation,
            keeper: rustix::process::getpid().as_raw_nonzero().get(),
            processes: self.children.states(),
            listeners: self.listeners.specs(),
            confines: true,
        }
    }

    fn listen(&mut self, listener: &ListenerSpec) -> Result<(), Refusal> {
        if self.is_stopping {
            return Err(Refusal::ShuttingDown);
        }
        let children = &self.children;
        let is_own = |pid: i32| {
            let group = proc_stat::read(pid).map_or(pid, |stat| stat.group);
            children.by_pid(pid).is_some() || children.by_pid(group).is_some()
        };
        if self.listeners.listen(listener, is_own)? {
            log::info(
                "listens",
                json!({"listener": listener.name, "address": listener.address, "sockets": listener.sockets}),
            );
            self.changed();
        }
        Ok(())
    }

    /// Forks, writes down what was forked, lets it go.
    pub(super) fn start(&mut self, spec: &ProcessSpec, now: Instant) -> Result<i32, Refusal> {
        if self.is_stopping {
            return Err(Refusal::ShuttingDown);
        }
        if let Some(pid) = self.children.runs(&spec.name)? {
            return Ok(pid);
        }
        children::check(spec)?;
        let sockets = self.listeners.inherit(&spec.listeners)?;
        let extras = Extras { sockets, open_files: self.open_files, parent: Parent::Maker };
        let waiting = launch::fork(spec, &extras)?;
        let (forked, pid) = (waiting.pid, waiting.pid.as_raw_nonzero().get());
        let ticks = proc_stat::read(pid).map_or(0, |stat| stat.ticks);
        let lacks = self.limit(spec, pid);
        let former = self.children.begin(spec.clone(), pid, ticks, lacks, now);
        self.generation = self.generation.wrapping_add(1);
        // Where it cannot be written (a full disk) the child is started all the same: serving goes first.
        self.save_or_warn();
        if let Err(failure) = waiting.go() {
            let _ = rustix::process::waitpid(Some(forked), WaitOptions::empty());
            self.children.never_began(&spec.name, former);
            self.groups.leave(&spec.name);
            self.is_changed = true;
            return Err(failure.into());
        }
        log::info(
            "started",
            json!({"name": spec.name, "pid": pid, "program": spec.program.display().to_string()}),
        );
        Ok(pid)
    }
}

impl Keeper {
    /// Limits a process that waits; returns what could not be had.
    fn limit(&mut self, spec: &ProcessSpec, pid: i32) -> Vec<String> {
        let limits = spec.confinement.as_ref().map(|confinement| confinement.limits);
        let Some(limits) = limits.filter(|limits| !limits.are_none()) else { return Vec::new() };
        let lacks = self.groups.enter(&spec.name, limits, pid);
        for lack in &lacks {
            log::warn("a limit could not be set", json!({"name": spec.name, "because": lack}));
        }
        lacks
    }
}

fn refused(because: &str) -> Reply {
    Reply::Refused { because: because.to_owned() }
}
