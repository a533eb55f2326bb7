//! The status page, as a browser reads it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::{DaemonHarness, SERVICE, VersionPoller, free_port, wait_until};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A daemon whose page is at the port.
pub(crate) fn host_with_page() -> (DaemonHarness, u16) {
    let (mut host, port) = (DaemonHarness::new(""), free_port());
    let (daemon, service) = (host.daemon_section(), host.service_section(SERVICE, ""));
    host.write_config(&format!("{daemon}page = \"127.0.0.1:{port}\"\n{service}"));
    host.start();
    (host, port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    stream
}

/// The whole response to a request.
fn fetch(port: u16, method: &str, path: &str, host: &str) -> (String, String) {
    let mut stream = connect(port);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn get(port: u16, path: &str) -> String {
    let (head, body) = fetch(port, "GET", path, "localhost");
    assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
    body
}

/// An event stream, line by line.
fn follow(port: u16, path: &str) -> BufReader<TcpStream> {
    let mut stream = connect(port);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    BufReader::new(stream)
}

/// Reads until a line contains the text.
#[track_caller]
fn read_until(stream: &mut BufReader<TcpStream>, text: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream ended before {text:?}");
        if line.contains(text) {
            return;
        }
    }
}

#[test]
fn page_follows_a_rollback() {
    let (mut host, port) = host_with_page();
    assert!(get(port, "/service/weather").contains("Nothing was deployed yet."));
    let mut events = follow(port, "/service/weather/events");
    read_until(&mut events, "text/event-stream");
    read_until(&mut events, "event: beat");
    host.deploy("v1", &["--wait"]).expect_code(0);
    read_until(&mut events, "Traffic moves to it");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[]).expect_code(3);
    read_until(&mut events, "Traffic moves back");
    load.stop();
    read_until(&mut events, "v2 was rolled back");
    let page = get(port, "/");
    assert!(page.contains("1 of 1 service needs a look"), "{page}");
    let page = get(port, "/service/weather");
    for text in ["href=\"weather/deploy/2\"", "rolled back", "In quarantine", "2 v2"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    let earlier = get(port, "/service/weather/deploy/1");
    assert!(earlier.contains("Deploy 1 of weather") && earlier.contains("switched"), "{earlier}");
    // What the page was before the daemon started again.
    host.stop();
    host.start();
    assert!(get(port, "/").contains("v2 was rolled back"));
}

#[test]
fn page_refuses_other_hosts_and_methods() {
    let (_host, port) = host_with_page();
    let policy = "content-security-policy: default-src 'none'";
    let cases = [
        ("GET", "/", "localhost", 200),
        ("HEAD", "/service/weather", "127.0.0.1:1", 200),
        ("GET", "/style.css", "[::1]", 200),
        ("GET", "/", "rebound.example.org", 403),
        ("GET", "/events", "rebound.example.org", 403),
        ("POST", "/", "localhost", 405),
        ("DELETE", "/service/weather", "localhost", 405),
        ("GET", "/service/other", "localhost", 404),
        ("GET", "/service/other/events", "localhost", 404),
        ("GET", "/service/weather/deploy/9", "localhost", 404),
        ("GET", "/service/weather/deploy/x", "localhost", 404),
        ("GET", "/service/../../etc/passwd", "localhost", 404),
        ("GET", "/%3Cscript%3E", "localhost", 404),
    ];
    for (method, path, host, status) in cases {
        let (head, body) = fetch(port, method, path, host);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{method} {path} {host}: {head}");
        assert!(head.contains(policy) && head.contains("nosniff"), "{head}");
        assert!(!body.contains("<script>"), "{body}");
    }
    let long = format!("/{}", "x".repeat(40_000));
    let (head, _) = fetch(port, "GET", &long, "localhost");
    assert!(head.starts_with("http/1.1 4"), "{head}");
}

#[test]
fn too_many_open_pages_are_refused_and_the_page_still_answers() {
    let (_host, port) = host_with_page();
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut events = follow(port, "/events");
        read_until(&mut events, "event: beat");
        open.push(events);
    }
    let (head, _) = fetch(port, "GET", "/events", "localhost");
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after"), "{head}");
    assert!(get(port, "/").contains("weather"));
    drop(open);
    wait_until("a place is free", || {
        let mut events = follow(port, "/events");
        let mut line = String::new();
        events.read_line(&mut line).unwrap();
        line.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn page_on_a_socket_survives_a_handover() {
    let mut host = DaemonHarness::new("");
    let socket = host.dir_path().join("page.sock");
    let (daemon, service) = (host.daemon_section(), host.service_section(SERVICE, ""));
    host.write_config(&format!("{daemon}page = \"unix:{}\"\n{service}", socket.display()));
    host.start();
    let get = |path: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/").starts_with("HTTP/1.1 200"));
    let mut events = UnixStream::connect(&socket).unwrap();
    events.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    write!(events, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    host.wait_for_handover();
    // The stream ends, so that the browser opens it at the next daemon.
    let mut rest = Vec::new();
    let _ = events.read_to_end(&mut rest);
    assert!(get("/service/weather").contains("weather"));
    host.stop();
    assert!(!socket.exists(), "the socket is removed");
}
