//! Shows a rollback from end to end, on this machine, with real processes and real clients.
//!
//! A [`sandbox`] runs a daemon of its own. The [`runner`] of a [`scenario`] deploys the demo [`server`] as v1, starts
//! the [`traffic`], and deploys v2 with a [`fault`]. A [`view`] shows it meanwhile, and the [`summary`]
//! combines the daemon's timeline with what the clients saw.
//!
//! The server and the clients implement MCP independently of the proxy, so that a mistake in one
//! is not hidden by the same mistake in the other.

mod draft;
mod fault;
mod runner;
mod sandbox;
mod scenario;
pub mod server;
mod summary;
pub mod traffic;
mod view;

use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};

pub use crate::demo::draft::Draft;
pub use crate::demo::fault::Fault;
use crate::demo::sandbox::Sandbox;
pub use crate::demo::scenario::Scenario;
pub use crate::demo::summary::Summary;
pub use crate::demo::view::{Picture, View};

/// Runs the scenario in a temporary folder. The folder stays if the caller wants it, or if the demo
/// does not end as it should.
///
/// # Errors
/// Why the scenario could not run to its end.
pub async fn run(scenario: &Scenario, keep: bool, view: &dyn View) -> Result<Summary, String> {
    let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut sandbox = Sandbox::start(scenario)?;
    let mut result = tokio::select! {
        ended = runner::run(scenario, &mut sandbox, view) => ended,
        _ = signals.next() => Err("interrupted".to_owned()),
    };
    view.clear_picture();
    let is_kept = keep || !result.as_ref().is_ok_and(Summary::is_as_expected);
    let folder = sandbox.shut_down().await;
    if is_kept {
        view.show_line(&format!("kept: {}", folder.display()));
    } else {
        if let Ok(summary) = &mut result {
            summary.timeline = None;
        }
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            view.show_line(&format!("cannot remove {}: {error}", folder.display()));
        }
    }
    result
}
