//! Configuration files of other programs, kept as operators' templates say: what confd does, with confd's folder as it is.
//!
//! - [`confdir`] the folder: resources in `conf.d`, templates in `templates`
//! - [`source`] where values come from, and how changes are heard
//! - [`hand`] one file: stage, check, replace, reload
//! - [`around`] what templates may ask of this machine
//! - [`examples`] templates for HAProxy, nginx and Varnish
//! - [`watching`] every resource of a folder, for as long as somebody wants
//!
//! Always: a file is replaced whole, after its check has passed, or not at all; a program that was not told of its new file
//! is told later, also by another process. What a source says while it cannot be reached changes nothing.
//!
//! The resources and templates are the operator's, and run as who renders: as root in the agent.

mod agent;
pub mod around;
pub mod confdir;
pub mod examples;
pub mod hand;
pub mod source;
#[cfg(test)]
mod tests;
pub mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pressroom_model::template::State;

/// How every file stands, for whoever asks. Clones are the same board.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, State>>>);

impl Board {
    /// All of them, by name.
    pub fn all(&self) -> Vec<State> {
        self.0.lock().values().cloned().collect()
    }

    /// Puts up how one stands; since when, and when it was replaced, stays where that is not news.
    pub(crate) fn put(&self, mut state: State) {
        let mut all = self.0.lock();
        if let Some(before) = all.get(&state.name) {
            if (before.standing, &before.because) == (state.standing, &state.because) {
                state.since_ms = before.since_ms;
            }
            state.replaced_ms = state.replaced_ms.or(before.replaced_ms);
        }
        all.insert(state.name.clone(), state);
    }

    /// Says of one whether its source answers.
    pub(crate) fn heard(&self, name: &str, is_heard: bool) {
        if let Some(state) = self.0.lock().get_mut(name) {
            state.is_heard = is_heard;
        }
    }

    /// Forgets everything but these.
    pub(crate) fn retain(&self, names: &[String]) {
        self.0.lock().retain(|name, _| names.contains(name));
    }
}
