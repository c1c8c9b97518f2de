//! Standard output and standard error: data, talk, progress, questions, failures.
//!
//! Always: colour never alone carries meaning, and there is none where `NO_COLOR` is set or nobody looks. A reader who
//! has gone (`| head`) is no failure.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pressroom_api::failure::Failure;
use pressroom_api::progress::{Progress, Step, StepState};
use pressroom_model::verdict::Health;

/// Where a command's words go. Clones are the same.
#[derive(Clone)]
pub(crate) struct Talk {
    inner: Arc<Mutex<Inner>>,
    /// Somebody looks at standard error.
    is_watched: bool,
    is_coloured: bool,
    /// Somebody looks at standard output.
    pub(crate) is_screen: bool,
    /// Somebody can be asked.
    can_ask: bool,
}

struct Inner {
    data: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    /// Whoever read the data has gone (`| head`).
    is_reader_gone: bool,
    /// A line that will be written over is on the screen.
    is_line_open: bool,
}

/// How a word looks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ink {
    Good,
    Warning,
    Bad,
    Faint,
    Strong,
}

impl Talk {
    /// This process's own output.
    pub(crate) fn of_process() -> Self {
        let is_watched = std::io::stderr().is_terminal();
        let is_plain = crate::place::environment("NO_COLOR").is_some()
            || crate::place::environment("TERM").is_some_and(|term| term == "dumb");
        Self {
            inner: Arc::new(Mutex::new(Inner {
                data: Box::new(std::io::stdout()),
                talk: Box::new(std::io::stderr()),
                is_reader_gone: false,
                is_line_open: false,
            })),
            is_watched,
            is_coloured: is_watched && !is_plain,
            is_screen: std::io::stdout().is_terminal(),
            can_ask: is_watched && std::io::stdin().is_terminal(),
        }
    }

    /// Output that is kept, nobody looks at, and nobody can be asked on.
    #[cfg(test)]
    pub(crate) fn kept(data: Box<dyn Write + Send>, talk: Box<dyn Write + Send>) -> Self {
        let inner = Inner { data, talk, is_reader_gone: false, is_line_open: false };
        let inner = Arc::new(Mutex::new(inner));
        Self { inner, is_watched: false, is_coloured: false, is_screen: false, can_ask: false }
    }

    /// Data: to standard output, as it is, with a line end.
    pub(crate) fn data(&self, text: impl Display) {
        let mut inner = self.open();
        let text = text.to_string();
        let written = writeln!(inner.data, "{}", text.trim_end_matches('\n'));
        inner.is_reader_gone |= written.and_then(|()| inner.data.flush()).is_err();
    }

    /// Bytes of a protocol: to standard output, as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let mut inner = self.open();
        let written = inner.data.write_all(bytes);
        inner.is_reader_gone |= written.and_then(|()| inner.data.flush()).is_err();
    }

    /// Whether anybody still reads the data: what goes on for ever ends when not.
    pub(crate) fn is_read(&self) -> bool {
        !self.open().is_reader_gone
    }

    /// Data as JSON.
    pub(crate) fn json(&self, value: &impl serde::Serialize) {
        self.data(serde_json::to_string_pretty(value).expect("our values have string keys"));
    }

    /// Talk: to standard error.
    pub(crate) fn say(&self, text: impl Display) {
        let mut inner = self.open();
        let _reader_gone = writeln!(inner.talk, "{text}");
    }

    /// Says why a command failed; its exit status.
    pub(crate) fn failed(&self, failure: &Failure) -> u8 {
        self.say(format!("{} {failure}", self.ink(Ink::Bad, "error:")));
        failure.exit_status()
    }

    /// A word in colour, where there are colours.
    pub(crate) fn ink(&self, ink: Ink, text: impl Display) -> String {
        let code = match ink {
            Ink::Good => "32",
            Ink::Warning => "33",
            Ink::Bad => "31",
            Ink::Faint => "2",
            Ink::Strong => "1",
        };
        if self.is_coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A word in bold on standard output, where somebody looks.
    pub(crate) fn strong(&self, text: &str) -> String {
        if self.is_screen { self.ink(Ink::Strong, text) } else { text.to_owned() }
    }

    /// A mark and a word for a verdict; the mark says it too where there is no colour.
    pub(crate) fn verdict(&self, health: Health, width: usize) -> String {
        let (mark, ink) = match health {
            Health::Healthy => ("✓", Ink::Good),
            Health::Busy | Health::Starting => ("~", Ink::Warning),
            Health::Unhealthy | Health::CrashLoop => ("✗", Ink::Bad),
            Health::Stopped | Health::Unknown => ("·", Ink::Faint),
        };
        let text = format!("{mark} {:width$}", health.as_str());
        if self.is_screen { self.ink(ink, text) } else { text }
    }

    /// Shows steps on standard error as they happen.
    pub(crate) fn progress(&self) -> Progress {
        let talk = self.clone();
        let failed = Mutex::new(BTreeSet::new());
        Progress::new(move |mut step| {
            // Its words came with the first failure, and come again in the error if it stays with it.
            let is_failure = step.state == StepState::Failed;
            if is_failure
                && !failed.lock().unwrap_or_else(PoisonError::into_inner).insert(step.step.clone())
            {
                step.detail = "failed again".to_owned();
            }
            talk.step(&step);
        })
    }

    fn step(&self, step: &Step) {
        let time = if step.ms > 0 { format!("{} ms", step.ms) } else { String::new() };
        let detail = first_line(&step.detail);
        let rest = [detail.as_str(), time.as_str()].into_iter().filter(|part| !part.is_empty());
        let rest = self.ink(Ink::Faint, rest.collect::<Vec<_>>().join(" · "));
        let rest = if rest.trim().is_empty() { String::new() } else { format!("  {rest}") };
        match step.state {
            StepState::Running if self.is_watched => {
                let mut inner = self.open();
                inner.is_line_open = true;
                let _reader_gone =
                    write!(inner.talk, "… {}", clip(&step.step)).and_then(|()| inner.talk.flush());
            }
            StepState::Running => {}
            StepState::Done => {
                self.say(format!("{} {}{rest}", self.ink(Ink::Good, "✓"), step.step));
            }
            StepState::Skipped => {
                self.say(format!("{} {}{rest}", self.ink(Ink::Faint, "·"), step.step));
            }
            StepState::Failed => {
                self.say(format!("{} {}{rest}", self.ink(Ink::Bad, "✗"), step.step));
            }
            StepState::Note => {
                self.say(format!("{} {}{rest}", self.ink(Ink::Warning, "!"), step.step));
            }
        }
    }

    /// Asks yes or no. `None`: nobody can be asked.
    pub(crate) fn ask(&self, question: &str, default: bool) -> Option<bool> {
        if !self.can_ask {
            return None;
        }
        let choices = if default { "[Y/n]" } else { "[y/N]" };
        {
            let mut inner = self.open();
            let _reader_gone =
                write!(inner.talk, "{question} {choices} ").and_then(|()| inner.talk.flush());
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).ok()?;
        Some(match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => true,
            "n" | "no" => false,
            "" if !line.is_empty() => default,
            _ => false,
        })
    }

    fn open(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut inner.is_line_open) {
            let _reader_gone = inner.talk.write_all(b"\r\x1b[2K");
        }
        inner
    }
}

/// The first line, and a sign that there are more.
fn first_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() { first + " …" } else { first }
}

/// A line that fits on a screen, so that it can be written over.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(76).collect()
}
