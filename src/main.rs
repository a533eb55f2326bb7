//! Arguments -> daemon or a verb -> exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    rollbackd::cli::main()
}
