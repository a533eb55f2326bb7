//! A synthetic regression: from some second on, a share of the good requests becomes bad.
//!
//! It is deterministic: the fraction of a request that remains goes to the next block.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::backtest::time;
use crate::model::{CallKey, Counts, Observation, ReleaseNumber, Signal};

/// The error for a wrong `--what-if`.
const HELP: &str = "write KIND=SHARE@TIME with KIND errors, slow or tools, such as errors=5%@120s";

/// What becomes bad, how much of it, and from which time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Injection {
    kind: InjectionKind,
    /// 0 to 1.
    share: f64,
    /// Since the begin of the bake.
    pub(crate) from: Duration,
    spec: String,
    /// Remaining fractions, by call; without a call: of all requests.
    carry: BTreeMap<Option<CallKey>, Carry>,
    /// Requests that became bad.
    pub(crate) injected: u64,
}

/// Fractions of bad requests that the next block gets.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Carry {
    all: f64,
    repeatable: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InjectionKind {
    Errors,
    Slow,
    Tools,
}

impl Injection {
    /// Makes a share of the good requests of `release` bad, in a signal that arrived `after` the
    /// begin of the bake. A block that began before `from` does not change.
    pub(crate) fn apply(
        &mut self,
        after: Duration,
        release: ReleaseNumber,
        signal: Signal,
    ) -> Signal {
        if signal.release != release {
            return signal;
        }
        let started = |span| after.saturating_sub(Duration::from_millis(span));
        let seen = match signal.observation {
            Observation::Block(span, counts) if self.from <= started(u64::from(span)) => {
                let bad = self.degrade(None, counts);
                Observation::Block(span, bad)
            }
            Observation::Calls(calls) if self.from <= started(1_000) => Observation::Calls(
                calls
                    .into_iter()
                    .map(|(call, counts)| (call.clone(), self.degrade(Some(call), counts)))
                    .collect(),
            ),
            seen => seen,
        };
        Signal { release, observation: seen }
    }

    fn degrade(&mut self, call: Option<CallKey>, mut counts: Counts) -> Counts {
        let is_total = call.is_none();
        let carry = self.carry.entry(call).or_default();
        let good = match self.kind {
            InjectionKind::Errors | InjectionKind::Tools => counts.ok,
            InjectionKind::Slow => counts.with_latency.saturating_sub(counts.slow),
        };
        let bad = take_whole(&mut carry.all, good, self.share);
        match self.kind {
            InjectionKind::Errors => {
                let safe = counts.repeatable.saturating_sub(counts.repeatable_failed).min(good);
                counts.repeatable_failed += take_whole(&mut carry.repeatable, safe, self.share);
                counts.ok -= bad;
                counts.server_fault = counts.server_fault.saturating_add(bad);
            }
            InjectionKind::Tools => {
                counts.ok -= bad;
                counts.tool_fault = counts.tool_fault.saturating_add(bad);
            }
            InjectionKind::Slow => counts.slow += bad,
        }
        if is_total {
            self.injected = self.injected.saturating_add(bad);
        }
        counts
    }
}

/// Returns how many of these become bad now; the fraction stays in `carry`.
fn take_whole(carry: &mut f64, good: u64, share: f64) -> u64 {
    *carry += good as f64 * share;
    let bad = (carry.floor() as u64).min(good);
    *carry = (*carry - bad as f64).min(1.0);
    bad
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (kind, rest) = text.split_once('=')?;
            let (share, from) = rest.split_once('@')?;
            let kind = match kind {
                "errors" => InjectionKind::Errors,
                "slow" => InjectionKind::Slow,
                "tools" => InjectionKind::Tools,
                _ => return None,
            };
            let share: f64 = share.strip_suffix('%')?.trim().parse().ok()?;
            (share > 0.0 && share <= 100.0).then_some((
                kind,
                share / 100.0,
                time::parse_duration(from)?,
            ))
        };
        let (kind, share, from) = read().ok_or_else(|| HELP.to_owned())?;
        let spec = text.to_owned();
        Ok(Self { kind, share, from, spec, carry: BTreeMap::new(), injected: 0 })
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_met_to_the_request() {
        let mut injection: Injection = "errors=7%@1s".parse().unwrap();
        let new = ReleaseNumber(2);
        let mut bad = 0;
        for block in 0..1_000_u64 {
            let counts = Counts { ok: 3, repeatable: 2, ..Counts::default() };
            let signal = Signal { release: new, observation: Observation::Block(250, counts) };
            let after = Duration::from_millis(250 * (block + 1));
            let Observation::Block(_, counts) = injection.apply(after, new, signal).observation
            else {
                panic!("still a block");
            };
            assert!(block >= 4 || counts.server_fault == 0, "not before `from`");
            assert_eq!(counts.total(), 3);
            bad += counts.server_fault;
        }
        assert_eq!((bad, injection.injected), (209, 209), "7 % of 996 * 3");
    }

    #[test]
    fn a_wrong_specification_returns_the_syntax() {
        for text in [
            "errors",
            "errors=5@3s",
            "errors=0%@3s",
            "errors=101%@3s",
            "hang=5%@3s",
            "slow=NaN%@3s",
            "slow=5%@-3s",
            "slow=5%@3w",
            "tools=5%@1e300s",
            "tools=5%@",
        ] {
            assert_eq!(text.parse::<Injection>(), Err(HELP.to_owned()), "{text}");
        }
    }
}
