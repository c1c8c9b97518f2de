//! Words of others, fit to be shown.

/// So much of a word is shown.
const LONGEST: usize = 200;

/// Somebody's words on one line: nothing in them that a terminal obeys, and not too long.
///
/// ```
/// use pressroom_model::text::plain;
/// assert_eq!(plain("\u{1b}]52;c;cm0=\u{7}Shop\n2"), "]52;c;cm0=Shop2");
/// ```
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
