/// A request that failed, and what the release answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedCall {
    /// The method.
    pub method: Box<str>,
    /// The tool, prompt or resource that it names; empty where it names none.
    pub name: Box<str>,
    /// The JSON-RPC error code, if there was one.
    pub code: Option<i64>,
    /// The error message, at most 1,000 characters, without the arguments of the call. It is not masked.
    pub message: String,
}
