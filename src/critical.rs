//! The parts that the daemon cannot do without. When one of them panics or ends by itself, the process
//! ends with the reason, and the service manager starts it again: a daemon that only looks alive
//! guards nothing.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use crate::mutex::lock;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The first failure, and who waits for it.
static FAILURE: FailureReport = FailureReport::new();

#[derive(Debug)]
struct FailureReport {
    reason: Mutex<Option<String>>,
    reported: Notify,
}

impl FailureReport {
    const fn new() -> Self {
        Self { reason: Mutex::new(None), reported: Notify::const_new() }
    }

    fn report(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        self.reported.notify_waiters();
    }

    async fn wait(&self) -> String {
        loop {
            let reported = self.reported.notified();
            let mut reported = std::pin::pin!(reported);
            // Before the check, so that no report is missed between the two.
            reported.as_mut().enable();
            if let Some(reason) = lock(&self.reason).clone() {
                return reason;
            }
            reported.await;
        }
    }
}

/// Waits for the first critical part that fails: what it is, and why. Pending while all run.
pub async fn wait_failure() -> String {
    FAILURE.wait().await
}

/// Starts a task that may end, but not panic. Needs a tokio runtime. Aborting it is no failure.
pub fn spawn(name: String, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    spawn_reporting(&FAILURE, name, future)
}

fn spawn_reporting(
    report: &'static FailureReport,
    name: String,
    future: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
            report.report(format!("{name} panicked: {}", panic_text(&*panic)));
        }
    })
}

/// Starts a task that ends only when it is aborted. Needs a tokio runtime.
pub fn spawn_endless(
    name: String,
    future: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    spawn_endless_reporting(&FAILURE, name, future)
}

fn spawn_endless_reporting(
    report: &'static FailureReport,
    name: String,
    future: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let ended = format!("{name} ended by itself");
    spawn_reporting(report, name, async move {
        future.await;
        report.report(ended);
    })
}

/// Starts a thread that may end, but not panic.
///
/// # Errors
/// The system cannot start a thread.
pub fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread_name = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            FAILURE.report(format!("thread {thread_name} panicked: {}", panic_text(&*panic)));
        }
    })?;
    Ok(())
}

/// The message of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_an_abort_or_a_regular_end_is_not() {
        static REPORT: FailureReport = FailureReport::new();
        let aborted =
            spawn_endless_reporting(&REPORT, "aborted".to_owned(), std::future::pending());
        aborted.abort();
        aborted.await.unwrap_err();
        spawn_reporting(&REPORT, "regular".to_owned(), async {}).await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(20), REPORT.wait()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        let waiting = REPORT.wait();
        spawn_reporting(&REPORT, "the loop of x".to_owned(), async { panic!("disk {}", 7) });
        let reason = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
        assert_eq!(reason, "the loop of x panicked: disk 7");
        spawn_endless_reporting(&REPORT, "loop".to_owned(), async {}).await.unwrap();
        assert_eq!(REPORT.wait().await, reason, "the first reason stays");
    }

    #[tokio::test]
    async fn a_task_that_must_not_end_is_reported_when_it_does() {
        static REPORT: FailureReport = FailureReport::new();
        spawn_endless_reporting(&REPORT, "the server".to_owned(), async {}).await.unwrap();
        assert_eq!(REPORT.wait().await, "the server ended by itself");
    }
}
