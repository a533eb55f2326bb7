//! The steps of the demo.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::clock::{Clock, monotonic};
use crate::control::{ControlClient, Request, Response, Status};
use crate::demo::draft;
use crate::demo::fault::Fault;
use crate::demo::sandbox::{SERVICE, Sandbox};
use crate::demo::scenario::{FAULT_DELAY, OUTAGE_DURATION, Scenario};
use crate::demo::summary::{self, Summary};
use crate::demo::traffic::{LiveCounts, TrafficGenerator};
use crate::demo::view::{Picture, View};
use crate::model::{DeployRequest, Moment, ReleaseNumber, TimelineEntry, TimelineEvent};

/// Longest time until the first release has the traffic.
const FIRST_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the traffic runs before the second deploy, and after its end.
const LOAD_MARGIN: Duration = Duration::from_secs(2);
/// Time from the deploy command until the demo gives up.
const DEMO_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two pictures.
const PICTURE_INTERVAL: Duration = Duration::from_millis(250);

/// The events of a deploy.
#[derive(Debug)]
struct FollowedDeploy {
    number: ReleaseNumber,
    entries: Vec<TimelineEntry>,
}

/// Runs the scenario against the daemon of the sandbox.
///
/// # Errors
/// Why it could not run to its end.
pub(super) async fn run(
    scenario: &Scenario,
    sandbox: &mut Sandbox,
    view: &dyn View,
) -> Result<Summary, String> {
    let client = sandbox.connect().await?;
    view.show_line(&format!("service {SERVICE} on http://{}/mcp", sandbox.listen));
    if let Some(page) = sandbox.page {
        view.show_line(&format!("status page on http://{page}/"));
    }
    view.show_line(&format!("other than by default: {}", sandbox.changed_settings()));
    deploy_first(client, sandbox, view).await?;
    let clock = Clock::start(Moment(0));
    let traffic = TrafficGenerator::start(sandbox.listen, scenario.rate, clock);
    view.show_line(&format!("traffic: {} requests a second", scenario.rate));
    let client = sandbox.connect().await?;
    let deploy = tokio::select! {
        never = show_pictures(&sandbox.socket, traffic.counter(), view) => match never {},
        deploy = deploy_second(scenario, client, sandbox, &traffic, clock, view) => deploy?,
    };
    view.clear_picture();
    let started = summary::deploy_started_at(&deploy.entries)
        .ok_or("the daemon accepted the deploy but sent no event of it")?;
    let report = traffic.stop(started).await;
    let timeline = sandbox.timeline_path(deploy.number);
    let mut summary = Summary::new(scenario, &deploy.entries, &report, timeline);
    if draft::is_due(&deploy.entries) {
        summary.draft = Some(draft::fetch(sandbox, deploy.number).await?);
    }
    Ok(summary)
}

/// Deploys the release with the fault into the traffic, and follows it to its end.
async fn deploy_second(
    scenario: &Scenario,
    mut client: ControlClient,
    sandbox: &Sandbox,
    traffic: &TrafficGenerator,
    clock: Clock,
    view: &dyn View,
) -> Result<FollowedDeploy, String> {
    sleep(LOAD_MARGIN).await;
    let at = clock.now() + FAULT_DELAY;
    let set = match scenario.fault {
        Fault::None => BTreeMap::new(),
        Fault::SharedOutage => outage_variable(sandbox),
        fault => BTreeMap::from([
            ("DEMO_FAULT".to_owned(), fault.to_string()),
            ("DEMO_FAULT_AT".to_owned(), at.0.to_string()),
        ]),
    };
    view.show_line(&scenario.announcement());
    let follow = deploy_and_follow(&mut client, "v2", set, DEMO_TIMEOUT, view, |event| {
        if matches!(event, TimelineEvent::Switched { .. }) {
            traffic.start_second_wave();
        }
        ends_deploy(event)
    });
    let outage_file = sandbox.outage_file();
    let deploy = tokio::select! {
        deploy = follow => deploy?,
        error = cause_outage(scenario.fault, &outage_file, view) => return Err(error),
    };
    sleep(LOAD_MARGIN).await;
    Ok(deploy)
}

/// Each release knows the file: an outage is that of both.
fn outage_variable(sandbox: &Sandbox) -> BTreeMap<String, String> {
    BTreeMap::from([("DEMO_OUTAGE".to_owned(), sandbox.outage_file().display().to_string())])
}

async fn deploy_first(
    mut client: ControlClient,
    sandbox: &Sandbox,
    view: &dyn View,
) -> Result<(), String> {
    let set = outage_variable(sandbox);
    let is_end = |event: &TimelineEvent| {
        matches!(
            event,
            TimelineEvent::Switched { .. } | TimelineEvent::Accepted { .. } | TimelineEvent::Failed
        )
    };
    let deploy =
        deploy_and_follow(&mut client, "v1", set, FIRST_RELEASE_TIMEOUT, view, is_end).await?;
    if deploy.entries.iter().any(|entry| matches!(entry.event, TimelineEvent::Switched { .. })) {
        return Ok(());
    }
    Err(format!("v1 did not get traffic within {} s", FIRST_RELEASE_TIMEOUT.as_secs()))
}

/// Causes the outage of both releases, if that is the fault. Returns only with an error.
async fn cause_outage(fault: Fault, file: &Path, view: &dyn View) -> String {
    if fault == Fault::SharedOutage {
        sleep(FAULT_DELAY).await;
        view.show_line("the service behind v1 and v2 is down");
        if let Err(error) = std::fs::write(file, "") {
            return format!("cannot write {}: {error}", file.display());
        }
        sleep(OUTAGE_DURATION).await;
        view.show_line("the service behind v1 and v2 is up again");
        if let Err(error) = std::fs::remove_file(file) {
            return format!("cannot remove {}: {error}", file.display());
        }
    }
    std::future::pending().await
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

/// Shows pictures without end. One that cannot be had is left out: the daemon may be busy.
async fn show_pictures(
    socket: &Path,
    clients: impl Fn() -> LiveCounts,
    view: &dyn View,
) -> Infallible {
    if !view.shows_pictures() {
        return std::future::pending().await;
    }
    let mut ticks = interval(PICTURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Some(status) = fetch_status(socket).await {
            view.show_picture(&Picture { status, clients: clients() });
        }
    }
}

async fn fetch_status(socket: &Path) -> Option<Status> {
    let mut client = ControlClient::connect(socket).await.ok()?;
    client.send(&Request::Status { service: Some(SERVICE.to_owned()) }).await.ok()?;
    let deadline = monotonic() + PICTURE_INTERVAL * 4;
    match timeout_at(deadline, client.next_response()).await {
        Ok(Ok(Some(Response::Status(status)))) => Some(*status),
        _ => None,
    }
}

/// Deploys a version and collects its events, until its end, the time limit, or the last response.
async fn deploy_and_follow(
    client: &mut ControlClient,
    version: &str,
    mut set: BTreeMap<String, String>,
    limit: Duration,
    view: &dyn View,
    is_end: impl Fn(&TimelineEvent) -> bool,
) -> Result<FollowedDeploy, String> {
    let deadline: Instant = monotonic() + limit;
    set.insert("DEMO_OWNER".to_owned(), std::process::id().to_string());
    let request = Request::Deploy(DeployRequest {
        service: SERVICE.to_owned(),
        version: version.to_owned(),
        environment: set,
        wait: true,
        ..DeployRequest::default()
    });
    client.send(&request).await.map_err(|error| format!("cannot deploy {version}: {error}"))?;
    let (mut number, mut entries) = (None, Vec::new());
    while let Ok(next) = timeout_at(deadline, client.next_response()).await {
        match next.map_err(|error| format!("cannot follow {version}: {error}"))? {
            None => break,
            Some(Response::Accepted { deploy, .. }) => number = Some(deploy),
            Some(Response::Refused { because, .. }) => {
                return Err(format!("the daemon refused {version}: {because}"));
            }
            Some(
                Response::Status(_)
                | Response::Incident { .. }
                | Response::Warning { .. }
                | Response::Notified { .. }
                | Response::Unchanged { .. }
                | Response::Explanation { .. }
                | Response::Reloaded { .. },
            ) => {}
            Some(Response::Event(entry)) => {
                view.show_line(&event_line(&entry));
                let end = is_end(&entry.event);
                entries.push(*entry);
                if end {
                    break;
                }
            }
        }
    }
    let number = number.or_else(|| entries.first().map(|entry| entry.deploy));
    let number = number.ok_or_else(|| format!("the daemon sent no event of {version}"))?;
    Ok(FollowedDeploy { number, entries })
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
