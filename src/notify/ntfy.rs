//! `ntfy`: a message to a topic, published as JSON to the root of the server.

use serde_json::{Value, json};

use crate::incident::{Notice, NoticeKind};
use crate::notify::json::insert;
use crate::notify::plain_text::{defuse, fields, label};

/// Longest message in bytes: the server makes an attachment of a longer one.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// The server and the topic of an address such as `https://ntfy.example.org/alerts`.
pub(super) fn split_topic(url: &str) -> Option<(&str, &str)> {
    let (server, topic) = url.trim_end_matches('/').rsplit_once('/')?;
    (!topic.is_empty() && server.contains("://")).then_some((server, topic))
}

/// The message.
pub(super) fn message(notice: &Notice, topic: &str) -> Value {
    // 1 to 5, by the documentation: 5 vibrates and rings until it is seen.
    let (priority, tag) = match notice.kind {
        _ if notice.test => (3, "test_tube"),
        _ if notice.acknowledged => (2, "eyes"),
        NoticeKind::Page => (5, "rotating_light"),
        NoticeKind::Warn => (4, "warning"),
        NoticeKind::Info => (2, "information_source"),
        NoticeKind::Resolved => (3, "white_check_mark"),
        NoticeKind::Reminder => (3, "alarm_clock"),
    };
    let details = fields(notice).into_iter().map(|(name, value)| format!("{name}: {value}"));
    let details: Vec<_> = details.collect();
    let text = format!("{}\n\n{}", defuse(&notice.text), details.join("\n"));
    let mut message = json!({
        "topic": topic,
        "title": format!("{}: {}", label(notice), defuse(&notice.title)),
        "message": text.get(..text.floor_char_boundary(MESSAGE_BYTES_MAX)),
        "priority": priority,
        "tags": [tag],
    });
    if let Some(url) = &notice.url {
        insert(&mut message, "click", json!(url));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    #[test]
    fn a_message_has_the_documented_members() {
        assert_eq!(split_topic("https://ntfy.sh/alerts"), Some(("https://ntfy.sh", "alerts")));
        assert_eq!(split_topic("https://a.b/c/alerts/"), Some(("https://a.b/c", "alerts")));
        assert_eq!(split_topic("https://ntfy.sh"), None);
        let message = message(&hostile(), "alerts");
        assert_eq!((&message["topic"], &message["priority"]), (&json!("alerts"), &json!(5)));
        let text = message["message"].as_str().unwrap();
        assert!(text.contains("Failed requests: 12 of 538") && !text.contains("://"), "{text}");
    }

    #[test]
    fn a_long_message_is_no_attachment() {
        let notice = Notice { text: "\u{1f600}".repeat(3_000), ..hostile() };
        let message = message(&notice, "alerts");
        assert!(message["message"].as_str().is_some_and(|it| (4_000..=4_096).contains(&it.len())));
    }
}
