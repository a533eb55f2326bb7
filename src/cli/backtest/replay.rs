//! Signals through a judge, as the daemon does it.

use crate::decide;
use crate::judge::Judge;
use crate::model::{Finding, Load, Verdict};

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
    let (mut shared, mut breach, mut highest, mut last) = (None, None, 0.0_f64, opened);
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
        let verdict = judge.verdict(now);
        match verdict.finding {
            Finding::Breach(_) => {
                breach = Some((now, verdict));
                break;
            }
            Finding::SharedOutage | Finding::Unattributed if shared.is_none() => {
                shared = Some((now, verdict, evidence.e, judge.attribution()));
            }
            _ => (),
        }
    }
    let found = |now| Some((now, judge.evidence().e, judge.attribution()));
    let (verdict, found) = match (breach, shared) {
        (Some((now, verdict)), _) => (verdict, found(now)),
        (None, Some((now, verdict, e, attribution))) => (verdict, Some((now, e, attribution))),
        (None, None) => (judge.verdict(last), None),
    };
    let strategy = strategy(&verdict, contender);
    let (at, e_slo, e_attr) = match found {
        Some((at, e, attribution)) => (Some(at), e, attribution),
        None => (None, highest, judge.attribution()),
    };
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
