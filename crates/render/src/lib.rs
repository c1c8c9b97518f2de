//! Templates and facts in, file contents out. Pure: nothing here reads or writes a file.
//!
//! - [`confd`] operators' own templates, filled from keys with values
//! - [`mariadb`], [`keepalived`], [`redis`], [`php`], [`wordpress`]: one file a program that reads what we render
//!
//! Invariants: a fact that the template does not know, or a name that the facts do not have, is an error in our tests
//! rather than an empty place in a file; what goes between quotes is escaped by the rules of the reader.

pub mod confd;
pub mod keepalived;
pub mod mariadb;
pub mod php;
pub mod redis;
mod template;
pub mod wordpress;
