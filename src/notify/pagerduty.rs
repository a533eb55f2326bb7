//! `pagerduty`: events of the Events API v2. One alert for each incident, by its `dedup_key`.

use serde_json::{Map, Value, json};

use crate::incident::{Notice, NoticeKind};
use crate::notify::json::insert;
use crate::notify::plain_text::fields;

/// Longest summary, by the reference of the API.
const SUMMARY_MAX: usize = 1024;
/// Longest `dedup_key`.
const KEY_MAX: usize = 255;

/// The event of a notice.
pub(super) fn event(notice: &Notice, routing_key: &str) -> Value {
    let action = match notice.kind {
        _ if notice.acknowledged => "acknowledge",
        NoticeKind::Resolved => "resolve",
        NoticeKind::Page | NoticeKind::Warn | NoticeKind::Info | NoticeKind::Reminder => "trigger",
    };
    // A reminder is another alert than the incident, and so is a test.
    let group = match notice.kind {
        _ if notice.test => &notice.id,
        NoticeKind::Reminder => &notice.id,
        _ => &notice.group,
    };
    let dedup_key: String =
        format!("rollbackd/{}/{group}", notice.host).chars().take(KEY_MAX).collect();
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": dedup_key,
    });
    if action != "trigger" {
        return event;
    }
    let severity = match notice.kind {
        _ if notice.test => "info",
        NoticeKind::Page => "critical",
        NoticeKind::Warn => "warning",
        NoticeKind::Info | NoticeKind::Resolved | NoticeKind::Reminder => "info",
    };
    let details: Map<_, _> =
        fields(notice).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let summary: String = notice.text.chars().take(SUMMARY_MAX).collect();
    let payload = json!({
        "summary": summary,
        "source": notice.host,
        "severity": severity,
        "timestamp": notice.at,
        "component": notice.service,
        "class": notice.kind.label(),
        "custom_details": details,
    });
    insert(&mut event, "payload", payload);
    insert(&mut event, "client", json!("rollbackd"));
    if let Some(url) = &notice.url {
        insert(&mut event, "client_url", json!(url));
        insert(&mut event, "links", json!([{"href": url, "text": "status page"}]));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    /// The members that the reference of the API requires.
    #[test]
    fn an_incident_is_triggered_acknowledged_and_resolved_under_one_key() {
        let mut notice = hostile();
        let trigger = event(&notice, "key");
        assert_eq!(trigger["event_action"], "trigger");
        for member in ["summary", "source", "severity"] {
            assert!(
                trigger["payload"][member].as_str().is_some_and(|it| !it.is_empty()),
                "{member}"
            );
        }
        assert_eq!(trigger["payload"]["severity"], "critical");
        assert_eq!(trigger["dedup_key"], "rollbackd/host1/weather/7");
        notice.acknowledged = true;
        let acknowledge = event(&notice, "key");
        assert_eq!(acknowledge["event_action"], "acknowledge");
        assert_eq!(acknowledge.get("payload"), None);
        notice.acknowledged = false;
        notice.kind = NoticeKind::Resolved;
        let resolve = event(&notice, "key");
        assert_eq!(resolve["event_action"], "resolve");
        assert_eq!(resolve["dedup_key"], trigger["dedup_key"]);
        notice.kind = NoticeKind::Reminder;
        assert_ne!(event(&notice, "key")["dedup_key"], trigger["dedup_key"]);
    }
}
