//! Rebuilds when a migration is added: they are embedded by a macro that Cargo does not look into.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
