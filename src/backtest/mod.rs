//! `rollbackd backtest`: what would have happened, with these limits and with others.

mod csv;
mod injection;
mod location;
mod plot;
mod prometheus;
pub(super) mod recorded_traffic;
mod replay;
mod result;
mod source;
mod variants;

use clap::Args;

use crate::backtest::injection::Injection;
use crate::backtest::location::SourceLocation;
use crate::backtest::result::ReplayResult;
use crate::backtest::source::Source;
use crate::backtest::variants::Variants;
use crate::cli::exit::Exit;
use crate::cli::{DaemonOptions, output};

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
pub(crate) struct Options {
    /// Services, for all their recordings, or files.
    #[arg(value_name = "SERVICE|FILE")]
    sources: Vec<String>,
    /// The current configuration.
    #[arg(long, value_name = "FILE")]
    current: Option<std::path::PathBuf>,
    /// The service whose limits hold for a file or Prometheus; the only one by default.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only deploys from this number or date (2026-11-23, UTC); of a CSV, only from this second.
    #[arg(long, value_name = "N|DATE")]
    from: Option<location::ReplayStart>,
    /// Make a share of the new release's good requests bad from a time on, and tell when it is
    /// found: `errors=5%@120s`; also `slow=` and `tools=`.
    #[arg(long, value_name = "KIND=SHARE@TIME")]
    what_if: Option<Injection>,
    #[command(flatten)]
    prometheus: prometheus::PrometheusOptions,
    /// One JSON object per source and configuration, a line each.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let variants = match Variants::load(options.current.clone(), daemon.config.clone()) {
        Ok(contenders) => contenders,
        Err(exit) => return exit,
    };
    let mut locations = Vec::new();
    for named in &options.sources {
        match location::locate(named, options.from, &variants) {
            Ok(found) => locations.extend(found),
            Err((exit, what)) => {
                output::error_line(&what);
                return exit;
            }
        }
    }
    if options.prometheus.is_requested() {
        locations.push(SourceLocation::Prometheus);
    }
    if locations.is_empty() {
        output::error_line(
            "nothing to replay: name a service, a .signals or .csv file, or --prometheus",
        );
        return Exit::InvalidArguments;
    }
    let mut exit_code = Exit::Done;
    for location in locations {
        let source = match location {
            SourceLocation::Prometheus => prometheus::load(&options.prometheus).await,
            location => location.load(options.from),
        };
        let exit = match source {
            Ok(source) => print_replay(&source, &options, &variants),
            Err(what) => {
                output::error_line(&what);
                Exit::Failed
            }
        };
        exit_code = if exit == Exit::Done { exit_code } else { exit };
    }
    exit_code
}

/// Both configurations, side by side.
fn print_replay(source: &Source, options: &Options, contenders: &Variants) -> Exit {
    let service = source.service.as_ref().or(options.service.as_ref());
    let variants = match contenders.for_service(service.map(String::as_str)) {
        Ok(contenders) => contenders,
        Err((exit, what)) => {
            output::error_line(&what);
            return exit;
        }
    };
    let mut curves = Vec::new();
    for contender in &variants {
        let (outcome, curve): (ReplayResult, _) =
            replay::replay(source, contender, options.what_if.as_ref());
        if options.json {
            output::json_line(&outcome);
        } else {
            output::stdout_line(&outcome.to_string());
        }
        curves.push(curve);
    }
    if !options.json {
        let names: Vec<_> = variants.iter().map(|it| it.config_name.as_str()).collect();
        output::stdout_line(&plot::render(&names, &curves, source.duration()));
    }
    Exit::Done
}
