//! The evidence against a release over time: the judge, fed again with the recorded signals.

use serde::{Deserialize, Serialize};

use crate::judge::{Judge, SloSettings};
use crate::model::{History, Moment, ReleaseNumber, Signal};

/// Points that are kept.
const POINTS_MAX: u64 = 240;

/// How the evidence rose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceTrack {
    /// The objective with the strongest evidence at the end.
    pub objective: String,
    /// The e-value that makes a verdict.
    pub threshold: f64,
    /// The highest e-value.
    pub e_value_max: f64,
    /// The e-value of the comparison with the previous release, where there is one.
    #[serde(default)]
    pub attribution: Option<f64>,
    /// Over time.
    pub points: Vec<EvidencePoint>,
}

/// The evidence at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvidencePoint {
    /// Milliseconds since the bake began.
    pub ms: u64,
    /// From none (0) to a verdict (1), on the scale on which evidence adds up.
    pub progress: f64,
}

/// What a judge needs to open.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// The release on trial.
    pub release: ReleaseNumber,
    /// The release that can take over.
    pub warm: Option<ReleaseNumber>,
    /// When the bake began.
    pub opened: Moment,
    /// The record of the previous release.
    pub history: History,
}

/// Feeds the judge again. It ends at `until`: the time of the verdict.
pub fn track(
    opening: Opening,
    slo: SloSettings,
    until: Moment,
    signals: impl IntoIterator<Item = (Moment, Signal)>,
) -> EvidenceTrack {
    let Opening { release, warm, opened, history } = opening;
    let width = (until.0.saturating_sub(opened.0) / POINTS_MAX).max(250);
    let mut judge = Judge::new(release, warm, slo, history, opened);
    let mut track = EvidenceTrack::default();
    for (now, signal) in signals {
        if until < now {
            break;
        }
        judge.observe(now, &signal);
        let evidence = judge.evidence();
        let ms = now.0.saturating_sub(opened.0) / width * width;
        let progress = evidence.progress();
        match track.points.last_mut().filter(|it| it.ms == ms) {
            Some(point) => point.progress = point.progress.max(progress),
            None => track.points.push(EvidencePoint { ms, progress }),
        }
        if track.e_value_max <= evidence.e_value {
            track.objective = evidence.objective;
            track.e_value_max = evidence.e_value;
        }
        track.threshold = evidence.threshold;
    }
    track.attribution = judge.attribution_e_value();
    track
}
