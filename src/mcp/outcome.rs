//! What a response means for the release that sent it.
//!
//! No single field separates faults of the client from faults of the server: not the HTTP status,
//! not the JSON-RPC code, not `isError`. Real servers report the same mistake in each of them.

use http::StatusCode;

use super::jsonrpc;
use super::message::Message;
use crate::model::Outcome;

/// The class of a response without a JSON-RPC message.
pub(crate) fn from_status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Ok,
        // The client follows a redirect with a request of its own.
        300..=399 | 429 => Outcome::Neutral,
        400..=499 => Outcome::ClientFault,
        _ => Outcome::ServerFault,
    }
}

/// The class of a JSON-RPC response.
pub(crate) fn from_response(status: StatusCode, message: &Message) -> Outcome {
    let by_code = message.error_code.filter(|_| message.has_error).map(from_error_code);
    match message.error_code {
        // Some servers send them with status 500 or 501.
        _ if by_code == Some(Outcome::ClientFault) => Outcome::ClientFault,
        _ if status.is_server_error() => Outcome::ServerFault,
        _ if status == StatusCode::TOO_MANY_REQUESTS => Outcome::Neutral,
        _ if message.has_error => message.error_code.map_or(Outcome::ServerFault, from_error_code),
        _ if message.input_required => Outcome::Neutral,
        _ if message.is_tool_error => Outcome::ToolFault,
        _ => from_status(status),
    }
}

/// The class of a JSON-RPC error code.
fn from_error_code(error_code: i64) -> Outcome {
    match error_code {
        jsonrpc::PARSE_ERROR
        | jsonrpc::INVALID_REQUEST
        | jsonrpc::METHOD_NOT_FOUND
        | jsonrpc::INVALID_PARAMS
        | jsonrpc::RESOURCE_NOT_FOUND
        | jsonrpc::HEADER_MISMATCH
        | jsonrpc::MISSING_CAPABILITY
        | jsonrpc::UNSUPPORTED_VERSION
        | jsonrpc::URL_ELICITATION_REQUIRED => Outcome::ClientFault,
        jsonrpc::USER_DECLINED | jsonrpc::REQUEST_CANCELLED => Outcome::Neutral,
        _ => Outcome::ServerFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_response_has_its_class() {
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
            (StatusCode::INTERNAL_SERVER_ERROR, with_error(-32601), Outcome::ClientFault),
            (StatusCode::TOO_MANY_REQUESTS, with_error(-32000), Outcome::Neutral),
        ];
        for (http, message, want) in cases {
            assert_eq!(from_response(http, &message), want, "{http} {message:?}");
        }
        for (http, want) in [
            (204, Outcome::Ok),
            (307, Outcome::Neutral),
            (404, Outcome::ClientFault),
            (429, Outcome::Neutral),
            (503, Outcome::ServerFault),
        ] {
            assert_eq!(from_status(StatusCode::from_u16(http).unwrap()), want, "{http}");
        }
    }
}
