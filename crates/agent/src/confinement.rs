//! What a site's PHP may see and take of this machine: composed here, applied by [`crate::keeper`].
//!
//! It is here and not in `render` or `plan`, because it is made of nothing but paths of [`Layout`] and of the distribution; it
//! is pure all the same ([`of_site`]). What the machine can do is found out by trying ([`means`]) and written into each
//! version of a site, so that a version starts again as it was first started.
//!
//! Always: the code is at [`CODE`], whichever release it is. Everything else is where it is outside, so that addresses in
//! configurations hold on both sides. Of the folders that a site can write none holds another place. Sockets are reached through
//! their folders: servers make them anew when they start, and a bound file would stay the old one.

pub mod etc;

use std::path::{Path, PathBuf};

use pressroom_model::confinement::{Access, Confinement, Limits, Place, View};
use pressroom_model::id::{InstanceId, SiteName};
use pressroom_model::process::{ProcessSpec, Restart, Stop};
use pressroom_plan::machine::{REDIS_CACHE, REDIS_SESSIONS, instance_process};
use serde::{Deserialize, Serialize};

use crate::keeper::{self, LaunchError};
use crate::layout::Layout;

/// Where a confined PHP sees its site's code.
pub const CODE: &str = "/srv/site";

/// Programs and libraries.
pub(crate) const SYSTEM: [&str; 7] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Bytes of named shared memory.
const SHARED: u64 = 64 << 20;
/// Data of libraries beyond `/usr` and `/etc`.
const DATA: [&str; 3] = ["/var/cache/fontconfig", "/var/lib/fonts", "/var/lib/ghostscript"];

/// Which parts of a confinement this machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Means {
    /// A file system of its own.
    #[serde(default)]
    pub view: bool,
    /// Process ids and a `/proc` of its own.
    #[serde(default)]
    pub processes: bool,
    /// Shared memory of its own.
    #[serde(default)]
    pub ipc: bool,
    /// A filter of system calls.
    #[serde(default)]
    pub calls: bool,
}

impl Means {
    /// All of it, which a container has whatever the machine lets us do.
    pub const ALL: Self = Self { view: true, processes: true, ipc: true, calls: true };

    fn and(self, other: Self) -> Self {
        Self {
            view: self.view | other.view,
            processes: self.processes | other.processes,
            ipc: self.ipc | other.ipc,
            calls: self.calls | other.calls,
        }
    }

    /// Where PHP sees the code, if elsewhere than everybody.
    pub fn php_root(self) -> Option<PathBuf> {
        self.view.then(|| CODE.into())
    }
}

/// Who is confined.
#[derive(Debug, Clone, Copy)]
pub enum Inhabitant<'a> {
    /// One of the site's instances.
    Instance(&'a InstanceId),
    /// Its author instance, which writes code.
    Author(&'a InstanceId),
    /// One of our scripts.
    Script,
}

/// The confinement of a site's PHP; `code` is where its code is on the machine.
pub fn of_site(
    layout: &Layout,
    (site, code): (&SiteName, &Path),
    inhabitant: Inhabitant<'_>,
    means: Means,
    limits: Limits,
) -> Confinement {
    Confinement {
        view: means.view.then(|| View {
            stage: layout.stage(),
            places: places(layout, (site, code), inhabitant, means),
        }),
        own_processes: means.processes,
        own_ipc: means.ipc,
        filters_calls: means.calls,
        limits,
    }
}

fn places(
    layout: &Layout,
    (site, code): (&SiteName, &Path),
    inhabitant: Inhabitant<'_>,
    means: Means,
) -> Vec<Place> {
    let same = |path: PathBuf, access| bind(path.clone(), path, access);
    let mut places: Vec<Place> = SYSTEM.iter().map(|path| where_there(path, Access::Run)).collect();
    places.push(bind(layout.site_etc(site), "/etc".into(), Access::Read));
    places
        .extend(etc::FOLDERS.iter().map(|name| where_there(format!("/etc/{name}"), Access::Read)));
    places.extend(DATA.iter().map(|path| where_there(path, Access::Read)));
    places.push(Place::Devices);
    places.push(Place::Memory { to: "/dev/shm".into(), bytes: SHARED });
    places.push(match means.processes {
        true => Place::Processes,
        false => where_there("/proc", Access::Read),
    });
    // Nothing of ours may be seen through a folder of the system.
    if SYSTEM.iter().any(|system| layout.data().starts_with(system)) {
        places.push(Place::Hidden { to: layout.data().to_owned() });
    }
    let is_author = matches!(inhabitant, Inhabitant::Author(_));
    let access = if is_author { Access::Write } else { Access::Run };
    places.push(bind(code.to_owned(), CODE.into(), access));
    places.extend([
        same(layout.site(site).join("config"), Access::Read),
        same(folder_of(&layout.affirm(site)), Access::Read),
        same(folder_of(&layout.writer()), Access::Read),
        same(folder_of(&layout.redis(REDIS_CACHE)), Access::Read),
        same(folder_of(&layout.redis(REDIS_SESSIONS)), Access::Read),
        same(layout.uploads(site), Access::Write),
        same(layout.tmp(site), Access::Write),
        same(layout.site_logs(site), Access::Write),
        // Only an environment has one.
        where_there(layout.mailbox(site), Access::Write),
    ]);
    match inhabitant {
        Inhabitant::Instance(id) | Inhabitant::Author(id) => places.extend([
            same(layout.engine(&instance_process(id)), Access::Read),
            same(layout.instance_run(id), Access::Write),
        ]),
        Inhabitant::Script => places.extend([
            same(layout.engine("wordpress"), Access::Read),
            where_there(layout.php_ini(site), Access::Read),
        ]),
    }
    // Its links to them lead there; the copy of the author instance has folders of its own.
    if let Some(release) = code.file_name().filter(|_| !is_author) {
        let scratch = layout.site(site).join("scratch").join(release);
        places.push(where_there(scratch, Access::Write));
    }
    if is_author {
        places.push(same(layout.author(site), Access::Read));
    }
    // What does not ask where temporary files belong. A folder that the site can write cannot hold the others.
    for path in ["/tmp", "/var/tmp"] {
        if !layout.data().starts_with(path) {
            places.push(bind(layout.tmp(site), path.into(), Access::Write));
        }
    }
    places
}

/// What a process sees that compiles code and does not run it: the code, where it is kept and where it is seen, and one script.
pub fn of_compiler(
    code: &Path,
    (kept, seen_at): (&Path, &Path),
    script: &Path,
    means: Means,
) -> Vec<Place> {
    let mut places: Vec<Place> = SYSTEM.iter().map(|path| where_there(path, Access::Run)).collect();
    for path in ["/etc/php", "/etc/alternatives", "/etc/ld.so.cache"] {
        places.push(where_there(path, Access::Read));
    }
    places.push(Place::Devices);
    if means.processes {
        places.push(Place::Processes);
    }
    places.push(Place::Memory { to: "/tmp".into(), bytes: SHARED });
    if !script.starts_with("/usr") {
        places.push(bind(script.to_owned(), script.to_owned(), Access::Read));
    }
    places.push(bind(code.to_owned(), CODE.into(), Access::Read));
    places.push(bind(kept.to_owned(), seen_at.to_owned(), Access::Write));
    places
}

fn folder_of(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(socket).to_owned()
}

fn bind(from: PathBuf, to: PathBuf, access: Access) -> Place {
    Place::Bind { from, to, access, if_there: false }
}

fn where_there(path: impl AsRef<Path>, access: Access) -> Place {
    let path = path.as_ref().to_owned();
    Place::Bind { from: path.clone(), to: path, access, if_there: true }
}

/// What this machine can do, found out by doing it, and what it cannot, with the kernel's words. Only for root.
pub fn means() -> (Means, Vec<String>) {
    let (mut means, mut missing) = (Means::default(), Vec::new());
    let parts = [
        ("file systems of their own", Means { view: true, ..Means::default() }),
        ("process ids of their own", Means { processes: true, ..Means::default() }),
        ("shared memory of their own", Means { ipc: true, ..Means::default() }),
        ("a filter of system calls", Means { calls: true, ..Means::default() }),
    ];
    for (what, part) in parts {
        let more = means.and(part);
        match attempt(more) {
            Ok(()) => means = more,
            Err(because) => missing.push(format!("{what} ({because})")),
        }
    }
    (means, missing)
}

/// Runs a program that does nothing, confined as PHP would be.
fn attempt(means: Means) -> Result<(), String> {
    // A folder that is surely there. Nothing is seen of this outside of the attempt.
    let stage = PathBuf::from("/tmp");
    let mut places: Vec<Place> = SYSTEM.iter().map(|path| where_there(path, Access::Run)).collect();
    places.push(Place::Devices);
    if means.processes {
        places.push(Place::Processes);
    }
    let spec = ProcessSpec {
        name: "attempt".into(),
        program: "/bin/true".into(),
        args: vec![],
        env: [].into(),
        cwd: None,
        user: None,
        confinement: Some(Confinement {
            view: means.view.then_some(View { stage, places }),
            own_processes: means.processes,
            own_ipc: means.ipc,
            filters_calls: means.calls,
            limits: Limits::default(),
        }),
        listeners: vec![],
        umask: 0o022,
        open_files: None,
        output: "/dev/null".into(),
        output_limit: u64::MAX,
        stop: Stop::default(),
        restart: Restart::Never,
    };
    keeper::attempt(&spec).map_err(|error| match error {
        // Which step it was is no news to whoever reads what is missing.
        LaunchError::Step { source, .. } | LaunchError::System { source, .. } => source.to_string(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees(layout: &Layout) -> Vec<Place> {
        seen_by(layout, Inhabitant::Instance(&id()))
    }

    fn id() -> InstanceId {
        InstanceId::of(&"blog".parse().expect("a good name"), 1)
    }

    fn seen_by(layout: &Layout, inhabitant: Inhabitant<'_>) -> Vec<Place> {
        let site: SiteName = "blog".parse().expect("a good name");
        let of = of_site(
            layout,
            (&site, Path::new("/d/release")),
            inhabitant,
            Means { view: true, processes: true, ipc: true, calls: true },
            Limits::default(),
        );
        of.view.expect("a view").places
    }

    #[test]
    fn a_site_sees_of_the_data_directory_what_is_its_own_and_the_sockets() {
        let layout = Layout::new("/d");
        let seen: Vec<_> = sees(&layout)
            .into_iter()
            .filter_map(|place| match place {
                Place::Bind { from, to, access, .. } if from.starts_with("/d") => {
                    Some(format!("{} at {} to {access:?}", from.display(), to.display()))
                }
                _ => None,
            })
            .collect();
        let expected = [
            "/d/sites/blog/etc at /etc to Read",
            "/d/release at /srv/site to Run",
            "/d/sites/blog/config at /d/sites/blog/config to Read",
            "/d/run/affirm/blog at /d/run/affirm/blog to Read",
            "/d/run/mariadb at /d/run/mariadb to Read",
            "/d/run/redis-cache at /d/run/redis-cache to Read",
            "/d/run/redis-sessions at /d/run/redis-sessions to Read",
            "/d/sites/blog/uploads at /d/sites/blog/uploads to Write",
            "/d/sites/blog/tmp at /d/sites/blog/tmp to Write",
            "/d/sites/blog/logs at /d/sites/blog/logs to Write",
            "/d/sites/blog/mail at /d/sites/blog/mail to Write",
            "/d/engines/php-blog-1 at /d/engines/php-blog-1 to Read",
            "/d/run/php/blog-1 at /d/run/php/blog-1 to Write",
            "/d/sites/blog/scratch/release at /d/sites/blog/scratch/release to Write",
            "/d/sites/blog/tmp at /tmp to Write",
            "/d/sites/blog/tmp at /var/tmp to Write",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_author_instance_alone_can_write_code_and_reach_the_desk() {
        let layout = Layout::new("/d");
        let writes_code = |inhabitant: Inhabitant<'_>| {
            let places = seen_by(&layout, inhabitant);
            let desk = places.iter().any(|place| place.to() == Path::new("/d/authors/blog"));
            let writable =
                |place: &Place| matches!(place, Place::Bind { access: Access::Write, .. });
            let code = places.iter().any(|place| place.to() == Path::new(CODE) && writable(place));
            (desk, code)
        };
        assert_eq!(writes_code(Inhabitant::Author(&id())), (true, true));
        assert_eq!(writes_code(Inhabitant::Instance(&id())), (false, false));
        assert_eq!(writes_code(Inhabitant::Script), (false, false));
    }

    #[test]
    fn a_data_directory_in_a_folder_that_is_seen_anyway_is_hidden_first() {
        let hidden = |data: &str| {
            let places = sees(&Layout::new(data));
            let at = places.iter().position(|place| matches!(place, Place::Hidden { .. }));
            at.zip(places.iter().position(|place| place.to() == Path::new(CODE)))
        };
        assert_eq!(hidden("/var/lib/pressroom"), None);
        assert!(hidden("/usr/local/pressroom").is_some_and(|(hidden, code)| hidden < code));
    }

    #[test]
    fn nothing_is_in_a_folder_that_the_site_can_write() {
        for data in ["/var/lib/pressroom", "/tmp/a/data", "/var/tmp/data", "/srv/pressroom"] {
            let places = sees(&Layout::new(data));
            for (index, place) in places.iter().enumerate() {
                let holder = places[..index].iter().find(|before| {
                    matches!(before, Place::Bind { access: Access::Write, .. })
                        && place.to().starts_with(before.to())
                });
                assert_eq!(holder, None, "{data}: {place:?}");
            }
        }
    }
}
