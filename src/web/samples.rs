//! Samples for the charts: evidence and traffic since the deploy began or the daemon started.

use crate::control::Status;
use crate::model::{Moment, ReleaseNumber};

/// Samples that are kept. Where there are more, each second one goes and the distance doubles: the
/// chart always shows the whole time.
const SAMPLES_MAX: usize = 240;
/// Events make more snapshots; a rate over a shorter time is noise.
const DISTANCE_MIN_MS: u64 = 900;
/// Releases of one service that run at a time, at most.
const RELEASES_MAX: usize = 4;

/// The samples of one service.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    deploy: ReleaseNumber,
    /// Milliseconds between two samples, at least.
    distance: u64,
    samples: Vec<Sample>,
}

/// One moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The daemon's clock.
    pub at: Moment,
    /// The e-value of the strongest evidence, while a release is judged.
    pub e_value: Option<f64>,
    /// What each release had answered until then.
    pub releases: Vec<Answered>,
}

/// The requests of one release since the daemon started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// The release.
    pub release: ReleaseNumber,
    /// All requests.
    pub total: u64,
    /// The failed ones.
    pub failed: u64,
}

impl Samples {
    /// Adds a sample, unless the last one is too recent. A new deploy starts again.
    pub(super) fn add(&mut self, now: Moment, status: &Status) {
        if self.deploy != status.deploy {
            *self = Self { deploy: status.deploy, distance: 0, samples: Vec::new() };
        }
        let last = self.samples.last().map(|it| it.at);
        if last.is_some_and(|last| now.0 < last.0 + self.distance.max(DISTANCE_MIN_MS)) {
            return;
        }
        let releases = status.releases.iter().take(RELEASES_MAX).map(|release| {
            let counts = &release.counts;
            let failed = counts.server_fault.saturating_add(counts.tool_fault);
            Answered { release: release.number, total: counts.total(), failed }
        });
        let e_value = status.evidence.as_ref().map(|evidence| evidence.e_value);
        let e_value = e_value.filter(|value| value.is_finite());
        self.samples.push(Sample { at: now, e_value, releases: releases.collect() });
        if SAMPLES_MAX < self.samples.len() {
            let mut index = 0_usize;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            let (first, last) = (self.samples.first(), self.samples.last());
            let span = last.zip(first).map_or(0, |(last, first)| last.at.0 - first.at.0);
            self.distance = span / (SAMPLES_MAX as u64 / 2);
        }
    }

    /// The samples, oldest first.
    pub(super) fn all(&self) -> &[Sample] {
        &self.samples
    }

    /// Requests and failed requests a second of a release, between each two samples: the middle of
    /// the time, in milliseconds since the first sample, and both rates.
    pub(super) fn rates(&self, release: ReleaseNumber) -> Vec<(f64, f64, f64)> {
        let Some(first) = self.samples.first() else { return Vec::new() };
        let of = |sample: &Sample| sample.releases.iter().find(|it| it.release == release).copied();
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let rates = pairs.filter_map(|(before, after)| {
            let (old, new) = (of(before)?, of(after)?);
            let seconds = after.at.since(before.at).as_secs_f64();
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            let middle = (before.at.since(first.at) + after.at.since(first.at)) / 2;
            let rates = (rate(new.total, old.total), rate(new.failed, old.failed));
            (0.0 < seconds).then_some((middle.as_secs_f64() * 1_000.0, rates.0, rates.1))
        });
        rates.collect()
    }

    /// The time between the first and the last sample, in milliseconds.
    pub(super) fn span_ms(&self) -> f64 {
        let (first, last) = (self.samples.first(), self.samples.last());
        last.zip(first).map_or(0.0, |(last, first)| last.at.since(first.at).as_secs_f64() * 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::pages::tests::status;

    #[test]
    fn a_long_deploy_keeps_its_whole_time_in_few_samples() {
        let (mut samples, mut status) = (Samples::default(), status());
        for second in 0..100_000 {
            status.releases[0].counts.ok = 10 * second;
            samples.add(Moment(1_000 * second), &status);
            assert!(samples.all().len() <= SAMPLES_MAX);
        }
        assert_eq!(samples.all()[0].at, Moment(0));
        assert!(samples.all().len() > SAMPLES_MAX / 4 && samples.span_ms() > 98_000_000.0);
        let rates = samples.rates(status.releases[0].number);
        assert!(rates.iter().skip(1).all(|(_, rate, failed)| (*rate, *failed) == (10.0, 0.0)));
        status.deploy = ReleaseNumber(status.deploy.0 + 1);
        samples.add(Moment(100_000_000), &status);
        assert_eq!(samples.all().len(), 1, "a new deploy starts again");
    }
}
