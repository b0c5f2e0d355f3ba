//! How a command can end other than well, and the exit code that says so.
//!
//! Invariant: exit codes are the interface's; a message is printed once, on stderr.

use std::process::ExitCode;

/// Exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    InvalidConfig = 3,
    Unreachable = 4,
    Refused = 5,
    Unhealthy = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Empty: all has been said.
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub fn show(&self) {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message.trim_end());
        }
    }
}
