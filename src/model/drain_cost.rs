use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::migration_refused::MigrationRefused;

/// What leaving a release cost its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainCost {
    /// Open requests that the proxy answered with an error.
    #[serde(alias = "answered")]
    pub error_responses: u64,
    /// Sessions that were ended.
    #[serde(alias = "ended")]
    pub sessions_ended: u64,
    /// Streams that were closed.
    #[serde(alias = "streams")]
    pub streams_closed: u64,
    /// Open requests that the proxy sent again to the release that took over.
    #[serde(default)]
    #[serde(alias = "replayed")]
    pub requests_replayed: u64,
    /// Open requests whose answer broke off where the proxy could insert no error.
    #[serde(default)]
    #[serde(alias = "lost")]
    pub responses_lost: u64,
    /// Sessions that go on at the release that took over.
    #[serde(default)]
    #[serde(alias = "moved")]
    pub sessions_migrated: u64,
    /// Sessions that were silent since; each moves at its next request.
    #[serde(default)]
    #[serde(alias = "waiting")]
    pub sessions_to_migrate: u64,
    /// Whether a server may have known more of those than the protocol shows.
    #[serde(default)]
    #[serde(alias = "soft")]
    pub server_state_at_risk: bool,
    /// Sessions that could not be moved when they asked to be, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(alias = "kept")]
    pub sessions_not_migrated: BTreeMap<MigrationRefused, u64>,
}

impl fmt::Display for DrainCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            error_responses: answered,
            sessions_ended: ended,
            streams_closed: streams,
            requests_replayed: replayed,
            responses_lost: lost,
            sessions_migrated: moved,
            sessions_to_migrate: waiting,
            server_state_at_risk: soft,
            sessions_not_migrated: kept,
        } = self;
        let counts = [
            (*answered, "open request", "answered with an error"),
            (*replayed, "request", "replayed"),
            (*lost, "response", "lost"),
            (*streams, "stream", "closed"),
            (*ended, "session", "ended"),
            (*moved, "session", "migrated"),
        ];
        let counts = counts.iter().filter(|(count, ..)| 0 < *count);
        let mut parts = Vec::from_iter(counts.map(|(count, what, how)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {what}{plural} {how}")
        }));
        match waiting {
            0 => {}
            1 => parts.push("1 session migrates at its next request".to_owned()),
            _ => parts.push(format!("{waiting} sessions migrate at their next request")),
        }
        if parts.is_empty() {
            parts.push("nothing was lost".to_owned());
        }
        f.write_str(&parts.join(", "))?;
        if *soft && 0 < moved + waiting {
            f.write_str(" (state in the server may be lost)")?;
        }
        let mut before = "; not migrated: ";
        for (refusal, count) in kept {
            write!(f, "{before}{count} ({})", refusal.label())?;
            before = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_lost_is_named_and_one_is_one() {
        assert_eq!(DrainCost::default().to_string(), "nothing was lost");
        let one = DrainCost { error_responses: 1, sessions_to_migrate: 1, ..DrainCost::default() };
        let text = "1 open request answered with an error, 1 session migrates at its next request";
        assert_eq!(one.to_string(), text);
        let many = DrainCost { sessions_migrated: 2, sessions_to_migrate: 3, ..one };
        assert!(
            many.to_string()
                .ends_with("2 sessions migrated, 3 sessions migrate at their next request")
        );
    }
}
