//! An error for people: what failed, with which value; why; what still works; what to do next; and whose fault it is.
//!
//! It crosses the agent's socket, so it holds words only. It never holds a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault a failure is; it decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The operator can mend it (bad configuration, port taken, package missing): exit status 1.
    Yours,
    /// We, an engine or the machine failed: exit status 2.
    Ours,
}

/// Why something could not be done.
///
/// ```
/// use pressroom_api::failure::Failure;
/// let failure = Failure::yours("cannot listen on `0.0.0.0:80`")
///     .cause("the address is in use")
///     .state("nothing was changed")
///     .hint("stop what listens there, or choose another port with `--http`");
/// assert_eq!(failure.to_string().lines().count(), 4);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault.
    pub blame: Blame,
    /// What failed, with which value.
    pub what: String,
    /// Why.
    #[serde(default)]
    pub cause: Option<String>,
    /// What still works, or what was left as it was.
    #[serde(default)]
    pub state: Option<String>,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Failure {
    /// Something the operator can mend.
    pub fn yours(what: impl Into<String>) -> Self {
        Self::new(Blame::Yours, what)
    }

    /// Something that failed on our side.
    pub fn ours(what: impl Into<String>) -> Self {
        Self::new(Blame::Ours, what)
    }

    fn new(blame: Blame, what: impl Into<String>) -> Self {
        Self { blame, what: what.into(), cause: None, state: None, hint: None }
    }

    /// Adds why it failed. Errors and texts both fit.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what still works.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The status that a command which fails so exits with.
    pub fn exit_status(&self) -> u8 {
        match self.blame {
            Blame::Yours => 1,
            Blame::Ours => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (word, text) in [("cause", &self.cause), ("state", &self.state), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(f, "\n  {word}: {}", text.trim_end().replace('\n', "\n    "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
