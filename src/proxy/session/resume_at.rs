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

/// What the GET stream of a client must do.
#[derive(Debug)]
pub(in crate::proxy) enum StreamCommand {
    /// Continue at another release.
    Resume(Box<ResumeAt>),
    /// End: the client came back, and its release allows one stream.
    End,
}
