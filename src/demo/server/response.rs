//! HTTP responses: JSON, plain text, and streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::demo::server::message::RpcError;

/// Every body that the server sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An idle stream gets a comment this often, so that proxies do not close it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The JSON-RPC response with a result.
pub(crate) fn rpc_result(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// The JSON-RPC response with an error.
pub(crate) fn rpc_error(id: Option<&Value>, rpc_error: &RpcError) -> Value {
    let mut error = json!({ "code": rpc_error.code, "message": rpc_error.message });
    if let (Some(data), Some(error)) = (&rpc_error.data, error.as_object_mut()) {
        error.insert("data".to_owned(), data.clone());
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

/// A response with a JSON body.
pub(crate) fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    with_content_type(status, "application/json", Full::from(value.to_string()).boxed_unsync())
}

/// A response with one line of plain text.
pub(crate) fn plain_text(status: StatusCode, text: &'static str) -> Response<Body> {
    with_content_type(status, "text/plain", Full::from(text).boxed_unsync())
}

/// A response without a body.
pub(crate) fn empty_body(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// A stream that sends one message as soon as it is ready, and ends.
pub(crate) fn single_event_stream(
    message: impl Future<Output = Value> + Send + 'static,
) -> Response<Body> {
    let body =
        stream::once(async move { Ok::<_, Infallible>(Frame::data(encode_event(&message.await))) });
    event_stream(StreamBody::new(body).boxed_unsync())
}

/// A stream that begins with a message, if any, and stays open until the sender of `end` drops.
pub(crate) fn open_stream(
    first: Option<&Value>,
    end: Option<watch::Receiver<()>>,
) -> Response<Body> {
    let first = first.map_or_else(|| Bytes::from_static(b": open\n\n"), encode_event);
    let body = stream::unfold((Some(first), end), |(first, mut end)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, Infallible>(Frame::data(first)), (None, end)));
        }
        let ended = async {
            match &mut end {
                Some(end) => while end.changed().await.is_ok() {},
                None => std::future::pending().await,
            }
        };
        match timeout(KEEPALIVE_INTERVAL, ended).await {
            Ok(()) => None,
            Err(_) => Some((Ok(Frame::data(Bytes::from_static(b": alive\n\n"))), (None, end))),
        }
    });
    event_stream(StreamBody::new(body).boxed_unsync())
}

fn encode_event(message: &Value) -> Bytes {
    Bytes::from(format!("event: message\ndata: {message}\n\n"))
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = with_content_type(StatusCode::OK, "text/event-stream", body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn with_content_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
