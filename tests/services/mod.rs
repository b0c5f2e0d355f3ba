//! Real services for tests: each a process of its own on a free loopback port, in a folder of its own, ended with the test.
//! `scripts/services install` brings their programs.
//!
//! Invariant: only processes that were started here are signalled; a test whose service is missing says so by name.

#![allow(dead_code, reason = "every test program uses some of it")]
#![allow(clippy::disallowed_methods, reason = "it waits for real processes")]

pub mod kafka;
pub mod mariadb;
pub mod redis;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Set where a missing service is a failure: in continuous integration.
const REQUIRED: &str = "HOLDFAST_SERVICES_REQUIRED";

/// Is the service there? If not the test that asks is passed over, aloud, or fails where all services are required.
pub fn is_there(service: &str, found: Result<(), String>) -> bool {
    let Err(reason) = found else { return true };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Past the tests' capture: what was not run is to be seen where all passes.
    let line = format!("not run: {service} ({reason}): {test}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {service} is missing: {reason}");
    false
}

/// A program on the path, or where Debian keeps servers.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(Into::into));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Nodes of a Redis Cluster talk to each other on a port this much higher.
const BUS: u16 = 10_000;

/// Another one each time, with room for the bus. Below the ports that systems give to outgoing connections: who looks for a
/// killed server may else be given its port, and meet itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = std::process::id() % 1_000 * 10;
    for _ in 0..10_000 {
        let port = 11_000 + ((begin + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 10_000) as u16;
        if is_free(port) && is_free(port + BUS) {
            return port;
        }
    }
    panic!("no free ports");
}

/// `kill -NAME`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill -{name} {}", child.id());
}

/// `kill -9`, and waits until it is gone. It may have ended by itself.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

pub fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}

/// The last lines of a log, for a test that fails.
pub fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
