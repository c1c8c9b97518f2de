//! An environment: a copy of a site with its own address, where changes are tried before visitors meet them.
//!
//! It is a site like any other to everything that serves and supervises. It is made by a command and not written in the
//! file: what it is follows from its parent, so that there is nothing to keep in step.

use serde::{Deserialize, Serialize};

use crate::id::{BadName, EnvironmentName, SiteName};

/// An environment of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The site that it is a copy of.
    pub of: SiteName,
    /// Its name among the environments of that site.
    pub name: EnvironmentName,
    /// The BLAKE3 digest of the password in front of it, hexadecimal.
    pub password: String,
    /// Whether its scheduled events run.
    #[serde(default)]
    pub cron: bool,
    /// Whether its shop offers ways to pay.
    #[serde(default)]
    pub payments: bool,
    /// When it was made, milliseconds since 1970.
    #[serde(default)]
    pub made_ms: u64,
    /// What made it.
    #[serde(default)]
    pub made_by: MadeBy,
}

/// What made an environment; the same takes it away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeBy {
    /// Somebody's command.
    #[default]
    Command,
    /// A push of the git branch with its name: it goes with that.
    Branch,
}

impl Environment {
    /// The name of the site that it is: `shop--staging`.
    pub fn site_name(&self) -> Result<SiteName, BadName> {
        site_name(&self.of, &self.name)
    }

    /// What WordPress calls its kind: `development` or `staging`.
    pub fn kind(&self) -> &'static str {
        match self.name.as_str() {
            "dev" | "develop" | "development" | "local" | "test" => "development",
            _ => "staging",
        }
    }
}

/// The name of the site that an environment is.
pub fn site_name(of: &SiteName, name: &EnvironmentName) -> Result<SiteName, BadName> {
    let whole = format!("{of}--{name}");
    whole.parse().map_err(|_| BadName {
        what: "environment of this site",
        value: whole.clone(),
        why: "both names and `--` together have at most 24 characters",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_has_the_name_of_a_site() {
        let of = |site: &str, name: &str| {
            let (site, name) = (site.parse().expect("a site"), name.parse().expect("a name"));
            site_name(&site, &name).map(|name| name.to_string()).map_err(|bad| bad.to_string())
        };
        assert_eq!(of("shop", "staging").as_deref(), Ok("shop--staging"));
        let bad = of("a-rather-long-name", "staging").expect_err("too long");
        assert!(bad.contains("at most 24 characters"), "{bad}");
    }
}
