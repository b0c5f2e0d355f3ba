//! `holdfast completions SHELL`: what a shell needs to complete commands.
//!
//! Invariant: generated from the same definitions that parse the arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Outcome, output};

/// Print completions for a shell, e.g. `holdfast completions bash > ~/.local/share/bash-completion/completions/holdfast`.
#[derive(Debug, Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "holdfast", &mut script);
        output::print(script)
    }
}
