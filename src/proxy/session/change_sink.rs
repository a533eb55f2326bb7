use std::fmt::Debug;

use crate::model::ReleaseNumber;
use crate::proxy::session::id::SessionKey;

/// Receives every change that the successor of this daemon must know. A call never blocks.
pub(in crate::proxy) trait ChangeSink: Debug + Send + Sync {
    /// A session was opened, moved or ended, its snapshot changed, or its client cancelled a request.
    fn session_changed(&self, key: SessionKey);

    /// A release issued a `requestState`.
    fn request_state_issued(&self, state: u64, release: ReleaseNumber);
}
