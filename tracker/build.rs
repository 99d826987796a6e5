//! Builds again when a migration is added: the embedding macro alone would not notice a new file.

fn main() {
    let mut out = std::io::stdout();
    // Cargo reads its instructions from our standard output; without them it rebuilds too often, no worse.
    let _ = std::io::Write::write_all(&mut out, b"cargo::rerun-if-changed=../migrations\n");
}
