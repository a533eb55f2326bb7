use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rollbackd::demo::server::VERSION_KEY;
use serde_json::{Value, json};

use super::sleep;

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One tool call on a port of this host: the version that answered, or the failure.
pub(crate) fn serving_version(port: u16) -> Result<String, String> {
    serving_version_for(port, None)
}

/// The same as a client with these credentials.
pub(crate) fn serving_version_for(port: u16, credentials: Option<&str>) -> Result<String, String> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "echo", "arguments": { "message": "hi" }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let text =
        http_post(port, &body.to_string(), credentials).map_err(|error| error.to_string())?;
    // The body may be chunked; a short one has a single chunk.
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

fn http_post(port: u16, body: &str, credentials: Option<&str>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    let length = body.len();
    let credentials =
        credentials.map(|it| format!("Authorization: Bearer {it}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: echo\r\nContent-Length: {length}\r\n\
         {credentials}Connection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Clients that send requests all the time, until stopped.
pub(crate) struct VersionPoller {
    stop_requested: Arc<AtomicBool>,
    pub(crate) results: Arc<Mutex<PollResults>>,
    threads: Vec<JoinHandle<()>>,
}

/// What they saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct PollResults {
    pub(crate) good: BTreeMap<String, u64>,
    pub(crate) bad: Vec<String>,
}

impl VersionPoller {
    /// About a hundred requests a second.
    pub(crate) fn start(port: u16) -> Self {
        Self::start_for(port, None)
    }

    /// The same as a client with these credentials.
    pub(crate) fn start_for(port: u16, credentials: Option<&'static str>) -> Self {
        let stop_requested = Arc::new(AtomicBool::new(false));
        let results = Arc::new(Mutex::new(PollResults::default()));
        let client = || {
            let (stop, seen) = (Arc::clone(&stop_requested), Arc::clone(&results));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = serving_version_for(port, credentials);
                    let mut seen = seen.lock().unwrap();
                    match answer {
                        Ok(version) => *seen.good.entry(version).or_default() += 1,
                        Err(why) => seen.bad.push(why),
                    }
                    drop(seen);
                    sleep(Duration::from_millis(18));
                }
            })
        };
        let threads = vec![client(), client()];
        Self { stop_requested, results, threads }
    }

    pub(crate) fn stop(mut self) -> PollResults {
        self.stop_requested.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.results.lock().unwrap().clone()
    }
}

impl Drop for VersionPoller {
    fn drop(&mut self) {
        self.stop_requested.store(true, Ordering::Relaxed);
    }
}
