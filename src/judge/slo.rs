//! The objectives of a service, and how certain a verdict has to be.

use std::time::Duration;

use crate::model::Counts;

/// The objectives of a service, and how certain a verdict has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SloSettings {
    /// The objectives; they share `max_false_rollback` by weight.
    pub objectives: Vec<Objective>,
    /// Highest probability of a false rollback in one deploy, 0 to 1.
    pub max_false_rollback: f64,
    /// The smallest failure rate worth a rollback, in multiples of what the objective allows.
    pub min_effect: f64,
    /// Bursts of failures up to this long are healthy.
    pub burst: Duration,
    /// How long a release is on trial.
    pub bake: Duration,
    /// Failed probes in a row that mean down.
    pub failed_probes_max: u32,
    /// The time between two probes. Failed ones count once in it, however often the daemon probes.
    pub probe_interval: Duration,
    /// What decides where the warm release has no requests to compare with.
    pub baseline: Baseline,
    /// Whether failed requests that are safe to repeat are repeated on the warm release.
    pub shadow_calls: bool,
    /// What answers with far less content than before lead to.
    pub shape: AnswerAction,
    /// What far slower answers than before lead to. A rollback only where the other release is not slower
    /// at the same time.
    pub slowdown: AnswerAction,
    /// How the server's own counters are read, if they are.
    pub scrape: Option<ScrapePolicy>,
}

impl Default for SloSettings {
    /// No objectives, and else what a configuration means that sets nothing.
    fn default() -> Self {
        Self {
            objectives: Vec::new(),
            max_false_rollback: 0.001,
            min_effect: 2.0,
            burst: Duration::from_secs(5),
            bake: Duration::from_mins(30),
            failed_probes_max: 3,
            probe_interval: Duration::from_secs(1),
            baseline: Baseline::Probes,
            shadow_calls: true,
            shape: AnswerAction::Page,
            slowdown: AnswerAction::Act,
            scrape: None,
        }
    }
}

/// What follows where the answers to a call are not as they were at the release before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AnswerAction {
    /// Nothing: it is not judged.
    Off,
    /// A person is told.
    #[default]
    Page,
    /// A rollback.
    Act,
}

/// How the counters of the releases are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrapePolicy {
    /// The time between two scrapes.
    pub interval: Duration,
    /// Whether the bake waits while no counter can be read.
    pub extend_bake: bool,
}

/// Whether a breach needs a measured baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Baseline {
    /// Where there is none, the warm release's probes are enough.
    #[default]
    Probes,
    /// Where there is none, the operator is paged instead.
    Required,
}

/// At most `error_budget` of the requests are bad in the sense of `indicator`.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Which requests are bad.
    pub indicator: Indicator,
    /// The share of requests that may be bad, 0 to 1. `objective = "99.5%"` makes 0.005.
    pub error_budget: f64,
    /// Its part of the probability of a false rollback, relative to the other objectives.
    pub weight: f64,
}

/// The sense in which a request can be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indicator {
    /// The release failed to answer it properly.
    Availability,
    /// It took longer than the latency threshold.
    Latency,
    /// The tool answered `isError`.
    Tools,
    /// A call that used to be understood was refused as the client's fault.
    ClientFaults,
    /// A call got far less content than the release before gave.
    SmallAnswers,
    /// A call took far longer than at the release before.
    SlowerAnswers,
    /// A stream that only listens broke off.
    Streams,
    /// The server's own counters count it as bad.
    Scraped,
}

impl SloSettings {
    /// What answers that differ from before lead to, by indicator.
    pub fn answer_actions(&self) -> [(Indicator, AnswerAction); 2] {
        [(Indicator::SmallAnswers, self.shape), (Indicator::SlowerAnswers, self.slowdown)]
    }
}

impl Indicator {
    /// The requests that this objective counts, and the bad ones among them.
    pub fn count(self, counts: &Counts) -> (u64, u64) {
        match self {
            Self::Availability => (counts.judged(), counts.server_fault),
            Self::Latency => (counts.with_latency, counts.slow),
            Self::Tools => (counts.ok.saturating_add(counts.tool_fault), counts.tool_fault),
            Self::ClientFaults => {
                (counts.judged().saturating_add(counts.client_fault), counts.client_fault)
            }
            Self::SmallAnswers => (counts.ok, counts.small),
            Self::SlowerAnswers => {
                let answered = counts.ok.saturating_add(counts.tool_fault);
                let answered_or_overdue = answered.saturating_add(counts.given_up);
                (answered_or_overdue.saturating_sub(counts.answered_late), counts.slower)
            }
            Self::Streams => (counts.streams_ended, counts.streams_broken),
            // The proxy's outcomes belong to the other objectives.
            Self::Scraped => (0, 0),
        }
    }

    /// Whether shadow calls are evidence for it, too.
    pub(super) fn has_shadow_calls(self) -> bool {
        matches!(self, Self::Availability | Self::Tools)
    }

    /// Whether each call is compared with itself at the release before.
    pub(super) fn is_by_call(self) -> bool {
        matches!(self, Self::ClientFaults | Self::SmallAnswers | Self::SlowerAnswers)
    }

    /// Its name in reasons and status lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency => "latency",
            Self::Tools => "tools",
            Self::ClientFaults => "client faults",
            Self::SmallAnswers => "small answers",
            Self::SlowerAnswers => "slower answers",
            Self::Streams => "streams",
            Self::Scraped => "own counters",
        }
    }
}
