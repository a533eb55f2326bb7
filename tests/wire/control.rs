//! The control protocol between the commands and the daemon, and the output of `status --json`.

use std::collections::BTreeMap;

use rollbackd::control::{
    ArmOutcomes, ArmStatus, CallStatus, ChannelStatus, Counters, Explanation, ExplanationPoint,
    HISTOGRAM_BOUNDS, Histogram, IncidentReply, IncidentRequest, IncidentStatus, LastOutcome,
    RefusalCode, ReleaseStatus, ReloadReport, Request, Response, RollbackCount, SettingValue,
    Status, TrialStatus,
};
use rollbackd::model::{
    Bound, BoundUse, DeployRequest, Evidence, Guard, McpPath, Moment, ReleaseNumber, Slot,
    TimelineEntry, TimelineEvent, Unjudged, Waiver,
};

use crate::examples::{breach, counts};
use crate::golden::hold;
use crate::lines::{lines, still_read};

/// `... least`: 0.1.0 also accepts a request that omits fields with a default.
fn requests() -> Vec<(&'static str, Request)> {
    let (service, because) = (|| "weather".to_owned(), || "why".to_owned());
    let set = BTreeMap::from([("LOG_LEVEL".to_owned(), "debug".to_owned())]);
    let artifact = Some("/opt/weather/v2".to_owned());
    let deploy = DeployRequest {
        service: service(),
        version: "v2".to_owned(),
        artifact,
        environment: set,
        slot: Some(Slot("green".to_owned())),
        freeze: true,
        force: true,
        strict: true,
        wait: true,
        ..DeployRequest::default()
    };
    let least =
        DeployRequest { service: service(), version: "v2".to_owned(), ..DeployRequest::default() };
    let waivers = DeployRequest {
        allow_quarantined: true,
        allow_version_drop: true,
        over_breach: true,
        without_net: true,
        restart: true,
        ..least.clone()
    };
    one_of_each!(Request;
        Request::Deploy(_) =>
            "deploy" Request::Deploy(deploy),
            "deploy least" Request::Deploy(least),
            "deploy waivers" Request::Deploy(waivers);
        Request::Rollback { .. } =>
            "rollback" Request::Rollback {
                service: service(), cut: true, force: true, because: because(), wait: true,
            },
            "rollback least" Request::Rollback {
                service: service(), cut: false, force: false, because: because(), wait: false,
            };
        Request::Promote { .. } => "promote" Request::Promote { service: service(), because: because() };
        Request::Hold { .. } => "hold" Request::Hold { service: service(), because: because() };
        Request::Resume { .. } => "resume" Request::Resume { service: service(), because: because() };
        Request::Status { .. } =>
            "status" Request::Status { service: Some(service()) },
            "status least" Request::Status { service: None };
        Request::Explain { .. } => "explain" Request::Explain { service: service() };
        Request::Reload { .. } => "reload" Request::Reload {};
        Request::Timeline { .. } =>
            "timeline" Request::Timeline { service: service(), deploy: Some(ReleaseNumber(7)), follow: true },
            "timeline least" Request::Timeline { service: service(), deploy: None, follow: false };
        Request::NotifyTest { .. } =>
            "notify test" Request::NotifyTest { channel: Some("pager".to_owned()) },
            "notify test least" Request::NotifyTest { channel: None };
        Request::Incident { .. } => "incident" Request::Incident {
            request: IncidentRequest::List { service: Some(service()), open: true },
        };
    )
}

fn codes() -> Vec<(&'static str, RefusalCode)> {
    one_of_each!(RefusalCode;
        RefusalCode::Busy => "busy" RefusalCode::Busy;
        RefusalCode::Refused => "refused" RefusalCode::Refused;
        RefusalCode::NotFound => "unknown" RefusalCode::NotFound;
        RefusalCode::Failed => "failed" RefusalCode::Failed;
        RefusalCode::Forbidden => "forbidden" RefusalCode::Forbidden;
        RefusalCode::Malformed => "malformed" RefusalCode::Malformed;
        RefusalCode::InvalidConfig => "invalid config" RefusalCode::InvalidConfig;
    )
}

fn entry() -> TimelineEntry {
    TimelineEntry {
        seq: 4,
        wall_time: "2023-11-14T22:13:20.000000Z".to_owned(),
        moment: Moment(1_700_000_000_000),
        since_deploy_ms: 8_681,
        service: "weather".to_owned(),
        deploy: ReleaseNumber(7),
        because: "why".to_owned(),
        event: TimelineEvent::Blocked { guard: Guard::Limit, verdict: breach() },
        planned_effects: vec!["keep v7".to_owned()],
    }
}

fn responses() -> Vec<(&'static str, Response)> {
    let refused =
        || Response::Refused { code: RefusalCode::Busy, because: "why".to_owned(), waiver: None };
    let waivable = || Response::Refused {
        code: RefusalCode::Refused,
        because: "why".to_owned(),
        waiver: Some(Waiver::WithoutNet),
    };
    one_of_each!(Response;
        Response::Accepted { .. } =>
            "accepted" Response::Accepted { deploy: ReleaseNumber(7), because: "why".to_owned() };
        Response::Unchanged { .. } =>
            "unchanged" Response::Unchanged { deploy: ReleaseNumber(7), because: "why".to_owned() };
        Response::Refused { .. } => "refused" refused(), "refused waivable" waivable();
        Response::Event(_) => "entry" Response::Event(Box::new(entry()));
        Response::Warning { .. } => "warning" Response::Warning { because: "why".to_owned() };
        Response::Notified { .. } => "notified" Response::Notified {
            channel: "pager".to_owned(), ok: true, because: "202 Accepted".to_owned(),
        };
        Response::Explanation { .. } =>
            "explanation" Response::Explanation { explanation: explanation() };
        Response::Reloaded { .. } => "reloaded" Response::Reloaded {
            report: ReloadReport {
                now: vec!["weather.mode".to_owned()],
                next_deploy: vec!["weather.burst".to_owned()],
                restart: vec!["daemon.metrics".to_owned()],
                unconfirmed: vec!["other".to_owned()],
            },
        };
        Response::Incident { .. } => "incident" Response::Incident {
            reply: IncidentReply::Done { because: "why".to_owned() },
        };
        Response::Status(_) =>
            "status" Response::Status(Box::new(status())),
            "status incidents" Response::Status(Box::new(with_incidents())),
            "status channels" Response::Status(Box::new(with_channels())),
            "status least" Response::Status(Box::new(least())),
            "status unjudged" Response::Status(Box::new(with_unjudged()));
    )
}

fn explanation() -> Explanation {
    let point = |topic: &str, text: &str| ExplanationPoint {
        topic: topic.to_owned(),
        text: text.to_owned(),
    };
    let setting = |name: &str, value: &str, awaits_deploy| SettingValue {
        name: name.to_owned(),
        value: value.to_owned(),
        awaits_deploy,
    };
    Explanation {
        service: "weather".to_owned(),
        state: "baking: watches v7".to_owned(),
        points: vec![
            point("why not accepted", "318 requests are too few to say that v7 is good"),
            point("accepted", "in 12 min, if no breach is found until then"),
        ],
        settings: vec![setting("bake", "\"30m\"", false), setting("burst", "\"5s\"", true)],
    }
}

fn spread() -> Histogram {
    let within: [u64; HISTOGRAM_BOUNDS.len()] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    Histogram { buckets: within, count: 56, sum_s: 1234.5, last_s: 0.25, max_s: 130.5 }
}

fn totals() -> Counters {
    let count = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).zip(1..).collect();
    Counters {
        events: count(&["accepted", "deployed"]),
        drains: 3,
        cuts: 4,
        operator_ordered: 5,
        blocked: count(&["hold", "rollback limit"]),
        rollback_steps: ["decided", "emptied"].map(|it| (it.to_owned(), spread())).into(),
        timeline_writes: spread(),
        timeline_write_failures: 6,
    }
}

fn release(number: u32, role: &str, calls: Vec<CallStatus>) -> ReleaseStatus {
    ReleaseStatus {
        version: format!("v{number}"),
        number: ReleaseNumber(number),
        slot: "green".to_owned(),
        role: role.to_owned(),
        probe: "ok".to_owned(),
        sessions: 12,
        sse_sessions: 0,
        in_flight: 13,
        rate: 14.5,
        error_rate: 0.25,
        recent_requests: Some(900),
        counts: counts(),
        unjudged: Unjudged::default(),
        calls,
    }
}

fn status() -> Status {
    let call = CallStatus {
        method: "tools/call".to_owned(),
        name: "forecast".to_owned(),
        counts: counts(),
    };
    let evidence = Evidence {
        objective: "availability".to_owned(),
        e_value: 2.5,
        threshold: 2000.0,
        judged: 318,
        bad: 62,
    };
    Status {
        service: "weather".to_owned(),
        listen: "127.0.0.1:8080".to_owned(),
        mode: "act".to_owned(),
        deploy: ReleaseNumber(7),
        phase: "baking".to_owned(),
        waits_for: "watches v7".to_owned(),
        since_s: 1.5,
        remaining_s: Some(2.5),
        hold: Some("a migration runs (uid 1000 (pid 4242))".to_owned()),
        active: Some("v7".to_owned()),
        warm: Some("v6".to_owned()),
        releases: vec![release(7, "active", vec![call]), release(6, "warm", Vec::new())],
        objective: 0.995,
        evidence: Some(evidence),
        verdict: Some("healthy: why".to_owned()),
        rule: Some("broken objective, evidence 2230 of 1667".to_owned()),
        finding: Some("healthy".to_owned()),
        budget_remaining: 7.5,
        rollbacks: Some(RollbackCount { today: 3, limit: 3, none_left_s: Some(7_200.0) }),
        awaits_deploy: vec!["probe.every".to_owned()],
        awaits_restart: vec!["listen".to_owned(), "daemon.metrics".to_owned()],
        quarantine: vec!["v5".to_owned()],
        error: Some("the disk is full".to_owned()),
        mcp_paths: Vec::new(),
        near_limits: Vec::new(),
        counters: totals(),
        journal_lost: 8,
        last: Some(LastOutcome {
            kind: "rolled_back".to_owned(),
            deploy: ReleaseNumber(6),
            at: "2023-11-14T22:13:20.000000Z".to_owned(),
            since_s: 60.5,
            text: "rolled back from v6 to v5 in 0.4 s: why".to_owned(),
            rule: Some("failed probes".to_owned()),
        }),
        attention: Some("repair it".to_owned()),
        budget_requests: Some(1_500),
        trial: None,
        ramp: None,
        incidents: None,
        channels: Vec::new(),
        notify_error: None,
    }
}

/// With what 0.1.0 did not know.
fn with_unjudged() -> Status {
    let unjudged = Unjudged {
        not_mcp: 12,
        not_mcp_4xx: 13,
        not_mcp_5xx: 14,
        unread: 16,
        own_shortage: 17,
        rate_limited: 18,
    };
    Status {
        releases: vec![ReleaseStatus {
            unjudged,
            sse_sessions: 5,
            ..release(7, "active", Vec::new())
        }],
        mcp_paths: vec![McpPath { path: "/alias".to_owned(), requests: 15, judged: true }],
        near_limits: vec![
            BoundUse::new(Bound::SessionMemory, 130_000, 131_072),
            BoundUse {
                address: Some("192.0.2.1".to_owned()),
                ..BoundUse::new(Bound::ConnectionsPerAddress, 4_900, 5_000)
            },
        ],
        ..least()
    }
}

/// With open reviews, which 0.1.0 did not have.
fn with_incidents() -> Status {
    Status {
        trial: Some(TrialStatus {
            step: 2,
            of: 3,
            share: 0.25,
            arms: vec![arm("control", "v1"), arm("trial", "v2")],
            summary: "2 of 2 users failed first on trial, 1 in 9 by the coin".to_owned(),
            missing: Some("7 more requests on trial, about 3 s at this traffic".to_owned()),
            sessions_pinned: 4,
        }),
        ramp: Some("5 %, 25 %, 50 % of the users: 213 active sessions can move".to_owned()),
        incidents: Some(IncidentStatus {
            open: 9,
            oldest: (ReleaseNumber(3), 10),
            overdue: true,
            unacknowledged: Some(ReleaseNumber(7)),
            error: Some("the disk is full".to_owned()),
        }),
        ..least()
    }
}

/// With notification channels, which 0.1.0 did not have.
fn with_channels() -> Status {
    let channel = ChannelStatus {
        name: "pager".to_owned(),
        channel_type: "pagerduty".to_owned(),
        waiting: 2,
        delivered: 11,
        failed: 4,
        failing_s: Some(180),
        error: Some("401 Unauthorized".to_owned()),
    };
    Status { channels: vec![channel], notify_error: Some("the disk is full".to_owned()), ..least() }
}

/// A response as 0.1.0 could give it.
fn without_what_is_new(response: Response) -> Response {
    let Response::Status(mut status) = response else { return response };
    (status.last, status.attention, status.budget_requests) = (None, None, None);
    status.rollbacks = None;
    status.awaits_deploy.clear();
    status.awaits_restart.clear();
    status.rule = None;
    status.releases.iter_mut().for_each(|release| release.recent_requests = None);
    Response::Status(status)
}

fn least() -> Status {
    Status {
        remaining_s: None,
        hold: None,
        active: None,
        warm: None,
        releases: Vec::new(),
        evidence: None,
        verdict: None,
        rule: None,
        finding: None,
        rollbacks: None,
        awaits_deploy: Vec::new(),
        awaits_restart: Vec::new(),
        quarantine: Vec::new(),
        error: None,
        counters: Counters::default(),
        journal_lost: 0,
        last: None,
        attention: None,
        budget_requests: None,
        trial: None,
        incidents: None,
        ..status()
    }
}

#[test]
fn every_message_is_as_it_was() {
    hold("control-requests.txt", &lines(&requests()));
    hold("control-replies.txt", &lines(&responses()));
    hold("control-codes.txt", &lines(&codes()));
}

#[test]
fn old_messages_are_still_read() {
    still_read(include_str!("0.1.0/control-requests.txt"), &requests());
    let responses: Vec<_> =
        responses().into_iter().map(|(name, it)| (name, without_what_is_new(it))).collect();
    still_read(include_str!("0.1.0/control-replies.txt"), &responses);
    still_read(include_str!("0.1.0/control-codes.txt"), &codes());
}

fn arm(arm: &str, version: &str) -> ArmStatus {
    let (arm, version) = (arm.to_owned(), version.to_owned());
    let outcomes = ArmOutcomes { server_fault: 2, tool_fault: 1, client_fault: 3, neutral: 4 };
    ArmStatus { arm, version, subjects: 30, requests: 400, failed: 2, outcomes }
}
