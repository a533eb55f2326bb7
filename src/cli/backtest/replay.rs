//! Signals through a judge, as the daemon does it.

use crate::decide;
use crate::judge::Judge;
use crate::model::{Finding, Load, Moment, Verdict};

use super::contender::Contender;
use super::injection::Injection;
use super::outcome::Outcome;
use super::plot::Track;
use super::source::Source;

/// What one configuration would have made of it, and how the evidence went. It ends with the first
/// breach, as the trial does, or with the bake.
pub(super) fn replay(
    source: &Source,
    contender: &Contender,
    what_if: Option<&Injection>,
) -> (Outcome, Track) {
    let opened = source.opening.opened;
    let mut what_if = what_if.cloned();
    let mut judge = open(source, contender);
    let mut track = Track::new(source.length());
    let (mut found, mut highest, mut last) = (None, 0.0_f64, opened);
    let mut signals = source.signals().peekable();
    while let Some((now, signal)) = signals.next() {
        if now.since(opened) > contender.limits.bake {
            break;
        }
        last = now;
        let signal = match &mut what_if {
            Some(it) => it.change(now.since(opened), judge.release(), signal),
            None => signal,
        };
        judge.hear(now, &signal);
        if signals.peek().is_some_and(|(next, _)| *next == now) {
            continue;
        }
        let evidence = judge.evidence();
        track.mark(now.since(opened), &evidence);
        highest = highest.max(evidence.e);
        match Found::now(&judge, now, evidence.e) {
            Some(breach) if breach.is_breach() => {
                found = Some(breach);
                break;
            }
            other => found = found.or(other),
        }
    }
    let at = found.as_ref().map(|found| found.at);
    let Found { verdict, e_slo, e_attr, .. } = found.unwrap_or_else(|| Found {
        at: last,
        verdict: judge.verdict(last),
        e_slo: highest,
        e_attr: judge.attribution(),
    });
    let strategy = strategy(&verdict, contender);
    let left = source.length().saturating_sub(contender.limits.bake);
    let (source, config) = (source.name.clone(), contender.name.clone());
    let outcome = Outcome::new(
        source,
        config,
        verdict,
        strategy,
        at.map(|it| it.since(opened)),
        e_slo,
        e_attr,
    )
    .within(contender.limits.bake, left)
    .injected(what_if.as_ref());
    (outcome, track)
}

/// What the judge found, and when.
struct Found {
    at: Moment,
    verdict: Verdict,
    e_slo: f64,
    e_attr: Option<f64>,
}

impl Found {
    fn now(judge: &Judge, at: Moment, e_slo: f64) -> Option<Self> {
        let verdict = judge.verdict(at);
        let quiet = matches!(
            verdict.finding,
            Finding::Healthy | Finding::Undecided | Finding::NoData | Finding::Measuring
        );
        (!quiet).then(|| Self { at, verdict, e_slo, e_attr: judge.attribution() })
    }

    fn is_breach(&self) -> bool {
        matches!(self.verdict.finding, Finding::Breach(_))
    }
}

/// The one place where the judge of a replay is made.
fn open(source: &Source, contender: &Contender) -> Judge {
    let opening = &source.opening;
    Judge::new(
        opening.release,
        opening.warm,
        contender.limits.clone(),
        opening.history.clone(),
        opening.opened,
    )
}

/// The daemon's own sum. The sessions of back then are not known.
fn strategy(verdict: &Verdict, contender: &Contender) -> Option<decide::Choice> {
    let load = Load { rate: verdict.rate, ..Load::default() };
    let breach = matches!(verdict.finding, Finding::Breach(_));
    breach.then(|| decide::choose(verdict, &load, contender.drain, contender.session_cost))
}
