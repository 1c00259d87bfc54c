//! `skytale completion`: what a shell needs to finish words.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::{args::Arguments, exit::Failure, output::Output};

/// Prints the script for a shell.
pub(crate) fn run(shell: Shell, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "skytale", &mut script);
    let script = String::from_utf8(script).map_err(|_| Failure::failed("no script was made"))?;
    output.line(script.trim_end())
}
