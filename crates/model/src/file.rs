//! The configuration as written: `pressroom.toml`.
