//! A release is left: its sessions go on at another one, under the id that the client has.

use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Moment, Refusal, Toll};
use rollbackd::proxy::Proxy;
use serde_json::json;

use crate::client::{INITIALIZE, Wire, assert_error, call, header, messages, open, post, say};
use crate::upstream::Mcp;
use crate::{A, B, before, eventually};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#;
const SOON: Duration = Duration::from_secs(20);

/// Two releases, the first in charge, with a session of which the client has said all it says.
async fn with_session() -> (Mcp, Mcp, Proxy, String) {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let mine = begin(&proxy).await;
    (a, b, proxy, mine)
}

async fn begin(proxy: &Proxy) -> String {
    let mine = crate::client::session(proxy.local_addr()).await;
    assert_eq!(post(proxy.local_addr(), INITIALIZED, &mine).await.status, 202);
    mine
}

async fn listen(proxy: &Proxy, mine: &str, more: &str) -> Wire {
    let get = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}{more}\r\n"
    );
    let mut wire = Wire::to(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.head().await.0, 200);
    wire
}

async fn release_of(proxy: &Proxy, mine: &str) -> String {
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), mine).await;
    let answer = reply.json();
    answer["result"]["release"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn the_whole_opening_is_said_again_with_the_credentials_of_the_request() {
    let (a, b, proxy, mine) = with_session().await;
    let to = proxy.local_addr();
    let level =
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#;
    let want =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"x://1"}}"#;
    for body in
        [level, want, &want.replace("x://1", "x://2"), &want.replace("subscribe", "unsubscribe")]
    {
        assert_eq!(post(to, body, &mine).await.status, 200);
    }
    proxy.route(B);
    assert_eq!(release_of(&proxy, &mine).await, "a", "forward, sessions stay");
    let toll = proxy.drain(A, SOON).await;
    assert_eq!(toll, Toll { waiting: 1, soft: true, ..Toll::default() });
    assert!(toll.to_string().contains("beyond the protocol"), "{toll}");
    assert_eq!(b.asked(), 0, "nothing before its next request");
    let headers = format!("{mine}Authorization: Bearer 1\r\nMCP-Protocol-Version: 2025-06-18\r\n");
    let reply = post(to, &call("3", "echo", "{}"), &headers).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    let id = header(&mine, "mcp-session-id").unwrap();
    assert_eq!(reply.header("mcp-session-id").unwrap_or(id), id);
    let said =
        ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"];
    assert_eq!(b.methods(), [&said[..], &["tools/call"]].concat());
    let log = b.log.lock().unwrap().clone();
    let params: serde_json::Value = serde_json::from_str(&log[0].2).unwrap();
    let first: serde_json::Value = serde_json::from_str(INITIALIZE).unwrap();
    assert_eq!(params["params"], first["params"]);
    assert!(log[2].2.contains("error") && log[3].2.contains("x://2"), "{log:?}");
    assert_eq!(log[0].1, "");
    assert!(log[1..].iter().all(|(_, id, _)| id == "b-0"), "{log:?}");
    eventually(
        "the old one to be ended",
        || a.methods().contains(&"DELETE /mcp".to_owned()),
        String::new,
    )
    .await;
    // From now on nothing of that is said again.
    assert_eq!(release_of(&proxy, &mine).await, "b");
    assert_eq!(b.asked(), 6);
    assert_eq!(proxy.load(B, Moment(0)).sessions, 1);
}

#[tokio::test]
async fn a_busy_session_moves_after_its_call_and_an_idle_one_at_once() {
    let (_a, _b, proxy, mine) = with_session().await;
    let idle = begin(&proxy).await;
    let mut wire = open(proxy.local_addr(), &call("1", "wait", r#"{"ms":500}"#), &mine).await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 1, String::new).await;
    proxy.route(B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.drain(A, SOON).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(release_of(&proxy, &idle).await, "b");
    assert_eq!(release_of(&proxy, &mine).await, "a");
    assert_eq!(wire.reply().await.json()["result"]["release"], "a");
    assert_eq!(release_of(&proxy, &mine).await, "b");
    let toll = draining.await.unwrap();
    assert_eq!((toll.ended, toll.moved + toll.waiting), (0, 2), "{toll:?}");
}

#[tokio::test]
async fn requests_that_arrive_during_the_move_wait_and_none_opens_another() {
    let (_a, b, proxy, mine) = with_session().await;
    b.behave(|it| it.slowly = Duration::from_millis(300));
    proxy.route(B);
    proxy.drain(A, SOON).await;
    let mut wires = Vec::new();
    for n in 0..10 {
        wires.push(open(proxy.local_addr(), &call(&n.to_string(), "echo", "{}"), &mine).await);
    }
    for (n, wire) in wires.iter_mut().enumerate() {
        let answer = wire.reply().await.json();
        assert_eq!(
            (answer["id"].as_u64(), &answer["result"]["release"]),
            (Some(n as u64), &json!("b"))
        );
    }
    assert_eq!(b.methods().iter().filter(|it| *it == "initialize").count(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let (_a, b, proxy, mine) = with_session().await;
    b.behave(|it| it.slowly = Duration::from_millis(300));
    proxy.route(B);
    proxy.drain(A, SOON).await;
    let leaver = open(proxy.local_addr(), &call("1", "echo", "{}"), &mine).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(leaver);
    assert_eq!(release_of(&proxy, &mine).await, "b");
    assert_eq!(b.methods().iter().filter(|it| *it == "initialize").count(), 1);
}

#[tokio::test]
async fn the_stream_stays_open_tells_of_the_lists_and_goes_on_at_the_other_release() {
    let (a, b, proxy, mine) = with_session().await;
    let mut stream = listen(&proxy, &mine, "").await;
    stream.until(": open\n\n").await;
    a.tell("id: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n").await;
    assert!(stream.until("notifications/x").await.starts_with("id: 5\n"));
    proxy.route(B);
    let toll = proxy.drain(A, SOON).await;
    assert_eq!((toll.streams, toll.ended, toll.waiting), (0, 0, 1));
    // It hears of it at once, and so comes to ask.
    let told = stream.until("notifications/resources/list_changed").await;
    assert_eq!(
        messages(&told)[0],
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    );
    assert!(!told.contains("prompts"), "the server has none: {told}");
    assert_eq!(release_of(&proxy, &mine).await, "b");
    stream.until("notifications/resources/list_changed").await;
    stream.until(": open\n\n").await;
    b.tell("id: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/y\"}\n\n").await;
    assert!(stream.until("notifications/y").await.starts_with("id: rollbackd~1~5\n"));
    assert_eq!(b.streams.lock().unwrap()[0].0, "b-0");

    // And back again, by a cut.
    proxy.add(A, &Address::Tcp(a.address));
    let again = proxy.route(A);
    assert!(again);
    proxy.cut(B).await;
    assert_eq!(release_of(&proxy, &mine).await, "a");
    stream.until("notifications/resources/list_changed").await;
}

#[tokio::test]
async fn a_stream_that_is_taken_up_with_the_id_of_another_release_begins_anew() {
    let (_a, b, proxy, mine) = with_session().await;
    proxy.route(B);
    proxy.drain(A, SOON).await;
    assert_eq!(release_of(&proxy, &mine).await, "b");
    for last in ["5", "rollbackd~7~5"] {
        let mut stream = listen(&proxy, &mine, &format!("Last-Event-ID: {last}\r\n")).await;
        stream.until(": open\n\n").await;
    }
    // A GET moves its session, too.
    assert_eq!(b.streams.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn news_ride_on_the_next_answer_with_events_where_nobody_listens() {
    let (_a, _b, proxy, mine) = with_session().await;
    proxy.route(B);
    proxy.drain(A, SOON).await;
    assert_eq!(release_of(&proxy, &mine).await, "b");
    for news in [2, 0] {
        let reply = post(proxy.local_addr(), &call("2", "stream", "{}"), &mine).await;
        let told = messages(&reply.text());
        let changed = |it: &&serde_json::Value| {
            it["method"].as_str().is_some_and(|it| it.ends_with("list_changed"))
        };
        assert_eq!(told.iter().filter(changed).count(), news, "{told:?}");
        assert_eq!(told.last().unwrap()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn late_answers_to_the_old_server_reach_nobody_and_new_ones_their_server() {
    let (a, b, proxy, mine) = with_session().await;
    let mut asking = open(proxy.local_addr(), &call("1", "elicit", "{}"), &mine).await;
    asking.head().await;
    asking.until("elicitation/create").await;
    proxy.route(B);
    let toll = proxy.cut(A).await;
    assert_eq!((toll.answered, toll.kept.get(&Refusal::PendingRequest)), (1, Some(&1)));
    assert_error(&messages(&asking.rest().await)[0], 1.into(), "rollback");
    let late = r#"{"jsonrpc":"2.0","id":0,"result":{}}"#;
    assert_eq!(post(proxy.local_addr(), late, &mine).await.status, 202);
    let mut asking = open(proxy.local_addr(), &call("2", "elicit", "{}"), &mine).await;
    asking.head().await;
    let asked = asking.until("elicitation/create").await;
    let asked = messages(&asked).pop().unwrap();
    assert_eq!(asked["id"], "rollbackd~1~0");
    assert_eq!(post(proxy.local_addr(), late, &mine).await.status, 202);
    assert!(a.heard.lock().unwrap().is_empty() && b.heard.lock().unwrap().is_empty());
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}});
    assert_eq!(post(proxy.local_addr(), &answer.to_string(), &mine).await.status, 202);
    assert_eq!(messages(&asking.rest().await)[0]["result"]["release"], "b");
    assert_eq!(b.heard.lock().unwrap()[0]["id"], 0);
}

#[tokio::test]
async fn a_cut_asks_again_what_changes_nothing_and_answers_the_rest() {
    let (a, b, proxy, mine) = with_session().await;
    let slow = |id: &str, method: &str, name: &str| {
        call(id, name, r#"{"ms":60000}"#).replace("tools/call", method)
    };
    let mut safe = Vec::new();
    for name in ["wait", "stream"] {
        for session in [mine.as_str(), ""] {
            let body = slow("7", "tools/list", name);
            safe.push((name, open(proxy.local_addr(), &body, session).await));
        }
    }
    let mut unsafe_one = open(proxy.local_addr(), &slow("8", "tools/call", "wait"), &mine).await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 5, String::new).await;
    eventually("asked", || a.asked() >= 7, String::new).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.route(B);
    let before = tokio::time::Instant::now();
    let toll = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.cut(A).await })
    };
    assert_error(&unsafe_one.reply().await.json(), 8.into(), "rollback");
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
    let toll = toll.await.unwrap();
    assert_eq!((toll.answered, toll.replayed), (1, 4), "{toll:?}");
    eventually(
        "asked again",
        || b.methods().iter().filter(|it| *it == "tools/list").count() == 4,
        String::new,
    )
    .await;
    // They hang there, too, as they were told to; a second cut answers them.
    proxy.cut(B).await;
    for (name, mut wire) in safe {
        let reply = wire.reply().await;
        let answer = match name {
            "stream" => messages(&reply.text()).pop().unwrap(),
            _ => reply.json(),
        };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    }
}

#[tokio::test]
async fn an_answer_that_was_asked_again_comes_as_if_nothing_had_happened() {
    let (_a, _b, proxy, mine) = with_session().await;
    let slow = |name: &str| call("7", name, r#"{"ms":700}"#).replace("tools/call", "tools/list");
    let mut wires = Vec::new();
    for name in ["wait", "stream"] {
        wires.push((name, open(proxy.local_addr(), &slow(name), &mine).await));
    }
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 2, String::new).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.route(B);
    proxy.cut(A).await;
    for (name, mut wire) in wires {
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200);
        let told = match name {
            "stream" => messages(&reply.text()),
            _ => vec![reply.json()],
        };
        let answers: Vec<_> = told.iter().filter(|it| it["id"] == 7).collect();
        assert_eq!(answers.len(), 1, "{told:?}");
        assert_eq!(answers[0]["result"]["release"], "b");
    }
}

#[tokio::test]
async fn a_tool_that_is_known_to_change_nothing_is_asked_again_too() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = crate::with(a.address, |service| {
        service.limits.repeatable_tools = ["stream".to_owned()].into();
    });
    proxy.add(B, &Address::Tcp(b.address));
    let mine = begin(&proxy).await;
    let body = call("7", "stream", r#"{"ms":500}"#);
    let mut wire = open(proxy.local_addr(), &body, &mine).await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 1, String::new).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.route(B);
    assert_eq!(proxy.cut(A).await.replayed, 1);
    let told = messages(&wire.reply().await.text());
    assert_eq!(told.last().unwrap()["result"]["release"], "b");
}

#[tokio::test]
async fn a_session_without_a_server_side_id_moves_both_ways() {
    let (a, b, proxy, mine) = with_session().await;
    b.behave(|it| it.stateless = true);
    proxy.route(B);
    proxy.drain(A, SOON).await;
    assert_eq!(release_of(&proxy, &mine).await, "b");
    assert_eq!(b.log.lock().unwrap().last().unwrap().1, "");
    proxy.add(A, &Address::Tcp(a.address));
    proxy.route(A);
    proxy.drain(B, SOON).await;
    assert_eq!(release_of(&proxy, &mine).await, "a");
}

#[tokio::test]
async fn the_end_of_a_session_needs_no_move() {
    let (a, b, proxy, mine) = with_session().await;
    proxy.route(B);
    proxy.cut(A).await;
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
    assert_eq!(say(proxy.local_addr(), &delete).await.status, 200);
    let reply = post(proxy.local_addr(), LIST, &mine).await;
    assert_eq!((reply.status, reply.json()["id"].as_str()), (404, Some("l")));
    assert_eq!((b.asked(), a.methods().contains(&"DELETE /mcp".to_owned())), (0, false));
}

#[tokio::test]
async fn without_a_release_in_charge_a_session_waits_for_one() {
    let (_a, _b, proxy, mine) = with_session().await;
    proxy.cut(A).await;
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), &mine).await;
    assert_error(&reply.json(), 1.into(), "no_release");
    assert_eq!(reply.json()["error"]["data"]["retryable"], true);
    proxy.route(B);
    assert_eq!(release_of(&proxy, &mine).await, "b");
}

#[tokio::test]
async fn clients_are_promised_that_changes_are_told() {
    let (_a, _b, proxy, _) = with_session().await;
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    let capabilities = &reply.json()["result"]["capabilities"];
    assert_eq!(capabilities["tools"]["listChanged"], true);
    assert_eq!(capabilities["resources"], json!({"subscribe": true, "listChanged": true}));
    assert_eq!(capabilities.get("prompts"), None);
}

#[tokio::test]
async fn sessions_move_forward_where_the_operator_wants_it_and_back_again() {
    let (a, b, proxy, mine) = with_session().await;
    let mut stream = listen(&proxy, &mine, "").await;
    proxy.route(B);
    assert_eq!(release_of(&proxy, &mine).await, "a");
    proxy.yields(Some(A));
    assert_eq!(release_of(&proxy, &mine).await, "b");
    stream.until("list_changed").await;
    // Those that are opened now, too, and none twice.
    assert_eq!(release_of(&proxy, &mine).await, "b");
    let (at_a, at_b) = (proxy.load(A, Moment(0)).sessions, proxy.load(B, Moment(0)).sessions);
    assert_eq!((at_a, at_b), (0, 1));
    proxy.yields(None);
    proxy.route(A);
    let toll = proxy.drain(B, SOON).await;
    assert_eq!(toll.ended, 0, "{toll}");
    assert_eq!(release_of(&proxy, &mine).await, "a");
    let _ = (a, b);
}
