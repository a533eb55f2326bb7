//! The task that keeps the process of one release running.

use tokio_util::sync::CancellationToken;

use crate::act::{Process, ProcessSpec};
use crate::artifact::Verifier;
use crate::service::supervisor::artifact_check::verify_before_start;
use crate::service::supervisor::backoff::Backoff;
use crate::service::supervisor::reporter::Reporter;

/// Adopts or starts the process, and restarts it after each exit, until `stop` is cancelled; then stops it.
pub(super) async fn supervise_process(
    spec: ProcessSpec,
    verifier: Option<Verifier>,
    stop: CancellationToken,
    reporter: Reporter,
) {
    let mut backoff = Backoff::default();
    let mut adopted = Process::adopt(&spec);
    while !stop.is_cancelled() {
        backoff.started();
        let started = match adopted.take() {
            Some(process) => Ok(process),
            None => {
                verify_before_start(verifier.as_ref()).await.and_then(|()| Process::start(&spec))
            }
        };
        let reason = match started {
            Err(error) => format!("it was not started: {error}"),
            Ok(mut process) => {
                let exit = tokio::select! {
                    exit = process.wait_exit() => Some(exit),
                    () = stop.cancelled() => None,
                };
                // Also after an exit: child processes may still hold the port.
                if let Err(error) = process.stop().await {
                    tracing::error!(release = %spec.release, "cannot stop the process: {error}");
                }
                let Some(exit) = exit else { return };
                format!("its process ended: {exit} (output: {})", spec.output_path().display())
            }
        };
        let delay = backoff.schedule();
        reporter.exit(spec.release.number, reason).await;
        tokio::select! {
            () = tokio::time::sleep(delay) => (),
            () = stop.cancelled() => (),
        }
    }
}
