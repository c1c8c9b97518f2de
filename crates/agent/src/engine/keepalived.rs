//! keepalived, which moves floating addresses between nodes: its file, its process. What it is to do says [`crate::floating`].
//!
//! It is told of changes by a signal and goes on with what it holds; only what it cannot change meanwhile is a restart.

use std::path::{Path, PathBuf};
use std::process::Command;

use pressroom_model::process::ProcessSpec;
use pressroom_plan::machine::KEEPALIVED;
use pressroom_render::keepalived::{self, Facts};

use super::{Error, fingerprint, program, spec};
use crate::files;
use crate::layout::Layout;

/// keepalived on this node.
#[derive(Debug, Clone)]
pub struct Keepalived {
    layout: Layout,
    facts: Facts,
}

/// Where the program is.
pub const PROGRAM: &str = "/usr/sbin/keepalived";
/// Its exit status for a file that is good, and names commands of which it cannot know that only root changes them.
const UNSURE_OF_SCRIPTS: i32 = 6;

impl Keepalived {
    /// With this part in floating addresses.
    pub fn new(layout: &Layout, facts: Facts) -> Self {
        Self { layout: layout.clone(), facts }
    }

    /// The part that it has.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What must be equal for the running keepalived to be the wanted one.
    pub fn fingerprint(&self) -> String {
        fingerprint(&[self.facts.own.to_string().as_bytes(), self.facts.interface.as_bytes()])
    }

    fn folder(&self) -> PathBuf {
        self.layout.engine(KEEPALIVED)
    }

    fn path(&self) -> PathBuf {
        self.folder().join("keepalived.conf")
    }

    /// Writes its file, and says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let server = self.write()?;
        let file = |name: &str| self.folder().join(name).display().to_string();
        let arguments = [
            "--dont-fork".into(),
            "--log-console".into(),
            "--vrrp".into(),
            format!("--use-file={}", self.path().display()),
            format!("--pid={}", file("keepalived.pid")),
            format!("--vrrp_pid={}", file("vrrp.pid")),
        ];
        let output = self.layout.output(KEEPALIVED);
        Ok(spec(KEEPALIVED, server, arguments.into(), &self.fingerprint(), output))
    }

    /// Whether its file says what it should.
    pub fn is_written(&self) -> bool {
        std::fs::read(self.path())
            .is_ok_and(|text| text == keepalived::configuration(&self.facts).as_bytes())
    }

    /// Writes its file, once keepalived has found it good; where the program is.
    pub fn write(&self) -> Result<PathBuf, Error> {
        files::folder(&self.folder(), 0o755, None)?;
        let server = program(&[PROGRAM, "/usr/local/sbin/keepalived"])?;
        let text = keepalived::configuration(&self.facts);
        super::write_checked(&self.path(), &text, 0o644, None, |candidate| {
            check(&server, candidate)
        })?;
        Ok(server)
    }
}

fn check(server: &Path, candidate: &Path) -> Result<(), Error> {
    let output = Command::new(server)
        .arg("--config-test")
        .arg(format!("--use-file={}", candidate.display()))
        .stdin(std::process::Stdio::null())
        .output()?;
    if output.status.success() || output.status.code() == Some(UNSURE_OF_SCRIPTS) {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = super::tail(String::from_utf8_lossy(&said).trim(), 1500);
    Err(Error::Refused { engine: "keepalived", what: "its configuration".into(), said })
}
