//! `lab`: see `examples/lab/README.md`.

mod cli;

use std::process::ExitCode;

use steadfast_lab::fence;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    if name.rsplit('/').next() == Some(fence::NAME) {
        return fence::main(&arguments.collect::<Vec<_>>());
    }
    match cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
