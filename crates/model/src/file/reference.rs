//! The reference of `pressroom.toml`, printed from the table of keys.

use super::key::{Absent, KEYS, Key, Kind};
use crate::unit::{ByteSize, Span};

impl Kind {
    /// What it holds, in words that fit after "must be".
    pub fn describe(&self) -> String {
        match self {
            Self::Table => "a table".to_owned(),
            Self::Tables => "a list of tables".to_owned(),
            Self::Text(of, _) => format!("a string ({of})"),
            Self::Texts(of, _) => format!("a list of strings ({of})"),
            Self::Flag => "true or false".to_owned(),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Size(0) => "a size".to_owned(),
            Self::Size(least) => format!("a size, at least {}", ByteSize::bytes(*least)),
            Self::Span(0) => "a time".to_owned(),
            Self::Span(least) => format!("a time, at least {}", Span::millis(*least)),
            Self::Choice(all) => {
                all.iter().map(|one| format!("`\"{one}\"`")).collect::<Vec<_>>().join(" or ")
            }
            Self::Engine => "`\"managed\"`".to_owned(),
            Self::Pairs => "a table of strings, numbers and flags".to_owned(),
        }
    }
}

/// The reference as Markdown: every key with its type, default and meaning.
pub fn reference() -> String {
    let mut page = String::from(
        "# `pressroom.toml`\n\n\
         Sizes are written `\"256 MiB\"` (B, KiB, MiB, GiB, TiB), times `\"30 s\"` (ms, s, m, h, d). An unknown key is an \
         error. Relative paths start from the folder of the file.\n\
         `pressroom config check` says everything that is wrong with a file; `pressroom config show` prints it with all \
         defaults.\n",
    );
    for table in KEYS.iter().filter(|key| is_table(key)) {
        section(&mut page, table);
    }
    page
}

fn is_table(key: &Key) -> bool {
    matches!(key.kind, Kind::Table | Kind::Tables)
}

fn section(page: &mut String, table: &Key) {
    let brackets = if matches!(table.kind, Kind::Tables) { ("[[", "]]") } else { ("[", "]") };
    page.push_str(&format!(
        "\n## `{}{}{}`\n\n{}\n\n",
        brackets.0, table.path, brackets.1, table.meaning
    ));
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let inside = |key: &&Key| key.path.rsplit_once('.').is_some_and(|(path, _)| path == table.path);
    for key in KEYS.iter().filter(inside).filter(|key| !is_table(key)) {
        let (_, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let default = match key.default {
            Absent::Is(value) => format!("`{value}`"),
            Absent::Follows(words) => words.to_owned(),
            Absent::Nothing => "–".to_owned(),
            Absent::Never => "must be given".to_owned(),
        };
        page.push_str(&format!(
            "| `{name}` | {} | {default} | {} |\n",
            key.kind.describe(),
            key.meaning
        ));
    }
}
