//! `rollbackd timeline`

use clap::Args;

use crate::config;
use crate::control::{Client, Request, Response};
use crate::model::{Entry, Fact, Moment, Number};
use crate::record;

use super::exit::Exit;
use super::{Daemon, say};

/// What happened in a deploy, and why.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// The deploy; the newest by default.
    #[arg(long, value_name = "N")]
    deploy: Option<u32>,
    /// One JSON object a line, as it lies on disk.
    #[arg(long)]
    json: bool,
    /// Go on as things happen.
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(options: Options, daemon: &Daemon) -> Exit {
    let deploy = options.deploy.map(Number);
    let Options { service, follow, json, .. } = options;
    let request = Request::Timeline { service: service.clone(), deploy, follow };
    match Client::connect(&daemon.socket()).await {
        Ok(mut client) => match client.send(&request).await {
            Ok(()) => print(client, json).await,
            Err(error) => {
                say::error(&format!("the daemon went away: {error}"));
                Exit::NoDaemon
            }
        },
        // A post-mortem must not need a daemon that runs.
        Err(_) => read(daemon, &service, deploy, json),
    }
}

async fn print(mut client: Client, json: bool) -> Exit {
    loop {
        match client.next().await {
            Ok(None) => return Exit::Done,
            Ok(Some(Response::Entry(entry))) => show(&entry, json),
            Ok(Some(Response::Refused { code, because })) => {
                say::error(&because);
                return code.into();
            }
            Ok(Some(Response::Accepted { .. } | Response::Status(_))) => (),
            Err(error) => {
                say::error(&format!("the daemon went away: {error}"));
                return Exit::NoDaemon;
            }
        }
    }
}

fn read(daemon: &Daemon, service: &str, deploy: Option<Number>, json: bool) -> Exit {
    let path = daemon.config_path();
    let Ok(checked) = config::load(&path) else {
        say::error(&format!(
            "no daemon answers, and {} can not be read to find the timelines; name it with --config",
            path.display()
        ));
        return Exit::NoDaemon;
    };
    say::aside("no daemon answers; this is what lies on disk");
    if !checked.settings.services.contains_key(service) {
        say::error(&format!("no service {service} in {}", path.display()));
        return Exit::Unknown;
    }
    match record::read(&checked.settings.state_dir.join(service), deploy) {
        Ok(entries) => {
            entries.iter().for_each(|entry| show(entry, json));
            Exit::Done
        }
        Err(error) => {
            say::error(&error.whole());
            Exit::Unknown
        }
    }
}

fn show(entry: &Entry, json: bool) {
    if json {
        return say::json(entry);
    }
    if entry.seq == 1 {
        say::line(&format!("{} deploy {}, {}", entry.service, entry.deploy, entry.at));
    }
    if let Fact::Detected { verdict: Some(verdict), .. } = &entry.fact {
        let begun = entry.moment - std::time::Duration::from_millis(entry.ms);
        say::line(&row(verdict.onset.since(begun).as_millis(), "first bad", "estimated onset"));
    }
    say::line(&line(entry));
}

/// One entry for a reader.
pub(super) fn line(entry: &Entry) -> String {
    let mut text = entry.because.clone();
    if !entry.then.is_empty() {
        text.push_str(" -> ");
        text.push_str(&entry.then.join(", "));
    }
    row(u128::from(entry.ms), entry.fact.kind(), &text)
}

fn row(ms: u128, kind: &str, text: &str) -> String {
    let at = Moment(u64::try_from(ms).unwrap_or(u64::MAX)).to_string();
    format!("{at:>12}  {kind:<11}  {text}")
}
