//! FastCGI, the client's half: one request per connection, on a unix socket.
//!
//! - [`codec`] records as bytes, both ways (pure)
//! - [`head`] the CGI header block at the start of an answer (pure)
//! - [`params`] the parameters of a request, in encoded form (pure)
//! - [`exchange`] one request on one connection: body up and answer down at the same time, with back-pressure
//!
//! Why no kept connections: a kept connection occupies a php-fpm worker whether it has work or not.

pub mod codec;
pub mod exchange;
pub mod head;
pub mod params;
