//! The one way to fill a template: strict about undefined names, with PHP's quoting as a filter.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Fills `template` with `facts`. Both are ours and are covered by tests, hence no error to hand on.
pub(crate) fn fill(template: &str, facts: impl Serialize) -> String {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("php", php_quoted);
    environment.add_filter("items", minijinja::filters::items);
    let mut text = environment
        .render_str(template, Serde(facts))
        .expect("our template and its facts agree: every template is rendered by a test");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A PHP single-quoted string: only `\` and `'` have a meaning in it.
fn php_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::php_quoted;

    #[test]
    fn a_php_string_cannot_be_left_early() {
        assert_eq!(php_quoted(r"it's \'); evil()"), r"'it\'s \\\'); evil()'");
    }
}
