//! The keeper's one loop ([`requests`] is its other half): wait for a signal, a request, an ended adopted process or a due moment; do what follows; save; answer.
//!
//! Nothing here blocks for long: exec is waited for (milliseconds), everything else is non-blocking or local files. The state file is
//! written before a new child runs and before the answer to whoever asked for a change.

mod requests;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pressroom_model::process::ProcessSpec;
use pressroom_runtime::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, Rlimit, WaitId, WaitIdOptions, WaitOptions};
use serde_json::json;

use super::children::{Children, kill_group};
use super::connection::{self, Connection};
use super::groups::Groups;
use super::listeners::Listeners;
use super::{Error, Options, log, output, proc_stat, signals, sockets, state, takeover};

/// How often output files are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Beyond these the connection that was opened first is closed.
const MOST_CONNECTIONS: usize = 128;
/// Of the keeper's own log.
const OWN_OUTPUT_LIMIT: u64 = 16 << 20;
/// How long the very last strays, killed already, may take to vanish (one may hang in a file system).
const BURIAL_TRIES: u32 = 500;
const BURIAL_PAUSE: Duration = Duration::from_millis(10);

/// Everything a running keeper has.
pub(super) struct Keeper {
    options: Options,
    wake: OwnedFd,
    socket: OwnedFd,
    children: Children,
    listeners: Listeners,
    groups: Groups,
    connections: Vec<Connection>,
    generation: u64,
    /// Limits of open files that children get when their spec names none.
    open_files: Rlimit,
    own_output: Option<PathBuf>,
    /// Something is to be written into the state file.
    is_changed: bool,
    /// It could not be; tried again with every housekeeping.
    is_unsaved: bool,
    is_stopping: bool,
    next_housekeeping: Instant,
}

impl Keeper {
    /// Adopts, opens the socket, starts the agent.
    pub(super) fn begin(options: Options, wake: OwnedFd) -> Result<Self, Error> {
        let now = clock::now();
        let open_files = signals::raise_open_files();
        let stored = state::load(&options.state);
        let generation = stored.as_ref().map_or(0, |stored| stored.generation).wrapping_add(1);
        let (processes, listeners) =
            stored.map(|stored| (stored.processes, stored.listeners)).unwrap_or_default();
        if !options.takeover {
            refuse_leftovers(&processes)?;
        }
        let children = takeover::processes(processes, now);
        let listeners = takeover::listeners(listeners, &children);
        let groups = Groups::of_machine(&options.data);
        let socket = sockets::open_unix(&options.socket, 0o600, None).map_err(|error| {
            Error::file("listen on", &options.socket, std::io::Error::other(error))
        })?;
        // A client that gives up between poll and accept must not hold up the loop.
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(|error| Error::file("listen on", &options.socket, error))?;
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(|error| Error::file("not block on", &options.socket, error))?;
        let mut keeper = Self {
            wake,
            socket,
            children,
            listeners,
            groups,
            connections: Vec::new(),
            generation,
            open_files,
            own_output: output::own(),
            is_changed: true,
            is_unsaved: false,
            is_stopping: false,
            next_housekeeping: now,
            options,
        };
        keeper.save_or_warn();
        log::info(
            "keeper runs",
            json!({"pid": std::process::id(), "data": keeper.options.data.display().to_string()}),
        );
        keeper.begin_agent(now)?;
        Ok(keeper)
    }

    /// An adopted agent goes on as it is and gets the newer spec at its next start. An agent that cannot start is fatal only where
    /// nothing else runs: children must not lose their keeper for it.
    fn begin_agent(&mut self, now: Instant) -> Result<(), Error> {
        let spec = self.options.agent.clone();
        match self.start(&spec, now) {
            Ok(_) => {
                self.children.renew(&spec);
                Ok(())
            }
            Err(because) if self.children.running().next().is_none() => {
                self.clean_up();
                Err(Error::Agent { because: because.to_string() })
            }
            Err(because) => {
                log::error("cannot start the agent", json!({"because": because.to_string()}));
                self.children.remember(&spec, now);
                self.children.retry_later(&spec.name, now);
                Ok(())
            }
        }
    }

    /// Until everything has been stopped.
    pub(super) fn serve(mut self) -> Result<(), Error> {
        loop {
            let before = clock::now();
            let timeout = self.timeout(before);
            self.wait(timeout)?;
            let now = clock::now();
            self.children
                .forgive(now, now.saturating_duration_since(before).saturating_sub(timeout));
            self.reap(now);
            self.answer_requests(now);
            self.do_what_is_due(now);
            if self.is_changed {
                self.save_or_warn();
            }
            self.answer_watches(now);
            self.connections.retain(|connection| !connection.is_over());
            if self.is_stopping && self.children.running().next().is_none() {
                self.clean_up();
                log::info("keeper ends: nothing is left", json!({}));
                return Ok(());
            }
        }
    }

    fn timeout(&self, now: Instant) -> Duration {
        let watches = self
            .connections
            .iter()
            .filter_map(|connection| connection.watch.map(|watch| watch.until));
        let next = watches.chain(self.children.next_due()).chain([self.next_housekeeping]).min();
        next.map_or(HOUSEKEEPING, |at| at.saturating_duration_since(now))
    }

    /// Sleeps until something happens, then moves bytes and takes signals.
    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        let ready = self.poll(timeout)?;
        let (wake, rest) = ready
            .split_first()
            .map_or((PollFlags::empty(), ready.as_slice()), |(first, rest)| (*first, rest));
        let (accept, rest) =
            rest.split_first().map_or((PollFlags::empty(), rest), |(first, rest)| (*first, rest));
        for (connection, flags) in self.connections.iter_mut().zip(rest) {
            connection.exchange(*flags);
        }
        if !accept.is_empty() {
            self.accept();
        }
        if !wake.is_empty() && signals::drain(&self.wake) {
            self.shut_down();
        }
        Ok(())
    }

    /// What is ready: the signal pipe, the socket, each connection, then the adopted processes (which `reap` looks at itself).
    fn poll(&self, timeout: Duration) -> Result<Vec<PollFlags>, Error> {
        let mut fds =
            vec![PollFd::new(&self.wake, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(
            self.connections
                .iter()
                .map(|connection| PollFd::new(connection.stream(), connection.interest())),
        );
        let adopted = self.children.running().filter_map(|child| child.adopted.as_ref());
        fds.extend(adopted.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        // One millisecond more than asked for, or the loop would come back just before the moment.
        let timeout = timeout + Duration::from_millis(1);
        let timeout = Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok(fds.iter().map(PollFd::revents).collect()),
            Err(Errno::INTR | Errno::NOMEM | Errno::AGAIN) => Ok(Vec::new()),
            Err(source) => Err(Error::system("wait for events", source)),
        }
    }

    fn accept(&mut self) {
        loop {
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.welcome(socket),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
                    if !self.connections.is_empty() =>
                {
                    drop(self.connections.remove(0));
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// Root and the keeper's own user only, whatever the file's permissions say.
    fn welcome(&mut self, socket: OwnedFd) {
        let stream = UnixStream::from(socket);
        let Some(peer) = connection::peer(&stream) else { return };
        if peer.uid != 0 && peer.uid != rustix::process::geteuid().as_raw() {
            log::warn("refused a peer", json!({"uid": peer.uid, "pid": peer.pid}));
            return;
        }
        if self.connections.len() >= MOST_CONNECTIONS {
            drop(self.connections.remove(0));
        }
        self.connections.push(Connection::new(stream, peer.pid));
    }

    /// Sees who has ended: own children, adopted ones, and orphans of theirs, which only need to be buried.
    fn reap(&mut self, now: Instant) {
        let running: Vec<(String, Pid, bool)> = self
            .children
            .running()
            .filter_map(|child| {
                Some((child.name().to_owned(), child.pid()?, child.adopted.is_some()))
            })
            .collect();
        for (name, pid, is_adopted) in running {
            match is_adopted {
                true => self.look_after_adopted(&name, pid, now),
                false => self.look_after_own(&name, pid, now),
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            // One of ours that ended since the look above?
            if let Some(name) = self
                .children
                .by_pid(pid.as_raw_nonzero().get())
                .map(|child| child.name().to_owned())
            {
                takeover::kill_rest(pid.as_raw_nonzero().get());
                self.ended(&name, status.exit_status(), status.terminating_signal(), now);
            }
        }
    }

    /// Its group is killed while it still is a zombie: as long as it is, nobody else can get its id.
    fn look_after_own(&mut self, name: &str, pid: Pid, now: Instant) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let (code, signal) = match rustix::process::waitid(WaitId::Pid(pid), options) {
            Ok(Some(status)) => (status.exit_status(), status.terminating_signal()),
            Err(Errno::CHILD) => (None, None),
            Ok(None) | Err(_) => return,
        };
        kill_group(pid);
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        self.ended(name, code, signal, now);
    }

    fn look_after_adopted(&mut self, name: &str, pid: Pid, now: Instant) {
        let has_ended = self
            .children
            .get(name)
            .and_then(|child| child.adopted.as_ref())
            .is_some_and(takeover::has_ended);
        if has_ended {
            takeover::kill_rest(pid.as_raw_nonzero().get());
            self.ended(name, None, None, now);
        }
    }

    fn ended(&mut self, name: &str, code: Option<i32>, signal: Option<i32>, now: Instant) {
        self.changed();
        if let Some(exit) = self.children.ended(name, code, signal, now) {
            log::info(
                "ended",
                json!({"name": name, "code": exit.code, "signal": exit.signal, "was_asked": exit.was_asked}),
            );
        }
        if self.is_stopping {
            self.children.settle();
        }
        self.groups.leave(name);
        let children = &self.children;
        let is_inherited = |listener: &str| {
            children
                .running()
                .any(|child| child.state.spec.listeners.iter().any(|name| name == listener))
        };
        for (listener, error) in self.listeners.wake_orphans(is_inherited) {
            match error {
                None => log::info(
                    "a deferred listener listens: its last inheritor is gone",
                    json!({"listener": listener}),
                ),
                Some(error) => log::error(
                    "cannot listen",
                    json!({"listener": listener, "because": error.to_string()}),
                ),
            }
        }
    }

    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.is_changed = true;
    }

    fn do_what_is_due(&mut self, now: Instant) {
        for name in self.children.kill_late(now) {
            log::warn("did not stop in time: killed", json!({"name": name}));
        }
        if self.is_stopping {
            self.stop_next(now);
        } else {
            self.watch_agent(now);
            for spec in self.children.due(now) {
                self.start_again(&spec, now);
            }
        }
        if self.next_housekeeping <= now {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.rotate_output();
            let children = &self.children;
            self.groups.sweep(|name| children.runs(name).is_ok_and(|pid| pid.is_none()));
            self.is_changed |= self.is_unsaved;
        }
    }

    fn watch_agent(&mut self, now: Instant) {
        let (agent, allowed) = (&self.options.agent.name, self.options.silence);
        if self.children.kill_if_silent(agent, now, allowed) {
            log::warn(
                "the agent gave no sign of life: killed",
                json!({"seconds": allowed.as_secs_f64()}),
            );
        }
    }

    fn start_again(&mut self, spec: &ProcessSpec, now: Instant) {
        if let Err(because) = self.start(spec, now) {
            log::error(
                "cannot start it again",
                json!({"name": spec.name, "because": because.to_string()}),
            );
            self.children.retry_later(&spec.name, now);
        }
    }

    fn stop_next(&mut self, now: Instant) {
        for name in self.children.next_to_stop(&self.options.agent.name) {
            log::info("stopping", json!({"name": name}));
            self.is_changed = true;
            if let Err(because) = self.children.stop(&name, false, now) {
                log::error(
                    "cannot ask it to stop",
                    json!({"name": name, "because": because.to_string()}),
                );
            }
        }
    }

    fn rotate_output(&self) {
        let outputs = self
            .children
            .running()
            .map(|child| (&child.state.spec.output, child.state.spec.output_limit));
        for (path, limit) in
            outputs.chain(self.own_output.iter().map(|path| (path, OWN_OUTPUT_LIMIT)))
        {
            if let Err(error) = output::rotate(path, limit) {
                log::warn(
                    "cannot keep the tail of an output file",
                    json!({"path": path.display().to_string(), "because": error.to_string()}),
                );
            }
        }
    }

    fn shut_down(&mut self) {
        if !self.is_stopping {
            log::info("shutting down", json!({"running": self.children.running().count()}));
            self.is_stopping = true;
            self.children.settle();
        }
    }

    fn save(&mut self) -> std::io::Result<()> {
        let stored = state::Stored {
            version: state::VERSION,
            boot: proc_stat::boot(),
            generation: self.generation,
            processes: self.children.stored(),
            listeners: self.listeners.stored(),
        };
        self.is_changed = false;
        state::save(&self.options.state, &stored)
    }

    /// A full disk must not end the keeper: it says so once and goes on trying.
    fn save_or_warn(&mut self) {
        let saved = self.save();
        if let (Err(error), false) = (&saved, self.is_unsaved) {
            log::error(
                "cannot write the state file: the next keeper would not know of what starts now",
                json!({"path": self.options.state.display().to_string(), "because": error.to_string()}),
            );
        }
        self.is_unsaved = saved.is_err();
    }

    /// What children left behind in sessions of their own has become ours: it ends with us. Then the files go.
    fn clean_up(&mut self) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        for _ in 0..BURIAL_TRIES {
            let strays: Vec<Pid> = proc_stat::all()
                .filter(|(_, stat)| stat.parent == own)
                .filter_map(|(pid, _)| Pid::from_raw(pid))
                .collect();
            if strays.is_empty() {
                break;
            }
            for pid in strays {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
            std::thread::sleep(BURIAL_PAUSE);
        }
        self.listeners.close_all();
        self.groups.end();
        let _ = std::fs::remove_file(&self.options.socket);
        let _ = std::fs::remove_file(&self.options.state);
    }
}

fn refuse_leftovers(processes: &[state::Process]) -> Result<(), Error> {
    let lives = |process: &&state::Process| {
        process.state.pid.is_some_and(|pid| takeover::open_same(pid, process.ticks).is_some())
    };
    let name = |process: &state::Process| {
        format!("{} (pid {})", process.state.spec.name, process.state.pid.unwrap_or(0))
    };
    let names: Vec<String> = processes.iter().filter(lives).map(name).collect();
    if names.is_empty() { Ok(()) } else { Err(Error::Leftover { names: names.join(", ") }) }
}
