//! The keys of a JSON-RPC message that [`super::scan`] looks for.

/// The keys of a result under which it carries what the client asked for.
const CONTENT_KEYS: [&[u8]; 8] = [
    b"content",
    b"structuredContent",
    b"contents",
    b"messages",
    b"tools",
    b"prompts",
    b"resources",
    b"resourceTemplates",
];

/// The object that the scanner is inside of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Level {
    #[default]
    Top,
    Batch,
    Message,
    Section,
}

/// The object of the message that [`Level::Section`] is inside of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Section {
    #[default]
    Params,
    Result,
    Error,
}

/// The field that receives the next value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Target {
    #[default]
    Nothing,
    Section(Section),
    JsonRpc,
    Id,
    Method,
    Name,
    Uri,
    RequestId,
    Protocol,
    ErrorCode,
    IsError,
    ResultType,
    Status,
    TaskId,
    RequestState,
    TaskParam,
    Content,
}

impl Target {
    /// The target of a key of this object.
    pub(super) fn of(level: Level, section: Section, key: &[u8]) -> Self {
        match (level, key) {
            (Level::Message, b"jsonrpc") => Self::JsonRpc,
            (Level::Message, b"id") => Self::Id,
            (Level::Message, b"method") => Self::Method,
            (Level::Message, b"params") => Self::Section(Section::Params),
            (Level::Message, b"result") => Self::Section(Section::Result),
            (Level::Message, b"error") => Self::Section(Section::Error),
            (Level::Section, key) => match (section, key) {
                (Section::Params, b"name") => Self::Name,
                (Section::Params, b"uri") => Self::Uri,
                (Section::Params, b"requestId") => Self::RequestId,
                (Section::Params | Section::Result, b"protocolVersion") => Self::Protocol,
                (Section::Params | Section::Result, b"requestState") => Self::RequestState,
                (Section::Params, b"taskId") => Self::TaskId,
                (Section::Params, b"task") => Self::TaskParam,
                (Section::Result, b"status") => Self::Status,
                (Section::Result, b"isError") => Self::IsError,
                (Section::Result, b"resultType") => Self::ResultType,
                (Section::Result, key) if CONTENT_KEYS.contains(&key) => Self::Content,
                (Section::Error, b"code") => Self::ErrorCode,
                _ => Self::Nothing,
            },
            _ => Self::Nothing,
        }
    }
}

/// Whether some reader of JSON takes the key for one of those that matter: its text is escaped, or it
/// differs in case only. Go compares without case, and folds U+017F to `s`.
pub(super) fn is_like_a_key(key: &[u8]) -> bool {
    let folds_to = |name: &[u8]| {
        key.eq_ignore_ascii_case(name)
            || (!key.is_ascii()
                && String::from_utf8_lossy(key)
                    .replace('\u{17f}', "s")
                    .eq_ignore_ascii_case(&String::from_utf8_lossy(name)))
    };
    key.contains(&b'\\') || [&b"method"[..], b"params", b"name", b"uri"].into_iter().any(folds_to)
}
