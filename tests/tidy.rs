//! The house rules that a machine can check.
//!
//! Floors are told from file names: 0 `model/`, 1 a plain noun (pure), 2 an adapter named by its technology, 3
//! `*_actor.rs`, 4 `*_http.rs`, 5 what assembles (node, cli, main). Imports only go down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROLES: [&str; 7] = ["capture", "gate", "slave", "query", "master", "store", "member"];
/// Names of technologies: floor 2.
const ADAPTERS: [&str; 9] = ["embedded", "memory", "remote", "linux", "sled", "tcp", "kafka", "redis", "mysql"];
const BANNED_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "manager"];
/// A store is opened before any arbiter runs; waiting for its lock may block.
const ALLOWED: [(&str, &str); 1] = [("sled_store.rs", "thread::sleep")];
const MOST_LINES: usize = 450;

/// A source file with its code, tests and comments taken out.
struct Source {
    /// From `src/` on, with slashes.
    path: String,
    text: String,
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let tests_only = declared_for_tests(&root, &files);
    files.retain(|file| !tests_only.contains(file));
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).expect("found under src").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).expect("a source file is UTF-8");
        let code = production_code(&text);
        Source { path, text, code }
    };
    files.into_iter().map(read).collect()
}

/// Files that `#[cfg(test)] mod name;` declares.
fn declared_for_tests(root: &Path, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut declared = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let folder = file.parent().unwrap_or(root);
            let path = pair[1].strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
            declared.extend(path.map(|path| folder.join(path)));
            let name = pair[1].trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("mod ");
            if let Some(name) = name.and_then(|rest| rest.strip_suffix(';')) {
                declared.push(folder.join(format!("{name}.rs")));
            }
        }
    }
    declared
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Lines with their numbers, without line comments, up to the tests.
fn production_code(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim_start();
        let is_declaration = |next: &str| next.trim_start().contains("mod ") && next.trim_end().ends_with(';');
        if trimmed == "#[cfg(test)]" && lines.peek().is_some_and(|(_, next)| is_declaration(next)) {
            lines.next();
            continue;
        }
        let ends_here = trimmed == "#[cfg(test)]"
            && lines.peek().is_some_and(|(_, next)| {
                let next = next.trim_start();
                next.starts_with("mod ") || next.starts_with("#[path") || next.starts_with("pub mod ")
            });
        if ends_here {
            break;
        }
        if !trimmed.starts_with("//") {
            code.push((index + 1, line.split(" // ").next().unwrap_or(line).to_owned()));
        }
    }
    code
}

fn is_test(path: &str) -> bool {
    path.ends_with("_tests.rs") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".rs").unwrap_or(file)
}

fn folder(path: &str) -> &str {
    path.split_once('/').map_or("", |(folder, _)| folder)
}

/// The floor that a file's name puts it on.
fn floor(path: &str) -> u8 {
    let stem = stem(path);
    if path == "config/secret.rs" {
        // What adapters log in with.
        return 2;
    }
    match folder(path) {
        "model" => return 0,
        "cli" | "node" | "config" => return 5,
        _ => {}
    }
    match path {
        "main.rs" | "lib.rs" => return 5,
        // The joint that all HTTP files share; what reads the clock, and what carries messages and counters.
        "problem.rs" => return 4,
        "guardian.rs" => return 3,
        "clock.rs" | "metrics.rs" | "net/message.rs" | "net/link.rs" | "net/service.rs" | "net/peers.rs" => return 2,
        _ => {}
    }
    if stem.ends_with("_http") {
        4
    } else if stem.ends_with("_actor") || stem.ends_with("_service") {
        // A service is what an actor would be, where nothing needs a mailbox: all that its calls share is built for it.
        3
    } else if ADAPTERS.iter().any(|name| stem == *name || stem.starts_with(&format!("{name}_"))) {
        2
    } else {
        1
    }
}

/// Every `crate::…` and `super::…` path that a file's code names, as absolute module paths.
fn named_paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    let module = module_path(&source.path);
    let mut named = Vec::new();
    let mut statement: Option<(usize, String)> = None;
    for (number, line) in &source.code {
        let trimmed = line.trim_start();
        let opens = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find(|start| trimmed.starts_with(**start));
        if let Some((_, text)) = &mut statement {
            text.push_str(trimmed);
        } else if let Some(start) = opens {
            statement = Some((*number, trimmed[start.len()..].to_owned()));
        } else {
            named.extend(inline_paths(line).into_iter().map(|path| (*number, path)));
        }
        if statement.as_ref().is_some_and(|(_, text)| text.contains(';')) {
            let (number, text) = statement.take().expect("just seen");
            let mut leaves = Vec::new();
            expand(&[], text.trim_end_matches(';'), &mut leaves);
            named.extend(leaves.into_iter().map(|leaf| (number, leaf)));
        }
    }
    named.into_iter().filter_map(|(number, path)| Some((number, absolute(&module, &path)?))).collect()
}

fn module_path(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// `crate::a::b` within a line of code.
fn inline_paths(line: &str) -> Vec<Vec<String>> {
    let starts = line.match_indices("crate::").map(|(at, _)| at);
    starts
        .filter(|at| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'))
        .map(|at| {
            let end =
                line[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len() - at);
            line[at..at + end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
        })
        .collect()
}

/// The leaves of a use tree.
fn expand(prefix: &[String], tree: &str, leaves: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    match tree.find('{') {
        None => {
            let path = tree.split(" as ").next().unwrap_or(tree);
            let parts = path.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
            leaves.push(prefix.iter().cloned().chain(parts).collect());
        }
        Some(open) => {
            let head = tree[..open].split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
            let prefix: Vec<String> = prefix.iter().cloned().chain(head).collect();
            let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
            let (mut depth, mut start) = (0, 0);
            for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        if !inner[start..at].trim().is_empty() {
                            expand(&prefix, &inner[start..at], leaves);
                        }
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A path from the crate's root; `None` for other crates.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1)].to_vec(),
        _ => return None,
    };
    for part in rest {
        if part == "super" {
            base.pop();
        } else if part != "self" {
            base.push(part.clone());
        }
    }
    Some(base)
}

/// The file that a path leads into: the longest part of it that is a module.
fn resolve<'a>(files: &BTreeMap<&'a str, &'a Source>, path: &[String]) -> Option<&'a str> {
    (1..=path.len()).rev().find_map(|len| {
        let module = path[..len].join("/");
        [format!("{module}.rs"), format!("{module}/mod.rs")]
            .iter()
            .find_map(|file| files.get_key_value(file.as_str()).map(|(file, _)| *file))
    })
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn imports_only_go_down_and_roles_do_not_know_each_other() {
    let sources = sources();
    let files: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let from = floor(&source.path);
        // A folder's table of contents names what is in the folder.
        let is_contents = stem(&source.path) == "mod";
        for (line, path) in named_paths(source) {
            let Some(target) = resolve(&files, &path).filter(|target| *target != source.path) else { continue };
            let (home, there) = (folder(&source.path), folder(target));
            if home != there && ROLES.contains(&home) && ROLES.contains(&there) {
                complaints.push(format!("src/{}:{line}: the role {home} imports the role {there}", source.path));
            }
            if from < floor(target) && !(is_contents && home == there) {
                let (path, to) = (&source.path, floor(target));
                complaints.push(format!("src/{path}:{line}: floor {from} imports {target} on floor {to}"));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn pure_files_know_no_actor_runtime_clock_io_or_log() {
    const IMPURE: [&str; 8] =
        ["actix", "tokio::", "tracing::", "std::fs", "std::net", "std::env", "std::thread::spawn", "fastrand"];
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| floor(&source.path) <= 1 && !is_test(&source.path)) {
        for (line, code) in &source.code {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                complaints.push(format!("src/{}:{line}: {word} in a pure file", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn every_file_opens_with_its_job_and_its_invariant() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.path)) {
        let header: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        if header.is_empty() {
            complaints.push(format!("src/{}:1: no header", source.path));
        } else if !header.join("\n").contains("Invariant") {
            complaints.push(format!("src/{}:1: the header names no invariant", source.path));
        }
    }
    assert_none(complaints);
}

#[test]
fn only_the_clock_reads_a_clock_and_nothing_bypasses_a_mailbox_limit() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| !is_test(&source.path)) {
        for (line, code) in &source.code {
            let reads_clock =
                ["Instant::now", "SystemTime::now", "Utc::now", "Local::now"].iter().any(|call| code.contains(call));
            if reads_clock && source.path != "clock.rs" {
                complaints.push(format!("src/{}:{line}: reads a clock", source.path));
            }
            for (call, reason) in [
                (".do_send(", "ignores the mailbox limit"),
                (".unwrap()", "unwrap; handle it, or expect with the reason why it cannot be"),
                ("todo!(", "not finished"),
                ("unimplemented!(", "not finished"),
                ("dbg!(", "left over"),
                ("thread::sleep", "blocks an arbiter"),
                ("allow(dead_code)", "dead code"),
            ] {
                if code.contains(call) && !ALLOWED.contains(&(source.path.as_str(), call)) {
                    complaints.push(format!("src/{}:{line}: {reason}", source.path));
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn files_are_of_one_idea_and_named_for_it() {
    let mut complaints = Vec::new();
    for source in &sources() {
        let lines = source.code.len();
        if lines > MOST_LINES && !is_test(&source.path) {
            complaints.push(format!("src/{}: {lines} lines of code; at most {MOST_LINES}", source.path));
        }
        let words = source.path.trim_end_matches(".rs").split(['/', '_']);
        for word in words.filter(|word| BANNED_NAMES.contains(word)) {
            complaints.push(format!("src/{}: '{word}' says nothing; name the job", source.path));
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not name them either.
    let signs =
        [["/ho", "me/"], ["/ro", "ot/"], ["/tm", "p/"], ["/wo", "rk/"], ["/Us", "ers/"]].map(|parts| parts.concat());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> =
        ["README.md", "cluster.toml", "Cargo.toml", "deny.toml"].map(|name| root.join(name)).into();
    for folder in ["src", "tests", "benches", "scripts", ".ci"].map(|name| root.join(name)) {
        if folder.is_dir() {
            collect_all(&folder, &mut files);
        }
    }
    let mut complaints = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (index, line) in text.lines().enumerate() {
            if signs.iter().any(|sign| line.contains(sign.as_str())) {
                complaints.push(format!("{}:{}: a path of one machine", file.display(), index + 1));
            }
        }
    }
    assert_none(complaints);
}

fn collect_all(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() { collect_all(&path, files) } else { files.push(path) }
    }
}

#[test]
fn a_use_tree_is_read_whole() {
    let mut leaves = Vec::new();
    expand(&[], "crate::{a::{B, c::D as E}, f}", &mut leaves);
    let leaves: Vec<String> = leaves.iter().map(|leaf| leaf.join("::")).collect();
    assert_eq!(leaves, ["crate::a::B", "crate::a::c::D", "crate::f"]);
    let here = ["gate".to_owned(), "x".to_owned()];
    let path = ["super", "super", "slave", "Y"].map(str::to_owned);
    assert_eq!(absolute(&here, &path), Some(vec!["slave".to_owned(), "Y".to_owned()]));
}
