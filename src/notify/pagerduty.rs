//! `pagerduty`: events of the Events API v2. One alert for each incident, by its `dedup_key`.

use serde_json::{Map, Value, json};

use crate::incident::{Notice, NoticeKind};
use crate::notify::json::insert;
use crate::notify::plain_text::{fields, shorten};

/// Longest summary, in characters, by the reference of the API.
const SUMMARY_MAX: usize = 1024;
/// Longest `dedup_key`.
const KEY_MAX: usize = 255;
/// Longest value of a detail. An event may have 512 KB.
const DETAIL_MAX: usize = 4_096;

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
    let key = format!("rollbackd/{}/{group}", notice.host);
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": shorten(&key, KEY_MAX),
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
    let details = fields(notice).into_iter();
    let details: Map<_, _> = details
        .map(|(name, value)| (name.to_owned(), json!(shorten(&value, DETAIL_MAX))))
        .collect();
    // The API refuses an empty one.
    let filled = |text: &str| !text.trim().is_empty();
    let texts = [notice.text.as_str(), notice.title.as_str()];
    let summary = texts.into_iter().find(|it| filled(it)).unwrap_or("a notice of rollbackd");
    let source = if filled(&notice.host) { notice.host.as_str() } else { "rollbackd" };
    let payload = json!({
        "summary": shorten(summary, SUMMARY_MAX),
        "source": source,
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
    use proptest::prelude::*;

    use super::*;
    use crate::notify::example::{any_notice, hostile};

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

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        /// The limits of the reference of the Events API v2.
        #[test]
        fn pagerduty_accepts_every_notice(notice in any_notice()) {
            let event = event(&notice, "0123456789abcdef0123456789abcdef");
            prop_assert!(event.to_string().len() <= 512 * 1024);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let action = text(&event["event_action"]);
            prop_assert!(["trigger", "acknowledge", "resolve"].contains(&action.as_str()));
            let key = text(&event["dedup_key"]).encode_utf16().count();
            prop_assert!((1..=255).contains(&key));
            if action != "trigger" {
                return Ok(());
            }
            let payload = &event["payload"];
            let severity = text(&payload["severity"]);
            prop_assert!(["critical", "error", "warning", "info"].contains(&severity.as_str()));
            let summary = text(&payload["summary"]);
            prop_assert!(!summary.trim().is_empty() && summary.encode_utf16().count() <= 1024);
            prop_assert!(!text(&payload["source"]).trim().is_empty());
        }
    }
}
