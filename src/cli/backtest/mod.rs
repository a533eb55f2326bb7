//! `rollbackd backtest`: what would have happened, with these limits and with others.

mod contender;
mod injection;
mod outcome;
mod place;
mod plot;
mod prometheus;
mod replay;
mod source;
mod table;

use clap::Args;

use super::exit::Exit;
use super::{Daemon, say};

use contender::Contenders;
use injection::Injection;
use outcome::Outcome;
use place::Place;
use source::Source;

/// Replay what was recorded, with the current limits and with others.
///
/// The current configuration is the one of --current, else of ROLLBACKD_CONFIG, else the usual
/// one; --config names the candidate. Without either the defaults are used. Nothing is written, and
/// no daemon is asked.
///
/// A FILE is a recording (NNNNNN.signals) or a CSV with the header
/// `second,new_total,new_bad,old_total,old_bad`, one line a second; a second that is left out is
/// missing data. The sessions of back then are not recorded, so the strategy is chosen as if there
/// were none.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Services, for all their recordings, or files.
    #[arg(value_name = "SERVICE|FILE")]
    places: Vec<String>,
    /// The current configuration.
    #[arg(long, value_name = "FILE")]
    current: Option<std::path::PathBuf>,
    /// The service whose limits hold for a file or Prometheus; the only one by default.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only deploys from this number or date (2026-11-23, UTC); of a CSV, only from this second.
    #[arg(long, value_name = "N|DATE")]
    from: Option<place::From>,
    /// Make a share of the new release's good requests bad from a time on, and tell when it is
    /// found: `errors=5%@120s`; also `slow=` and `tools=`.
    #[arg(long, value_name = "KIND=SHARE@TIME")]
    what_if: Option<Injection>,
    #[command(flatten)]
    prometheus: prometheus::Options,
    /// One JSON object per source and configuration, a line each.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &Daemon) -> Exit {
    let contenders = match Contenders::load(options.current.clone(), daemon.config.clone()) {
        Ok(contenders) => contenders,
        Err(exit) => return exit,
    };
    let mut places = Vec::new();
    for named in &options.places {
        match place::find(named, options.from, &contenders) {
            Ok(found) => places.extend(found),
            Err((exit, what)) => {
                say::error(&what);
                return exit;
            }
        }
    }
    if options.prometheus.wanted() {
        places.push(Place::Prometheus);
    }
    if places.is_empty() {
        say::error("nothing to replay: name a service, a .signals or .csv file, or --prometheus");
        return Exit::BadArguments;
    }
    let mut worst = Exit::Done;
    for place in places {
        let source = match place {
            Place::Prometheus => prometheus::read(&options.prometheus).await,
            place => place.read(options.from),
        };
        let exit = match source {
            Ok(source) => replay(&source, &options, &contenders),
            Err(what) => {
                say::error(&what);
                Exit::Failed
            }
        };
        worst = if exit == Exit::Done { worst } else { exit };
    }
    worst
}

/// Both configurations, side by side.
fn replay(source: &Source, options: &Options, contenders: &Contenders) -> Exit {
    let service = source.service.as_ref().or(options.service.as_ref());
    let contenders = match contenders.of(service.map(String::as_str)) {
        Ok(contenders) => contenders,
        Err((exit, what)) => {
            say::error(&what);
            return exit;
        }
    };
    let mut tracks = Vec::new();
    for contender in &contenders {
        let (outcome, track): (Outcome, _) =
            replay::replay(source, contender, options.what_if.as_ref());
        if options.json {
            say::json(&outcome);
        } else {
            say::line(&outcome.to_string());
        }
        tracks.push(track);
    }
    if !options.json {
        let names: Vec<_> = contenders.iter().map(|it| it.name.as_str()).collect();
        say::line(&plot::draw(&names, &tracks, source.length()));
    }
    Exit::Done
}
