//! Feeds signals to the judge, as the daemon does during a bake.

use crate::backtest::injection::Injection;
use crate::backtest::plot::EvidenceCurve;
use crate::backtest::result::{Detection, ReplayResult};
use crate::backtest::source::{Source, failed_requests};
use crate::backtest::variants::Variant;
use crate::decide;
use crate::judge::Judge;
use crate::judge::trial::ReleaseTrial;
use crate::machine::PAUSE_MIN;
use crate::model::{Finding, Moment, Observation, ReleaseLoad, Signal, Verdict};

/// Replays the signals with the settings of one configuration, and records the evidence. It ends at
/// the first breach, or at the end of the bake.
pub(crate) fn replay(
    source: &Source,
    variant: &Variant,
    injection: Option<&Injection>,
) -> (ReplayResult, EvidenceCurve) {
    let opened = source.opening.opened;
    let bake = variant.slo.bake;
    let mut injection = injection.cloned();
    let mut judge = new_judge(source, variant);
    let mut trial = None;
    let mut curve = EvidenceCurve::new(source.duration());
    let (mut detection, mut max_e_value, mut last) = (None, 0.0_f64, opened);
    let mut failed = 0_u64;
    let mut signals = source.signals().peekable();
    while let Some((now, signal)) = signals.next() {
        let after = now.since(opened);
        if after > bake {
            break;
        }
        if source.is_recording() {
            skip_pause(&mut judge, &mut trial, last, now);
        }
        last = now;
        let signal = match &mut injection {
            Some(it) => it.apply(after, judge.release(), signal),
            None => signal,
        };
        failed = failed.saturating_add(failed_requests(judge.release(), &signal));
        judge.observe(now, &signal);
        // What an injection would change in the cells of a trial is not known.
        if injection.is_none() {
            observe_trial(&mut trial, source, variant, (now, &signal));
        }
        if signals.peek().is_some_and(|(next, _)| *next == now) {
            continue;
        }
        let evidence = judge.evidence();
        curve.record(after, &evidence);
        max_e_value = max_e_value.max(evidence.e_value);
        let verdict = verdict_of(&judge, trial.as_ref(), now);
        let found = is_finding(&verdict).then(|| Detection {
            after: Some(now.since(opened)),
            verdict,
            failed_requests: failed,
            e_slo: evidence.e_value,
            e_attr: judge.attribution_e_value(),
        });
        let is_breach = found.as_ref().is_some_and(|it| is_breach(&it.verdict));
        if is_breach || detection.is_none() {
            detection = found;
        }
        if is_breach {
            break;
        }
    }
    let detection = detection.unwrap_or_else(|| Detection {
        after: None,
        verdict: verdict_of(&judge, trial.as_ref(), last),
        failed_requests: failed,
        e_slo: max_e_value,
        e_attr: judge.attribution_e_value(),
    });
    (result_of(source, variant, injection.as_ref(), detection), curve)
}

fn result_of(
    source: &Source,
    variant: &Variant,
    injection: Option<&Injection>,
    detection: Detection,
) -> ReplayResult {
    let strategy = choose_strategy(&detection.verdict, variant);
    let bake = variant.slo.bake;
    let unjudged = source.duration().saturating_sub(bake);
    let names = (source.name.clone(), variant.config_name.clone());
    ReplayResult::new(names.0, names.1, detection, strategy)
        .note_unjudged_time(bake, unjudged)
        .note_injection(injection)
}

/// The daemon that recorded did not run for a while, and its judge skipped that time.
fn skip_pause(judge: &mut Judge, trial: &mut Option<ReleaseTrial>, last: Moment, now: Moment) {
    let gap = now.since(last);
    if PAUSE_MIN < gap {
        judge.skip(gap);
        trial.iter_mut().for_each(|trial| trial.skip(now));
    }
}

fn is_finding(verdict: &Verdict) -> bool {
    !matches!(
        verdict.finding,
        Finding::Healthy | Finding::Undecided | Finding::NoData | Finding::Measuring
    )
}

/// A recording of a ramp is judged as the daemon did, from its first step on.
fn observe_trial(
    trial: &mut Option<ReleaseTrial>,
    source: &Source,
    variant: &Variant,
    (now, signal): (Moment, &Signal),
) {
    if let Observation::Step(_) = signal.observation {
        let (opening, slo) = (&source.opening, &variant.slo);
        trial.get_or_insert_with(|| {
            ReleaseTrial::new(
                opening.release,
                slo,
                variant.ramp_step,
                &opening.history,
                opening.opened,
            )
        });
    }
    trial.iter_mut().for_each(|trial| trial.observe(now, signal));
}

fn verdict_of(judge: &Judge, trial: Option<&ReleaseTrial>, now: Moment) -> Verdict {
    trial.map_or_else(|| judge.verdict(now), |trial| trial.verdict(now, judge))
}

fn is_breach(verdict: &Verdict) -> bool {
    matches!(verdict.finding, Finding::Breach(_))
}

fn new_judge(source: &Source, variant: &Variant) -> Judge {
    let opening = &source.opening;
    Judge::new(
        opening.release,
        opening.warm,
        variant.slo.clone(),
        opening.history.clone(),
        opening.opened,
    )
}

/// Chooses as the daemon does. Recordings do not hold the sessions, so it assumes none.
fn choose_strategy(verdict: &Verdict, variant: &Variant) -> Option<decide::StrategyChoice> {
    let load = ReleaseLoad { request_rate: verdict.request_rate, ..ReleaseLoad::default() };
    is_breach(verdict)
        .then(|| decide::choose_strategy(verdict, &load, variant.drain, variant.session_cost))
}
