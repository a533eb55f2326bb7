use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::wait_for;

/// The limit for every command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// A running command.
pub(crate) struct CliCommand {
    child: Child,
    out: OutputReader,
    err: OutputReader,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct CliOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The output so far, and the thread that reads it.
struct OutputReader(Arc<Mutex<Vec<u8>>>, JoinHandle<()>);

impl CliCommand {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, out: OutputReader::read(out), err: OutputReader::read(err) }
    }

    /// The output so far.
    pub(crate) fn output_so_far(&self) -> String {
        String::from_utf8(self.out.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn wait(mut self) -> CliOutput {
        let status =
            wait_for(COMMAND_TIMEOUT, "the end of a verb", || self.child.try_wait().unwrap());
        let (out, err) = (self.out.text(), self.err.text());
        CliOutput { code: status.code().unwrap_or(-1), out, err }
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        super::signal(i32::try_from(self.child.id()).unwrap(), Signal::INT);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl OutputReader {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut some) {
                to.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        Self(bytes, thread)
    }

    fn text(self) -> String {
        self.1.join().unwrap();
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl CliOutput {
    /// Asserts the exit code; a failure prints the output.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; printed:\n{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that the output contains all of `words`, on either stream.
    #[track_caller]
    pub(crate) fn expect_text(self, words: &[&str]) -> Self {
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "no {word:?} in:\n{}\n{}", self.out, self.err);
        }
        self
    }

    /// Every line of its result is JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}
