//! A daemon hands over to the next one, under load, and nobody may notice.

use std::time::Duration;

use rollbackd::cli::demo::load::{Load, Report};
use rollbackd::clock::Clock;
use rollbackd::model::Moment;

use crate::support::{Host, SERVICE, ask, pause, soon};

/// Requests a second of both eras, JSON and SSE, with sessions that come and go and streams that
/// are open all the time.
const RATE: u32 = 300;
/// No request may wait for longer, on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Does something under load; what the clients saw.
fn under_load(port: u16, work: impl FnOnce()) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::start(Moment(0));
        let load = Load::start(([127, 0, 0, 1], port).into(), RATE, clock);
        load.welcome();
        let begun = clock.now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::block_in_place(work);
        tokio::time::sleep(Duration::from_secs(1)).await;
        load.stop(begun).await
    })
}

#[track_caller]
fn nobody_noticed(report: &Report) {
    println!("at {RATE} requests/s: {report:?}");
    assert!(report.requests > 600, "{report:?}");
    assert_eq!((report.failed, report.sessions.broken), (0, 0), "{report:?}");
    assert!(report.slowest < WAIT_MAX, "{report:?}");
}

#[test]
fn several_in_a_row_fail_no_request_and_break_no_session() {
    let mut host = Host::with_v1("");
    let release = host.process(1);
    let report = under_load(host.listen, || {
        for _ in 0..4 {
            let before = host.pid();
            host.hand_over();
            assert_ne!(host.pid(), before);
            assert_eq!(host.status()["active"], "v1");
            pause(Duration::from_millis(700));
        }
        // Some still end what was open in them when the next one takes over.
        host.hand_over();
        host.hand_over();
    });
    nobody_noticed(&report);
    assert_eq!(host.process(1), release, "it was adopted, not started again");
    soon("the old ones have left", || host.daemons() == [host.pid()]);
    let told = host.verb(&["timeline", SERVICE]).expect(0);
    told.says(&["restored", "took over from process ", "(version "]);
    assert_eq!(host.stop(), 0, "the first one ended well");
    assert!(host.running().is_empty(), "{:?}", host.running());
    assert!(ask(host.listen).is_err());
}
