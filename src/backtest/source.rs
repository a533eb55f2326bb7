//! The signals of one bake, in the order of time: a recording, or rows of counts.

use std::time::Duration;

use crate::judge::counter::Delta;
use crate::model::{
    BlockSources, Counts, Moment, Observation, ReleaseNumber, Signal, SourceCounts,
};
use crate::record::{SignalLog, SignalLogHeader};

/// The two releases of a CSV file or of Prometheus, which have no numbers.
const OLD: ReleaseNumber = ReleaseNumber(1);
const NEW: ReleaseNumber = ReleaseNumber(2);
/// Failing users of a row that are told apart, as the proxy does.
const SOURCES_MAX: u64 = 8;

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
    /// How many users the bad ones were of, where that is known.
    pub(crate) users: Option<u64>,
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
                let blocks =
                    sides.into_iter().filter_map(|(release, block)| Some((release, block?)));
                let end = row.end;
                let signals = move |(release, block): (_, Block)| {
                    let sources = block.sources().map(Observation::Sources);
                    let both = sources.into_iter().chain([block.observation()]);
                    both.map(move |observation| (end, Signal { release, observation }))
                };
                blocks.flat_map(signals)
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
        Self { span, total, bad, users: None }
    }
}

impl Block {
    fn observation(self) -> Observation {
        let Self { span, total, bad, .. } = self;
        let counts = Counts { ok: total - bad.min(total), server_fault: bad, ..Counts::default() };
        Observation::Block(span, counts)
    }

    /// Which users the bad requests were of. Rows do not name them: those of one row are taken for those of
    /// the others, as far as they are as many, so that a single one never counts for several.
    fn sources(self) -> Option<BlockSources> {
        let users = self.users?.min(SOURCES_MAX);
        let share = |source: u64| {
            let server_fault = self.bad / users + u64::from(source < self.bad % users);
            let counts = Counts { server_fault, ..Counts::default() };
            SourceCounts { source, call: 0, counts }
        };
        // Who was served is not known either: as many as there were requests.
        let sources_active = u16::try_from(self.total).unwrap_or(u16::MAX);
        let sources = (0..users).map(share).collect();
        Some(BlockSources { sources_active, sources, ..BlockSources::default() })
    }
}
