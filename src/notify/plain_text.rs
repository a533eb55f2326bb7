//! Text for chats and mails that stays text: no link, mention or markup of a release takes effect there.

use crate::incident::utc::format_time;
use crate::incident::{Notice, NoticeKind};

/// The text without what chats turn into links, mentions or markup. It stays readable.
pub(super) fn defuse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '[' => out.push('('),
            ']' => out.push(')'),
            '`' => out.push('\''),
            '<' => out.push('\u{2039}'),
            '>' => out.push('\u{203a}'),
            // A mention ends at the invisible character.
            '@' => out.push_str("@\u{200b}"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    // Clients make a link of a bare address.
    out.replace("://", ":\u{200b}//")
}

/// At most `max` UTF-16 code units of a text, as receivers in JavaScript and Java count them.
pub(super) fn shorten(text: &str, max: usize) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        max < units
    });
    end.and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// The kind in a word for people.
pub(super) fn label(notice: &Notice) -> &'static str {
    match notice.kind {
        _ if notice.test => "TEST",
        _ if notice.acknowledged => "ACKNOWLEDGED",
        NoticeKind::Page => "PAGE",
        NoticeKind::Warn => "WARNING",
        NoticeKind::Info => "INFO",
        NoticeKind::Resolved => "RESOLVED",
        NoticeKind::Reminder => "REMINDER",
    }
}

/// What else there is to say: names and values.
pub(super) fn fields(notice: &Notice) -> Vec<(&'static str, String)> {
    let mut fields = vec![("Host", notice.host.clone())];
    // A delivery can come late.
    fields.push(("At", format_time(notice.moment)));
    if !notice.service.is_empty() {
        fields.push(("Service", notice.service.clone()));
    }
    if !notice.version.is_empty() {
        fields.push(("Version", notice.version.clone()));
    }
    if notice.incident.0 > 0 {
        fields.push(("Deploy", notice.incident.to_string()));
    }
    if let Some((failed, all)) = notice.failed {
        fields.push(("Failed requests", format!("{failed} of {all}")));
    }
    if !notice.command.is_empty() {
        fields.push(("More", notice.command.clone()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    #[test]
    fn nothing_of_a_release_takes_effect() {
        let text = defuse(&hostile().text);
        for active in ["](", "<", ">", "://", "@all", "`"] {
            assert!(!text.contains(active), "{active} in {text}");
        }
        assert!(text.starts_with("weather: v2 is degraded: (click)"), "{text}");
    }

    #[test]
    fn a_text_is_shortened_between_characters() {
        for (text, max, short) in
            [("abc", 3, "abc"), ("abcd", 3, "abc"), ("a\u{1f600}b", 2, "a"), ("", 0, "")]
        {
            assert_eq!(shorten(text, max), short);
        }
    }
}
