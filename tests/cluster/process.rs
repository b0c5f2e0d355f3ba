//! One process of the built binary: started, signalled, and ended when the test ends.
//!
//! Invariant: only what was started here is signalled; its log is shown when the test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub struct Process {
    pub name: String,
    /// Port.
    pub http: u16,
    arguments: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Not started yet. `arguments`: without the address for people, which stays the same over all starts.
    pub fn new(name: &str, arguments: &[&str], http: u16, folder: &Path) -> Self {
        let mut arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        arguments.extend(["--http".to_owned(), format!("127.0.0.1:{http}")]);
        Self { name: name.to_owned(), http, arguments, folder: folder.to_owned(), child: None }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the log opens");
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(&self.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("holdfast starts"));
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child().kill().expect("the process is ours");
        self.child().wait().expect("the process is ours");
        self.child = None;
    }

    /// `kill -NAME`.
    pub fn signal(&mut self, name: &str) {
        let pid = self.child().id().to_string();
        let sent = Command::new("kill").args([format!("-{name}"), pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name} {}", self.name);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child().try_wait().expect("the process is ours");
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// It has to end by itself.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begun.elapsed() < within, "{} is still there after {within:?}", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {}:\n{}", self.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
