use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rollbackd::cli::demo::server::VERSION_KEY;
use serde_json::{Value, json};

use super::pause;

const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One tool call on a port of this host: the version that answered, or what was bad about it.
pub(crate) fn ask(port: u16) -> Result<String, String> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "echo", "arguments": { "message": "hi" }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let text = exchange(port, &body.to_string()).map_err(|error| error.to_string())?;
    // The body may come in chunks; a short one comes in a single one.
    let start = text.find("\r\n\r\n").and_then(|at| Some(at + text[at..].find('{')?));
    let (Some(start), Some(end)) = (start, text.rfind('}')) else {
        return Err(format!("no JSON in {text:?}"));
    };
    let answer: Value = serde_json::from_str(&text[start..=end]).map_err(|it| it.to_string())?;
    match answer["result"]["_meta"][VERSION_KEY].as_str() {
        Some(version) if text.starts_with("HTTP/1.1 200") => Ok(version.to_owned()),
        _ => Err(text),
    }
}

fn exchange(port: u16, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let length = body.len();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: echo\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Clients that ask all the time, until stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

/// What they saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) good: BTreeMap<String, u64>,
    pub(crate) bad: Vec<String>,
}

impl Load {
    /// About a hundred requests a second.
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let client = || {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(port);
                    let mut seen = seen.lock().unwrap();
                    match answer {
                        Ok(version) => *seen.good.entry(version).or_default() += 1,
                        Err(why) => seen.bad.push(why),
                    }
                    drop(seen);
                    pause(Duration::from_millis(18));
                }
            })
        };
        let threads = vec![client(), client()];
        Self { stop, seen, threads }
    }

    pub(crate) fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
