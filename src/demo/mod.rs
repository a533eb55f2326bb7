//! Shows a rollback from end to end, on this machine, with real processes and real clients.

mod fault;
mod sandbox;
pub mod server;
mod summary;
pub mod traffic;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Clock;
use crate::control::{ControlClient, Request, Response};
pub use crate::demo::fault::Fault;
use crate::demo::sandbox::{SERVICE, Sandbox};
pub use crate::demo::summary::Summary;
use crate::demo::traffic::TrafficGenerator;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};

/// How long the first release may take to get the traffic.
const FIRST_RELEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// The load runs for this long before the second release, and after the end.
const LOAD_MARGIN: Duration = Duration::from_secs(2);
/// From the order to deploy until the fault.
const FAULT_DELAY: Duration = Duration::from_secs(3);
/// From the order to deploy until the demo gives up.
const DEMO_TIMEOUT: Duration = Duration::from_secs(60);

/// What the demo shows.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What the new release does wrong three seconds after it is deployed: total, errors=20%,
    /// slow, hang, tool-errors or crash-loop.
    #[arg(long, default_value = "total")]
    pub fault: Fault,
    /// Requests a second that the clients send.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub rate: u32,
    /// One JSON object on stdout at the end, and the live lines on stderr.
    #[arg(long)]
    pub json: bool,
}

/// Runs a daemon, deploys a good release and then a bad one under load, tells what happens as it
/// does, and sums it up. 0 only when the daemon went back and the promise was kept again.
pub async fn run(options: Options) -> ExitCode {
    let output = Output { json: options.json };
    let result = match signal_hook_tokio::Signals::new([SIGTERM, SIGINT]) {
        Err(error) => Err(format!("can not listen for signals: {error}")),
        Ok(mut signals) => match Sandbox::start() {
            Err(why) => Err(why),
            Ok(mut sandbox) => {
                let result = tokio::select! {
                    ended = run_scenario(&options, &mut sandbox, output) => ended,
                    _ = signals.next() => Err("interrupted".to_owned()),
                };
                output.progress(&format!("kept: {}", sandbox.folder.display()));
                sandbox.shut_down().await;
                result
            }
        },
    };
    match result {
        Ok(summary) => {
            output.summary(&summary);
            if summary.is_clean_rollback() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            output.error(&why);
            ExitCode::FAILURE
        }
    }
}

async fn run_scenario(
    options: &Options,
    sandbox: &mut Sandbox,
    output: Output,
) -> Result<Summary, String> {
    let clock = Clock::start(Moment(0));
    let mut client = sandbox.connect().await?;
    output.progress(&format!("service {SERVICE} on http://{}/mcp", sandbox.listen));
    let deadline = Instant::now() + FIRST_RELEASE_TIMEOUT;
    let (_, entries) =
        deploy_and_follow(&mut client, "v1", BTreeMap::new(), deadline, output, |fact| {
            matches!(
                fact,
                TimelineEvent::Switched { .. }
                    | TimelineEvent::Accepted { .. }
                    | TimelineEvent::Failed
            )
        })
        .await?;
    if !entries.iter().any(|entry| matches!(entry.event, TimelineEvent::Switched { .. })) {
        return Err(format!(
            "v1 did not get the traffic within {} s",
            FIRST_RELEASE_TIMEOUT.as_secs()
        ));
    }
    let traffic = TrafficGenerator::start(sandbox.listen, options.rate, clock);
    output.progress(&format!("load: {} requests a second", options.rate));
    sleep(LOAD_MARGIN).await;

    let mut client = sandbox.connect().await?;
    let at = clock.now() + FAULT_DELAY;
    let set = BTreeMap::from([
        ("DEMO_FAULT".to_owned(), options.fault.to_string()),
        ("DEMO_FAULT_AT".to_owned(), at.0.to_string()),
    ]);
    output.progress(&format!(
        "v2 will be faulty ({}) {} s from now",
        options.fault,
        FAULT_DELAY.as_secs()
    ));
    let deadline = Instant::now() + DEMO_TIMEOUT;
    let (deploy, entries) = deploy_and_follow(&mut client, "v2", set, deadline, output, |fact| {
        if matches!(fact, TimelineEvent::Switched { .. }) {
            traffic.start_second_wave();
        }
        ends_deploy(fact)
    })
    .await?;
    sleep(LOAD_MARGIN).await;
    let deployed = summary::deploy_started_at(&entries)
        .ok_or("the daemon took the deploy but told nothing about it")?;
    let report = traffic.stop(deployed).await;
    Ok(Summary::new(&entries, &report, sandbox.timeline_path(deploy)))
}

fn ends_deploy(fact: &TimelineEvent) -> bool {
    matches!(
        fact,
        TimelineEvent::Recovered
            | TimelineEvent::Accepted { .. }
            | TimelineEvent::Failed
            | TimelineEvent::Abandoned
            | TimelineEvent::Unrecovered
    )
}

/// Orders a deploy and follows it to an end, to the limit, or to where the daemon stops talking.
async fn deploy_and_follow(
    client: &mut ControlClient,
    version: &str,
    mut set: BTreeMap<String, String>,
    deadline: Instant,
    output: Output,
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
    client.send(&request).await.map_err(|error| format!("can not order {version}: {error}"))?;
    let (mut deploy, mut entries) = (None, Vec::new());
    while let Ok(next) = timeout_at(deadline, client.next_response()).await {
        match next.map_err(|error| format!("can not follow {version}: {error}"))? {
            None => break,
            Some(Response::Accepted { deploy: number, .. }) => deploy = Some(number),
            Some(Response::Refused { because, .. }) => {
                return Err(format!("the daemon refused {version}: {because}"));
            }
            Some(Response::Status(_)) => {}
            Some(Response::Event(entry)) => {
                output.progress(&event_line(&entry));
                let end = is_end(&entry.event);
                entries.push(*entry);
                if end {
                    break;
                }
            }
        }
    }
    let deploy = deploy.or_else(|| entries.first().map(|entry| entry.deploy));
    let deploy = deploy.ok_or_else(|| format!("the daemon said nothing about {version}"))?;
    Ok((deploy, entries))
}

fn event_line(entry: &TimelineEntry) -> String {
    let (seconds, ms) = (entry.since_deploy_ms / 1000, entry.since_deploy_ms % 1000);
    format!("{seconds:>4}.{ms:03}s  {:<11} {}", entry.event.kind(), entry.because)
}

/// Where lines go: a reader of `--json` gets nothing but the object on stdout.
#[derive(Debug, Clone, Copy)]
struct Output {
    json: bool,
}

impl Output {
    fn progress(self, line: &str) {
        // Nobody may be listening any more; the demo still has to clean up after itself.
        let _: io::Result<()> = if self.json {
            writeln!(io::stderr().lock(), "{line}")
        } else {
            writeln!(io::stdout().lock(), "{line}")
        };
    }

    fn summary(self, summary: &Summary) {
        let text = if self.json {
            serde_json::to_string(summary).unwrap_or_else(|error| error.to_string())
        } else {
            format!("\n{summary}")
        };
        let _: io::Result<()> = writeln!(io::stdout().lock(), "{text}");
    }

    fn error(self, why: &str) {
        let _: io::Result<()> = writeln!(io::stderr().lock(), "demo: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_live_line() {
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
