//! The signals of one bake, in the order of time: a recording, or rows of counts.

use std::time::Duration;

use crate::judge::counter::Delta;
use crate::model::{Counts, Moment, Observation, ReleaseNumber, Signal};
use crate::record::{SignalLog, SignalLogHeader};

/// The two releases of a CSV file or of Prometheus, which have no numbers.
const OLD: ReleaseNumber = ReleaseNumber(1);
const NEW: ReleaseNumber = ReleaseNumber(2);

/// What was observed during one bake.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name in the output.
    pub(crate) name: String,
    /// The service, if it is known.
    pub(crate) service: Option<String>,
    /// The state of the judge at the begin of the bake.
    pub(crate) opening: SignalLogHeader,
    /// What is missing in it.
    pub(crate) warnings: Vec<String>,
    data: Data,
    /// When the last signal arrived.
    last: Moment,
}

#[derive(Debug)]
enum Data {
    Recorded(Box<SignalLog>),
    Rows(Vec<Row>),
}

/// The requests in one interval. A release without a block has no data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// The end of the interval.
    pub(crate) end: Moment,
    pub(crate) new: Option<Block>,
    pub(crate) old: Option<Block>,
}

/// Requests of one release, and the bad ones among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// Milliseconds.
    pub(crate) span: u32,
    pub(crate) total: u64,
    pub(crate) bad: u64,
}

impl Source {
    /// The signals of a recording.
    pub(crate) fn from_recording(name: String, recorded: SignalLog) -> Self {
        let (opening, last) = (recorded.header.clone(), recorded.last_moment());
        let data = Data::Recorded(Box::new(recorded));
        Self { name, service: None, opening, warnings: Vec::new(), data, last }
    }

    /// Rows in the order of time, of a bake that began at `opened`.
    pub(crate) fn from_rows(name: String, opened: Moment, rows: Vec<Row>) -> Self {
        let warm = Some(OLD).filter(|_| rows.iter().any(|row| row.old.is_some()));
        let opening = SignalLogHeader { release: NEW, warm, opened, ..SignalLogHeader::default() };
        let last = rows.last().map_or(opened, |row| row.end);
        Self { name, service: None, opening, warnings: Vec::new(), data: Data::Rows(rows), last }
    }

    /// Every signal, in order.
    pub(crate) fn signals(&self) -> Box<dyn Iterator<Item = (Moment, Signal)> + '_> {
        match &self.data {
            Data::Recorded(recorded) => Box::new(recorded.signals()),
            Data::Rows(rows) => Box::new(rows.iter().flat_map(|row| {
                let sides = [(NEW, row.new), (OLD, row.old)];
                let block_signal =
                    |(release, block): (_, Option<Block>)| Some((row.end, block?.signal(release)));
                sides.into_iter().filter_map(block_signal)
            })),
        }
    }

    /// Whether a daemon recorded it: a gap is a pause of that daemon.
    pub(crate) fn is_recording(&self) -> bool {
        matches!(self.data, Data::Recorded(_))
    }

    /// Requests of the new release that failed up to a moment.
    pub(crate) fn failed_requests(&self, until: Moment) -> u64 {
        let within = self.signals().take_while(|(now, _)| *now <= until);
        within.map(|(_, signal)| failed_requests(self.opening.release, &signal)).sum()
    }

    /// From the begin of the bake to the last signal.
    pub(crate) fn duration(&self) -> Duration {
        self.last.since(self.opening.opened)
    }
}

/// Requests of a release that failed, as a signal counts them.
pub(super) fn failed_requests(release: ReleaseNumber, signal: &Signal) -> u64 {
    match &signal.observation {
        Observation::Block(_, counts) if signal.release == release => {
            counts.server_fault.saturating_add(counts.tool_fault)
        }
        _ => 0,
    }
}

impl From<Delta> for Block {
    fn from(Delta { span_ms: span, total, bad }: Delta) -> Self {
        Self { span, total, bad }
    }
}

impl Block {
    fn signal(self, release: ReleaseNumber) -> Signal {
        let Self { span, total, bad } = self;
        let counts = Counts { ok: total - bad.min(total), server_fault: bad, ..Counts::default() };
        Signal { release, observation: Observation::Block(span, counts) }
    }
}
