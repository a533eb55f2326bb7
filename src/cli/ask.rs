//! Asks the operator on a terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

/// Longest answer to a question, in bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Whether a person can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The trimmed answer to a question. `None`: the input ended without a line.
pub(super) fn ask(question: &str) -> Option<String> {
    let mut stderr = io::stderr().lock();
    let _: io::Result<()> = write!(stderr, "{question}").and_then(|()| stderr.flush());
    drop(stderr);
    let mut line = Vec::new();
    for byte in io::stdin().lock().take(ANSWER_BYTES_MAX).bytes() {
        match byte {
            Ok(b'\n') => return Some(String::from_utf8_lossy(&line).trim().to_owned()),
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    None
}
