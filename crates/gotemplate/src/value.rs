//! What a template computes with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::format;
use crate::function::Answer;

/// A value.
#[derive(Clone, Default)]
pub enum Value {
    /// What a map has not: prints `<no value>`, and so has everything below it.
    #[default]
    Absent,
    /// `nil`.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number as JSON has it.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// A map by text; ranges over it go by the order of keys.
    Map(Arc<BTreeMap<String, Value>>),
    /// Something with a fixed set of fields or methods.
    Object(Arc<dyn Object>),
}

/// Something with a fixed set of fields and methods; asking for another one is a fault.
pub trait Object: fmt::Debug + Send + Sync {
    /// Its type, for errors and `%T`.
    fn type_name(&self) -> &str;

    /// A field's value, or what a method answers; `None`: it has no such thing. A field is not given arguments.
    fn get(&self, name: &str, arguments: &[Value]) -> Option<Answer>;

    /// What is printed of it.
    fn text(&self) -> String;

    /// Its fields, for those who show all of them.
    fn fields(&self) -> Vec<(&str, Value)> {
        Vec::new()
    }
}

/// Named fields in an order: a struct.
#[derive(Debug, Clone)]
pub struct Record {
    /// The name of its type.
    pub type_name: &'static str,
    /// Its fields.
    pub fields: Vec<(&'static str, Value)>,
}

impl Object for Record {
    fn type_name(&self) -> &str {
        self.type_name
    }

    fn get(&self, name: &str, arguments: &[Value]) -> Option<Answer> {
        let (_, value) = self.fields.iter().find(|(field, _)| *field == name)?;
        Some(if arguments.is_empty() {
            Ok(value.clone())
        } else {
            Err(crate::Refused(format!("{name} is not a method but has arguments")))
        })
    }

    fn text(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(_, value)| value.shown()).collect();
        format!("{{{}}}", fields.join(" "))
    }

    fn fields(&self) -> Vec<(&str, Value)> {
        self.fields.iter().map(|(name, value)| (*name, value.clone())).collect()
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(text.as_ref().into())
    }

    /// A list.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Self::List(values.into_iter().collect())
    }

    /// A map.
    pub fn map<K: Into<String>>(values: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(Arc::new(values.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }

    /// A record.
    pub fn record(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Self {
        Self::Object(Arc::new(Record { type_name, fields }))
    }

    /// Whether `if` takes it for true: not zero, not empty.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Absent | Self::Nil => false,
            Self::Bool(it) => *it,
            Self::Int(it) => *it != 0,
            Self::Float(it) => *it != 0.0,
            Self::String(it) => !it.is_empty(),
            Self::List(it) => !it.is_empty(),
            Self::Map(it) => !it.is_empty(),
            Self::Object(_) => true,
        }
    }

    /// Go's name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Absent | Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Object(it) => it.type_name(),
        }
    }

    /// What `%v` prints.
    pub fn shown(&self) -> String {
        match self {
            Self::Absent | Self::Nil => "<nil>".to_owned(),
            Self::Bool(it) => it.to_string(),
            Self::Int(it) => it.to_string(),
            Self::Float(it) => format::float(*it),
            Self::String(it) => it.to_string(),
            Self::List(it) => {
                let parts: Vec<String> = it.iter().map(Self::shown).collect();
                format!("[{}]", parts.join(" "))
            }
            Self::Map(it) => {
                let parts: Vec<String> =
                    it.iter().map(|(key, value)| format!("{key}:{}", value.shown())).collect();
                format!("map[{}]", parts.join(" "))
            }
            Self::Object(it) => it.text(),
        }
    }

    /// What an action prints.
    pub fn printed(&self) -> String {
        match self {
            Self::Absent | Self::Nil => "<no value>".to_owned(),
            it => it.shown(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(it) => fmt::Debug::fmt(it, f),
            it => write!(f, "{}({})", it.type_name(), it.shown()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<bool> for Value {
    fn from(it: bool) -> Self {
        Self::Bool(it)
    }
}

impl From<i64> for Value {
    fn from(it: i64) -> Self {
        Self::Int(it)
    }
}

impl From<f64> for Value {
    fn from(it: f64) -> Self {
        Self::Float(it)
    }
}
