//! Switches between healthy releases under load: no request fails.

use rollbackd::clock::Clock;
use rollbackd::demo::traffic::TrafficGenerator;
use rollbackd::model::Moment;

use crate::support::{DaemonHarness, SERVICE, wait_until};

/// Requests a second of both eras, JSON and SSE, with sessions that come and go.
const RATE: u32 = 500;

#[test]
fn ten_switches_under_load_fail_no_request_or_session() {
    let host = DaemonHarness::with_v1("bake = \"10m\"\nramp = [\"100%\"]");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let clock = Clock::start(Moment(0));
        let load = TrafficGenerator::start(([127, 0, 0, 1], host.listen).into(), RATE, clock);
        let (begun, counts) = (clock.now(), load.counter());
        for switch in 0..5 {
            let force: &[&str] = if switch == 0 { &[] } else { &["--allow-quarantined"] };
            tokio::task::block_in_place(|| {
                host.deploy("v2", force).expect_code(0);
                host.wait_for_phase("baking");
            });
            tokio::task::block_in_place(|| {
                let until = counts().requests + u64::from(RATE) / 2;
                wait_until("requests", || counts().requests >= until);
                host.run_cli(&["rollback", SERVICE, "--because", "back again"]).expect_code(0);
            });
        }
        load.stop(begun).await
    });
    println!("ten switches at {RATE} requests/s: {report:?}");
    assert!(report.requests > 2_000, "{report:?}");
    assert_eq!((report.failed, report.sessions.broken), (0, 0), "{report:?}");
}
