//! `rollbackd deploy`

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::ask::{ask, can_ask};
use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::{Ended, Followed, Goal, follow};
use crate::cli::output;
use crate::control::Request;
use crate::model::{DeployRequest, OutsideLinks, Slot, Waiver};

/// Start a new release, wait until it is ready, and give it the traffic.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The version of the release.
    #[arg(add = complete::versions())]
    version: String,
    /// What it runs from: a path or an image reference.
    #[arg(long)]
    artifact: Option<String>,
    /// A variable for its environment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// The slot where it runs; by default a free one.
    #[arg(long)]
    slot: Option<String>,
    /// After a breach, page and hold, but never roll back: for changes that cannot be undone.
    #[arg(long)]
    freeze: bool,
    /// All of --allow-quarantined, --allow-version-drop, --over-breach and --without-net. The
    /// timeline says which one was needed.
    #[arg(long)]
    force: bool,
    /// Deploy a release that was rolled back before.
    #[arg(long)]
    allow_quarantined: bool,
    /// Deploy a release without a protocol version that live sessions use.
    #[arg(long)]
    allow_version_drop: bool,
    /// Deploy over a release on trial that is in breach or held. The traffic goes back to the last
    /// accepted release at once, unless the trial is frozen; open requests of the trial end with an
    /// error.
    #[arg(long)]
    over_breach: bool,
    /// Deploy though no automatic rollback is left today. A terminal is asked instead.
    #[arg(long)]
    without_net: bool,
    /// Start the release again, in another slot, if it is active already.
    #[arg(long)]
    restart: bool,
    /// Fail before the release gets traffic if it drops a tool, a prompt or a capability that
    /// clients used in the last hour, or requires more arguments.
    #[arg(long, conflicts_with = "force")]
    strict: bool,
    /// Follow until the release is accepted, failed, or rolled back.
    #[arg(long)]
    wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { wait, json, .. } = options;
    let mut environment = BTreeMap::new();
    for (key, value) in options.set {
        if environment.contains_key(&key) {
            output::error_line(&format!("{key} is set twice; write it once"));
            return Exit::InvalidArguments;
        }
        environment.insert(key, value);
    }
    let service = options.service.clone();
    let followed = Followed { service, goal: Goal::Deploy, wait, json };
    let deploy = DeployRequest {
        service: options.service,
        version: options.version,
        artifact: options.artifact,
        digest: None,
        outside_links: OutsideLinks::default(),
        environment,
        slot: options.slot.map(Slot),
        freeze: options.freeze,
        force: options.force,
        strict: options.strict,
        wait,
        allow_quarantined: options.allow_quarantined,
        allow_version_drop: options.allow_version_drop,
        over_breach: options.over_breach,
        without_net: options.without_net,
        restart: options.restart,
    };
    let refused = match send(deploy.clone(), daemon, &followed).await {
        Ended { waiver: Some(Waiver::WithoutNet), exit } if !json && can_ask() => exit,
        ended => return ended.exit,
    };
    match ask("Deploy it without an automatic rollback? [y/N] ") {
        Some(answer) if ["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()) => {
            send(DeployRequest { without_net: true, ..deploy }, daemon, &followed).await.exit
        }
        _ => refused,
    }
}

async fn send(deploy: DeployRequest, daemon: &DaemonOptions, followed: &Followed) -> Ended {
    match daemon.send_request(&Request::Deploy(deploy)).await {
        Ok(client) => follow(client, daemon, followed).await,
        Err(exit) => exit.into(),
    }
}
