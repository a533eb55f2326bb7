//! A failed request whose error message is not known yet.

use crate::model::{FailedCall, Outcome};

/// A failed request whose error message is not known yet.
#[derive(Debug)]
pub(in crate::proxy) struct UnexplainedFailure {
    /// The id of the request, as the client wrote it.
    pub id: Box<str>,
    /// The call, without its message.
    pub call: FailedCall,
    /// What the failure means.
    pub class: Outcome,
}
