//! A receiver of notices that behaves as it is told, on a free port.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::epoch_ms;

/// What a receiver does with a request; the number counts them from 0.
pub(crate) type Behaviour = fn(usize) -> Answer;

/// One answer.
pub(crate) enum Answer {
    /// A status line, further header lines, and a body of this many bytes.
    Status(&'static str, &'static str, usize),
    /// No answer, and the connection stays open.
    Hang,
}

pub(crate) const ACCEPT: Behaviour = |_| Answer::Status("202 Accepted", "", 2);

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// When its last byte arrived, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The notice in a structured event.
    pub(crate) fn notice(&self) -> Value {
        self.json()["data"].clone()
    }
}

/// A receiver of HTTP requests.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::start_with(behaviour, None)
    }

    /// The same over TLS, with a certificate of tests/data/tls for this name.
    pub(crate) fn start_tls(behaviour: Behaviour, name: &str) -> Self {
        let file = |extension: &str| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
            dir.join(format!("{name}.{extension}"))
        };
        let certificate = CertificateDer::from_pem_file(file("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::start_with(behaviour, Some(Arc::new(config)))
    }

    fn start_with(behaviour: Behaviour, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, tls) = (Arc::clone(&kept), tls.clone());
                std::thread::spawn(move || serve(stream, behaviour, &kept, tls));
            }
        });
        Self { port, received }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Everything that arrived so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    behaviour: Behaviour,
    kept: &Mutex<Vec<Received>>,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    match tls {
        None => answer(stream, behaviour, kept),
        Some(config) => {
            let connection = rustls::ServerConnection::new(config).unwrap();
            answer(rustls::StreamOwned::new(connection, stream), behaviour, kept);
        }
    }
}

fn answer(mut stream: impl Read + Write, behaviour: Behaviour, kept: &Mutex<Vec<Received>>) {
    let Some(request) = read(&mut stream) else { return };
    let count = {
        let mut kept = kept.lock().unwrap();
        kept.push(request);
        kept.len() - 1
    };
    match behaviour(count) {
        Answer::Hang => loop {
            std::thread::park();
        },
        Answer::Status(status, headers, length) => {
            let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&vec![b'x'; length]);
            let _ = stream.flush();
        }
    }
}

/// A request with `Content-Length`. None where the client gave up.
fn read(stream: &mut impl Read) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut lines = head.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: BTreeMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers.get("content-length")?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..].to_vec();
                return Some(Received { at_ms: epoch_ms(), path, headers, body });
            }
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}
