//! A ramp: subjects meet the release on trial by their coin, live sessions move, and all go back.

use std::path::Path;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::config::{Address, SessionState};
use rollbackd::decide::RampShares;
use rollbackd::model::{Arm, Counts, Moment, RampStep, ReleaseNumber};
use rollbackd::proxy::{AssignmentPlan, Proxy};

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{header, open_session, post, tool_call};
use crate::migration::open_session as open_initialized;
use crate::{KEY, RELEASE_A, RELEASE_B, test_service};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Release b is on trial, with this part of the subjects.
fn plan(below_ppm: u32) -> AssignmentPlan {
    AssignmentPlan {
        trial: RELEASE_B,
        control: RELEASE_A,
        step: RampStep { step: 1, of: 3, share_ppm: below_ppm, below_ppm },
        since: Moment(0),
        moves_sessions: true,
        counts_tools: true,
    }
}

fn start(file: &Path, [a, b]: [&FakeMcpServer; 2]) -> Proxy {
    let clock = Clock::start(Moment(0));
    let mut service = test_service("test");
    service.policy.ramp.shares = RampShares::Listed(vec![500_000]);
    let proxy = Proxy::restore(&service, KEY, clock, Some(file)).unwrap();
    proxy.add_release(RELEASE_A, &Address::Tcp(a.address));
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    proxy.set_active(RELEASE_A);
    proxy
}

/// The release that answers in each of these sessions; the client sees its own id only.
async fn served_by(proxy: &Proxy, sessions: &[String]) -> Vec<String> {
    let mut releases = Vec::new();
    for mine in sessions {
        let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), mine).await;
        let answer = reply.json();
        let release = answer["result"]["release"].as_str();
        releases.push(release.unwrap_or_else(|| panic!("{answer}")).to_owned());
        let id = header(mine, "mcp-session-id").unwrap();
        assert_eq!(reply.header("mcp-session-id").unwrap_or(id), id);
    }
    releases
}

async fn open_many(proxy: &Proxy, n: usize) -> Vec<String> {
    let mut sessions = Vec::new();
    for _ in 0..n {
        sessions.push(open_initialized(proxy).await);
    }
    sessions
}

fn on(release: &str, releases: &[String]) -> usize {
    releases.iter().filter(|it| *it == release).count()
}

#[tokio::test]
async fn live_sessions_go_forward_by_their_coin_and_all_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&file, [&a, &b]);
    let sessions = open_many(&proxy, 40).await;
    assert_eq!(on("a", &served_by(&proxy, &sessions).await), 40);

    assert!(proxy.assign(&plan(400_000)));
    let first = served_by(&proxy, &sessions).await;
    assert!((5..=30).contains(&on("b", &first)), "{first:?}");
    assert_eq!(served_by(&proxy, &sessions).await, first, "the arm is the same every time");

    assert!(proxy.assign(&plan(800_000)));
    let second = served_by(&proxy, &sessions).await;
    let back = first.iter().zip(&second).filter(|(was, is)| *was == "b" && *is == "a").count();
    assert_eq!((back, on("b", &first) < on("b", &second)), (0, true), "forward only: {second:?}");

    proxy.set_active(RELEASE_A);
    let cost = proxy.drain(RELEASE_B, DRAIN_TIMEOUT).await;
    assert_eq!((cost.sessions_ended, cost.error_responses), (0, 0), "{cost}");
    assert_eq!(on("a", &served_by(&proxy, &sessions).await), 40, "all are back");
}

/// No client sees it: without this, a release that refuses everybody is one without traffic.
#[tokio::test]
async fn a_session_that_only_the_trial_does_not_open_stays_and_counts_against_it() {
    for (status, class) in [(401, "client"), (404, "client"), (500, "server"), (429, "neutral")] {
        a_session_that_only_the_trial_refuses(status, class).await;
    }
}

async fn a_session_that_only_the_trial_refuses(status: u16, class: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&dir.path().join("sessions.jsonl"), [&a, &b]);
    let sessions = open_many(&proxy, 20).await;
    b.set_behaviour(|it| it.initialize_status = status);
    assert!(proxy.assign(&plan(500_000)));
    assert_eq!(on("a", &served_by(&proxy, &sessions).await), 20);
    let on_trial = b.methods().iter().filter(|it| *it == "initialize").count() as u64;
    assert!((2..=18).contains(&on_trial), "{on_trial}");
    let refused = proxy.counts(RELEASE_B);
    let of_class = |name: &str| if class == name { on_trial } else { 0 };
    let (client_fault, server_fault) = (of_class("client"), of_class("server"));
    assert_eq!(refused, Counts { client_fault, server_fault, ..Counts::default() }, "{status}");
    let cells = proxy.take_trial_cells();
    let trial = || cells.iter().filter(|it| it.arm == Arm::Trial);
    assert_eq!(trial().map(|it| u64::from(it.excused)).sum::<u64>(), client_fault, "{cells:?}");
    assert_eq!(trial().map(|it| u64::from(it.failed)).sum::<u64>(), server_fault, "{cells:?}");

    // Where the previous release does not serve them either, the credentials may be bad.
    for mine in &sessions {
        post(proxy.local_addr(), &tool_call("2", "fail", "{}"), mine).await;
    }
    assert_eq!(proxy.counts(RELEASE_B), refused);
}

#[tokio::test]
async fn new_sessions_and_their_arms_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&file, [&a, &b]);
    assert!(proxy.assign(&plan(500_000)));
    let sessions = open_many(&proxy, 30).await;
    let arms = served_by(&proxy, &sessions).await;
    assert!((4..=26).contains(&on("b", &arms)), "{arms:?}");
    let moves = |server: &FakeMcpServer| {
        server.methods().iter().filter(|method| *method == "initialize").count()
    };
    assert_eq!(moves(&a) + moves(&b), 30, "each was opened where it belongs");

    // Nothing is told to the first daemon: this is what is left of it after kill -9.
    let again = start(&file, [&a, &b]);
    assert!(again.assign(&plan(500_000)));
    assert_eq!(served_by(&again, &sessions).await, arms);
    assert_eq!(moves(&a) + moves(&b), 30, "none had to move");
}

#[tokio::test]
async fn sessions_that_may_not_move_stay_and_do_not_count() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let proxy = start(&dir.path().join("sessions.jsonl"), [&a, &b]);
    let sessions = open_many(&proxy, 3).await;
    let clock = Clock::start(Moment(0)).now();
    // Assigned later than they were opened.
    let since = clock + Duration::from_secs(3_600);
    assert!(proxy.assign(&AssignmentPlan { moves_sessions: false, since, ..plan(1_000_000) }));
    assert_eq!(on("a", &served_by(&proxy, &sessions).await), 3);
    assert!(proxy.take_trial_cells().is_empty());
    let new = open_session(proxy.local_addr()).await;
    assert_eq!(served_by(&proxy, &[new]).await, ["b"], "a new one has a coin");
}

fn sessions_of(proxy: &Proxy, active: ReleaseNumber, now: Moment) -> u64 {
    let users = proxy.active_users(active, now);
    assert_eq!(users.clients, 0, "each has a session");
    users.sessions
}

/// What an automatic ramp goes by: sessions that are there and can move.
#[tokio::test]
async fn only_active_sessions_that_can_move_would_take_part() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&file, [&a, &b]);
    let sessions = open_many(&proxy, 5).await;
    served_by(&proxy, &sessions).await;
    let now = Clock::start(Moment(0)).now();
    assert_eq!(sessions_of(&proxy, RELEASE_A, now), 5);
    assert_eq!(sessions_of(&proxy, RELEASE_B, now), 0);
    assert_eq!(sessions_of(&proxy, RELEASE_A, now + Duration::from_secs(301)), 0, "idle");

    // After a restart it is not known which of them are still there.
    let again = start(&file, [&a, &b]);
    assert_eq!((again.load(RELEASE_A, now).sessions, sessions_of(&again, RELEASE_A, now)), (5, 0));
    served_by(&again, &sessions[..2]).await;
    assert_eq!(sessions_of(&again, RELEASE_A, now), 2);
    // Those of a release that is gone move at their next request, and meet the ramp then.
    again.set_active(RELEASE_B);
    assert_eq!(sessions_of(&again, RELEASE_B, now), 0);
    again.remove_release(RELEASE_A).await;
    assert_eq!(sessions_of(&again, RELEASE_B, now), 2);

    let mut service = test_service("test");
    service.session_state = SessionState::Hard;
    again.configure(&service);
    assert_eq!(sessions_of(&again, RELEASE_B, now), 0);
}

/// Clients of an era without sessions count by their credentials, once each, if they are served.
#[tokio::test]
async fn active_clients_without_a_session_are_counted_before_and_in_a_ramp() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&dir.path().join("sessions.jsonl"), [&a, &b]);
    let now = Clock::start(Moment(0)).now();
    let clients = || proxy.active_users(RELEASE_A, now).clients;
    let send = async |client: usize, call: &str| {
        let headers =
            format!("MCP-Protocol-Version: 2026-07-28\r\nAuthorization: Bearer {client}\r\n");
        post(proxy.local_addr(), call, &headers).await
    };
    for client in (0..25).chain(0..25) {
        assert_eq!(send(client, &tool_call("1", "echo", "{}")).await.status, 200);
    }
    assert_eq!(clients(), 25);
    // Who opens a session is counted by it, and who asks for nonsense is not served.
    served_by(&proxy, &[open_initialized(&proxy).await]).await;
    send(100, "no JSON").await;
    assert_eq!(clients(), 25);

    assert!(proxy.assign(&plan(500_000)));
    for client in 20..30 {
        send(client, &tool_call("1", "echo", "{}")).await;
    }
    assert_eq!(clients(), 30);
    // Five minutes of blocks later they are idle.
    for _ in 0..1_200 {
        for release in [RELEASE_A, RELEASE_B] {
            proxy.take_failing_sources(release);
        }
    }
    assert_eq!(clients(), 0);
}

#[tokio::test]
async fn requests_count_for_their_arm_call_and_outcome() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let proxy = start(&dir.path().join("sessions.jsonl"), [&a, &b]);
    assert!(proxy.take_trial_cells().is_empty());
    assert!(proxy.assign(&plan(500_000)));
    let sessions = open_many(&proxy, 12).await;
    proxy.take_trial_cells();
    let arms = served_by(&proxy, &sessions).await;
    let cells = proxy.take_trial_cells();
    let of = |arm| cells.iter().filter(|it| it.arm == arm).map(|it| it.started).sum::<u32>();
    assert_eq!(of(Arm::Trial) as usize, on("b", &arms));
    assert_eq!(of(Arm::Control) as usize, on("a", &arms));
    assert!(cells.iter().all(|it| it.failed == 0 && it.excused == 0), "{cells:?}");
    let calls: std::collections::BTreeSet<_> = cells.iter().map(|it| it.call).collect();
    assert_eq!(calls.len(), 1, "one tool");
}

#[tokio::test]
async fn calls_that_failed_before_the_trial_are_known() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let proxy = start(&dir.path().join("sessions.jsonl"), [&a, &b]);
    let sessions = open_many(&proxy, 2).await;
    for _ in 0..3 {
        served_by(&proxy, &sessions).await;
        let reply = post(proxy.local_addr(), &tool_call("1", "wrong", "{}"), &sessions[0]).await;
        assert_eq!(reply.json()["result"]["isError"], true);
    }
    assert!(proxy.assign(&plan(500_000)));
    let known = proxy.take_known_failing();
    assert_eq!(known.len(), 1, "one session, in one tool: {known:?}");
    assert!(proxy.take_known_failing().is_empty(), "told once");
    proxy.take_trial_cells();
    served_by(&proxy, &sessions[..1]).await;
    let cells = proxy.take_trial_cells();
    // The session's subject in the trial is the one that is known.
    assert!(cells.iter().all(|it| it.subject == known[0].0 && it.call != known[0].1), "{cells:?}");
    assert!(cells.iter().all(|it| it.client != it.subject), "the client is the address: {cells:?}");
}
