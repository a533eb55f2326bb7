//! A release within the test: one JSON-RPC response to each HTTP request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

/// Answers on this port until the test ends. `respond` gets the head and the body of a request, and gives a
/// status and a message without its id.
pub(crate) fn serve_json(
    port: u16,
    respond: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
) {
    let (listener, respond) = (TcpListener::bind(("127.0.0.1", port)).unwrap(), Arc::new(respond));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            std::thread::spawn(move || serve_connection(stream, &*respond));
        }
    });
}

fn serve_connection(mut stream: TcpStream, respond: impl Fn(&str, &Value) -> (u16, Value)) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<Value>(rest)
        {
            break (head.to_owned(), body);
        }
        let Ok(size @ 1..) = stream.read(&mut piece) else { return };
        bytes.extend_from_slice(&piece[..size]);
    };
    let (status, mut message) = respond(&head, &body);
    (message["jsonrpc"], message["id"]) = ("2.0".into(), body["id"].clone());
    let text = message.to_string();
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}"
    );
}
