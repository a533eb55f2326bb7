//! One deploy as the tests of the rules need it: v2 fails 62 of 318 requests and is rolled back.
//!
//! The events are JSON, as on disk, so that a field more in the model changes nothing here.

use serde_json::{Value, json};

use crate::incident::facts::{FACTS_SCHEMA, Facts};
use crate::incident::report::{Report, SignatureCount, Week};
use crate::incident::traffic::{CallTraffic, Point, ReleaseTraffic, Traffic};
use crate::model::{Counts, Guard, Moment, ReleaseNumber, TimelineEntry, TimelineEvent, Waiver};

/// When the deploy began.
pub(super) const BEGAN: u64 = 1_700_000_000_000;

fn release(number: u32) -> Value {
    json!({"version": format!("v{number}"), "number": number, "slot": "green"})
}

fn verdict() -> Value {
    json!({
        "release": 2, "finding": {"is": "breach", "severity": "degraded"},
        "because": "availability: 62 of 318 requests bad (19.5 %, allowed 0.5 %)",
        "onset": BEGAN + 3_000, "failure_rate_lower": 0.165, "request_rate": 50.0,
    })
}

fn entry(seq: u64, ms: u64, because: &str, event: Value) -> TimelineEntry {
    let mut line = json!({
        "seq": seq, "at": "2023-11-14T22:13:20.000000Z", "moment": BEGAN + ms, "ms": ms,
        "service": "weather", "deploy": 2, "because": because,
    });
    for (key, value) in event.as_object().unwrap() {
        line[key] = value.clone();
    }
    serde_json::from_value(line).unwrap()
}

fn deployed() -> TimelineEntry {
    let data = json!({
        "release": release(2), "frozen": false, "forced": false,
        "by": {"uid": 1000, "pid": 7}, "base": {"active": release(1)},
    });
    entry(1, 0, "v2 deployed by uid 1000 (pid 7)", json!({"kind": "deployed", "data": data}))
}

/// The timeline of a rollback.
pub(super) fn timeline() -> Vec<TimelineEntry> {
    let load = json!({
        "sessions": 9, "pinned": 2, "in_flight": 3, "request_rate": 50.0, "mean_session_s": 60.0,
    });
    let detected = json!({"verdict": verdict(), "load": load, "order": null});
    let cost = json!({
        "error_responses": 1, "sessions_ended": 0, "streams_closed": 0, "sessions_migrated": 7,
        "sessions_to_migrate": 2,
    });
    let decided = json!({"strategy": "drain", "severity": "degraded"});
    vec![
        deployed(),
        entry(2, 300, "v2 is ready", json!({"kind": "ready", "data": {"contract": null}})),
        entry(
            3,
            314,
            "v2 has the traffic, v1 stays warm",
            json!({"kind": "switched", "data": {"to": 2}}),
        ),
        entry(
            4,
            8_681,
            "v2 is degraded: availability: 62 of 318 requests bad (19.5 %, allowed 0.5 %)",
            json!({"kind": "detected", "data": detected}),
        ),
        entry(
            5,
            8_690,
            "v1 answers; drain (expected failures: drain 0, cut 3)",
            json!({"kind": "decided", "data": decided}),
        ),
        entry(6, 8_691, "v1 has the traffic", json!({"kind": "switched", "data": {"to": 1}})),
        entry(
            7,
            9_100,
            "v2 has nothing in flight",
            json!({"kind": "drained", "data": {"cost": cost}}),
        ),
        entry(
            8,
            9_931,
            "v1 meets its objectives again: 131 requests in 1249 ms, no fault",
            json!({"kind": "recovered"}),
        ),
    ]
}

/// The timeline of a release that never had traffic.
pub(super) fn failed_start(because: &str) -> Vec<TimelineEntry> {
    vec![deployed(), entry(2, 10_000, because, json!({"kind": "failed"}))]
}

/// The facts of the rollback.
pub(super) fn facts() -> Facts {
    let counts = |ok, server_fault| Counts { ok, server_fault, ..Counts::default() };
    let call = |name: &str, counts| CallTraffic { call: name.to_owned(), counts };
    let at = |ms| Some(Moment(BEGAN + ms));
    let trial = ReleaseTraffic {
        release: ReleaseNumber(2),
        counts: counts(256, 62),
        first_bad: at(3_250),
        last_bad: at(8_650),
        calls: vec![
            call("tools/call forecast", counts(120, 34)),
            call("tools/call alerts", counts(136, 28)),
        ],
        probes: (8, 0, Vec::new()),
        series: vec![
            Point { ms: 0, judged: 100, bad: 0 },
            Point { ms: 4_000, judged: 218, bad: 62 },
        ],
        ..ReleaseTraffic::default()
    };
    let control = ReleaseTraffic {
        release: ReleaseNumber(1),
        counts: counts(40, 0),
        probes: (8, 0, Vec::new()),
        ..ReleaseTraffic::default()
    };
    let traffic = Traffic {
        opened: Moment(BEGAN + 314),
        last: Moment(BEGAN + 9_931),
        releases: vec![control, trial],
    };
    let settings = [("probe.kind", "mcp"), ("drain_timeout", "30s"), ("objective", "99.5%")];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Facts {
        schema: FACTS_SCHEMA,
        timeline: timeline(),
        traffic: Some(traffic),
        settings,
        ..Facts::default()
    }
}

/// The traffic of v2.
pub(super) fn trial(facts: &mut Facts) -> &mut ReleaseTraffic {
    let releases = &mut facts.traffic.as_mut().unwrap().releases;
    releases.iter_mut().find(|it| it.release == ReleaseNumber(2)).unwrap()
}

/// Sets the counts of one call of v2, and puts it in its place.
pub(super) fn set_call(facts: &mut Facts, call: &str, counts: Counts) {
    let trial = trial(facts);
    trial.calls.retain(|it| it.call != call);
    trial.calls.push(CallTraffic { call: call.to_owned(), counts });
    trial.calls.sort_by_key(|it| {
        std::cmp::Reverse((it.counts.server_fault + it.counts.tool_fault, it.counts.client_fault))
    });
}

/// v2 requires an argument that v1 did not.
pub(super) fn require_city(facts: &mut Facts) {
    let breaking = json!({
        "part": "tool", "name": "forecast", "change": "requires `city` in", "calls": 40,
    });
    let changes = json!({"servers": ["weather 1", "weather 2"], "breaking": [breaking]});
    let ready = json!({"kind": "ready", "data": {"contract": null, "changes": changes}});
    facts.timeline[1] = entry(2, 300, "v2 is ready", ready);
}

/// A guard blocked the rollback.
pub(super) fn block(facts: &mut Facts, guard: Guard) {
    let data = json!({"guard": guard, "verdict": verdict()});
    facts.timeline.truncate(3);
    let because = format!("v2 is degraded: 62 of 318 requests bad; no rollback: {guard}");
    facts.timeline.push(entry(4, 8_681, &because, json!({"kind": "blocked", "data": data})));
}

/// One user fails, all others are served: the bake goes on.
pub(super) fn fail_for_one_user(facts: &mut Facts) {
    let mut verdict = verdict();
    verdict["finding"] = json!({"is": "one_user"});
    let found = "availability: 12 of 40 of one user, 0 of 300 of all others";
    verdict["because"] = json!(found);
    let data = json!({"guard": Guard::OneUser, "verdict": verdict});
    facts.timeline.truncate(3);
    let because = format!("v2 fails for one user: {found}; no rollback");
    facts.timeline.push(entry(4, 8_681, &because, json!({"kind": "blocked", "data": data})));
    facts.timeline[3].planned_effects = vec!["page".to_owned()];
}

/// The answers to a call differ from those of the release before, in what the name of the objective says.
pub(super) fn answer_differently(facts: &mut Facts, name: &str) {
    let mut verdict = verdict();
    let found = format!("{name}: 45 of 50 requests bad (90.0 %, allowed 5 % as before)");
    verdict["finding"] = json!({"is": "differs"});
    verdict["because"] = json!(found);
    verdict["basis"] = json!({"rule": "broken_objective", "objective": {
        "name": name, "requests": 50, "bad": 45, "allowed": 0.05, "allowed_as_before": true,
        "e_value": 2_000.0, "threshold": 1_000.0,
    }});
    let data = json!({"guard": Guard::Differs, "verdict": verdict});
    facts.timeline.truncate(3);
    let because = format!("v2 answers differently: {found}; no rollback");
    facts.timeline.push(entry(4, 8_681, &because, json!({"kind": "blocked", "data": data})));
    facts.timeline[3].planned_effects = vec!["page".to_owned()];
}

/// Adds an event at the end, ten seconds after the last one.
pub(super) fn then(facts: &mut Facts, because: &str, event: Value) {
    let last = facts.timeline.last().map_or((1, 0), |it| (it.seq, it.since_deploy_ms));
    facts.timeline.push(entry(last.0 + 1, last.1 + 10_000, because, event));
}

/// An incident with the causes of a timeline.
pub(super) fn incident_of(facts: &Facts) -> crate::incident::Incident {
    let causes = facts
        .timeline
        .iter()
        .filter_map(|it| Some((crate::incident::cause_of(it)?, it.moment, it.because.clone())));
    crate::incident::Incident { causes: causes.collect(), ..incident() }
}

/// Changes the deploy event.
pub(super) fn set_forced(facts: &mut Facts) {
    if let TimelineEvent::Deployed { forced, .. } = &mut facts.timeline[0].event {
        *forced = true;
    }
}

/// Sets the guards that the deploy waived.
pub(super) fn set_waived(facts: &mut Facts, needed: &[Waiver]) {
    if let TimelineEvent::Deployed { waived, .. } = &mut facts.timeline[0].event {
        *waived = needed.to_vec();
    }
}

/// The incident of the rollback.
pub(super) fn incident() -> crate::incident::Incident {
    use crate::incident::{Cause, Incident, IncidentState};
    Incident {
        service: "weather".to_owned(),
        number: ReleaseNumber(2),
        version: "v2".to_owned(),
        state: IncidentState::Draft,
        opened: Moment(BEGAN + 8_681),
        causes: vec![(Cause::Rollback, Moment(BEGAN + 8_681), timeline()[3].because.clone())],
        ..Incident::default()
    }
}

/// A report with one hostile signature.
pub(super) fn report() -> Report {
    let week = |monday: &str, deploys, failed| Week { monday: monday.into(), deploys, failed };
    Report {
        from: "2026-08-29".to_owned(),
        to: "2026-11-27".to_owned(),
        services: vec!["weather".to_owned()],
        deploys: 40,
        failed_deploys: 3,
        signatures: vec![SignatureCount {
            service: "weather".into(),
            signature: "server fault of <script>".into(),
            incidents: 2,
            newest: ReleaseNumber(41),
        }],
        weeks: vec![week("2026-11-09", 40, 3), week("2026-11-16", 0, 0), week("2026-11-23", 1, 1)],
        ..Report::default()
    }
}
