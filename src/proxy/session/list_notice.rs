/// What the client knows of a move that is to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy::session) enum ListNotice {
    /// Nothing.
    #[default]
    NotSent,
    /// That lists change; it has not read one since.
    Sent,
    /// That lists change; it has read one since, at the old release.
    ReadSince,
}
