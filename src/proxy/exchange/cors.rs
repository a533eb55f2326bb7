//! CORS headers of the responses that the proxy makes itself. Without them a browser hides even the
//! error from the page.
//!
//! A release adds its own headers to its own responses; the proxy leaves those as they are.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request};

use crate::proxy::exchange::client_body::ClientBody;

/// Marks a response that the proxy made itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnResponse;

/// What a page may read besides the body.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate");
/// The methods of an MCP endpoint.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const HEADERS_REQUESTED: HeaderName = header::ACCESS_CONTROL_REQUEST_HEADERS;

/// Adds the headers to a response of the proxy, for a request whose `Origin` it has accepted. The
/// proxy answers a preflight in place of a release that does not respond.
pub(super) fn add_headers(
    mut response: Response<ClientBody>,
    request: &request::Parts,
) -> Response<ClientBody> {
    let Some(origin) = request.headers.get(header::ORIGIN) else { return response };
    if response.extensions().get::<OwnResponse>().is_none() {
        return response;
    }
    let is_preflight = request.method == Method::OPTIONS
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight {
        response = Response::new(ClientBody::Full(Default::default()));
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    headers.append(header::VARY, ORIGIN);
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(requested) = request.headers.get(HEADERS_REQUESTED) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
        }
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}
