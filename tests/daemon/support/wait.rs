use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What takes longer than this on a busy machine is broken.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits.
#[expect(clippy::disallowed_methods, reason = "the processes under test run on the wall's time")]
pub(crate) fn sleep(wait: Duration) {
    std::thread::sleep(wait);
}

/// Looks until there is something to see; a failure names `what`.
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

/// Looks until it is so, half a minute at most.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(WAIT_MAX, what, || condition().then_some(()));
}

/// Unix time in milliseconds.
#[expect(clippy::disallowed_methods, reason = "faults begin at a moment of the wall's clock")]
pub(crate) fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
