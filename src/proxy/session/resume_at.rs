use crate::model::ReleaseNumber;

/// Where the GET stream of a client continues after its session has moved.
#[derive(Debug)]
pub(in crate::proxy) struct ResumeAt {
    /// The new release of the session.
    pub release: ReleaseNumber,
    /// The request that opens the stream there.
    pub head: http::request::Parts,
    /// The generation of the session there.
    pub generation: u32,
}
