//! Reads server-sent events while they pass, and encodes the few that the proxy sends itself.

use bytes::Bytes;

use super::message::Message;
use super::scan::MessageScanner;

/// The longest field name that is compared; `data` and `id` matter.
const FIELD_MAX: usize = 8;
/// The longest event id that is kept, in bytes.
const EVENT_ID_MAX: usize = 1024;

/// The state of the reader inside a stream. It scans the data of each event as JSON-RPC at once
/// and buffers no event.
#[derive(Debug)]
pub(crate) struct SseReader {
    field: Vec<u8>,
    state: SseState,
    scanner: MessageScanner,
    in_event: bool,
    after_cr: bool,
    /// Whether nothing but a byte order mark was read.
    at_start: bool,
    /// Whether a client can resume the stream: an event had an id (2025-11-25).
    resumable: bool,
    /// The id of the last event that ended, as far as it is kept.
    event_id: Vec<u8>,
    /// The value of the last `id` field of the event that has not ended.
    next_event_id: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SseState {
    LineStart,
    FieldName,
    Value { data: bool },
}

impl Default for SseReader {
    fn default() -> Self {
        Self::new()
    }
}

impl SseReader {
    /// A reader at the start of a stream.
    pub(crate) fn new() -> Self {
        Self {
            field: Vec::new(),
            state: SseState::LineStart,
            scanner: MessageScanner::default(),
            in_event: false,
            after_cr: false,
            at_start: true,
            resumable: false,
            event_id: Vec::new(),
            next_event_id: None,
        }
    }

    /// Reads the next bytes. Calls `on_message` when the last bracket of a message has passed.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on_message: impl FnMut(Message)) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let SseState::Value { data } = self.state {
                let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                if data {
                    self.scanner.feed(rest.get(..end).unwrap_or_default(), &mut on_message);
                } else if let Some(id) = self.next_event_id.as_mut().filter(|_| self.field == b"id")
                {
                    let room = (EVENT_ID_MAX + 1).saturating_sub(id.len()).min(end);
                    id.extend(rest.get(..room).unwrap_or_default());
                }
                if end > 0 {
                    (at, self.after_cr) = (at + end, false);
                    continue;
                }
            }
            if let Some(byte) = rest.first() {
                self.read_byte(*byte);
            }
            at += 1;
        }
    }

    /// Whether the stream is between two events, so that another event can be inserted.
    pub(crate) fn at_event_boundary(&self) -> bool {
        self.state == SseState::LineStart && !self.in_event
    }

    /// Whether a client can resume the stream after it ends.
    pub(crate) fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// The id of the last whole event, with which the stream continues (EventSource, section 9.2.6).
    /// `None` where it has none, or a long one.
    pub(crate) fn last_event_id(&self) -> Option<&[u8]> {
        let id = self.event_id.strip_prefix(b" ").unwrap_or(&self.event_id);
        (!id.is_empty() && self.event_id.len() <= EVENT_ID_MAX).then_some(id)
    }

    fn read_byte(&mut self, byte: u8) {
        let second_half = byte == b'\n' && self.after_cr;
        self.after_cr = byte == b'\r';
        match (byte, self.state) {
            _ if second_half => (),
            (b'\r' | b'\n', SseState::LineStart) => self.end_event(),
            (b'\r' | b'\n', _) => {
                self.end_field_name();
                (self.state, self.in_event) = (SseState::LineStart, true);
                self.field.clear();
            }
            (b':', SseState::LineStart | SseState::FieldName) => {
                self.end_field_name();
                self.state = SseState::Value { data: self.field == b"data" };
            }
            // A byte order mark at the start (EventSource, section 9.2.5).
            (0xEF | 0xBB | 0xBF, SseState::LineStart) if self.at_start => (),
            (_, SseState::LineStart | SseState::FieldName) => {
                self.at_start = false;
                self.state = SseState::FieldName;
                if self.field.len() < FIELD_MAX {
                    self.field.push(byte);
                }
            }
            (_, SseState::Value { .. }) => (),
        }
    }

    fn end_field_name(&mut self) {
        if self.field == b"id" && !matches!(self.state, SseState::Value { .. }) {
            self.next_event_id = Some(Vec::new());
        }
    }

    fn end_event(&mut self) {
        self.scanner = MessageScanner::default();
        self.in_event = false;
        if let Some(id) = self.next_event_id.take() {
            (self.event_id, self.resumable) = (id, true);
        }
    }
}

/// One event with a message as its data.
pub(crate) fn encode_event(json: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {json}\n\n"))
}

/// The `retry` field: how long a client waits before it reconnects.
pub(crate) fn encode_retry(milliseconds: u32) -> Bytes {
    Bytes::from(format!("retry: {milliseconds}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_chunks(chunks: &[&str]) -> (Vec<Message>, SseReader) {
        let (mut reader, mut found) = (SseReader::new(), Vec::new());
        for chunk in chunks {
            reader.feed(chunk.as_bytes(), |message| found.push(message));
        }
        (found, reader)
    }

    #[test]
    fn the_last_event_id_is_kept() {
        let id = |chunks: &[&str]| {
            let id = read_chunks(chunks).1.last_event_id().map(<[u8]>::to_vec);
            id.map(|id| String::from_utf8(id).unwrap())
        };
        assert_eq!(id(&["id: 1\ndata: {}\n\nid:s", "_2\ndata: {}\n\n"]).as_deref(), Some("s_2"));
        assert_eq!(id(&["id: 1\n\ndata: {}\n\n"]).as_deref(), Some("1"));
        assert_eq!(id(&["id: 1\n\nid\ndata: {}\n\n"]), None);
        assert_eq!(id(&["data: {\"id\": 1}\n\n"]), None);
        assert_eq!(id(&[&format!("id: {}\n\n", "x".repeat(2000))]), None);
    }

    #[test]
    fn the_id_of_an_event_that_has_not_ended_does_not_count() {
        let (_, reader) = read_chunks(&["id: 1\ndata: {}\n\nid: 2\nda", "ta: {\"half\":"]);
        assert_eq!(reader.last_event_id(), Some(&b"1"[..]));
        let (_, reader) = read_chunks(&["id: 1\ndata: {}\n"]);
        assert_eq!((reader.last_event_id(), reader.is_resumable()), (None, false));
    }

    #[test]
    fn finds_messages_however_lines_end_and_chunks_fall() {
        let stream = ": hi\n\nid: 1\ndata:\n\nevent: message\r\ndata: {\"id\":1,\r\ndata: \"result\":{}}\r\n\r\ndata:{\"method\":\"x\"}\r\rretry: 5\n\n";
        let (whole, events) = read_chunks(&[stream]);
        assert_eq!(whole.len(), 2);
        assert!(whole[0].has_result && events.at_event_boundary() && events.is_resumable());
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(read_chunks(&[a, b]).0, whole, "cut at {cut}");
        }
    }

    #[test]
    fn knows_where_an_event_can_be_inserted() {
        assert!(read_chunks(&[""]).1.at_event_boundary());
        assert!(!read_chunks(&["data: {"]).1.at_event_boundary());
        assert!(!read_chunks(&["data: {}\n"]).1.at_event_boundary());
        assert!(read_chunks(&["data: {}\n\n"]).1.at_event_boundary());
    }
}
