//! A configuration file of somebody else's program that is kept as a template says: confd's template resources.
//!
//! A resource is a TOML file as confd documents it
//! (<https://github.com/kelseyhightower/confd/blob/master/docs/template-resources.md>), with one key of ours, `empty`. Keys that
//! nobody knows are passed over, as confd does, and named.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is rendered, where to, and what is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The template, below the folder `templates`; one of Jinja's where it ends in `.j2`.
    pub src: String,
    /// The file.
    pub dest: PathBuf,
    /// What the template sees: these keys and everything below them. Each begins with `/`.
    pub keys: Vec<String>,
    /// What is before these keys in the store, and before no key in the template. Begins with `/`, does not end so.
    pub prefix: String,
    /// The file's mode; `None`: that of the file there, else 0644.
    pub mode: Option<u32>,
    /// Its owner; `None`: who renders.
    pub owner: Option<Who>,
    /// Its group.
    pub group: Option<Who>,
    /// A shell command that says whether the rendered file is good: `{{.src}}` is that one, `{{.dest}}` where it goes.
    pub check: Option<String>,
    /// A shell command that has the program read the new file.
    pub reload: Option<String>,
    /// What becomes of the file when the store has nothing.
    pub empty: Empty,
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// What becomes of a file that is there when the store has nothing under the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Empty {
    /// It stays: a store that lost its contents takes nobody's backends away.
    #[default]
    Keep,
    /// It is rendered without values.
    Render,
}

/// Everything that is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Faults {}

#[derive(Deserialize)]
struct File {
    template: Table,
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    src: String,
    #[serde(default)]
    dest: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    prefix: String,
    mode: Option<String>,
    uid: Option<i64>,
    gid: Option<i64>,
    owner: Option<String>,
    group: Option<String>,
    check_cmd: Option<String>,
    reload_cmd: Option<String>,
    #[serde(default)]
    empty: Empty,
    #[serde(flatten)]
    unknown: toml::Table,
}

/// Reads a resource; also the keys in it that are passed over. A `prefix` that is given counts instead of the resource's own.
pub fn parse(text: &str, prefix: Option<&str>) -> Result<(Resource, Vec<String>), Faults> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        Faults(vec![format!("{place}{}", error.message())])
    })?;
    let table = file.template;
    let mut faults = Vec::new();
    if table.src.is_empty() {
        faults.push("`src` is missing: the template's name".to_owned());
    } else if table.src.starts_with('/') || table.src.split('/').any(|part| part == "..") {
        faults.push(format!("`src` is `{}`: name a file below the folder `templates`", table.src));
    }
    if !table.dest.starts_with('/') || table.dest.ends_with('/') {
        faults.push(format!("`dest` is `{}`: give the whole path of a file", table.dest));
    }
    let mode = table.mode.as_deref().filter(|mode| !mode.is_empty());
    let mode = mode.map(|mode| permissions(mode).map_err(|fault| faults.push(fault)));
    let owner = who("uid", table.uid, table.owner).map_err(|fault| faults.push(fault));
    let group = who("gid", table.gid, table.group).map_err(|fault| faults.push(fault));
    let (Ok(mode), Ok(owner), Ok(group), true) =
        (mode.transpose(), owner, group, faults.is_empty())
    else {
        return Err(Faults(faults));
    };
    let command = |it: Option<String>| it.filter(|command| !command.trim().is_empty());
    let prefix = prefix.filter(|prefix| !prefix.is_empty()).unwrap_or(&table.prefix);
    let resource = Resource {
        src: table.src,
        dest: table.dest.into(),
        keys: table.keys.iter().map(|key| rooted(key)).collect(),
        prefix: rooted(prefix).trim_end_matches('/').to_owned(),
        mode,
        owner,
        group,
        check: command(table.check_cmd),
        reload: command(table.reload_cmd),
        empty: table.empty,
    };
    Ok((resource, table.unknown.keys().cloned().collect()))
}

impl Resource {
    /// Where the values are in the store, each without a slash at either end; one that is below another is left out.
    /// An empty one stands for everything.
    pub fn places(&self) -> Vec<String> {
        let whole = |key: &String| format!("{}{key}", self.prefix).trim_matches('/').to_owned();
        let mut places: Vec<String> = self.keys.iter().map(whole).collect();
        places.sort();
        places.dedup();
        let all = places.clone();
        let is_below = |place: &String, other: &String| {
            place != other && (other.is_empty() || place.starts_with(&format!("{other}/")))
        };
        places.retain(|place| !all.iter().any(|other| is_below(place, other)));
        places
    }

    /// The name that the template has for a key of the store, which is without a slash in front.
    pub fn key(&self, stored: &str) -> String {
        let whole = format!("/{stored}");
        match whole.strip_prefix(&self.prefix) {
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => whole,
        }
    }
}

/// A key with one slash in front and none at its end.
fn rooted(key: &str) -> String {
    let parts: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

/// `0644`, `644` and `0o644` are one mode: nobody means the decimal number.
fn permissions(mode: &str) -> Result<u32, String> {
    let digits = mode.strip_prefix("0o").unwrap_or(mode);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("`mode` is `{mode}`: give it in octal, as \"0644\"")),
    }
}

/// A number below 0 is confd's way to leave it out.
fn who(key: &str, id: Option<i64>, name: Option<String>) -> Result<Option<Who>, String> {
    match (id, name) {
        (Some(id), _) if id >= 0 => match u32::try_from(id) {
            Ok(id) => Ok(Some(Who::Id(id))),
            Err(_) => Err(format!("`{key}` is {id}: there is no such number")),
        },
        (_, Some(name)) if !name.is_empty() => Ok(Some(Who::Name(name))),
        _ => Ok(None),
    }
}

/// How one file stands, for people and for `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The resource's file, as `haproxy.toml`.
    pub name: String,
    /// The file that it keeps.
    #[serde(default)]
    pub dest: PathBuf,
    /// Where it stands.
    pub standing: Standing,
    /// Why, or what was done last.
    #[serde(default)]
    pub because: String,
    /// When it came to stand so, milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// When the file was replaced last by this process.
    #[serde(default)]
    pub replaced_ms: Option<u64>,
    /// Whether the store answers; while it does not, the file stays.
    #[serde(default)]
    pub is_heard: bool,
}

/// Where a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing is known of the store yet.
    Waiting,
    /// It is as the store says, and its program has read it.
    Current,
    /// It would be another one, but nothing is to be changed.
    Differs,
    /// It stays as it is, because the store has nothing.
    Held,
    /// The new one could not be rendered, did not pass its check, or could not be written: the former one stays.
    Failed,
    /// The new one is in place, but its program could not be told.
    Unread,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Current => "current",
            Self::Differs => "differs",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Unread => "unread",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
[template]
src = "nginx.conf.tmpl"
dest = "/etc/nginx/nginx.conf"
prefix = "/production/"
uid = 0
gid = 33
mode = "0640"
keys = ["/nginx", "app/", "/nginx/sub"]
check_cmd = "/usr/sbin/nginx -t -c {{.src}}"
reload_cmd = "/usr/sbin/service nginx restart"
fancy = 1
"#;

    #[test]
    fn a_resource_of_confds_is_read_as_it_is() {
        let (resource, unknown) = parse(WHOLE, None).expect("a resource");
        assert_eq!(unknown, ["fancy"]);
        assert_eq!(resource.keys, ["/nginx", "/app", "/nginx/sub"]);
        assert_eq!(resource.mode, Some(0o640));
        assert_eq!(
            (resource.owner.clone(), resource.group.clone()),
            (Some(Who::Id(0)), Some(Who::Id(33)))
        );
        assert_eq!(resource.check.as_deref(), Some("/usr/sbin/nginx -t -c {{.src}}"));
        assert_eq!(resource.empty, Empty::Keep);
        assert_eq!(resource.places(), ["production/app", "production/nginx"]);
        assert_eq!(resource.key("production/nginx/port"), "/nginx/port");
        assert_eq!(resource.key("productions/x"), "/productions/x");
        let (resource, _) = parse(WHOLE, Some("staging")).expect("a resource");
        assert_eq!(resource.places(), ["staging/app", "staging/nginx"]);
    }

    #[test]
    fn everything_at_the_root_is_one_place() {
        let text = "[template]\nsrc='a'\ndest='/b'\nkeys=['/', '/x']";
        let (resource, _) = parse(text, None).expect("a resource");
        assert_eq!(resource.places(), [""]);
        assert_eq!(resource.key("x/y"), "/x/y");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let bad = "[template]\nsrc = '../x'\ndest = 'relative'\nmode = '9'\nuid = 4294967296";
        let Faults(faults) = parse(bad, None).expect_err("bad");
        assert_eq!(faults.len(), 4, "{faults:?}");
        let Faults(faults) = parse("[template]\nsrc = 'a'\ndest = 3", None).expect_err("bad");
        assert!(faults[0].starts_with("line 3: "), "{faults:?}");
        assert!(parse("", None).is_err());
    }
}
