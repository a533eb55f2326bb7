//! Signals through a judge, as the daemon does it.

use crate::backtest::injection::Injection;
use crate::backtest::plot::EvidenceCurve;
use crate::backtest::result::ReplayResult;
use crate::backtest::source::Source;
use crate::backtest::variants::Variant;
use crate::decide;
use crate::judge::Judge;
use crate::model::{Finding, Moment, ReleaseLoad, Verdict};

/// What one configuration would have made of it, and how the evidence went. It ends with the first
/// breach, as the trial does, or with the bake.
pub(crate) fn replay(
    source: &Source,
    variant: &Variant,
    what_if: Option<&Injection>,
) -> (ReplayResult, EvidenceCurve) {
    let opened = source.opening.opened;
    let mut what_if = what_if.cloned();
    let mut judge = new_judge(source, variant);
    let mut curve = EvidenceCurve::new(source.duration());
    let (mut detection, mut max_e_value, mut last) = (None, 0.0_f64, opened);
    let mut signals = source.signals().peekable();
    while let Some((now, signal)) = signals.next() {
        if now.since(opened) > variant.limits.bake {
            break;
        }
        last = now;
        let signal = match &mut what_if {
            Some(it) => it.apply(now.since(opened), judge.release(), signal),
            None => signal,
        };
        judge.observe(now, &signal);
        if signals.peek().is_some_and(|(next, _)| *next == now) {
            continue;
        }
        let evidence = judge.evidence();
        curve.record(now.since(opened), &evidence);
        max_e_value = max_e_value.max(evidence.e_value);
        match Detection::at(&judge, now, evidence.e_value) {
            Some(breach) if breach.is_breach() => {
                detection = Some(breach);
                break;
            }
            other => detection = detection.or(other),
        }
    }
    let at = detection.as_ref().map(|found| found.at);
    let Detection { verdict, e_slo, e_attr, .. } = detection.unwrap_or_else(|| Detection {
        at: last,
        verdict: judge.verdict(last),
        e_slo: max_e_value,
        e_attr: judge.attribution_e_value(),
    });
    let strategy = choose_strategy(&verdict, variant);
    let left = source.duration().saturating_sub(variant.limits.bake);
    let (source, config) = (source.name.clone(), variant.config_name.clone());
    let outcome = ReplayResult::new(
        source,
        config,
        verdict,
        strategy,
        at.map(|it| it.since(opened)),
        e_slo,
        e_attr,
    )
    .note_unjudged_time(variant.limits.bake, left)
    .note_injection(what_if.as_ref());
    (outcome, curve)
}

/// What the judge found, and when.
struct Detection {
    at: Moment,
    verdict: Verdict,
    e_slo: f64,
    e_attr: Option<f64>,
}

impl Detection {
    fn at(judge: &Judge, at: Moment, e_slo: f64) -> Option<Self> {
        let verdict = judge.verdict(at);
        let no_finding = matches!(
            verdict.finding,
            Finding::Healthy | Finding::Undecided | Finding::NoData | Finding::Measuring
        );
        (!no_finding).then(|| Self { at, verdict, e_slo, e_attr: judge.attribution_e_value() })
    }

    fn is_breach(&self) -> bool {
        matches!(self.verdict.finding, Finding::Breach(_))
    }
}

/// The one place where the judge of a replay is made.
fn new_judge(source: &Source, variant: &Variant) -> Judge {
    let opening = &source.opening;
    Judge::new(
        opening.release,
        opening.warm,
        variant.limits.clone(),
        opening.history.clone(),
        opening.opened,
    )
}

/// The daemon's own sum. The sessions of back then are not known.
fn choose_strategy(verdict: &Verdict, variant: &Variant) -> Option<decide::StrategyChoice> {
    let load = ReleaseLoad { request_rate: verdict.request_rate, ..ReleaseLoad::default() };
    let breach = matches!(verdict.finding, Finding::Breach(_));
    breach.then(|| decide::choose_strategy(verdict, &load, variant.drain, variant.session_cost))
}
