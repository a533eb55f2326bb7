//! A regression that did not happen: from some second on, a share of the requests that were good
//! is bad. No chance is involved; what is left of a request is carried to the next block.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::{CallKey, Counts, Observation, ReleaseNumber, Signal};

/// What a wrong `--what-if` is told.
const HELP: &str = "write KIND=SHARE@TIME with KIND errors, slow or tools, such as errors=5%@120s";

/// What is made bad, how much of it, and from when on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Injection {
    kind: InjectionKind,
    /// 0 to 1.
    share: f64,
    /// Since the trial opened.
    pub(crate) from: Duration,
    spec: String,
    /// Requests owed, in fractions: for all, and by call; the second is for those safe to repeat.
    carry: BTreeMap<Option<CallKey>, (f64, f64)>,
    /// Requests that were made bad.
    pub(crate) injected: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InjectionKind {
    Errors,
    Slow,
    Tools,
}

impl Injection {
    /// Makes a share bad of what `release` did well, in a signal that came so long after the trial
    /// opened. A block that began before its time is left alone.
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
        let bad = take_whole(&mut carry.0, good, self.share);
        match self.kind {
            InjectionKind::Errors => {
                let safe = counts.repeatable.saturating_sub(counts.repeatable_failed).min(good);
                counts.repeatable_failed += take_whole(&mut carry.1, safe, self.share);
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

/// How many of these are bad now; the fraction stays owed.
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
            (share > 0.0 && share <= 100.0).then_some((kind, share / 100.0, parse_duration(from)?))
        };
        let (kind, share, from) = read().ok_or_else(|| HELP.to_owned())?;
        let written = text.to_owned();
        Ok(Self { kind, share, from, spec: written, carry: BTreeMap::new(), injected: 0 })
    }
}

/// Such as `500ms`, `120s`, `2m`, `1h`, or seconds without a unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|it: char| it.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|it| it.as_secs() < 366 * 86_400)
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
            assert!(block >= 4 || counts.server_fault == 0, "not before its time");
            assert_eq!(counts.total(), 3);
            bad += counts.server_fault;
        }
        assert_eq!((bad, injection.injected), (209, 209), "7 % of 996 * 3");
    }

    #[test]
    fn nonsense_is_told_what_to_write() {
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
