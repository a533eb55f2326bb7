//! Mail to a real SMTP server: aiosmtpd, with STARTTLS and a password. `tests/run` installs it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{DaemonHarness, SERVICE, VersionPoller, wait_until};

/// A server that runs until it is dropped.
struct SmtpServer {
    child: Child,
    port: u16,
    mails: Arc<Mutex<Vec<Value>>>,
}

impl SmtpServer {
    /// With the certificate of tests/data/tls for this name.
    fn start(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/real/python-smtp/bin/python");
        assert!(python.exists(), "{} is missing: `tests/run` makes it", python.display());
        let file = |extension| root.join(format!("tests/data/tls/{name}.{extension}"));
        let mut command = Command::new(python);
        command.arg(root.join("tests/daemon/smtp_server.py")).arg(file("pem")).arg(file("key"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&mails);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, port, mails }
    }

    fn mails(&self) -> Vec<Value> {
        self.mails.lock().unwrap().clone()
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn channel_section(name: &str, port: u16, secret: &Path, kinds: &str) -> String {
    format!(
        "\n[notify.{name}]\ntype = \"email\"\nsmtp = \"localhost:{port}\"\nuser = \"daemon\"\n\
         secret_file = {secret:?}\nfrom = \"rollbackd <rollbackd@example.org>\"\n\
         to = [\"team@example.org\", \"b@example.org\"]\nkinds = [{kinds}]\n"
    )
}

#[test]
fn a_mail_needs_tls_a_right_name_and_the_password() {
    let (right, wrong) = (SmtpServer::start("localhost"), SmtpServer::start("elsewhere.example"));
    let secrets = tempfile::tempdir().unwrap();
    let good = secret(secrets.path(), "good", "hunter2-hunter2");
    let bad = secret(secrets.path(), "bad", "letmein");
    let channel =
        |name: &str, port: u16, secret: &Path| channel_section(name, port, secret, "\"info\"");
    let mut host = DaemonHarness::new("");
    let text = host.daemon_section()
        + &host.service_section(SERVICE, "")
        + &channel("right", right.port, &good)
        + &channel("password", right.port, &bad)
        + &channel("wrong", wrong.port, &good);
    host.write_config(&text);
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/ca.pem");
    host.set_environment("SSL_CERT_FILE", authority.to_str().unwrap());
    host.start();
    let answer = |name: &str, code| host.run_cli(&["notify", "test", name]).expect_code(code).out;
    let out = answer("right", 0);
    assert!(out.contains("right: accepted: 250 2.0.0 taken"), "{out}");
    let out = answer("password", 1);
    assert!(out.contains("535") && !out.contains("letmein"), "{out}");
    let out = answer("wrong", 1);
    assert!(out.contains("not valid for"), "{out}");
    host.deploy("v1", &["--wait"]).expect_code(0);
    wait_until("the test and two notices", || right.mails().len() == 3);
    let mail = right.mails().pop().unwrap();
    assert_eq!(mail["tls"], true);
    assert_eq!(mail["to"], serde_json::json!(["team@example.org", "b@example.org"]));
    let text = mail["text"].as_str().unwrap();
    assert!(text.contains("Subject: [rollbackd] INFO: v1: "), "{text}");
    assert!(text.contains("text/plain") && text.contains("text/html"), "{text}");
    assert!(wrong.mails().is_empty());
}

#[test]
fn the_mail_of_a_draft_shows_the_error_rate_in_both_of_its_forms() {
    let server = SmtpServer::start("localhost");
    let secrets = tempfile::tempdir().unwrap();
    let password = secret(secrets.path(), "good", "hunter2-hunter2");
    let mut host = DaemonHarness::new("");
    let text = host.daemon_section()
        + &host.service_section(SERVICE, "")
        + &channel_section("mail", server.port, &password, "\"warn\", \"resolved\"");
    host.write_config(&text);
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/ca.pem");
    host.set_environment("SSL_CERT_FILE", authority.to_str().unwrap());
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
    let draft = || {
        let mails = server.mails().into_iter();
        mails.filter_map(|it| it["parts"].as_object().cloned()).find(|parts| {
            parts["text/plain"].as_str().is_some_and(|it| it.starts_with("RESOLVED: weather: v2"))
        })
    };
    wait_until("the mail of the draft", || draft().is_some());
    let parts = draft().unwrap();
    let text = parts["text/plain"].as_str().unwrap();
    for part in ["Failed requests over", "new      ", "previous ", "detected at", "\u{2588}"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let html = parts["text/html"].as_str().unwrap();
    assert!(html.contains("bgcolor=\"#c62828\"") && !html.contains("<svg"), "{html}");
    if let Some(path) = std::env::var_os("KEEP_MAIL") {
        fs::write(path, html).unwrap();
    }
}
