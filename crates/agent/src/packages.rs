//! What must be installed for a configuration, whether it is, and how to install it.
//!
//! Their own services are left alone: while we install, `policy-rc.d` says that nothing may be started, and it is
//! taken away again afterwards (Debian Policy, 9.11.1).

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pressroom_model::config::{Config, Runtime, Site, Source};

use crate::engine::{docker, keepalived};
use crate::git::repository;
use crate::published::CURL;

/// A package that is needed, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub name: String,
    /// What needs it.
    pub because: String,
    /// A file that is there when it is installed.
    file: String,
    /// Without it less works, but everything runs.
    pub is_optional: bool,
}

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// apt-get could not be run.
    #[error("cannot run apt-get: {0}")]
    Run(#[from] io::Error),
    /// apt-get failed.
    #[error("apt-get failed: {said}")]
    Failed {
        /// The end of its own words.
        said: String,
    },
}

const EXTENSIONS: [(&str, &str); 11] = [
    ("mysql", "mysqli"),
    ("redis", "redis"),
    ("igbinary", "igbinary"),
    ("gd", "gd"),
    ("curl", "curl"),
    ("xml", "dom"),
    ("mbstring", "mbstring"),
    ("intl", "intl"),
    ("zip", "zip"),
    ("bcmath", "bcmath"),
    ("imagick", "imagick"),
];

/// Everything that `config` needs, there or not.
pub fn needed(config: &Config) -> Vec<Needed> {
    let mut all = vec![
        package("mariadb-server", "the database", "/usr/sbin/mariadbd"),
        package("redis-server", "object cache and sessions", "/usr/bin/redis-server"),
    ];
    let versions: BTreeSet<&str> =
        config.sites.iter().map(|site| site.php.version.as_str()).collect();
    for version in versions {
        let because = format!("PHP {version} of your sites");
        all.push(package(
            &format!("php{version}-fpm"),
            &because,
            &format!("/usr/sbin/php-fpm{version}"),
        ));
        all.push(package(
            &format!("php{version}-cli"),
            &because,
            &format!("/usr/bin/php{version}"),
        ));
        for (name, module) in EXTENSIONS {
            let file = format!("/etc/php/{version}/mods-available/{module}.ini");
            all.push(package(&format!("php{version}-{name}"), &because, &file));
        }
    }
    if config.sites.iter().any(|site| site.wordpress == Source::Debian) {
        let file = "/usr/share/wordpress/wp-includes/version.php";
        all.push(package("wordpress", "the code of sites with source `debian`", file));
        // Only recommended by the package; without a theme every page is empty.
        let theme = "/usr/share/wordpress/wp-content/themes/twentytwentythree/style.css";
        let because = "the theme that a new WordPress begins with";
        all.push(package("wordpress-theme-twentytwentythree", because, theme));
    }
    if config.sites.iter().any(|site| site.php.runtime == Runtime::Docker) {
        let because = "sites with `runtime = \"docker\"`";
        let daemon = docker::DAEMONS.iter().find(|path| Path::new(path).exists());
        let package = package("docker.io", because, daemon.unwrap_or(&docker::DAEMONS[0]));
        // Who names a socket, or has one, has Docker from elsewhere.
        let is_there = config.node.docker.is_some() || Path::new(docker::MACHINES).exists();
        all.push(Needed { is_optional: is_there, ..package });
    }
    if config.sites.iter().any(|site| matches!(site.wordpress, Source::Version(_))) {
        all.push(package("curl", "sites with a `version` of WordPress", CURL));
    }
    if !config.cluster.addresses.is_empty() {
        let because = "floating addresses";
        all.push(package("keepalived", because, keepalived::PROGRAM));
        all.push(package("iproute2", because, "/sbin/ip"));
    }
    let git = package("git", "releases as commits, and `git push`", repository::GIT);
    let is_source = |site: &Site| matches!(site.wordpress, Source::Git { .. });
    all.push(Needed { is_optional: !config.sites.iter().any(is_source), ..git });
    all
}

/// What is missing on a machine that is to have a lab.
pub fn missing_in_lab() -> Vec<Needed> {
    let because = "hosts as network namespaces";
    let all = [
        package("iproute2", because, "/sbin/ip"),
        package("nftables", "hosts that are cut off", "/usr/sbin/nft"),
        package("util-linux", because, "/usr/bin/unshare"),
        package("curl", "asking hosts for pages", CURL),
    ];
    all.into_iter().filter(|package| !Path::new(&package.file).exists()).collect()
}

/// What is missing on a machine that is to be a node of a cluster; `is_voter`: one that runs etcd from the beginning.
pub fn missing_in_cluster(is_voter: bool) -> Vec<Needed> {
    let because = match is_voter {
        true => "the cluster's state",
        false => "the cluster's state, should this node be chosen as a voter",
    };
    let all = [
        package("etcd-server", because, "/usr/bin/etcd"),
        package("etcd-client", because, "/usr/bin/etcdctl"),
    ];
    all.into_iter().filter(|package| !Path::new(&package.file).exists()).collect()
}

fn package(name: &str, because: &str, file: &str) -> Needed {
    Needed {
        name: name.to_owned(),
        because: because.to_owned(),
        file: file.to_owned(),
        is_optional: false,
    }
}

/// What of it is not there, as far as it must be. What only should be there is installed with it, and never by itself.
pub fn missing(config: &Config) -> Vec<Needed> {
    insisted(needed(config).into_iter().filter(|one| !Path::new(&one.file).exists()).collect())
}

fn insisted(missing: Vec<Needed>) -> Vec<Needed> {
    let is_needed = missing.iter().any(|package| !package.is_optional);
    if is_needed { missing } else { Vec::new() }
}

/// The command that people would type.
pub fn command(names: &[&str]) -> String {
    format!("apt-get update && apt-get install --no-install-recommends {}", names.join(" "))
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs packages. Only root can.
pub fn install(names: &[&str]) -> Result<(), Error> {
    let policy = Path::new(POLICY);
    let is_ours = !policy.exists();
    if is_ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755))?;
    }
    let installed = apt(&["update", "-q"]).and_then(|()| {
        let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
        arguments.extend(names);
        apt(&arguments)
    });
    if is_ours {
        std::fs::remove_file(policy)?;
    }
    installed
}

fn apt(arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed { said: crate::engine::tail(said.trim(), 1500) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_wanted_is_installed_with_what_is_needed_and_never_insisted_on() {
        let (git, php) = (package("git", "", "/x"), package("php", "", "/y"));
        let git = Needed { is_optional: true, ..git };
        assert_eq!(insisted(vec![git.clone()]), []);
        assert_eq!(insisted(vec![git.clone(), php.clone()]), [git, php]);
    }
}
