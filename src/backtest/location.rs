//! Finds signals: the recordings of a service, a recording, a CSV file, a range of Prometheus.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::backtest::prometheus::{self, RangeQuery};
use crate::backtest::source::Source;
use crate::backtest::variants::Variants;
use crate::backtest::{BacktestError, csv, time};
use crate::config::Settings;
use crate::model::{Moment, ReleaseNumber};
use crate::record;

/// One source that can be replayed.
#[derive(Debug)]
pub(crate) enum SourceLocation {
    /// The recording of a deploy of a service.
    ServiceRecording(String, ReleaseNumber, PathBuf),
    /// A recording in any folder.
    Recording(PathBuf),
    /// A CSV file of counts.
    CsvFile(PathBuf),
    /// Counters of Prometheus.
    Prometheus(Box<RangeQuery>),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayStart {
    /// The number of a deploy, or a second of a CSV file.
    DeployOrSecond(u64),
    /// A date.
    Date(Moment),
}

/// Finds what an argument names: a file if it looks like a path, else a service.
pub(crate) fn locate(
    named: &str,
    from: Option<ReplayStart>,
    variants: &Variants,
) -> Result<Vec<SourceLocation>, BacktestError> {
    let path = PathBuf::from(named);
    if path.extension().is_some_and(|it| it == "signals") {
        return Ok(vec![SourceLocation::Recording(path)]);
    }
    let known = variants.settings().is_some_and(|it| it.services.contains_key(named));
    if !known && (named.contains('/') || path.extension().is_some() || path.is_file()) {
        return match from {
            Some(ReplayStart::Date(_)) => {
                let what = "--from takes a second for a CSV file; write a whole number";
                Err(BacktestError::Usage(what.to_owned()))
            }
            _ => Ok(vec![SourceLocation::CsvFile(path)]),
        };
    }
    let dir = service_dir(named, variants)?;
    let recordings = record::list_signal_logs(&dir).unwrap_or_default();
    let wanted = recordings.into_iter().filter(|(number, path)| match from {
        Some(ReplayStart::DeployOrSecond(first)) => first <= u64::from(number.0),
        Some(ReplayStart::Date(day)) => {
            record::read_signal_log(path).is_ok_and(|it| day <= it.header.opened)
        }
        None => true,
    });
    let locations: Vec<_> = wanted
        .map(|(number, path)| SourceLocation::ServiceRecording(named.to_owned(), number, path))
        .collect();
    if locations.is_empty() {
        let dir = dir.display();
        let what = format!("no such recording of {named} in {dir}; each deploy makes one");
        return Err(BacktestError::NotFound(what));
    }
    Ok(locations)
}

/// The folder of a service, by the current configuration.
pub(crate) fn service_dir(service: &str, variants: &Variants) -> Result<PathBuf, BacktestError> {
    let settings = settings_of(service, variants)?;
    if settings.services.contains_key(service) {
        return Ok(settings.state_dir.join(service));
    }
    let names: Vec<_> = settings.services.keys().map(String::as_str).collect();
    let names = names.join(", ");
    let what = format!("no service {service}; the configuration has {names}");
    Err(BacktestError::NotFound(what))
}

/// The configuration that names the folder of `what`.
pub(super) fn settings_of<'v>(
    what: &str,
    variants: &'v Variants,
) -> Result<&'v Settings, BacktestError> {
    variants.settings().ok_or_else(|| {
        BacktestError::NotFound(format!(
            "no configuration names the folder of the recordings of {what}; write --current FILE"
        ))
    })
}

impl SourceLocation {
    /// Reads the signals.
    pub(crate) async fn load(&self, from: Option<ReplayStart>) -> Result<Source, BacktestError> {
        let source = match self {
            Self::ServiceRecording(service, number, path) => {
                let mut source = load_recording(format!("{service} deploy {number}"), path);
                if let Ok(source) = &mut source {
                    source.service = Some(service.clone());
                }
                source
            }
            Self::Recording(path) => load_recording(path.display().to_string(), path),
            Self::CsvFile(path) => {
                let from = match from {
                    Some(ReplayStart::DeployOrSecond(second)) => second,
                    Some(ReplayStart::Date(_)) | None => 0,
                };
                csv::load(path, from)
            }
            Self::Prometheus(query) => prometheus::load(query).await,
        };
        source.map_err(BacktestError::Failed)
    }
}

pub(super) fn load_recording(name: String, path: &Path) -> Result<Source, String> {
    let recording = record::read_signal_log(path).map_err(|error| error.to_string())?;
    let mut warnings = Vec::new();
    let path = path.display();
    if recording.truncated_bytes > 0 {
        let bytes = recording.truncated_bytes;
        warnings.push(format!("{path}: the last {bytes} bytes are incomplete and left out"));
    }
    if recording.size_limit_reached {
        warnings.push(format!("{path}: size limit reached; the rest of the bake is missing"));
    }
    let mut source = Source::from_recording(name, recording);
    source.warnings = warnings;
    Ok(source)
}

impl FromStr for ReplayStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::DeployOrSecond(number));
        }
        time::parse_moment(text).map(Self::Date)
    }
}
