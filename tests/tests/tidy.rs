//! The rules of the code that no compiler checks: design §9, one test each.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};

/// Longer files say why, on a line that begins with this.
const LENGTH_REASON: &str = "//! Length:";
const MAX_LINES: usize = 500;
const MAX_ARCHITECTURE_LINES: usize = 250;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// All files below a directory, without what Cargo and git put there.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match path.is_dir() {
            true if name == "target" || name == ".git" => {}
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Our Rust files, relative to the root.
fn sources() -> Vec<PathBuf> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "rs");
    files_below(root()).into_iter().filter(is_source).map(|path| path.strip_prefix(root()).unwrap().into()).collect()
}

/// The part of a file that is not its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn assert_none(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

/// Invariant 9.
#[test]
fn no_file_is_named_util_helpers_misc_or_common() {
    const VAGUE: [&str; 11] =
        ["util", "utils", "helper", "helpers", "misc", "common", "manager", "handler", "stuff", "shared", "types"];
    let vague = |path: &PathBuf| {
        let inside = path.components().skip(1).map(|part| Path::new(part.as_os_str()).file_stem().unwrap().to_owned());
        inside.into_iter().any(|stem| VAGUE.iter().any(|name| stem == *name))
    };
    let offenders = sources().into_iter().filter(vague).map(|path| path.display().to_string()).collect();
    assert_none("names that say nothing", offenders);
}

/// Invariant 9.
#[test]
fn every_file_opens_with_what_it_is() {
    let silent = |path: &PathBuf| !read(root().join(path)).starts_with("//! ");
    let offenders = sources().into_iter().filter(silent).map(|path| path.display().to_string()).collect();
    assert_none("files that do not open with `//!`", offenders);
}

/// Invariant 9.
#[test]
fn long_files_say_why() {
    let too_long = |path: &PathBuf| {
        let text = read(root().join(path));
        text.lines().count() > MAX_LINES && !text.lines().any(|line| line.starts_with(LENGTH_REASON))
    };
    let offenders = sources().into_iter().filter(too_long).map(|path| path.display().to_string()).collect();
    assert_none(&format!("files over {MAX_LINES} lines without `{LENGTH_REASON}`"), offenders);
}

/// The names under `[dependencies]` of a manifest.
fn dependencies(package: &str) -> Vec<String> {
    let manifest = read(root().join(package).join("Cargo.toml"));
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        match line.strip_prefix('[') {
            Some(section) => inside = section.starts_with("dependencies"),
            None if inside && !line.starts_with('#') => {
                names.extend(line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(str::to_owned));
            }
            None => {}
        }
    }
    names
}

/// Invariant 1: no runtime, socket, file, clock or entropy in `common` and `engine`.
#[test]
fn values_and_decisions_have_no_effects() {
    const EFFECTS: [&str; 12] = [
        "tokio",
        "mio",
        "socket2",
        "async-std",
        "smol",
        "getrandom",
        "tempfile",
        "rusqlite",
        "rustix",
        "libc",
        "nix",
        "chrono",
    ];
    let mut offenders = Vec::new();
    for package in ["common", "engine"] {
        let bad = dependencies(package).into_iter().filter(|name| EFFECTS.contains(&name.as_str()));
        offenders.extend(bad.map(|name| format!("{package} depends on {name}")));
    }
    if dependencies("common").iter().any(|name| name == "rand") {
        offenders.push("common depends on rand".into());
    }
    const CALLS: [&str; 9] = [
        "Instant::now(",
        "SystemTime::now(",
        "File::open(",
        "File::create(",
        "std::fs::",
        "TcpStream",
        "UdpSocket",
        "rand::rng(",
        "thread::spawn(",
    ];
    let checked = |path: &&PathBuf| {
        (path.starts_with("common/src") || path.starts_with("engine/src")) && !path.ends_with("tests.rs")
    };
    for path in sources().iter().filter(checked) {
        let text = read(root().join(path));
        for call in CALLS.iter().filter(|call| without_tests(&text).contains(**call)) {
            offenders.push(format!("{} has {call}", path.display()));
        }
    }
    assert_none("effects in `common` and `engine`", offenders);
}

/// Design §2: arrows point one way.
#[test]
fn packages_depend_one_way() {
    for (package, never) in [
        ("common", &["mini-torrent-engine", "mini-torrent", "mini-torrent-tracker"][..]),
        ("engine", &["mini-torrent", "mini-torrent-tracker"]),
        ("client", &["mini-torrent-tracker"]),
        ("tracker", &["mini-torrent", "mini-torrent-engine"]),
    ] {
        let bad = dependencies(package).into_iter().filter(|name| never.contains(&name.as_str())).collect();
        assert_none(&format!("{package} must not depend on these"), bad);
    }
}

/// Invariant 3, beside the lint: no allowance for unbounded queues anywhere.
#[test]
fn every_queue_has_a_bound() {
    let own = Path::new("tests/tests/tidy.rs");
    let offenders = sources().into_iter().filter(|path| path != own).filter(|path| {
        let text = read(root().join(path));
        ["unbounded_channel", "mpsc::unbounded", "mpsc::channel()", "allow(clippy::disallowed"]
            .iter()
            .any(|word| text.contains(word))
    });
    assert_none("queues without a bound", offenders.map(|path| path.display().to_string()).collect());
}

/// Invariant 6: of the programs only `output` prints; the lint denies it, and only `output` may allow it.
#[test]
fn only_output_prints() {
    let offenders = sources().into_iter().filter(|path| path.starts_with("client") || path.starts_with("tracker"));
    let offenders = offenders.filter(|path| {
        let text = read(root().join(path));
        let prints =
            ["clippy::print_stdout", "clippy::print_stderr"].iter().any(|lint| without_tests(&text).contains(lint));
        prints && !path.to_string_lossy().contains("output")
    });
    assert_none("files that print", offenders.map(|path| path.display().to_string()).collect());
}

/// Programs are a few lines around their library.
#[test]
fn mains_are_a_few_lines() {
    for path in ["client/src/main.rs", "tracker/src/main.rs"] {
        assert!(read(root().join(path)).lines().count() <= 15, "{path}");
    }
}

/// Migrations of one folder, by file name.
fn migrations(folder: &str) -> Vec<(String, PathBuf)> {
    let files = files_below(&root().join("migrations").join(folder));
    files.into_iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path)).collect()
}

/// Invariant 8: the same numbers and names in both folders, without gaps.
#[test]
fn migrations_are_numbered_and_equal_in_both_folders() {
    let sqlite = migrations("sqlite");
    assert!(!sqlite.is_empty(), "there is a schema");
    let mut numbers: Vec<u32> = sqlite
        .iter()
        .map(|(name, _)| {
            let (number, rest) = name.strip_prefix('V').and_then(|name| name.split_once("__")).unwrap();
            assert!(rest.ends_with(".sql"), "{name}");
            number.parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=numbers.len().try_into().unwrap()), "{numbers:?}");
    let names = |folder| migrations(folder).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names("sqlite"), names("postgres"));
}

/// Not every database that speaks PostgreSQL's protocol has them; what follows from a change stands in the queries.
#[test]
fn migrations_have_neither_triggers_nor_functions() {
    let text = |(name, path): (String, PathBuf)| (name, read(path).to_uppercase());
    let all = ["sqlite", "postgres"].into_iter().flat_map(migrations).map(text);
    let found =
        all.filter(|(_, text)| ["TRIGGER", "FUNCTION", "PROCEDURE", "PLPGSQL"].iter().any(|word| text.contains(word)));
    assert_none("migrations that not every database can run", found.map(|(name, _)| name).collect());
}

/// Invariant 8: add-only. `migrations.sha256` has the digest of each; a line of it is never changed once it
/// was released.
#[test]
fn migrations_are_never_edited() {
    let known = read(root().join("tests/tests/migrations.sha256"));
    let digest = |path: &PathBuf| mini_torrent_common::hash::Sha256Hash::of(&std::fs::read(path).unwrap()).to_string();
    let mut lines = Vec::new();
    for folder in ["sqlite", "postgres"] {
        lines.extend(migrations(folder).iter().map(|(name, path)| format!("{}  {folder}/{name}", digest(path))));
    }
    let known: Vec<&str> = known.lines().collect();
    assert_eq!(known, lines, "a migration is new (add its line) or edited (write a new one instead)");
}

/// ARCHITECTURE.md is short, names every package, and what it names exists.
#[test]
fn the_map_is_short_and_true() {
    let text = read(root().join("ARCHITECTURE.md"));
    let n_lines = text.lines().count();
    assert!(n_lines < MAX_ARCHITECTURE_LINES, "{n_lines} lines");
    for folder in ["common", "engine", "client", "tracker", "tests", "migrations"] {
        assert!(text.contains(&format!("{folder}/")), "{folder} is not on the map");
    }
    let paths = text.split('`').skip(1).step_by(2).filter(|word| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/') && ["common", "engine", "client", "tracker", "tests", "migrations"].contains(&first)
    });
    let missing = paths.filter(|word| !word.contains(['*', ' ', '{', '…']) && !root().join(word).exists());
    assert_none("paths on the map that do not exist", missing.map(str::to_owned).collect());
}

/// What a newcomer is promised exists; `.ci/run` calls `make test`.
#[test]
fn the_promised_files_and_targets_exist() {
    for file in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deny.toml", "tracker_info.txt"] {
        assert!(root().join(file).exists(), "{file}");
    }
    let makefile = read(root().join("Makefile"));
    for target in ["demo", "test", "bench", "torture", "fuzz"] {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "make {target}");
    }
    assert!(read(root().join(".ci/run")).contains("make test"));
}

/// Style: end-to-end tests wait for conditions. Only the harness may pause, where it looks for one.
#[test]
fn tests_do_not_sleep() {
    let own = Path::new("tests/tests/tidy.rs");
    let pausing = [Path::new("tests/src/waiting.rs"), Path::new("tests/src/kill_points/mod.rs"), own];
    let tests = sources().into_iter().filter(|path| path.starts_with("tests") || path.starts_with("engine/tests"));
    let offenders =
        tests.filter(|path| !pausing.contains(&path.as_path()) && read(root().join(path)).contains("sleep("));
    assert_none("tests that sleep", offenders.map(|path| path.display().to_string()).collect());
}

/// No test is switched off.
#[test]
fn no_test_is_ignored() {
    let own = Path::new("tests/tests/tidy.rs");
    let offenders = sources().into_iter().filter(|path| path != own && read(root().join(path)).contains("#[ignore"));
    assert_none("ignored tests", offenders.map(|path| path.display().to_string()).collect());
}

/// Every acceptance line that is due has a test that bears its number, in its name or doc comment.
#[test]
fn every_acceptance_line_has_a_test() {
    let all = |letter: char, n: u32| (1..=n).map(move |nth| format!("{letter}{nth}"));
    let due = [('A', 16), ('B', 13), ('C', 12), ('D', 15), ('E', 26)].into_iter().flat_map(|(part, n)| all(part, n));
    let mut words = std::collections::BTreeSet::new();
    for path in sources() {
        for line in read(root().join(path))
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with("///") || line.starts_with("fn "))
        {
            words.extend(line.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_uppercase));
        }
    }
    // A range such as "E6 to E11" in a comment names its ends only; each line must stand somewhere itself.
    let missing = due.filter(|line| !words.contains(line));
    assert_none("acceptance lines without a test", missing.collect());
}
