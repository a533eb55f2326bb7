//! What an answer means for the release that gave it.
//!
//! Neither the HTTP status, nor the JSON-RPC code, nor `isError` separates faults of the client
//! from faults of the server alone; servers were seen to put the same mistake in each of them.

use http::StatusCode;

use super::message::Message;
use crate::model::Outcome;

/// The class of an answer that carries no JSON-RPC message.
pub(crate) fn from_status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=399 => Outcome::Ok,
        429 => Outcome::Neutral,
        400..=499 => Outcome::ClientFault,
        _ => Outcome::ServerFault,
    }
}

/// The class of a JSON-RPC answer.
pub(crate) fn from_response(status: StatusCode, message: &Message) -> Outcome {
    if status.is_server_error() {
        return Outcome::ServerFault;
    }
    match message.error_code {
        _ if message.has_error => message.error_code.map_or(Outcome::ServerFault, from_error_code),
        _ if message.input_required => Outcome::Neutral,
        _ if message.is_tool_error => Outcome::ToolFault,
        _ => from_status(status),
    }
}

/// The class of a JSON-RPC error code.
fn from_error_code(error_code: i64) -> Outcome {
    match error_code {
        // Parse error, invalid request, unknown method, invalid params, resource not found, and
        // the codes that 2026-07-28 and URL elicitation (2025-11-25) reserve for the client.
        -32700 | -32600 | -32601 | -32602 | -32002 | -32020 | -32021 | -32022 | -32042 => {
            Outcome::ClientFault
        }
        // A person declined; the client took its request back.
        -1 | -32800 => Outcome::Neutral,
        _ => Outcome::ServerFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_answer_has_its_class() {
        let ok = StatusCode::OK;
        let with_error =
            |code| Message { has_error: true, error_code: Some(code), ..Message::default() };
        let result = Message { has_result: true, ..Message::default() };
        let cases = [
            (ok, result.clone(), Outcome::Ok),
            (ok, Message { is_tool_error: true, ..result.clone() }, Outcome::ToolFault),
            (ok, Message { input_required: true, ..result.clone() }, Outcome::Neutral),
            (ok, with_error(-32603), Outcome::ServerFault),
            (ok, with_error(-32000), Outcome::ServerFault),
            (ok, with_error(-32602), Outcome::ClientFault),
            (ok, with_error(-1), Outcome::Neutral),
            (ok, with_error(-32800), Outcome::Neutral),
            (ok, Message { has_error: true, ..Message::default() }, Outcome::ServerFault),
            (StatusCode::BAD_REQUEST, with_error(-32020), Outcome::ClientFault),
            (StatusCode::BAD_GATEWAY, result, Outcome::ServerFault),
        ];
        for (http, message, want) in cases {
            assert_eq!(from_response(http, &message), want, "{http} {message:?}");
        }
        for (http, want) in [
            (204, Outcome::Ok),
            (404, Outcome::ClientFault),
            (429, Outcome::Neutral),
            (503, Outcome::ServerFault),
        ] {
            assert_eq!(from_status(StatusCode::from_u16(http).unwrap()), want, "{http}");
        }
    }
}
