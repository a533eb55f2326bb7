//! Cuts server-sent events out of a stream, whole: for the few streams that have to be changed.

use serde_json::Value;

/// Longest event that is held; longer ones pass in pieces, unchanged.
const EVENT_MAX: usize = 1024 * 1024;

/// A cutter in the middle of a stream.
#[derive(Debug, Default)]
pub(crate) struct SseSplitter {
    buffer: Vec<u8>,
    /// Whether the line so far is empty.
    line_is_empty: bool,
    after_cr: bool,
    /// The event is too long to be held.
    oversized: bool,
}

/// Part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SseEvent {
    /// One event, with the empty line behind it.
    Whole(Vec<u8>),
    /// A piece of one that is too long.
    Fragment(Vec<u8>),
}

impl SseSplitter {
    /// Reads on.
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

    /// What is held of an event that never ended.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }
}

/// The lines of an event: its fields, comments too.
pub(crate) fn fields(event: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = std::str::from_utf8(event).unwrap_or_default();
    let lines = text.split("\r\n").flat_map(|line| line.split(['\n', '\r']));
    lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name, value.strip_prefix(' ').unwrap_or(value))
    })
}

/// The message in an event, if there is one.
pub(crate) fn parse_message(event: &[u8]) -> Option<Value> {
    let data: Vec<_> = fields(event).filter(|(name, _)| *name == "data").map(|it| it.1).collect();
    serde_json::from_str(&data.join("\n")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut found) = (SseSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, |block| match block {
                SseEvent::Whole(block) => found.push(block),
                SseEvent::Fragment(_) => panic!("nothing is long"),
            });
        }
        found.push(splitter.take_rest());
        found
    }

    #[test]
    fn events_are_cut_out_whole_in_whatever_pieces_they_come() {
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
    fn what_is_too_long_passes_in_pieces() {
        let (mut splitter, mut passed) = (SseSplitter::default(), 0);
        let long = format!("data: {}\n\n", "x".repeat(3 * EVENT_MAX));
        for chunk in long.as_bytes().chunks(60_000) {
            splitter.feed(chunk, |block| match block {
                SseEvent::Fragment(piece) => passed += piece.len(),
                SseEvent::Whole(_) => panic!("it is long"),
            });
            assert!(splitter.buffer.len() < EVENT_MAX);
        }
        assert_eq!(passed, long.len());
    }
}
