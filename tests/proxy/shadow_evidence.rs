//! What a repeat on the warm release proves, and what it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rollbackd::config::Address;
use serde_json::json;

use crate::closing_front::closing_front;
use crate::http_client::post;
use crate::shadow_calls::{
    FakeRelease, TOOLS_LIST, post_failing, proxy_with_trial, wait_for_shadowed, with_initialize,
};
use crate::{RELEASE_A, RELEASE_B, wait_until};

#[tokio::test]
async fn late_repeat_says_nothing_unless_the_call_is_usually_quick() {
    let hangs = Arc::<AtomicBool>::default();
    let is_hanging = Arc::clone(&hangs);
    let warm = FakeRelease::with_responder(move |body| {
        let is_call = body["method"] == "tools/list";
        let answered = !is_call || !is_hanging.load(Ordering::Relaxed);
        answered.then(|| with_initialize(body, json!({"result": {}}))).flatten()
    })
    .await;
    let proxy = proxy_with_trial(&warm).await;
    let repeat = async |want| {
        hangs.store(true, Ordering::Relaxed);
        let before = warm.methods().len();
        post_failing(&proxy, TOOLS_LIST).await;
        proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 1);
        let over = || warm.methods()[before..].last().is_some_and(|it| it == "DELETE");
        wait_until("the end", over, || format!("{:?}", warm.methods())).await;
        assert_eq!(proxy.shadow_results(RELEASE_B), want);
        hangs.store(false, Ordering::Relaxed);
    };
    repeat((0, 0)).await;
    proxy.set_active(RELEASE_B);
    for _ in 0..20 {
        assert_eq!(post(proxy.local_addr(), TOOLS_LIST, "").await.status, 200);
    }
    proxy.set_active(RELEASE_A);
    repeat((1, 1)).await;
}

#[tokio::test]
async fn connection_that_the_warm_release_closed_meanwhile_is_no_failure() {
    let warm =
        FakeRelease::with_responder(|body| with_initialize(body, json!({"result": {}}))).await;
    let front = closing_front(warm.address).await;
    let proxy = proxy_with_trial(&warm).await;
    proxy.remove_release(RELEASE_B).await;
    proxy.add_release(RELEASE_B, &Address::Tcp(front));
    for count in 1..=3 {
        post_failing(&proxy, TOOLS_LIST).await;
        proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 1);
        wait_for_shadowed(&proxy, (count, 0)).await;
    }
}
