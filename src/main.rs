//! The binary: sets the allocator and hands the arguments to the command line.
//!
//! Invariant: nothing is decided here.

use std::process::ExitCode;

/// Arrow buffers and the pages of embedded stores are made on one thread and freed on another, all the time; glibc's
/// arenas keep such memory for long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::run()
}
