//! `print`, `println`, and the verbs of `printf`, as <https://pkg.go.dev/fmt> describes them.

use crate::value::Value;

/// What is printed of some values: a space between two of which neither is text.
pub(crate) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::String(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&value.shown());
    }
    out
}

/// All values with spaces between, and the end of the line.
pub(crate) fn println(values: &[Value]) -> String {
    let parts: Vec<String> = values.iter().map(Value::shown).collect();
    parts.join(" ") + "\n"
}

/// A number in the shortest way that means it: `%v`.
pub(crate) fn float(number: f64) -> String {
    general(number, None)
}

/// Text in double quotes: `%q`.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            c => escape(&mut out, c, false),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, c: char, is_ascii: bool) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if c.is_control() || (is_ascii && !c.is_ascii()) => out.push_str(&match u32::from(c) {
            code @ 0..=0xFFFF => format!("\\u{code:04x}"),
            code => format!("\\U{code:08x}"),
        }),
        c => out.push(c),
    }
}

/// Widths and precisions above this are refused, as Go does.
const MOST: usize = 1_000_000;

/// What stands between `%` and the verb.
#[derive(Debug, Default, Clone, Copy)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Fills in the verbs of `verbs`.
pub(crate) fn printf(verbs: &str, values: &[Value]) -> String {
    let mut printer = Printer { values, next: 0, is_reordered: false, out: String::new() };
    let mut rest = verbs;
    while let Some(at) = rest.find('%') {
        printer.out.push_str(&rest[..at]);
        rest = printer.verb(&rest[at + 1..]);
    }
    printer.out.push_str(rest);
    printer.extra();
    printer.out
}

struct Printer<'a> {
    values: &'a [Value],
    next: usize,
    is_reordered: bool,
    out: String,
}

impl Printer<'_> {
    /// One verb, behind its `%`; what is left behind it.
    fn verb<'s>(&mut self, mut rest: &'s str) -> &'s str {
        let mut spec = Spec::default();
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut is_good = true;
        (rest, is_good) = self.index(rest, is_good);
        match self.number(rest, "%!(BADWIDTH)") {
            (after, Some(width)) => {
                spec.minus |= width < 0;
                (rest, spec.width) = (after, usize::try_from(width.unsigned_abs()).ok());
            }
            (after, None) => rest = after,
        }
        if let Some(after) = rest.strip_prefix('.') {
            (rest, is_good) = self.index(after, is_good);
            let (after, precision) = self.number(rest, "%!(BADPREC)");
            (rest, spec.precision) =
                (after, Some(precision.and_then(|it| usize::try_from(it).ok()).unwrap_or(0)));
        }
        (rest, is_good) = self.index(rest, is_good);
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        let rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push('%');
        } else if !is_good {
            self.out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = self.values.get(self.next) {
            self.next += 1;
            self.out.push_str(&formatted(spec, verb, value));
        } else {
            self.out.push_str(&format!("%!{verb}(MISSING)"));
        }
        rest
    }

    /// `[3]`: which value is next.
    fn index<'s>(&mut self, rest: &'s str, is_good: bool) -> (&'s str, bool) {
        let Some(inside) = rest.strip_prefix('[') else { return (rest, is_good) };
        self.is_reordered = true;
        let Some((number, after)) = inside.split_once(']') else { return (inside, false) };
        match number.parse::<usize>() {
            Ok(at) if at >= 1 && at <= self.values.len() => {
                self.next = at - 1;
                (after, is_good)
            }
            _ => (after, false),
        }
    }

    /// A width or precision: digits, or `*` for the next value.
    fn number<'s>(&mut self, rest: &'s str, complaint: &str) -> (&'s str, Option<i64>) {
        let fits = |it: &i64| it.unsigned_abs() <= MOST as u64;
        if let Some(after) = rest.strip_prefix('*') {
            let value = self.values.get(self.next);
            self.next += 1;
            return match value {
                Some(Value::Int(it)) if fits(it) => (after, Some(*it)),
                _ => {
                    self.out.push_str(complaint);
                    (after, None)
                }
            };
        }
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &rest[..rest.len() - after.len()];
        (after, digits.parse().ok().filter(fits))
    }

    /// Values that no verb asked for.
    fn extra(&mut self) {
        if self.is_reordered || self.next >= self.values.len() {
            return;
        }
        let extra: Vec<String> = self.values[self.next..]
            .iter()
            .map(|value| match value {
                Value::Nil | Value::Absent => "<nil>".to_owned(),
                value => format!("{}={}", value.type_name(), value.shown()),
            })
            .collect();
        self.out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
}

fn formatted(spec: Spec, verb: char, value: &Value) -> String {
    match (verb, value) {
        ('T', value) => {
            let name = if matches!(value, Value::Nil | Value::Absent) {
                "<nil>"
            } else {
                value.type_name()
            };
            pad(spec, name.to_owned())
        }
        ('v', Value::Nil | Value::Absent) => pad(spec, "<nil>".to_owned()),
        (verb, Value::Nil | Value::Absent) => format!("%!{verb}(<nil>)"),
        (_, Value::List(list)) => {
            let parts: Vec<String> =
                list.iter().map(|value| formatted(spec, verb, value)).collect();
            format!("[{}]", parts.join(" "))
        }
        (_, Value::Map(map)) => {
            let parts: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    let key = formatted(spec, verb, &Value::text(key));
                    format!("{key}:{}", formatted(spec, verb, value))
                })
                .collect();
            format!("map[{}]", parts.join(" "))
        }
        ('t' | 'v', Value::Bool(it)) => pad(spec, it.to_string()),
        (_, Value::Int(it)) => whole(spec, verb, *it).unwrap_or_else(|| bad(verb, value)),
        (_, Value::Float(it)) => real(spec, verb, *it).unwrap_or_else(|| bad(verb, value)),
        (_, Value::String(it)) => text(spec, verb, it).unwrap_or_else(|| bad(verb, value)),
        (_, Value::Object(it)) => text(spec, verb, &it.text()).unwrap_or_else(|| bad(verb, value)),
        _ => bad(verb, value),
    }
}

fn bad(verb: char, value: &Value) -> String {
    format!("%!{verb}({}={})", value.type_name(), value.shown())
}

/// Fills up to the width.
fn pad(spec: Spec, text: String) -> String {
    let lacking = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    match spec {
        _ if lacking == 0 => text,
        Spec { minus: true, .. } => text + &" ".repeat(lacking),
        Spec { zero: true, .. } => "0".repeat(lacking) + &text,
        _ => " ".repeat(lacking) + &text,
    }
}

/// Fills up a number to the width: zeros go between the sign and the digits.
fn pad_number(spec: Spec, sign: &str, digits: &str) -> String {
    let lacking = spec.width.unwrap_or(0).saturating_sub(sign.len() + digits.chars().count());
    if spec.zero && !spec.minus {
        return format!("{sign}{}{digits}", "0".repeat(lacking));
    }
    pad(Spec { zero: false, ..spec }, format!("{sign}{digits}"))
}

fn sign(spec: Spec, is_negative: bool) -> &'static str {
    match spec {
        _ if is_negative => "-",
        Spec { plus: true, .. } => "+",
        Spec { space: true, .. } => " ",
        _ => "",
    }
}

fn whole(spec: Spec, verb: char, number: i64) -> Option<String> {
    let magnitude = number.unsigned_abs();
    let character = || u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{FFFD}');
    let (prefix, digits) = match verb {
        'v' | 'd' => ("", magnitude.to_string()),
        'b' => ("0b", format!("{magnitude:b}")),
        'o' => ("0", format!("{magnitude:o}")),
        'O' => ("", format!("0o{magnitude:o}")),
        'x' => ("0x", format!("{magnitude:x}")),
        'X' => ("0X", format!("{magnitude:X}")),
        'c' => return Some(pad(spec, character().to_string())),
        'q' => {
            let mut quoted = String::from("'");
            match character() {
                '\'' => quoted.push_str("\\'"),
                c => escape(&mut quoted, c, spec.plus),
            }
            quoted.push('\'');
            return Some(pad(spec, quoted));
        }
        'U' => {
            let code = format!("U+{number:04X}");
            let shown = if spec.sharp { format!("{code} '{}'", character()) } else { code };
            return Some(pad(Spec { zero: false, ..spec }, shown));
        }
        _ => return None,
    };
    let mut digits = digits;
    let mut spec = spec;
    if let Some(precision) = spec.precision {
        spec.zero = false;
        if precision == 0 && number == 0 {
            digits.clear();
        }
        digits = "0".repeat(precision.saturating_sub(digits.len())) + &digits;
    }
    let sign = sign(spec, number < 0).to_owned() + if spec.sharp { prefix } else { "" };
    Some(pad_number(spec, &sign, &digits))
}

fn real(spec: Spec, verb: char, number: f64) -> Option<String> {
    let magnitude = number.abs();
    if !number.is_finite() {
        let digits = if number.is_nan() { "NaN" } else { "Inf" };
        let plus = Spec { plus: spec.plus || number.is_infinite(), zero: false, ..spec };
        return Some(pad_number(plus, sign(plus, number < 0.0), digits));
    }
    let digits = match verb {
        'v' | 'g' => general(magnitude, spec.precision),
        'G' => general(magnitude, spec.precision).to_uppercase(),
        'f' | 'F' => format!("{magnitude:.*}", spec.precision.unwrap_or(6)),
        'e' => exponent(magnitude, Some(spec.precision.unwrap_or(6))),
        'E' => exponent(magnitude, Some(spec.precision.unwrap_or(6))).to_uppercase(),
        _ => return None,
    };
    Some(pad_number(spec, sign(spec, number.is_sign_negative()), &digits))
}

/// `1.5e+06`
fn exponent(number: f64, precision: Option<usize>) -> String {
    let plain = match precision {
        Some(precision) => format!("{number:.precision$e}"),
        None => format!("{number:e}"),
    };
    let (digits, power) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{digits}e{sign}{power:0>2}")
}

/// With an exponent where that is below -4, or not below the precision (6 where the shortest text is wanted).
fn general(number: f64, precision: Option<usize>) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN".to_owned()
        } else if number < 0.0 {
            "-Inf".to_owned()
        } else {
            "+Inf".to_owned()
        };
    }
    let significant = precision.map(|it| it.max(1));
    let scientific = exponent(number, significant.map(|it| it - 1));
    let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let trimmed = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    let most = significant.map_or(6, |it| i32::try_from(it).unwrap_or(i32::MAX));
    if power < -4 || power >= most {
        let (_, tail) = scientific.split_once('e').unwrap_or_default();
        return format!("{trimmed}e{tail}");
    }
    let rounded: f64 = scientific.parse().unwrap_or(number);
    format!("{rounded}")
}

fn text(spec: Spec, verb: char, text: &str) -> Option<String> {
    let cut: String = match spec.precision {
        Some(most) if verb != 'x' && verb != 'X' => text.chars().take(most).collect(),
        _ => text.to_owned(),
    };
    let shown = match verb {
        'v' if spec.sharp => quoted(&cut),
        's' | 'v' => cut,
        'q' if spec.sharp && !cut.contains(['`', '\u{7f}']) && !cut.contains(char::is_control) => {
            format!("`{cut}`")
        }
        'q' if spec.plus => {
            let mut out = String::from("\"");
            for c in cut.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    c => escape(&mut out, c, true),
                }
            }
            out + "\""
        }
        'q' => quoted(&cut),
        'x' | 'X' => {
            let bytes = text.bytes().take(spec.precision.unwrap_or(usize::MAX));
            let bytes: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
            let between = if spec.space { " " } else { "" };
            let front = if spec.sharp { "0x" } else { "" };
            let hex = format!("{front}{}", bytes.join(between));
            if verb == 'X' { hex.to_uppercase() } else { hex }
        }
        _ => return None,
    };
    Some(pad(spec, shown))
}
