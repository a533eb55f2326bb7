//! Mutexes whose holder may have panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it. What a panic left behind is used as it is: each value here is whole between any two of its
/// changes, and a part that panics ends the process anyway ([`crate::critical`]) or only its own request.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
