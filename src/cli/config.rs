//! `holdfast config check|show`: whether a configuration is right, and what is in effect.
//!
//! Invariant: both read exactly what `up` would read.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure};
use super::{Outcome, output};
use crate::config::{Loaded, Override};

/// Check or show the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say whether the configuration is valid, or what is wrong and where; exit code 3 if it is not.
    Check(File),
    /// Print the effective values of all keys as TOML; secrets stay hidden.
    Show(File),
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct File {
    /// Your file; without it the shipped defaults and the environment alone.
    #[arg(long = "config", env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl File {
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.load_with(Vec::new())
    }

    pub fn load_with(&self, overrides: Vec<Override>) -> Result<Loaded, Failure> {
        Loaded::from_process(self.file.as_deref(), overrides)
            .map_err(|error| Failure::new(Exit::InvalidConfig, error.to_string()))
    }
}

impl Config {
    pub fn run(self) -> Outcome {
        match self {
            Self::Check(file) => {
                let config = file.load()?.config;
                let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
                let tables = count(config.tables.len(), "table");
                let metrics = count(config.metrics.len(), "metric");
                output::print(format!("ok: {tables}, {metrics}, {} partitions\n", config.cluster.partitions))
            }
            Self::Show(file) => {
                let config = file.load()?.config;
                let text = toml::to_string(&config).map_err(|error| Failure::failed(error.to_string()))?;
                output::print(text)
            }
        }
    }
}
