//! Reads server-sent events as they pass, and writes the few that the proxy makes itself.

use bytes::Bytes;

use super::message::Message;
use super::scan::Scan;

/// Longest field name that matters: `data`, `id`, `retry`, `event`.
const FIELD_MAX: usize = 8;

/// A reader in the middle of a stream. The data of each event is read as JSON-RPC on the fly; no
/// event is held.
#[derive(Debug)]
pub(super) struct Events {
    field: Vec<u8>,
    place: Place,
    scan: Scan,
    data: bool,
    after_cr: bool,
    /// Whether the stream can be taken up again: an event had an id (2025-11-25).
    resumable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Field,
    Value { data: bool },
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Begins to read a stream.
    pub(super) fn new() -> Self {
        Self {
            field: Vec::new(),
            place: Place::Start,
            scan: Scan::default(),
            data: false,
            after_cr: false,
            resumable: false,
        }
    }

    /// Reads on; each message is handed over when its last bracket has passed.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Message)) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Place::Value { data } = self.place {
                let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                if data {
                    self.scan.feed(rest.get(..end).unwrap_or_default(), &mut found);
                }
                if end > 0 {
                    (at, self.after_cr) = (at + end, false);
                    continue;
                }
            }
            if let Some(byte) = rest.first() {
                self.read(*byte);
            }
            at += 1;
        }
    }

    /// Whether the stream stands between two events, where another one can be put in.
    pub(super) fn between(&self) -> bool {
        self.place == Place::Start && !self.data
    }

    /// Whether a client could take the stream up again after it ends.
    pub(super) fn resumable(&self) -> bool {
        self.resumable
    }

    fn read(&mut self, byte: u8) {
        let second_half = byte == b'\n' && self.after_cr;
        self.after_cr = byte == b'\r';
        match (byte, self.place) {
            _ if second_half => (),
            (b'\r' | b'\n', Place::Start) => self.end_event(),
            (b'\r' | b'\n', _) => {
                self.name_field();
                (self.place, self.data) = (Place::Start, true);
                self.field.clear();
            }
            (b':', Place::Start | Place::Field) => {
                self.name_field();
                self.place = Place::Value { data: self.field == b"data" };
            }
            (_, Place::Start | Place::Field) => {
                self.place = Place::Field;
                if self.field.len() < FIELD_MAX {
                    self.field.push(byte);
                }
            }
            (_, Place::Value { .. }) => (),
        }
    }

    fn name_field(&mut self) {
        self.resumable |= self.field == b"id";
    }

    fn end_event(&mut self) {
        self.scan = Scan::default();
        self.data = false;
    }
}

/// One event with a message as its data.
pub(super) fn event(json: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {json}\n\n"))
}

/// Tells a client how long to wait before it connects again.
pub(super) fn retry(milliseconds: u32) -> Bytes {
    Bytes::from(format!("retry: {milliseconds}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&str]) -> (Vec<Message>, Events) {
        let (mut events, mut found) = (Events::new(), Vec::new());
        for chunk in chunks {
            events.feed(chunk.as_bytes(), |message| found.push(message));
        }
        (found, events)
    }

    #[test]
    fn finds_messages_however_lines_end_and_chunks_fall() {
        let stream = ": hi\n\nid: 1\ndata:\n\nevent: message\r\ndata: {\"id\":1,\r\ndata: \"result\":{}}\r\n\r\ndata:{\"method\":\"x\"}\r\rretry: 5\n\n";
        let (whole, events) = read(&[stream]);
        assert_eq!(whole.len(), 2);
        assert!(whole[0].result && events.between() && events.resumable());
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(read(&[a, b]).0, whole, "cut at {cut}");
        }
    }

    #[test]
    fn knows_where_an_event_can_be_put_in() {
        assert!(read(&[""]).1.between());
        assert!(!read(&["data: {"]).1.between());
        assert!(!read(&["data: {}\n"]).1.between());
        assert!(read(&["data: {}\n\n"]).1.between());
    }
}
