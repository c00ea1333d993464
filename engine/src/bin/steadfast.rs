//! The operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    steadfast_engine::cli::main()
}
