//! Failed requests that are safe to repeat, sent once more to the other release for comparison.

pub(super) mod sender;
