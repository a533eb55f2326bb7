//! Heap allocations of the proxy for one request, all of its own and those of hyper and tokio.
//!
//! `cargo test --bench allocations`, as tests/run does. It fails above the bound of a row, [`ROWS`]. The
//! number depends on the code and its dependencies, and not on the machine: each run prints the same. Of
//! the first row, two thirds of the bytes are the buffers in which hyper reads a request and a response.
//!
//! A client keeps one connection open, and sends one request after the other to a real proxy, which
//! forwards them to a release over one connection. The proxy has a thread of its own with a runtime of one
//! thread, and only that thread is counted: neither the client's nor the release's. The first requests
//! are not counted; they fill pools and tables.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use rollbackd::clock::Clock;
use rollbackd::config::Address;
use rollbackd::model::{Moment, ReleaseNumber};
use rollbackd::proxy::Proxy;
use tokio::sync::oneshot;

/// Requests that are not counted.
const WARM_UP: u32 = 1_000;
/// Requests that are.
const COUNTED: u32 = 2_000;
const RELEASE: ReleaseNumber = ReleaseNumber(1);
const SESSION: &str = "mcp-session-id:";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
/// Where the release answers with server-sent events.
const STREAM: &str = "stream";

/// A kind of request, with the most allocations that one may take.
struct Row {
    name: &'static str,
    tool: &'static str,
    headers: &'static str,
    with_session: bool,
    allocations_max: f64,
}

const ROWS: [Row; 3] = [
    Row {
        name: "tools/call in a session, answered as JSON",
        tool: "echo",
        headers: "MCP-Protocol-Version: 2025-06-18\r\n",
        with_session: true,
        allocations_max: 46.0,
    },
    Row {
        name: "tools/call in a session, answered as events",
        tool: STREAM,
        headers: "MCP-Protocol-Version: 2025-06-18\r\n",
        with_session: true,
        allocations_max: 47.0,
    },
    Row {
        name: "tools/call of 2026-07-28, without a session",
        tool: "echo",
        headers: "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n",
        with_session: false,
        allocations_max: 55.0,
    },
];

fn main() {
    println!("{:<46} {:>11} {:>8} {:>6}", "per request", "allocations", "bytes", "bound");
    let mut above = 0;
    for row in &ROWS {
        let (allocations, bytes) = measure(row);
        let (name, most) = (row.name, row.allocations_max);
        println!("{name:<46} {allocations:>11.2} {bytes:>8.0} {most:>6}");
        above += u32::from(allocations > most);
    }
    assert!(above == 0, "{above} above the bound");
}

/// Allocations and their bytes, for each request.
fn measure(row: &'static Row) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let proxy = runtime.block_on(async { proxy_to(start_release()) });
    let to = proxy.local_addr();
    let (warm, is_warm) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    let (go, may_go) = mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut connection = BufReader::new(connect(to));
        let text = request_text(row, &mut connection);
        (0..WARM_UP).for_each(|_| _ = call(&mut connection, &text));
        warm.send(()).unwrap();
        may_go.recv().unwrap();
        (0..COUNTED).for_each(|_| _ = call(&mut connection, &text));
        done.send(()).unwrap();
    });
    runtime.block_on(is_warm).unwrap();
    let counted = allocation_counter::measure(|| {
        go.send(()).unwrap();
        runtime.block_on(is_done).unwrap();
    });
    client.join().unwrap();
    // The outcome of the last one may still be on its way.
    assert!(proxy.counts(RELEASE).ok >= u64::from(WARM_UP + COUNTED) - 1);
    let each = |total: u64| total as f64 / f64::from(COUNTED);
    (each(counted.count_total), each(counted.bytes_total))
}

fn proxy_to(release: SocketAddr) -> Proxy {
    let text = "[service.bench]\nlisten = \"127.0.0.1:0\"\nruntime = \"external\"\n\
                slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }\n";
    let mut parsed = rollbackd::config::parse("bench.toml", text).unwrap();
    let service = parsed.settings.services.remove("bench").unwrap();
    let proxy = Proxy::start(&service, [7; 16], Clock::start(Moment(0))).unwrap();
    proxy.add_release(RELEASE, &Address::Tcp(release));
    proxy.set_active(RELEASE);
    proxy
}

/// The request of a row, in a session of its own if it is to have one.
fn request_text(row: &Row, connection: &mut BufReader<TcpStream>) -> String {
    let mut headers = row.headers.to_owned();
    if row.with_session {
        let answer = call(connection, &post(INITIALIZE, ""));
        let session =
            answer.lines().find(|it| it.to_ascii_lowercase().starts_with(SESSION)).unwrap();
        headers = format!("{headers}{}\r\n", session.trim_end());
    }
    let (tool, message) = (row.tool, "x".repeat(200));
    let params = format!(r#"{{"name":"{tool}","arguments":{{"message":"{message}"}}}}"#);
    let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
    post(&body, &headers)
}

fn post(body: &str, headers: &str) -> String {
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nUser-Agent: bench\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request, and reads the answer to its end. The head of the answer.
fn call(connection: &mut BufReader<TcpStream>, request: &str) -> String {
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let head = read_head(connection).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    match length(&head) {
        Some(length) => _ = read(connection, length),
        None => while read_chunk(connection) != 0 {},
    }
    head
}

/// `None` at the end of the connection.
fn read_head(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connection.read_line(&mut head).unwrap() == 0 {
            return None;
        }
    }
    Some(head)
}

fn length(head: &str) -> Option<usize> {
    let lower = head.to_ascii_lowercase();
    let value = lower.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    Some(value.trim().parse().unwrap())
}

fn read(connection: &mut BufReader<TcpStream>, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    body
}

/// The length of the next chunk; 0 is the last one.
fn read_chunk(connection: &mut BufReader<TcpStream>) -> usize {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    let length = usize::from_str_radix(line.trim(), 16).unwrap();
    read(connection, length + 2);
    length
}

/// A release that answers each request at once.
fn start_release() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| answer(BufReader::new(stream.unwrap())));
        }
    });
    address
}

fn answer(mut connection: BufReader<TcpStream>) {
    connection.get_ref().set_nodelay(true).unwrap();
    let text = "x".repeat(200);
    let result = format!(r#"{{"content":[{{"type":"text","text":"{text}"}}],"isError":false}}"#);
    let result = format!(r#"{{"result":{result},"jsonrpc":"2.0","id":7}}"#);
    while let Some(head) = read_head(&mut connection) {
        let body = read(&mut connection, length(&head).unwrap_or_default());
        let body = String::from_utf8(body).unwrap();
        let (kind, body) = if body.contains("initialize") {
            let server = r#""capabilities":{"tools":{}},"serverInfo":{"name":"b","version":"1"}"#;
            let opened = format!(r#"{{"protocolVersion":"2025-06-18",{server}}}"#);
            ("application/json", format!(r#"{{"result":{opened},"jsonrpc":"2.0","id":0}}"#))
        } else if body.contains(STREAM) {
            ("text/event-stream", format!("event: message\ndata: {result}\n\n"))
        } else {
            ("application/json", result.clone())
        };
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nMcp-Session-Id: s-1\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        connection.get_mut().write_all(reply.as_bytes()).unwrap();
    }
}
