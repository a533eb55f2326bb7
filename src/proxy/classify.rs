//! What an answer means for the release that gave it.
//!
//! Neither the HTTP status, nor the JSON-RPC code, nor `isError` separates faults of the client
//! from faults of the server alone; servers were seen to put the same mistake in each of them.

use http::StatusCode;

use crate::model::Class;

use super::message::Message;

/// The class of an answer that carries no JSON-RPC message.
pub(super) fn status(status: StatusCode) -> Class {
    match status.as_u16() {
        200..=399 => Class::Ok,
        429 => Class::Neutral,
        400..=499 => Class::ClientFault,
        _ => Class::ServerFault,
    }
}

/// The class of a JSON-RPC answer.
pub(super) fn answer(http: StatusCode, message: &Message) -> Class {
    if http.is_server_error() {
        return Class::ServerFault;
    }
    match message.code {
        _ if message.error => message.code.map_or(Class::ServerFault, code),
        _ if message.input_required => Class::Neutral,
        _ if message.is_error => Class::ToolFault,
        _ => status(http),
    }
}

/// The class of a JSON-RPC error code.
fn code(code: i64) -> Class {
    match code {
        // Parse error, invalid request, unknown method, invalid params, resource not found, and
        // the codes that 2026-07-28 and URL elicitation (2025-11-25) reserve for the client.
        -32700 | -32600 | -32601 | -32602 | -32002 | -32020 | -32021 | -32022 | -32042 => {
            Class::ClientFault
        }
        // A person declined; the client took its request back.
        -1 | -32800 => Class::Neutral,
        _ => Class::ServerFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_has_its_class() {
        let ok = StatusCode::OK;
        let error = |code| Message { error: true, code: Some(code), ..Message::default() };
        let result = Message { result: true, ..Message::default() };
        let cases = [
            (ok, result.clone(), Class::Ok),
            (ok, Message { is_error: true, ..result.clone() }, Class::ToolFault),
            (ok, Message { input_required: true, ..result.clone() }, Class::Neutral),
            (ok, error(-32603), Class::ServerFault),
            (ok, error(-32000), Class::ServerFault),
            (ok, error(-32602), Class::ClientFault),
            (ok, error(-1), Class::Neutral),
            (ok, error(-32800), Class::Neutral),
            (ok, Message { error: true, ..Message::default() }, Class::ServerFault),
            (StatusCode::BAD_REQUEST, error(-32020), Class::ClientFault),
            (StatusCode::BAD_GATEWAY, result, Class::ServerFault),
        ];
        for (http, message, want) in cases {
            assert_eq!(answer(http, &message), want, "{http} {message:?}");
        }
        for (http, want) in [
            (204, Class::Ok),
            (404, Class::ClientFault),
            (429, Class::Neutral),
            (503, Class::ServerFault),
        ] {
            assert_eq!(status(StatusCode::from_u16(http).unwrap()), want, "{http}");
        }
    }
}
