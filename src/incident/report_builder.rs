//! Adds up deploys and incidents for the report.

use std::collections::BTreeMap;

use crate::incident::cause::Cause;
use crate::incident::history::{DeployOutcome, HistoryRow};
use crate::incident::life::Incident;
use crate::incident::report::{REPORT_SCHEMA, Report, SignatureCount, Times, Week};
use crate::incident::utc::{MS_PER_DAY, format_date};
use crate::incident::verdict::ReviewVerdict;
use crate::judge::false_alarm_interval;
use crate::model::{Moment, ReleaseNumber};

/// Signatures that are listed.
const SIGNATURES_MAX: usize = 10;
/// Weeks that are listed, the last ones.
const WEEKS_MAX: usize = 60;

/// Adds up the services of a report.
#[derive(Debug)]
pub struct ReportBuilder {
    report: Report,
    since: Moment,
    until: Moment,
    detect_ms: Vec<u64>,
    restore_ms: Vec<u64>,
    /// By the days from 1970 to the Monday.
    weeks: BTreeMap<u64, (u64, u64)>,
    signatures: BTreeMap<(String, String), (u64, ReleaseNumber)>,
}

impl ReportBuilder {
    /// A report over the time from `since` to `until`.
    pub fn new(since: Moment, until: Moment) -> Self {
        let (from, to) = (format_date(since), format_date(until));
        let report = Report { schema: REPORT_SCHEMA.to_owned(), from, to, ..Report::default() };
        Self {
            report,
            since,
            until,
            detect_ms: Vec::new(),
            restore_ms: Vec::new(),
            weeks: BTreeMap::new(),
            signatures: BTreeMap::new(),
        }
    }

    /// Adds a service: its deploys whose timelines are kept, newest first, and its incidents.
    /// `max_false_rollback` is what its configuration allows.
    pub fn add<'a>(
        &mut self,
        service: &str,
        max_false_rollback: f64,
        deploys: &[HistoryRow],
        incidents: impl Iterator<Item = &'a Incident>,
    ) {
        self.report.services.push(service.to_owned());
        let allowed = &mut self.report.false_alarms.allowed;
        *allowed = allowed.max(max_false_rollback);
        let (since, until) = (self.since, self.until);
        let is_within = |at: Moment| since <= at && at <= until;
        let incidents: BTreeMap<_, _> = incidents.map(|it| (it.number, it)).collect();
        for row in deploys.iter().filter(|row| is_within(row.began)) {
            self.add_deploy(row, incidents.get(&row.deploy).copied());
        }
        if let Some(oldest) = deploys.last()
            && oldest.deploy > ReleaseNumber(1)
            && self.since < oldest.began
        {
            let day = format_date(oldest.began);
            let earlier = self.report.deploys_from.take();
            self.report.deploys_from = Some(earlier.map_or(day.clone(), |it| it.max(day)));
        }
        for incident in incidents.into_values().filter(|it| is_within(it.opened)) {
            self.add_incident(incident);
        }
    }

    fn add_deploy(&mut self, row: &HistoryRow, incident: Option<&Incident>) {
        if row.outcome == DeployOutcome::Running {
            return;
        }
        let report = &mut self.report;
        let verdict = incident.and_then(|it| it.verdict);
        let was_good =
            matches!(verdict, Some(ReviewVerdict::FalseAlarm | ReviewVerdict::NotTheDeploy));
        let is_accepted =
            matches!(row.outcome, DeployOutcome::Accepted | DeployOutcome::Unverified);
        let failed = match verdict {
            _ if was_good => false,
            Some(ReviewVerdict::Missed(_)) => true,
            // Both releases failed: the deploy did not do it.
            _ if row.outcome == DeployOutcome::Breach => {
                let is_of_release = |it: &Incident| {
                    let after_bake = it.causes.iter().any(|(cause, ..)| *cause == Cause::AfterBake);
                    it.has_verdict_against_release() || after_bake
                };
                incident.is_none_or(is_of_release)
            }
            _ => !is_accepted && row.outcome != DeployOutcome::Failed,
        };
        report.deploys += 1;
        report.failed_deploys += u64::from(failed);
        report.never_ready += u64::from(row.outcome == DeployOutcome::Failed);
        if row.outcome == DeployOutcome::RolledBack {
            report.rollbacks += 1;
            report.unreviewed_rollbacks += u64::from(verdict.is_none());
        }
        let is_false_alarm =
            was_good && incident.is_some_and(Incident::has_verdict_against_release);
        report.false_alarms.count += u64::from(is_false_alarm);
        report.false_alarms.deploys += u64::from(is_false_alarm || (is_accepted && !failed));
        if failed {
            report.saved_requests = report.saved_requests.saturating_add(saved(row));
            self.detect_ms.extend(row.detect_ms);
            self.restore_ms.extend(row.restore_ms);
        }
        let week = self.weeks.entry(monday_before(row.began)).or_default();
        *week = (week.0 + 1, week.1 + u64::from(failed));
    }

    fn add_incident(&mut self, incident: &Incident) {
        let report = &mut self.report;
        report.incidents += 1;
        report.open_reviews += u64::from(incident.is_open());
        report.failed_requests = report.failed_requests.saturating_add(incident.failed.0);
        report.actions += incident.actions.len() as u64;
        report.open_actions += incident.actions.iter().filter(|it| !it.done).count() as u64;
        if let Some(verdict) = incident.verdict {
            // The minutes of `missed=MINUTES` would make each a kind of its own.
            let name = match verdict {
                ReviewVerdict::Missed(_) => "missed".to_owned(),
                other => other.to_string(),
            };
            *report.verdicts.entry(name).or_default() += 1;
        }
        if incident.is_drafted {
            let key = (incident.service.clone(), incident.signature.to_string());
            let count = self.signatures.entry(key).or_default();
            *count = (count.0 + 1, count.1.max(incident.number));
        }
    }

    /// The report.
    pub fn finish(mut self) -> Report {
        let alarms = &mut self.report.false_alarms;
        (alarms.low, alarms.high) = false_alarm_interval(alarms.count, alarms.deploys);
        self.report.detect = times(self.detect_ms);
        self.report.restore = times(self.restore_ms);
        let mut signatures: Vec<_> = self.signatures.into_iter().collect();
        // The names are in order already.
        signatures.sort_by_key(|(_, (incidents, _))| std::cmp::Reverse(*incidents));
        signatures.truncate(SIGNATURES_MAX);
        let named = signatures.into_iter().map(|((service, signature), (incidents, newest))| {
            SignatureCount { service, signature, incidents, newest }
        });
        self.report.signatures = named.collect();
        self.report.weeks = without_gaps(&self.weeks);
        self.report
    }
}

/// The requests of a rollback that would have failed: at the lower bound of the failing share, until
/// the end of the bake.
fn saved(row: &HistoryRow) -> u64 {
    let is_rollback =
        matches!(row.outcome, DeployOutcome::RolledBack | DeployOutcome::RolledBackByOperator);
    let Some(((rate, share), left_ms)) = row.failing.zip(row.bake_left_ms).filter(|_| is_rollback)
    else {
        return 0;
    };
    let saved = rate * share * left_ms as f64 / 1000.0;
    if saved.is_finite() && saved > 0.0 { saved.min(1e15) as u64 } else { 0 }
}

fn times(mut values: Vec<u64>) -> Option<Times> {
    values.sort_unstable();
    let (middle, max_ms) = (values.len() / 2, *values.last()?);
    let upper = *values.get(middle)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(Times { median_ms: lower + (upper - lower) / 2, max_ms })
}

/// The day, counted from 1970-01-01 (a Thursday), of the Monday that begins this week.
fn monday_before(at: Moment) -> u64 {
    let day = at.0 / MS_PER_DAY;
    day.saturating_sub((day + 3) % 7)
}

fn without_gaps(weeks: &BTreeMap<u64, (u64, u64)>) -> Vec<Week> {
    let Some((first, last)) = weeks.keys().next().zip(weeks.keys().next_back()) else {
        return Vec::new();
    };
    let shown = last.saturating_sub(7 * (WEEKS_MAX as u64 - 1));
    let mondays = (*first.max(&shown)..=*last).step_by(7);
    let week = |monday: u64| {
        let (deploys, failed) = weeks.get(&monday).copied().unwrap_or_default();
        Week { monday: format_date(Moment(monday * MS_PER_DAY)), deploys, failed }
    };
    mondays.map(week).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::history::summarise;
    use crate::incident::{IncidentState, example};

    const DAY: u64 = MS_PER_DAY;

    fn row(number: u32, began: u64, outcome: DeployOutcome) -> HistoryRow {
        let row = summarise(&example::timeline(), 600_000).unwrap().row().clone();
        HistoryRow { deploy: ReleaseNumber(number), began: Moment(began), outcome, ..row }
    }

    fn incident(number: u32, cause: Cause, verdict: Option<ReviewVerdict>) -> Incident {
        let mut incident = example::incident();
        incident.number = ReleaseNumber(number);
        incident.causes = vec![(cause, incident.opened, String::new())];
        incident.verdict = verdict;
        (incident.state, incident.is_drafted) = (IncidentState::Closed, true);
        incident
    }

    fn report(deploys: &[HistoryRow], incidents: &[Incident]) -> Report {
        let opened = example::incident().opened.0;
        let mut builder = ReportBuilder::new(Moment(opened - 90 * DAY), Moment(opened + DAY));
        builder.add("weather", 0.001, deploys, incidents.iter());
        builder.finish()
    }

    #[test]
    fn a_report_counts_deploys_and_false_alarms_within_its_time() {
        let mut wrong = incident(2, Cause::Rollback, Some(ReviewVerdict::FalseAlarm));
        wrong.failed = (12, 538);
        let opened = wrong.opened.0;
        let mut deploys: Vec<_> =
            (5..=100).rev().map(|it| row(it, opened, DeployOutcome::Accepted)).collect();
        deploys.extend([
            row(4, opened, DeployOutcome::Running),
            row(3, opened, DeployOutcome::RolledBack),
            row(2, opened, DeployOutcome::RolledBack),
            row(1, opened - 100 * DAY, DeployOutcome::RolledBack),
        ]);
        let report = report(&deploys, &[wrong]);
        assert_eq!((report.deploys, report.failed_deploys), (98, 1));
        assert_eq!((report.rollbacks, report.unreviewed_rollbacks), (2, 1));
        let alarms = report.false_alarms;
        assert_eq!((alarms.count, alarms.deploys), (1, 97));
        // Clopper and Pearson: 1 of 97 is 0.026 % to 5.61 %.
        assert!((alarms.low - 0.000_261).abs() < 1e-5, "{}", alarms.low);
        assert!((alarms.high - 0.0561).abs() < 1e-4, "{}", alarms.high);
        assert_eq!((report.failed_requests, report.incidents, report.open_reviews), (12, 1, 0));
        assert_eq!(report.detect, Some(Times { median_ms: 5_681, max_ms: 5_681 }));
        assert!(report.saved_requests > 0);
        assert_eq!(report.weeks.iter().map(|it| it.deploys).sum::<u64>(), 98);
        assert_eq!(report.deploys_from, None);
    }

    #[test]
    fn what_a_person_said_decides_whether_a_deploy_failed() {
        let opened = example::incident().opened.0;
        let cases = [
            (DeployOutcome::RolledBack, Cause::Rollback, None, (1, 0, 0)),
            (DeployOutcome::RolledBack, Cause::Rollback, Some("right"), (1, 0, 0)),
            (DeployOutcome::RolledBack, Cause::Rollback, Some("false-alarm"), (0, 1, 1)),
            (DeployOutcome::RolledBack, Cause::Rollback, Some("not-the-deploy"), (0, 1, 1)),
            (DeployOutcome::Accepted, Cause::GuardHeld, Some("false-alarm"), (0, 1, 1)),
            (DeployOutcome::Accepted, Cause::GuardHeld, Some("missed=9"), (1, 0, 0)),
            (DeployOutcome::Accepted, Cause::SharedOutage, Some("not-the-deploy"), (0, 0, 1)),
            (DeployOutcome::Breach, Cause::SharedOutage, None, (0, 0, 0)),
            (DeployOutcome::Unverified, Cause::OneUser, Some("false-alarm"), (0, 0, 1)),
            (DeployOutcome::Unverified, Cause::OneUser, Some("right"), (0, 0, 1)),
            (DeployOutcome::Breach, Cause::GuardHeld, None, (1, 0, 0)),
            (DeployOutcome::Breach, Cause::AfterBake, None, (1, 0, 0)),
            (DeployOutcome::Failed, Cause::NeverReady, Some("right"), (0, 0, 0)),
            (DeployOutcome::RolledBackByOperator, Cause::OrderedRollback, None, (1, 0, 0)),
        ];
        for (outcome, cause, verdict, expected) in cases {
            let verdict = verdict.map(|it| it.parse().unwrap());
            let report = report(&[row(2, opened, outcome)], &[incident(2, cause, verdict)]);
            let alarms = report.false_alarms;
            let counted = (report.failed_deploys, alarms.count, alarms.deploys);
            assert_eq!(counted, expected, "{outcome:?} {cause:?} {verdict:?}");
        }
    }

    #[test]
    fn a_report_without_deploys_has_no_rate() {
        let empty = report(&[], &[]);
        assert_eq!((empty.failure_rate(), empty.detect, empty.weeks.len()), (None, None, 0));
        assert_eq!((empty.false_alarms.low, empty.false_alarms.high), (0.0, 1.0));
    }

    #[test]
    fn weeks_begin_on_monday_and_have_no_gap_and_removed_timelines_are_named() {
        let day = |text: &str| crate::incident::utc::parse_date(text).unwrap().0;
        let at = |number, text| row(number, day(text), DeployOutcome::Accepted);
        let deploys = [at(9, "2023-11-06"), at(8, "2023-11-05"), at(7, "2023-10-16")];
        let report = report(&deploys, &[]);
        let weeks: Vec<_> =
            report.weeks.iter().map(|it| (it.monday.as_str(), it.deploys)).collect();
        let expected = [("2023-10-16", 1), ("2023-10-23", 0), ("2023-10-30", 1), ("2023-11-06", 1)];
        assert_eq!(weeks, expected);
        assert_eq!(report.deploys_from.as_deref(), Some("2023-10-16"));
    }

    #[test]
    fn ten_thousand_incidents_make_a_bounded_report() {
        let incidents: Vec<_> = (1..=10_000)
            .map(|number| {
                let mut incident = incident(number, Cause::Rollback, None);
                incident.signature.call = format!("tools/call {}", number % 500);
                incident
            })
            .collect();
        let report = report(&[], &incidents);
        assert_eq!((report.incidents, report.signatures.len()), (10_000, SIGNATURES_MAX));
        assert_eq!(report.signatures[0].incidents, 20);
        assert!(serde_json::to_string(&report).unwrap().len() < 16 * 1024);
    }

    #[test]
    fn a_median_is_between_the_two_in_the_middle() {
        let median = |values: &[u64]| times(values.to_vec()).map(|it| it.median_ms);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[9, 1]), Some(5));
        assert_eq!(median(&[9, 1, 4]), Some(4));
    }
}
