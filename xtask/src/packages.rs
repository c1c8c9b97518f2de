//! The distribution's packages that the tests need: engines are real in our tests.
//!
//! As root on Debian or Ubuntu they are installed; their services are kept from starting, because the tests run
//! private servers. Otherwise the missing ones are named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{command, is_there};

const EXTENSIONS: [&str; 13] = [
    "fpm", "cli", "mysql", "redis", "igbinary", "gd", "curl", "xml", "mbstring", "intl", "zip",
    "bcmath", "imagick",
];
const OTHERS: [&str; 17] = [
    "mariadb-server",
    "mariadb-client",
    "redis-server",
    "wordpress",
    "wordpress-theme-twentytwentythree",
    "acl",
    "etcd-server",
    "etcd-client",
    "dnsutils",
    "iproute2",
    "nftables",
    "keepalived",
    "git",
    "curl",
    // Driven by templates.
    "haproxy",
    "nginx-light",
    "varnish",
];

/// Programs of the browser's test, and their packages: taken where they can be had, from wherever they came.
const BROWSER: [(&str, &str); 3] = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];

/// The object store of the media's test, and where it is built: there is no package of it, and it takes half an hour of one core.
const GARAGE: &str = "2.5.0";
const INSTALL: &str = "PRESSROOM_INSTALL_GARAGE";

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The object store that the tests are to use; `None`: they look for it themselves, and make do without.
pub(crate) fn garage(root: &Path) -> Result<Option<PathBuf>> {
    if std::env::var_os("PRESSROOM_GARAGE").is_some() {
        return Ok(None);
    }
    let place = root.join("target/garage");
    let program = place.join("bin/garage");
    if program.is_file() {
        return Ok(Some(program));
    }
    if is_there("garage", "--version") {
        return Ok(None);
    }
    if std::env::var_os(INSTALL).is_none() {
        println!(
            "   no `garage`: tests with a real object store are passed over ({INSTALL}=1 builds it)"
        );
        return Ok(None);
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "garage", "--version", GARAGE, "--locked", "--no-default-features"]);
    cargo.args(["--features", "sqlite,bundled-libs", "--root"]).arg(&place);
    // Not in our own workspace: its configuration is not meant for others.
    command(cargo.current_dir(std::env::temp_dir()))?;
    Ok(Some(program))
}

/// Installs what is missing, or says what is missing.
pub(crate) fn ensure() -> Result<()> {
    if !is_there("dpkg-query", "--version") {
        println!(
            "   this is neither Debian nor Ubuntu: bring PHP, MariaDB, Redis and WordPress yourself"
        );
        return Ok(());
    }
    let version = php_version();
    let mut wanted: Vec<String> =
        EXTENSIONS.iter().map(|name| format!("php{version}-{name}")).collect();
    wanted.extend(OTHERS.map(str::to_owned));
    let mut missing: Vec<String> =
        wanted.into_iter().filter(|package| !is_installed(package)).collect();
    let absent = BROWSER.iter().filter(|(program, _)| !is_there(program, "--version"));
    missing.extend(absent.map(|(_, package)| (*package).to_owned()).filter(|p| has_candidate(p)));
    if missing.is_empty() {
        println!("   all packages are there (PHP {version})");
        return Ok(());
    }
    if !is_root() {
        bail!(
            "packages are missing; as root: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    install(&missing)
}

fn install(packages: &[String]) -> Result<()> {
    println!("   installing {}", packages.join(" "));
    let _quiet = NoServices::begin()?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(arguments);
        apt
    };
    command(&mut apt(&["update"]))?;
    command(apt(&["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// Keeps packages from starting their services while it lives. A policy of the operator's own stays.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { is_ours: false });
        }
        let write = || {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write `{POLICY}`"))?;
        Ok(Self { is_ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours && fs::remove_file(POLICY).is_err() {
            eprintln!(
                "warning: remove `{POLICY}` by hand: while it is there, packages start no services"
            );
        }
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
}

fn is_installed(package: &str) -> bool {
    let asked = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
    asked.is_ok_and(|out| out.stdout == b"installed")
}

fn has_candidate(package: &str) -> bool {
    let asked = Command::new("apt-cache").args(["policy", package]).output();
    asked.is_ok_and(|out| {
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .any(|l| l.trim().starts_with("Candidate: ") && !l.ends_with("(none)"))
    })
}

/// 8.2 where it can be had, else the distribution's newest PHP 8.
fn php_version() -> String {
    let asked = Command::new("apt-cache").args(["pkgnames", "php8."]).output();
    let names =
        asked.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let mut minors: Vec<u8> = names.lines().filter_map(php_minor).collect();
    minors.sort_unstable();
    let minor = if minors.contains(&2) { 2 } else { minors.last().copied().unwrap_or(2) };
    format!("8.{minor}")
}

/// `php8.3-fpm` → 3.
fn php_minor(package: &str) -> Option<u8> {
    package.strip_prefix("php8.")?.strip_suffix("-fpm")?.parse().ok()
}
