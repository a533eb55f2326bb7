//! Shows a rollback from end to end, on this machine, with real processes and real clients.
//!
//! A [`sandbox`] runs a daemon of its own. It deploys the demo [`server`] as v1, [`traffic`] sends
//! requests, and v2 is deployed with a [`fault`]. The [`summary`] combines the daemon's timeline
//! with what the clients saw.
//!
//! The server and the clients implement MCP independently of the proxy, so that a mistake in one
//! is not hidden by the same mistake in the other.

mod fault;
mod sandbox;
pub mod server;
mod summary;
pub mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::{Clock, monotonic};
use crate::control::{ControlClient, Request, Response};
pub use crate::demo::fault::Fault;
use crate::demo::sandbox::{SERVICE, Sandbox};
pub use crate::demo::summary::Summary;
use crate::demo::traffic::TrafficGenerator;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};

/// Longest time until the first release has the traffic.
const FIRST_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the traffic runs before the second deploy, and after its end.
const LOAD_MARGIN: Duration = Duration::from_secs(2);
/// Time from the deploy command to the fault.
const FAULT_DELAY: Duration = Duration::from_secs(3);
/// Time from the deploy command until the demo gives up.
const DEMO_TIMEOUT: Duration = Duration::from_secs(60);

/// Prints a line of progress.
type Progress = fn(&str);

/// Runs the scenario in a temporary folder, and keeps the folder.
///
/// # Errors
/// Why the scenario could not run to its end.
pub async fn run(fault: Fault, rate: u32, progress: Progress) -> Result<Summary, String> {
    let mut signals = signal_hook_tokio::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut sandbox = Sandbox::start()?;
    let result = tokio::select! {
        ended = run_scenario(fault, rate, &mut sandbox, progress) => ended,
        _ = signals.next() => Err("interrupted".to_owned()),
    };
    progress(&format!("kept: {}", sandbox.folder.display()));
    sandbox.shut_down().await;
    result
}

async fn run_scenario(
    fault: Fault,
    rate: u32,
    sandbox: &mut Sandbox,
    progress: Progress,
) -> Result<Summary, String> {
    let clock = Clock::start(Moment(0));
    let mut client = sandbox.connect().await?;
    progress(&format!("service {SERVICE} on http://{}/mcp", sandbox.listen));
    let deadline = monotonic() + FIRST_RELEASE_TIMEOUT;
    let (_, entries) =
        deploy_and_follow(&mut client, "v1", BTreeMap::new(), deadline, progress, |event| {
            matches!(
                event,
                TimelineEvent::Switched { .. }
                    | TimelineEvent::Accepted { .. }
                    | TimelineEvent::Failed
            )
        })
        .await?;
    if !entries.iter().any(|entry| matches!(entry.event, TimelineEvent::Switched { .. })) {
        return Err(format!("v1 did not get traffic within {} s", FIRST_RELEASE_TIMEOUT.as_secs()));
    }
    let traffic = TrafficGenerator::start(sandbox.listen, rate, clock);
    progress(&format!("traffic: {rate} requests a second"));
    sleep(LOAD_MARGIN).await;

    let mut client = sandbox.connect().await?;
    let at = clock.now() + FAULT_DELAY;
    let set = BTreeMap::from([
        ("DEMO_FAULT".to_owned(), fault.to_string()),
        ("DEMO_FAULT_AT".to_owned(), at.0.to_string()),
    ]);
    progress(&format!("v2 will have the fault {} in {} s", fault, FAULT_DELAY.as_secs()));
    let deadline = monotonic() + DEMO_TIMEOUT;
    let (deploy, entries) =
        deploy_and_follow(&mut client, "v2", set, deadline, progress, |event| {
            if matches!(event, TimelineEvent::Switched { .. }) {
                traffic.start_second_wave();
            }
            ends_deploy(event)
        })
        .await?;
    sleep(LOAD_MARGIN).await;
    let deployed = summary::deploy_started_at(&entries)
        .ok_or("the daemon accepted the deploy but sent no event of it")?;
    let report = traffic.stop(deployed).await;
    Ok(Summary::new(&entries, &report, sandbox.timeline_path(deploy)))
}

fn ends_deploy(event: &TimelineEvent) -> bool {
    matches!(
        event,
        TimelineEvent::Recovered
            | TimelineEvent::Accepted { .. }
            | TimelineEvent::Failed
            | TimelineEvent::Abandoned
            | TimelineEvent::Unrecovered
    )
}

/// Deploys a version and collects its events, until its end, the deadline, or the last response.
async fn deploy_and_follow(
    client: &mut ControlClient,
    version: &str,
    mut set: BTreeMap<String, String>,
    deadline: Instant,
    progress: Progress,
    is_end: impl Fn(&TimelineEvent) -> bool,
) -> Result<(ReleaseNumber, Vec<TimelineEntry>), String> {
    set.insert("DEMO_OWNER".to_owned(), std::process::id().to_string());
    let request = Request::Deploy {
        service: SERVICE.to_owned(),
        version: version.to_owned(),
        artifact: None,
        set,
        slot: None,
        freeze: false,
        force: false,
        strict: false,
        wait: true,
    };
    client.send(&request).await.map_err(|error| format!("cannot deploy {version}: {error}"))?;
    let (mut deploy, mut entries) = (None, Vec::new());
    while let Ok(next) = timeout_at(deadline, client.next_response()).await {
        match next.map_err(|error| format!("cannot follow {version}: {error}"))? {
            None => break,
            Some(Response::Accepted { deploy: number, .. }) => deploy = Some(number),
            Some(Response::Refused { because, .. }) => {
                return Err(format!("the daemon refused {version}: {because}"));
            }
            Some(Response::Status(_) | Response::Incident { .. }) => {}
            Some(Response::Event(entry)) => {
                progress(&event_line(&entry));
                let end = is_end(&entry.event);
                entries.push(*entry);
                if end {
                    break;
                }
            }
        }
    }
    let deploy = deploy.or_else(|| entries.first().map(|entry| entry.deploy));
    let deploy = deploy.ok_or_else(|| format!("the daemon sent no event of {version}"))?;
    Ok((deploy, entries))
}

fn event_line(entry: &TimelineEntry) -> String {
    let (seconds, ms) = (entry.since_deploy_ms / 1000, entry.since_deploy_ms % 1000);
    format!("{seconds:>4}.{ms:03}s  {:<11} {}", entry.event.kind(), entry.because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let entry = TimelineEntry {
            seq: 1,
            wall_time: String::new(),
            moment: Moment(0),
            since_deploy_ms: 12_034,
            service: SERVICE.to_owned(),
            deploy: ReleaseNumber(2),
            because: "v1 meets its objectives again".to_owned(),
            event: TimelineEvent::Recovered,
            planned_effects: Vec::new(),
        };
        assert_eq!(event_line(&entry), "  12.034s  recovered   v1 meets its objectives again");
    }
}
