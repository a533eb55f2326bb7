//! Debian's Alertmanager, which tests/run unpacks, takes the alerts of a rollback and their end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{DaemonHarness, SERVICE, VersionPoller, free_port, wait_until};

/// A running Alertmanager, which notifies no one.
struct Alertmanager {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = dir.path().join("alertmanager.yml");
        fs::write(&config, "route:\n  receiver: none\nreceivers:\n  - name: none\n").unwrap();
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/alertmanager");
        let program = home.join("usr/bin/prometheus-alertmanager");
        // Debian's reads its templates below /usr/share, where the unpacked package has none.
        let share = home.join("usr/share").display().to_string();
        let mount = format!(
            "mount -t overlay overlay -o 'lowerdir={share}:/usr/share' /usr/share && exec \"$@\""
        );
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", &mount, "alertmanager"])
            .arg(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Alertmanager is missing; run tests/run");
        let this = Self { process, port, _dir: dir };
        wait_until("Alertmanager", || this.get("/-/ready").is_some());
        this
    }

    /// The body of a successful answer.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }

    /// The alerts that fire.
    fn firing(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts?active=true").unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// A counter of the API v2.
    fn counter(&self, series: &str) -> f64 {
        let page = self.get("/metrics").unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|it| it.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn alertmanager_takes_the_alerts_of_a_rollback_and_their_end() {
    let alertmanager = Alertmanager::start();
    let mut host = DaemonHarness::new("");
    let url = format!("http://127.0.0.1:{}", alertmanager.port);
    let channel = format!("\n[notify.alerts]\ntype = \"alertmanager\"\nurl = \"{url}\"\n");
    host.write_config(&(host.daemon_section() + &host.service_section(SERVICE, "") + &channel));
    host.start();
    host.run_cli(&["notify", "test"]).expect_code(0);
    let firing = alertmanager.firing();
    assert_eq!(firing.len(), 1, "{firing:?}");
    assert_eq!(firing[0]["labels"]["alertname"], "RollbackdTest");
    host.deploy("v1", &["--wait"]).expect_code(0);
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
    let received = |status: &str| {
        let labels = format!("{{status=\"{status}\",version=\"v2\"}}");
        alertmanager.counter(&format!("alertmanager_alerts_received_total{labels}"))
    };
    wait_until("the end of the alert", || received("resolved") >= 1.0);
    assert!(received("firing") >= 2.0);
    assert!(alertmanager.counter("alertmanager_alerts_invalid_total{version=\"v2\"}") < 1.0);
    // What remains is the test.
    wait_until("the test alone", || alertmanager.firing().len() == 1);
}
