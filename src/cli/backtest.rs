//! `rollbackd backtest`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Url;

use crate::backtest::comparison::{Comparison, Regression};
use crate::backtest::injection::Injection;
use crate::backtest::labelled::{self, LabelledDeploys};
use crate::backtest::location::{self, ReplayStart, SourceLocation};
use crate::backtest::prometheus::{CounterPair, RangeQuery};
use crate::backtest::source::Source;
use crate::backtest::variants::Variants;
use crate::backtest::{BacktestError, plot, replay, time};
use crate::cli::daemon_options::{DEFAULT_CONFIG_PATH, DaemonOptions};
use crate::cli::exit::Exit;
use crate::cli::{check, complete, output};
use crate::model::Moment;

/// Replay recorded traffic with the current settings and with others.
///
/// The current configuration is the one of --current, else of ROLLBACKD_CONFIG, else the default
/// one; --config names the candidate. Without either, the default settings apply. Backtest writes
/// nothing and needs no daemon.
///
/// A FILE is a recording (NNNNNN.signals) or a CSV with the header
/// `second,new_total,new_bad,old_total,old_bad` and one line a second; `,new_subjects_bad,old_subjects_bad`
/// may follow, the users that the bad requests were of. A missing second is missing data. Recordings do not hold the sessions: the strategy is chosen as if there were none.
///
/// --labelled replays the deploys whose post-mortem was closed with a verdict, and compares. It exits
/// with 11 if a bad release is no longer found, else with 3 if a good one would now be rolled back: with
/// the candidate, else with the current configuration.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Services, for all their recordings, or files.
    #[arg(value_name = "SERVICE|FILE", add = complete::services_and_files())]
    sources: Vec<String>,
    /// Replay the deploys of these services, or of all, whose post-mortem was closed with a verdict:
    /// which false alarms would be avoided, which bad releases still found.
    #[arg(long, conflicts_with_all = ["what_if", "service", "prometheus"])]
    labelled: bool,
    /// The current configuration.
    #[arg(long, value_name = "FILE")]
    current: Option<PathBuf>,
    /// The service whose settings apply to a file or to Prometheus; by default the only one.
    #[arg(long, value_name = "NAME", add = complete::services())]
    service: Option<String>,
    /// Only deploys from this number or date (2026-11-23, UTC); of a CSV, only from this second.
    #[arg(long, value_name = "N|DATE")]
    from: Option<ReplayStart>,
    /// Make a share of the new release's good requests bad from a time on, and report when the
    /// judge detects it: `errors=5%@120s`; also `slow=` and `tools=`.
    #[arg(long, value_name = "KIND=SHARE@TIME")]
    what_if: Option<Injection>,
    #[command(flatten)]
    prometheus: PrometheusOptions,
    /// One JSON object per source and configuration, a line each; with --labelled one object.
    #[arg(long)]
    json: bool,
}

/// Which counters of Prometheus, in which range.
#[derive(Debug, Args)]
#[group(skip)]
struct PrometheusOptions {
    /// Replay a range from this Prometheus, such as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL", requires_all = ["total", "bad", "start", "end"])]
    prometheus: Option<Url>,
    /// A counter of all requests of the new release: one series, such as `sum(requests_total)`.
    #[arg(long, value_name = "EXPR", requires = "prometheus")]
    total: Option<String>,
    /// A counter of the bad ones among them.
    #[arg(long, value_name = "EXPR", requires = "prometheus")]
    bad: Option<String>,
    /// The same for the old release.
    #[arg(long, value_name = "EXPR", requires_all = ["prometheus", "old_bad"])]
    old_total: Option<String>,
    /// The bad ones of the old release.
    #[arg(long, value_name = "EXPR", requires_all = ["prometheus", "old_total"])]
    old_bad: Option<String>,
    /// When to begin: a date, an RFC 3339 time, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment, requires = "prometheus")]
    start: Option<Moment>,
    /// When to end.
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment, requires = "prometheus")]
    end: Option<Moment>,
    /// The time from one sample to the next; not shorter than the scrape interval.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::parse_step)]
    step: Duration,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    match replay_all(options, daemon.config.clone()).await {
        Ok(exit) => exit,
        Err(error) => report(&error),
    }
}

/// Replays every source. A source that cannot be replayed does not end the others.
async fn replay_all(
    options: Options,
    config_option: Option<PathBuf>,
) -> Result<Exit, BacktestError> {
    let default_path = || Some(PathBuf::from(DEFAULT_CONFIG_PATH)).filter(|path| path.exists());
    let from_environment = std::env::var_os("ROLLBACKD_CONFIG").map(PathBuf::from);
    let current = options.current.clone().or(from_environment).or_else(default_path);
    // --config also reads the environment: what is not from there is the candidate.
    let candidate = config_option.filter(|named| Some(named) != current.as_ref());
    let variants = Variants::load(current, candidate)?;
    if options.labelled {
        return compare_labelled(&options, &variants);
    }
    let mut locations = Vec::new();
    for named in &options.sources {
        locations.extend(location::locate(named, options.from, &variants)?);
    }
    locations.extend(
        options.prometheus.query().map(|query| SourceLocation::Prometheus(Box::new(query))),
    );
    if locations.is_empty() {
        return Err(BacktestError::Usage(
            "nothing to replay: name a service, a .signals or .csv file, or --prometheus"
                .to_owned(),
        ));
    }
    let mut exit = Exit::Done;
    for location in locations {
        let replayed = match location.load(options.from).await {
            Ok(source) => print_replay(&source, &options, &variants),
            Err(error) => Err(error),
        };
        if let Err(error) = replayed {
            exit = report(&error);
        }
    }
    Ok(exit)
}

/// Replays every labelled deploy, and prints what changes. A recording that cannot be read does not end
/// the others.
fn compare_labelled(options: &Options, variants: &Variants) -> Result<Exit, BacktestError> {
    let LabelledDeploys { deploys, remarks } =
        labelled::find(&options.sources, options.from, variants)?;
    remarks.iter().for_each(|remark| output::stderr_line(remark));
    let mut comparison = Comparison::default();
    let mut exit = Exit::Done;
    for deploy in &deploys {
        let source = match deploy.load() {
            Ok(source) => source,
            Err(error) => {
                exit = report(&error);
                continue;
            }
        };
        source.warnings.iter().for_each(|warning| output::stderr_line(warning));
        for variant in &variants.for_service(Some(&deploy.service))? {
            let (result, _) = replay::replay(&source, variant, None);
            comparison.add(deploy, &source, result);
        }
    }
    if comparison.is_empty() {
        return Ok(if exit == Exit::Done { Exit::NotFound } else { exit });
    }
    if options.json {
        output::json_line(&comparison);
    } else {
        output::stdout_line(comparison.to_string().trim_end());
    }
    Ok(match comparison.regression() {
        Some(Regression::NoLongerFound) => Exit::BreachNotRolledBack,
        Some(Regression::NewFalseAlarm) => Exit::RolledBack,
        None => exit,
    })
}

/// Prints the result of each configuration, and both curves.
fn print_replay(
    source: &Source,
    options: &Options,
    variants: &Variants,
) -> Result<(), BacktestError> {
    source.warnings.iter().for_each(|warning| output::stderr_line(warning));
    let service = source.service.as_ref().or(options.service.as_ref());
    let variants = variants.for_service(service.map(String::as_str))?;
    let mut curves = Vec::new();
    for variant in &variants {
        let (result, curve) = replay::replay(source, variant, options.what_if.as_ref());
        if options.json {
            output::json_line(&result);
        } else {
            output::stdout_line(&result.to_string());
        }
        curves.push(curve);
    }
    if !options.json {
        let names: Vec<_> = variants.iter().map(|it| it.config_name.as_str()).collect();
        output::stdout_line(&plot::render(&names, &curves, source.duration()));
    }
    Ok(())
}

fn report(error: &BacktestError) -> Exit {
    let (exit, what) = match error {
        BacktestError::Usage(what) => (Exit::InvalidArguments, what),
        BacktestError::NotFound(what) => (Exit::NotFound, what),
        BacktestError::Failed(what) => (Exit::Failed, what),
        BacktestError::InvalidConfig(path, problems) => {
            check::report_problems(path, problems);
            return Exit::InvalidConfig;
        }
    };
    output::error_line(what);
    exit
}

impl PrometheusOptions {
    /// The query, if there is one: clap requires the other options with --prometheus.
    fn query(&self) -> Option<RangeQuery> {
        let pair = |total: &Option<String>, bad: &Option<String>| {
            Some(CounterPair { total: total.clone()?, bad: bad.clone()? })
        };
        Some(RangeQuery {
            base: self.prometheus.clone()?,
            new: pair(&self.total, &self.bad)?,
            old: pair(&self.old_total, &self.old_bad),
            start: self.start?,
            end: self.end?,
            step: self.step,
        })
    }
}
