//! `slack`: an incoming webhook of Slack, or of Mattermost and Rocket.Chat, which take `text` alone.

use serde_json::{Value, json};

use crate::incident::Notice;
use crate::notify::plain_text::{defuse, fields, label};

/// Longest text of a header block.
const HEADER_MAX: usize = 150;

/// The message: `text` for notifications and compatible servers, `blocks` for Slack.
pub(super) fn message(notice: &Notice) -> Value {
    let head = format!("{}: {}", label(notice), defuse(&notice.title));
    let text = format!("{}: {}", label(notice), defuse(&notice.text));
    let plain = |text: &str| json!({"type": "plain_text", "text": text, "emoji": false});
    let shortened: String = head.chars().take(HEADER_MAX).collect();
    let pairs = fields(notice);
    let columns: Vec<_> =
        pairs.iter().map(|(name, value)| plain(&format!("{name}: {}", defuse(value)))).collect();
    let mut blocks = vec![
        json!({"type": "header", "text": plain(&shortened)}),
        json!({"type": "section", "text": plain(&defuse(&notice.text))}),
        json!({"type": "section", "fields": columns}),
    ];
    if let Some(url) = &notice.url {
        let button = json!({"type": "button", "text": plain("Open the status page"), "url": url});
        blocks.push(json!({"type": "actions", "elements": [button]}));
    }
    // A repetition has the same id.
    blocks.push(json!({"type": "context", "elements": [plain(&notice.id)]}));
    json!({"text": escape(&text), "blocks": blocks})
}

/// Slack asks to escape these three in `text`.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    /// The limits and required members of Slack's block kit reference.
    #[test]
    fn a_message_has_the_form_of_the_block_kit() {
        let mut notice = hostile();
        notice.url = Some("https://status.example.org/service/weather".to_owned());
        let message = message(&notice);
        let blocks = message["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50);
        let kinds: Vec<_> = blocks.iter().map(|it| it["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["header", "section", "section", "actions", "context"]);
        assert!(blocks[0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
        let columns = blocks[2]["fields"].as_array().unwrap();
        assert!((1..=10).contains(&columns.len()));
        let texts = blocks.iter().flat_map(|block| {
            let one = block.get("text").cloned();
            let fields = block.get("fields").and_then(Value::as_array).cloned();
            one.into_iter().chain(fields.unwrap_or_default())
        });
        for text in texts {
            // No markup: a release cannot write a link.
            assert_eq!(text["type"], "plain_text");
            assert!(text["text"].as_str().is_some_and(|it| (1..=2_000).contains(&it.len())));
        }
        let text = message["text"].as_str().unwrap();
        assert!(!text.contains('<') && !text.contains("://") && !text.contains("@all"), "{text}");
    }
}
