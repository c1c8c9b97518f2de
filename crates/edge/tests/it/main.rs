//! The edge as its users meet it: real sockets, real TLS, a real php-fpm.
//!
//! Needs `php-fpm8.2` (Debian's package). Every test has its own folder, ports, php-fpm and edge.

mod harness;

mod caching;
mod cluster;
mod faults;
mod files;
mod mesh;
mod passing;
mod sockets;
