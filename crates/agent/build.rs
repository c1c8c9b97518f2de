//! The PHP that WordPress loads is part of the binary: build again when it changes.

fn main() {
    println!("cargo:rerun-if-changed=../../wordpress");
}
