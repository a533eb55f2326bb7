//! A release that breaks after its bake: the operator is paged, or it is rolled back.

use std::sync::atomic::Ordering;

use crate::one_user::Releases;
use crate::support::wait_until;

fn accepted_and_broken(settings: &str) -> Releases {
    let releases = Releases::start(&format!("bake = \"10s\"\n{settings}"));
    releases.deploy_v2();
    let host = &releases.host;
    wait_until("the end of the bake", || host.kinds(2).contains(&"accepted"));
    releases.broken.store(true, Ordering::Relaxed);
    releases
}

#[test]
fn a_breach_after_the_bake_pages_once_and_a_person_goes_back() {
    let mut releases = accepted_and_broken("");
    let _users = releases.users();
    wait_until("a report", || releases.host.kinds(2).contains(&"blocked"));
    let host = &mut releases.host;
    wait_until("a page", || host.log().contains("page=true"));
    let shown = host.run_cli(&["status", "weather"]).out;
    assert!(shown.contains("`rollbackd rollback weather` goes back to v1"), "{shown}");
    let why = host.run_cli(&["explain", "weather"]).out;
    assert!(why.contains("in breach: v2, whose bake is over"), "{why}");
    wait_until("an incident", || host.run_cli(&["incidents"]).out.contains("weather"));
    wait_until("a draft", || {
        host.run_cli(&["postmortem", "weather", "2"]).out.contains("State: draft")
    });
    let draft = host.run_cli(&["postmortem", "weather", "2"]).out;
    assert!(draft.contains("in breach after its bake"), "{draft}");
    assert!(!draft.contains("none of"), "{draft}");
    host.kill();
    host.start();
    let shown = host.run_cli(&["status", "weather"]).out;
    assert!(shown.contains("`rollbackd rollback weather` goes back to v1"), "{shown}");
    host.run_cli(&["rollback", "weather"]).expect_code(0);
    assert_eq!(host.status()["active"], "v1");
    let kinds = host.kinds(2);
    assert_eq!(kinds.iter().filter(|it| **it == "blocked").count(), 1, "{kinds:?}");
}

#[test]
fn a_breach_after_the_bake_leads_back_where_the_operator_says_so() {
    let releases = accepted_and_broken("after_bake = \"act\"");
    let _users = releases.users();
    let host = &releases.host;
    wait_until("a rollback", || host.kinds(2).contains(&"recovered"));
    assert_eq!(host.status()["active"], "v1");
    assert!(!host.kinds(2).contains(&"blocked"));
}
