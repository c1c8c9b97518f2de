//! The commands: what people type, and what they read. Only this crate prints.
//!
//! - [`machine`] the trait through which commands touch the machine; the binary implements it
//! - [`place`] where the data directory, the configuration and the sockets are
//!
//! Always: data goes to standard output, talk to standard error; the exit status is 0 done, 1 your mistake, 2 our
//! failure; what destroys asks first, and the default answer is No.

pub mod machine;
pub mod place;
