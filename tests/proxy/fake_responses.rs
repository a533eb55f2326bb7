//! What the fake MCP server answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(crate) struct ChannelBody(mpsc::Receiver<String>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

/// A JSON-RPC error with the status, code and message that the arguments name.
pub(crate) fn refuse(id: &Value, arguments: &Value) -> Response<ChannelBody> {
    let status = u16::try_from(arguments["status"].as_u64().unwrap()).unwrap();
    let error = json!({"code": arguments["code"], "message": arguments["message"]});
    let body = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
    response_with(StatusCode::from_u16(status).unwrap(), "application/json", vec![body]).0
}

pub(crate) fn refused((status, body): (u16, &str)) -> Response<ChannelBody> {
    let texts = if body.is_empty() { Vec::new() } else { vec![body.to_owned()] };
    response_with(StatusCode::from_u16(status).unwrap(), "application/json", texts).0
}

pub(crate) fn sse_event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

pub(crate) fn response_with(
    status: StatusCode,
    kind: &str,
    texts: Vec<String>,
) -> (Response<ChannelBody>, mpsc::Sender<String>) {
    let (tell, told) = mpsc::channel(16);
    for text in texts {
        tell.try_send(text).unwrap();
    }
    let response = Response::builder().status(status).header("content-type", kind);
    (response.body(ChannelBody(told)).unwrap(), tell)
}

/// A stream that stays open.
pub(crate) fn open_stream(texts: Vec<String>) -> Response<ChannelBody> {
    let (response, tell) = response_with(StatusCode::OK, "text/event-stream", texts);
    tokio::spawn(async move { tell.closed().await });
    response
}
