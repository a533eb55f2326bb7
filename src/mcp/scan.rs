//! Reads JSON-RPC messages while they pass, without buffering them and without recursion.
//!
//! [`MessageScanner`] extracts only the fields of [`Message`]: of a request its id, its method and
//! the name of its tool; of a response whether it is a result or an error, and of which kind. It
//! skips everything else by counting brackets, so depth and size cost no memory.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::content::{ContentMeter, scalar_bytes};
use super::message::{Message, is_valid_id};
use super::scan_keys::{Level, Section, Target, is_like_a_key};

/// The longest text that is extracted; a longer one counts as absent.
const TEXT_MAX: usize = 512;

/// Nesting that `serde_json` reads, and most servers; C# reads 64.
const DEPTH_MAX: u64 = 120;

/// The state of the scanner inside a body.
#[derive(Debug, Default)]
pub(crate) struct MessageScanner {
    level: Level,
    batch: bool,
    /// Bytes of the byte order mark that were read. The official clients skip it.
    bom: u8,
    expect: Expect,
    /// Open brackets inside a skipped value.
    depth: u64,
    /// The most that were open.
    deepest: u64,
    quoted: bool,
    escaped: bool,
    text: Vec<u8>,
    overlong: bool,
    /// The hash of a text that may be longer than [`TEXT_MAX`]. It is the same in every build,
    /// because the successor of this daemon compares it, too.
    hash: SipHasher13,
    section: Section,
    target: Target,
    /// The keys of [`Message::is_ambiguous`] that the message has had, a bit each.
    seen: u8,
    uri: Option<Box<str>>,
    content: ContentMeter,
    message: Message,
}

/// What the scanner expects next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Value,
    Key,
    KeyText,
    Colon,
    Text,
    BareValue,
    SkippedValue,
    Comma,
    Done,
    Broken,
}

impl MessageScanner {
    /// Reads the next bytes. Calls `on_message` when the last bracket of a message has passed.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on_message: impl FnMut(Message)) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.expect {
                Expect::SkippedValue => self.read_skipped(rest),
                Expect::Done | Expect::Broken => self.read_trailing(rest),
                _ => {
                    let Some(byte) = rest.first() else { break };
                    self.read_byte(*byte, &mut on_message)
                }
            };
        }
    }

    /// Whether the message that has begun, or that was read last, is JSON-RPC.
    pub(crate) fn is_json_rpc(&self) -> bool {
        self.message.json_rpc
    }

    /// Whether the message that has begun is known to be a request or notification.
    pub(crate) fn has_method(&self) -> bool {
        self.message.method.is_some() && !self.batch
    }

    /// Whether the bytes so far are one whole message, or several.
    pub(crate) fn is_whole(&self) -> bool {
        self.expect == Expect::Done
    }

    /// Whether the bytes so far are not JSON, or not messages.
    pub(crate) fn is_broken(&self) -> bool {
        self.expect == Expect::Broken
    }

    /// Whether values are nested deeper than common servers read.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.deepest > DEPTH_MAX
    }

    /// Whether the messages come in an array.
    pub(crate) fn is_batch(&self) -> bool {
        self.batch
    }

    /// Consumes one byte; none when the byte ends a bare value and must be read again.
    fn read_byte(&mut self, byte: u8, on_message: &mut impl FnMut(Message)) -> usize {
        let is_whitespace = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.expect {
            Expect::KeyText | Expect::Text => self.read_text_byte(byte),
            Expect::BareValue => return self.read_bare_byte(byte),
            _ if is_whitespace => (),
            Expect::Value => self.open_value(byte, on_message),
            Expect::Key => match byte {
                b'"' => self.begin_text(Expect::KeyText),
                b'}' => self.close_container(on_message),
                _ => self.expect = Expect::Broken,
            },
            Expect::Colon if byte == b':' => self.expect = Expect::Value,
            Expect::Comma => match (byte, self.level) {
                (b',', Level::Message | Level::Section) => self.expect = Expect::Key,
                (b',', Level::Batch) => self.expect = Expect::Value,
                (b'}', Level::Message | Level::Section) | (b']', Level::Batch) => {
                    self.close_container(on_message)
                }
                _ => self.expect = Expect::Broken,
            },
            _ => self.expect = Expect::Broken,
        }
        1
    }

    /// Skips a byte order mark at the start.
    fn read_bom(&mut self, byte: u8) -> bool {
        let next = match (self.bom, byte) {
            (0, 0xEF) => 1,
            (1, 0xBB) => 2,
            (2, 0xBF) => 3,
            (1 | 2, _) => {
                self.expect = Expect::Broken;
                return true;
            }
            _ => return false,
        };
        self.bom = next;
        true
    }

    fn open_value(&mut self, byte: u8, on_message: &mut impl FnMut(Message)) {
        if self.level == Level::Top && self.read_bom(byte) {
            return;
        }
        match (byte, self.level, self.target) {
            (b'{', Level::Top | Level::Batch, _) => {
                (self.level, self.expect) = (Level::Message, Expect::Key);
                (self.message, self.seen, self.uri) = (Message::default(), 0, None);
            }
            (b'[', Level::Top, _) => {
                (self.level, self.expect, self.batch) = (Level::Batch, Expect::Value, true);
            }
            (b']', Level::Batch, _) => self.close_container(on_message),
            (_, Level::Top | Level::Batch, _) => self.expect = Expect::Broken,
            (b'{', Level::Message, Target::Section(section)) => {
                (self.level, self.expect, self.section) = (Level::Section, Expect::Key, section);
                self.mark_present(section);
            }
            (b'{' | b'[', ..) => {
                (self.expect, self.depth, self.quoted) = (Expect::SkippedValue, 1, false);
                if self.target == Target::Content {
                    self.content.start(byte);
                }
            }
            (b'"', _, Target::Nothing) => {
                (self.expect, self.depth, self.quoted) = (Expect::SkippedValue, 0, true)
            }
            (b'"', ..) => self.begin_text(Expect::Text),
            // Python writes and reads NaN and Infinity.
            (b'-' | b'0'..=b'9' | b'a'..=b'z' | b'N' | b'I', ..) => {
                self.begin_text(Expect::BareValue);
                self.push_byte(byte);
            }
            _ => self.expect = Expect::Broken,
        }
    }

    fn close_container(&mut self, on_message: &mut impl FnMut(Message)) {
        self.expect = Expect::Comma;
        match self.level {
            Level::Section => self.level = Level::Message,
            Level::Message => {
                self.level = if self.batch { Level::Batch } else { Level::Top };
                if !self.batch {
                    self.expect = Expect::Done;
                }
                self.choose_name();
                on_message(std::mem::take(&mut self.message));
            }
            Level::Batch | Level::Top => (self.level, self.expect) = (Level::Top, Expect::Done),
        }
    }

    fn begin_text(&mut self, expect: Expect) {
        self.expect = expect;
        self.text.clear();
        (self.overlong, self.escaped) = (false, false);
        self.hash = SipHasher13::new();
    }

    fn push_byte(&mut self, byte: u8) {
        if self.target == Target::RequestState && self.expect == Expect::Text {
            self.hash.write_u8(byte);
        }
        if self.text.len() < TEXT_MAX {
            self.text.push(byte);
        } else {
            self.overlong = true;
        }
    }

    fn read_text_byte(&mut self, byte: u8) {
        match byte {
            _ if self.escaped || byte == b'\\' => {
                self.push_byte(byte);
                self.escaped = !self.escaped;
            }
            b'"' if self.expect == Expect::KeyText => {
                self.target = Target::of(self.level, self.section, &self.text);
                self.note_key();
                self.expect = Expect::Colon;
            }
            b'"' => {
                self.store_value(true);
                self.expect = Expect::Comma;
            }
            _ => self.push_byte(byte),
        }
    }

    fn read_bare_byte(&mut self, byte: u8) -> usize {
        if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
            self.store_value(false);
            self.expect = Expect::Comma;
            return 0;
        }
        self.push_byte(byte);
        1
    }

    /// Finds keys that another reader may take for one of those that matter, or that it has already read.
    fn note_key(&mut self) {
        let is_request_part = match self.level {
            Level::Message => true,
            Level::Section => self.section == Section::Params,
            Level::Top | Level::Batch => false,
        };
        if !is_request_part {
            return;
        }
        let bit = match self.target {
            Target::Method => 1,
            Target::Section(Section::Params) => 2,
            Target::Name => 4,
            Target::Uri => 8,
            _ => 0,
        };
        let is_misread = bit == 0 && is_like_a_key(&self.text);
        self.message.is_ambiguous |= is_misread || self.seen & bit != 0;
        self.seen |= bit;
    }

    /// Only now the method is known: it may come after the parameters.
    fn choose_name(&mut self) {
        let (message, uri) = (&mut self.message, self.uri.take());
        let names_by_uri =
            message.method.as_deref().is_some_and(|method| method.starts_with("resources/"));
        if names_by_uri || message.name.is_none() {
            message.name = uri;
        }
    }

    fn mark_present(&mut self, section: Section) {
        match section {
            Section::Params => (),
            Section::Result => self.message.has_result = true,
            Section::Error => self.message.has_error = true,
        }
    }

    /// Stores a value that is not an object.
    fn store_value(&mut self, quoted: bool) {
        let text = if self.overlong { None } else { std::str::from_utf8(&self.text).ok() };
        let message = &mut self.message;
        match (self.target, text) {
            (Target::Id | Target::RequestId, Some(text)) => {
                let id = if quoted { format!("\"{text}\"") } else { text.to_owned() };
                let id = is_valid_id(&id).then(|| id.into_boxed_str());
                *if self.target == Target::Id {
                    &mut message.id
                } else {
                    &mut message.request_id
                } = id;
            }
            (Target::JsonRpc, Some(text)) => message.json_rpc = quoted && text == "2.0",
            (Target::Method, Some(text)) => message.method = Some(plain_method(text)),
            (Target::Name, Some(text)) => message.name = Some(text.into()),
            (Target::Uri, Some(text)) => self.uri = Some(text.into()),
            (Target::Method | Target::Name | Target::Uri, None) => message.is_ambiguous = true,
            (Target::Protocol, Some(text)) => message.protocol_version = Some(text.into()),
            (Target::TaskId, Some(text)) => message.task_id = Some(text.into()),
            (Target::RequestState, _) => {
                message.request_state_hash = quoted.then(|| self.hash.finish())
            }
            (Target::Status, Some(text)) => message.task_status = Some(text.into()),
            (Target::ErrorCode, Some(text)) => message.error_code = text.parse().ok(),
            (Target::IsError, Some(text)) => message.is_tool_error = text == "true",
            (Target::ResultType, Some(text)) => message.input_required = text == "input_required",
            (Target::Section(Section::Result), _) => message.has_result = true,
            (Target::Content, _) => message.add_content(scalar_bytes(&self.text, quoted)),
            (Target::Section(Section::Error), Some(text)) => message.has_error = text != "null",
            _ => (),
        }
    }

    /// Reads on in a value of which at most the size matters; returns the number of bytes it consumed.
    fn read_skipped(&mut self, bytes: &[u8]) -> usize {
        let consumed = self.skip_value(bytes);
        if self.target == Target::Content {
            self.content.feed(bytes.get(..consumed).unwrap_or(bytes));
            if self.expect == Expect::Comma {
                self.message.add_content(self.content.end());
            }
        }
        consumed
    }

    /// Skips a value that no field needs; returns the number of bytes it consumed.
    fn skip_value(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.escaped {
                (self.escaped, at) = (false, at + 1);
                continue;
            }
            let hit = if self.quoted {
                memchr::memchr2(b'"', b'\\', rest)
            } else {
                rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))
            };
            let Some(hit) = hit else { return bytes.len() };
            at += hit + 1;
            match rest.get(hit) {
                Some(b'\\') => self.escaped = true,
                Some(b'"') => self.quoted = !self.quoted,
                Some(b'{' | b'[') => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                }
                _ => self.depth = self.depth.saturating_sub(1),
            }
            if !self.quoted && self.depth == 0 {
                if let Target::Section(section) = self.target {
                    self.mark_present(section);
                }
                self.message.requests_task |= self.target == Target::TaskParam;
                self.expect = Expect::Comma;
                break;
            }
        }
        at
    }

    /// Some servers write one message after the other, without an array around them.
    fn read_trailing(&mut self, bytes: &[u8]) -> usize {
        let rest = bytes.trim_ascii_start();
        let starts_message =
            self.expect == Expect::Done && !self.batch && rest.first() == Some(&b'{');
        if !rest.is_empty() {
            self.expect = if starts_message { Expect::Value } else { Expect::Broken };
        }
        bytes.len() - if starts_message { rest.len() } else { 0 }
    }
}

/// A method as the protocol writes it. PHP escapes each slash.
fn plain_method(text: &str) -> Box<str> {
    if text.contains('\\') { text.replace("\\/", "/").into() } else { text.into() }
}

// By its path: the fuzz targets and the benchmark include this file from another directory.
#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
