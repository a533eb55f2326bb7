use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The interval at which a condition is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The limit for every wait, wide enough for a busy machine.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits.
#[expect(clippy::disallowed_methods, reason = "the processes under test run on the wall's time")]
pub(crate) fn sleep(wait: Duration) {
    std::thread::sleep(wait);
}

/// Polls until there is a value; a failure names `what`.
#[expect(clippy::disallowed_methods, reason = "the processes under test run on the wall's time")]
pub(crate) fn wait_for<T>(limit: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = poll() {
            return seen;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(POLL_INTERVAL);
    }
}

/// Polls until the condition holds, for [`WAIT_MAX`] at most.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(WAIT_MAX, what, || condition().then_some(()));
}

/// Unix time in milliseconds.
#[expect(clippy::disallowed_methods, reason = "faults begin at a moment of the wall's clock")]
pub(crate) fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
