use serde::{Deserialize, Serialize};

/// What answers to one call usually were at the release before a deploy, and how many of them were not.
///
/// An answer of the new release is counted as small or slower by these bounds ([`crate::model::Counts`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsualAnswers {
    /// Bytes of content below which an answer is small; 0: an answer with content never is. One without
    /// any content always is.
    pub bytes_min: u64,
    /// Milliseconds above which an answer is slower.
    pub millis_max: u64,
    /// Answers that had content, or could have had.
    pub answers: u64,
    /// Of those, the small ones.
    pub small: u64,
    /// Answers whose time was taken.
    pub timed: u64,
    /// Of those, the slower ones.
    pub slower: u64,
}
