//! The state of the outbox: the fold of the lines of its file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::incident::Notice;
use crate::model::Moment;

/// Notices that wait at once, over all channels.
pub(super) const WAITING_MAX: usize = 12_000;
/// Ids of notices that are known, so that an event that is read twice makes one notice.
const KNOWN_MAX: usize = 20_000;

/// What the lines of the file say.
#[derive(Debug, Default, PartialEq)]
pub struct OutboxState {
    /// No event before this moment makes a notice: it is older than the outbox.
    pub(super) since: Moment,
    pub(super) next: u64,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) queues: BTreeMap<String, VecDeque<u64>>,
    pub(super) known: BTreeSet<String>,
    pub(super) known_order: VecDeque<(String, Moment)>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) notice: Arc<Notice>,
    channels: Vec<String>,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutboxLine {
    /// The file begins.
    Began { since: Moment },
    /// A notice waits for these channels.
    Queued { number: u64, channels: Vec<String>, notice: Box<Notice> },
    /// A channel delivered a notice, or gave up.
    Done { number: u64, channel: String },
    /// A notice that was sent, or that no channel takes.
    Known { id: String, moment: Moment },
}

impl OutboxState {
    /// Reads the lines of a file. The second value says what could not be read. Lines that cannot be
    /// read are skipped: what is behind them is still sent.
    pub fn parse(bytes: &[u8]) -> (Self, Option<String>) {
        let mut state = Self::default();
        let mut damaged = 0_u64;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = bytes.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => state.apply(line),
                Err(_) => damaged += 1,
            }
        }
        let damage = (damaged > 0).then(|| format!("{damaged} lines cannot be read"));
        (state, damage)
    }

    pub(super) fn apply(&mut self, line: OutboxLine) {
        match line {
            OutboxLine::Began { since } => self.since = since,
            OutboxLine::Queued { number, channels, notice } => self.add(number, channels, *notice),
            OutboxLine::Done { number, channel } => self.remove(number, &channel),
            OutboxLine::Known { id, moment } => self.mark_known(id, moment),
        }
    }

    fn add(&mut self, number: u64, channels: Vec<String>, notice: Notice) {
        if self.waiting.len() >= WAITING_MAX || self.waiting.contains_key(&number) {
            return;
        }
        self.next = self.next.max(number.saturating_add(1));
        self.mark_known(notice.id.clone(), notice.moment);
        for channel in &channels {
            self.queues.entry(channel.clone()).or_default().push_back(number);
        }
        self.waiting.insert(number, Waiting { notice: Arc::new(notice), channels });
    }

    fn remove(&mut self, number: u64, channel: &str) {
        if let Some(queue) = self.queues.get_mut(channel) {
            match queue.front() == Some(&number) {
                true => _ = queue.pop_front(),
                false => queue.retain(|it| *it != number),
            }
            if queue.is_empty() {
                self.queues.remove(channel);
            }
        }
        let Some(waiting) = self.waiting.get_mut(&number) else { return };
        waiting.channels.retain(|it| it != channel);
        if waiting.channels.is_empty() {
            self.waiting.remove(&number);
        }
    }

    fn mark_known(&mut self, id: String, moment: Moment) {
        if !self.known.insert(id.clone()) {
            return;
        }
        self.known_order.push_back((id, moment));
        while self.known_order.len() > KNOWN_MAX {
            if let Some((old, moment)) = self.known_order.pop_front() {
                self.known.remove(&old);
                self.since = self.since.max(moment);
            }
        }
    }

    /// The lines that have the same state.
    pub(super) fn lines(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        push_line(&mut bytes, &OutboxLine::Began { since: self.since })?;
        for (id, moment) in &self.known_order {
            push_line(&mut bytes, &OutboxLine::Known { id: id.clone(), moment: *moment })?;
        }
        for (number, Waiting { notice, channels }) in &self.waiting {
            let (notice, channels) = (Box::new(Notice::clone(notice)), channels.clone());
            push_line(&mut bytes, &OutboxLine::Queued { number: *number, channels, notice })?;
        }
        Ok(bytes)
    }
}

pub(super) fn push_line(bytes: &mut Vec<u8>, line: &OutboxLine) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}
