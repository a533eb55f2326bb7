use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Set in the process that [`in_own_namespace`] starts.
const INSIDE: &str = "ROLLBACKD_TEST_NAMESPACE";

/// Runs this test once more in a network namespace of its own. Returns whether that is done: `false` inside.
#[expect(clippy::print_stdout, reason = "the test harness shows what a test prints")]
pub(crate) fn in_own_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let mut run = Command::new("unshare");
    run.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    run.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let mut run = run.env(INSIDE, "1").stdout(Stdio::piped()).spawn().unwrap();
    // Line by line, so that a long run shows what it does.
    for line in BufReader::new(run.stdout.take().unwrap()).lines() {
        println!("{}", line.unwrap());
    }
    assert!(run.wait().unwrap().success(), "see above; a network namespace takes root");
    true
}

/// A port on loopback to and from which nothing passes, as behind a cable that was pulled, until this is
/// dropped.
pub(crate) struct CutPort(u16);

impl CutPort {
    pub(crate) fn new(port: u16) -> Self {
        Self::change("--append", port);
        Self(port)
    }

    fn change(how: &str, port: u16) {
        assert!(std::env::var_os(INSIDE).is_some(), "only in a namespace of the test's own");
        for side in ["--dport", "--sport"] {
            let mut command = Command::new("iptables");
            command.args(["--wait", how, "INPUT", "-i", "lo", "-p", "tcp", side]);
            command.arg(port.to_string()).args(["-j", "DROP"]);
            assert!(command.status().unwrap().success(), "{command:?}");
        }
    }
}

impl Drop for CutPort {
    fn drop(&mut self) {
        Self::change("--delete", self.0);
    }
}
