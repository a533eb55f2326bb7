//! A handover from 0.1.0: the test sends the lines of the old daemon, as 0.1.0 sent them. The new
//! daemon is this version. `tests/wire/handover-from` does the same with a real old binary.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

use crate::support::{DaemonHarness, SERVICE, epoch_ms, free_port, serving_version, wait_until};

/// The messages in order: the sender, and the line.
const CONVERSATION: &str = include_str!("0.1.0/handover-conversation.txt");
/// Time limit for each line of the new daemon.
const SAY_MAX: Duration = Duration::from_secs(30);

/// The daemon that takes over. The test kills it at its end.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}

#[test]
fn what_an_old_daemon_says_is_understood() {
    let (mut host, metrics) = (DaemonHarness::new(""), free_port());
    let service = host.service_section(SERVICE, "");
    host.write_config(&format!(
        "{}metrics = \"127.0.0.1:{metrics}\"\n{service}",
        host.daemon_section()
    ));
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    host.kill();
    fs::remove_file(host.socket()).unwrap();
    let listeners: [OwnedFd; 3] = [
        TcpListener::bind(("127.0.0.1", host.listen)).unwrap().into(),
        UnixListener::bind(host.socket()).unwrap().into(),
        TcpListener::bind(("127.0.0.1", metrics)).unwrap().into(),
    ];
    let (old, theirs) = UnixStream::pair().unwrap();
    let new = Successor(succeed(&host, theirs.into()));
    old.set_read_timeout(Some(SAY_MAX)).unwrap();
    let mut heard = BufReader::new(old.try_clone().unwrap());
    let release = || host.status()["releases"][0].clone();
    for line in CONVERSATION.lines() {
        let (who, line) = line.split_once("  ").unwrap();
        let line = here(line, &host);
        // The recorded conversation concerns another release here.
        if who == "new" && !line.contains("\"number\":2") {
            let mut said = String::new();
            heard.read_line(&mut said).unwrap();
            assert_eq!(meaning(&said), meaning(&line), "{}", host.log());
        } else if who == "old" {
            if line.contains("{\"open\":[1,0]}") {
                wait_until("the call at the old one counts", || release()["in_flight"] == 1);
                assert_eq!(release()["sessions"], 1, "one was opened after `yours`");
            }
            let with: Vec<_> = listeners.iter().map(|it| it.as_fd()).collect();
            say(&old, &line, if line.starts_with("{\"listeners\"") { &with } else { &[] });
        }
    }
    drop(old);
    wait_until("the call at the old one is over", || release()["in_flight"] == 0);
    wait_until("it knows that the old one left", || {
        host.log().contains("the previous daemon has drained and ended")
    });
    wait_until("v1 answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    let told = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    told.expect_text(&["restored", "took over from process 26102 (version 0.1.0)"]);
    drop(new);
}

/// A line that 0.1.0 sent, with the paths, ports and time of this test.
fn here(line: &str, host: &DaemonHarness) -> String {
    line.replace("/var/lib/rollbackd", &host.state().display().to_string())
        .replace("/run/rollbackd/control.sock", &host.socket().display().to_string())
        .replace(":9001", &format!(":{}", host.blue))
        .replace("NOW", &epoch_ms().to_string())
}

/// A line without the values that differ between runs.
fn meaning(line: &str) -> Value {
    let mut value: Value = serde_json::from_str(line).unwrap();
    if let Some(prepared) = value.get_mut("prepared") {
        assert!(prepared["pid"].is_u64() && prepared["version"].is_string(), "{line}");
        (prepared["pid"], prepared["version"]) = (Value::Null, Value::Null);
    }
    value
}

/// Starts the new daemon like the old daemon does.
fn succeed(host: &DaemonHarness, channel: OwnedFd) -> Child {
    let log = OpenOptions::new().append(true).open(host.dir_path().join("daemon.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
    command.arg("run").arg("--succeed").arg(host.config()).stdin(channel);
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn say(to: &UnixStream, line: &str, listeners: &[BorrowedFd<'_>]) {
    let line = format!("{line}\n");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !listeners.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(listeners)));
    }
    let sent = sendmsg(to, &[IoSlice::new(line.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
    let mut to = to;
    to.write_all(&line.as_bytes()[sent.unwrap()..]).unwrap();
}
