//! The traffic of a bake in words.

use std::time::Duration;

use crate::model::{Counts, Moment};

/// An idle time above this is reported.
const IDLE_REPORTED_AFTER: Duration = Duration::from_secs(10);

/// The requests that were judged, and how long there have been none.
pub(super) fn traffic_summary(
    counts: &Counts,
    last_request_at: Option<Moment>,
    now: Moment,
) -> String {
    let Counts { server_fault, tool_fault, .. } = *counts;
    let judged = counts.judged();
    let Some(last_request_at) = last_request_at else {
        return "no traffic yet, only probes".to_owned();
    };
    let requests = match (server_fault, tool_fault) {
        (0, 0) => format!("{judged} requests, no fault"),
        _ => format!("{judged} requests, {server_fault} server faults, {tool_fault} tool faults"),
    };
    let idle = now.since(last_request_at);
    match IDLE_REPORTED_AFTER <= idle {
        true => format!("{requests}; no traffic for {} s", idle.as_secs()),
        false => requests,
    }
}
