//! This machine's hands: what observes it, decides by `plan` what comes next, and does it.
//!
//! - [`keeper`] the parent of every process, and how to talk to it
//! - [`agent`] the loop: observe, decide, apply; [`observe`], [`apply`], [`probe`], [`report`] are its parts
//! - [`author`] where wp-admin changes code
//! - `bytecode` what releases are compiled to
//! - [`cluster`] this node among others
//! - [`confinement`] what a site's PHP may see and take of the machine
//! - [`container`] the same by Docker
//! - [`facts`] what it knows of a site, and keeps
//! - [`engine`] MariaDB, Redis, php-fpm, etcd, keepalived, our planes: files, processes, probes
//! - [`floating`] this node's part in floating addresses
//! - [`git`] a site's releases as commits, and pushes as deploys
//! - [`mailbox`] the mail that environments wanted to send
//! - [`names`] this node's part of discovery
//! - [`published`] versions of WordPress from wordpress.org or a mirror
//! - `integrity` what lies where it has no business
//! - [`site`] a site's folders, code, database and WordPress
//! - [`writes`] what a site writes beside its database
//! - [`sessions`] that no site fills the sessions server for all
//! - [`view`] what the edge is told; [`tls`] certificates of the local authority
//! - [`template`] other programs' configuration files, as operators' templates say
//! - [`layout`] every path; [`files`], [`acl`], [`users`], [`secrets`], [`packages`], [`host`] this machine
//! - [`doctor`] what is wrong or will be
//!
//! Always: every action may be applied twice; a file in use is replaced by rename; a secret is in no argument and no log.

pub mod acl;
pub mod agent;
pub mod apply;
pub mod author;
mod bytecode;
pub mod cluster;
pub mod confinement;
pub mod container;
pub mod doctor;
pub mod engine;
pub mod facts;
pub mod fastcgi;
pub mod files;
pub mod floating;
pub mod git;
pub mod host;
mod integrity;
pub mod keeper;
pub mod layout;
pub mod mailbox;
pub mod names;
pub mod observe;
pub mod packages;
pub mod probe;
pub mod published;
pub mod report;
pub mod secrets;
pub mod sessions;
pub mod site;
pub mod template;
pub mod tls;
pub mod users;
pub mod view;
pub mod writes;
