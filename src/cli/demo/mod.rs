//! Shows a rollback from end to end, on this machine, with real processes and real clients.

mod fault;
pub mod load;
pub mod server;
mod stage;
mod summary;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Clock;
use crate::control::{Client, Request, Response};
use crate::model::{Entry, Fact, Moment, Number};
use load::Load;
use stage::{SERVICE, Stage};

pub use fault::Fault;
pub use summary::Summary;

/// How long the first release may take to get the traffic.
const FIRST_RELEASE: Duration = Duration::from_secs(30);
/// The load runs for this long before the second release, and after the end.
const AROUND: Duration = Duration::from_secs(2);
/// From the order to deploy until the fault.
const FAULT_AFTER: Duration = Duration::from_secs(3);
/// From the order to deploy until the demo gives up.
const LIMIT: Duration = Duration::from_secs(60);

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
    let voice = Voice { json: options.json };
    let ended = match signal_hook_tokio::Signals::new([SIGTERM, SIGINT]) {
        Err(error) => Err(format!("can not listen for signals: {error}")),
        Ok(mut signals) => match Stage::build() {
            Err(why) => Err(why),
            Ok(mut stage) => {
                let ended = tokio::select! {
                    ended = play(&options, &mut stage, voice) => ended,
                    _ = signals.next() => Err("interrupted".to_owned()),
                };
                voice.live(&format!("kept: {}", stage.folder.display()));
                stage.strike().await;
                ended
            }
        },
    };
    match ended {
        Ok(summary) => {
            voice.end(&summary);
            if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            voice.complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &Options, stage: &mut Stage, voice: Voice) -> Result<Summary, String> {
    let clock = Clock::start(Moment(0));
    let mut client = stage.connect().await?;
    voice.live(&format!("service {SERVICE} on http://{}/mcp", stage.listen));
    let until = Instant::now() + FIRST_RELEASE;
    let (_, entries) = deploy(&mut client, "v1", BTreeMap::new(), until, voice, |fact| {
        matches!(fact, Fact::Switched { .. } | Fact::Accepted { .. } | Fact::Failed)
    })
    .await?;
    if !entries.iter().any(|entry| matches!(entry.fact, Fact::Switched { .. })) {
        return Err(format!("v1 did not get the traffic within {} s", FIRST_RELEASE.as_secs()));
    }
    let load = Load::start(stage.listen, options.rate, clock);
    voice.live(&format!("load: {} requests a second", options.rate));
    sleep(AROUND).await;

    let mut client = stage.connect().await?;
    let at = clock.now() + FAULT_AFTER;
    let set = BTreeMap::from([
        ("DEMO_FAULT".to_owned(), options.fault.to_string()),
        ("DEMO_FAULT_AT".to_owned(), at.0.to_string()),
    ]);
    voice.live(&format!(
        "v2 will be faulty ({}) {} s from now",
        options.fault,
        FAULT_AFTER.as_secs()
    ));
    let until = Instant::now() + LIMIT;
    let (deploy, entries) = deploy(&mut client, "v2", set, until, voice, |fact| {
        if matches!(fact, Fact::Switched { .. }) {
            load.welcome();
        }
        is_end(fact)
    })
    .await?;
    sleep(AROUND).await;
    let deployed = summary::deployed_at(&entries)
        .ok_or("the daemon took the deploy but told nothing about it")?;
    let report = load.stop(deployed).await;
    Ok(Summary::new(&entries, &report, stage.timeline(deploy)))
}

fn is_end(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Recovered
            | Fact::Accepted { .. }
            | Fact::Failed
            | Fact::Abandoned
            | Fact::Unrecovered
    )
}

/// Orders a deploy and follows it to an end, to the limit, or to where the daemon stops talking.
async fn deploy(
    client: &mut Client,
    version: &str,
    mut set: BTreeMap<String, String>,
    until: Instant,
    voice: Voice,
    is_end: impl Fn(&Fact) -> bool,
) -> Result<(Number, Vec<Entry>), String> {
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
    while let Ok(next) = timeout_at(until, client.next()).await {
        match next.map_err(|error| format!("can not follow {version}: {error}"))? {
            None => break,
            Some(Response::Accepted { deploy: number, .. }) => deploy = Some(number),
            Some(Response::Refused { because, .. }) => {
                return Err(format!("the daemon refused {version}: {because}"));
            }
            Some(Response::Status(_)) => {}
            Some(Response::Entry(entry)) => {
                voice.live(&line(&entry));
                let end = is_end(&entry.fact);
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

fn line(entry: &Entry) -> String {
    let (seconds, ms) = (entry.ms / 1000, entry.ms % 1000);
    format!("{seconds:>4}.{ms:03}s  {:<11} {}", entry.fact.kind(), entry.because)
}

/// Where lines go: a reader of `--json` gets nothing but the object on stdout.
#[derive(Debug, Clone, Copy)]
struct Voice {
    json: bool,
}

impl Voice {
    fn live(self, line: &str) {
        // Nobody may be listening any more; the demo still has to clean up after itself.
        let _: io::Result<()> = if self.json {
            writeln!(io::stderr().lock(), "{line}")
        } else {
            writeln!(io::stdout().lock(), "{line}")
        };
    }

    fn end(self, summary: &Summary) {
        let text = if self.json {
            serde_json::to_string(summary).unwrap_or_else(|error| error.to_string())
        } else {
            format!("\n{summary}")
        };
        let _: io::Result<()> = writeln!(io::stdout().lock(), "{text}");
    }

    fn complain(self, why: &str) {
        let _: io::Result<()> = writeln!(io::stderr().lock(), "demo: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_live_line() {
        let entry = Entry {
            seq: 1,
            at: String::new(),
            moment: Moment(0),
            ms: 12_034,
            service: SERVICE.to_owned(),
            deploy: Number(2),
            because: "v1 keeps the promise again".to_owned(),
            fact: Fact::Recovered,
            then: Vec::new(),
        };
        assert_eq!(line(&entry), "  12.034s  recovered   v1 keeps the promise again");
    }
}
