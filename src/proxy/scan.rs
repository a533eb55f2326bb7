//! Reads JSON-RPC messages as they pass, without holding them and without recursion.
//!
//! Only what decides about a request is picked out: its id, its method, the name of its tool, and
//! on the way back whether the answer is a result or an error and of which kind. Everything else
//! is skipped by counting brackets, so depth and size cost no memory.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::message::{Message, is_id};

/// Longest text that is picked out; longer ones are taken for absent.
const TEXT_MAX: usize = 512;

/// A reader in the middle of a body.
#[derive(Debug, Default)]
pub(super) struct Scan {
    level: Level,
    batch: bool,
    step: Step,
    /// Open brackets inside a skipped value.
    depth: u64,
    quoted: bool,
    escaped: bool,
    text: Vec<u8>,
    overlong: bool,
    /// Of a text that may be longer than what is kept. The same in every build: the daemon that takes
    /// over from this one compares as well.
    hash: SipHasher13,
    outer: Outer,
    target: Target,
    message: Message,
}

/// Inside which object the reader stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Top,
    Batch,
    Message,
    Part,
}

/// What the reader expects next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Value,
    Key,
    KeyText,
    Colon,
    Text,
    Bare,
    Skip,
    Comma,
    Done,
    Broken,
}

/// The object of the message that [`Level::Part`] is inside of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Outer {
    #[default]
    Params,
    Result,
    Error,
}

/// Where the next value goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Target {
    #[default]
    Nothing,
    Part(Outer),
    Id,
    Method,
    Name,
    Request,
    Protocol,
    Code,
    IsError,
    ResultType,
    Status,
    Task,
    State,
    Begins,
}

impl Scan {
    /// Reads on; each message is handed over when its last bracket has passed.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Message)) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.step {
                Step::Skip => self.skip(rest),
                Step::Done | Step::Broken => self.trailing(rest),
                _ => {
                    let Some(byte) = rest.first() else { break };
                    self.read(*byte, &mut found)
                }
            };
        }
    }

    /// Whether the messages come in an array.
    pub(super) fn is_batch(&self) -> bool {
        self.batch
    }

    /// Takes one byte, or none when the byte ends a bare value and has to be read again.
    fn read(&mut self, byte: u8, found: &mut impl FnMut(Message)) -> usize {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.step {
            Step::KeyText | Step::Text => self.take_text(byte),
            Step::Bare => return self.take_bare(byte),
            _ if space => (),
            Step::Value => self.open(byte, found),
            Step::Key => match byte {
                b'"' => self.begin(Step::KeyText),
                b'}' => self.close(found),
                _ => self.step = Step::Broken,
            },
            Step::Colon if byte == b':' => self.step = Step::Value,
            Step::Comma => match (byte, self.level) {
                (b',', Level::Message | Level::Part) => self.step = Step::Key,
                (b',', Level::Batch) => self.step = Step::Value,
                (b'}', Level::Message | Level::Part) | (b']', Level::Batch) => self.close(found),
                _ => self.step = Step::Broken,
            },
            _ => self.step = Step::Broken,
        }
        1
    }

    fn open(&mut self, byte: u8, found: &mut impl FnMut(Message)) {
        match (byte, self.level, self.target) {
            (b'{', Level::Top | Level::Batch, _) => {
                (self.level, self.step) = (Level::Message, Step::Key);
                self.message = Message::default();
            }
            (b'[', Level::Top, _) => {
                (self.level, self.step, self.batch) = (Level::Batch, Step::Value, true);
            }
            (b']', Level::Batch, _) => self.close(found),
            (_, Level::Top | Level::Batch, _) => self.step = Step::Broken,
            (b'{', Level::Message, Target::Part(outer)) => {
                (self.level, self.step, self.outer) = (Level::Part, Step::Key, outer);
                self.mark(outer);
            }
            (b'{' | b'[', ..) => (self.step, self.depth, self.quoted) = (Step::Skip, 1, false),
            (b'"', _, Target::Nothing) => {
                (self.step, self.depth, self.quoted) = (Step::Skip, 0, true)
            }
            (b'"', ..) => self.begin(Step::Text),
            (b'-' | b'0'..=b'9' | b'a'..=b'z', ..) => {
                self.begin(Step::Bare);
                self.keep(byte);
            }
            _ => self.step = Step::Broken,
        }
    }

    fn close(&mut self, found: &mut impl FnMut(Message)) {
        self.step = Step::Comma;
        match self.level {
            Level::Part => self.level = Level::Message,
            Level::Message => {
                self.level = if self.batch { Level::Batch } else { Level::Top };
                if !self.batch {
                    self.step = Step::Done;
                }
                found(std::mem::take(&mut self.message));
            }
            Level::Batch | Level::Top => (self.level, self.step) = (Level::Top, Step::Done),
        }
    }

    fn begin(&mut self, step: Step) {
        self.step = step;
        self.text.clear();
        (self.overlong, self.escaped) = (false, false);
        self.hash = SipHasher13::new();
    }

    fn keep(&mut self, byte: u8) {
        if self.target == Target::State && self.step == Step::Text {
            self.hash.write_u8(byte);
        }
        if self.text.len() < TEXT_MAX {
            self.text.push(byte);
        } else {
            self.overlong = true;
        }
    }

    fn take_text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped || byte == b'\\' => {
                self.keep(byte);
                self.escaped = !self.escaped;
            }
            b'"' if self.step == Step::KeyText => {
                self.target = self.aim();
                self.step = Step::Colon;
            }
            b'"' => {
                self.store(true);
                self.step = Step::Comma;
            }
            _ => self.keep(byte),
        }
    }

    fn take_bare(&mut self, byte: u8) -> usize {
        if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
            self.store(false);
            self.step = Step::Comma;
            return 0;
        }
        self.keep(byte);
        1
    }

    /// What the key that was just read stands for.
    fn aim(&self) -> Target {
        match (self.level, self.text.as_slice()) {
            (Level::Message, b"id") => Target::Id,
            (Level::Message, b"method") => Target::Method,
            (Level::Message, b"params") => Target::Part(Outer::Params),
            (Level::Message, b"result") => Target::Part(Outer::Result),
            (Level::Message, b"error") => Target::Part(Outer::Error),
            (Level::Part, key) => match (self.outer, key) {
                (Outer::Params, b"name" | b"uri") => Target::Name,
                (Outer::Params, b"requestId") => Target::Request,
                (Outer::Params | Outer::Result, b"protocolVersion") => Target::Protocol,
                (Outer::Params | Outer::Result, b"requestState") => Target::State,
                (Outer::Params, b"taskId") => Target::Task,
                (Outer::Params, b"task") => Target::Begins,
                (Outer::Result, b"status") => Target::Status,
                (Outer::Result, b"isError") => Target::IsError,
                (Outer::Result, b"resultType") => Target::ResultType,
                (Outer::Error, b"code") => Target::Code,
                _ => Target::Nothing,
            },
            _ => Target::Nothing,
        }
    }

    fn mark(&mut self, outer: Outer) {
        match outer {
            Outer::Params => (),
            Outer::Result => self.message.result = true,
            Outer::Error => self.message.error = true,
        }
    }

    /// Puts a value that is not an object where it belongs.
    fn store(&mut self, quoted: bool) {
        let text = if self.overlong { None } else { std::str::from_utf8(&self.text).ok() };
        let message = &mut self.message;
        match (self.target, text) {
            (Target::Id | Target::Request, Some(text)) => {
                let id = if quoted { format!("\"{text}\"") } else { text.to_owned() };
                let id = is_id(&id).then(|| id.into_boxed_str());
                *if self.target == Target::Id { &mut message.id } else { &mut message.request } =
                    id;
            }
            (Target::Method, Some(text)) => message.method = Some(text.into()),
            (Target::Name, Some(text)) => message.name = Some(text.into()),
            (Target::Protocol, Some(text)) => message.protocol = Some(text.into()),
            (Target::Task, Some(text)) => message.task = Some(text.into()),
            (Target::State, _) => message.state = quoted.then(|| self.hash.finish()),
            (Target::Status, Some(text)) => message.status = Some(text.into()),
            (Target::Code, Some(text)) => message.code = text.parse().ok(),
            (Target::IsError, Some(text)) => message.is_error = text == "true",
            (Target::ResultType, Some(text)) => message.input_required = text == "input_required",
            (Target::Part(Outer::Result), _) => message.result = true,
            (Target::Part(Outer::Error), Some(text)) => message.error = text != "null",
            _ => (),
        }
    }

    /// Passes over a value that nobody needs; returns how many bytes it took.
    fn skip(&mut self, bytes: &[u8]) -> usize {
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
                Some(b'{' | b'[') => self.depth += 1,
                _ => self.depth = self.depth.saturating_sub(1),
            }
            if !self.quoted && self.depth == 0 {
                if let Target::Part(outer) = self.target {
                    self.mark(outer);
                }
                self.message.begins_task |= self.target == Target::Begins;
                self.step = Step::Comma;
                break;
            }
        }
        at
    }

    /// Servers were seen to write one message after the other, without an array around them.
    fn trailing(&mut self, bytes: &[u8]) -> usize {
        let rest = bytes.trim_ascii_start();
        let another = self.step == Step::Done && !self.batch && rest.first() == Some(&b'{');
        if !rest.is_empty() {
            self.step = if another { Step::Value } else { Step::Broken };
        }
        bytes.len() - if another { rest.len() } else { 0 }
    }
}

// By its path: the fuzzer and the benchmark take this file from elsewhere.
#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
