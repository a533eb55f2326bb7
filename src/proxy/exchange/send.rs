//! Sends a request to its release, a second time where the first one met the end of its connection.

use http::{Request, Response};
use hyper::body::Incoming;

use crate::proxy::backend::Backend;
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::pool::{SendError, met_a_close};
use crate::proxy::exchange::in_flight::{InFlight, unless_left};

/// Sends a request. A release may close a kept connection at the moment when a request leaves on it,
/// and a request that changes nothing may then be sent again: `repetition` builds it, if it is one.
/// The release is not charged for the first attempt. `None` when the release is cut meanwhile.
pub(super) async fn send_with_repetition(
    in_flight: &mut InFlight,
    backend: &Backend,
    request: Request<BackendBody>,
    repetition: impl FnOnce(&InFlight) -> Option<Request<BackendBody>>,
) -> Option<Result<Response<Incoming>, SendError>> {
    let result = unless_left(in_flight, backend.send(request)).await?;
    if !met_a_close(&result) {
        return Some(result);
    }
    match repetition(in_flight) {
        Some(again) => unless_left(in_flight, backend.send_on_new_connection(again)).await,
        None => Some(result),
    }
}
