//! One php-fpm instance: static workers, a socket that only the edge and the site reach, its own opcache, confined as its
//! version says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pressroom_model::config::{Site, SiteSecrets};
use pressroom_model::confinement::Confinement;
use pressroom_model::id::{InstanceId, ReleaseId};
use pressroom_model::process::{ProcessSpec, Stop, UserIds};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::{REDIS_SESSIONS, instance_process};
use pressroom_render::php;
use serde::Deserialize;

use super::{Error, fingerprint, owner, program, run, spec, write_checked};
use crate::bytecode;
use crate::confinement::{self, Inhabitant, Means};
use crate::container::{self, Docker};
use crate::fastcgi;
use crate::files;
use crate::keeper::confine;
use crate::layout::Layout;

/// What code an instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A release: nobody writes it, so no file is looked at twice.
    Release(ReleaseId),
    /// The author instance's tree, which it writes itself; with the group that alone gets near it.
    Author(Option<u32>),
}

/// That instances are containers.
#[derive(Debug, Clone)]
pub struct Container {
    /// Whose.
    pub docker: Docker,
    /// Of which image.
    pub image: String,
    /// Whether the machine can check their files as they will see them.
    pub can_confine: bool,
}

/// What all instances of a site have in common.
#[derive(Debug, Clone)]
pub struct Instances {
    layout: Layout,
    site: Site,
    code: Code,
    user: Option<UserIds>,
    edge_gid: Option<u32>,
    ini: String,
    means: Means,
    container: Option<Container>,
    fingerprint: String,
    /// Its code, compiled before.
    bytecode: Option<PathBuf>,
    /// What need not be checked again.
    sound: Option<Sound>,
}

impl Instances {
    /// The instances of a site as wanted. `site_config` is the rendered `config/site.php`: when it changes, the
    /// instances are replaced, as they never look at a file twice.
    pub fn new(
        layout: &Layout,
        site: &Site,
        code: Code,
        secrets: &SiteSecrets,
        users: (Option<UserIds>, Option<u32>),
        site_config: &str,
        (means, container): (Means, Option<Container>),
    ) -> Self {
        let (user, edge_gid) = users;
        let folder = layout.site(&site.name);
        let author = layout.author(&site.name);
        let run_folder = layout.run();
        let shared = [
            folder.as_path(),
            author.as_path(),
            run_folder.as_path(),
            Path::new("/usr/share/php"),
            Path::new("/tmp"),
        ];
        let ini = php::ini(&php::IniFacts {
            site,
            tmp: &layout.tmp(&site.name),
            sessions_socket: &layout.redis(REDIS_SESSIONS),
            sessions_user: &format!("site-{}", site.name),
            sessions_password: secrets.redis.reveal(),
            mailbox: &layout.mailbox(&site.name),
            confined_to: user.is_none().then_some(&shared[..]),
            is_author: matches!(code, Code::Author(_)),
        });
        let mut instances = Self {
            layout: layout.clone(),
            site: site.clone(),
            code,
            user,
            edge_gid,
            ini,
            means,
            container,
            fingerprint: String::new(),
            bytecode: None,
            sound: None,
        };
        let sample_id = InstanceId::of(&site.name, 0);
        let sample = instances.pool(&sample_id);
        let confinement = serde_json::to_string(&instances.confinement(&sample_id));
        let confinement = confinement.expect("a confinement is plain data");
        let mut parts = vec![
            instances.ini.as_str(),
            &sample,
            site_config,
            match &instances.code {
                Code::Release(id) => id.as_str(),
                Code::Author(_) => "author",
            },
            &site.php.version,
            &confinement,
        ];
        if let Some(container) = &instances.container {
            parts.push(&container.image);
        }
        // The same version has the same name on all nodes, wherever their data is: another leader finds nothing changed.
        let data = layout.data().display().to_string();
        let parts: Vec<String> = parts.iter().map(|part| part.replace(&data, "{data}")).collect();
        let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
        instances.fingerprint = fingerprint(&parts);
        instances
    }

    /// What must be equal for a running instance to be a wanted one.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The same, known by the name that its version was given when it was made: templates may have changed since.
    pub fn named(self, fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.to_owned(), ..self }
    }

    /// The same, with what was compiled of their code: they run the same with it, only sooner.
    pub fn reading(self, bytecode: Option<PathBuf>) -> Self {
        Self { bytecode, ..self }
    }

    /// The same, of which php-fpm has perhaps judged such a configuration before.
    pub fn judged(self, sound: &Sound) -> Self {
        Self { sound: Some(sound.clone()), ..self }
    }

    /// What is php-fpm's to judge: the same for all instances with these settings, whatever their number and release.
    fn judgeable(&self, server: &Path) -> String {
        let changed = std::fs::metadata(server).and_then(|meta| meta.modified()).ok();
        let server = format!("{} {changed:?}", server.display());
        let pool = self.pool(&InstanceId::of(&self.site.name, 0));
        fingerprint(&[server.as_bytes(), self.ini.as_bytes(), pool.as_bytes()])
    }

    /// Gives the command line's PHP of the site these `php.ini` values: those of the version that serves.
    pub fn write_cli_ini(&self) -> Result<(), Error> {
        let readable = self.user.as_ref().map(|user| (0, user.gid));
        self.write_ini(&self.layout.php_ini(&self.site.name), readable)
    }

    fn write_ini(&self, folder: &Path, readable: files::Owner) -> Result<(), Error> {
        files::folder(folder, 0o750, readable)?;
        // What the site can write may change, though code does not: it is read each time.
        let list = folder.join("opcache.list");
        let site = self.layout.site(&self.site.name);
        let written = format!("{0}/scratch/*\n{0}/uploads/*\n", site.display());
        files::write(&list, written.as_bytes(), 0o640, readable)?;
        let ini = format!("{}\nopcache.blacklist_filename = {}\n", self.ini, list.display());
        files::write(&folder.join("90-pressroom.ini"), ini.as_bytes(), 0o640, readable)?;
        Ok(())
    }

    /// Where nobody has a user of its own, nobody is confined.
    fn confinement(&self, id: &InstanceId) -> Option<Confinement> {
        self.user.as_ref()?;
        Some(confinement::of_site(
            &self.layout,
            (&self.site.name, &self.root()),
            match &self.code {
                Code::Release(_) => Inhabitant::Instance(id),
                Code::Author(_) => Inhabitant::Author(id),
            },
            self.means,
            self.site.php.most(),
        ))
    }

    fn pool(&self, id: &InstanceId) -> String {
        let name = &self.site.name;
        let desk = self.layout.author_desk(name);
        php::pool(&php::Facts {
            site: &self.site,
            id,
            root: &self.means.php_root().unwrap_or_else(|| self.root()),
            author: matches!(self.code, Code::Author(_)).then_some(&*desk),
            socket: &self.layout.instance_socket(id),
            status_socket: &self.layout.instance_status(id),
            slow_log: &self.layout.slow_log(name),
            tmp: &self.layout.tmp(name),
            affirm: &self.layout.affirm(name),
            config: &self.layout.site_config(name),
        })
    }

    /// The folder of WordPress's `index.php`, seen from outside.
    pub fn root(&self) -> PathBuf {
        match &self.code {
            Code::Release(id) => self.layout.site_root(&self.site.name, id),
            Code::Author(_) => self.layout.author_root(&self.site.name),
        }
    }

    fn server(&self) -> Result<PathBuf, Error> {
        program(&[&format!("/usr/sbin/php-fpm{}", self.site.php.version)])
    }

    /// Folders for the distribution's ini files, then `ours`, so that ours count.
    pub fn ini_scan_dir(site: &Site, ours: &Path, sapi: &str) -> String {
        format!("/etc/php/{}/{sapi}/conf.d:{}", site.php.version, ours.display())
    }

    /// Has an instance read its bytecode.
    fn add_bytecode(
        &self,
        ini_folder: &Path,
        confinement: Option<&mut Confinement>,
        readable: files::Owner,
    ) -> Result<(), Error> {
        let ini = ini_folder.join("91-bytecode.ini");
        let view = confinement.and_then(|confinement| confinement.view.as_mut());
        match (&self.bytecode, view) {
            (Some(bytecode), Some(view)) => {
                view.places.extend(bytecode::places(bytecode));
                let text = format!("opcache.file_cache = {}\n", bytecode::SEEN_AT);
                files::write(&ini, text.as_bytes(), 0o640, readable)?;
            }
            // Of an instance that had this number before.
            _ if ini.exists() => std::fs::remove_file(&ini)?,
            _ => {}
        }
        Ok(())
    }

    /// Writes and checks an instance's files, and says how to start it.
    pub fn prepare(&self, id: &InstanceId) -> Result<ProcessSpec, Error> {
        let process = instance_process(id);
        let ours = owner(self.user.as_ref());
        let gid = match &self.code {
            Code::Author(gid) => *gid,
            Code::Release(_) => self.user.as_ref().map(|user| user.gid),
        };
        let readable = gid.map(|gid| (0, gid));
        let folder = self.layout.engine(&process);
        files::folder(&folder, 0o750, readable)?;
        // Its own: a candidate's values must not reach the instances that serve.
        let ini_folder = folder.join("ini");
        self.write_ini(&ini_folder, readable)?;
        let run_folder = self.layout.instance_run(id);
        let entrance = self.user.as_ref().map(|user| (user.uid, self.edge_gid.unwrap_or(user.gid)));
        match &self.code {
            Code::Release(_) => files::folder(&run_folder, 0o750, entrance)?,
            // Who could talk to it could have it run anything: not even the site's other instances get in.
            Code::Author(gid) => files::folder(&run_folder, 0o770, gid.map(|gid| (0, gid)))?,
        }
        // php-fpm opens its log files itself, as the site.
        files::folder(&self.layout.site_logs(&self.site.name), 0o750, ours)?;
        let mut confinement = self.confinement(id);
        self.add_bytecode(&ini_folder, confinement.as_mut(), readable)?;
        let mut user = self.user.clone();
        if let (Some(user), Code::Author(Some(gid))) = (&mut user, &self.code) {
            user.groups.push(*gid);
        }
        let server = self.server()?;
        let scan = Self::ini_scan_dir(&self.site, &ini_folder, "fpm");
        let path = folder.join("fpm.conf");
        let judgeable = self.judgeable(&server);
        let is_sound = self.sound.as_ref().is_some_and(|sound| sound.has(&judgeable));
        write_checked(&path, &self.pool(id), 0o640, readable, |candidate| {
            if is_sound {
                return Ok(());
            }
            let mut command = Command::new(&server);
            command
                .args(["-t", "--fpm-config"])
                .arg(candidate)
                .env_clear()
                .env("PHP_INI_SCAN_DIR", &scan)
                .current_dir("/");
            let can_confine = self.container.as_ref().is_none_or(|it| it.can_confine);
            if !can_confine {
                // Its check by pages tells.
                return Ok(());
            }
            if let Some(confinement) = &confinement {
                confine(&mut command, confinement, user.as_ref(), Path::new("/"))?;
            }
            run("php-fpm", "its configuration", &mut command)?;
            if let Some(sound) = &self.sound {
                sound.add(judgeable);
            }
            Ok(())
        })?;
        let arguments = vec![
            "--nodaemonize".into(),
            "--force-stderr".into(),
            "--fpm-config".into(),
            path.display().to_string(),
        ];
        let mut spec =
            spec(&process, server, arguments, &self.fingerprint, self.layout.output(&process));
        spec.env.insert("PHP_INI_SCAN_DIR".into(), scan);
        match (&self.container, confinement, user) {
            (Some(container), Some(confinement), Some(user)) => {
                self.contain(container, &mut spec, &confinement, &user)?;
            }
            (_, confinement, user) => (spec.user, spec.confinement) = (user, confinement),
        }
        // SIGQUIT: finish the requests at hand.
        spec.stop = Stop { signal: 3, grace_ms: 12_000 };
        Ok(spec)
    }

    /// Makes of a process a container that runs it, with Docker's client as the process.
    fn contain(
        &self,
        container: &Container,
        spec: &mut ProcessSpec,
        confinement: &Confinement,
        user: &UserIds,
    ) -> Result<(), Error> {
        let docker = &container.docker;
        docker.make_room(&spec.name)?;
        docker.ensure(&container.image, &self.site.php.version)?;
        let program = std::iter::once(spec.program.display().to_string());
        let command: Vec<String> = program.chain(spec.args.iter().cloned()).collect();
        spec.args = docker.run(&container::Inside {
            process: &spec.name,
            image: &container.image,
            user,
            confinement,
            env: &spec.env,
            command: &command,
            umask: spec.umask,
        })?;
        spec.program = Docker::client()?;
        spec.env.extend(docker.variables());
        Ok(())
    }
}

/// Configurations that php-fpm took, since the agent runs: a new instance of theirs need not wait for another look.
#[derive(Debug, Clone, Default)]
pub struct Sound(Arc<Mutex<BTreeSet<String>>>);

impl Sound {
    fn has(&self, judgeable: &str) -> bool {
        self.0.lock().contains(judgeable)
    }

    fn add(&self, judgeable: String) {
        self.0.lock().insert(judgeable);
    }
}

/// php-fpm's status page, as far as we read it.
#[derive(Debug, Deserialize)]
struct FpmStatus {
    #[serde(rename = "active processes")]
    active: u32,
    #[serde(rename = "total processes")]
    total: u32,
    #[serde(rename = "listen queue")]
    queued: u32,
}

/// The real question: the status page on its own socket, which answers while every worker is busy.
/// Also says how many workers have a request.
pub async fn probe(layout: &Layout, id: &InstanceId) -> (Answer, u32) {
    let socket = layout.instance_status(id);
    let ask = fastcgi::get(
        &socket,
        &[
            ("SCRIPT_NAME", "/status"),
            ("SCRIPT_FILENAME", "/status"),
            ("REQUEST_URI", "/status"),
            ("QUERY_STRING", "json"),
            ("REQUEST_METHOD", "GET"),
        ],
    );
    let body = match tokio::time::timeout(Duration::from_secs(2), ask).await {
        Err(_) => return (Answer::Badly("its status page took more than 2 s".into()), 0),
        Ok(Err(error)) => return (Answer::Badly(error.to_string()), 0),
        Ok(Ok(answer)) => answer.body,
    };
    match serde_json::from_slice::<FpmStatus>(&body) {
        Ok(status) if status.active >= status.total && status.queued > 0 => {
            (Answer::Busy, status.active)
        }
        Ok(status) => (Answer::Well, status.active),
        Err(error) => (Answer::Badly(format!("its status page makes no sense: {error}")), 0),
    }
}
