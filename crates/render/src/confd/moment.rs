//! `datetime`: now, in UTC, with the methods of Go's `time.Time` that templates use.

use std::fmt;
use std::sync::Arc;

use pressroom_gotemplate::function::Answer;
use pressroom_gotemplate::value::Object;
use pressroom_gotemplate::{Functions, Refused, Value};

use super::Surroundings;
use super::words::text;

pub(super) fn add(functions: &mut Functions, around: &Arc<dyn Surroundings>) {
    let it = Arc::clone(around);
    functions.add("datetime", 0..=0, move |_| Ok(Value::Object(Arc::new(Moment::of(it.now_ms())))));
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment in the Gregorian calendar.
#[derive(Clone, Copy)]
struct Moment {
    ms: u64,
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    day_of_year: u64,
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Moment {
    /// Counts years and months from 1970 on: this is asked for once a file.
    fn of(ms: u64) -> Self {
        let days = ms / 86_400_000;
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut left) = (1970, days);
        while left >= 365 + u64::from(is_leap(year)) {
            left -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let day_of_year = left + 1;
        let february = 28 + u64::from(is_leap(year));
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while left >= lengths[month] {
            left -= lengths[month];
            month += 1;
        }
        let weekday = usize::try_from(days % 7).unwrap_or(0);
        Self { ms, year, month, day: left + 1, weekday, day_of_year }
    }

    fn hour(self) -> u64 {
        self.ms / 3_600_000 % 24
    }

    fn minute(self) -> u64 {
        self.ms / 60_000 % 60
    }

    fn second(self) -> u64 {
        self.ms / 1000 % 60
    }

    /// As the layout says, which is written as 2 January 2006, 15:04:05, would be.
    fn format(self, layout: &str) -> String {
        let mut out = String::new();
        let mut rest = layout;
        while let Some(c) = rest.chars().next() {
            if let Some((part, length)) = self.part(rest) {
                out.push_str(&part);
                rest = &rest[length..];
            } else {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        out
    }

    /// What the element at the front of a layout stands for, and its length.
    fn part(self, layout: &str) -> Option<(String, usize)> {
        let short = |name: &str| name[..3].to_owned();
        let noon = if self.hour() < 12 { "am" } else { "pm" };
        let twelve = match self.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        let (month, day) = (MONTHS[self.month], DAYS[self.weekday]);
        // Longer elements stand before those that they begin with.
        let elements: [(&str, &dyn Fn() -> String); 31] = [
            ("January", &|| month.to_owned()),
            ("Jan", &|| short(month)),
            ("Monday", &|| day.to_owned()),
            ("Mon", &|| short(day)),
            ("MST", &|| "UTC".to_owned()),
            ("2006", &|| format!("{:04}", self.year)),
            ("-07:00", &|| "+00:00".to_owned()),
            ("-0700", &|| "+0000".to_owned()),
            ("-07", &|| "+00".to_owned()),
            ("Z07:00", &|| "Z".to_owned()),
            ("Z0700", &|| "Z".to_owned()),
            ("Z07", &|| "Z".to_owned()),
            ("002", &|| format!("{:03}", self.day_of_year)),
            ("01", &|| format!("{:02}", self.month + 1)),
            ("02", &|| format!("{:02}", self.day)),
            ("03", &|| format!("{twelve:02}")),
            ("04", &|| format!("{:02}", self.minute())),
            ("05", &|| format!("{:02}", self.second())),
            ("06", &|| format!("{:02}", self.year % 100)),
            (".000000000", &|| format!(".{:03}000000", self.ms % 1000)),
            (".000000", &|| format!(".{:03}000", self.ms % 1000)),
            (".000", &|| format!(".{:03}", self.ms % 1000)),
            ("15", &|| format!("{:02}", self.hour())),
            ("1", &|| (self.month + 1).to_string()),
            ("_2", &|| format!("{:2}", self.day)),
            ("2", &|| self.day.to_string()),
            ("3", &|| twelve.to_string()),
            ("4", &|| self.minute().to_string()),
            ("5", &|| self.second().to_string()),
            ("PM", &|| noon.to_uppercase()),
            ("pm", &|| noon.to_owned()),
        ];
        let (element, value) = elements.iter().find(|(element, _)| layout.starts_with(element))?;
        Some((value(), element.len()))
    }
}

impl Object for Moment {
    fn type_name(&self) -> &'static str {
        "time.Time"
    }

    fn get(&self, name: &str, arguments: &[Value]) -> Option<Answer> {
        let number = |it: u64| Some(Ok(Value::Int(i64::try_from(it).unwrap_or(i64::MAX))));
        match (name, arguments) {
            ("Format", [_]) => {
                Some(text(arguments, 0).map(|layout| Value::from(self.format(layout))))
            }
            ("Format", _) => Some(Err(Refused("Format wants one layout".to_owned()))),
            ("UTC" | "Local", []) => Some(Ok(Value::Object(Arc::new(*self)))),
            ("Unix", []) => number(self.ms / 1000),
            ("UnixMilli", []) => number(self.ms),
            ("Year", []) => number(self.year),
            ("Month", []) => Some(Ok(MONTHS[self.month].into())),
            ("Day", []) => number(self.day),
            ("YearDay", []) => number(self.day_of_year),
            ("Weekday", []) => Some(Ok(DAYS[self.weekday].into())),
            ("Hour", []) => number(self.hour()),
            ("Minute", []) => number(self.minute()),
            ("Second", []) => number(self.second()),
            _ => None,
        }
    }

    fn text(&self) -> String {
        self.format("2006-01-02 15:04:05.000 -0700 MST")
    }
}
