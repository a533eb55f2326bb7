//! Statistics over deploys and their incidents: what `rollbackd report` shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ReleaseNumber;

/// The form of the JSON. A later version only adds fields.
pub const REPORT_SCHEMA: &str = "rollbackd.report/1";

/// The report. Days are UTC, `2026-11-27`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// The services.
    pub services: Vec<String>,
    /// Deploys that have an end.
    pub deploys: u64,
    /// The first day with a timeline, where timelines of earlier deploys within the time are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploys_from: Option<String>,
    /// Deploys whose release failed with users: the change failure rate of DORA is their share.
    pub failed_deploys: u64,
    /// Deploys whose release never became ready, and met no user.
    pub never_ready: u64,
    /// From the onset to the verdict, in failed deploys.
    pub detect: Option<Times>,
    /// From the onset to the recovery, in failed deploys: DORA's time to restore.
    pub restore: Option<Times>,
    /// Requests that failed in incidents.
    pub failed_requests: u64,
    /// Requests that the rollbacks saved, if the releases had gone on to fail at the rate of the verdict
    /// until the end of their bakes.
    pub saved_requests: u64,
    /// Rollbacks by the daemon.
    pub rollbacks: u64,
    /// Of these, the ones without a verdict of a person. They count as right.
    pub unreviewed_rollbacks: u64,
    /// What people said about the verdicts, and how often.
    pub verdicts: BTreeMap<String, u64>,
    /// Verdicts against good releases.
    pub false_alarms: FalseAlarms,
    /// Incidents.
    pub incidents: u64,
    /// Of these, the ones whose review is open.
    pub open_reviews: u64,
    /// Action items of the incidents.
    pub actions: u64,
    /// Of these, the open ones.
    pub open_actions: u64,
    /// The signatures of most incidents.
    pub signatures: Vec<SignatureCount>,
    /// Deploys by week, without a gap.
    pub weeks: Vec<Week>,
}

/// A median and a maximum, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The median.
    pub median_ms: u64,
    /// The largest.
    pub max_ms: u64,
}

/// Verdicts of the daemon against releases that a person found good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FalseAlarms {
    /// Deploys with one.
    pub count: u64,
    /// Deploys of good releases: these, and the accepted ones.
    pub deploys: u64,
    /// Lower end of the rate's 95 % interval by Clopper and Pearson (1934).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The largest `max_false_rollback` of the services.
    pub allowed: f64,
}

/// A signature and its incidents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCount {
    /// The service.
    pub service: String,
    /// The signature, in words.
    pub signature: String,
    /// Incidents with it.
    pub incidents: u64,
    /// The newest of them.
    pub newest: ReleaseNumber,
}

/// The deploys of a week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Week {
    /// Its Monday.
    pub monday: String,
    /// Deploys that have an end.
    pub deploys: u64,
    /// Failed deploys.
    pub failed: u64,
}

impl Report {
    /// The share of deploys that failed with users; none without a deploy.
    pub fn failure_rate(&self) -> Option<f64> {
        (self.deploys > 0).then(|| self.failed_deploys as f64 / self.deploys as f64)
    }
}
