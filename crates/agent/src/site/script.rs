//! Our own PHP scripts (install, cron), run as the site's user with the site's environment and confinement. Secrets go in by standard
//! input, answers come out as JSON; what PHP says besides is in the error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pressroom_model::confinement::{Access, Confinement, Place};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::process::{ProcessSpec, Restart, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::Agent;
use crate::confinement::{self, Inhabitant, Means};
use crate::facts::{Prepared, Release};
use crate::files;
use crate::keeper::{confine, limit};

/// Why a script did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It could not be run.
    #[error("cannot run {script} for `{site}`: {source}")]
    Run {
        /// Which script.
        script: String,
        /// For which site.
        site: SiteName,
        /// The system's word.
        source: std::io::Error,
    },
    /// It failed.
    #[error("{script} for `{site}` failed ({status}): {said}")]
    Failed {
        /// Which script.
        script: String,
        /// For which site.
        site: SiteName,
        /// Exit status or signal.
        status: String,
        /// PHP's own words.
        said: String,
    },
    /// It took too long and was killed.
    #[error("{script} for `{site}` did not end within {seconds} s and was killed")]
    TooLong {
        /// Which script.
        script: String,
        /// For which site.
        site: SiteName,
        /// The limit.
        seconds: u64,
    },
}

/// An argument that stands for the folder of the site's WordPress.
pub(super) const ROOT: &str = "{root}";
/// Where a confined wp-cli sees its own phar.
const WP_CLI: &str = "/srv/wp-cli.phar";
/// The script that runs scheduled events.
pub(super) const CRON: &str = "cron.php";
/// The variable with the name of the site.
const SITE: &str = "PRESSROOM_SITE";
const LIMIT: Duration = Duration::from_secs(300);
/// The same for scheduled events: a backup takes its time.
const CRON_LIMIT: Duration = Duration::from_secs(3600);
/// The same for a command around a deploy, in seconds: less, so that `timeout` ends all of it before we end `timeout`.
const HOOK_LIMIT: u64 = 290;
/// What `timeout` ends with when time was up.
const TIME_IS_UP: &str = "exit status: 124";
const MOST: u64 = 4 << 20;

impl Agent {
    /// Runs one of our scripts for a site, and returns what it printed.
    pub(crate) async fn run_script(
        &self,
        name: &SiteName,
        script: &str,
        arguments: &[&str],
        input: Vec<u8>,
    ) -> Result<Vec<u8>, ScriptError> {
        let fail =
            |source| ScriptError::Run { script: script.to_owned(), site: name.clone(), source };
        let command = self.command(name, script, arguments).map_err(fail)?;
        self.run_command(name, script, command, input).await
    }

    /// Runs a command around a deploy in the code of a release, as the site's user, and returns what it said.
    pub async fn run_hook(
        &self,
        name: &SiteName,
        release: &ReleaseId,
        hook: &str,
    ) -> Result<String, ScriptError> {
        let label = format!("`{hook}`");
        let fail = |source| ScriptError::Run { script: label.clone(), site: name.clone(), source };
        let prepared = self.state.lock().sites.get(name).and_then(|facts| facts.prepared.clone());
        let not_yet = || fail(std::io::Error::other("the site is not prepared yet"));
        let prepared = prepared.ok_or_else(not_yet)?;
        // `timeout` ends what the shell has started with it.
        let mut command = tokio::process::Command::new("/usr/bin/timeout");
        command.args(["--kill-after=5", &HOOK_LIMIT.to_string(), "/bin/sh", "-c"]);
        command.arg(format!("exec 2>&1\n{hook}"));
        self.outfit(&mut command, name, &prepared, (release, self.means())).map_err(fail)?;
        command.env("PRESSROOM_RELEASE", release.as_str());
        match self.run_command(name, &label, command, Vec::new()).await {
            Ok(said) => Ok(String::from_utf8_lossy(&said).trim().to_owned()),
            Err(ScriptError::Failed { site, status, .. }) if status == TIME_IS_UP => {
                Err(ScriptError::TooLong { script: label, site, seconds: HOOK_LIMIT })
            }
            Err(error) => Err(error),
        }
    }

    async fn run_command(
        &self,
        name: &SiteName,
        script: &str,
        mut command: tokio::process::Command,
        input: Vec<u8>,
    ) -> Result<Vec<u8>, ScriptError> {
        let fail =
            |source| ScriptError::Run { script: script.to_owned(), site: name.clone(), source };
        let mut child = command.spawn().map_err(fail)?;
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            if let Some(stdin) = &mut stdin {
                // A script that does not read is no fault.
                let _ = stdin.write_all(&input).await;
            }
            drop(stdin);
            let (mut answer, mut said) = (Vec::new(), Vec::new());
            let read = async {
                if let Some(stdout) = stdout {
                    stdout.take(MOST).read_to_end(&mut answer).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let hear = async {
                if let Some(stderr) = stderr {
                    stderr.take(MOST).read_to_end(&mut said).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            tokio::try_join!(read, hear)?;
            let status = child.wait().await?;
            Ok::<_, std::io::Error>((status, answer, said))
        };
        let limit = if script == CRON { CRON_LIMIT } else { LIMIT };
        let (status, answer, mut said) = match tokio::time::timeout(limit, work).await {
            Ok(ended) => ended.map_err(fail)?,
            Err(_) => {
                let seconds = limit.as_secs();
                return Err(ScriptError::TooLong {
                    script: script.to_owned(),
                    site: name.clone(),
                    seconds,
                });
            }
        };
        if status.success() {
            return Ok(answer);
        }
        if said.is_empty() {
            said = answer;
        }
        Err(ScriptError::Failed {
            script: script.to_owned(),
            site: name.clone(),
            status: status.to_string(),
            said: crate::engine::tail(String::from_utf8_lossy(&said).trim(), 1500),
        })
    }

    fn command(
        &self,
        name: &SiteName,
        script: &str,
        arguments: &[&str],
    ) -> std::io::Result<tokio::process::Command> {
        let (prepared, release, means) = self.stage(name)?;
        let outside = self.layout.site_root(name, &release.id);
        let root = means.php_root().unwrap_or_else(|| outside.clone());
        let mut command =
            tokio::process::Command::new(format!("/usr/bin/php{}", prepared.site.php.version));
        command
            .args([
                "-d",
                "display_errors=stderr",
                "-d",
                "memory_limit=512M",
                "-d",
                "max_execution_time=0",
            ])
            .arg(self.scripts()?.join(script))
            .args(
                arguments
                    .iter()
                    .map(|word| if *word == ROOT { root.as_os_str() } else { word.as_ref() }),
            );
        self.outfit(&mut command, name, &prepared, (&release.id, means))?;
        Ok(command)
    }

    /// What a script runs in: what visitors get, or will get first; never a candidate.
    fn stage(&self, name: &SiteName) -> std::io::Result<(Prepared, Release, Means)> {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let serving = facts.serving.map(|serving| {
            // What a container can do is no matter of the machine; scripts are in none.
            let means = if serving.image.is_some() { self.means() } else { serving.means };
            (serving.release, means)
        });
        let newest = facts.release.map(|release| (release, self.means()));
        match (facts.prepared, serving.or(newest)) {
            (Some(prepared), Some((release, means))) => Ok((prepared, release, means)),
            _ => Err(std::io::Error::other("the site is not prepared yet")),
        }
    }

    /// How wp-cli runs for a site, in the code that serves: for [`enter`], which somebody else calls, whose terminal it is.
    pub fn wp_cli(
        &self,
        name: &SiteName,
        phar: &Path,
        arguments: &[String],
    ) -> std::io::Result<ProcessSpec> {
        let (prepared, release, means) = self.stage(name)?;
        let (mut env, root, mut confinement) =
            self.surroundings(name, &prepared, (&release.id, means));
        // The scheduler's key is nobody else's.
        env.remove("PRESSROOM_CRON_KEY");
        let tmp = self.layout.tmp(name);
        env.insert("HOME".into(), tmp.display().to_string());
        env.insert("WP_CLI_CACHE_DIR".into(), tmp.join("wp-cli").display().to_string());
        env.insert("WP_CLI_DISABLE_AUTO_CHECK_UPDATE".into(), "1".into());
        let mut seen = phar.to_owned();
        if let Some(view) = confinement.as_mut().and_then(|confinement| confinement.view.as_mut()) {
            seen = WP_CLI.into();
            let (from, to) = (phar.to_owned(), seen.clone());
            view.places.push(Place::Bind { from, to, access: Access::Read, if_there: false });
        }
        let php = ["-d", "display_errors=stderr", "-d", "memory_limit=512M"];
        let mut args: Vec<String> = php.map(str::to_owned).to_vec();
        args.extend([seen.display().to_string(), format!("--path={}", root.display())]);
        args.extend(arguments.iter().cloned());
        Ok(ProcessSpec {
            name: "wp-cli".into(),
            program: format!("/usr/bin/php{}", prepared.site.php.version).into(),
            args,
            env,
            cwd: Some(root),
            user: prepared.user,
            confinement,
            listeners: Vec::new(),
            umask: 0o022,
            open_files: None,
            output: "/dev/null".into(),
            output_limit: 0,
            stop: Stop::default(),
            restart: Restart::Never,
        })
    }

    /// User, folder and environment of whatever runs for a site in the code of a release.
    fn outfit(
        &self,
        command: &mut tokio::process::Command,
        name: &SiteName,
        prepared: &Prepared,
        (release, means): (&ReleaseId, Means),
    ) -> std::io::Result<()> {
        let (env, root, confinement) = self.surroundings(name, prepared, (release, means));
        command
            .current_dir(self.layout.site_root(name, release))
            .env_clear()
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(confinement) = confinement {
            // What is lacking the keeper has said of the instances.
            let limits = confinement.limits;
            let _ = limit(command.as_std_mut(), self.layout.data(), name.as_str(), limits);
            confine(command.as_std_mut(), &confinement, prepared.user.as_ref(), &root)?;
        }
        Ok(())
    }

    /// Environment, folder and confinement of whatever runs for a site in the code of a release; the folder is that of WordPress,
    /// as it is seen there.
    fn surroundings(
        &self,
        name: &SiteName,
        prepared: &Prepared,
        (release, means): (&ReleaseId, Means),
    ) -> (BTreeMap<String, String>, PathBuf, Option<Confinement>) {
        let outside = self.layout.site_root(name, release);
        let root = means.php_root().unwrap_or_else(|| outside.clone());
        let path = |path: &Path| path.display().to_string();
        let env = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TMPDIR", path(&self.layout.tmp(name))),
            ("PHP_INI_SCAN_DIR", self.cli_ini(&prepared.site)),
            (SITE, name.to_string()),
            ("PRESSROOM_AFFIRM", path(&self.layout.affirm(name))),
            ("PRESSROOM_CONFIG", path(&self.layout.site_config(name))),
            ("PRESSROOM_ROOT", path(&root)),
            ("PRESSROOM_CRON_KEY", prepared.secrets.cron.reveal().to_owned()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        // The same view as the instances', so that a path that WordPress keeps means the same to both.
        let confinement = prepared.user.is_some().then(|| {
            confinement::of_site(
                &self.layout,
                (name, &outside),
                Inhabitant::Script,
                means,
                prepared.site.php.most(),
            )
        });
        (env, root, confinement)
    }

    /// The folder with our scripts, readable by every site.
    fn scripts(&self) -> std::io::Result<std::path::PathBuf> {
        let folder = self.layout.engine("wordpress");
        files::folder(&folder, 0o755, None)?;
        for (name, contents) in super::code::scripts() {
            files::write(&folder.join(name), contents, 0o644, None)?;
        }
        Ok(folder)
    }
}

/// Runs a command of a site's with our own standard input and output, and waits for its end; `terminal` are variables that say
/// how wide and coloured that is.
pub fn enter(
    data: &Path,
    spec: &ProcessSpec,
    terminal: impl IntoIterator<Item = (String, String)>,
) -> std::io::Result<ExitStatus> {
    let mut command = std::process::Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(&spec.env).envs(terminal);
    let folder = spec.cwd.clone().unwrap_or_else(|| "/".into());
    match (&spec.confinement, spec.env.get(SITE)) {
        (Some(confinement), Some(site)) => {
            let _ = limit(&mut command, data, site, confinement.limits);
            confine(&mut command, confinement, spec.user.as_ref(), &folder)?;
        }
        _ => drop(command.current_dir(folder)),
    }
    command.status()
}
