//! One session as a line of the store and as a message to the successor. Never credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::model::{Moment, ReleaseNumber};
use crate::proxy::session::credentials::Owner;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::snapshot::OpeningSnapshot;

/// What survives the daemon of a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PersistedSession {
    pub(super) release: ReleaseNumber,
    pub(super) generation: u32,
    pub(super) backend_id: Box<str>,
    pub(super) snapshot: Option<OpeningSnapshot>,
    pub(super) opened_at: Moment,
    pub(super) owner: Owner,
}

/// One session, or the end of one, in its serialized form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct SessionRecord {
    #[serde(rename = "k")]
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "s")]
    session: Option<RecordBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RecordBody {
    #[serde(rename = "r")]
    release: ReleaseNumber,
    #[serde(rename = "g")]
    generation: u32,
    #[serde(rename = "b")]
    backend_id: Box<str>,
    #[serde(rename = "t")]
    opened_at: u64,
    #[serde(rename = "c")]
    snapshot: OpeningSnapshot,
    /// Keyed hashes of the credentials that opened it.
    #[serde(rename = "a", default, skip_serializing_if = "Owner::is_empty")]
    owner: Owner,
}

/// Where a session is, without what is needed to open it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct SessionLocation {
    #[serde(rename = "k")]
    pub(super) key: String,
    #[serde(rename = "r")]
    pub(super) release: ReleaseNumber,
    #[serde(rename = "g")]
    pub(super) generation: u32,
    #[serde(rename = "b")]
    pub(super) backend_id: Box<str>,
}

/// A record, read.
#[derive(Debug, PartialEq)]
pub(super) enum StoredChange {
    /// The session is live.
    Live(SessionKey, PersistedSession),
    /// The session ended.
    Ended(SessionKey),
}

impl SessionRecord {
    /// The record of a live session, or of its end. A session without a snapshot cannot be opened
    /// again, so its record is that of its end.
    pub(super) fn new(key: &SessionKey, session: Option<PersistedSession>) -> Self {
        let body = session.and_then(|it| {
            let snapshot = it.snapshot?;
            let (release, generation, backend_id) = (it.release, it.generation, it.backend_id);
            Some(RecordBody {
                release,
                generation,
                backend_id,
                opened_at: it.opened_at.0,
                snapshot,
                owner: it.owner,
            })
        });
        Self { key: encode_key(key), session: body }
    }

    /// The content; `None` if the key is not valid.
    pub(super) fn into_change(self) -> Option<StoredChange> {
        let key = decode_key(&self.key)?;
        let Some(body) = self.session else { return Some(StoredChange::Ended(key)) };
        let session = PersistedSession {
            release: body.release,
            generation: body.generation,
            backend_id: body.backend_id,
            snapshot: Some(body.snapshot),
            opened_at: Moment(body.opened_at),
            owner: body.owner,
        };
        Some(StoredChange::Live(key, session))
    }
}

/// A session key as text.
pub(in crate::proxy) fn encode_key(key: &SessionKey) -> String {
    BASE64.encode(key)
}

/// The session key in a text; `None` if the text is not one.
pub(in crate::proxy) fn decode_key(text: &str) -> Option<SessionKey> {
    BASE64.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::mcp::capabilities::Capabilities;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    const KEY: SessionKey = *b"sixteen bytes...";
    const CAPABILITIES: [&str; 6] =
        ["tools", "prompts", "resources", "logging", "completions", "tasks"];

    /// `live least` has none of the optional fields.
    fn sessions() -> Vec<(&'static str, SessionRecord)> {
        let offers = json!({"tools": {}, "resources": {"subscribe": true}, "logging": {}});
        let captured = OpeningSnapshot {
            params: r#"{"protocolVersion":"2025-11-25", "capabilities":{}}"#.into(),
            protocol: "2025-11-25".into(),
            initialized: true,
            level: Some("warning".into()),
            subscriptions: BTreeSet::from(["weather://oslo".into()]),
            incomplete: false,
            offered: Capabilities::from_json(&offers),
            used: Capabilities::required_by("tools/call"),
        };
        let least = OpeningSnapshot {
            initialized: false,
            level: None,
            subscriptions: BTreeSet::new(),
            used: Capabilities::default(),
            ..captured.clone()
        };
        let (release, backend_id, born) =
            (ReleaseNumber(7), "backend-1".into(), Moment(1_700_000_000_000));
        let kept = PersistedSession {
            release,
            generation: 3,
            backend_id,
            snapshot: Some(captured),
            opened_at: born,
            owner: Owner::default(),
        };
        let least = PersistedSession { snapshot: Some(least), ..kept.clone() };
        let incomplete = kept.snapshot.clone().map(|it| OpeningSnapshot { incomplete: true, ..it });
        let owned = PersistedSession {
            snapshot: incomplete,
            owner: Owner(vec![7, u64::MAX]),
            ..kept.clone()
        };
        vec![
            ("live", SessionRecord::new(&KEY, Some(kept))),
            ("live owned", SessionRecord::new(&KEY, Some(owned))),
            ("live least", SessionRecord::new(&KEY, Some(least))),
            ("ended", SessionRecord::new(&KEY, None)),
        ]
    }

    /// The number of each capability in a line.
    fn offers() -> String {
        let one = |name: &str| Capabilities::from_json(&json!({name: {"subscribe": true}})).0;
        CAPABILITIES.iter().map(|name| format!("{name}  {}\n", one(name))).collect()
    }

    #[test]
    fn every_line_is_as_it_was() {
        hold("sessions.txt", &(lines(&sessions()) + &offers()));
    }

    #[test]
    fn old_lines_are_still_read() {
        let old =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/sessions.txt"));
        still_read(old, &sessions());
        for (_, record) in sessions() {
            let again = match record.clone().into_change().unwrap() {
                StoredChange::Live(key, session) => SessionRecord::new(&key, Some(session)),
                StoredChange::Ended(key) => SessionRecord::new(&key, None),
            };
            assert_eq!(again, record);
        }
    }
}
