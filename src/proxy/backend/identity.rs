//! What a session or a client is known by.

/// What the coin of a subject is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) enum Identity {
    /// The key of its session.
    Session([u8; 16]),
    /// A keyed hash of its credentials, else of its address.
    Client(u64),
}
