//! The trial in `rollbackd status`.

use crate::control::{ArmStatus, Status, TrialStatus};

/// What `ramp = "auto"` chose, and the trial that is under way.
pub(super) fn trial_lines(status: &Status) -> Vec<String> {
    let mut lines = status.trial.as_ref().map(arm_lines).unwrap_or_default();
    let what = match status.phase.as_str() {
        "steady" => "next deploy",
        "starting" => "ramp",
        _ => "chosen ramp",
    };
    lines.extend(status.ramp.iter().map(|ramp| format!("  {what}: {ramp}")));
    lines
}

/// The step, each arm, what the tests say, and what is missing.
fn arm_lines(trial: &TrialStatus) -> Vec<String> {
    let TrialStatus { step, of, share, arms, summary, missing, sessions_pinned } = trial;
    let percent = (1e6 * share).round() / 1e4;
    let mut lines =
        vec![format!("  ramp: {percent} % of the users, step {step} of {of}; {summary}")];
    for ArmStatus { arm, version, subjects, requests, failed, outcomes } in arms {
        let share = if *requests == 0 {
            String::new()
        } else {
            format!(" ({:.2} %)", 100.0 * (*failed as f64) / (*requests as f64))
        };
        lines.push(format!(
            "    {arm:<8} {version:<10} {subjects} users, {failed} of {requests} requests failed{share}"
        ));
        let kinds = [
            (outcomes.server_fault, "faults of the server"),
            (outcomes.tool_fault, "failed tools"),
            (outcomes.client_fault, "faults of the client"),
            (outcomes.neutral, "of neither"),
        ];
        let kinds: Vec<_> = kinds.iter().filter(|it| 0 < it.0).collect();
        if !kinds.is_empty() {
            let kinds: Vec<_> =
                kinds.iter().map(|(count, kind)| format!("{count} {kind}")).collect();
            lines.push(format!("      all its requests: {}", kinds.join(", ")));
        }
    }
    if let Some(missing) = missing {
        lines.push(format!("    for a verdict: {missing}"));
    }
    if 0 < *sessions_pinned {
        lines.push(format!("    {sessions_pinned} sessions cannot move and take no part"));
    }
    lines
}
