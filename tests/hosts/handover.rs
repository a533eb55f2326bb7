//! A daemon hands over to its successor, and a restart is clean, for systemd and for clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::host::Host;
use crate::load_clients::LoadClients;
use crate::slow_call;
use crate::wait::{WAIT_MAX, epoch_ms, sleep, wait_for, wait_until};

#[test]
fn systemd_supervises_the_successor() {
    let host = Host::boot("[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n");
    host.deploy("v1", &["--wait"]).expect_success();
    let crowd = LoadClients::start(host.listen, 10, 33);
    let hurried = LatencyProbe::start(host.listen);
    for _ in 0..3 {
        hurried.wait_for(50);
        let (before, begun) = (host.property("MainPID"), epoch_ms());
        host.signal_daemon("USR2");
        wait_for(WAIT_MAX, "another main process", || {
            (host.property("MainPID") != before).then_some(())
        });
        println!("asked to taken over: {} ms", epoch_ms() - begun);
        host.run(&["rollbackd", "status"]).expect_success();
    }
    // Longer than the time of the watchdog.
    sleep(Duration::from_secs(5));
    let seen = crowd.stop();
    println!("{seen}");
    println!(
        "the longest of {} on connections of their own: {:?}",
        hurried.count(),
        hurried.stop()
    );
    assert_eq!(seen["failures"], json!([]), "{seen:#}");
    let is = |name: &str, value: &str| assert_eq!(host.property(name), value, "{name}");
    is("ActiveState", "active");
    is("SubState", "running");
    is("NRestarts", "0");
    is("NFileDescriptorStore", "1");
    is("StatusText", "weather: nothing on trial");
    let processes = || host.run(&["sh", "-c", "grep -lz '^run$' /proc/[0-9]*/cmdline"]).out;
    wait_until("the old ones have left", || processes().lines().count() == 1);
    let log = host.run(&["journalctl", "-o", "cat", "--no-pager"]).out;
    for complaint in ["not our child", "reception only permitted", "Found left-over"] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }
    assert!(log.contains("took over from process"), "{log}");

    // After a crash the next daemon finds the listener.
    let before = host.property("MainPID");
    host.signal_daemon("KILL");
    host.wait_for_restart(&before);
    is("NRestarts", "1");
    assert!(slow_call(host.listen, 1).unwrap().contains("done after 1 ms"));
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    assert_eq!(host.run(&["sh", "-c", "grep -l demo-serve[r] /proc/[0-9]*/cmdline"]).out, "");
}

#[test]
fn failed_handover_leaves_the_predecessor_running() {
    let host = Host::boot("");
    host.deploy("v1", &["--wait"]).expect_success();
    let before = host.property("MainPID");
    host.run(&["sh", "-c", "echo nonsense = 1 >>/etc/rollbackd/config.toml"]).expect_success();
    host.signal_daemon("USR2");
    let log = || host.run(&["journalctl", "-u", "rollbackd", "-o", "cat", "--no-pager"]).out;
    wait_until("the log has the reason", || {
        log().contains("this daemon continues: the configuration has errors")
    });
    assert_eq!((host.property("MainPID"), host.property("NRestarts")), (before, "0".to_owned()));
    assert_eq!(host.status()["active"], "v1");

    // The daemon that took over stores the listener of a new service with systemd.
    let [listen, blue, green] = [(); 3].map(|()| crate::ports::free_port());
    let maps = format!(
        "sed -i /nonsense/d /etc/rollbackd/config.toml && printf '[service.maps]\nlisten = \"127.0.0.1:{listen}\"\n\
         runtime = \"external\"\nslots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}\n' \
         >>/etc/rollbackd/config.toml"
    );
    host.run(&["sh", "-c", &maps]).expect_success();
    host.signal_daemon("USR2");
    wait_until("both are left with systemd", || host.property("NFileDescriptorStore") == "2");
    host.run(&["rollbackd", "status", "maps"]).expect_success();
}

#[test]
fn restart_ends_subscriptions_immediately_and_delays_no_request() {
    let host = Host::boot("");
    host.deploy("v1", &["--wait"]).expect_success();
    let port = host.listen;
    // Nearly as long as the drain may take, which is five seconds, and longer.
    for (ms, answer) in [(4_500, "done after 4500 ms"), (9_000, r#""reason":"rollback""#)] {
        let call = std::thread::spawn(move || slow_call(port, ms));
        let listener = std::thread::spawn(move || subscribe(port));
        wait_until("they are open", || {
            let release = host.status()["releases"][0].clone();
            release["in_flight"] == 1 && release["sessions"] == 1
        });
        let hurried = LatencyProbe::start(port);
        hurried.wait_for(20);
        let begun = epoch_ms();
        host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
        println!("the restart took {} ms", epoch_ms() - begun);
        let (told, ended) = listener.join().unwrap();
        assert!(told.contains(r#""id":"l-1","result":{"resultType":"complete""#), "{told}");
        println!("the subscription ended after {} ms", ended - begun);
        assert!(ended - begun < 2_000, "it is not waited for");
        let said = call.join().unwrap().unwrap();
        assert!(said.contains(answer), "{said}");
        hurried.wait_for(50);
        let (count, longest) = (hurried.count(), hurried.stop());
        println!("the longest of {count}: {longest:?}");
        longest.unwrap();
        assert!(count > 200, "{count}");
    }
}

/// A `subscriptions/listen` stream: what came after its head, and when it ended.
fn subscribe(port: u16) -> (String, u64) {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = format!(r#"{{"notifications":{{"toolsListChanged":true}},"_meta":{meta}}}"#);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{params}}}"#
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: subscriptions/listen\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut told = String::new();
    let mut lines = BufReader::new(stream);
    // The last chunk of the body.
    while !told.ends_with("\n0\r\n") {
        assert!(lines.read_line(&mut told).unwrap() > 0, "the stream ended: {told}");
    }
    (told, epoch_ms())
}

/// Sends requests all the time, each on a new connection.
struct LatencyProbe {
    stop: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<u64>>>,
    thread: JoinHandle<Result<(), String>>,
}

impl LatencyProbe {
    fn start(port: u16) -> Self {
        let (stop, latencies) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<u64>>>::default());
        let (over, into) = (Arc::clone(&stop), Arc::clone(&latencies));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let begun = epoch_ms();
                let answer = slow_call(port, 1).unwrap_or_else(|error| error.to_string());
                into.lock().unwrap().push(epoch_ms() - begun);
                if !answer.contains("done after 1 ms") {
                    return Err(answer);
                }
                sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        Self { stop, latencies, thread }
    }

    fn count(&self) -> usize {
        self.latencies.lock().unwrap().len()
    }

    /// Waits for this many more answers, or a wrong one.
    fn wait_for(&self, count: usize) {
        let until = self.count() + count;
        wait_until("answers", || self.count() >= until || self.thread.is_finished());
    }

    /// The longest wait, in milliseconds; an answer that was wrong.
    fn stop(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()?;
        let waits = self.latencies.lock().unwrap();
        Ok(waits.iter().copied().max().unwrap_or_default())
    }
}
