//! What the faults led to, and what clients saw of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use rollbackd::demo::traffic::FailedRequest;
use rollbackd::model::Moment;

use super::kinds::Fault;

/// A fault that happened.
pub(super) struct Round {
    pub(super) fault: &'static Fault,
    pub(super) from: Moment,
    /// When the service was at rest again.
    pub(super) until: Moment,
    pub(super) rss_kib: u64,
    pub(super) files: usize,
    pub(super) wrong: Vec<String>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, rss_kib, files, wrong, .. } = self;
        let took = self.until.since(self.from).as_secs_f64();
        write!(f, "{:8.1} s: {} took {took:.1} s", self.from.0 as f64 / 1e3, fault.name)?;
        write!(f, "; the daemon has {rss_kib} KiB, {files} files")?;
        if wrong.is_empty() { Ok(()) } else { write!(f, "; WRONG: {wrong:?}") }
    }
}

#[derive(Default)]
struct Line {
    times: u32,
    wrong: usize,
    longest: f64,
    seen: BTreeMap<String, u64>,
}

/// The table, and all that was wrong.
pub(super) fn evaluate(rounds: &[Round], failures: &[FailedRequest]) -> (String, Vec<String>) {
    let mut lines: BTreeMap<&str, Line> = BTreeMap::new();
    let mut wrong = Vec::new();
    for round in rounds {
        let line = lines.entry(round.fault.name).or_default();
        line.times += 1;
        line.wrong += round.wrong.len();
        line.longest = line.longest.max(round.until.since(round.from).as_secs_f64());
        wrong.extend(round.wrong.iter().map(|it| format!("{}: {it}", round.fault.name)));
    }
    for failure in failures {
        let open = |round: &&Round| failure.start <= round.until && round.from <= failure.end;
        let allowed = |round: &&Round| round.fault.allows(&failure.reason);
        let mut open_in = rounds.iter().filter(open);
        match open_in.clone().find(allowed).or_else(|| open_in.next_back()) {
            Some(round) => {
                let line = lines.entry(round.fault.name).or_default();
                *line.seen.entry(failure.reason.clone()).or_default() += 1;
                if !allowed(&round) {
                    line.wrong += 1;
                    wrong.push(format!("{}: {failure:?}", round.fault.name));
                }
            }
            None => wrong.push(format!("no fault: {failure:?}")),
        }
    }
    let mut text = "fault                   times wrong longest  seen by clients\n".to_owned();
    for (name, Line { times, wrong, longest, seen }) in &lines {
        let _ = writeln!(text, "{name:<24}{times:>5}{wrong:>6}{longest:>6.1} s  {seen:?}");
    }
    for round in rounds.first().into_iter().chain(rounds.last()) {
        let _ = writeln!(text, "after {:?}: {round}", round.fault.name);
    }
    (text, wrong)
}
