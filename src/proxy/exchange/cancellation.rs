//! Waits for a cancellation, inside a poll function.

use std::pin::Pin;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A future that ends with a cancellation.
pub(super) type Cancelled = Pin<Box<WaitForCancellationFutureOwned>>;

/// Waits for this token.
pub(super) fn cancelled(token: &CancellationToken) -> Cancelled {
    Box::pin(token.clone().cancelled_owned())
}
