//! The line that says which sources the failures of a block come from.
//!
//! The numbers of active sources and clients, then JSON: the outcomes of what is known to fail, and for each
//! failing source, and client, its hash, the number of the call and its outcomes.

use crate::model::{BlockSources, SourceCounts};
use crate::record::signal_log::counts_codec::{decode_counts, encode_counts};

/// Sources of one line that are read.
const SOURCES_MAX: usize = 1_000;

/// Hash, call, outcomes.
type Row = (u64, u64, String);

/// Writes the sources of a block.
pub(super) fn encode_sources(sources: &BlockSources) -> String {
    let BlockSources { sources_active, clients_active, known_failing, sources, clients } = sources;
    let known_failing = encode_counts(known_failing);
    let rows = (known_failing.trim_start(), rows(sources), rows(clients));
    let rows = serde_json::to_string(&rows).unwrap_or_default();
    format!("{sources_active} {clients_active} {rows}")
}

fn rows(sources: &[SourceCounts]) -> Vec<Row> {
    let row =
        |it: &SourceCounts| (it.source, it.call, encode_counts(&it.counts).trim_start().to_owned());
    sources.iter().map(row).collect()
}

/// Reads what [`encode_sources`] wrote.
pub(super) fn decode_sources(text: &str) -> Option<BlockSources> {
    let mut parts = text.splitn(3, ' ');
    let sources_active = parts.next()?.parse().ok()?;
    let clients_active = parts.next()?.parse().ok()?;
    let (known_failing, sources, clients): (String, Vec<Row>, Vec<Row>) =
        serde_json::from_str(parts.next()?).ok()?;
    Some(BlockSources {
        sources_active,
        clients_active,
        known_failing: decode_counts(&known_failing)?,
        sources: source_counts(sources)?,
        clients: source_counts(clients)?,
    })
}

fn source_counts(rows: Vec<Row>) -> Option<Vec<SourceCounts>> {
    let read = |(source, call, counts): Row| {
        Some(SourceCounts { source, call, counts: decode_counts(&counts)? })
    };
    rows.into_iter().take(SOURCES_MAX).map(read).collect()
}
