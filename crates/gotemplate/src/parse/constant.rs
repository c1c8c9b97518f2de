//! Constants as Go writes them: numbers, characters, strings.

use crate::value::Value;

/// The number that `words` are.
pub(super) fn number(words: &str) -> Result<Value, String> {
    let bad = || format!("bad number syntax: `{words}`");
    let (is_negative, digits) = match words.strip_prefix(['+', '-']) {
        Some(rest) => (words.starts_with('-'), rest),
        None => (false, words),
    };
    let lower = digits.to_ascii_lowercase();
    if let Some(radix) = radix(&lower) {
        let digits = &lower[if radix.1 { 2 } else { 0 }..];
        let whole =
            i128::from_str_radix(&plain(digits).ok_or_else(bad)?, radix.0).map_err(|_| bad())?;
        let whole = if is_negative { -whole } else { whole };
        return i64::try_from(whole)
            .map(Value::Int)
            .map_err(|_| format!("integer overflow: `{words}`"));
    }
    if !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || lower.contains(|c: char| c.is_ascii_alphabetic() && c != 'e')
    {
        return Err(bad());
    }
    let number: f64 = plain(&lower).and_then(|plain| plain.parse().ok()).ok_or_else(bad)?;
    if number.is_infinite() {
        return Err(format!("number out of range: `{words}`"));
    }
    Ok(Value::Float(if is_negative { -number } else { number }))
}

/// The radix of a whole number, and whether a prefix says it; `None`: it is not whole.
fn radix(lower: &str) -> Option<(u32, bool)> {
    match lower.as_bytes() {
        [b'0', b'x', ..] => Some((16, true)),
        [b'0', b'o', ..] => Some((8, true)),
        [b'0', b'b', ..] => Some((2, true)),
        _ if lower.contains(['.', 'e']) => None,
        [b'0', _, ..] => Some((8, false)),
        _ => Some((10, false)),
    }
}

/// Without the underscores that may stand between digits.
fn plain(digits: &str) -> Option<String> {
    let is_good = !digits.is_empty()
        && !digits.starts_with(['+', '-'])
        && !digits.ends_with('_')
        && !digits.contains("__");
    is_good.then(|| digits.replace('_', ""))
}

/// `'a'`: the number of the character.
pub(super) fn character(words: &str) -> Result<Value, String> {
    let bad = || format!("malformed character constant: {words}");
    let inside = &words[1..words.len() - 1];
    let text = unescaped(inside, '\'').map_err(|_| bad())?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) => Ok(Value::Int(i64::from(u32::from(one)))),
        _ => Err(bad()),
    }
}

/// What a string in double quotes means.
pub(super) fn unquoted(words: &str) -> Result<String, String> {
    unescaped(&words[1..words.len() - 1], '"')
}

/// What a string in back quotes means: carriage returns are left out.
pub(super) fn raw(words: &str) -> String {
    words[1..words.len() - 1].replace('\r', "")
}

fn unescaped(inside: &str, quote: char) -> Result<String, String> {
    let bad = |what: &str| format!("bad escape `\\{what}` in a string");
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let escape = rest.next().ok_or_else(|| bad(""))?;
        let plain = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            c if c == quote => u8::try_from(c).unwrap_or_default(),
            'x' => u8::try_from(digits(&mut rest, 16, 2).ok_or_else(|| bad("x"))?)
                .map_err(|_| bad("x"))?,
            '0'..='7' => {
                let first = escape.to_digit(8).unwrap_or_default();
                let others = digits(&mut rest, 8, 2).ok_or_else(|| bad("0"))?;
                u8::try_from(first * 64 + others).map_err(|_| bad("0"))?
            }
            'u' | 'U' => {
                let many = if escape == 'u' { 4 } else { 8 };
                let c = digits(&mut rest, 16, many)
                    .and_then(char::from_u32)
                    .ok_or_else(|| bad(&escape.to_string()))?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                continue;
            }
            c => return Err(bad(&c.to_string())),
        };
        bytes.push(plain);
    }
    String::from_utf8(bytes).map_err(|_| "a string that is not UTF-8".to_owned())
}

fn digits(rest: &mut std::str::Chars<'_>, radix: u32, many: usize) -> Option<u32> {
    (0..many).try_fold(0_u32, |sum, _| {
        let digit = rest.next()?.to_digit(radix)?;
        sum.checked_mul(radix)?.checked_add(digit)
    })
}
