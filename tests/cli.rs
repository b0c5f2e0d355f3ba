//! The command line from outside: exit codes, streams and words, without a server where none is needed.

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

fn holdfast(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("holdfast").expect("the binary is built");
    for name in ["HOLDFAST_SERVER", "HOLDFAST_TOKEN", "HOLDFAST_CONFIG", "HOLDFAST_DATA"] {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).output().expect("the command runs")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let output = holdfast(folder().path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "up",
        "ingest",
        "query",
        "status",
        "tier",
        "drill",
        "node-drain",
        "source",
        "config",
        "bench",
        "completions",
        "3 invalid config",
        "10 unhealthy",
    ] {
        assert!(stdout(&output).contains(word), "{word} is missing in:\n{}", stdout(&output));
    }
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let folder = folder();
    std::fs::write(folder.path().join("mine.toml"), "[http]\nkeep_alive = \"5s\"\n").expect("writable");
    let output = holdfast(folder.path(), &["config", "show", "--config", "mine.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("keep_alive = \"5s\""));
    std::fs::write(folder.path().join("shown.toml"), &output.stdout).expect("writable");
    let output = holdfast(folder.path(), &["config", "check", "--config", "shown.toml"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "ok: 1 table, 1 metric, 64 partitions\n".into()));
}

#[test]
fn an_invalid_configuration_is_shown_where_it_is_wrong() {
    let folder = folder();
    std::fs::write(folder.path().join("mine.toml"), "[gate]\nmailbux = 3\n").expect("writable");
    let output = holdfast(folder.path(), &["config", "check", "--config", "mine.toml"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stdout(&output).is_empty());
    assert!(stderr(&output).starts_with("error: mine.toml:2:1: unknown key `mailbux`"), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 | mailbux = 3\n  | ^^^^^^^\n"), "{}", stderr(&output));
}

#[test]
fn listening_beyond_loopback_needs_tokens() {
    let folder = folder();
    let output = holdfast(folder.path(), &["up", "--http", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: --http: http.listen: 0.0.0.0:0 can be reached"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing was begun");
}

#[test]
fn a_port_in_use_and_a_folder_that_cannot_be_are_said_plainly() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = holdfast(folder.path(), &["up", "--http", &address, "--data", "data"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("cannot listen on {address}")), "{}", stderr(&output));
    assert!(stderr(&output).contains("--http"), "{}", stderr(&output));
    std::fs::write(folder.path().join("file"), "x").expect("writable");
    let output = holdfast(folder.path(), &["up", "--http", "127.0.0.1:0", "--data", "file/data"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot use the data folder file/data"), "{}", stderr(&output));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = holdfast(folder().path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("ingest"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::{Command, Stdio};
    let binary = assert_cmd::cargo::cargo_bin("holdfast");
    let mut child = Command::new(binary)
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}
