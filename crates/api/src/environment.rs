//! Environments over the operator API: copies of a site for trying things.

use std::path::PathBuf;

use pressroom_model::environment::MadeBy;
use pressroom_model::id::{EnvironmentName, ReleaseId, SiteName};
use serde::{Deserialize, Serialize};

/// An environment to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEnvironment {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether its scheduled events run.
    #[serde(default)]
    pub cron: bool,
    /// Whether its shop offers ways to pay.
    #[serde(default)]
    pub payments: bool,
}

/// Which environment of a site is meant, in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Its name.
    pub name: EnvironmentName,
}

/// An environment that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// The site that it is a copy of.
    pub of: SiteName,
    /// The site that it is: the name for `deploy`, `release`, `logs` and the like.
    pub site: SiteName,
    /// Its home URL.
    pub url: String,
    /// The login name of its administrator, once it was made.
    pub admin_user: Option<String>,
    /// A file, readable by us alone, with the administrator's password, which is also the one in front of the environment.
    pub admin_password_file: PathBuf,
    /// The release that it serves.
    pub release: Option<ReleaseId>,
    /// Whether its scheduled events run.
    pub cron: bool,
    /// Whether its shop offers ways to pay.
    pub payments: bool,
    /// When it was made, milliseconds since 1970.
    pub made_ms: u64,
    /// What made it.
    #[serde(default)]
    pub made_by: MadeBy,
}

/// A letter that an environment wanted to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its name in the mailbox.
    pub id: String,
    /// When it was written, milliseconds since 1970.
    pub at_ms: u64,
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// The file: the whole letter as it would have been sent.
    pub file: PathBuf,
}

/// Which letter of an environment is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhichLetter {
    /// The environment.
    pub name: EnvironmentName,
    /// The letter's name in the mailbox.
    pub id: String,
}

/// What an environment wanted to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterText {
    /// Its text; of a letter that has only HTML what is left without the marks.
    pub text: String,
}

/// What of an environment becomes the site's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The environment.
    pub name: EnvironmentName,
    /// Who does it, for the list of releases.
    pub author: String,
    /// These tables, with or without WordPress's prefix; none: its code.
    #[serde(default)]
    pub tables: Vec<String>,
    /// What that must change: anything else, and nothing is done.
    #[serde(default)]
    pub expected: Vec<TableDiff>,
}

/// What a promotion of tables changes in one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDiff {
    /// The table.
    pub table: String,
    /// Rows that only the environment has.
    pub added: u64,
    /// Rows that both have, with differences.
    pub changed: u64,
    /// Rows that only the site has.
    pub removed: u64,
    /// Keys of some of them, with `+`, `~` or `-` before.
    pub keys: Vec<String>,
}
