//! The inputs under `fuzz/corpus/`, replayed through the functions that the fuzz targets call, without a fuzzer.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(unreachable_pub, reason = "the module is shared with the fuzz targets")]

#[path = "../../fuzz/inputs.rs"]
mod inputs;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

/// The entries of a directory, sorted.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The names of a directory's entries without their endings.
fn stems(dir: &Path) -> BTreeSet<String> {
    entries(dir).iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_input_of_the_corpora_keeps_the_promises() {
    let mut broken = Vec::new();
    for (target, run) in inputs::TARGETS {
        let files = entries(&fuzz_dir().join("corpus").join(target));
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            if catch_unwind(|| run(&bytes)).is_err() {
                broken.push(file.display().to_string());
            }
        }
    }
    assert!(broken.is_empty(), "these break a promise:\n{}", broken.join("\n"));
}

#[test]
fn every_target_has_a_function_a_program_and_a_corpus() {
    let functions: BTreeSet<String> = inputs::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(stems(&fuzz_dir().join("fuzz_targets")), functions);
    assert_eq!(stems(&fuzz_dir().join("corpus")), functions);
    let manifest = std::fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for name in &functions {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in the manifest");
    }
}
