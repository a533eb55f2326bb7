//! `slack`: an incoming webhook of Slack, or of Mattermost and Rocket.Chat, which take `text` alone.

use serde_json::{Value, json};

use crate::incident::Notice;
use crate::notify::plain_text::{defuse, fields, label, shorten};

/// Longest text of a header block. These are the limits of the reference of the block kit, in characters.
const HEADER_MAX: usize = 150;
/// Longest text of a section.
const SECTION_MAX: usize = 3_000;
/// Longest text of a field, and of an element of a context block.
const FIELD_MAX: usize = 2_000;
/// Fields of a section.
const FIELDS_MAX: usize = 10;
/// Longest address of a button.
const URL_MAX: usize = 3_000;

/// The message: `text` for notifications and compatible servers, `blocks` for Slack.
pub(super) fn message(notice: &Notice) -> Value {
    let head = format!("{}: {}", label(notice), defuse(&notice.title));
    let line = defuse(&notice.text);
    let text = format!("{}: {line}", label(notice));
    let pairs = fields(notice);
    let columns = pairs.iter().map(|(name, value)| format!("{name}: {}", defuse(value)));
    let columns: Vec<_> = columns.take(FIELDS_MAX).map(|it| plain(&it, FIELD_MAX)).collect();
    let mut blocks = vec![
        json!({"type": "header", "text": plain(&head, HEADER_MAX)}),
        json!({"type": "section", "text": plain(&line, SECTION_MAX)}),
        json!({"type": "section", "fields": columns}),
    ];
    if let Some(url) = notice.url.as_ref().filter(|it| it.len() <= URL_MAX) {
        let label = plain("Open the status page", HEADER_MAX);
        let button = json!({"type": "button", "text": label, "url": url});
        blocks.push(json!({"type": "actions", "elements": [button]}));
    }
    // A repetition has the same id.
    blocks.push(json!({"type": "context", "elements": [plain(&notice.id, FIELD_MAX)]}));
    json!({"text": escape(shorten(&text, SECTION_MAX)), "blocks": blocks})
}

/// A text object. Slack refuses one that is empty or too long.
fn plain(text: &str, max: usize) -> Value {
    let text = if text.trim().is_empty() { "-" } else { shorten(text, max) };
    json!({"type": "plain_text", "text": text, "emoji": false})
}

/// Slack asks to escape these three in `text`.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::example::{any_notice, hostile};

    #[test]
    fn a_message_has_the_form_of_the_block_kit() {
        let mut notice = hostile();
        notice.url = Some("https://status.example.org/service/weather".to_owned());
        let message = message(&notice);
        let blocks = message["blocks"].as_array().unwrap();
        let kinds: Vec<_> = blocks.iter().map(|it| it["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["header", "section", "section", "actions", "context"]);
        let text = message["text"].as_str().unwrap();
        assert!(!text.contains('<') && !text.contains("://") && !text.contains("@all"), "{text}");
    }

    /// A text object within a limit. No markup: a release cannot write a link.
    fn assert_plain(object: &Value, max: usize) {
        assert_eq!(object["type"], "plain_text");
        let text = object["text"].as_str().unwrap();
        assert!(!text.trim().is_empty() && text.encode_utf16().count() <= max, "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        /// The limits of Slack's reference of the block kit, and of `chat.postMessage`.
        #[test]
        fn slack_accepts_every_notice(notice in any_notice()) {
            let message = message(&notice);
            prop_assert!((1..=40_000).contains(&message["text"].as_str().unwrap().len()));
            let blocks = message["blocks"].as_array().unwrap();
            prop_assert!(blocks.len() <= 50);
            for block in blocks {
                match block["type"].as_str().unwrap() {
                    "header" => assert_plain(&block["text"], 150),
                    "section" if block["text"].is_object() => assert_plain(&block["text"], 3_000),
                    "section" => {
                        let fields = block["fields"].as_array().unwrap();
                        prop_assert!((1..=10).contains(&fields.len()));
                        fields.iter().for_each(|it| assert_plain(it, 2_000));
                    }
                    "actions" => {
                        let button = &block["elements"][0];
                        assert_plain(&button["text"], 75);
                        prop_assert!(button["url"].as_str().unwrap().len() <= 3_000);
                    }
                    "context" => assert_plain(&block["elements"][0], 2_000),
                    other => prop_assert!(false, "{}", other),
                }
            }
        }
    }
}
