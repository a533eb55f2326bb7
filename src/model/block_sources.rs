use serde::{Deserialize, Serialize};

use crate::model::outcome::Counts;

/// Which sources the failures of a block come from.
///
/// A source is a session, or where there is none its client; a client is the credentials, else the
/// address. Only sources with a failure in the last minutes are named, the worst few of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSources {
    /// Sources with a request in the last minute or two, about.
    pub sources_active: u16,
    /// The same for clients.
    pub clients_active: u16,
    /// Requests of sources that mostly failed the same call on the release before, ahead of the deploy:
    /// they say nothing about either release.
    pub known_failing: Counts,
    /// The requests of failing sources.
    pub sources: Vec<SourceCounts>,
    /// The requests of failing clients, all their sessions together.
    pub clients: Vec<SourceCounts>,
}

/// The requests of one source for one call that ended within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// A keyed hash of what identifies it.
    pub source: u64,
    /// The number of the call ([`crate::model::call_number`]); 0 for the rare ones of a source.
    pub call: u64,
    /// The outcomes of its requests, without those of [`BlockSources::known_failing`].
    pub counts: Counts,
}

impl BlockSources {
    /// Whether it names no source.
    pub fn is_empty(&self) -> bool {
        let Self { known_failing, sources, clients, .. } = self;
        *known_failing == Counts::default() && sources.is_empty() && clients.is_empty()
    }
}
