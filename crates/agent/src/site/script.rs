//! Our own PHP scripts (install, cron), run as the site's user with the site's environment and confinement. Secrets go in by standard
//! input, answers come out as JSON; what PHP says besides is in the error.

use std::process::Stdio;
use std::time::Duration;

use pressroom_model::id::SiteName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::Agent;
use crate::confinement::{self, Inhabitant};
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
const LIMIT: Duration = Duration::from_secs(300);
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
        let mut child =
            self.command(name, script, arguments).map_err(fail)?.spawn().map_err(fail)?;
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
        let (status, answer, mut said) = match tokio::time::timeout(LIMIT, work).await {
            Ok(ended) => ended.map_err(fail)?,
            Err(_) => {
                let seconds = LIMIT.as_secs();
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
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        // What visitors get, or will get first: never a candidate.
        let serving = facts.serving.map(|serving| (serving.release, serving.means));
        let newest = facts.release.map(|release| (release, self.means()));
        let (Some(prepared), Some((release, means))) = (facts.prepared, serving.or(newest)) else {
            return Err(std::io::Error::other("the site is not prepared yet"));
        };
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
            )
            .current_dir(&outside)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", self.layout.tmp(name))
            .env("PHP_INI_SCAN_DIR", self.cli_ini(&prepared.site))
            .env("PRESSROOM_SITE", name.as_str())
            .env("PRESSROOM_AFFIRM", self.layout.affirm(name))
            .env("PRESSROOM_CONFIG", self.layout.site_config(name))
            .env("PRESSROOM_ROOT", &root)
            .env("PRESSROOM_CRON_KEY", prepared.secrets.cron.reveal())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if prepared.user.is_some() {
            // The same view as the instances', so that a path that WordPress keeps means the same to both.
            let limits = prepared.site.php.most();
            let confinement = confinement::of_site(
                &self.layout,
                (name, &outside),
                Inhabitant::Script,
                means,
                limits,
            );
            // What is lacking the keeper has said of the instances.
            let _ = limit(command.as_std_mut(), self.layout.data(), name.as_str(), limits);
            confine(command.as_std_mut(), &confinement, prepared.user.as_ref(), &root)?;
        }
        Ok(command)
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
