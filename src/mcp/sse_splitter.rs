//! Splits a stream into whole server-sent events: for streams that the proxy rewrites, and for
//! responses that rollbackd collects as a client.

use serde_json::Value;

use super::lenient_json;

/// The longest event that is buffered; a longer one passes in fragments, unchanged.
const EVENT_MAX: usize = 16 * 1024 * 1024;

/// The state of the splitter inside a stream.
#[derive(Debug, Default)]
pub(crate) struct SseSplitter {
    buffer: Vec<u8>,
    /// Whether the current line is empty so far.
    line_is_empty: bool,
    after_cr: bool,
    /// Whether the current event exceeds [`EVENT_MAX`].
    oversized: bool,
}

/// Part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SseEvent {
    /// One event, with the empty line that ends it.
    Whole(Vec<u8>),
    /// A fragment of an event that exceeds [`EVENT_MAX`].
    Fragment(Vec<u8>),
}

impl SseSplitter {
    /// Reads the next bytes. Calls `on_event` for each event or fragment.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on_event: impl FnMut(SseEvent)) {
        for byte in bytes {
            let second_half = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            self.buffer.push(*byte);
            if second_half {
                continue;
            }
            if !matches!(byte, b'\r' | b'\n') {
                self.line_is_empty = false;
            } else if std::mem::replace(&mut self.line_is_empty, true) {
                let event = std::mem::take(&mut self.buffer);
                let is_fragment = std::mem::take(&mut self.oversized);
                on_event(if is_fragment {
                    SseEvent::Fragment(event)
                } else {
                    SseEvent::Whole(event)
                });
            }
            if self.buffer.len() >= EVENT_MAX {
                self.oversized = true;
                on_event(SseEvent::Fragment(std::mem::take(&mut self.buffer)));
            }
        }
    }

    /// The number of buffered bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no event has passed in part.
    pub(crate) fn at_event_boundary(&self) -> bool {
        !self.oversized
    }

    /// The buffered beginning of an event that never ended.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

/// The fields of an event, as name and value. Comments have an empty name.
pub(crate) fn fields(event: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = std::str::from_utf8(event).unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.split("\r\n").flat_map(|line| line.split(['\n', '\r']));
    lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name, value.strip_prefix(' ').unwrap_or(value))
    })
}

/// The JSON value in the data of an event, if there is one.
pub(crate) fn parse_message(event: &[u8]) -> Option<Value> {
    message(event)?.ok()
}

/// The JSON value in the data of an event. `None` if the event has no data.
pub(crate) fn message(event: &[u8]) -> Option<serde_json::Result<Value>> {
    let data: Vec<_> = fields(event).filter(|(name, _)| *name == "data").map(|it| it.1).collect();
    let data = data.join("\n");
    (!data.trim().is_empty()).then(|| lenient_json::parse(data.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut found) = (SseSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, |block| match block {
                SseEvent::Whole(block) => found.push(block),
                SseEvent::Fragment(_) => panic!("no event is oversized"),
            });
        }
        found.push(splitter.take_rest());
        found
    }

    #[test]
    fn events_are_split_whole_at_any_chunk_boundary() {
        let stream = b"id: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: hi\n\ndata:2\r\rretry: 5";
        let whole = split(&[stream]);
        assert_eq!(whole.concat(), stream);
        assert_eq!(whole.len(), 4);
        assert_eq!(parse_message(&whole[0]).unwrap()["a"], 1);
        assert_eq!(fields(&whole[0]).next(), Some(("id", "1")));
        for at in 0..stream.len() {
            let (a, b) = stream.split_at(at);
            let halves: Vec<_> = split(&[a, b]).concat();
            assert_eq!(halves, stream, "cut at {at}");
        }
    }

    #[test]
    fn an_oversized_event_passes_in_fragments() {
        let (mut splitter, mut passed) = (SseSplitter::default(), 0);
        let long = format!("data: {}\n\n", "x".repeat(3 * EVENT_MAX));
        for chunk in long.as_bytes().chunks(60_000) {
            splitter.feed(chunk, |block| match block {
                SseEvent::Fragment(piece) => passed += piece.len(),
                SseEvent::Whole(_) => panic!("the event is oversized"),
            });
            assert!(splitter.buffer.len() < EVENT_MAX);
            assert_eq!(splitter.at_event_boundary(), passed == 0 || passed == long.len());
        }
        assert_eq!(passed, long.len());
    }
}
